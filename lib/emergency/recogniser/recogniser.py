"""The three voters of study 4 as one object, which turns audio into frame probabilities, text, votes and alerts.

    recogniser = Recogniser.load(folder)                   # models written by notebooks 04, 05 and 06
    report = recogniser.follow("night.m4a", "kitchen")     # timeline, text, votes and alerts of a file or an array
    for alert in recogniser.watch(microphone, "kitchen"):  # alerts as they occur, in a stream, a file or an array
        outbox.put(alert)

This is a research study, not a safety device.
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
from lib.emergency.whisper.training import UNKNOWN, Clips, predict_frames, smoothed
from lib.forking import give_back
from lib.metrics.classification import fit_temperature, raised

CNN, ENCODER, TEXT = "CNN", "Whisper encoder", "decoder's text"
FRAMES = "frames"  # of the encoder; they have their own temperature, since clip logits are on another scale
_FILE = "recogniser.json"
_SURE = 20.0  # logit of the silence class for silent clips, which skip the networks

Source = str | os.PathLike | np.ndarray | Iterable[np.ndarray]


@dataclass(frozen=True)
class Opinion:
    """Predictions for clips: logits (N, classes) per voter, frame logits (N, frames, classes) and transcripts."""

    votes: dict[str, Tensor] = field(repr=False)
    moments: Tensor = field(repr=False)
    texts: tuple[str, ...]


@dataclass(frozen=True)
class Report:
    """Results for one recording.

    times: (frames,) start of each frame in seconds. probabilities: (frames, classes), calibrated, and averaged over the
    windows that contain the frame. alarms: (time raised in seconds, whether upheld by the vote). alerts: for the upheld
    alarms. at, window: start (seconds) and samples, (n,) int16, of the window in which an emergency is most likely.
    opinion: votes and transcript for that window.
    """

    times: np.ndarray = field(repr=False)
    probabilities: np.ndarray = field(repr=False)
    alarms: tuple[tuple[float, bool], ...]
    alerts: tuple[Alert, ...]
    at: float
    window: np.ndarray = field(repr=False)
    opinion: Opinion


class Heard(NamedTuple):
    """A window of a stream: its samples (n,), the results of `Listener.hear`, and the alert if the vote upholds it."""

    samples: np.ndarray
    times: np.ndarray
    probabilities: np.ndarray
    alarm: Alarm | None
    alert: Alert | None


@dataclass(frozen=True)
class Recogniser:
    """The ensemble. alarming: indices of alarm classes. temperatures: by voter, see `calibrated`. rule: for streams."""

    cnn: nn.Sequential
    whisper: EmergencyWhisper
    text: TextClassifier
    classes: tuple[str, ...]
    alarming: tuple[int, ...] = ()
    temperatures: dict[str, float] = field(default_factory=lambda: dict.fromkeys((CNN, ENCODER, TEXT, FRAMES), 1.0))
    rule: Rule = field(default_factory=Rule)

    @staticmethod
    def assemble(folder: Path, alarming: Sequence[int]) -> "Recogniser":
        """Load the voters as trained, not yet calibrated.

        Raises:
            DataError: a model is missing or damaged, or their classes differ.
        """
        cnn, classes = load_cnn(folder / "cnn.safetensors")
        whisper, text = load_whisper(folder / "whisper"), load_text(folder / "text.json")
        if whisper.classes != classes or text.classes != len(classes) or not {*alarming} <= {*range(len(classes))}:
            raise DataError(f"The models in {folder} were trained on different classes: run notebooks 04 and 05 on the "
                            "same data.")  # fmt: skip
        return Recogniser(cnn, whisper, text, classes, tuple(alarming))

    @staticmethod
    def load(folder: str | Path) -> "Recogniser":
        """Load the voters from `folder`, with the settings written there by `save`.

        Raises:
            DataError: a file is missing or damaged.
        """
        folder = Path(folder)
        with written_by("06", folder / _FILE):
            about = json.loads((folder / _FILE).read_text(encoding="utf-8"))
            alarming, rule = about["alarming"], Rule(**about["rule"])
            temperatures = {name: about["temperatures"][name] for name in (CNN, ENCODER, TEXT, FRAMES)}
        found = replace(Recogniser.assemble(folder, alarming), temperatures=temperatures, rule=rule)
        give_back()  # memory used only for loading, 80 MB for a Whisper-base
        return found

    def save(self, folder: Path) -> None:
        """Save the settings that the model files in `folder` do not contain."""
        about = {"alarming": self.alarming, "temperatures": self.temperatures, "rule": vars(self.rule)}
        with atomic(folder / _FILE) as temporary:
            temporary.write_text(json.dumps(about, indent=1), encoding="utf-8")

    def calibrated(self, opinion: Opinion, clips: Clips) -> "Recogniser":
        """Return a copy with temperatures of each voter (see `voting.out_of_fold`) and of the encoder's frames, fitted
        on held-out `clips`, of which `opinion` holds the predictions."""
        fitted = {name: fit_temperature(logits, clips.labels) for name, logits in opinion.votes.items()}
        wanted = clips.targets(self.whisper.head.stack).flatten()
        known = wanted != UNKNOWN
        fitted[FRAMES] = fit_temperature(opinion.moments.flatten(0, 1)[known], wanted[known])
        return replace(self, temperatures=fitted)

    def likely_alarms(self, opinion: Opinion) -> Tensor:
        """Return the calibrated probability that a frame is of an alarm class, (N, frames)."""
        likely = (opinion.moments / self.temperatures[FRAMES]).softmax(-1)
        return likely[:, :, list(self.alarming)].sum(2)

    def digest(self) -> str:
        """Return a hash of both networks' weights, what the text classifier was fitted on, and all settings."""
        parts = hashlib.sha256(self.whisper.digest().encode())
        for value in self.cnn.state_dict().values():
            parts.update(value.cpu().contiguous().numpy().data)
        text, names = (self.text.learned, self.text.temperature), self.whisper.classes
        parts.update(repr((text, names, self.alarming, self.temperatures, self.rule)).encode())
        return parts.hexdigest()

    def predict(self, samples: Tensor, *, words: bool = True) -> Opinion:
        """Predict clips (N, n), int16 or floats in -1 to 1 at 16 kHz, each scaled to the same peak and encoded once.

        Silent clips skip all networks. words: also run the decoder on clips not predicted as silent by the encoder.

        Raises:
            ValueError: the clips contain NaN or infinity.
        """
        samples = samples.float() if samples.is_floating_point() else samples.float() / 32768
        if not torch.isfinite(samples).all():
            raise ValueError("clips hold samples that are not finite (NaN or infinity); leave those clips out")
        silence = torch.zeros(len(self.classes))
        silence[0], silence[list(self.alarming)] = _SURE, -_SURE
        positions = -(-(samples.shape[1] // HOP) // 2)
        moments = silence.repeat(len(samples), positions // self.whisper.head.stack, 1)
        cnn, encoder = silence.repeat(2, len(samples), 1)
        texts = [""] * len(samples)
        loud = (samples.abs().amax(1) >= SILENT).nonzero()[:, 0]
        for places in loud.split(64) if len(loud) else ():
            some = scaled(samples[places])
            mel, bands = log_mel(some), self.whisper.mels  # large-v3 and turbo use 128 bands, the CNN 80
            heard = predict_frames(self.whisper, mel if bands == mel.shape[1] else log_mel(some, bands), words=words)
            cnn[places], encoder[places] = logits_of(self.cnn, mel[:, None]), heard.clips
            moments[places] = heard.moments
            for place, text in zip(places.tolist(), heard.texts, strict=True):
                texts[place] = text
        return Opinion({CNN: cnn, ENCODER: encoder, TEXT: self.text.logits(texts)}, moments, tuple(texts))

    def calibrated_votes(self, opinion: Opinion) -> dict[str, Tensor]:
        """Return the logits (N, classes) of each voter, divided by its temperature."""
        return {name: logits / self.temperatures[name] for name, logits in opinion.votes.items()}

    # --- Streams ----------------------------------------------------------------------------------

    def watch(self, source: Source, location: str = "", *, started: float | None = None) -> Iterator[Alert]:
        """Yield alerts as they occur: alarms raised by the encoder and upheld by two of three voters.

        source: an iterable of chunks (n,) of any lengths at 16 kHz, int16 or floats in -1 to 1; one such array; or the
        path of a recording in any common format.
        location: of the microphone, as configured. started: time of the first sample, seconds since 1970; default: now.

        Raises:
            DataError: the recording cannot be read; the message says why.
            ValueError: an array is not (n,) of int16 or floats in -1 to 1.
        """
        for heard in self.listen(_chunks(source), location, started):
            if heard.alert is not None:
                yield heard.alert

    def follow(self, source: Source, location: str = "", *, started: float | None = None) -> Report:
        """Process a finite `source` to its end and report all results. Silence pads a source shorter than `WINDOW`.

        Raises:
            DataError: the recording cannot be read; the message says why.
            ValueError: as for `watch`.
        """
        samples = np.concatenate([np.zeros(0, np.int16), *_chunks(source)])
        samples = np.pad(samples, (0, max(round(WINDOW * RATE) - len(samples), 0)))
        heard, step = list(self.listen([samples], location, started)), self.whisper.seconds_per_moment
        parts = [(one.times, one.probabilities) for one in heard]
        for place, later in enumerate(heard[1:]):  # later windows do not contain earlier frames
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
        """Yield the results of each window: the encoder runs on all but silent ones, the vote only on its alarms."""
        started = time.time() if started is None else started
        listener = Listener(self.alarming, self.whisper.seconds_per_moment, self.rule)
        for at, samples in windows(chunks):
            times, probabilities, alarm = listener.hear(at, self._scored(samples))
            alert = None if alarm is None else self.judge(alarm, samples, location, started)
            if alarm is not None and alert is None:
                listener.overruled()
            yield Heard(samples, times, probabilities, alarm, alert)

    def _scored(self, samples: np.ndarray) -> np.ndarray:
        """Return the encoder's (frames, classes) probabilities of (n,) int16; silence is class 0 unless that alarms."""
        step = self.whisper.seconds_per_moment
        floats = samples.astype(np.float32) / 32768
        if np.abs(floats).max() < SILENT:
            probabilities = np.zeros((int(len(samples) / RATE / step + 1e-6), len(self.classes)))
            probabilities[:, 0] = 0 not in self.alarming
            return probabilities
        with torch.inference_mode():
            moments = smoothed(self.whisper(log_mel(scaled(torch.from_numpy(floats)[None]), self.whisper.mels)), step)
            return (moments[0] / self.temperatures[FRAMES]).softmax(-1).numpy()

    def judge(self, alarm: Alarm, samples: np.ndarray, location: str, started: float) -> Alert | None:
        """Return the alert for an alarm if two of three voters uphold it in its window, (n,) int16, else None."""
        opinion = self.predict(torch.from_numpy(samples)[None])
        votes = self.calibrated_votes(opinion)
        if not ensemble.majority(votes, self.alarming):
            return None
        probability = ensemble.mean_probability(votes).exp()[0, list(self.alarming)]
        kind = readable(self.classes[self.alarming[int(probability.argmax())]])
        row = find(kind)
        korean = row.korean if row else kind  # a user-defined class
        callers = tuple(name for name, logits in votes.items() if raised(logits, self.alarming))
        return Alert(kind, korean, float(probability.sum()), callers, alarm.onset, started + alarm.at, location,
                     opinion.texts[0], self.digest(), samples.copy())  # fmt: skip


def _chunks(source: Source) -> Iterator[np.ndarray]:
    """Yield the source as chunks (n,) int16."""
    if isinstance(source, str | os.PathLike):
        source = decode(Path(source).expanduser())
    for part in [source] if isinstance(source, np.ndarray | Tensor) else source:
        part = np.asarray(part)
        in_range = part.dtype.kind == "f" and np.abs(part).max(initial=0) <= 1  # False for NaN
        if part.ndim != 1 or not (part.dtype == np.int16 or in_range):
            remedy = "clip or divide them (by 32768 if they are of 16 bits)"
            remedy = "take the mean over the channels" if part.ndim == 2 else remedy
            remedy = "read bytes by np.frombuffer(chunk, np.int16)" if part.dtype.kind == "S" else remedy
            raise ValueError(f"sound is {part.dtype} {part.shape}, expected (n,) at 16 kHz, int16 or finite floats in "
                             f"-1 to 1: {remedy}")  # fmt: skip
        if part.dtype != np.int16:
            part = np.rint(part.astype(np.float64) * 32768).clip(-32768, 32767).astype(np.int16)
        yield part
