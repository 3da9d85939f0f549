"""The networks of the study: a vanilla CNN, whose architecture is ours as the source gives none, and ResNet-18."""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn
from torchvision.models import resnet18
from torchvision.ops import Conv2dNormActivation


class VanillaCNN(nn.Module):
    """3×3 convolutions with batch norm, ReLU and max pooling, followed by global average pooling and a classifier.

    channels: filters per layer; the resolution is halved after every layer but the last.
    Images (B, 3, S, S) in [-1, 1] → logits (B, classes).
    """

    def __init__(self, classes: int = 10, channels: Sequence[int] = (32, 64, 128, 128)):
        super().__init__()
        blocks = [nn.Sequential(*Conv2dNormActivation(*pair, 3), nn.MaxPool2d(2)) for pair in pairwise([3, *channels])]
        blocks[-1] = blocks[-1][:-1]
        self.features = nn.Sequential(*blocks)
        self.classifier = nn.Linear(channels[-1], classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.features(images).mean(dim=(2, 3)))


def build_model(name: str, classes: int, *, width: float = 1.0) -> nn.Module:
    """Return the network `vanilla` (with `width` times the filters, at least 8 per layer) or `resnet18`.

    The latter is torchvision's with the stem for 32 px images: 3×3, stride 1, no pooling (He et al. 2016).
    """
    if name == "vanilla":
        return VanillaCNN(classes, [max(8, round(c * width)) for c in (32, 64, 128, 128)])
    if name == "resnet18":
        model = resnet18(weights=None, num_classes=classes)
        model.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        model.maxpool = nn.Identity()
        return model
    raise ValueError(f"model {name!r} is unknown; choose 'vanilla' or 'resnet18'")
