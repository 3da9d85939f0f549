"""Measures of discrete codes, integers (N, L): L positions, each with one of K categories 0 … K-1; results on the CPU.

Their distance is Hamming's, half the squared Euclidean distance of one-hot codes, whose product counts agreements.
"""

import math

import numpy as np
import pandas as pd
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from lib.metrics import MetricError, check_tensor

BLOCK = 16_000_000  # entries of one block of a table of pairs: 64 MB
MOST = 60_000  # different codes of which all pairs are compared: two thousand million pairs
INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def check_codes(codes: Tensor, categories: int | None = None) -> Tensor:
    """The codes as int64 on the CPU, if they are integers (N, L) in 0 … categories - 1; else a MetricError."""
    check_tensor(codes, "codes")
    if codes.dtype not in INTEGERS:
        raise MetricError(f"codes are integers, not {codes.dtype}; take the argmax over the categories first")
    if codes.ndim != 2 or not codes.numel():
        raise MetricError(f"codes have shape (N, L) with both at least 1, not {tuple(codes.shape)}")
    low, high = codes.min().item(), codes.max().item()
    if low < 0 or (categories is not None and high >= categories):
        values = "0 or more" if categories is None else f"0 … {categories - 1}"
        raise MetricError(f"codes have values {values}, these have {low} … {high}; number the categories from 0")
    return codes.detach().cpu().long()


def check_labels(labels: Tensor, count: int | None = None, what: str = "labels") -> Tensor:
    """The labels as int64 on the CPU, if they are `count` integers of 0 or more; else a MetricError."""
    check_tensor(labels, what)
    if labels.dtype not in INTEGERS or labels.ndim != 1 or not labels.numel():
        raise MetricError(f"{what} are integers (N,), at least one, not {labels.dtype} of shape {tuple(labels.shape)}")
    if count is not None and len(labels) != count:
        raise MetricError(f"there are {len(labels)} {what} for {count} samples; give one for each, in the same order")
    if labels.min() < 0:
        raise MetricError(f"{what} are 0 or more, the lowest is {labels.min().item()}; number them from 0")
    return labels.detach().cpu().long()


def one_hot(codes: Tensor, categories: int) -> Tensor:
    """(N, L) → (N, L · categories) float32: a product of two such rows is the number of equal positions, exactly."""
    return torch.nn.functional.one_hot(codes, categories).flatten(1).float()


# --- What the positions say ---------------------------------------------------------------------


def code_health(codes: Tensor, categories: int) -> dict[str, float | int]:
    """Use of the alphabet by codes (N, L) with values 0 … categories - 1.

    Returns:
        perplexity: mean over positions of exp(entropy) over the whole set; 1 … categories.
        dead: number of positions that say the same of all images.
        unique: different codes over N.
        redundancy: mean over pairs of positions of their NMI (arithmetic mean of entropies), 0 … 1; pairs with
            a dead position count 0, and so does a single position. Of few images it is above 0 by chance.
        bits: L · log2(categories), what the code could hold at most.
    """
    codes = check_codes(codes, categories)
    count, length = codes.shape
    said = codes.T.contiguous()
    histograms = torch.stack([torch.bincount(row, minlength=categories) for row in said])
    shared = 0.0
    # All later positions against one at a time: counting takes as long for any K, and a third of the time of a
    # product of one-hot codes at K = 8 already.
    for position in range(length - 1):
        shared += nmi(_joint(said[position + 1 :], categories, said[position], categories)).sum().item()
    return {
        "perplexity": _entropy(histograms).exp().mean().item(),
        "dead": int((histograms.amax(dim=1) == count).sum()),
        "unique": len(torch.unique(codes, dim=0)) / count,
        "redundancy": shared / math.comb(length, 2) if length > 1 else 0.0,
        "bits": length * math.log2(categories),
    }


def perplexities(codes: Tensor, categories: int) -> Tensor:
    """exp(entropy) of what each position says over the whole set, (L,) float64 in 1 … categories."""
    codes = check_codes(codes, categories)
    return _entropy(torch.stack([torch.bincount(row, minlength=categories) for row in codes.T])).exp()


