"""The ensemble of study 4 (CNN, Whisper's encoder, text of its decoder), compared with its best member.

Every voter provides logits (N, classes) for the same clips; a row of NaN is an abstention, e.g. of the text classifier
when there are no words. An abstention counts as no emergency and is left out of means. Temperatures and stacking are
fitted on the votes on validation clips, which were cast without training on these clips (the text voter's are out of
fold), and evaluated on the test clips.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
import pandas as pd
import torch
from scipy.stats import binomtest, t
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, balanced_accuracy_score, cohen_kappa_score, confusion_matrix
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from torch.nn.functional import one_hot

from lib.metrics.classification import (
    alarm_row,
    calibration_error,
    fit_temperature,
    raised,
    score_row,
    without_abstentions,
)
from lib.metrics.comparison import holm

Votes = Mapping[str, Tensor]  # voter -> logits (N, classes)

MAJORITY, MEAN, STACKED = "2 of 3", "mean probability", "stacking"
BINARY = ("binary_accuracy", "miss_rate", "false_alarms")  # columns of `score_row`
CONSTANT = ("always alarming", "never alarming")  # constant predictions
# Binary accuracy (emergency or not, %) reported by the source on its own test set from AI Hub.
SOURCE = {"CNN": 99.60, "Whisper encoder": 99.85, "decoder's text": 96.21, MAJORITY: 99.93}


def calibrated(validation: Votes, labels: Tensor, test: Votes) -> dict[str, Tensor]:
    """Return each voter's log-probabilities on the test, with a temperature fitted on the validation clips."""
    return {name: (test[name] / fit_temperature(validation[name], labels)).log_softmax(1) for name in test}


def calls(votes: Votes, alarming: Sequence[int]) -> Tensor:
    """Return how many voters predict an emergency, (N,). Calibrate logits first, or one voter may do so too easily."""
    return torch.stack([raised(logits, alarming) for logits in votes.values()]).sum(0)


def majority(votes: Votes, alarming: Sequence[int]) -> Tensor:
    """Return whether most voters predict an emergency, (N,) bool: two of three (as in the source), both of two."""
    return calls(votes, alarming) > len(votes) / 2


def majority_class(votes: Votes) -> Tensor:
    """Return the class with most votes, (N,); ties go to the most confident voter (votes should be calibrated)."""
    logits = torch.stack(list(votes.values()))  # (voters, N, classes)
    answered = ~logits.isnan().any(2, keepdim=True)
    counts = (one_hot(logits.argmax(2), logits.shape[2]) * answered).sum(0)
    surest = logits.softmax(2).nan_to_num(0.0).amax(0)
    # Counts decide; among equal counts, the highest probability that any voter gives to the class.
    return (counts + 0.5 * surest * (counts > 0)).argmax(1)


def mean_probability(votes: Votes) -> Tensor:
    """Return the log of the mean probability over the voters that do not abstain, (N, classes)."""
    return torch.stack([logits.softmax(1) for logits in votes.values()]).nanmean(0).log()


def stacking(validation: Votes, labels: Tensor, test: Votes, classes: int) -> Tensor:
    """Return log-probabilities (N, classes) of a logistic regression on the voters' log-probabilities (Wolpert 1992);
    -20 for classes absent from `labels`."""
    before, after = (torch.cat([votes[name].log_softmax(1).clamp_min(-10).nan_to_num(-np.log(classes))
                                for name in test], 1).numpy() for votes in (validation, test))  # fmt: skip
    model = linear_classifier().fit(before, labels.numpy())
    found = torch.full((len(after), classes), -20.0)
    found[:, model.classes_] = torch.from_numpy(model.predict_log_proba(after)).float()
    return found


def linear_classifier(**options) -> Pipeline:
    """Return a logistic regression on standardised features."""
    return make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000, **options))


