"""Disentanglement of latents, real numbers (N, D), against the known factors of the images they come from.

    row = scores(latents, {"x": …, "hue": …})

All measures are in 0 … 1. Every factor counts by its values, or by `LEVELS` equally frequent levels where it has more.
"""

from collections.abc import Mapping

import numpy as np
from scipy.stats import entropy
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import mutual_info_score
from sklearn.svm import LinearSVC
from torch import Tensor

from lib.metrics import MetricError

LEVELS = 10  # of a factor
BINS = 20  # equally wide ones of a latent, for mutual information (Locatello et al. 2019)
TREES = 100
LEAF = 0.01  # of the images fitted on, in each leaf at least: importances of full trees are mostly of noise


def scores(latents: Tensor, factors: Mapping[str, Tensor]) -> dict[str, float]:
    """MIG, DCI and SAP.

    latents: (N, D) of finite numbers, D of at least 2. factors: integers (N,) each, at least one factor.

    Returns:
        mig: mutual information gap (Chen et al. 2018): of each factor's information (over its entropy), that in the
            latent which knows most less that in the second; mean over factors.
        disentanglement, completeness: 1 - entropy of the importance of latents for factors, in the logarithm to the
            base of what it is spread over (Eastwood & Williams 2018, by random forests): does a latent tell of one
            factor alone (mean weighted by importance), is a factor told by one latent alone (mean).
        informativeness: accuracy of these forests on images not seen, mean over factors.
        sap: separated attribute predictability (Kumar et al. 2018): as mig, of the accuracies of linear classifiers.

    Forests and linear classifiers are fitted on the first half of the images and judged on the second.

    Raises:
        MetricError: a factor has one value alone, in all images or in a half of them.
    """
    values = latents.detach().cpu().double().numpy()
    wanted = {name: _levels(factor.numpy()) for name, factor in factors.items()}
    for name, levels in wanted.items():
        if min(len(np.unique(half)) for half in np.array_split(levels, 2)) < 2:
            raise MetricError(f"factor {name!r} has one value in a half of the images; leave it out or draw more")
    informed, predicted, important, right = [], [], [], []
    fit, judged = np.array_split(values, 2)
    for levels in wanted.values():
        known, asked = np.array_split(levels, 2)
        bits = [mutual_info_score(levels, _bins(latent)) for latent in values.T]
        informed.append(np.array(bits) / entropy(np.bincount(levels)))
        single = [LinearSVC(random_state=0).fit(one[:, None], known) for one in fit.T]
        predicted.append([line.score(one[:, None], asked) for line, one in zip(single, judged.T, strict=True)])
        # Every split chooses among all latents: among a random few, those that know nothing get importance too.
        forest = RandomForestClassifier(TREES, max_features=None, min_samples_leaf=LEAF, random_state=0)
        forest.fit(fit, known)
        important.append(forest.feature_importances_)
        right.append(forest.score(judged, asked))
    return {
        "mig": _gap(np.array(informed)),
        **dci(np.array(important).T),
        "informativeness": float(np.mean(right)),
        "sap": _gap(np.array(predicted)),
    }


def dci(importance: np.ndarray) -> dict[str, float]:
    """disentanglement and completeness (see `scores`) of importances (D, F) of latents for factors, 0 or more each."""
    count, factors = importance.shape
    alone = 1 - entropy(importance + 1e-12, axis=1, base=factors) if factors > 1 else np.ones(count)
    weights = importance.sum(axis=1) / importance.sum()
    complete = 1 - entropy(importance + 1e-12, axis=0, base=count)
    # Rounding may leave the entropy of even importances just above 1.
    return {"disentanglement": max(0.0, float(alone @ weights)), "completeness": max(0.0, float(complete.mean()))}


def _gap(table: np.ndarray) -> float:
    """Mean over rows of the largest less the second."""
    best = np.sort(table, axis=1)
    return float((best[:, -1] - best[:, -2]).mean())


def _levels(values: np.ndarray) -> np.ndarray:
    distinct, levels = np.unique(values, return_inverse=True)
    if len(distinct) <= LEVELS:
        return levels
    return np.searchsorted(np.quantile(values, np.arange(1, LEVELS) / LEVELS), values, side="right")


def _bins(latent: np.ndarray) -> np.ndarray:
    return np.digitize(latent, np.histogram_bin_edges(latent, BINS)[1:-1])
