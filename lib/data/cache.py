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


def checksum(pixels: np.ndarray, labels: np.ndarray) -> str:
    """sha256 over shape and bytes of pixels (uint8) and labels (little-endian int64)."""
    digest = hashlib.sha256(repr(pixels.shape).encode())
    digest.update(np.ascontiguousarray(pixels, "u1").data)
    digest.update(np.ascontiguousarray(labels, "<i8").data)
    return digest.hexdigest()


def cached(
    key: str, labels: np.ndarray, make: Callable[[], np.ndarray], kind: str = "images"
) -> tuple[np.ndarray, str]:
    """The pixels kept under `key`, else those of `make()`, which are then kept.

    Returns (pixels, checksum of pixels and `labels`). The file holds this checksum and the array in
    NumPy's format; it is believed only if the two agree.
    """
    path = folder(kind) / f"{key}.npy"
    kept = _read(path, labels)
    if kept is not None:
        return kept
    pixels = make()
    digest = checksum(pixels, labels)
    try:
        with atomic(path) as temporary, temporary.open("wb") as file:
            file.write(digest.encode())
            np.save(file, pixels, allow_pickle=False)
    except OSError as error:
        warnings.warn(f"The decoded {kind} could not be kept in {path} ({error}): they will be decoded again "
                      f"next time. Free some space or set OUTPUT_ROOT to a folder that has it.",
                      stacklevel=2)  # fmt: skip
    return pixels, digest


def _read(path: Path, labels: np.ndarray) -> tuple[np.ndarray, str] | None:
    try:
        with path.open("rb") as file:
            digest = file.read(64).decode("ascii")
            pixels = np.load(file, allow_pickle=False)
        if pixels.dtype == np.uint8 and len(pixels) == len(labels) and checksum(pixels, labels) == digest:
            return pixels, digest
    except FileNotFoundError:
        return None
    except (OSError, ValueError, EOFError, SyntaxError, MemoryError):  # what a damaged header can cause
        pass
    warnings.warn(f"The cache file {path} is damaged: it is made again.", stacklevel=3)
    return None
