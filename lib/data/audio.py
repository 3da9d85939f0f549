"""Load the sounds of any data set as one int16 tensor with labels, 16 kHz mono.

    train = load_sounds("esc50", "train")
    every = load_sounds("esc50", "all", seconds=5)  # for cross-validation over `folds`
    own = load_sounds("folder:~/birds", "test", seconds=2.5)

`catalog` lists where data sets are searched for, `decoding` which formats are read.
"""

import re
import warnings
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import soundfile
import torch
from torch import Tensor

from lib.data import cache, catalog, common, decoding, folders
from lib.data.catalog import DataError, Source
from lib.data.decoding import RATE
from lib.data.folders import Listing

__all__ = ["DataError", "Sounds", "load_sounds"]

FOLDS = 5  # for folders; ESC-50 has its own
LONGEST = 600.0  # seconds; anything longer is taken for a mistake
_FORMAT = "3"  # of the cache; raise it when decoding changes
_EXTENSIONS = """
    .wav .wave .flac .ogg .oga .opus .mp3 .aif .aiff .aifc .au .snd .caf .w64 .rf64
    .m4a .m4b .aac .mp4 .mov .3gp .webm .mkv .mka .wma .amr .ac3
"""
SOUNDS = folders.Kind("sound", frozenset(_EXTENSIONS.split()), "(.wav, .flac, .ogg, .mp3, .m4a, ...)")

_WHERE_ESC50 = (
    f"{catalog.ESC50}.zip from https://github.com/karolpiczak/ESC-50 (Code, Download ZIP; 600 MB, licence CC BY-NC "
    f"3.0: not for commercial use), or the folder {catalog.ESC50}/ unpacked from it, or an audio folder "
    f"esc50/<class>/<fold>-<source>-<take>.ogg"
)


@dataclass(frozen=True)
class Sounds(common.Labelled):
    """Clips of one split, held in memory.

    Attributes:
        samples: (N, n) int16, 16 kHz mono.
        labels: (N,) int64, an index into `classes`.
        classes: class names.
        folds: (N,) int64, 0 or more; clips that belong together share a fold.
        names: file names, relative to the folder.
        name: name of the data set for captions, including which copy was read.
        checksum: sha256 of the samples and labels as loaded.
        split: "train", "test" or "all".
        rejected: reason -> number of files of the data set left out for that reason.
        spans: per clip, (onset, offset) in seconds of all sounds of its class; None if unknown.
        texts: transcript of each clip, "" if nothing is said; None if there are no transcripts.
    """

    samples: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    folds: Tensor
    names: tuple[str, ...]
    name: str
    checksum: str
    split: str
    rejected: dict[str, int] = field(default_factory=dict)
    spans: tuple[tuple[tuple[float, float], ...], ...] | None = None
    texts: tuple[str, ...] | None = None
    unit = "clips"
    per_item = ("samples", "labels", "folds", "names", "spans", "texts")


def load_sounds(
    dataset: str,
    split: Literal["train", "test", "all"],
    *,
    seconds: float = 4.0,
    count: int | None = None,
    seed: int = 0,
) -> Sounds:
    """Load one split of a data set, or all of it.

    Args:
        dataset: "esc50" or "folder:<path>".
        split: "train", "test" or "all". ESC-50 is made for cross-validation over its folds; its "test" is
            the last fold available. Folders are split like image folders, see `folders.list_folder`.
        seconds: length of a clip, 0.1 to 600. Longer files are truncated, shorter ones are padded with digital
            silence, as ESC-50 itself does with recordings shorter than 5 s.
        count: number of clips to load, with classes as balanced as possible. With the same seed, a smaller
            subset is contained in a larger one.
        seed: seed of the subset. It never moves a clip between splits or folds.

    ESC-50 has its official folds, numbered from 0. A folder has 5 folds, assigned by a hash of the file name, so
    a fold of a small set may be empty.

    Raises:
        DataError: the data is missing, damaged or not as expected, or cannot satisfy the arguments. The
            message says what to do.
    """
    common.check(dataset, split, count, known=catalog.AUDIO_SETS, splits=("train", "test", "all"))
    if not decoding.SHORTEST <= seconds <= LONGEST:
        raise DataError(f"seconds={seconds} is not possible. Expected {decoding.SHORTEST} to {LONGEST:g}.")
    source = common.locate(dataset)
    if source is None:
        raise DataError(
            f"{dataset} was not found below {catalog.data_root()}. Put there {_WHERE_ESC50}; or set the "
            f"environment variable DATA_ROOT to the folder that holds it."
        )
    listing, name = _esc50(source, split) if dataset == "esc50" else _folder(source, split)
    if count is not None:
        listing = listing.take(common.balanced(listing.labels, count, seed))
    length = round(seconds * RATE)
    key = f"sounds {_FORMAT} {decoding.versions()} {length} {listing.state()}"
    samples, digest = cache.cached(key, listing.labels, lambda: _decode(listing, length), "sounds")
    samples, labels, folds = map(torch.from_numpy, (samples, listing.labels, listing.folds))
    names = tuple(file.name for file in listing.files)
    return Sounds(samples, labels, listing.classes, folds, names, name, digest, split)


