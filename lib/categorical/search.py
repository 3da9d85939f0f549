"""Search with short codes: learned categories compared with library quantisers and hashes at equal size in bytes.

A database of embeddings is stored in a few bytes per image and ranked for each query; queries are not stored. Two
measures: whether the true nearest neighbour in the embedding space is ranked near the top (recall), and whether images
of the query's class come first (mean average precision). The baselines are those of faiss (Douze et al. 2024):
product quantisation (PQ, Jégou et al. 2011), the same after a learned rotation (OPQ, Ge et al. 2013), iterative
quantisation (ITQ, Gong et al. 2013) and random hyperplanes (LSH, Charikar 2002).
"""

import math
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import label_ranking_average_precision_score
from torch import Tensor
from torch.nn.functional import normalize

from lib.categorical.evaluation import Encoded, Seen, code_bytes, knn_accuracy, representation_table
from lib.metrics import MetricError
from lib.metrics.clustering import check_points

if TYPE_CHECKING:
    from lib.data.images import Images

RIVALS = ("PQ", "OPQ", "ITQ", "LSH")
EXACT = "exact search"
OURS, SOFT = "categorical", "categorical, soft query"
WITHIN = (1, 10, 100)  # ranks of recall
OPQ_POINTS, OPQ_ROUNDS = 10_000, 10  # images and iterations for learning the costly rotation (faiss: 50 iterations)


@dataclass(frozen=True)
class Embedded:
    """Embeddings of the database (training images) and of the queries (test images), (N, D) and (M, D), with labels.

    name: origin of the embeddings, for tables. All are normalised to unit length, so that Euclidean distance, which the
    quantisers minimise, and cosine give the same ranking.
    """

    name: str
    train: Tensor
    test: Tensor
    train_labels: Tensor
    test_labels: Tensor

    def __post_init__(self):
        for name in ("train", "test"):
            object.__setattr__(self, name, normalize(check_points(getattr(self, name)), dim=1))


def search_table(
    embedded: Embedded,
    codes: Sequence[tuple[Encoded, Encoded]],
    *,
    sizes: Sequence[int],
    queries: int,
    seed: int,
    own: bool = True,
) -> pd.DataFrame:
    """Return tab26: embedding, seed, method, bytes (per stored image), map, recall_1, recall_10, recall_100 (all in %).

    codes: (database, queries) of each learned code, searched both by Hamming distance of hard codes ("categorical") and
    with the query's probabilities instead ("soft query", by expected agreement). sizes: bytes of the baselines; each
    skips the sizes at which it cannot be fitted. queries: number of queries, drawn at random with `seed`; 0 uses all.
    own: whether the codes are computed from these embeddings; if not, their recall is left empty, as one network's
    codes would be scored on another network's neighbours.

    map is the mean over queries of the average precision of the whole ranking, with images of the same class relevant.
    Queries without any are left out of it; if all are, a MetricError is raised. Ties follow a random order drawn with
    `seed`, as files are often sorted by class.
    """
    draw = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(embedded.train), generator=draw)
    asked = torch.randperm(len(embedded.test), generator=draw)[: queries or None]
    base, query = embedded.train[order], embedded.test[asked]
    labels, wanted = embedded.train_labels[order].numpy(), embedded.test_labels[asked].numpy()
    exact = -(query @ base.T).numpy()
    nearest = exact.argmin(axis=1)

    relevant = labels == wanted[:, None]
    there = relevant.any(axis=1)
    if not there.any():
        raise MetricError("no query has its class in the database, so there is no precision; use more training images")

    def row(method: str, size: float, distances: np.ndarray, compared: bool = True) -> dict[str, object]:
        ranks = distances.argsort(axis=1, kind="stable").argsort(axis=1)  # from 0; ties by lower index
        found = {"map": 100 * label_ranking_average_precision_score(relevant[there], -ranks[there])}
        own = np.take_along_axis(ranks, nearest[:, None], axis=1)
        found |= {f"recall_{k}": 100 * (own < k).mean() if compared else math.nan for k in WITHIN}
        return {"embedding": embedded.name, "seed": seed, "method": method, "bytes": size} | found

    rows = [row(EXACT, 4 * base.shape[1], exact)]
    for method in RIVALS:
        for size in sizes:
            distances = rival_distances(method, size, base, query, seed=seed)
            rows += [] if distances is None else [row(method, size, distances)]
    for fitted, tested in codes:
        stored, size = fitted.hard[order], math.ceil(code_bytes(*fitted.soft.shape[1:]))
        rows.append(row(OURS, size, hamming(tested.hard[asked], stored), own))
        rows.append(row(SOFT, size, expected_disagreement(tested.soft[asked], stored), own))
    methods = [EXACT, *RIVALS, OURS, SOFT]
    table = pd.DataFrame(rows).sort_values("bytes", kind="stable")
    return table.sort_values("method", key=lambda names: names.map(methods.index), kind="stable", ignore_index=True)


