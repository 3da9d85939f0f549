"""Code shared by the loaders of images and sounds: arguments, locating a set, subsets, decoding in threads."""

import hashlib
import os
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from lib import paths
from lib.data import cache, catalog
from lib.data.catalog import DataError, Source


class Labelled:
    """Base class of `Images` and `Sounds`. per_item: fields with one entry for each image or clip, the data first."""

    per_item: ClassVar[tuple[str, ...]]
    unit: ClassVar[str]  # name of its items in captions

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, indices: Tensor | np.ndarray | Sequence[int] | slice) -> Self:
        """Return the items at `indices` (or of a boolean mask), with a checksum of their own."""
        chosen = np.arange(len(self))[indices.cpu().numpy() if isinstance(indices, Tensor) else indices]
        parts = {name: _take(getattr(self, name), chosen) for name in self.per_item}
        digest = cache.checksum(parts[self.per_item[0]].cpu().numpy(), parts["labels"].cpu().numpy())
        return replace(self, **parts, checksum=digest)

    def to(self, device: torch.device | str) -> Self:
        parts = {name: getattr(self, name) for name in self.per_item}
        return replace(self, **{name: part.to(device) for name, part in parts.items() if isinstance(part, Tensor)})


def _take(values: Tensor | tuple | None, chosen: np.ndarray) -> Tensor | tuple | None:
    if isinstance(values, Tensor):
        return values[torch.tensor(chosen, device=values.device)]
    return values and tuple(values[index] for index in chosen)


def check(dataset: str, split: str, count: int | None, *, known: Sequence[str], splits: Sequence[str]) -> None:
    """Raise DataError for arguments that no data set can satisfy."""
    if dataset not in known and not dataset.startswith("folder:"):
        raise DataError(
            f"There is no data set {dataset!r} of this kind. Expected one of {', '.join(known)} or folder:<path>."
        )
    if split not in splits:
        raise DataError(f"There is no split {split!r}. Expected one of {', '.join(map(repr, splits))}.")
    if count is not None and count < 1:
        raise DataError(f"count={count} is not possible. Expected 1 or more, or None for all.")


def locate(dataset: str) -> Source | None:
    """Like `catalog.locate`, but raise DataError for a folder that does not exist."""
    source = catalog.locate(dataset)
    if source is None and dataset.startswith("folder:"):
        path = catalog.folder_path(dataset)
        fault = "is a file; if it is an archive, unpack it" if path.is_file() else "does not exist"
        raise DataError(
            f"{dataset!r} names no folder: {path} {fault}. A relative path starts at "
            f"the data root ({catalog.data_root()}, environment variable DATA_ROOT) or at the repository."
        )
    return source


def balanced(labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Return indices (count,) in ascending order: a seeded choice with classes as balanced as possible.

    A class that is too small contributes all it has, and the others make up for it. Choices are nested: a larger
    `count` keeps everything that a smaller one selects. DataError if there are fewer than `count`.
    """
    if count > len(labels):
        raise DataError(
            f"count={count} asks for more than the {len(labels)} there are. Lower it (for training "
            "and test clips or images, 0 in a notebook takes all)."
        )
    random = np.random.Generator(np.random.PCG64(seed))
    # Deal the images out in rounds, one per class and round, in an order drawn from the seed.
    shuffled = random.permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    sorted_labels = labels[by_class]
    turn = np.arange(len(labels)) - np.searchsorted(sorted_labels, sorted_labels)
    seat = random.permutation(int(labels.max()) + 1)[sorted_labels]
    return np.sort(by_class[np.lexsort((seat, turn))[:count]])


def in_threads(function: Callable[[int], Any], count: int) -> list:
    """Map `function` over 0 to count - 1, in as many threads as torch uses: decoders release Python's lock (GIL)."""
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        return list(pool.map(function, range(count)))


def fill(values: np.ndarray, files: Sequence[Path], read: Callable[[Path], np.ndarray]) -> None:
    """Set values[i] = read(files[i]), in threads.

    Raises:
        DataError: for the first unreadable file; it also names the next ones, as decoding a large folder takes minutes.
    """

    def one(index: int) -> DataError | None:
        try:
            values[index] = read(files[index])
        except DataError as error:
            return error

    failed = [(file, error) for file, error in zip(files, in_threads(one, len(files)), strict=True) if error]
    if failed:
        others = ", ".join(catalog.readable(str(file)) for file, _ in failed[1:6])
        more = f" {len(failed)} files cannot be used; the next are {others}." if others else ""
        raise DataError(f"{failed[0][1]}{more}") from failed[0][1]


def unpack(archive: Path, content: str, where: str, md5: str = "") -> Path:
    """Unpack `archive` into `build/cache` once, as the data root may be read-only, and return the folder.

    content: a file or folder that it must contain (else DataError). where: its source, for messages. md5: the official
    checksum, verified if given.
    """
    state = archive.stat()
    identity = f"{archive}\0{state.st_size}\0{state.st_mtime_ns}"
    target = paths.build() / "cache" / "unpacked" / hashlib.sha256(identity.encode()).hexdigest()[:16]
    if target.is_dir():
        return target
    try:
        with archive.open("rb") as file:
            if md5 and hashlib.file_digest(file, "md5").hexdigest() != md5:
                raise ValueError(f"its MD5 sum is not the official one, {md5}")
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".part-", dir=target.parent) as part:
            unpacked = Path(part) / "unpacked"
            # Keeps tar members within the folder; Python 3.11 before .4 lacks the filter, but the checksum is verified.
            filtered = archive.suffix != ".zip" and hasattr(tarfile, "data_filter")
            shutil.unpack_archive(archive, unpacked, **({"filter": "data"} if filtered else {}))
            if not (unpacked / content).exists():
                raise ValueError(f"it does not hold {content}")
            move(unpacked, target)
    except Exception as error:  # readers of archives may raise anything
        raise DataError(
            f"The archive {archive} ({state.st_size:,} bytes) could not be unpacked into {target.parent} ({error}). If "
            f"the disk is full, free some space or set OUTPUT_ROOT; if the archive is truncated or damaged, get it "
            f"again: {where}."
        ) from error
    return target


def move(folder: Path, target: Path) -> None:
    try:
        os.rename(folder, target)
    except OSError:
        if not target.is_dir():  # otherwise another process was first, and its copy is as good
            raise
