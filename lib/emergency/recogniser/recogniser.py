"""The three voters of study 4 as one object: from a recording to moments, words, the vote and an alert.

    recogniser = Recogniser.load(folder)                   # what notebooks 04, 05 and 06 leave there
    report = recogniser.follow("night.m4a", "kitchen")     # timeline, words, votes and alerts; or of an array
    for alert in recogniser.watch(microphone, "kitchen"):  # alerts as they come; or of a file, or of an array
        outbox.put(alert)

A study, and no safety device.
"""

import hashlib
import itertools
import json
import os
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from lib.data.cache import atomic
from lib.data.catalog import DataError, readable
from lib.data.decoding import WILD, decode_in_parts
from lib.emergency.classes import find
from lib.emergency.cnn.network import load_cnn, logits_of
from lib.emergency.features import HOP, RATE, SILENT, log_mel, scaled
from lib.emergency.recogniser import ensemble
from lib.emergency.recogniser.alert import Alert
from lib.emergency.recogniser.listener import WINDOW, Alarm, Listener, Rule
from lib.emergency.whisper.model import EmergencyWhisper
from lib.emergency.whisper.model import load as load_whisper
from lib.emergency.whisper.text import TextClassifier, load_text
from lib.emergency.whisper.training import predict_frames, smoothed
from lib.forking import give_back
from lib.metrics.classification import fit_temperature, raised

CNN, ENCODER, TEXT = "CNN", "Whisper encoder", "decoder's text"
SHORTEST = 1.0  # seconds of a recording
_FILE = "recogniser.json"
_FRAMES = 64  # that every variant of the CNN can take
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
        try:
            about = json.loads((folder / _FILE).read_text(encoding="utf-8"))
            alarming, temperatures, rule = about["alarming"], about["temperatures"], Rule(**about["rule"])
            whole = temperatures.keys() == {CNN, ENCODER, TEXT} and all(0 < t < 1e6 for t in temperatures.values())
            whole = whole and all(type(number) is int for number in (*alarming, rule.k, rule.n))
            if not whole or not rule.refractory >= 0:  # nor is it of a NaN
                raise ValueError(f"{_FILE} has missing or invalid settings")
        except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise DataError(f"There is no recogniser in {folder} ({error}). Notebook 06 writes one: run it.") from error
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
            ValueError: the clips are not (N, n) of int16 or floats, shorter than the CNN's 0.64 s, or not finite.
        """
        floats = samples.is_floating_point()
        if samples.ndim != 2 or samples.shape[1] < _FRAMES * HOP or not (floats or samples.dtype == torch.int16):
            raise ValueError(f"clips are {samples.dtype} {tuple(samples.shape)}, expected int16, or floats in -1 to 1, "
                             f"(clips, samples) at 16 kHz mono, of {_FRAMES * HOP / RATE:g} s or more")  # fmt: skip
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

    def listener(self, window: float = WINDOW) -> Listener:
        """Of the encoder's moments alone, which is cheap; the others are asked when it alarms."""

        def score(samples: np.ndarray) -> np.ndarray:
            with torch.inference_mode():
                moments = self.whisper(log_mel(scaled(torch.from_numpy(samples)[None]), self.whisper.mels))
                moments = smoothed(moments, self.whisper.seconds_per_moment)
                return (moments[0] / self.temperatures[ENCODER]).softmax(-1).numpy()

        step = self.whisper.seconds_per_moment
        n = min(self.rule.n, int(window / step + 1e-6))
        rule = replace(self.rule, k=min(self.rule.k, n), n=n)
        return Listener(score, self.alarming, step, len(self.classes), rule, window)

    def watch(self, source: Source, location: str = "", *, started: float | None = None) -> Iterator[Alert]:
        """Alerts as they come: raised by the encoder, upheld by two voters of three.

        source: a stream of chunks (n,) of any lengths at 16 kHz, int16 or floats in -1 to 1; or one array of them; or
        the path of a recording of any common format, of which seconds are in memory at a time.
        location: where the microphone is, as configured. started: of the sound, in seconds since 1970; default: now.

        Raises:
            DataError: the recording cannot be read; the message says why.
            ValueError: an array is not (n,) of int16 or floats, not finite, or by far not in -1 to 1.
        """
        for judged in self._judged(self.listener(), _chunks(source), location, started):
            yield from (alert for _, alert in judged if alert is not None)

    def follow(self, source: Source, location: str = "", *, started: float | None = None) -> Report:
        """`watch` to the end, and all that was heard. A source of less than `WINDOW` is heard as a whole.

        Raises:
            DataError: the recording cannot be read; the message says why.
            ValueError: as `watch`, or there is less than `SHORTEST` of sound.
        """
        chunks, first, count = _chunks(source), [], 0
        while count < WINDOW * RATE and (chunk := next(chunks, None)) is not None:
            first.append(chunk)
            count += len(chunk)
        if count < SHORTEST * RATE:
            what = f"{readable(os.fspath(source))} holds" if isinstance(source, str | os.PathLike) else "there are"
            raise ValueError(f"{what} {count / RATE:.4g} s of sound, and {SHORTEST:g} s is the least that is heard")
        step = self.whisper.seconds_per_moment
        listener = self.listener(min(WINDOW, int(count / RATE / step + 1e-6) * step))
        alarms, alerts, timeline, last = [], [], [], None
        likeliest, at, window = -1.0, 0.0, listener.newest
        for judged in self._judged(listener, itertools.chain(first, chunks), location, started):
            alarms += [(alarm.at, alert is not None) for alarm, alert in judged]
            alerts += [alert for _, alert in judged if alert is not None]
            times, probabilities = listener.timeline()
            if not len(times) or (last is not None and times[0] == last[0][0]):
                continue  # no window was completed
            if last is not None:  # no window to come holds what began before this one
                timeline.append([part[last[0] < times[0] - step / 2 + 1e-9] for part in last])
            last = times, probabilities
            chance = probabilities[:, list(self.alarming)].sum(1).mean()
            if chance > likeliest:
                likeliest, at, window = chance, float(times[0]), listener.newest
        times, probabilities = (np.concatenate(parts) for parts in zip(*timeline, last, strict=True))
        opinion = self.predict(torch.from_numpy(window)[None])
        return Report(times, probabilities, tuple(alarms), tuple(alerts), at, window, opinion)

    def _judged(
        self, listener: Listener, chunks: Iterable[np.ndarray], location: str, started: float | None
    ) -> Iterator[list[tuple[Alarm, Alert | None]]]:
        """For each chunk, and for the end: the alarms that it completes, each with its alert if it is upheld."""
        started = time.time() if started is None else started
        for chunk in itertools.chain(chunks, [None]):
            judged = []
            for alarm in listener.finish() if chunk is None else listener.feed(chunk):
                judged.append((alarm, self.judge(alarm, location, started)))
                if judged[-1][1] is None:
                    listener.overruled()
            yield judged

    def judge(self, alarm: Alarm, location: str, started: float) -> Alert | None:
        """The alert of an alarm, if two voters of three uphold it; of the window in which it was heard."""
        opinion = self.predict(torch.from_numpy(alarm.samples)[None])
        votes = self.calibrated_votes(opinion)
        if not ensemble.majority(votes, self.alarming):
            return None
        probability = ensemble.mean_probability(votes).exp()[0, list(self.alarming)]
        kind = self.classes[self.alarming[int(probability.argmax())]]
        row = find(kind)
        korean = row.korean if row else kind  # a class of somebody's own
        callers = tuple(name for name, logits in votes.items() if raised(logits, self.alarming))
        return Alert(kind, korean, float(probability.sum()), callers, alarm.onset, started + alarm.at, location,
                     opinion.texts[0], self.digest(), alarm.samples)  # fmt: skip


