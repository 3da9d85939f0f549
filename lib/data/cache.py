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
    """The array kept under `key` (any text), else that of `make()`, which is then kept; and its checksum with `labels`.

    uint8 or int16. What was kept is believed only if its checksum fits.
    """
    path = folder(kind) / f"{hashlib.sha256(key.encode('utf-8', 'surrogateescape')).hexdigest()[:32]}.npz"
    kept = read(path)
    if kept and checksum(kept["values"], labels) == str(kept["digest"]):
        return kept["values"], str(kept["digest"])
    values = make()
    digest = checksum(values, labels)
    keep(path, values=values, digest=np.array(digest))
    return values, digest


def read(path: Path) -> dict[str, np.ndarray] | None:
    """The arrays kept in `path`, None if there are none or their checksums (those of zip) do not fit."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return dict(file)
    except FileNotFoundError:
        return None
    except Exception:  # a damaged archive raises whatever its damaged part causes
        warnings.warn(f"The cache file {path} is damaged: it is made again.", stacklevel=4)
        return None


def keep(path: Path, **arrays: np.ndarray) -> None:
    try:
        with atomic(path) as temporary, temporary.open("wb") as file:
            np.savez(file, **arrays)
    except OSError as error:
        warnings.warn(f"What was made could not be kept in {path} ({error}): it will be made again next time. "
                      f"Free some space or set OUTPUT_ROOT to a folder that has it.", stacklevel=4)  # fmt: skip
