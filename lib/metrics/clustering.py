"""Clusters, nearest neighbours and a linear probe of representations, and their agreement with labels.

    found = k_means(train_features, 10, seed=0)
    scores(found.assign(test_features), test_labels)

Points are floats (N, D), codes integers (N, L) with values from 0, labels integers (N,) from 0, all on the CPU.
Random numbers depend on `seed` alone.
"""

import math
from dataclasses import dataclass, field

import torch
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import adjusted_mutual_info_score, adjusted_rand_score, normalized_mutual_info_score
from sklearn.metrics.cluster import contingency_matrix
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits
from torch import Tensor
from torch.nn.functional import normalize

from lib.metrics import MetricError

BLOCK = 1_000_000  # pairs compared at once: more would not fit into the caches and take several times as long


def check_points(points: Tensor) -> Tensor:
    """Return the points as float32; raise a MetricError unless all are finite."""
    if bad := int((~torch.isfinite(points)).any(dim=1).sum()):
        raise MetricError(f"{bad} of {len(points)} points are not finite; look at what gave them")
    return points.float()


# --- Clusters against labels --------------------------------------------------------------------


def matched_accuracy(clusters: Tensor, labels: Tensor) -> float:
    """Return the share, 0 … 1, of samples whose cluster is matched to their class; all other samples are errors.

    Clusters and classes are matched one to one so as to maximise this share (Hungarian algorithm).
    """
    table = contingency_matrix(labels, clusters)
    return float(table[linear_sum_assignment(table, maximize=True)].sum() / len(labels))


def scores(clusters: Tensor, labels: Tensor) -> dict[str, float | int]:
    """Return accuracy (`matched_accuracy`), nmi (MI over the mean entropy), ami, ari and clusters (non-empty ones).

    accuracy and nmi are in [0, 1]; nmi increases with the number of clusters even if they are random. ami and ari
    are adjusted for chance: 0 on average for random clusters of these sizes, 1 for perfect ones.
    """
    found, true = clusters.numpy(), labels.numpy()
    return {
        "accuracy": matched_accuracy(clusters, labels),
        "nmi": float(normalized_mutual_info_score(true, found)),
        "ami": float(adjusted_mutual_info_score(true, found)),
        "ari": float(adjusted_rand_score(true, found)),
        "clusters": len(torch.unique(clusters)),
    }


# --- Clusters -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Clusters:
    """Clusters of points, or of codes.

    centres: means (k, D) float32, or modes (k, L) int64. cost: sum over the fitted samples of squared Euclidean or
    Hamming distances to their centre.
    """

    centres: Tensor = field(repr=False)
    cost: float

    def assign(self, samples: Tensor) -> Tensor:
        """Return the nearest centre of each point or code, (N, …) → (N,) int64; ties go to the first."""
        check_points(samples)
        return _distances(samples, self.centres).argmin(dim=1)


def _distances(samples: Tensor, others: Tensor) -> Tensor:
    """Return Euclidean distances of points or Hamming distances of codes, (N, …) and (M, …) → (N, M) float32."""
    p = 2.0 if samples.is_floating_point() else 0.0
    return torch.cdist(samples.float(), others.float(), p=p, compute_mode="donot_use_mm_for_euclid_dist")


def k_means(points: Tensor, k: int, *, seed: int, restarts: int = 10) -> Clusters:
    """Fit k-means to points (N, D), 1 ≤ k ≤ N: the best of `restarts` runs from k-means++ (scikit-learn)."""
    points = check_points(points)
    with threadpool_limits(1):  # with more, sums vary in their last digits, which may change the best run
        fitted = KMeans(n_clusters=k, n_init=restarts, random_state=seed).fit(points.numpy())
    return Clusters(torch.from_numpy(fitted.cluster_centers_), float(fitted.inertia_))


def k_modes(codes: Tensor, k: int, *, seed: int, restarts: int = 10) -> Clusters:
    """Fit k-modes to codes (N, L), 1 ≤ k ≤ N: the best of `restarts` runs (Huang 1998); ties go to the first.

    This is k-means with the Hamming distance and, as centres, the most frequent category per position (ties: the
    lowest), initialised by k-means++ (Arthur & Vassilvitskii 2007; the Hamming distance is half the squared Euclidean
    one of one-hot codes). Empty clusters restart at the code farthest from its mode. A run ends when its cost stalls.
    """
    # The package `kmodes` loops over samples in Python and fails to initialise for large k.
    generator = torch.Generator().manual_seed(seed)
    return min((_k_modes(codes, k, generator) for _ in range(restarts)), key=lambda run: run.cost)


