"""The three voters of study 4 as one object: from a recording to moments, words, the vote and an alert.

    recogniser = Recogniser.load(folder)                   # what notebooks 04, 05 and 06 leave there
    report = recogniser.follow("night.m4a", "kitchen")     # timeline, words, votes and alerts; or of an array
    for alert in recogniser.watch(microphone, "kitchen"):  # alerts as they come; or of a file, or of an array
        outbox.put(alert)

A study, and no safety device.
"""

import hashlib
import json
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from lib.data.cache import atomic
from lib.data.catalog import DataError, readable, written_by
from lib.data.decoding import decode
from lib.emergency.classes import find
from lib.emergency.cnn.network import load_cnn, logits_of
from lib.emergency.features import HOP, RATE, SILENT, log_mel, scaled
from lib.emergency.recogniser import ensemble
from lib.emergency.recogniser.alert import Alert
from lib.emergency.recogniser.listener import WINDOW, Alarm, Listener, Rule, windows
from lib.emergency.whisper.model import EmergencyWhisper
from lib.emergency.whisper.model import load as load_whisper
from lib.emergency.whisper.text import TextClassifier, load_text
from lib.emergency.whisper.training import predict_frames, smoothed
from lib.forking import give_back
from lib.metrics.classification import fit_temperature, raised

CNN, ENCODER, TEXT = "CNN", "Whisper encoder", "decoder's text"
_FILE = "recogniser.json"
_SURE = 20.0  # logit of what needs no network: that silence is silent

Source = str | os.PathLike | np.ndarray | Iterable[np.ndarray]


@dataclass(frozen=True)
class Opinion:
    """Of clips: logits (N, classes) of each voter, of the encoder's moments (N, moments, classes), and the words."""

    votes: dict[str, Tensor] = field(repr=False)
    moments: Tensor = field(repr=False)
    texts: tuple[str, ...]


@dataclass(frozen=True)
class Report:
    """What a recording came to.

    times: (moments,) seconds at which each begins. probabilities: (moments, classes), as `moment_probabilities`, each
    the mean of the windows that hold it. alarms: (seconds at which it was raised, upheld by the vote). alerts: of those
    upheld. at, window: where that window begins in which an emergency is likeliest, in seconds, and its samples, (n,)
    int16. opinion: what each voter says of that window, and the words in it.
    """

    times: np.ndarray = field(repr=False)
    probabilities: np.ndarray = field(repr=False)
    alarms: tuple[tuple[float, bool], ...]
    alerts: tuple[Alert, ...]
    at: float
    window: np.ndarray = field(repr=False)
    opinion: Opinion


class Heard(NamedTuple):
    """A window of a stream: its samples (n,), what `Listener.hear` says of it, and the alert that the vote upholds."""

    samples: np.ndarray
    times: np.ndarray
    probabilities: np.ndarray
    alarm: Alarm | None
    alert: Alert | None


