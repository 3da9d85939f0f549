"""Cache of decoded images and sounds in `build/cache`, so that a folder of files is decoded once.

The cache never stops a run: a damaged file is made again, and a full disk causes only a warning.
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
    """Return the sha256 over shape and bytes of pixels (uint8) or samples (int16, little-endian) and over labels."""
    values = np.ascontiguousarray(values, "<i2" if values.dtype == np.int16 else "u1").view("u1")
    digest = hashlib.sha256(repr(values.shape).encode())
    digest.update(values.data)
    digest.update(np.ascontiguousarray(labels, "<i8").data)
    return digest.hexdigest()


def cached(key: str, labels: np.ndarray, make: Callable[[], np.ndarray], kind: str) -> tuple[np.ndarray, str]:
    """Return the array cached under `key` (any text), made if necessary, and its checksum with `labels`.

    Arrays are uint8 or int16. A cached one is used only if its checksum matches.
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
    """Return the arrays stored in `path`, or None if it is missing or damaged (by the checksums of zip)."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return dict(file)
    except FileNotFoundError:
        return None
    except Exception:  # a damaged archive may raise anything
        warnings.warn(f"The cache file {path} is damaged: it is made again.", stacklevel=4)
        return None


def keep(path: Path, **arrays: np.ndarray) -> None:
    try:
        with atomic(path) as temporary, temporary.open("wb") as file:
            np.savez(file, **arrays)
    except OSError as error:
        warnings.warn(f"What was made could not be kept in {path} ({error}): it will be made again next time. "
                      f"Free some space or set OUTPUT_ROOT to a folder that has it.", stacklevel=4)  # fmt: skip
