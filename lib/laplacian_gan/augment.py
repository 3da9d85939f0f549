"""Differentiable augmentation, applied to both real and generated images before the discriminator.

    augment = AUGMENTATIONS["diffaugment"]
    discriminator(augment(real)), discriminator(augment(fake))

Every function maps float images (n, 3, h, w) in [-1, 1] to images of the same shape, with separate
random draws for each image from torch's global random state. Gradients flow through to the generator.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from lib.laplacian_gan import pyramid

Augmentation = Callable[[Tensor], Tensor]


def diff_augment(images: Tensor) -> Tensor:
    """DiffAugment (Zhao et al. 2020): colour, translation by up to 1/8, and cutout of a square of half the side."""
    return _cutout(_translation(_colour(images.float())))


def _colour(images: Tensor) -> Tensor:
    """Brightness ±0.5, saturation 0..2, contrast 0.5..1.5, in this order (Zhao et al. 2020, appendix)."""
    brightness, saturation, contrast = (_draw(images) for _ in range(3))
    images = images + (brightness - 0.5)
    grey = images.mean(dim=1, keepdim=True)
    images = grey + (images - grey) * (2 * saturation)
    level = images.mean(dim=(1, 2, 3), keepdim=True)
    return level + (images - level) * (contrast + 0.5)


def _translation(images: Tensor, ratio: float = 1 / 8) -> Tensor:
    """Shift by up to `ratio` of each side, with zero padding."""
    n, _, height, width = images.shape
    most_y, most_x = round(height * ratio), round(width * ratio)
    y = torch.randint(0, 2 * most_y + 1, (n, 1), device=images.device) + torch.arange(height, device=images.device)
    x = torch.randint(0, 2 * most_x + 1, (n, 1), device=images.device) + torch.arange(width, device=images.device)
    padded = F.pad(images, (most_x, most_x, most_y, most_y)).permute(0, 2, 3, 1)
    rows = torch.arange(n, device=images.device)[:, None, None]
    return padded[rows, y[:, :, None], x[:, None, :]].permute(0, 3, 1, 2)


def _cutout(images: Tensor, ratio: float = 1 / 2) -> Tensor:
    """Zero out a square of `ratio` of each side, centred anywhere in the image."""
    n, _, height, width = images.shape
    inside = []
    for side in (height, width):
        size = round(side * ratio)
        begin = torch.randint(0, side + (1 - size % 2), (n, 1), device=images.device) - size // 2
        place = torch.arange(side, device=images.device)
        inside.append((place >= begin) & (place < begin + size))
    hole = inside[0][:, None, :, None] & inside[1][:, None, None, :]
    return images.masked_fill(hole, 0)


def pyramid_augment(
    images: Tensor, *, depth: int = 4, scale: float = 0.4, swap: float = 0.1, jitter: float = 0.1
) -> Tensor:
    """Augmentation in the Laplacian pyramid, the source's future work (데이터 증강에서의 Laplacian pyramid).

    In each image, every band except the low-pass residual is multiplied by 2^(scale·normal), replaced with probability
    `swap` by the same band of a random image of the batch (possibly itself), and perturbed by noise of `jitter` times
    its own standard deviation. With all three at zero, images are unchanged; otherwise values may leave [-1, 1].
    Related: ADA's random gains on four wavelet bands (Karras et al. 2020, appendix B).
    """
    images = images.float()
    bands = pyramid.build(images, depth)
    changed = []
    for band in bands[:-1]:
        band = band * torch.exp2(scale * torch.randn(len(band), 1, 1, 1, device=band.device))
        other = band[torch.randperm(len(band), device=band.device)]
        band = torch.where(_draw(band) < swap, other, band)
        strength = band.detach().std(dim=(1, 2, 3), keepdim=True, correction=0)
        band = band + jitter * strength * torch.randn_like(band)
        changed.append(band)
    return pyramid.collapse([*changed, bands[-1]])


def negate(images: Tensor) -> Tensor:
    """Turn each image into its negative with probability 1/2, so that the discriminator cannot tell the two apart."""
    return torch.where(_draw(images) < 0.5, -images, images)


AUGMENTATIONS: dict[str, Augmentation] = {
    "none": torch.nn.Identity(),
    "diffaugment": diff_augment,
    "pyramid": pyramid_augment,
    "negatives": negate,
}


def _draw(images: Tensor) -> Tensor:
    """Return one uniform number in [0, 1) per image, (n, 1, 1, 1)."""
    return torch.rand(len(images), 1, 1, 1, device=images.device)
