"""The networks of the study: the source's vanilla CNN and an existing one."""

from collections.abc import Sequence

from torch import Tensor, nn
from torchvision.models import resnet18


class VanillaCNN(nn.Module):
    """Plain 3×3 convolutions with ReLU, halved by max pooling; global mean; linear classifier.

    channels: filters per layer; the resolution is halved after every layer but the last.
    batch_norm: between convolution and ReLU. Images (B, 3, S, S) in [-1, 1] → logits (B, classes).
    """

    def __init__(self, classes: int = 10, channels: Sequence[int] = (32, 64, 128, 128), batch_norm: bool = True):
        super().__init__()
        blocks, width_in = [], 3
        for depth, width in enumerate(channels):
            layers: list[nn.Module] = [nn.Conv2d(width_in, width, 3, padding=1, bias=not batch_norm)]
            if batch_norm:
                layers.append(nn.BatchNorm2d(width))
            layers.append(nn.ReLU(inplace=True))
            if depth < len(channels) - 1:
                layers.append(nn.MaxPool2d(2))
            blocks.append(nn.Sequential(*layers))
            width_in = width
        self.features = nn.Sequential(*blocks)
        self.classifier = nn.Linear(width_in, classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.features(images).mean(dim=(2, 3)))


def resnet18_32px(classes: int = 10) -> nn.Module:
    """torchvision's ResNet-18 with the stem for 32 px images: 3×3, stride 1, no pooling (He et al. 2016)."""
    model = resnet18(weights=None, num_classes=classes)
    model.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    model.maxpool = nn.Identity()
    return model


def build_model(name: str, classes: int, *, width: float = 1.0) -> nn.Module:
    """`vanilla` (with `width` times the filters) or `resnet18`."""
    if name == "vanilla":
        return VanillaCNN(classes, [max(8, round(c * width)) for c in (32, 64, 128, 128)])
    if name == "resnet18":
        return resnet18_32px(classes)
    raise ValueError(f"model {name!r} is unknown; choose 'vanilla' or 'resnet18'")
