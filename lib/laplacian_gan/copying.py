"""Exact diagnostics of how much generated images copy real ones, for uint8 images (N, 3, H, W).

Distances are root mean square pixel differences on the [-1, 1] scale.
"""

import torch
import torch.nn.functional as F
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from lib.data.augment import as_float


def nearest(queries: Tensor, candidates: Tensor) -> tuple[Tensor, Tensor]:
    """Return the distance (N,) and index (N,) of the nearest candidate (M, 3, H, W) for each query (N, 3, H, W).

    All pairs are compared, in chunks and in float64, where sums over integer grey levels are exact.
    """
    index = _neighbours(queries, candidates, 1)[1][:, 0]
    return distance(queries, candidates[index]), index


def _neighbours(queries: Tensor, candidates: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return Euclidean distances in grey levels and indices of the nearest candidates, (N, count), nearest first."""
    search = NearestNeighbors(n_neighbors=count, algorithm="brute").fit(candidates.flatten(1).float().numpy())
    distances, index = search.kneighbors(queries.flatten(1).float().numpy())
    return torch.from_numpy(distances), torch.from_numpy(index)


def distance(a: Tensor, b: Tensor) -> Tensor:
    """Return the root mean square difference (N,) between images a[i] and b[i], in [0, 2]."""
    return torch.stack([(as_float(x) - as_float(y)).square().mean().sqrt() for x, y in zip(a, b, strict=True)])


def source_retrieval(generated: Tensor, index: Tensor, candidates: Tensor) -> float:
    """Return the share of generated images whose nearest candidate is their source, candidates[index]; chance is 1/M.

    This is retrieval@1. A candidate equal to the source counts as the source.
    """
    return (distance(generated, candidates[index]) <= nearest(generated, candidates)[0]).float().mean().item()


def copy_index(generated: Tensor, candidates: Tensor, index: Tensor | None = None) -> float:
    """Return the share of generated images that are closer to a real image than any other real image is to it.

    The real image is the source, candidates[index], or the nearest candidate for models without a
    source. At 1, every image is a copy in this sense. The reference is the copy index of held-out
    real images, which are not copies but are often that close: only a value well above theirs indicates
    copying. Blurred images are close to everything, and a collapsed model that generates a single
    blurred image scores 0 or 1, so compare with `source_retrieval`, which blur does not raise.
    """
    if index is None:
        index = nearest(generated, candidates)[1]
    found = distance(generated, candidates[index])
    own, place = torch.unique(index, return_inverse=True)
    # The nearest neighbour of a real image is the image itself, unless a duplicate comes first.
    other = _neighbours(candidates[own], candidates, 2)[1]
    apart = distance(candidates[own], candidates[torch.where(other[:, 0] == own, other[:, 1], other[:, 0])])
    return ((found < apart[place]) | (found == 0)).float().mean().item()  # 0: an exact copy, even of a duplicate


def source_correlation(generated: Tensor, sources: Tensor) -> float:
    """Return the mean correlation, in [-1, 1], of the brightness of generated[i] and sources[i], uint8 (N, 3, H, W).

    At 1, images are copies in grey up to brightness and contrast. Negatives are below 0: `source_retrieval` misses
    them, although the source fully determines them. Images without contrast have correlation 0.
    """
    a, b = (as_float(pixels).mean(dim=1).flatten(1) for pixels in (generated, sources))
    a, b = (x - x.mean(dim=1, keepdim=True) for x in (a, b))
    return (F.normalize(a, dim=1) * F.normalize(b, dim=1)).sum(dim=1).mean().item()


def variance_shares(generated: Tensor) -> dict[str, float]:
    """Return the shares "pyramid", "z" and "both" of pixel variance in images (P pyramids, Z latents, 3, H, W).

    P and Z are at least 2. Two-way analysis of variance without replication (Scheffe 1959, chapter 4): main effects of
    the pyramid and of z, and their interaction, as unbiased estimates averaged over pixels and clipped at 0. The
    shares sum to 1, or are all 0 if nothing varies.
    """
    pyramids, latents = generated.shape[:2]
    x = generated.double().flatten(2)
    grand, rows, columns = x.mean((0, 1)), x.mean(1), x.mean(0)
    both = (x - rows[:, None] - columns[None] + grand).square().sum((0, 1)).mean() / ((pyramids - 1) * (latents - 1))
    by_row = latents * (rows - grand).square().sum(0).mean() / (pyramids - 1)
    by_column = pyramids * (columns - grand).square().sum(0).mean() / (latents - 1)
    parts = {"pyramid": (by_row - both) / latents, "z": (by_column - both) / pyramids, "both": both}
    clipped = {name: max(value.item(), 0.0) for name, value in parts.items()}
    total = sum(clipped.values())
    return {name: value / total if total > 0 else 0.0 for name, value in clipped.items()}
