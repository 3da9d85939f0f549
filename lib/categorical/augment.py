"""Two views of an image: random augmentations that should not change its code."""

import kornia.augmentation as K
import torch
from torch import Tensor, nn

from lib.data.augment import as_float


class Views(nn.Module):
    """Augment a whole batch on its device with kornia, drawing separately for each image.

    The recipe of SimCLR and MoCo v2 for small images: resized crops, horizontal flips, colour jitter and greyscale,
    without blur (Chen et al. 2020, appendix B.9).
    size: height and width. smallest_crop: smallest share of the image area in a crop. hue: largest hue shift, in turns
    of the colour circle; 0.5 allows any.
    Only what the views share can be learned: if colours are preserved, encoding them is the easiest solution.
    Uses torch's global random state.
    """

    def __init__(self, size: tuple[int, int], smallest_crop: float = 0.2, hue: float = 0.1):
        super().__init__()
        self.steps = K.AugmentationSequential(
            K.RandomResizedCrop(tuple(size), scale=(smallest_crop, 1.0), cropping_mode="resample"),
            K.RandomHorizontalFlip(),
            K.ColorJitter(0.4, 0.4, 0.4, hue, p=0.8),
            K.RandomGrayscale(p=0.2),
        )

    @torch.no_grad()
    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Return two views of uint8 images (B, 3, H, W): float32 in [-1, 1], of the same shape."""
        images = as_float(pixels).add_(1).div_(2)  # kornia works in [0, 1]
        # Both views at once: on small batches, launching the many small operations takes half of the time.
        both = self.steps(images.repeat(2, 1, 1, 1)).clamp_(0, 1).mul_(2).sub_(1)
        return both.chunk(2)
