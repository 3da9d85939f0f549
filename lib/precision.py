"""Losses in full precision, regardless of autocast."""

import functools
from collections.abc import Callable

import torch
from torch import Tensor


def full_precision(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Run a function without autocast, with positional tensors converted to float32 (float64 is kept)."""

    @functools.wraps(function)
    def wrapped(*inputs, **options) -> Tensor:
        with torch.autocast(inputs[0].device.type, enabled=False):
            return function(*map(_full, inputs), **options)

    return wrapped


def _full(value):
    return value.float() if isinstance(value, Tensor) and value.dtype != torch.float64 else value
