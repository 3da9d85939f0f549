"""From a stream of sound to alarms: overlapping windows, one timeline, few false alarms.

    listener = Listener(alarming=EMERGENCY, seconds=0.08)
    for at, window in windows(microphone):   # chunks of int16, of any length
        times, probabilities, alarm = listener.hear(at, window, score(window))

Sound is kept for a window, in memory. Nothing is written or logged here, whatever is heard.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from lib.emergency.features import RATE

WINDOW, HOP = 4.0, 1.0  # seconds


@dataclass(frozen=True)
class Rule:
    """When to alarm: k of the last n moments of a window at least are an emergency with probability `on`.

    An alarm is over when none of the last n moments is above `off`; until then, and for `refractory` seconds after it
    was raised, there is no other. An event that only begins in the window's last moments is left to the next window.
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
    """onset, at: seconds of the stream at which it began and was raised. samples: (n,) int16, the window."""

    onset: float
    at: float
    samples: np.ndarray


def windows(chunks: Iterable[np.ndarray]) -> Iterator[tuple[float, np.ndarray]]:
    """(seconds of the stream at its end, (n,) int16) of a window each `HOP`, and of what comes after the last one, with
    as much before it as fills a window. chunks: int16 at 16 kHz; how they are cut does not matter."""
    size, hop = round(WINDOW * RATE), round(HOP * RATE)
    sound, heard, due = np.zeros(0, np.int16), 0, size  # samples; how many so far; at how many the next window is whole
    for chunk in chunks:
        sound = np.concatenate([sound, chunk])
        heard += len(chunk)
        while heard >= due:
            end = len(sound) - (heard - due)
            yield due / RATE, sound[end - size : end]
            due += hop
        sound = sound[-size:]
    if heard >= size and heard > due - hop:
        yield heard / RATE, sound


@dataclass
class Listener:
    """What is heard in windows, one after the other. alarming: classes that alarm. seconds: per moment."""

    alarming: Sequence[int]
    seconds: float
    rule: Rule = field(default_factory=Rule)

    def __post_init__(self):
        self._covered: deque[tuple[float, np.ndarray]] = deque(maxlen=round(WINDOW / HOP))
        self._alarmed = self._alarmed_before = -np.inf
        self._on = False

    def hear(
        self, at: float, samples: np.ndarray, probabilities: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, Alarm | None]:
        """Of the window that ends at `at`, with the (moments, classes) that a network found in it: times (moments,) at
        which each begins, probabilities averaged over the windows that hold it, and the alarm that it completes."""
        self._covered.append((at - len(samples) / RATE, probabilities))
        times, timeline = self._averaged()
        alarming = timeline[:, list(self.alarming)].sum(1)
        last = alarming[-self.rule.n :]
        raised = int((last >= self.rule.on).sum()) >= self.rule.k
        if self._on:
            self._on = bool((last > self.rule.off).any())
        if not raised or self._on or at - self._alarmed < self.rule.refractory:
            return times, timeline, None
        self._on, self._alarmed, self._alarmed_before = True, at, self._alarmed
        first = len(alarming) - len(last) + int(np.argmax(last >= self.rule.on))
        while first > 0 and alarming[first - 1] > self.rule.off:
            first -= 1
        return times, timeline, Alarm(float(times[first]), at, samples.copy())

    def overruled(self) -> None:
        """The last alarm was none: the next may come at once, and be of the same sound."""
        self._on, self._alarmed = False, self._alarmed_before

    def _averaged(self) -> tuple[np.ndarray, np.ndarray]:
        newest, probabilities = self._covered[-1]
        moments = len(probabilities)
        times = newest + self.seconds * np.arange(moments)
        summed, count = np.zeros(probabilities.shape), np.zeros(moments)
        for start, found in self._covered:
            # The moment of that window in whose middle a moment of the newest one begins.
            places = np.floor((times + self.seconds / 2 - start) / self.seconds).astype(int)
            there = (places >= 0) & (places < moments)
            summed[there] += found[places[there]]
            count[there] += 1
        return times, summed / count[:, None]
