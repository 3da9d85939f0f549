"""Networks: an image encoder, a head that turns its features into codes or an embedding, and MoCo's queue."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import resnet18
from torchvision.models.resnet import BasicBlock


class SmallResNet(nn.Module):
    """Stem without stride and `stages` residual blocks, each but the first halving the image (He et al. 2016).

    Images (B, 3, S, S) in [-1, 1] → features (B, width · 2^(stages - 1)), averaged over what is left of the image.
    """

    def __init__(self, width: int = 32, stages: int = 3):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        blocks = [BasicBlock(width, width)]
        for stage in range(1, stages):
            before, after = width * 2 ** (stage - 1), width * 2**stage
            # The pooling takes every other pixel. As the convolution's own stride this overwrites foreign memory on
            # CPUs without AVX-512 where it has fewer than 8 channels in channels_last (PyTorch 2.11, oneDNN 3.10).
            every_other = nn.MaxPool2d(1, stride=2)
            shortcut = nn.Sequential(every_other, nn.Conv2d(before, after, 1, bias=False), nn.BatchNorm2d(after))
            blocks.append(BasicBlock(before, after, stride=2, downsample=shortcut))
        self.blocks = nn.Sequential(*blocks)
        self.features = width * 2 ** (stages - 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.blocks(self.stem(images)).mean((2, 3))


def build_encoder(name: str = "small", width: int = 32) -> nn.Module:
    """`small` (with `width` filters in the stem) or `resnet18` with the stem for 32 px: 3×3, stride 1, no pooling.

    Both have `features`, the length of what they return.
    """
    if name == "small":
        return SmallResNet(width)
    if name == "resnet18":
        model = resnet18(weights=None)
        model.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        model.maxpool, model.fc = nn.Identity(), nn.Identity()
        model.features = 512
        return model
    raise ValueError(f"encoder {name!r} is unknown; choose 'small' or 'resnet18'")


class Network(nn.Module):
    """Encoder and head. The head has one hidden layer, as in SimCLR and MoCo v2, and the same size for all arms.

    shape: what the head returns for one image: (L, K), logits of a code, or (D,), an embedding.
    """

    def __init__(self, encoder: nn.Module, shape: tuple[int, ...]):
        super().__init__()
        self.encoder, self.shape = encoder, tuple(shape)
        width = encoder.features
        hidden = nn.Linear(width, width, bias=False), nn.BatchNorm1d(width), nn.ReLU()
        self.head = nn.Sequential(*hidden, nn.Linear(width, math.prod(shape)))

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 3, S, S) in [-1, 1] → (B, *shape)."""
        return self.head(self.encoder(images)).unflatten(1, self.shape)


class Queue(nn.Module):
    """The last `size` rows that were pushed, codes (L, K) or vectors (D,): first in, first out (He et al. 2020).

    Slots that were never filled are never shown, batches of any size wrap around, and of a batch larger than
    the queue the newest rows stay. `state_dict` holds all of it.
    """

    def __init__(self, size: int, shape: tuple[int, ...]):
        super().__init__()
        self.size = size
        self.register_buffer("rows", torch.zeros(size, *shape))
        self.register_buffer("pushed", torch.zeros((), dtype=torch.long))  # rows so far
        self.known = 0  # as many at least: a number, as a GPU would have to be waited for

    def filled(self) -> Tensor:
        """(n, *shape), n ≤ size: what has been pushed, in no particular order."""
        return self.rows[: min(self.known, self.size)]

    @property
    def full(self) -> bool:
        return self.known >= self.size

    @torch.no_grad()
    def push(self, rows: Tensor) -> None:
        """Put `rows` (n, *shape) in the place of the oldest."""
        kept = rows.detach()[-self.size :]
        self.known += len(rows)
        self.pushed += len(rows)
        places = (self.pushed - len(kept) + torch.arange(len(kept), device=self.rows.device)) % self.size
        self.rows.index_copy_(0, places, kept.to(self.rows))

    def load_state_dict(self, *arguments: Any, **options: Any) -> Any:
        found = super().load_state_dict(*arguments, **options)
        self.known = int(self.pushed)
        return found
