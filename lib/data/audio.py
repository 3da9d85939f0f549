"""Sounds of any data set as one int16 tensor with labels, the sibling of `images`.

    everything = load_sounds("esc50", "all", seconds=5.0)
    own = load_sounds("folder:~/kitchen", "train")

Where a set is looked for is written in `catalog`; what can be decoded, in `decoding`.
"""

import hashlib
import os
import re
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from lib.data import cache, catalog, folders
from lib.data.catalog import DataError, File, Source
from lib.data.decoding import RATE, Unreadable, decode, versions
from lib.data.images import balanced

__all__ = ["RATE", "DataError", "Sounds", "load_sounds"]

FOLDS = 5  # where a data set has none of its own
LONGEST = 600.0  # seconds of a clip; more is a slip
_FORMAT = "1"  # of the cache; raise it when decoding changes
_OWN_FOLD = re.compile(r"([1-9])-\d+-[A-Z]")  # ESC-50's names: fold-source-take

_LIBSNDFILE = {
    ".wav",
    ".flac",
    ".ogg",
    ".oga",
    ".opus",
    ".mp3",
    ".aif",
    ".aiff",
    ".aifc",
    ".au",
    ".caf",
    ".w64",
    ".rf64",
}
_FFMPEG = {".m4a", ".aac", ".mp4", ".m4v", ".mov", ".webm", ".mkv", ".mka", ".wma", ".amr", ".3gp", ".ac3"}
SOUNDS = folders.Kind(
    "sound",
    frozenset(_LIBSNDFILE | _FFMPEG),
    "sounds (.wav, .flac, .ogg, .mp3, .m4a, ...)",
)
ESC50_WHERE = (
    "ESC-50-master.zip from github.com/karolpiczak/ESC-50 (600 MB, licence CC BY-NC 3.0), the folder ESC-50-master/ "
    "unpacked from it, or an audio folder esc50/<class>/<fold>-<source>-<take>.<ogg, wav, ...>"
)


@dataclass(frozen=True)
class Sounds:
    """Clips of one split, in memory, 16 kHz mono.

    Attributes:
        samples: (N, n) int16.
        labels: (N,) int64, an index into `classes`.
        classes: names.
        folds: (N,) int64 for cross-validation: clips that belong together share one.
        names: of the files, relative to their folder.
        name: of the data set, for captions; it says which copy was read.
        checksum: sha256 of the samples and labels as loaded.
        split: "train", "test" or "all".
    """

    samples: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    folds: Tensor
    names: tuple[str, ...]
    name: str
    checksum: str
    split: str

    def __len__(self) -> int:
        return len(self.samples)

    def subset(self, indices: Tensor | np.ndarray | Sequence[int] | slice) -> "Sounds":
        """The clips at `indices` (or of a boolean mask), with a checksum of their own."""
        places = torch.arange(len(self))[indices if isinstance(indices, slice) else torch.as_tensor(indices)]
        samples, labels = self.samples[places], self.labels[places]
        names = tuple(self.names[place] for place in places.tolist())
        return replace(self, samples=samples, labels=labels, folds=self.folds[places], names=names,
                       checksum=_checksum(samples.numpy(), labels.numpy()))  # fmt: skip


def load_sounds(
    dataset: str,
    split: Literal["train", "test", "all"],
    *,
    seconds: float = 4.0,
    count: int | None = None,
    seed: int = 0,
    root: str = "",
) -> Sounds:
    """Load one split of a data set.

    Args:
        dataset: "esc50" or "folder:<path>".
        split: "train", "test" or "all". ESC-50 has folds and no test set: its last fold is taken for one.
        seconds: of a clip. Longer recordings are cut after it, shorter ones followed by digital silence.
        count: load only so many clips, the classes as equal in number as they allow. A smaller subset of the
            same seed lies within a larger one.
        seed: of the subset. It never moves a clip between the splits.
        root: data root, see `catalog.data_root`.

    Raises:
        DataError: the data is missing, damaged, not as expected, or the arguments ask for what it cannot
            give. The message says what to do.
    """
    _check(dataset, split, seconds, count, seed)
    source = _find(dataset, root)
    listing, name = _esc50(source, split) if dataset == "esc50" else _folder(source, split)
    chosen = np.arange(len(listing.labels)) if count is None else balanced(listing.labels, count, seed)
    files, labels = [listing.files[index] for index in chosen], listing.labels[chosen]
    n = round(seconds * RATE)
    state = [f"{_FORMAT} {versions()} {n} {listing.folder}"]
    state += [f"{file.name}\0{file.size} {file.modified}" for file in files]
    key = hashlib.sha256("\n".join(state).encode("utf-8", "surrogateescape")).hexdigest()[:32]
    pixels, digest = cache.cached(key, labels, lambda: _decode(listing.folder, files, n).view(np.uint8), "sounds")
    folds = torch.tensor([_fold(file.name) for file in files])
    samples = torch.from_numpy(pixels.view(np.int16))
    return Sounds(samples, torch.from_numpy(labels), listing.classes, folds, tuple(file.name for file in files), name,
                  digest, split)  # fmt: skip


