"""Disentanglement of latents, real numbers (N, D), with respect to the known factors of their images.

    row = scores(latents, {"x": …, "hue": …})

All metrics are in 0 … 1. A factor with more than `LEVELS` values is quantised to `LEVELS` equally frequent levels.
"""

from collections.abc import Mapping

import numpy as np
from scipy.stats import entropy
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import mutual_info_score
from sklearn.svm import LinearSVC
from torch import Tensor

from lib.metrics import MetricError

LEVELS = 10  # maximum number of levels of a factor
BINS = 20  # of equal width for each latent, for mutual information (Locatello et al. 2019)
TREES = 100
LEAF = 0.01  # minimum share of training images per leaf: the importances of fully grown trees are mostly noise


def scores(latents: Tensor, factors: Mapping[str, Tensor]) -> dict[str, float]:
    """Return MIG, DCI and SAP of latents.

    latents: (N, D), finite, D ≥ 2. factors: integers (N,) each, at least one factor.

    Returns:
        mig: mutual information gap (Chen et al. 2018): highest minus second highest mutual information of a latent
            with a factor, over the factor's entropy; mean over factors.
        disentanglement, completeness: 1 - entropy of the importance of latents for factors (Eastwood & Williams 2018,
            with random forests), normalised to 0 … 1: over factors for each latent (mean weighted by importance),
            and over latents for each factor (mean).
        informativeness: accuracy of these forests on held-out images, mean over factors.
        sap: separated attribute predictability (Kumar et al. 2018): like mig, with accuracies of linear classifiers.

    Forests and linear classifiers are fitted on the first half of the images and evaluated on the second.

    Raises:
        MetricError: a factor has a single value in one half of the images.
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
        # Every split considers all latents: with a random subset, uninformative latents would gain importance too.
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
    """Return disentanglement and completeness (see `scores`) from importances (D, F), ≥ 0, of latents for factors."""
    count, factors = importance.shape
    alone = 1 - entropy(importance + 1e-12, axis=1, base=factors) if factors > 1 else np.ones(count)
    weights = importance.sum(axis=1) / importance.sum()
    complete = 1 - entropy(importance + 1e-12, axis=0, base=count)
    # Rounding may leave the entropy of equal importances slightly above 1.
    return {"disentanglement": max(0.0, float(alone @ weights)), "completeness": max(0.0, float(complete.mean()))}


def _gap(table: np.ndarray) -> float:
    """Return the mean over rows of the largest value minus the second largest."""
    best = np.sort(table, axis=1)
    return float((best[:, -1] - best[:, -2]).mean())


def _levels(values: np.ndarray) -> np.ndarray:
    distinct, levels = np.unique(values, return_inverse=True)
    if len(distinct) <= LEVELS:
        return levels
    return np.searchsorted(np.quantile(values, np.arange(1, LEVELS) / LEVELS), values, side="right")


def _bins(latent: np.ndarray) -> np.ndarray:
    return np.digitize(latent, np.histogram_bin_edges(latent, BINS)[1:-1])
