"""Networks: an image encoder, a head that turns its features into codes or an embedding, and MoCo's queue."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import resnet18
from torchvision.models.resnet import BasicBlock


class SmallResNet(nn.Module):
    """A stem without stride and `stages` residual blocks, each except the first with stride 2 (He et al. 2016).

    Images (B, 3, S, S) in [-1, 1] → features (B, width · 2^(stages - 1)) by global average pooling.
    """

    def __init__(self, width: int = 32, stages: int = 3):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        blocks = [BasicBlock(width, width)]
        for stage in range(1, stages):
            before, after = width * 2 ** (stage - 1), width * 2**stage
            # The pooling takes every other pixel, as a strided 1×1 convolution with fewer than 8 channels in
            # channels_last writes out of bounds on CPUs without AVX-512 (PyTorch 2.11, oneDNN 3.10).
            every_other = nn.MaxPool2d(1, stride=2)
            shortcut = nn.Sequential(every_other, nn.Conv2d(before, after, 1, bias=False), nn.BatchNorm2d(after))
            blocks.append(BasicBlock(before, after, stride=2, downsample=shortcut))
        self.blocks = nn.Sequential(*blocks)
        self.features = width * 2 ** (stages - 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.blocks(self.stem(images)).mean((2, 3))


def build_encoder(name: str = "small", width: int = 32) -> nn.Module:
    """Build `small` (with `width` filters in the stem) or `resnet18` with a stem for 32 px: 3×3, stride 1, no pooling.

    Both have an attribute `features`, the size of their output.
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
    """Encoder and head. The head has one hidden layer, as in SimCLR and MoCo v2, of the same size for all arms.

    shape: that of the head's output for one image: (L, K), logits of a code, or (D,), an embedding.
    """

    def __init__(self, encoder: nn.Module, shape: tuple[int, ...]):
        super().__init__()
        self.encoder, self.shape = encoder, tuple(shape)
        width = encoder.features
        hidden = nn.Linear(width, width, bias=False), nn.BatchNorm1d(width), nn.ReLU()
        self.head = nn.Sequential(*hidden, nn.Linear(width, math.prod(shape)))

    def forward(self, images: Tensor) -> Tensor:
        """Map images (B, 3, S, S) in [-1, 1] to (B, *shape)."""
        return self.head(self.encoder(images)).unflatten(1, self.shape)


class Queue(nn.Module):
    """First-in, first-out queue of the last `size` rows pushed, codes (L, K) or vectors (D,) (He et al. 2020).

    Unfilled slots are never returned, batches of any size wrap around, and only the last rows of a batch larger than
    the queue are kept. `state_dict` holds the whole state.
    """

    def __init__(self, size: int, shape: tuple[int, ...]):
        super().__init__()
        self.size = size
        self.register_buffer("rows", torch.zeros(size, *shape))
        self.register_buffer("pushed", torch.zeros((), dtype=torch.long))  # number of rows so far
        self.known = 0  # lower bound of `pushed` as an int, which needs no GPU synchronisation

    def filled(self) -> Tensor:
        """Return the filled rows (n, *shape), n ≤ size, in no particular order."""
        return self.rows[: min(self.known, self.size)]

    @property
    def full(self) -> bool:
        return self.known >= self.size

    @torch.no_grad()
    def push(self, rows: Tensor) -> None:
        """Replace the oldest rows by `rows` (n, *shape)."""
        kept = rows.detach()[-self.size :]
        self.known += len(rows)
        self.pushed += len(rows)
        places = (self.pushed - len(kept) + torch.arange(len(kept), device=self.rows.device)) % self.size
        self.rows.index_copy_(0, places, kept.to(self.rows))

    def load_state_dict(self, *arguments: Any, **options: Any) -> Any:
        found = super().load_state_dict(*arguments, **options)
        self.known = int(self.pushed)
        return found