def position_scores(codes: Tensor, factors: dict[str, Tensor]) -> pd.DataFrame:
    """What each position of codes (N, L) follows: its NMI (arithmetic) with each factor, integers (N,) of 0 or more.

    Columns position, factor, nmi; a row for each of L positions and each factor, factor by factor. A dead position
    has 0.
    """
    said = check_codes(codes).T.contiguous()
    categories = int(said.max()) + 1
    tables = []
    for name, values in factors.items():
        values = check_labels(values, len(codes), f"values of factor {name!r}")
        values = torch.unique(values, return_inverse=True)[1]  # so that numbers of images as labels take no table
        score = nmi(_joint(said, categories, values, int(values.max()) + 1))
        tables.append(pd.DataFrame({"position": range(len(said)), "factor": name, "nmi": score.numpy()}))
    if not tables:
        raise MetricError("there are no factors to score the positions by; give at least one, {name: (N,) integers}")
    return pd.concat(tables, ignore_index=True)


def nmi(joint: Tensor) -> Tensor:
    """Normalised mutual information of tables of counts (…, A, B) → (…): 2 I / (H_a + H_b); 0 where I is 0."""
    rows, columns = _entropy(joint.sum(dim=-1)), _entropy(joint.sum(dim=-2))
    information = rows + columns - _entropy(joint.flatten(-2))
    # A constant has no entropy, up to rounding.
    varied = (rows > 1e-12) & (columns > 1e-12)
    return torch.where(varied, 2 * information / (rows + columns), 0.0).clamp(0, 1)


def _entropy(counts: Tensor) -> Tensor:
    """In nats, (…, A) → (…) float64."""
    return torch.special.entr(counts.double() / counts.sum(dim=-1, keepdim=True)).sum(dim=-1)


def _joint(said: Tensor, categories: int, values: Tensor, size: int) -> Tensor:
    """Counts (P, categories, size) of each of the positions `said` (P, N) with values (N,) of 0 … size - 1."""
    cells = categories * size
    flat = said * size + values + torch.arange(len(said))[:, None] * cells
    return torch.bincount(flat.flatten(), minlength=len(said) * cells).view(len(said), categories, size)


# --- Codes that nearly agree --------------------------------------------------------------------


def connected_codes(codes: Tensor, *, at_least: int, most: int = MOST) -> Tensor:
    """Clusters by code: two images are joined if their codes agree in `at_least` positions, 1 … L, or more.

    A cluster is a connected component: two of its members may agree in less. codes: (N, L) → (N,) int64, numbered by
    falling size, then by first image. MetricError beyond `most` different codes, as all pairs are compared.
    """
    codes = check_codes(codes)
    if not 1 <= at_least <= codes.shape[1]:
        raise MetricError(f"codes of {codes.shape[1]} positions agree in 1 … {codes.shape[1]} of them, not {at_least}")
    unique, inverse = torch.unique(codes, dim=0, return_inverse=True)
    if len(unique) > most:
        raise MetricError(
            f"there are {len(unique)} different codes, more than the {most} that are compared in pairs; raise `most` "
            "(the time grows with its square) or take fewer images"
        )
    component = torch.arange(len(unique))
    if at_least < codes.shape[1]:  # else only equal codes are joined
        component = _components(unique, at_least)
    return _by_size(component[inverse])


def _components(codes: Tensor, at_least: int) -> Tensor:
    """Component of each code (U,), numbered anyhow."""
    columns = one_hot(codes, int(codes.max()) + 1)
    columns = columns[:, columns.any(dim=0)]  # of values that are in use
    component = torch.arange(len(codes))
    step = max(1, BLOCK // len(codes))
    for start in range(0, len(codes), step):
        rows = slice(start, start + step)
        near = columns[rows] @ columns[start:].T >= at_least
        # Pairs that are joined already tell nothing new; without them, dense graphs take no memory.
        near &= component[rows, None] != component[start:]
        row, column = near.nonzero().T
        if len(row):
            a, b = component[rows][row].numpy(), component[start:][column].numpy()
            graph = coo_array((np.ones(len(a), dtype=bool), (a, b)), shape=(len(codes), len(codes)))
            joined = connected_components(graph.tocsr(), directed=False)[1]
            component = torch.from_numpy(joined).long()[component]
    return component


def _by_size(labels: Tensor) -> Tensor:
    """The same clusters, numbered from 0 by falling size, of equal size by their first sample."""
    _, labels, sizes = torch.unique(labels, return_inverse=True, return_counts=True)
    first = torch.full_like(sizes, len(labels)).scatter_reduce(0, labels, torch.arange(len(labels)), "amin")
    order = np.lexsort((first.numpy(), -sizes.numpy()))
    number = torch.empty_like(sizes)
    number[torch.from_numpy(order)] = torch.arange(len(sizes))
    return number[labels]
