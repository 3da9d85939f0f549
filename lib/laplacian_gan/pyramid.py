"""The Laplacian pyramid of a batch of images (Burt & Adelson 1983, The Laplacian Pyramid as a Compact Image Code).

    bands = build(images, depth=4)   # finest first; the last is the low-pass residual
    images = collapse(bands)         # the same images, up to rounding

`down` blurs with the binomial kernel (1 4 6 4 1)/16 and keeps every second pixel; `up` inserts
zeros between pixels and blurs with twice the kernel per axis. A band is an image minus its
upsampled coarse version. Borders are replicated. Any height and width are allowed: sizes are halved
and rounded up. All operations are linear and keep float32 or float64, even under autocast.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def down(images: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, C, ceil(H/2), ceil(W/2)): blur and keep every second pixel."""
    return _down_last(_down_last(images).mT).mT


def up(images: Tensor, size: tuple[int, int]) -> Tensor:
    """(N, C, ceil(H/2), ceil(W/2)) -> (N, C, H, W) for `size` (H, W); constant images stay constant."""
    height, width = size
    return _up_last(_up_last(images, width).mT, height).mT


def build(images: Tensor, depth: int) -> list[Tensor]:
    """Return the `depth` bands of float images (N, C, H, W), finest first; the last is the low-pass residual.

    Every band except the last has mean 0 in every image and channel: blurring slightly shifts the
    mean at the borders, and this shift is added to the coarser image instead.
    """
    bands, image = [], images
    for _ in range(depth - 1):
        coarse = down(image)
        band = image - up(coarse, tuple(image.shape[-2:]))
        shift = band.mean(dim=(-2, -1), keepdim=True)
        bands.append(band - shift)
        image = coarse + shift
    return [*bands, image]


def collapse(bands: Sequence[Tensor]) -> Tensor:
    """Reconstruct images from their `bands` (finest first): the exact inverse of `build`."""
    image = bands[-1]
    for band in reversed(bands[:-1]):
        image = up(image, tuple(band.shape[-2:])) + band
    return image


def _down_last(x: Tensor) -> Tensor:
    width = x.shape[-1]
    padded = torch.cat([x[..., :1], x[..., :1], x, x[..., -1:], x[..., -1:]], dim=-1)
    a, b, c, d, e = (padded[..., tap : tap + width : 2] for tap in range(5))
    return (a + e) / 16 + (b + d) / 4 + c * (3 / 8)


def _up_last(x: Tensor, width: int) -> Tensor:
    padded = torch.cat([x[..., :1], x, x[..., -1:]], dim=-1)
    before, here, after = padded[..., :-2], padded[..., 1:-1], padded[..., 2:]
    even, odd = (before + after) / 8 + here * 0.75, (here + after) / 2
    return torch.stack([even, odd], dim=-1).flatten(-2)[..., :width]
