"""The three voters of study 4 as one object: from a recording to moments, words, the vote and an alert.

    recogniser = Recogniser.load(folder)             # what notebooks 04, 05 and 06 leave there
    heard = recogniser.hear(samples)                 # clips
    for alert in recogniser.watch(chunks, "kitchen"):  # a stream, or the chunks of a file
        outbox.put(alert)

A study, and no safety device.
"""

import hashlib
import json
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from lib.data.cache import atomic
from lib.data.catalog import DataError
from lib.data.decoding import decode
from lib.emergency import ensemble
from lib.emergency.alert import Alert
from lib.emergency.classes import find
from lib.emergency.cnn import load_cnn, logits_of
from lib.emergency.features import RATE, log_mel, scaled
from lib.emergency.listener import Alarm, Listener, Rule
from lib.emergency.moments import Heard, listen
from lib.emergency.text import TextClassifier, load_text
from lib.emergency.whisper import EmergencyWhisper
from lib.emergency.whisper import load as load_whisper

CNN, ENCODER, TEXT = "CNN", "Whisper encoder", "decoder's text"
_FILE = "recogniser.json"


@dataclass(frozen=True)
class Opinion:
    """Of clips: logits (N, classes) of each voter, of the encoder's moments (N, moments, classes), and the words."""

    votes: dict[str, Tensor] = field(repr=False)
    moments: Tensor = field(repr=False)
    texts: tuple[str, ...]


@dataclass(frozen=True)
class Recogniser:
    """alarming: classes that alarm. temperatures: per voter, from `calibrated`. threshold: of `Rule.on`."""

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
        if whisper.classes != classes or text.classes != len(classes):
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
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"There is no recogniser in {folder} ({error}). Notebook 06 writes one: run it.") from error
        return replace(Recogniser.assemble(folder, alarming), temperatures=temperatures, rule=rule)

    def save(self, folder: Path) -> None:
        """Keep what the models in `folder` do not say themselves."""
        about = {"alarming": self.alarming, "temperatures": self.temperatures, "rule": vars(self.rule)}
        with atomic(folder / _FILE) as temporary:
            temporary.write_text(json.dumps(about, indent=1), encoding="utf-8")

    def calibrated(self, opinion: Opinion, labels: Tensor) -> "Recogniser":
        """With a temperature for each voter, from clips that none was trained on."""
        fitted = {name: ensemble.fit_temperature(logits, labels) for name, logits in opinion.votes.items()}
        return replace(self, temperatures=fitted)

    def digest(self) -> str:
        """Of all weights and settings: two recognisers with the same digest say the same."""
        parts = hashlib.sha256(self.whisper.digest().encode())
        for value in self.cnn.state_dict().values():
            parts.update(value.cpu().contiguous().numpy().data)
        parts.update(repr((self.text.temperature, self.alarming, self.temperatures, self.rule)).encode())
        return parts.hexdigest()

    def hear(self, samples: Tensor, *, words: bool = True) -> Opinion:
        """Clips (N, n), int16 or float32 at 16 kHz, each scaled to the same peak and encoded once."""
        mel = torch.cat([log_mel(scaled(part)) for part in samples.split(64)])
        heard: Heard = listen(self.whisper, mel, words=words)
        votes = {CNN: logits_of(self.cnn, mel[:, None]), ENCODER: heard.clips, TEXT: self.text.logits(heard.texts)}
        return Opinion(votes, heard.moments, heard.texts)

    def moment_probabilities(self, opinion: Opinion) -> np.ndarray:
        """(N, moments, classes), calibrated by the encoder's temperature."""
        return (opinion.moments / self.temperatures[ENCODER]).softmax(-1).numpy()

    # --- Streams ----------------------------------------------------------------------------------

    def listener(self) -> Listener:
        """Of the encoder's moments alone, which is cheap; the others are asked when it alarms."""

        def score(samples: np.ndarray) -> np.ndarray:
            with torch.inference_mode():
                moments = self.whisper(log_mel(scaled(torch.from_numpy(samples)[None])))
                return (moments[0] / self.temperatures[ENCODER]).softmax(-1).numpy()

        return Listener(score, self.alarming, self.whisper.seconds_per_moment, len(self.classes), self.rule)

    def watch(
        self, chunks: Iterable[np.ndarray], location: str = "", *, started: float | None = None
    ) -> Iterator[Alert]:
        """Alerts from a stream of int16 chunks at 16 kHz: raised by the encoder, upheld by two voters of three.

        location: where the microphone is, as configured. started: of the stream, in seconds since 1970; default: now.
        """
        started = time.time() if started is None else started
        listener = self.listener()
        for chunk in chunks:
            for alarm in listener.feed(chunk):
                alert = self.judge(alarm, location, started)
                if alert is not None:
                    yield alert

    def watch_file(self, path: Path, location: str = "", *, started: float | None = None) -> Iterator[Alert]:
        """`watch` of a recording of any common format.

        Raises:
            DataError: it cannot be read; the message says why.
        """
        samples = decode(path)
        yield from self.watch((samples[i : i + RATE] for i in range(0, len(samples), RATE)), location, started=started)

    def judge(self, alarm: Alarm, location: str, started: float) -> Alert | None:
        """The alert of an alarm, if two voters of three uphold it; of the window in which it was heard."""
        opinion = self.hear(torch.from_numpy(alarm.samples)[None])
        votes = {name: logits / self.temperatures[name] for name, logits in opinion.votes.items()}
        if not ensemble.majority(votes, self.alarming):
            return None
        probability = ensemble.mean_probability(votes).exp()[0, list(self.alarming)]
        kind = self.classes[self.alarming[int(probability.argmax())]]
        try:
            korean = find(kind).korean
        except KeyError:  # a class of somebody's own
            korean = kind
        callers = tuple(name for name, logits in votes.items() if ensemble.alarms(logits, self.alarming))
        return Alert(kind, korean, float(probability.sum()), callers, alarm.onset, started + alarm.at, location,
                     opinion.texts[0], self.digest(), alarm.samples)  # fmt: skip
