"""Convert stored pixels to network input and augment whole batches, with independent draws for each image."""

import torch
import torch.nn.functional as F
from torch import Tensor


def as_float(pixels: Tensor) -> Tensor:
    """Return uint8 pixels, 0 to 255, as float32 in [-1, 1]."""
    if pixels.dtype != torch.uint8:
        raise TypeError(f"pixels are stored as uint8, 0 to 255; these are {pixels.dtype}")
    return pixels.float().div_(127.5).sub_(1)


def flip_and_shift(pixels: Tensor, *, shift: int = 4) -> Tensor:
    """Mirror half of the images and shift each by up to `shift` pixels, zero padded (He et al. 2016, section 4.2).

    pixels: (B, C, H, W) of any dtype, preferably uint8. Random numbers come from torch's global generator of the
    device. Pixels are indexed, as interpolating warps take several times longer and blur whole-pixel shifts.
    """
    count, _, height, width = pixels.shape
    device = pixels.device
    padded = F.pad(pixels, (shift,) * 4)
    top = torch.randint(0, 2 * shift + 1, (count, 1, 1), device=device)
    left = torch.randint(0, 2 * shift + 1, (count, 1, 1), device=device)
    mirror = torch.rand(count, 1, 1, device=device) < 0.5
    row = torch.arange(height, device=device).view(1, -1, 1) + top  # (B, H, 1)
    column = torch.arange(width, device=device).view(1, 1, -1)
    column = torch.where(mirror, width - 1 - column, column) + left  # (B, 1, W)
    image = torch.arange(count, device=device).view(-1, 1, 1)
    return padded.permute(0, 2, 3, 1)[image, row, column].permute(0, 3, 1, 2)  # channels_last, like the networks
