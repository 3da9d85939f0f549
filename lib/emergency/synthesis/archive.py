"""Arrays kept in `build/cache`, so that they are made once. A damaged file is made again, a full disk only warns."""

import warnings
from pathlib import Path

import numpy as np

from lib.paths import atomic


def read(path: Path) -> dict[str, np.ndarray] | None:
    """What is kept in `path`, None if there is nothing or its checksums (those of zip) do not fit."""
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
        warnings.warn(f"What was synthesised could not be kept in {path} ({error}): it will be made again next time. "
                      f"Free some space or set OUTPUT_ROOT to a folder that has it.", stacklevel=4)  # fmt: skip