def _chunks(source: Source) -> Iterator[np.ndarray]:
    """int16 (n,) of a second at most, so that each completes one window at most."""
    if isinstance(source, str | os.PathLike):
        source = decode_in_parts(source)
    elif isinstance(source, np.ndarray | Tensor):
        source = [source]
    for part in source:
        part = np.asarray(part)
        if part.ndim != 1 or not (part.dtype == np.int16 or part.dtype.kind == "f"):
            raise ValueError(f"sound is {part.dtype} {part.shape}, expected (n,) at 16 kHz, int16 or float in -1 to 1")
        for start in range(0, len(part), RATE):
            chunk = part[start : start + RATE]
            yield chunk if chunk.dtype == np.int16 else _as_int16(chunk)


def _as_int16(chunk: np.ndarray) -> np.ndarray:
    """Floats (n,) of any precision in -1 to 1 -> int16; what is beyond is clipped, with a warning."""
    if not np.isfinite(chunk).all():
        raise ValueError("the sound holds samples that are not finite (NaN or infinity)")
    levels = np.abs(chunk.astype(np.float64))
    if (levels > 1).any():
        if np.median(levels[levels > 0]) > WILD:  # not just a click
            raise ValueError(f"the sound's samples reach {levels.max():g}, and floats are expected in -1 to 1; divide "
                             "them (by 32768 if they are of 16 bits), or give int16")  # fmt: skip
        warnings.warn("The sound has samples beyond -1 to 1: they are clipped.", stacklevel=2)
    return np.rint(chunk.astype(np.float64) * 32768).clip(-32768, 32767).astype(np.int16)
