"""How well clusters, neighbours and a linear readout of representations follow the labels.

    found = k_means(train_features, 10, seed=0)
    fitted = matching(found.assign(train_features), train_labels)
    matched_accuracy(found.assign(test_features), test_labels, fitted=fitted)

Points are floats (N, D), codes integers (N, L) with values from 0, labels integers (N,) from 0. All results are
on the CPU; what is random depends on `seed` alone.
"""

from dataclasses import dataclass, field

import torch
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import adjusted_mutual_info_score, adjusted_rand_score, normalized_mutual_info_score
from torch import Tensor
from torch.nn.functional import embedding_bag, normalize

from lib.metrics import MetricError
from lib.metrics.codes import check_codes, check_labels, one_hot

BLOCK = 4_000_000  # pairs compared at once: 16 MB
CACHED = 1_000_000  # of these, pairs that are ranked at once: more than fit the caches take several times as long
MEASURES = ("cosine", "hamming")


def check_points(points: Tensor) -> Tensor:
    """The points as float32 on the CPU, if they are finite floats (N, D), at least one; else a MetricError."""
    if not points.is_floating_point():
        raise MetricError(f"points are floats, not {points.dtype}; for integer codes take k_modes or 'hamming'")
    if points.ndim != 2 or not points.numel():
        raise MetricError(f"points have shape (N, D) with both at least 1, not {tuple(points.shape)}")
    points = points.detach().cpu().float()
    finite = torch.isfinite(points).all(dim=1)
    if not finite.all():
        raise MetricError(f"{(~finite).sum().item()} of {len(points)} points are not finite; look at what gave them")
    return points


# --- Clusters against labels --------------------------------------------------------------------


def matching(clusters: Tensor, labels: Tensor) -> Tensor:
    """Class of each cluster, (clusters,) int64: the one-to-one matching that gets most samples right (Hungarian).

    Clusters that are left over, as there are more of them than classes, have -1.
    """
    labels = check_labels(labels)
    clusters = check_labels(clusters, len(labels), "clusters")
    classes, count = int(labels.max()) + 1, int(clusters.max()) + 1
    table = torch.bincount(clusters * classes + labels, minlength=count * classes).view(count, classes)
    rows, columns = linear_sum_assignment(table.numpy(), maximize=True)
    fitted = torch.full((count,), -1)
    fitted[torch.from_numpy(rows)] = torch.from_numpy(columns)
    return fitted


def matched_accuracy(clusters: Tensor, labels: Tensor, *, fitted: Tensor | None = None) -> float:
    """Share, 0 … 1, of samples whose cluster is matched to their class; samples of other clusters are errors.

    The matching is the best one of these samples, unless one `fitted` on others by `matching` is given.
    """
    labels = check_labels(labels)
    clusters = check_labels(clusters, len(labels), "clusters")
    fitted = matching(clusters, labels) if fitted is None else fitted.cpu()
    known = clusters < len(fitted)  # a cluster that was empty where the matching was fitted has no class
    return (fitted[clusters[known]] == labels[known]).sum().item() / len(labels)


def scores(clusters: Tensor, labels: Tensor) -> dict[str, float | int]:
    """accuracy (`matched_accuracy`), nmi (I over the mean of both entropies), ami, ari, clusters (not empty).

    accuracy and nmi are in [0, 1], and nmi rises with the number of clusters even where they are random. ami and ari
    are adjusted for chance: 0 on average for random clusters of these sizes, 1 for perfect ones.
    """
    accuracy = matched_accuracy(clusters, labels)
    found, true = clusters.cpu().numpy(), labels.cpu().numpy()
    return {
        "accuracy": accuracy,
        "nmi": float(normalized_mutual_info_score(true, found, average_method="arithmetic")),
        "ami": float(adjusted_mutual_info_score(true, found, average_method="arithmetic")),
        "ari": float(adjusted_rand_score(true, found)),
        "clusters": len(torch.unique(clusters)),
    }


