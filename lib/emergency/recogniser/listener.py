"""From a stream of sound to alarms: overlapping windows, one timeline, few false alarms.

    listener = Listener(score, alarming=EMERGENCY, seconds=0.08)
    for chunk in microphone:                 # int16, of any length
        for alarm in listener.feed(chunk):
            …
    listener.finish()                        # of a recording: its last part of a second as well

Sound is kept for a window, in memory. Nothing is written or logged here, whatever is heard.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from lib.emergency.features import RATE, SILENT

WINDOW, HOP = 4.0, 1.0  # seconds

Score = Callable[[np.ndarray], np.ndarray]  # float32 (n,) in -1 to 1 -> probabilities (moments, classes)


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


@dataclass
class Listener:
    """score: of one window. alarming: classes that alarm. seconds: per moment. classes: how many `score` returns.

    window: seconds that are scored at a time; a recording that is shorter than `WINDOW` is one window.
    """

    score: Score
    alarming: Sequence[int]
    seconds: float
    classes: int
    rule: Rule = field(default_factory=Rule)
    window: float = WINDOW
    newest: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int16), repr=False)  # the last window's samples

    def __post_init__(self):
        self._window, self._hop = round(self.window * RATE), round(HOP * RATE)
        self._moments = int(self.window / self.seconds + 1e-6)
        self._sound = np.zeros(0, np.int16)
        self._heard = 0  # samples so far
        self._next = self._window  # samples at which the next window is complete
        self._covered: deque[tuple[float, np.ndarray]] = deque(maxlen=round(WINDOW / HOP))
        self._alarmed = self._alarmed_before = -np.inf
        self._on = False

    def feed(self, chunk: np.ndarray) -> list[Alarm]:
        """Take in int16 (n,) at 16 kHz, n >= 0; the alarms that it completes. How sound is cut does not matter."""
        if chunk.dtype != np.int16 or chunk.ndim != 1:
            raise TypeError(f"a chunk is {chunk.dtype} {chunk.shape}, expected int16 (n,) at 16 kHz")
        found = []
        for start in range(0, max(len(chunk), 1), self._hop):  # memory stays bounded, however long the chunk
            part = chunk[start : start + self._hop]
            self._sound = np.concatenate([self._sound, part])
            self._heard += len(part)
            if self._heard >= self._next:
                end = len(self._sound) - (self._heard - self._next)
                found += self._score(self._sound[end - self._window : end], self._next / RATE)
                self._next += self._hop
            self._sound = self._sound[-self._window :]
        return found

    def finish(self) -> list[Alarm]:
        """At the end of a recording: what came after the last window, with as much before it as fills one."""
        last = self._next - self._hop
        if self._heard <= last or self._heard < self._window:
            return []
        return self._score(self._sound[-self._window :], self._heard / RATE)

    def overruled(self) -> None:
        """The last alarm was none: the next may come at once, and be of the same sound."""
        self._on, self._alarmed = False, self._alarmed_before

    def timeline(self) -> tuple[np.ndarray, np.ndarray]:
        """(times, probabilities) of the last window: (moments,) seconds of the stream at which each begins, and
        (moments, classes), averaged over the windows that hold it."""
        if not self._covered:
            return np.zeros(0), np.zeros((0, self.classes))
        newest = self._covered[-1][0]
        times = newest + self.seconds * np.arange(self._moments)
        summed, count = np.zeros((self._moments, self.classes)), np.zeros(self._moments)
        for start, probabilities in self._covered:
            # The moment of that window in whose middle a moment of the newest one begins.
            places = np.floor((times + self.seconds / 2 - start) / self.seconds).astype(int)
            there = (places >= 0) & (places < self._moments)
            summed[there] += probabilities[places[there]]
            count[there] += 1
        return times, summed / count[:, None]

    def _score(self, window: np.ndarray, now: float) -> list[Alarm]:
        self.newest = window
        samples = window.astype(np.float32) / 32768
        if np.abs(samples).max() < SILENT:
            probabilities = np.zeros((self._moments, self.classes))
            probabilities[:, 0] = 0 not in self.alarming
        else:
            probabilities = self.score(samples)
        self._covered.append((now - self.window, probabilities))
        times, timeline = self.timeline()
        alarming = timeline[:, list(self.alarming)].sum(1)
        last = alarming[-self.rule.n :]
        raised = int((last >= self.rule.on).sum()) >= self.rule.k
        if self._on:
            self._on = bool((last > self.rule.off).any())
        if not raised or self._on or now - self._alarmed < self.rule.refractory:
            return []
        self._on, self._alarmed, self._alarmed_before = True, now, self._alarmed
        first = len(alarming) - len(last) + int(np.argmax(last >= self.rule.on))
        while first > 0 and alarming[first - 1] > self.rule.off:
            first -= 1
        return [Alarm(float(times[first]), now, window.copy())]