def _k_modes(codes: Tensor, k: int, generator: torch.Generator) -> Clusters:
    modes, cost = _first_modes(codes, k, generator), math.inf
    while True:
        distances = _distances(codes, modes)
        before, cost = cost, int(distances.amin(dim=1).long().sum())
        if cost >= before:
            return Clusters(modes, cost)
        modes = _moved(codes, distances.argmin(dim=1), modes)


def _first_modes(codes: Tensor, k: int, generator: torch.Generator) -> Tensor:
    chosen = [int(torch.randint(len(codes), (1,), generator=generator))]
    distances = (codes != codes[chosen[0]]).sum(dim=1)
    while len(chosen) < k:
        weights = distances if distances.any() else torch.ones(len(codes))
        chosen.append(int(torch.multinomial(weights.double(), 1, generator=generator)))
        distances = torch.minimum(distances, (codes != codes[chosen[-1]]).sum(dim=1))
    return codes[chosen]


def _moved(codes: Tensor, clusters: Tensor, modes: Tensor) -> Tensor:
    """Return the most frequent category of each position and cluster; empty clusters get the farthest codes."""
    (k, length), categories = modes.shape, int(codes.max()) + 1
    cells = codes + (torch.arange(length) + clusters[:, None] * length) * categories
    counts = torch.bincount(cells.flatten(), minlength=k * length * categories).view(k, length, categories)
    filled = torch.bincount(clusters, minlength=k) > 0
    modes = torch.where(filled[:, None], counts.argmax(dim=2), modes)
    distances = (codes != modes[clusters]).sum(dim=1)
    # One at a time, so that no two clusters take the same code.
    for cluster in (~filled).nonzero().flatten().tolist():
        if not distances.any():
            break  # fewer distinct codes than clusters
        modes[cluster] = codes[distances.argmax()]
        distances = torch.minimum(distances, (codes != modes[cluster]).sum(dim=1))
    return modes


# --- Neighbours ---------------------------------------------------------------------------------


def nearest(train: Tensor, test: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the k training samples, 1 ≤ k ≤ N, most similar to each of M test samples, in descending order.

    Similarity is the cosine of points (N, D), -1 … 1 (0 if one is zero), or the share of equal positions of codes
    (N, L), 0 … 1. Returns (indices, similarities), (M, k) int64 and float32. Ties (to 1e-9) are broken by
    the lower index, including those at the k-th place.
    """
    points, length, found = train.is_floating_point(), train.shape[1], []
    if points:
        train, test = (normalize(check_points(part), dim=1) for part in (train, test))
    for block in test.split(max(1, BLOCK // len(train))):
        if points:
            similarity = (block @ train.T).clamp(-1, 1)
        else:
            similarity = (length - _distances(block, train)) / length
        # `topk`, like scikit-learn's NearestNeighbors, leaves the order of ties open; these integers have no ties.
        keys = (similarity * 2**30).long() * len(train) - torch.arange(len(train))
        indices = keys.topk(k, dim=1).indices
        found.append((indices, similarity.gather(1, indices)))
    indices, similarities = (torch.cat(parts) for parts in zip(*found, strict=True))
    return indices, similarities


def knn(
    train: Tensor,
    train_labels: Tensor,
    test: Tensor,
    *,
    classes: int,
    k: int = 200,
    temperature: float = 0.1,
) -> Tensor:
    """Predict labels of M test samples, (M,) int64, by a vote of the `k` nearest training samples, or all if fewer.

    Votes are weighted by exp(similarity / temperature) (Wu et al. 2018; temperature as in MoCo's CIFAR notebook); ties
    go to the lowest class. Samples and similarities as in `nearest`; labels 0 … classes - 1.
    """
    indices, similarities = nearest(train, test, min(k, len(train)))
    # Relative to the most similar sample, so that low temperatures do not overflow.
    weights = ((similarities - similarities[:, :1]).double() / temperature).exp()
    votes = torch.zeros(len(test), classes, dtype=torch.float64).scatter_add_(1, train_labels[indices], weights)
    return votes.argmax(dim=1)


# --- Linear probe -------------------------------------------------------------------------------


def linear_probe(train: Tensor, train_labels: Tensor, test: Tensor, test_labels: Tensor) -> float:
    """Return the test accuracy, 0 … 1, of a multinomial logistic regression fitted to the training samples.

    Points (N, D), (M, D) are standardised by the training mean and deviation; L2 penalty: scikit-learn's C = 1.
    """
    train, test = check_points(train), check_points(test)
    # 40,000 x 512 points of 10 classes take 2 s on one core, against 8 s with torch's LBFGS.
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(train.numpy(), train_labels.numpy())
    return float(model.score(test.numpy(), test_labels.numpy()))
