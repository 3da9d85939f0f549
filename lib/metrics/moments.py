"""Metrics of sound event detection: by frame, by event, and by alarm.

An event is (clip, class, onset, offset), with times in seconds. Class 0 is silence, not an event.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching
from scipy.stats import chi2

from lib.metrics.classification import percent

COLLAR = 0.2  # tolerance of onsets in seconds, and of offsets of short events
COLLAR_SHARE = 0.2  # tolerance of offsets as a share of the event's length, as in DCASE Task 4 (Turpault et al. 2019)
GAP, SHORTEST = 0.2, 0.1  # seconds: shorter gaps are closed, shorter events dropped
OVERLAP = 0.7  # PSDS, scenario 1: detection and ground truth criteria
MOST_FALSE = 100.0  # PSDS: maximum number of false positives per hour
PSDS_THRESHOLDS = 200  # per class, spaced by the number of frames above them: with equal steps of probability, few
# would separate the frames of an overconfident network, and its PSDS would be a fifth of what its ranking deserves
ALARM_THRESHOLDS = np.linspace(0.05, 0.95, 19)
DRAWS = 1000  # bootstrap resamples


class Event(NamedTuple):
    clip: int
    number: int
    onset: float
    offset: float


def events(frames: np.ndarray, seconds: float, *, gap: float = 0.0, shortest: float = 0.0) -> list[Event]:
    """Return the events in classes (N, T) of frames of `seconds`: runs of one class, except 0 and negative ones.

    gap: runs of one class closer than this are merged. shortest: shorter events are dropped.
    """
    found = []
    for clip, row in enumerate(frames):
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


def moment_interval(predicted: np.ndarray, wanted: np.ndarray, *, seed: int = 0) -> tuple[float, float, float]:
    """Return the macro F1 (%, over occurring classes) of frames (clips, T) with its 95 % interval: (value, low, high).

    Frames with a negative label are ignored. The bootstrap resamples clips, as the frames of a clip are dependent.
    """
    return bootstrap(_frame_counts(predicted, wanted), _macro_f1, seed)


def _frame_counts(predicted: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return (clips, classes, 3): numbers of true positive, predicted and labelled frames of each class."""
    known = (wanted >= 0)[..., None]
    classes = np.arange(max(predicted.max(), wanted.max(), 0) + 1)
    taken, real = known & (predicted[..., None] == classes), known & (wanted[..., None] == classes)
    return np.stack([(taken & real).sum(1), taken.sum(1), real.sum(1)], 2)


def _macro_f1(counts: np.ndarray) -> np.ndarray:
    """Return mean F1 (%) of the classes that occur, from (…, classes, 3) hits, predicted, real -> (…); NaN if none."""
    hits, predicted, real = np.moveaxis(counts, -1, 0)
    occurs = real > 0
    each = np.divide(2 * hits, predicted + real, out=np.zeros(hits.shape), where=occurs).sum(-1)
    return 100 * np.divide(each, occurs.sum(-1), out=np.full(each.shape, np.nan), where=occurs.any(-1))


def bootstrap(counts: np.ndarray, score: Callable[[np.ndarray], np.ndarray], seed: int) -> tuple[float, float, float]:
    """Return `score` of counts (clips, …) summed over clips as (value, low, high), by a percentile bootstrap over clips
    (Efron 1979) with `DRAWS` resamples, less those for which the score is undefined."""
    value = float(score(counts.sum(0)))
    if len(counts) < 2:
        return value, np.nan, np.nan
    often = np.random.default_rng(seed).multinomial(len(counts), np.full(len(counts), 1 / len(counts)), DRAWS)
    drawn = (often.astype(np.float64) @ counts.reshape(len(counts), -1)).reshape(DRAWS, *counts.shape[1:])
    scores = score(drawn)
    scores = scores[~np.isnan(scores)]
    low, high = np.percentile(scores, (2.5, 97.5)) if len(scores) else (np.nan, np.nan)
    return value, float(low), float(high)