def _check(dataset: str, split: str, seconds: float, count: int | None, seed: int) -> None:
    if dataset != "esc50" and not dataset.startswith("folder:"):
        near = catalog.nearest(dataset, catalog.SOUND_SETS)
        raise DataError(f"There is no data set of sounds {dataset!r}. Expected one of "
                        f"{', '.join(catalog.SOUND_SETS)} or folder:<path>; did you mean {near!r}?")  # fmt: skip
    if dataset.removeprefix("folder:").strip() == "":
        raise DataError("The data set 'folder:' lacks its path. Write folder:<path>, as in folder:kitchen.")
    if split not in ("train", "test", "all"):
        raise DataError(f"There is no split {split!r}. Expected 'train', 'test' or 'all'.")
    if not 0.1 <= seconds <= LONGEST:
        raise DataError(f"seconds={seconds} is not possible. Expected 0.1 to {LONGEST:.0f}.")
    if count is not None and count < 1:
        raise DataError(f"count={count} is not possible. Expected 1 or more clips, or None for all.")
    if seed < 0:
        raise DataError(f"seed={seed} is not possible. Expected 0 or more.")


def _find(dataset: str, root: str) -> Source:
    source = catalog.locate(dataset, root)
    if source is not None:
        return source
    base = catalog.data_root(root)
    if dataset == "esc50":
        raise DataError(f"ESC-50 was not found below {base}. Put there {ESC50_WHERE}; or set the environment variable "
                        f"DATA_ROOT to the folder that holds it.")  # fmt: skip
    raise DataError(f"The folder {catalog.folder_path(dataset, root)} does not exist. Expected a folder of sounds; a "
                    f"relative path starts at the data root ({base}, environment variable DATA_ROOT) or at the "
                    f"repository.")  # fmt: skip


def _folder(source: Source, split: str) -> tuple[folders.Listing, str]:
    return folders.list_folder(source.path, split, SOUNDS), f"folder {source.path.name}"


def _esc50(source: Source, split: str) -> tuple[folders.Listing, str]:
    if source.kind == "folder":
        listing = folders.list_folder(source.path, "all", SOUNDS)
        lossy = any(file.name.lower().endswith((".ogg", ".opus", ".mp3", ".m4a")) for file in listing.files)
        name = "ESC-50 (lossy copy" if lossy else "ESC-50 (audio folder"
    else:
        from lib.data.official import list_esc50  # here: torchvision takes a second to import

        folder, names, found = list_esc50(source)
        classes = sorted(set(found))
        state = [(folder / file).stat() for file in names]
        files = tuple(File(file, at.st_size, at.st_mtime_ns) for file, at in zip(names, state, strict=True))
        listing = folders.Listing(
            folder, files, np.array([classes.index(one) for one in found], np.int64), tuple(classes)
        )
        name = "ESC-50"
    folds = np.array([_fold(file.name) for file in listing.files])
    if any(not _OWN_FOLD.match(os.path.basename(file.name)) for file in listing.files):
        raise DataError(f"Some sounds of {listing.folder} do not bear ESC-50's names, fold-source-take. Expected "
                        f"{ESC50_WHERE}. Other sounds are read as folder:<path>.")  # fmt: skip
    present = np.unique(folds) + 1
    if len(present) < FOLDS:
        name += f"{', ' if '(' in name else ' ('}folds {' '.join(map(str, present))}"
    name += ")" if "(" in name else ""
    kept = np.ones(len(folds), bool) if split == "all" else (folds == folds.max()) == (split == "test")
    files = tuple(file for file, keep in zip(listing.files, kept, strict=True) if keep)
    return replace(listing, files=files, labels=listing.labels[kept]), name


def _fold(name: str) -> int:
    """ESC-50's own fold where the name bears it, else one of `FOLDS` by a hash of the name: 0, 1, ..."""
    own = _OWN_FOLD.match(os.path.basename(name))
    if own:
        return int(own[1]) - 1
    return int.from_bytes(hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()[:4], "big") % FOLDS


def _decode(folder: Path, files: Sequence[File], n: int) -> np.ndarray:
    """(N, n) int16; every file is tried, so that one message tells of all that are bad."""
    try:
        samples = np.zeros((len(files), n), np.int16)
    except MemoryError as error:
        raise DataError(f"{len(files)} clips of {n / RATE:g} s need {len(files) * n * 2 / 1e9:.1f} GB of memory, more "
                        f"than there is. Lower count= or seconds=.") from error  # fmt: skip

    def one(index: int) -> Unreadable | None:
        try:
            wave = decode(folder / files[index].name, seconds=n / RATE)
        except Unreadable as error:
            return error
        samples[index, : len(wave)] = wave
        return None

    # libsndfile and soxr release the interpreter lock.
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        rejected = [error for error in pool.map(one, range(len(files))) if error is not None]
    if rejected:
        counts = Counter(error.reason for error in rejected)
        told = ", ".join(f"{count} {reason}" for reason, count in sorted(counts.items()))
        first = {error.reason: error for error in reversed(rejected)}
        raise DataError(f"{len(rejected)} of {len(files)} sounds cannot be used ({told}). The first of each kind: "
                        + " ".join(str(first[reason]) for reason in sorted(first)))  # fmt: skip
    return samples


def _checksum(samples: np.ndarray, labels: np.ndarray) -> str:
    return cache.checksum(np.ascontiguousarray(samples).view(np.uint8), labels)