def ensemble_table(
    validation: Votes, validation_labels: Tensor, test: Votes, labels: Tensor, classes: Sequence[str],
    alarming: Sequence[int], *, seed: int,
) -> pd.DataFrame:  # fmt: skip
    """Return tab43: one row per voter, per voting scheme and per constant prediction (always and never alarming).

    Single voters are scored on all clips; an abstention counts as silence and raises no alarm.

    Columns: voter, seed, source (the source's binary accuracy, %), answered (% of clips), those of `score_row` (ece
    over answered clips only), balanced_accuracy and average_precision (%, emergency or not; the latter ranks by
    probability, for 2 of 3 by the number of votes), and, for voting schemes only, against (the voter that was best on
    validation) and binary decisions compared with this voter's: fixed (only the scheme is right), broken (only the
    voter is right), p (McNemar's exact test) and p_holm (corrected for all voting schemes).
    """
    sure = calibrated(validation, validation_labels, test)
    emergency = torch.isin(labels, torch.tensor(list(alarming)))
    stacked = stacking(validation, validation_labels, test, len(classes))
    ways = sure | {MEAN: mean_probability(sure), STACKED: stacked}
    decided = {name: raised(logits, alarming) for name, logits in ways.items()} | {MAJORITY: majority(sure, alarming)}
    known = torch.isin(validation_labels, torch.tensor(list(alarming)))
    before = calibrated(validation, validation_labels, validation)
    best = max(test, key=lambda name: (raised(before[name], alarming) == known).float().mean().item())
    rows, precision = [], dict.fromkeys(CONSTANT, emergency.double().mean().item())
    for name in (*test, MAJORITY, MEAN, STACKED):
        row = {"voter": name, "seed": seed, "source": SOURCE.get(name, np.nan)}
        if name == MAJORITY:  # votes are not probabilities, so calibration is undefined
            logits = 20.0 * one_hot(majority_class(sure), len(classes)).float()
            two = torch.stack([decided[name], ~decided[name]], 1).float()
            binary = score_row(two, (~emergency).long(), ("alarm", "none"), (0,))
            binary = {key: binary[key] for key in binary if key.startswith(BINARY)}
            row |= score_row(logits, labels, classes, alarming) | binary | {"ece": np.nan}
            called = calls(sure, alarming)
            precision[name] = average_precision_score(emergency, called) if emergency.any() else np.nan
        else:
            answered, logits = ~ways[name].isnan().any(1), without_abstentions(ways[name])
            row |= {"answered": 100 * answered.double().mean().item()} | score_row(logits, labels, classes, alarming)
            said = calibration_error(ways[name][answered].softmax(1), labels[answered]) if answered.any() else np.nan
            row["ece"] = 100 * said
            precision[name] = alarm_row(logits, labels, alarming)["average_precision"] / 100
        if name not in test:
            row |= mcnemar(decided[best] == emergency, decided[name] == emergency) | {"against": best}
        rows.append(row)
    for name, right in zip(CONSTANT, (emergency, ~emergency), strict=True):
        row = {"voter": name, "seed": seed, "binary_accuracy": 100 * right.double().mean().item()}
        rows.append(row | {"miss_rate": 100.0 * (name == CONSTANT[1]), "false_alarms": 100.0 * (name == CONSTANT[0])})
    table = pd.DataFrame(rows)
    table.insert(table.columns.get_loc("p") + 1, "p_holm", holm(table.p))
    place = table.columns.get_loc("miss_rate")
    table.insert(place, "balanced_accuracy", 100 - (table.miss_rate + table.false_alarms) / 2)
    table.insert(place + 1, "average_precision", 100 * table.voter.map(precision))
    return table


def mcnemar(before: Tensor, after: Tensor) -> dict[str, float]:
    """Apply McNemar's exact test to two sets of decisions, (N,) bool each, true if right. Return fixed
    (only `after` right), broken (only `before` right) and the two-sided p (McNemar 1947), 1 where they never differ."""
    fixed, broken = int((after & ~before).sum()), int((before & ~after).sum())
    p = binomtest(fixed, fixed + broken).pvalue if fixed + broken else 1.0
    return {"fixed": fixed, "broken": broken, "p": float(p)}


def overlap_table(votes: Votes, labels: Tensor, alarming: Sequence[int], *, seed: int) -> pd.DataFrame:
    """Return tab47: how far the voters' binary errors coincide, one row per pair.

    Columns: one, other, seed, clips, both_wrong (%, the double-fault measure), if_independent (%, the product of the
    error rates), q (Yule's Q: 0 for independent errors, 1 if they coincide; NaN if each diagonal of the 2 x 2 table has
    an empty cell), kappa (Cohen's, between the indicators of being right).
    """
    emergency = torch.isin(labels, torch.tensor(list(alarming)))
    right = {name: (raised(logits, alarming) == emergency).numpy() for name, logits in votes.items()}
    rows = []
    for one, other in combinations(votes, 2):
        a, b = right[one], right[other]
        neither, second, first, both = confusion_matrix(a, b, labels=[False, True]).ravel()
        product = both * neither + first * second
        rows.append({
            "one": one, "other": other, "seed": seed, "clips": len(a), "both_wrong": 100 * neither / len(a),
            "if_independent": 100 * (~a).mean() * (~b).mean(),
            "q": (both * neither - first * second) / product if product else np.nan,
            "kappa": cohen_kappa_score(a, b) if len({*a, *b}) > 1 else np.nan,
        })  # fmt: skip
    return pd.DataFrame(rows)


def if_independent(accuracies: Sequence[float]) -> float:
    """Return the accuracy (in [0, 1]) of a majority vote of three voters whose errors are independent."""
    one, two, three = accuracies
    return one * two * three + one * two * (1 - three) + one * (1 - two) * three + (1 - one) * two * three


def audit(features: np.ndarray, groups: np.ndarray, *, folds: int = 5, seed: int = 0) -> dict[str, float]:
    """Test whether a logistic regression can separate groups of recordings by features that should not matter.

    features: (N, d), e.g. of silent frames. groups: (N,), e.g. the corpora, or emergency and not.

    Returns balanced_accuracy (%, out of fold) with low and high (95 % t interval over folds, somewhat too narrow as
    training folds overlap), chance, clips. If it is well above chance, a recogniser may have learned the recording
    chain instead of the sound. There must be at least two groups, each with at least as many recordings as folds.
    """
    split = StratifiedKFold(folds, shuffle=True, random_state=seed)
    found = cross_val_predict(linear_classifier(class_weight="balanced"), features, groups, cv=split)
    each = [balanced_accuracy_score(groups[out], found[out]) for _, out in split.split(features, groups)]
    mean, half = np.mean(each), t.ppf(0.975, folds - 1) * np.std(each, ddof=1) / folds**0.5
    low, high = np.clip([mean - half, mean + half], 0, 1)
    return {"clips": len(groups), "balanced_accuracy": 100 * mean, "low": 100 * low, "high": 100 * high,
            "chance": 100 / len(np.unique(groups))}  # fmt: skip
