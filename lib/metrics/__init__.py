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


class MetricError(ValueError):
    """A metric cannot be computed; the message says what to do."""


def pick_device(device: str) -> str:
    """ "auto" is a GPU where there is one."""
    # Not lib.training.start: a new Accelerator would change the precision of one that is in use.
    return ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device


def check_pixels(pixels: Tensor) -> None:
    """Raise a MetricError unless `pixels` are uint8 of shape (n, 3, h, w) with n of at least 1."""
    if pixels.dtype != torch.uint8 or pixels.ndim != 4 or pixels.shape[1] != 3 or not pixels.numel():
        raise MetricError(f"metrics read uint8 images (n, 3, h, w), at least one, not {pixels.dtype} of shape "
                          f"{tuple(pixels.shape)}; to_pixels brings images in [-1, 1] there")  # fmt: skip
