"""Measures of filters (similarity and its lower bound, angles, norms, groups), and criteria for pruning them."""

import math
from collections.abc import Callable

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.corregularization.losses import SHORTEST, as_matrix, welch_bound


def unit_filters(weight: Tensor) -> Tensor:
    """Return the filters as unit vectors, (n, d) float64, detached; an all-zero filter stays zero."""
    return F.normalize(as_matrix(weight.detach()).double().cpu(), dim=1, eps=SHORTEST)


def _with_direction(weight: Tensor) -> Tensor:
    unit = unit_filters(weight)
    return unit[unit.any(dim=1)]


def gram_matrix(weight: Tensor) -> Tensor:
    """Return the cosines between filters, (n, n) float64, with ones on the diagonal."""
    unit = unit_filters(weight)
    gram = (unit @ unit.T).clamp(-1, 1)
    gram.fill_diagonal_(1)
    return gram


def pair_cosines(weight: Tensor) -> Tensor:
    """Return the n(n-1)/2 cosines c_ij, i < j."""
    gram = gram_matrix(weight)
    return gram[tuple(torch.triu_indices(*gram.shape, offset=1))]


def similarity(weight: Tensor) -> dict[str, float]:
    """Return how similar the filters of a layer are, from the cosines c_ij, i ≠ j; cheap enough for every epoch.

    n, d: number of filters, and of weights per filter. rms, mean, max: of |c_ij|, in [0, 1]. welch: the smallest RMS
    that n vectors in d dimensions can have. Filters without direction (e.g. pruned ones) are excluded and not counted.
    """
    n, d = (unit := _with_direction(weight)).shape
    cosines = pair_cosines(unit).abs()
    rms = cosines.square().mean().sqrt().item()
    return {"n": n, "d": d, "rms": rms, "mean": cosines.mean().item(), "max": cosines.max().item(),
            "welch": welch_bound(n, d)}  # fmt: skip


def coherence(weight: Tensor) -> dict[str, float]:
    """Return `similarity` of a kernel (n, …) or kernel matrix (n, d), and how evenly its filters fill their space.

    excess: rms - welch. effective_rank: exp of the entropy of the singular values of the unit
    filters, in [1, min(n, d)] (Roy & Vetterli 2007). condition: ratio of largest to smallest singular value.
    """
    unit = _with_direction(weight)
    found = similarity(unit)
    # The squared singular values, as eigenvalues of the smaller Gram matrix: many times faster than an SVD.
    gram = unit @ unit.T if found["n"] <= found["d"] else unit.T @ unit
    values = torch.linalg.eigvalsh(gram).clamp_min(0).sqrt()
    entropy = torch.special.entr(values / values.sum()).sum().item()
    smallest, largest = values[0].item(), values[-1].item()
    return found | {
        "excess": found["rms"] - found["welch"],
        "effective_rank": math.exp(entropy),
        "condition": largest / smallest if smallest > 1e-6 * largest else math.inf,  # below, only rounding error
    }


def group_coherence(weight: Tensor, groups: int) -> tuple[float, float]:
    """Return RMS |cosine| (within, across) contiguous groups of nearly equal size; NaN where there are no pairs."""
    gram = gram_matrix(weight)
    label = torch.arange(len(gram)) * groups // len(gram)
    same = label.unsqueeze(0) == label.unsqueeze(1)
    across = gram[~same].square().mean().sqrt().item()
    same.fill_diagonal_(False)
    return gram[same].square().mean().sqrt().item(), across


def similar_pairs(weight: Tensor, count: int = 8) -> pd.DataFrame:
    """Return the `count` most similar pairs by |cosine|, each filter at most once: columns i, j, cosine."""
    gram = gram_matrix(weight)
    left = gram.abs().triu(diagonal=1)
    rows = []
    for _ in range(min(count, len(gram) // 2)):
        i, j = divmod(int(left.argmax()), len(gram))
        rows.append({"i": i, "j": j, "cosine": gram[i, j].item()})
        left[[i, j], :] = -1
        left[:, [i, j]] = -1
    return pd.DataFrame(rows)


def norms_and_angles(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return filter norms (n,) and angles between filters (pairs,) in degrees, 0 to 180."""
    return as_matrix(weight.detach()).double().norm(dim=1).cpu(), pair_cosines(weight).acos().rad2deg()


def prune_redundant(layer: nn.Conv2d, share: float) -> Tensor:
    """Return which filters to keep, (n,) bool, when the most redundant ones are pruned first.

    Repeatedly drops the shorter filter of the most similar remaining pair until `share` of the filters are gone, but
    never all of them. Lubana et al. 2020 argue that such pruning costs decorrelated filters more, as none is redundant.
    """
    norm = norms_and_angles(layer.weight)[0]
    similar = gram_matrix(layer.weight).abs().fill_diagonal_(-1)
    keep = torch.ones(len(norm), dtype=torch.bool)
    for _ in range(min(round(share * len(norm)), len(norm) - 1)):
        i, j = divmod(int(similar.argmax()), len(norm))
        gone = i if norm[i] < norm[j] else j
        keep[gone] = False
        similar[gone, :] = -1
        similar[:, gone] = -1
    return keep


def _without_lowest(score: Tensor, share: float) -> Tensor:
    keep = torch.ones(len(score), dtype=torch.bool)
    keep[score.argsort()[: min(round(share * len(score)), len(score) - 1)]] = False
    return keep


# Each returns which filters to keep, (n,) bool, after pruning a share, never all. "shortest": by L2 norm, where Li et
# al. 2017 use L1.
CRITERIA: dict[str, Callable[[nn.Module, float, torch.Generator], Tensor]] = {
    "most similar": lambda layer, share, draw: prune_redundant(layer, share),
    "shortest": lambda layer, share, draw: _without_lowest(as_matrix(layer.weight).norm(dim=1), share),
    "random": lambda layer, share, draw: _without_lowest(torch.rand(layer.out_channels, generator=draw), share),
}