def event_interval(
    found: Sequence[Event], true: Sequence[Event], clips: int, *, seed: int = 0
) -> tuple[float, float, float]:
    """Return event-based F1 (%, mean over the classes that occur) with its 95 % interval: (value, low, high).

    A detection matches an event of its class if their onsets differ by at most `COLLAR` and their offsets by at most
    the larger of `COLLAR` and `COLLAR_SHARE` of the event's length; each counts once, in a maximum matching (Mesaros et
    al. 2016, Metrics for Polyphonic Sound Event Detection). The bootstrap is over `clips` clips, numbered from 0,
    including those without events.
    """
    ours, theirs = _grouped(found), _grouped(true)
    keys = ours.keys() | theirs.keys()
    counts = np.zeros((clips, max([0, *(number for _, number in keys)]) + 1, 3), np.int64)
    for key in keys:
        one, two = ours[key], theirs[key]
        fits = csr_array([[_fits(a, b) for b in two] for a in one] if one and two else (len(one), len(two)))
        counts[key] = (maximum_bipartite_matching(fits, "column") >= 0).sum(), len(one), len(two)
    return bootstrap(counts, _macro_f1, seed)


def _grouped(some: Sequence[Event]) -> dict[tuple[int, int], list[Event]]:
    found = defaultdict(list)
    for event in some:
        found[event.clip, event.number].append(event)
    return found


def _fits(found: Event, true: Event) -> bool:
    late = max(COLLAR, COLLAR_SHARE * (true.offset - true.onset))
    return abs(found.onset - true.onset) <= COLLAR + 1e-9 and abs(found.offset - true.offset) <= late + 1e-9


def psds_interval(
    probabilities: np.ndarray, true: Sequence[Event], *, seconds: float, seed: int = 0
) -> tuple[float, float, float]:
    """Return the polyphonic sound detection score in [0, 1], DCASE scenario 1 (Bilen et al. 2020, A Framework for the
    Robust Evaluation of Sound Event Detection), with its 95 % interval by a bootstrap over clips: (value, low, high).

    PSDS relates the events found to false positives per hour, up to `MOST_FALSE`. A detection is valid if `OVERLAP` of
    it lies on events of its class, and an event is found if valid detections cover `OVERLAP` of it. The mean over
    classes minus the standard deviation is integrated over false positives; confusing classes costs nothing extra.
    probabilities: (N, T, classes) of frames of `seconds`; only their order within a class matters.

    The interval is that of the basic bootstrap: resampling clips spreads the classes, whose deviation is subtracted, so
    most resamples lie below the value and percentiles would be too low. The value itself has the same downward bias; it
    is the lower end of the interval if nearly all resamples lie below it.
    """
    hours = probabilities.shape[1] * len(probabilities) * seconds / 3600
    value, low, high = bootstrap(_detections(probabilities, true, seconds), partial(_psds_of, hours=hours), seed)
    low, high = np.clip((2 * value - high, 2 * value - low), (0, value), (value, 1)).tolist()
    return value, low, high


def _detections(probabilities: np.ndarray, true: Sequence[Event], seconds: float) -> np.ndarray:
    """Return (clips, classes, thresholds, 3): false positives, events found and events of the classes that occur."""
    numbers = sorted({event.number for event in true})
    clips, frames, _ = probabilities.shape
    after = 1 + max([frames * seconds, *(event.offset for event in true)])  # seconds from one clip's start to the next
    ranks = np.unique(np.geomspace(1, max(1, clips * frames), PSDS_THRESHOLDS).astype(int)) - 1
    counts = np.zeros((clips, len(numbers), len(ranks), 3), np.int64)
    for row, number in enumerate(numbers):
        scores = probabilities[:, :, number]
        thresholds = np.maximum(np.sort(scores, None)[::-1][ranks], np.finfo(np.float32).tiny)  # never detect at 0
        # Rows (onset, offset) with all clips concatenated.
        real = np.array([(one.clip * after + np.array(one[2:])) for one in sorted(true) if one.number == number])
        counts[:, row, :, 2] = _by_clip(real, after, clips)[:, None]
        for column, threshold in enumerate(thresholds):
            edges = np.diff(np.pad(scores >= threshold, ((0, 0), (1, 1))).astype(np.int8), axis=1)
            spans = [clip * after + place * seconds for clip, place in map(np.nonzero, (edges > 0, edges < 0))]
            detected = np.stack(spans, 1)
            good = _covered(detected, real) >= OVERLAP * np.diff(detected)[:, 0] - 1e-9
            found = _covered(real, detected[good]) >= OVERLAP * np.diff(real)[:, 0] - 1e-9
            counts[:, row, column, 0] = _by_clip(detected[~good], after, clips)
            counts[:, row, column, 1] = _by_clip(real[found], after, clips)
    return counts