# --- The sets -----------------------------------------------------------------------------------


def _folder(source: Source, split: str) -> tuple[Listing, str]:
    listing = folders.list_folder(source.path, split, SOUNDS)
    folds = [int.from_bytes(folders.name_hash(f"fold {file.name}")[:8], "big") % FOLDS for file in listing.files]
    return replace(listing, folds=np.array(folds, np.int64)), f"folder {catalog.readable(source.path.name)}"


def _esc50(source: Source, split: str) -> tuple[Listing, str]:
    """Return the clips and the name for captions; in every form of the set, classes are in alphabetical order."""
    copy = []
    if source.kind == "folder":
        listing = folders.list_folder(source.path, "all", SOUNDS)
        listing = replace(listing, folds=np.array([_fold(path) for path in listing.paths()], np.int64))
        if set(listing.classes) <= {"audio", "sound"}:  # the official folder of all clips, or no class folder
            raise DataError(
                f"{source.path} holds the clips of ESC-50 without their classes. Put its whole repository there, with "
                "meta/esc50.csv beside audio/, or make one folder per class."
            )
        copy = [_copy(listing.paths()[0])]
    else:
        listing = _official(source)
    there = np.unique(listing.folds) + 1
    if len(there) < 5:
        consecutive = len(there) > 1 and there[-1] - there[0] == len(there) - 1
        which = f"{there[0]}-{there[-1]}" if consecutive else ", ".join(map(str, there))
        copy.append(f"{'fold' if len(there) == 1 else 'folds'} {which}")
    name = f"ESC-50 ({', '.join(copy)})" if copy else "ESC-50"
    if split == "all":
        return listing, name
    if len(there) == 1:
        raise DataError(
            f"{source.path} holds fold {there[0]} of ESC-50 alone: too few to split it into train and test. "
            f"Add the other folds or load split='all'."
        )
    return listing.take(np.flatnonzero((listing.folds == there[-1] - 1) == (split == "test"))), name


def _fold(path: Path) -> int:
    match = re.match(r"([1-5])-\d+-[A-Z]", path.name)
    if not match:
        raise DataError(
            f"The name of {path} is not that of an ESC-50 clip. Expected <fold>-<source>-<take>, as in "
            f"1-100032-A.ogg; for recordings of your own use folder:<path>."
        )
    return int(match[1]) - 1


def _copy(path: Path) -> str:
    """Return the kind of copy for a caption, judged by one of its files."""
    try:
        with path.open("rb") as content:
            found = soundfile.info(content)
    except (soundfile.LibsndfileError, OSError):
        return "copy"
    return f"{found.samplerate / 1000:g} kHz {found.subtype_info} copy"


def _official(source: Source) -> Listing:
    """Return the clips in the list of ESC-50's repository; its archive from GitHub is unpacked."""
    folder = source.path
    if source.kind == "archive":
        folder = common.unpack(source.path, f"{catalog.ESC50}/{catalog.ESC50_LIST}", _WHERE_ESC50) / catalog.ESC50
    try:
        files = {file.name: file for file in catalog.scan(folder)}
        rows = pd.read_csv(folder / catalog.ESC50_LIST, dtype={"category": str})
        names = [f"audio/{name}" for name in rows["filename"]]
        folds = rows["fold"].to_numpy(np.int64) - 1
        labels, classes = pd.factorize(rows["category"], sort=True)
        if not rows["fold"].isin(range(1, FOLDS + 1)).all() or (labels < 0).any() or len(set(names)) < len(names):
            raise ValueError("a fold is not 1 to 5, a category is missing, or a file is named twice")
    except (OSError, KeyError, ValueError) as error:
        raise DataError(
            f"{catalog.ESC50_LIST} of {source.path} is not ESC-50's list of clips, or cannot be read ({error!r}). "
            f"Put the official one in its place: {_WHERE_ESC50}."
        ) from error
    missing = [name for name in names if name not in files]
    if missing or not names:
        raise DataError(
            f"{len(missing)} of the {len(names)} clips that {catalog.ESC50_LIST} names are missing in {source.path}"
            f"{', the first is ' + missing[0] if missing else ''}. Get it again: {_WHERE_ESC50}."
        )
    return Listing(folder, tuple(files[name] for name in names), labels.astype(np.int64), tuple(classes), folds)


# --- Decoding -----------------------------------------------------------------------------------


def _decode(listing: Listing, length: int) -> np.ndarray:
    """Decode to (N, length) int16. Longer files cause a warning only here, so not if the clips are cached."""
    longer = []

    def read(path: Path) -> np.ndarray:
        clip = decoding.decode(path, seconds=length / RATE + 0.5)
        if len(clip) > length + RATE // 4:
            longer.append(path)
        return np.pad(clip[:length], (0, max(length - len(clip), 0)))

    samples = np.zeros((len(listing.files), length), np.int16)
    common.fill(samples, listing.paths(), read)
    if longer:
        warnings.warn(f"{len(longer)} of the {len(samples)} sounds of {listing.place} are longer than "
                      f"{length / RATE:g} s, of which the beginning is used: raise seconds=, or cut them.")  # fmt: skip
    return samples
