"""Two views of an image: random changes that are to leave its code as it is."""

import kornia.augmentation as K
import torch
from torch import Tensor, nn

from lib.data.augment import as_float


class Views(nn.Module):
    """Augmentation of a whole batch on its device, each image with its own draw, by kornia.

    The recipe of SimCLR and MoCo v2 for small images: resized crops, mirroring, colours and grey, without blur (Chen et
    al. 2020, appendix B.9).
    size: height and width. smallest_crop: share of the image that a crop shows at least. hue: largest turn of the
    colour circle, 0.5 any.
    What the views have in common is what can be learned: where colours stay, codes of colours are the easiest.
    Random state: torch's global one.
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
        """uint8 (B, 3, H, W) → two views, float32 in [-1, 1], of the same shape."""
        images = as_float(pixels).add_(1).div_(2)  # kornia works in [0, 1]
        # Both at once: half of the time on small batches goes into starting the many small operations.
        both = self.steps(images.repeat(2, 1, 1, 1)).clamp_(0, 1).mul_(2).sub_(1)
        return both.chunk(2)