def _by_clip(spans: np.ndarray, after: float, clips: int) -> np.ndarray:
    return np.bincount((spans[:, 0] / after + 1e-9).astype(int), minlength=clips)


def _covered(spans: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the seconds of each span (onset, offset) covered by `others`, which are sorted and do not overlap."""
    if not len(others):
        return np.zeros(len(spans))
    edges, covered = others.flatten(), np.zeros(2 * len(others))
    covered[1::2] = np.diff(others)[:, 0].cumsum()
    covered[2::2] = covered[1:-1:2]
    return np.diff(np.interp(spans, edges, covered))[:, 0]


def _psds_of(counts: np.ndarray, hours: float) -> np.ndarray:
    """Return PSDS (…) from the counts (…, classes, thresholds, 3) of `_detections` over clips; NaN without events."""
    grid = np.linspace(0, MOST_FALSE, 2001)
    scores = []
    for draw in counts.reshape(int(np.prod(counts.shape[:-3])), *counts.shape[-3:]):
        false, hit, real = np.moveaxis(draw[draw[:, :1, 2].any(1)], 2, 0)  # classes that occur
        if not len(real):
            scores.append(np.nan)
            continue
        # At each rate of false positives, the best recall of any threshold with at most that rate.
        best = np.zeros((len(real), len(grid) + 1))  # the last column is for rates beyond the grid
        np.maximum.at(best, (np.arange(len(real))[:, None], np.searchsorted(grid, false / hours)), hit / real)
        best = np.maximum.accumulate(best[:, :-1], 1)
        effective = np.maximum(best.mean(0) - best.std(0), 0)
        scores.append(np.trapezoid(effective, grid) / MOST_FALSE)
    return np.reshape(scores, counts.shape[:-3])


def alarm_curve(
    alarming: np.ndarray, emergency: np.ndarray, *, seconds: float, rules: Sequence[tuple[int, int]]
) -> pd.DataFrame:
    """Return false alarms per hour and missed emergencies for rules (k of n consecutive frames) and `ALARM_THRESHOLDS`.

    alarming: (N, T) probability that a frame is an emergency. emergency: (N,) bool, which clips are emergencies. A clip
    raises at most one alarm.

    Columns: rule, threshold, miss_rate with miss_low and miss_high (%, Wilson, 95 %), alarms_per_hour (of clips without
    emergency) with alarms_low and alarms_high (exact Poisson, 95 %), alarms, hours; NaN if there are no such clips.
    """
    hours = int((~emergency).sum()) * alarming.shape[1] * seconds / 3600
    counted = hours or np.nan
    rows = []
    for k, n in rules:
        if not 1 <= k <= n <= alarming.shape[1]:
            raise ValueError(f"the rule {k} of {n} asks for 1 <= {k} <= {n} <= {alarming.shape[1]} frames of a clip")
        windows = np.lib.stride_tricks.sliding_window_view(alarming, n, axis=1)
        surest = np.sort(windows, axis=2)[:, :, n - k].max(1)  # the highest threshold at which the clip raises an alarm
        for threshold in ALARM_THRESHOLDS:
            raised = surest >= threshold
            missed, false = int((~raised & emergency).sum()), int((raised & ~emergency).sum())
            miss, low, high = percent(missed, int(emergency.sum()))
            fewest, most = poisson_bounds(false)
            rows.append({
                "rule": f"{k} of {n}", "threshold": float(threshold),
                "miss_rate": miss, "miss_low": low, "miss_high": high,
                "alarms_per_hour": false / counted, "alarms_low": fewest / counted, "alarms_high": most / counted,
                "alarms": false, "hours": hours,
            })  # fmt: skip
    return pd.DataFrame(rows)


def poisson_bounds(count: int, level: float = 0.95) -> tuple[float, float]:
    """Return the exact confidence interval of the mean of a Poisson variable observed as `count` (Garwood 1936)."""
    tail = (1 - level) / 2
    low = chi2.ppf(tail, 2 * count) / 2 if count else 0.0
    return float(low), float(chi2.ppf(1 - tail, 2 * count + 2) / 2)