@dataclass(frozen=True)
class Recogniser:
    """alarming: classes that alarm. temperatures: per voter, from `calibrated`. rule: when a stream alarms."""

    cnn: nn.Sequential
    whisper: EmergencyWhisper
    text: TextClassifier
    classes: tuple[str, ...]
    alarming: tuple[int, ...] = ()
    temperatures: dict[str, float] = field(default_factory=lambda: dict.fromkeys((CNN, ENCODER, TEXT), 1.0))
    rule: Rule = field(default_factory=Rule)

    @staticmethod
    def assemble(folder: Path, alarming: Sequence[int]) -> "Recogniser":
        """The voters as they were trained, not yet calibrated.

        Raises:
            DataError: one is missing or damaged, or they tell other classes apart.
        """
        cnn, classes = load_cnn(folder / "cnn.safetensors")
        whisper, text = load_whisper(folder / "whisper"), load_text(folder / "text.json")
        if whisper.classes != classes or text.classes != len(classes) or not {*alarming} <= {*range(len(classes))}:
            raise DataError(f"The models in {folder} know different classes. Run notebooks 04 and 05 on the same data.")
        return Recogniser(cnn, whisper, text, classes, tuple(alarming))

    @staticmethod
    def load(folder: Path) -> "Recogniser":
        """What `save` wrote, beside the models of its voters.

        Raises:
            DataError: something is missing or damaged.
        """
        with written_by("06", folder / _FILE):
            about = json.loads((folder / _FILE).read_text(encoding="utf-8"))
            alarming, temperatures, rule = about["alarming"], about["temperatures"], Rule(**about["rule"])
        found = replace(Recogniser.assemble(folder, alarming), temperatures=temperatures, rule=rule)
        give_back()  # 80 MB of a Whisper-base: what only the loading needed
        return found

    def save(self, folder: Path) -> None:
        """Keep what the models in `folder` do not say themselves."""
        about = {"alarming": self.alarming, "temperatures": self.temperatures, "rule": vars(self.rule)}
        with atomic(folder / _FILE) as temporary:
            temporary.write_text(json.dumps(about, indent=1), encoding="utf-8")

    def calibrated(self, opinion: Opinion, labels: Tensor) -> "Recogniser":
        """With a temperature for each voter, from votes on clips that it did not learn (`voting.out_of_fold`)."""
        fitted = {name: fit_temperature(logits, labels) for name, logits in opinion.votes.items()}
        return replace(self, temperatures=fitted)

    def digest(self) -> str:
        """Of all weights and settings: two recognisers with the same digest say the same."""
        parts = hashlib.sha256(self.whisper.digest().encode())
        for value in self.cnn.state_dict().values():
            parts.update(value.cpu().contiguous().numpy().data)
        parts.update(repr((self.text.temperature, self.alarming, self.temperatures, self.rule)).encode())
        return parts.hexdigest()

    def predict(self, samples: Tensor, *, words: bool = True) -> Opinion:
        """Clips (N, n), int16 or floats in -1 to 1 at 16 kHz, each scaled to the same peak and encoded once.

        Silent clips skip all networks. words: whether the decoder runs, where the encoder does not predict silence.

        Raises:
            ValueError: the clips are not finite.
        """
        floats = samples.is_floating_point()
        samples = samples.float() if floats else samples  # of any precision
        if not torch.isfinite(samples).all():
            raise ValueError("clips hold samples that are not finite (NaN or infinity); leave those clips out")
        silence = torch.zeros(len(self.classes))
        silence[0], silence[list(self.alarming)] = _SURE, -_SURE
        positions = -(-(samples.shape[1] // HOP) // 2)
        moments = silence.repeat(len(samples), positions // self.whisper.head.stack, 1)
        cnn, encoder = silence.repeat(2, len(samples), 1)
        texts = [""] * len(samples)
        peaks = samples.abs() if floats else samples.int().abs() / 32768
        loud = (peaks.amax(1) >= SILENT).nonzero()[:, 0]
        for places in loud.split(64) if len(loud) else ():
            some = scaled(samples[places])
            mel, bands = log_mel(some), self.whisper.mels  # large-v3 and turbo take 128, the CNN 80
            heard = predict_frames(self.whisper, mel if bands == mel.shape[1] else log_mel(some, bands), words=words)
            cnn[places], encoder[places] = logits_of(self.cnn, mel[:, None]), heard.clips
            moments[places] = heard.moments
            for place, text in zip(places.tolist(), heard.texts, strict=True):
                texts[place] = text
        return Opinion({CNN: cnn, ENCODER: encoder, TEXT: self.text.logits(texts)}, moments, tuple(texts))

    def calibrated_votes(self, opinion: Opinion) -> dict[str, Tensor]:
        """The logits (N, classes) of each voter, divided by its temperature."""
        return {name: logits / self.temperatures[name] for name, logits in opinion.votes.items()}

    def moment_probabilities(self, opinion: Opinion) -> np.ndarray:
        """(N, moments, classes), softened by the temperature of clips; that of frames is not fitted."""
        return (opinion.moments / self.temperatures[ENCODER]).softmax(-1).numpy()

    # --- Streams ----------------------------------------------------------------------------------

    def watch(self, source: Source, location: str = "", *, started: float | None = None) -> Iterator[Alert]:
        """Alerts as they come: raised by the encoder, upheld by two voters of three.

        source: a stream of chunks (n,) of any lengths at 16 kHz, int16 or floats in -1 to 1; or one array of them; or
        the path of a recording of any common format.
        location: where the microphone is, as configured. started: of the sound, in seconds since 1970; default: now.

        Raises:
            DataError: the recording cannot be read; the message says why.
            ValueError: an array is not (n,) of int16 or floats in -1 to 1.
        """
        for heard in self.listen(_chunks(source), location, started):
            if heard.alert is not None:
                yield heard.alert

    def follow(self, source: Source, location: str = "", *, started: float | None = None) -> Report:
        """`watch` to the end, and all that was heard. Silence fills up a source of less than `WINDOW`.

        Raises:
            DataError: the recording cannot be read; the message says why.
            ValueError: as `watch`.
        """
        samples = np.concatenate([np.zeros(0, np.int16), *_chunks(source)])
        samples = np.pad(samples, (0, max(round(WINDOW * RATE) - len(samples), 0)))
        heard, step = list(self.listen([samples], location, started)), self.whisper.seconds_per_moment
        parts = [(one.times, one.probabilities) for one in heard]
        for place, later in enumerate(heard[1:]):  # no window to come holds what begins before it
            before = heard[place].times < later.times[0] - step / 2 + 1e-9
            parts[place] = heard[place].times[before], heard[place].probabilities[before]
        times, probabilities = (np.concatenate(part) for part in zip(*parts, strict=True))
        likeliest = max(heard, key=lambda one: one.probabilities[:, list(self.alarming)].sum(1).mean())
        return Report(
            times,
            probabilities,
            tuple((one.alarm.at, one.alert is not None) for one in heard if one.alarm is not None),
            tuple(one.alert for one in heard if one.alert is not None),
            float(likeliest.times[0]),
            likeliest.samples,
            self.predict(torch.from_numpy(likeliest.samples)[None]),
        )

    def listen(self, chunks: Iterable[np.ndarray], location: str, started: float | None) -> Iterator[Heard]:
        """Of each window: the encoder's moments, which are cheap, and what the others say where these alarm."""
        started = time.time() if started is None else started
        listener = Listener(self.alarming, self.whisper.seconds_per_moment, self.rule)
        for at, samples in windows(chunks):
            times, probabilities, alarm = listener.hear(at, samples, self._scored(samples))
            alert = None if alarm is None else self.judge(alarm, location, started)
            if alarm is not None and alert is None:
                listener.overruled()
            yield Heard(samples, times, probabilities, alarm, alert)

    def _scored(self, samples: np.ndarray) -> np.ndarray:
        """int16 (n,) -> the encoder's probabilities (moments, classes); silence is class 0, unless that alarms."""
        step = self.whisper.seconds_per_moment
        floats = samples.astype(np.float32) / 32768
        if np.abs(floats).max() < SILENT:
            probabilities = np.zeros((int(len(samples) / RATE / step + 1e-6), len(self.classes)))
            probabilities[:, 0] = 0 not in self.alarming
            return probabilities
        with torch.inference_mode():
            moments = smoothed(self.whisper(log_mel(scaled(torch.from_numpy(floats)[None]), self.whisper.mels)), step)
            return (moments[0] / self.temperatures[ENCODER]).softmax(-1).numpy()

    def judge(self, alarm: Alarm, location: str, started: float) -> Alert | None:
        """The alert of an alarm, if two voters of three uphold it; of the window in which it was heard."""
        opinion = self.predict(torch.from_numpy(alarm.samples)[None])
        votes = self.calibrated_votes(opinion)
        if not ensemble.majority(votes, self.alarming):
            return None
        probability = ensemble.mean_probability(votes).exp()[0, list(self.alarming)]
        kind = readable(self.classes[self.alarming[int(probability.argmax())]])
        row = find(kind)
        korean = row.korean if row else kind  # a class of somebody's own
        callers = tuple(name for name, logits in votes.items() if raised(logits, self.alarming))
        return Alert(kind, korean, float(probability.sum()), callers, alarm.onset, started + alarm.at, location,
                     opinion.texts[0], self.digest(), alarm.samples)  # fmt: skip


def _chunks(source: Source) -> Iterator[np.ndarray]:
    """int16 (n,)."""
    if isinstance(source, str | os.PathLike):
        source = decode(source)
    for part in [source] if isinstance(source, np.ndarray | Tensor) else source:
        part = np.asarray(part)
        in_range = part.dtype.kind == "f" and np.abs(part).max(initial=0) <= 1  # a NaN is not
        if part.ndim != 1 or not (part.dtype == np.int16 or in_range):
            raise ValueError(f"sound is {part.dtype} {part.shape}, expected (n,) at 16 kHz, int16 or finite floats in "
                             "-1 to 1: clip or divide them (by 32768 if they are of 16 bits)")  # fmt: skip
        if part.dtype != np.int16:
            part = np.rint(part.astype(np.float64) * 32768).clip(-32768, 32767).astype(np.int16)
        yield part
