"""Alarms from an audio stream: overlapping windows, averaged into one timeline, with a rule against false alarms.

    listener = Listener(EMERGENCY, 0.08, Rule())
    for at, window in windows(microphone):   # chunks of int16, of any length
        times, probabilities, alarm = listener.hear(at, score(window))

Only the last window of audio is kept, in memory. Nothing is written to disk or logged here.
"""

import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from lib.emergency.features import RATE

WINDOW, HOP = 4.0, 1.0  # seconds


@dataclass(frozen=True)
class Rule:
    """Alarm rule: at least k of n successive frames have an emergency probability of `on` or more.

    An alarm ends when none of a window's last n frames is above `off`; until then, and for `refractory` seconds after
    it was raised, no other is raised. An event that begins in a window's last frames may be left to the next window.
    """

    k: int = 5
    n: int = 25
    on: float = 0.7
    off: float = 0.4
    refractory: float = 30.0

    def __post_init__(self):
        if not 1 <= self.k <= self.n:
            raise ValueError(f"k={self.k} of n={self.n} frames is not a rule: expected 1 <= k <= n")
        if not 0 <= self.off <= self.on <= 1:
            raise ValueError(f"thresholds are off={self.off} and on={self.on}, expected 0 <= off <= on <= 1")


class Alarm(NamedTuple):
    """An alarm. onset, at: seconds into the stream at which the event began and the alarm was raised."""

    onset: float
    at: float


def windows(chunks: Iterable[np.ndarray]) -> Iterator[tuple[float, np.ndarray]]:
    """Yield (end time in seconds, (n,) int16 samples) for a window every `HOP`. If samples remain at the end of the
    stream, one more full window ends there; a stream shorter than a window gives one window, padded with silence.
    chunks: int16 at 16 kHz, of any lengths."""
    size, hop = round(WINDOW * RATE), round(HOP * RATE)
    sound, heard, due = np.zeros(0, np.int16), 0, size  # buffer; samples so far; end of the next window
    for chunk in chunks:
        sound = np.concatenate([sound, chunk])
        heard += len(chunk)
        while heard >= due:
            end = len(sound) - (heard - due)
            yield due / RATE, sound[end - size : end]
            due += hop
        sound = sound[-size:]
    if 0 < heard < size:
        yield WINDOW, np.pad(sound, (0, size - heard))
    elif heard > due - hop:
        yield heard / RATE, sound


class Listener:
    """Alarm detection over successive windows. alarming: indices of alarm classes. seconds: duration of a frame."""

    def __init__(self, alarming: Sequence[int], seconds: float, rule: Rule):
        self.alarming, self.seconds, self.rule = alarming, seconds, rule
        self._covered: deque[tuple[float, np.ndarray]] = deque(maxlen=round(WINDOW / HOP))
        self._alarmed = self._alarmed_before = -np.inf
        self._on = False

    def hear(self, at: float, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray, Alarm | None]:
        """Process the window that ends at `at` with its frame probabilities (frames, classes). Return the start time
        of each frame (frames,), its probabilities averaged over the windows that contain it, and the alarm, if any."""
        self._covered.append((at - WINDOW, probabilities))
        times, timeline = self._averaged()
        alarming = timeline[:, list(self.alarming)].sum(1)
        n = min(self.rule.n, len(alarming))
        enough = np.convolve(alarming >= self.rule.on, np.ones(n), "valid") >= self.rule.k  # in every n frames
        if len(self._covered) > 1:
            enough[: -math.ceil(HOP / self.seconds)] = False  # earlier runs end in frames of the previous window
        self._on = self._on and bool((alarming[-n:] > self.rule.off).any())
        if not enough.any() or self._on or at - self._alarmed < self.rule.refractory:
            return times, timeline, None
        self._on, self._alarmed, self._alarmed_before = True, at, self._alarmed
        first = int(np.argmax(enough))
        first += int(np.argmax(alarming[first:] >= self.rule.on))
        while first > 0 and alarming[first - 1] > self.rule.off:
            first -= 1
        return times, timeline, Alarm(float(times[first]), at)

    def overruled(self) -> None:
        """Cancel the last alarm, so that the next one may follow at once, even for the same sound."""
        self._on, self._alarmed = False, self._alarmed_before

    def _averaged(self) -> tuple[np.ndarray, np.ndarray]:
        newest, probabilities = self._covered[-1]
        moments = len(probabilities)
        times = newest + self.seconds * np.arange(moments)
        summed, count = np.zeros(probabilities.shape), np.zeros(moments)
        for start, found in self._covered:
            # For each frame of the newest window, the nearest frame of this one.
            places = np.floor((times + self.seconds / 2 - start) / self.seconds).astype(int)
            there = (places >= 0) & (places < moments)
            summed[there] += found[places[there]]
            count[there] += 1
        return times, summed / count[:, None]