def hamming(queries: Tensor, stored: Tensor) -> np.ndarray:
    """Return the number of positions in which codes (M, L) and (N, L) differ, (M, N) int16."""
    return torch.cdist(queries.float(), stored.float(), p=0.0).to(torch.int16).numpy()


def expected_disagreement(queries: Tensor, stored: Tensor) -> np.ndarray:
    """Return -Σ_l p_l(query)[stored category at l] / L for soft (M, L, K) and hard codes (N, L): (M, N) in [-1, 0]."""
    total = torch.zeros(len(queries), len(stored))
    for position, categories in enumerate(stored.T):  # one-hot codes of a whole database would take gigabytes
        total -= queries[:, position, categories]
    return (total / queries.shape[1]).numpy()


def quantiser(method: str, size: int, base: Tensor, *, seed: int):
    """Return faiss's index of one of `RIVALS`, fitted to vectors (N, D), `size` bytes each, or None if impossible.

    PQ and OPQ split a vector into equal parts, ITQ has no more bits than dimensions, and the rotations of OPQ and ITQ
    need at least as many images as dimensions (faiss writes out of bounds otherwise). Parts have 256 centroids, or 16
    in databases of fewer than 256 images.
    """
    import faiss  # imported here, as only searches need it

    dimensions, bits = base.shape[1], 8 if len(base) >= 256 else 4
    parts = 8 * size // bits
    if method in ("OPQ", "ITQ") and len(base) < dimensions:
        return None
    if method in ("PQ", "OPQ"):
        if dimensions % parts or len(base) < 2**bits:
            return None
        index = coarse = faiss.IndexPQ(dimensions, parts, bits)
        coarse.pq.cp.seed, coarse.pq.cp.min_points_per_centroid = seed + 1, 1
        if method == "OPQ":
            rotation, example = faiss.OPQMatrix(dimensions, parts), faiss.ProductQuantizer(dimensions, parts, bits)
            example.cp.seed, example.cp.min_points_per_centroid = seed + 1, 1
            rotation.pq, rotation.max_train_points, rotation.niter = example, OPQ_POINTS, OPQ_ROUNDS
            index = faiss.IndexPreTransform(rotation, coarse)
    elif method == "ITQ":
        if 8 * size > dimensions:
            return None
        index = faiss.index_factory(dimensions, f"ITQ{8 * size},LSH")
    else:
        index = faiss.IndexLSH(dimensions, 8 * size, True, True)  # rotated, with each bit thresholded at its median
    with _one_thread():
        index.train(base.numpy())
    return index


@contextmanager
def _one_thread():
    """Let faiss use one thread: multi-threaded sums differ in their last digits."""
    import faiss

    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(threads)


def rival_distances(method: str, size: int, base: Tensor, queries: Tensor, *, seed: int) -> np.ndarray | None:
    """Return distances (M, N) of queries (M, D) to a database (N, D) stored by faiss in `size` bytes each.

    method: one of `RIVALS`, fitted on the database. PQ and OPQ compare the uncompressed query (asymmetric distances),
    ITQ and LSH its code. None if `quantiser` returns None.
    """
    index = quantiser(method, size, base, seed=seed)
    if index is None:
        return None
    with _one_thread():
        index.add(base.numpy())
        found, places = index.search(queries.numpy(), len(base))
    distances = np.empty_like(found)
    np.put_along_axis(distances, places, found, axis=1)  # `search` does not fix the order of equal distances
    return distances


def representation_with_opq(seen: Mapping[str, Seen], train: "Images", test: "Images", *, seed: int) -> pd.DataFrame:
    """Return tab22: `representation_table`, and kNN (%) on NT-Xent's embedding after OPQ to the bytes of a hard code.

    Training and test images are both compressed, as with hard codes. If OPQ cannot be fitted, the row is left out.
    """
    table, embedding = representation_table(seen, train, test, seed=seed), seen["NT-Xent"]
    size = code_bytes(*seen["categorical"].trained.arm.shape)
    index = quantiser("OPQ", int(size), embedding.train.points, seed=seed) if size.is_integer() else None
    if index is None:
        return table
    with _one_thread():
        stored = (index.sa_encode(part.points.numpy()) for part in (embedding.train, embedding.test))
        fitted, asked = (torch.from_numpy(index.sa_decode(part)) for part in stored)
    row = {"arm": "NT-Xent", "seed": seed, "representation": "embedding, OPQ", "bytes": size}
    row["knn"] = knn_accuracy(fitted, asked, train, test)
    return pd.concat([table, pd.DataFrame([row])], ignore_index=True)
