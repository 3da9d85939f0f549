"""Metrics of a classifier with confidence intervals: accuracy, confusion matrix, alarms, calibration."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from scipy.optimize import minimize_scalar
from scipy.stats import binomtest
from sklearn import metrics
from torch import Tensor

BINS = 15  # for the calibration error, as in Guo et al.
_COLDEST, _HOTTEST = 1e-2, 1e2


def wilson(hits: int, count: int, level: float = 0.95) -> tuple[float, float]:
    """Return the Wilson interval of a proportion (1927): (low, high) in [0, 1]; (0, 1) if `count` is 0."""
    if not count:
        return 0.0, 1.0
    found = binomtest(int(hits), int(count)).proportion_ci(level, method="wilson")
    return float(found.low), float(found.high)


def percent(hits: int, count: int) -> tuple[float, float, float]:
    """Return a proportion in % with its 95 % Wilson interval: (value, low, high); NaN if `count` is 0."""
    if not count:
        return np.nan, np.nan, np.nan
    low, high = wilson(hits, count)
    return 100 * float(hits / count), 100 * low, 100 * high


def confusion(labels: Tensor, predicted: Tensor, classes: int) -> np.ndarray:
    """Return the confusion matrix, counts (classes, classes): rows are labels, columns predictions."""
    return metrics.confusion_matrix(labels.cpu(), predicted.cpu(), labels=range(classes))


def raised(logits: Tensor, alarming: Sequence[int]) -> Tensor:
    """Return whether the `alarming` classes together are more probable than the others, (N,) bool: Bayes decision."""
    return logits.softmax(1)[:, list(alarming)].sum(1) > 0.5


def binary(raised: Tensor, emergency: Tensor) -> np.ndarray:
    """Return the confusion matrix (2, 2) of decisions and truth, (N,) bool: rows are the truth, emergencies first."""
    return confusion((~emergency).long(), (~raised).long(), 2)


def score_row(logits: Tensor, labels: Tensor, classes: Sequence[str], alarming: Sequence[int] = ()) -> dict:
    """Return the metrics of one set of predictions; proportions are in %.

    clips, accuracy with accuracy_low and accuracy_high (Wilson, 95 %), macro_recall (over classes that occur),
    worst_class and worst_recall, ece; and for the decision `raised` on `alarming` classes binary_accuracy, miss_rate
    (emergencies without alarm) and false_alarms (other clips with alarm), each with its interval; NaN if there are
    no such clips. A robbery classified as a fire counts as correct there, since it raises the alarm.

    Raises:
        ValueError: logits are not (N, classes), labels do not match them, or there are no samples.
    """
    if logits.ndim != 2 or logits.shape != (len(labels), len(classes)) or not len(labels):
        raise ValueError(f"logits are {tuple(logits.shape)}, expected one row for each of {len(labels)} labels and one "
                         f"column for each of {len(classes)} classes")  # fmt: skip
    counts = confusion(labels, logits.argmax(1), len(classes))
    each = metrics.recall_score(labels.cpu(), logits.argmax(1).cpu(), labels=range(len(classes)), average=None,
                                zero_division=np.nan)  # fmt: skip
    worst = int(np.nanargmin(each))
    row = {"clips": len(labels)} | _share("accuracy", np.trace(counts), counts.sum())
    row |= {"macro_recall": 100 * float(np.nanmean(each))}
    row |= {"worst_class": classes[worst], "worst_recall": 100 * float(each[worst])}
    row |= {"ece": 100 * calibration_error(logits.softmax(1), labels)}
    decided = raised(logits, alarming), torch.isin(labels.cpu(), torch.tensor(list(alarming)))
    (hit, miss), (false, quiet) = binary(*decided) if len(alarming) else np.zeros((2, 2), int)
    row |= _share("binary_accuracy", hit + quiet, hit + miss + false + quiet)
    return row | _share("miss_rate", miss, hit + miss) | _share("false_alarms", false, false + quiet)


def without_abstentions(logits: Tensor) -> Tensor:
    """Return logits (N, classes) in which abstentions (rows of NaN) predict class 0 (silence) with certainty."""
    nothing = 100.0 * F.one_hot(torch.tensor(0), logits.shape[1])
    return torch.where(logits.isnan().any(1, keepdim=True), nothing.to(logits.dtype), logits)


def alarm_row(logits: Tensor, labels: Tensor, alarming: Sequence[int]) -> dict[str, float]:
    """Return alarm metrics in %: balanced_accuracy, the mean recall of emergencies and other clips, average_precision
    of the `alarming` classes' probability, and the accuracy of the two constant decisions, always and never.

    Constant predictions score 50 and the share of emergencies. NaN if there are no emergencies or no other clips.
    """
    emergency = torch.isin(labels.cpu(), torch.tensor(list(alarming)))
    if not 0 < emergency.sum() < len(emergency):
        return dict.fromkeys(("balanced_accuracy", "average_precision", "always", "never"), np.nan)
    decided, rate = raised(logits, alarming).cpu(), 100 * emergency.double().mean().item()
    likely = logits.softmax(1)[:, list(alarming)].sum(1).cpu()
    return {
        "balanced_accuracy": 100 * metrics.balanced_accuracy_score(emergency, decided),
        "average_precision": 100 * metrics.average_precision_score(emergency, likely),
        "always": rate, "never": 100 - rate,
    }  # fmt: skip


def _share(name: str, hits: int, count: int) -> dict[str, float]:
    return dict(zip((name, f"{name}_low", f"{name}_high"), percent(hits, count), strict=True))


def reliability(probabilities: Tensor, labels: Tensor, bins: int = BINS) -> pd.DataFrame:
    """Return one row per bin of confidence (the largest probability): low, high, confidence, accuracy, count."""
    confidence, predicted = probabilities.max(1)
    right = (predicted == labels).double()
    edges = torch.linspace(0, 1, bins + 1, dtype=torch.float64)
    place = torch.bucketize(confidence.double(), edges[1:-1])
    count = torch.bincount(place, minlength=bins)
    mean = [torch.bincount(place, values, minlength=bins) / count for values in (confidence.double(), right)]
    return pd.DataFrame({"low": edges[:-1], "high": edges[1:], "confidence": mean[0], "accuracy": mean[1],
                         "count": count})  # fmt: skip


def calibration_error(probabilities: Tensor, labels: Tensor, bins: int = BINS) -> float:
    """Return the expected calibration error in [0, 1] (Guo et al. 2017, On Calibration of Modern Neural Networks)."""
    table = reliability(probabilities, labels, bins)
    gap = (table.confidence - table.accuracy).abs().fillna(0.0)
    return float((gap * table["count"]).sum() / table["count"].sum())


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """Return the temperature T, 0.01 to 100, that minimises the cross-entropy of softmax(logits / T) (Guo et al. 2017).

    Fit it on clips used neither for training nor for evaluation. Rows of NaN (abstentions) are ignored; T is 1 if there
    are no others.
    """
    answered = ~logits.isnan().any(1)
    logits, labels = logits[answered].double(), labels[answered]
    if not len(logits):
        return 1.0

    def cost(log_temperature: float) -> float:
        return F.cross_entropy(logits / np.exp(log_temperature), labels).item()

    found = minimize_scalar(cost, bounds=(np.log(_COLDEST), np.log(_HOTTEST)), method="bounded",
                            options={"xatol": 1e-6})  # fmt: skip
    return float(np.exp(found.x))
