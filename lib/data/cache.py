"""Decoded images and sounds kept in `build/cache`, so that a folder of files is decoded once.

A cache never stands in the way: a damaged file is made again, a full disk only warns.
"""

import hashlib
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np

from lib import paths
from lib.paths import atomic


def folder(kind: str = "images") -> Path:
    return paths.build() / "cache" / kind


def checksum(values: np.ndarray, labels: np.ndarray) -> str:
    """sha256 over shape and bytes of pixels (uint8) or samples (int16: two bytes each, the lower first) and labels."""
    values = np.ascontiguousarray(values, "<i2" if values.dtype == np.int16 else "u1").view("u1")
    digest = hashlib.sha256(repr(values.shape).encode())
    digest.update(values.data)
    digest.update(np.ascontiguousarray(labels, "<i8").data)
    return digest.hexdigest()


def cached(key: str, labels: np.ndarray, make: Callable[[], np.ndarray], kind: str) -> tuple[np.ndarray, str]:
    """The array kept under `key` (any text), else that of `make()`, which is then kept.

    Returns (uint8 or int16 array, its checksum with `labels`). The file holds this checksum and the array in NumPy's
    format; it is believed only if the two agree.
    """
    path = folder(kind) / f"{hashlib.sha256(key.encode('utf-8', 'surrogateescape')).hexdigest()[:32]}.npy"
    if path.exists():
        try:
            with path.open("rb") as file:
                digest = file.read(64).decode("ascii")
                values = np.load(file, allow_pickle=False)
            if values.dtype in (np.uint8, np.int16) and checksum(values, labels) == digest:
                return values, digest
        except Exception:  # what a damaged header makes NumPy raise is not settled
            pass
        warnings.warn(f"The cache file {path} is damaged: it is made again.", stacklevel=2)
    values = make()
    digest = checksum(values, labels)
    try:
        with atomic(path) as temporary, temporary.open("wb") as file:
            file.write(digest.encode())
            np.save(file, values, allow_pickle=False)
    except OSError as error:
        warnings.warn(f"The decoded {kind} could not be kept in {path} ({error}): they will be decoded again "
                      f"next time. Free some space or set OUTPUT_ROOT to a folder that has it.",
                      stacklevel=2)  # fmt: skip
    return values, digest
