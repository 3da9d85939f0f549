"""Radial power spectrum, in whose highest frequencies upsampling layers leave traces (Durall et al. 2020, "Watch your
up-convolution")."""

import torch
from torch import Tensor

from lib.data.augment import as_float
from lib.metrics import check_pixels

CHUNK = 256  # images at once: the memory does not grow with their number


def power_spectrum(pixels: Tensor) -> Tensor:
    """Mean over images and channels of |F|²/(H·W), with the images in the [-1, 1] scale.

    pixels: (n, 3, H, W) uint8 → (H, W) float64 in the order of `torch.fft.fftfreq`, on the CPU. White noise of variance
    s² has s² everywhere, at any image size.
    """
    check_pixels(pixels)
    height, width = pixels.shape[-2:]
    total = torch.zeros(height, width, dtype=torch.float64)
    for chunk in pixels.split(CHUNK):
        power = torch.fft.fft2(as_float(chunk), norm="ortho").abs().square()
        total += power.mean(dim=1).double().sum(dim=0).cpu()
    return total / len(pixels)


def radial_power(pixels: Tensor) -> tuple[Tensor, Tensor]:
    """The power spectrum averaged over rings of equal frequency.

    pixels: (n, 3, H, W) uint8. Returns (frequencies, power), both (min(H, W) // 2 + 1,) float64: 0 to at most 0.5
    cycles per pixel, and the mean of `power_spectrum` over each ring; the corners beyond 0.5 are left out.
    """
    power = power_spectrum(pixels)
    height, width = power.shape
    size = min(height, width)
    vertical = torch.fft.fftfreq(height, dtype=torch.float64).view(-1, 1)
    horizontal = torch.fft.fftfreq(width, dtype=torch.float64)
    ring = (torch.hypot(vertical, horizontal) * size).round().long()
    inside = ring <= size // 2
    counts = torch.bincount(ring[inside])
    return torch.arange(size // 2 + 1).double() / size, torch.bincount(ring[inside], power[inside]) / counts
