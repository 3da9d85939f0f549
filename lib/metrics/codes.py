"""Metrics of discrete codes, integers (N, L) on the CPU: L positions, each with a category 0 … K-1."""

import math
from itertools import combinations

import numpy as np
import pandas as pd
import torch
from scipy.cluster.hierarchy import fcluster, linkage
from sklearn.metrics import normalized_mutual_info_score
from torch import Tensor


def perplexities(codes: Tensor, categories: int) -> Tensor:
    """Return exp(entropy) of each position's categories over the whole set, (L,) float64 in 1 … categories."""
    shares = torch.stack([torch.bincount(row, minlength=categories) for row in codes.T]).double() / len(codes)
    return torch.special.entr(shares).sum(dim=1).exp()


def code_health(codes: Tensor, categories: int) -> dict[str, float | int]:
    """Return how well codes (N, L) with values 0 … categories - 1 use their capacity.

    Returns:
        perplexity: mean over positions of exp(entropy) over the whole set; 1 … categories.
        dead: number of positions with the same category in all codes.
        unique: number of distinct codes over N.
        redundancy: NMI (arithmetic mean of entropies), 0 … 1, averaged over pairs of positions; pairs with a dead
            position count as 0, as does a single position. With few images it is above 0 by chance.
        bits: L · log2(categories), the capacity of the code.
    """
    count, length = codes.shape
    shared = [nmi(one, other) for one, other in combinations(codes.T, 2)]
    return {
        "perplexity": perplexities(codes, categories).mean().item(),
        "dead": int((codes == codes[0]).all(dim=0).sum()),
        "unique": len(torch.unique(codes, dim=0)) / count,
        "redundancy": sum(shared) / max(1, math.comb(length, 2)),
        "bits": length * math.log2(categories),
    }


def position_scores(codes: Tensor, factors: dict[str, Tensor]) -> pd.DataFrame:
    """Return the NMI (arithmetic) of each position of codes (N, L) with each factor, integers (N,) ≥ 0.

    Columns position, factor, nmi; one row per factor and position, factor by factor. A position that is constant over
    all codes has an NMI of 0.
    """
    return pd.DataFrame(
        {"position": position, "factor": name, "nmi": nmi(row, values)}
        for name, values in factors.items()
        for position, row in enumerate(codes.T)
    )


def nmi(one: Tensor, other: Tensor) -> float:
    """Return the normalised mutual information (arithmetic), 0 … 1, of two labellings (N,); 0 if one is constant."""
    constant = (one == one[0]).all() and (other == other[0]).all()  # scikit-learn returns 1 here
    return 0.0 if constant else float(normalized_mutual_info_score(one, other))


def connected_codes(codes: Tensor, *, at_least: int) -> Tensor:
    """Return clusters of images that are linked if their codes agree in at least `at_least` positions, 1 … L.

    A cluster is a connected component (single linkage): two members may agree in fewer positions. codes: (N, L) →
    (N,) int64, numbered by decreasing size, then by first image. Stores all pairwise distances: 64 MB for 4,000 images.
    """
    count, length = codes.shape
    if count == 1:
        return torch.zeros(1, dtype=torch.int64)
    tree = linkage(codes.numpy(), "single", "hamming")
    labels = fcluster(tree, (length - at_least + 0.5) / length, "distance")
    _, first, labels, sizes = np.unique(labels, return_index=True, return_inverse=True, return_counts=True)
    return torch.from_numpy(np.argsort(np.lexsort((first, -sizes)))[labels])
