"""How well a timeline says what is heard when: by moment, by event, and by alarm.

An event is (clip, class, onset, offset), times in seconds. Class 0 is silence and no event.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching
from scipy.stats import chi2
from sklearn import metrics

from lib.metrics.classification import wilson

COLLAR = 0.2  # seconds that an onset may be off, and an offset where the event is short
COLLAR_SHARE = 0.2  # of the event's length that its offset may be off (Mesaros et al. 2016)
GAP, SHORTEST = 0.2, 0.1  # seconds: shorter gaps are closed, shorter events left out
OVERLAP = 0.7  # PSDS, scenario 1: detection and ground truth criterion
MOST_FALSE = 100.0  # PSDS: false positives per hour up to which it looks
SPREAD = 1.0  # PSDS, scenario 1: what the spread over classes costs


class Event(NamedTuple):
    clip: int
    number: int
    onset: float
    offset: float


def events(moments: np.ndarray, seconds: float, *, gap: float = 0.0, shortest: float = 0.0) -> list[Event]:
    """The events in (N, T) classes of moments, `seconds` each: stretches of one class, 0 and negative numbers apart.

    gap: stretches of the same class with less than this between them are one. shortest: others are left out.
    """
    found = []
    for clip, row in enumerate(moments):
        edges = [0, *(np.flatnonzero(np.diff(row)) + 1).tolist(), len(row)]
        last: dict[int, Event] = {}
        for start, stop in zip(edges[:-1], edges[1:], strict=True):
            number = int(row[start])
            if number <= 0:
                continue
            event = Event(clip, number, start * seconds, stop * seconds)
            before = last.get(number)
            if before and event.onset - before.offset < gap - 1e-9:
                event = Event(clip, number, before.onset, event.offset)
                found.remove(before)
            last[number] = event
            found.append(event)
    return [event for event in found if event.offset - event.onset > shortest - 1e-9]


def moment_scores(predicted: np.ndarray, wanted: np.ndarray) -> dict[str, float]:
    """accuracy and macro_f1 (%, over the classes that occur) of moments of any shape; negative ones are unknown."""
    known = wanted >= 0
    wanted, predicted = wanted[known], predicted[known]
    f1 = metrics.f1_score(wanted, predicted, labels=np.unique(wanted), average="macro", zero_division=0)
    return {"accuracy": 100 * float((wanted == predicted).mean()), "macro_f1": 100 * float(f1)}


def event_f1(found: Iterable[Event], true: Iterable[Event]) -> dict[str, float]:
    """Event-based F1 (%, mean over the classes that occur), precision and recall (%, over all events).

    An event is found if one of its class begins within `COLLAR` of its onset and ends within the larger of `COLLAR` and
    `COLLAR_SHARE` of its length of its offset; each counts once, in the matching with most pairs (Mesaros et al. 2016,
    Metrics for Polyphonic Sound Event Detection).
    """
    ours, theirs = _grouped(found), _grouped(true)
    hits, said, real = defaultdict(int), defaultdict(int), defaultdict(int)
    for key in ours.keys() | theirs.keys():
        one, two = ours.get(key, []), theirs.get(key, [])
        said[key[1]] += len(one)
        real[key[1]] += len(two)
        if one and two:
            fits = [[_fits(a, b) for b in two] for a in one]
            hits[key[1]] += int((maximum_bipartite_matching(csr_array(fits), "column") >= 0).sum())
    each = [2 * hits[number] / (said[number] + count) for number, count in real.items() if count]
    total = sum(hits.values())
    return {
        "event_f1": 100 * float(np.mean(each)) if each else np.nan,
        "event_precision": 100 * total / sum(said.values()) if sum(said.values()) else np.nan,
        "event_recall": 100 * total / sum(real.values()) if sum(real.values()) else np.nan,
    }


def _grouped(some: Iterable[Event]) -> dict[tuple[int, int], list[Event]]:
    found = defaultdict(list)
    for event in some:
        found[event.clip, event.number].append(event)
    return found


def _fits(found: Event, true: Event) -> bool:
    late = max(COLLAR, COLLAR_SHARE * (true.offset - true.onset))
    return abs(found.onset - true.onset) <= COLLAR + 1e-9 and abs(found.offset - true.offset) <= late + 1e-9


def psds(
    probabilities: np.ndarray, true: Sequence[Event], *, seconds: float, thresholds: Sequence[float] | None = None
) -> float:
    """Polyphonic sound detection score in [0, 1], scenario 1 of DCASE (Bilen et al. 2020, A Framework for the Robust
    Evaluation of Sound Event Detection): how many events are found, by false positives per hour up to `MOST_FALSE`.

    A detection counts if `OVERLAP` of it lies on events of its class, and an event is found if detections that count
    cover `OVERLAP` of it. The mean over classes less `SPREAD` standard deviations is integrated over false positives;
    confusion with other classes costs nothing more.

    probabilities: (N, T, classes) of moments of `seconds`. thresholds: 50 by default, which underestimates the score a
    little.
    """
    numbers = sorted({event.number for event in true})
    if not numbers:
        return float("nan")
    if thresholds is None:
        thresholds = np.linspace(0.01, 0.99, 50)
    hours = probabilities.shape[0] * probabilities.shape[1] * seconds / 3600
    theirs, grid = _grouped(true), np.linspace(0, MOST_FALSE, 2001)
    curves = []
    for number in numbers:
        rates, shares = [0.0], [0.0]
        count = sum(event.number == number for event in true)
        for threshold in sorted(thresholds, reverse=True):
            on = np.where(probabilities[:, :, number] >= threshold, number, 0)
            false, hit = 0, 0
            ours = _grouped(events(on, seconds))
            for clip in {key[0] for key in ours} | {key[0] for key in theirs if key[1] == number}:
                said, real = ours.get((clip, number), []), theirs.get((clip, number), [])
                good = [one for one in said if _covered(one, real) >= OVERLAP * (one.offset - one.onset) - 1e-9]
                false += len(said) - len(good)
                hit += sum(_covered(one, good) >= OVERLAP * (one.offset - one.onset) - 1e-9 for one in real)
            rates.append(false / hours)
            shares.append(hit / count)
        # At each rate of false positives the best that some threshold reaches with no more of them.
        order = np.argsort(rates, kind="stable")
        best = np.maximum.accumulate(np.array(shares)[order])
        curves.append(best[np.searchsorted(np.array(rates)[order], grid, side="right") - 1])
    curves = np.array(curves)
    effective = np.maximum(curves.mean(0) - SPREAD * curves.std(0), 0)
    return float(np.trapezoid(effective, grid) / MOST_FALSE)


def _covered(event: Event, others: Sequence[Event]) -> float:
    """Seconds of `event` that lie on `others`, which do not overlap each other."""
    return sum(max(0.0, min(event.offset, one.offset) - max(event.onset, one.onset)) for one in others)


def alarm_curve(
    alarming: np.ndarray, emergency: np.ndarray, *, seconds: float, rules: Sequence[tuple[int, int]],
    thresholds: Sequence[float] | None = None,
) -> pd.DataFrame:  # fmt: skip
    """False alarms per hour against missed emergencies, for rules "k of n moments" and thresholds.

    alarming: (N, T) probability that a moment is an emergency. emergency: (N,) bool, clips that are. An alarm per clip
    at most.

    Columns: rule, threshold, miss_rate with low and high (%, Wilson, 95 %), alarms_per_hour (of clips that are no
    emergency) with low and high (exact Poisson, 95 %), alarms, hours.
    """
    if thresholds is None:
        thresholds = np.linspace(0.05, 0.95, 19)
    hours = int((~emergency).sum()) * alarming.shape[1] * seconds / 3600
    rows = []
    for k, n in rules:
        if not 1 <= k <= n <= alarming.shape[1]:
            raise ValueError(f"the rule {k} of {n} asks for 1 <= {k} <= {n} <= {alarming.shape[1]} moments of a clip")
        windows = np.lib.stride_tricks.sliding_window_view(alarming, n, axis=1)
        surest = np.sort(windows, axis=2)[:, :, n - k].max(1)  # the threshold at which the clip alarms
        for threshold in thresholds:
            raised = surest >= threshold
            missed, false = int((~raised & emergency).sum()), int((raised & ~emergency).sum())
            low, high = wilson(missed, int(emergency.sum()))
            fewest, most = poisson_bounds(false)
            rows.append({
                "rule": f"{k} of {n}", "threshold": float(threshold),
                "miss_rate": 100 * missed / emergency.sum() if emergency.any() else np.nan,
                "miss_low": 100 * low, "miss_high": 100 * high,
                "alarms_per_hour": false / hours if hours else np.nan,
                "alarms_low": fewest / hours if hours else np.nan, "alarms_high": most / hours if hours else np.nan,
                "alarms": false, "hours": hours,
            })  # fmt: skip
    return pd.DataFrame(rows)


def poisson_bounds(count: int, level: float = 0.95) -> tuple[float, float]:
    """Exact interval of the mean of a Poisson variable that came out as `count` (Garwood 1936)."""
    tail = (1 - level) / 2
    low = chi2.ppf(tail, 2 * count) / 2 if count else 0.0
    return float(low), float(chi2.ppf(1 - tail, 2 * count + 2) / 2)
