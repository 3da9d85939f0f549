"""AlexNet and VGG16 with torchvision's ImageNet weights, from torch's hub cache (TORCH_HOME). Nothing is downloaded."""

from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision import models
from torchvision.transforms.functional import normalize

from lib.data.catalog import DataError

NETWORKS = {
    "AlexNet": (models.alexnet, models.AlexNet_Weights.IMAGENET1K_V1),
    "VGG16": (models.vgg16, models.VGG16_Weights.IMAGENET1K_V1),
}
STATISTICS = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # mean and standard deviation of the training pixels


def hub_file(url: str) -> Path:
    """Return the path of the weights from `url` in torch's hub cache (TORCH_HOME), whether or not it exists."""
    return Path(torch.hub.get_dir(), "checkpoints", url.rsplit("/", 1)[-1])


def load_trained(name: str) -> nn.Sequential:
    """Return the convolutional part of "AlexNet" or "VGG16", in evaluation mode and without gradients.

    Raises:
        DataError: the network is unknown, or its weights are damaged or not in the cache.
    """
    if name not in NETWORKS:
        raise DataError(f"There is no network {name!r}: choose from {', '.join(NETWORKS)}.")
    build, weights = NETWORKS[name]
    file = hub_file(weights.url)
    how = f"Put {weights.url} there, or set TORCH_HOME to the folder whose hub/checkpoints holds it."
    if not file.exists():
        raise DataError(f"The weights of {name} are not in {file}. {how}")
    with torch.device("meta"):  # saves initialising 138 million weights
        network = build().features.eval()
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
        state = {key.removeprefix("features."): value for key, value in state.items() if key.startswith("features.")}
        network.load_state_dict(state, assign=True)
    except Exception as error:  # whatever torch and pickle raise for a truncated or foreign file
        raise DataError(f"{file} holds no weights of {name} ({type(error).__name__}). Delete it. {how}") from error
    return network.requires_grad_(False)


def as_input(pixels: Tensor) -> Tensor:
    """Normalise uint8 images (n, 3, h, w) as in training: scale to [0, 1], subtract mean, divide by deviation."""
    return normalize(pixels / 255, *STATISTICS)
