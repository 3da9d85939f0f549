"""Measures of generated images and of representations, named by their protocol.

features        extractors: uint8 images to feature vectors; imagenet has the trained networks
fid             Fréchet distance, KID, precision, recall, density and coverage of two sets of features; power spectrum
perceptual      LPIPS
clustering      clusters, nearest neighbours and linear readouts of representations, against labels
codes           discrete codes: use of the alphabet, redundancy, what positions follow, codes that nearly agree
disentanglement MIG, DCI and SAP of representations, against known factors
classification  accuracy, confusion, alarms and calibration of a classifier, with intervals
moments         sound event detection by frame, event and alarm
comparison      arms over seeds: mean, spread, paired tests

Generated and real images go in as uint8, so that they take the same path.
"""

import torch
from torch import Tensor

TOLERANCE = 1e-3  # beyond [-1, 1], for the rounding of a tanh or a rebuilt pyramid


class MetricError(ValueError):
    """A metric cannot be computed; the message says what to do."""


def pick_device(device: str) -> str:
    """ "auto" is a GPU where there is one."""
    # Not lib.training.start: a new Accelerator would change the precision of one that is in use.
    return ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device


def check_tensor(values: Tensor, what: str) -> None:
    """Raise a MetricError unless `values` are a tensor."""
    if not isinstance(values, Tensor):
        kind = f"{type(values).__module__}.{type(values).__name__}".removeprefix("builtins.")
        raise MetricError(f"{what} are a {kind}, expected a torch.Tensor; torch.as_tensor(...) makes one")


def check_pixels(pixels: Tensor) -> None:
    """Raise a MetricError unless `pixels` are uint8 of shape (n, 3, h, w) with n of at least 1."""
    check_tensor(pixels, "images")
    if pixels.dtype != torch.uint8:
        raise MetricError(f"metrics read uint8 pixels, not {pixels.dtype}; bring images in [-1, 1] there by to_pixels")
    if pixels.ndim != 4 or not pixels.numel():
        raise MetricError(f"metrics need images of shape (n, 3, h, w), at least one; these are {tuple(pixels.shape)}")
    if pixels.shape[1] == 1:
        raise MetricError("metrics need three channels, these images have one; repeat it by pixels.repeat(1, 3, 1, 1)")
    if pixels.shape[1] != 3:
        raise MetricError(f"metrics need three channels (n, 3, h, w), these images have shape {tuple(pixels.shape)}")


def check_range(images: Tensor, reader: str) -> None:
    """Raise a MetricError for images outside [-1, 1], or NaN; it begins with `reader`, as in "LPIPS reads floats"."""
    low, high = torch.stack(torch.aminmax(images.detach())).tolist()
    if not (low >= -1 - TOLERANCE and high <= 1 + TOLERANCE):  # NaN compares to nothing
        found = "NaN" if low != low or high != high else f"{low:.4g} to {high:.4g}"
        raise MetricError(f"{reader} in [-1, 1], these hold {found}; scale or clamp them first")