# --- Clusters -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Means:
    """Clusters of points. centres: (k, D) float32; cost: sum of squared distances of the points they were fitted to."""

    centres: Tensor = field(repr=False)
    cost: float

    def assign(self, points: Tensor) -> Tensor:
        """The nearest centre of each point, (N, D) → (N,) int64; of equally near ones the first."""
        points = _same_width(check_points(points), self.centres)
        middle = self.centres.mean(dim=0)  # differences of squares: the smaller these, the less is rounded
        centres = self.centres - middle
        squares = centres.square().sum(dim=1)
        blocks = points.split(max(1, BLOCK // len(centres)))
        return torch.cat([torch.addmm(squares, b - middle, centres.T, alpha=-2).argmin(dim=1) for b in blocks])


@dataclass(frozen=True)
class Modes:
    """Clusters of codes. modes: (k, L) int64; costs: sum of Hamming distances of codes to modes, by iteration."""

    modes: Tensor = field(repr=False)
    costs: tuple[int, ...] = field(repr=False)

    @property
    def cost(self) -> int:
        return self.costs[-1]

    def assign(self, codes: Tensor) -> Tensor:
        """The nearest mode of each code, (N, L) → (N,) int64; of equally near ones the first."""
        return _nearest_mode(_same_width(check_codes(codes), self.modes), self.modes)[0]


def k_means(points: Tensor, k: int, *, seed: int, restarts: int = 10) -> Means:
    """k-means of points (N, D), k of 1 … N: the best of `restarts` runs from k-means++ (scikit-learn)."""
    points = check_points(points)
    _check_k(k, len(points), restarts)
    fitted = KMeans(n_clusters=k, n_init=restarts, random_state=seed).fit(points.numpy())
    return Means(torch.from_numpy(fitted.cluster_centers_), float(fitted.inertia_))


def k_modes(codes: Tensor, k: int, *, seed: int, restarts: int = 10, iterations: int = 100) -> Modes:
    """k-modes of codes (N, L), k of 1 … N: the best of `restarts` runs (Huang 1998), of equal ones the first.

    k-means with the Hamming distance and, as centre, the most frequent category of each position (of ties the lowest),
    from k-means++ (Arthur & Vassilvitskii 2007; the Hamming distance is half the squared Euclidean one of one-hot
    codes). An empty cluster restarts at the code farthest from its mode. A run ends where its cost no longer falls, or
    after `iterations`.
    """
    # The package `kmodes` loops over samples in Python, and fails to initialise for larger k.
    codes = check_codes(codes)
    _check_k(k, len(codes), restarts)
    if iterations < 1:
        raise MetricError(f"k-modes needs at least 1 iteration, not {iterations}")
    generator = torch.Generator().manual_seed(seed)
    runs = [_k_modes(codes, k, generator, iterations) for _ in range(restarts)]
    return min(runs, key=lambda run: run.cost)


def _k_modes(codes: Tensor, k: int, generator: torch.Generator, iterations: int) -> Modes:
    modes = _first_modes(codes, k, generator)
    clusters, distances = _nearest_mode(codes, modes)
    costs = [int(distances.sum())]
    while len(costs) < iterations and (len(costs) == 1 or costs[-1] < costs[-2]):
        modes = _moved(codes, clusters, modes)
        clusters, distances = _nearest_mode(codes, modes)
        costs.append(int(distances.sum()))
    return Modes(modes, tuple(costs))


def _first_modes(codes: Tensor, k: int, generator: torch.Generator) -> Tensor:
    chosen = [int(torch.randint(len(codes), (1,), generator=generator))]
    distances = (codes != codes[chosen[0]]).sum(dim=1)
    while len(chosen) < k:
        weights = distances.double() if distances.any() else torch.ones(len(codes), dtype=torch.float64)
        chosen.append(int(torch.multinomial(weights, 1, generator=generator)))
        distances = torch.minimum(distances, (codes != codes[chosen[-1]]).sum(dim=1))
    return codes[chosen]


def _moved(codes: Tensor, clusters: Tensor, modes: Tensor) -> Tensor:
    """The most frequent category of each position of each cluster, and the farthest codes for those without any."""
    (k, length), categories = modes.shape, int(codes.max()) + 1
    cells = codes + (torch.arange(length) + clusters[:, None] * length) * categories
    counts = torch.bincount(cells.flatten(), minlength=k * length * categories).view(k, length, categories)
    filled = torch.bincount(clusters, minlength=k) > 0
    modes = torch.where(filled[:, None], counts.argmax(dim=2), modes)
    distances = (codes != modes[clusters]).sum(dim=1)
    # One after the other, so that no two take the same code.
    for cluster in (~filled).nonzero().flatten().tolist():
        if not distances.any():
            break  # fewer different codes than clusters
        modes[cluster] = codes[distances.argmax()]
        distances = torch.minimum(distances, (codes != modes[cluster]).sum(dim=1))
    return modes


def _nearest_mode(codes: Tensor, modes: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest mode of each code and its Hamming distance, both (N,) int64."""
    categories = int(max(codes.max(), modes.max())) + 1
    # The product of one-hot codes, without their zeros: the rows of the modes' table that a code picks are summed.
    table = one_hot(modes, categories).T.contiguous()
    slots = codes + torch.arange(codes.shape[1]) * categories
    clusters, equal = [], []
    for block in slots.split(max(1, BLOCK // len(modes))):
        agreement = embedding_bag(block, table, mode="sum")
        clusters.append(agreement.argmax(dim=1))  # of equal ones the first, which `max` does not promise
        equal.append(agreement.amax(dim=1))
    return torch.cat(clusters), codes.shape[1] - torch.cat(equal).long()


def _check_k(k: int, count: int, restarts: int) -> None:
    if not 1 <= k <= count:
        raise MetricError(f"{count} samples make 1 … {count} clusters, not {k}")
    if restarts < 1:
        raise MetricError(f"clustering needs at least 1 restart, not {restarts}")


def _same_width(test: Tensor, train: Tensor) -> Tensor:
    if test.shape[1] != train.shape[1]:
        raise MetricError(f"the samples have {test.shape[1]} columns, those fitted {train.shape[1]}; take equal kinds")
    return test


# --- Neighbours ---------------------------------------------------------------------------------


def nearest(train: Tensor, test: Tensor, k: int, measure: str = "cosine") -> tuple[Tensor, Tensor]:
    """The k most similar of N training samples to each of M test samples, k of 1 … N, most similar first.

    measure: "cosine" of points (N, D), -1 … 1, and 0 with a point at zero; or "hamming" of codes (N, L), the share
    of equal positions, 0 … 1. Returns (indices, similarities), (M, k) int64 and float32. Of equally similar samples
    the one with the lower index comes first, also where only some of them are among the k.
    """
    if measure not in MEASURES:
        raise MetricError(f"there is no similarity {measure!r}; choose from {', '.join(MEASURES)}")
    check = check_points if measure == "cosine" else check_codes
    train = check(train)
    test = _same_width(check(test), train)
    if not 1 <= k <= len(train):
        raise MetricError(f"{len(train)} training samples have 1 … {len(train)} neighbours to give, not {k}")
    length, categories = test.shape[1], 0
    if measure == "hamming":
        categories = int(max(train.max(), test.max())) + 1
        columns = one_hot(train, categories).T
    else:
        columns = normalize(train, dim=1).T
    found = []
    for block in test.split(max(1, BLOCK // len(train))):
        rows = one_hot(block, categories) if categories else normalize(block, dim=1)
        found.append(_top(rows @ columns, k))
    indices, similarities = (torch.cat(parts) for parts in zip(*found, strict=True))
    return indices, similarities / length if categories else similarities.clamp(-1, 1)


def _top(similarity: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Columns and values of the k largest of each row of a float32 table, of equal ones the lower column first."""
    # `topk` breaks ties anyhow. A float's bits, read as an integer, have its order (negative ones reversed): with the
    # column in the lower bits no two keys are equal. Adding 0 turns -0 into 0.
    below = 0x7FFFFFFF - torch.arange(similarity.shape[1])
    columns = []
    for part in similarity.split(max(1, CACHED // similarity.shape[1])):
        bits = (part + 0.0).view(torch.int32)
        keys = (bits ^ ((bits >> 31) & 0x7FFFFFFF)).long()
        columns.append((keys.bitwise_left_shift_(31).bitwise_or_(below)).topk(k, dim=1).indices)
    columns = torch.cat(columns)
    return columns, similarity.gather(1, columns)


def knn(
    train: Tensor,
    train_labels: Tensor,
    test: Tensor,
    *,
    classes: int,
    k: int = 200,
    temperature: float = 0.1,
    measure: str = "cosine",
) -> Tensor:
    """Labels of M test samples, (M,) int64, by a vote of their `k` nearest training samples, or of all if fewer.

    Votes weigh exp(similarity / temperature) (Wu et al. 2018; temperature of MoCo's CIFAR notebook); of ties the lowest
    class wins. Samples and similarities as in `nearest`; labels 0 … classes - 1.
    """
    train_labels = check_labels(train_labels, len(train))
    if train_labels.max() >= classes:
        raise MetricError(f"labels of {classes} classes are 0 … {classes - 1}, the highest is {train_labels.max()}")
    if not temperature > 0:
        raise MetricError(f"the temperature of the votes is above 0, not {temperature}")
    indices, similarities = nearest(train, test, min(k, len(train)), measure)
    # Against the most similar one, so that no low temperature overflows.
    weights = ((similarities - similarities[:, :1]).double() / temperature).exp()
    votes = torch.zeros(len(test), classes, dtype=torch.float64).scatter_add_(1, train_labels[indices], weights)
    return votes.argmax(dim=1)


# --- Linear readout -----------------------------------------------------------------------------


def linear_probe(train: Tensor, train_labels: Tensor, test: Tensor, test_labels: Tensor) -> float:
    """Accuracy, 0 … 1, on the test samples of a multinomial logistic regression fitted to the training ones.

    Points (N, D), (M, D), standardised by the training mean and deviation; L2 penalty of scikit-learn's C = 1.
    """
    train = check_points(train)
    test = _same_width(check_points(test), train)
    train_labels = check_labels(train_labels, len(train), "training labels")
    test_labels = check_labels(test_labels, len(test), "test labels")
    if len(torch.unique(train_labels)) < 2:
        raise MetricError("a linear probe needs training samples of at least 2 classes, these are all of one")
    deviation, mean = torch.std_mean(train, dim=0, correction=0)
    deviation = torch.where(deviation > 0, deviation, 1.0)  # a constant feature tells nothing, and stays 0
    train, test = (train - mean) / deviation, (test - mean) / deviation
    # scikit-learn's: on 40,000 x 512 and 10 classes 2 s on one core, against 8 s for torch's LBFGS.
    model = LogisticRegression(max_iter=1000).fit(train.numpy(), train_labels.numpy())
    return float((torch.from_numpy(model.predict(test.numpy())) == test_labels).double().mean())
