"""How much of a generated image is a copy: exact diagnostics on uint8 images (N, 3, H, W).

Distances are root mean square differences of pixels on the [-1, 1] scale. All searches go tile
by tile, so that memory does not grow with the number of images.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from lib.data.augment import as_float
from lib.metrics import MetricError, check_pixels

TILE = 2048  # images of 32 px, fewer of larger ones


def nearest(
    queries: Tensor,
    candidates: Tensor,
    *,
    exclude_self: bool = False,
    features: Callable[[Tensor], Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """Distance (N,) to and index (N,) of the candidate (M, 3, H, W) nearest to each query (N, 3, H, W).

    exclude_self: query i and candidate i are the same image and do not count as neighbours.
    Every pair is compared; only candidates whose distances differ by less than float32 resolves
    (well below one grey level) may stand for each other. 10,000 x 50,000 images of 32 px take
    54 CPU seconds and 0.2 GB.
    features: images to vectors (n, d), an `Extractor`, say; distances are then root mean squares
    over d, and the vectors of all images are in memory.
    Raises a MetricError where sizes differ or no candidate is left.
    """
    _check(queries, candidates)
    if len(candidates) <= exclude_self:
        raise MetricError(f"{len(candidates)} candidates leave no neighbour to find; give at least {1 + exclude_self}")
    if features is not None:
        queries, candidates = features(queries).float().cpu(), features(candidates).float().cpu()
        centre = candidates.mean(0)  # far from 0, squares would swallow the differences
        queries, candidates = queries - centre, candidates - centre
    tile = min(TILE, max(64, TILE * 3 * 32 * 32 // candidates[0].numel()))
    best = torch.full((len(queries),), torch.inf)
    index = torch.zeros(len(queries), dtype=torch.long)
    for begin in range(0, len(queries), tile):
        rows = slice(begin, min(begin + tile, len(queries)))
        query = _flat(queries[rows])
        for first in range(0, len(candidates), tile):
            candidate = _flat(candidates[first : first + tile])
            # |a - b|^2 up to |a|^2, which does not change who is nearest.
            squared = torch.addmm(candidate.square().sum(1)[None], query, candidate.T, alpha=-2)
            if exclude_self:
                own = torch.arange(begin, rows.stop) - first
                inside = (own >= 0) & (own < len(candidate))
                squared[inside.nonzero()[:, 0], own[inside]] = torch.inf
            value, place = squared.min(dim=1)
            better = value < best[rows]
            best[rows] = torch.where(better, value, best[rows])
            index[rows] = torch.where(better, place + first, index[rows])
    # The differences of large numbers above find who is nearest; how near is computed afresh.
    return _distance(queries, candidates[index]), index


def distance(a: Tensor, b: Tensor) -> Tensor:
    """Root mean square difference of images a[i] and b[i], (N,), in [0, 2]."""
    _check(a, b)
    if len(a) != len(b):
        raise MetricError(f"distances of pairs need as many images on both sides, not {len(a)} and {len(b)}")
    return _distance(a, b)


def _distance(a: Tensor, b: Tensor) -> Tensor:
    parts = zip(a.split(TILE), b.split(TILE), strict=True)
    return torch.cat([(_flat(x) - _flat(y)).square().mean(dim=1).sqrt() for x, y in parts])


def source_retrieval(generated: Tensor, index: Tensor, candidates: Tensor) -> float:
    """Share of generated images whose nearest candidate is their own source, candidates[index]; chance is 1/M.

    Retrieval@1. A candidate equal to the source counts as the source.
    """
    _check_index(generated, candidates, index)
    return (distance(generated, candidates[index]) <= nearest(generated, candidates)[0]).float().mean().item()


def copy_index(generated: Tensor, candidates: Tensor, index: Tensor | None = None) -> float:
    """Share of generated images that lie nearer to a real image than any other real image lies to that one.

    The real image is the source, candidates[index], or the nearest candidate for models without
    a source. 1: every image is a copy in that sense. What is usual is the value of held-out real
    images, which are no copies and yet often lie closer than that: only a value well above theirs
    speaks for copying. Blurred images are near to everything, and a collapsed model that makes one
    such image has 0 or 1, so read it beside `source_retrieval`, which blur does not raise.
    """
    if index is None:
        found, index = nearest(generated, candidates)
    else:
        _check_index(generated, candidates, index)
        found = distance(generated, candidates[index])
    own, place = torch.unique(index, return_inverse=True)
    copied = (found < _to_others(own, candidates)[place]) | (found == 0)  # also where the training set has it twice
    return copied.float().mean().item()


def _to_others(own: Tensor, candidates: Tensor) -> Tensor:
    """Distance of candidates[own] to the nearest other candidate."""
    order = torch.cat([own, torch.ones(len(candidates)).index_fill_(0, own, 0).nonzero()[:, 0]])
    arranged = candidates[order]  # those asked for first, so that "self" is the same index in both
    return nearest(arranged[: len(own)], arranged, exclude_self=True)[0]


def source_correlation(generated: Tensor, sources: Tensor) -> float:
    """Mean correlation, in [-1, 1], of the brightness of generated[i] and sources[i], uint8 (N, 3, H, W).

    1: a copy up to contrast. Below 0: a negative, which `source_retrieval` does not find although
    the source decides all of it. Images without contrast correlate with nothing (0).
    """
    a, b = (as_float(pixels).mean(dim=1).flatten(1) for pixels in (generated, sources))
    a, b = (x - x.mean(dim=1, keepdim=True) for x in (a, b))
    return (F.normalize(a, dim=1) * F.normalize(b, dim=1)).sum(dim=1).mean().item()


def variance_shares(generated: Tensor) -> dict[str, float]:
    """What decides the pixels of images (P pyramids, Z latents, 3, H, W): shares "pyramid", "z", "both", summing to 1.

    Two-way analysis of variance without replication (Scheffe 1959, chapter 4): main effect of the
    pyramid, main effect of z, and their interaction, unbiased, clipped at 0, over all pixels. All
    are 0 where nothing varies.
    """
    if generated.dim() != 5 or min(generated.shape[:2]) < 2:
        raise MetricError(f"variance shares need at least 2 pyramids x 2 latents, not {tuple(generated.shape)}")
    pyramids, latents = generated.shape[:2]
    x = generated.double().flatten(2)
    if not x.isfinite().all():
        raise MetricError("variance shares cannot be taken of images that hold NaN or infinity; look at the generator")
    grand, rows, columns = x.mean((0, 1)), x.mean(1), x.mean(0)
    both = (x - rows[:, None] - columns[None] + grand).square().sum((0, 1)).mean() / ((pyramids - 1) * (latents - 1))
    by_row = latents * (rows - grand).square().sum(0).mean() / (pyramids - 1)
    by_column = pyramids * (columns - grand).square().sum(0).mean() / (latents - 1)
    parts = {"pyramid": (by_row - both) / latents, "z": (by_column - both) / pyramids, "both": both}
    clipped = {name: max(value.item(), 0.0) for name, value in parts.items()}
    total = sum(clipped.values())
    return {name: value / total if total > 0 else 0.0 for name, value in clipped.items()}


def _flat(images: Tensor) -> Tensor:
    """uint8 images on the [-1, 1] scale, or features as they are, (n, d) float32."""
    return (as_float(images) if images.dtype == torch.uint8 else images).flatten(1)


def _check_index(generated: Tensor, candidates: Tensor, index: Tensor) -> None:
    if index.shape != (len(generated),) or len(index) and not 0 <= index.min() <= index.max() < len(candidates):
        raise MetricError(
            f"{len(generated)} generated images need as many indices of sources, 0 to {len(candidates) - 1}; "
            f"these have shape {tuple(index.shape)}"
        )


def _check(a: Tensor, b: Tensor) -> None:
    for images in (a, b):
        if len(images):
            check_pixels(images)
    if a.shape[1:] != b.shape[1:]:
        raise MetricError(f"images of {tuple(a.shape[1:])} and {tuple(b.shape[1:])} cannot be compared pixel by pixel")
