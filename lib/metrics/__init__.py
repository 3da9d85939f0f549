"""Metrics of generated images, representations and classifiers, by module.

features        extractors of feature vectors from uint8 images; imagenet has the trained networks
fid             Fréchet distance, KID, precision, recall, density, coverage of two sets of features; power spectrum
perceptual      LPIPS
clustering      clusters, nearest neighbours and linear probes of representations, against labels
codes           discrete codes: categories in use, redundancy, factors encoded by positions, clusters of similar codes
disentanglement MIG, DCI and SAP of representations with respect to known factors
classification  accuracy, confusion matrix, alarms and calibration of a classifier, with confidence intervals
moments         sound event detection by frame, event and alarm
comparison      arms over seeds: mean, standard deviation, paired tests

Generated and real images are both passed as uint8, so that they are processed identically.
"""

import torch
from torch import Tensor


class MetricError(ValueError):
    """Raised when a metric cannot be computed; the message says what to do."""


def pick_device(device: str) -> str:
    """Return the name of the device; "auto" is a GPU if available, else the CPU."""
    # Not lib.training.start, as a new Accelerator would change the precision of one already in use.
    return ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device


def check_pixels(pixels: Tensor) -> None:
    """Raise a MetricError unless `pixels` are uint8 of shape (n, 3, h, w) with n ≥ 1."""
    if pixels.dtype != torch.uint8 or pixels.ndim != 4 or pixels.shape[1] != 3 or not pixels.numel():
        raise MetricError(f"metrics read uint8 images (n, 3, h, w), at least one, not {pixels.dtype} of shape "
                          f"{tuple(pixels.shape)}; to_pixels brings images in [-1, 1] there")  # fmt: skip
