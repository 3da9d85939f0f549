"""Sounds of any data set as one int16 tensor with labels, 16 kHz mono.

    train = load_sounds("esc50", "train")
    every = load_sounds("esc50", "all", seconds=5)  # for cross-validation over `folds`
    own = load_sounds("folder:~/birds", "test", seconds=2.5)

Where a set is looked for is written in `catalog`, which formats are read in `decoding`.
"""

import csv
import hashlib
import io
import os
import re
import zipfile
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
import soundfile
import torch
from torch import Tensor

from lib.data import cache, catalog, decoding, folders
from lib.data.catalog import DataError, File, Source
from lib.data.decoding import RATE, Unreadable
from lib.data.images import balanced

__all__ = ["DataError", "Sounds", "load_sounds"]

FOLDS = 5  # of a folder; ESC-50 has its own
LONGEST = 600.0  # seconds; a longer clip is a slip
_FORMAT = "1"  # of the cache; raise it when decoding changes
_EXTENSIONS = """
    .wav .wave .flac .ogg .oga .opus .mp3 .aif .aiff .aifc .au .snd .caf .w64 .rf64
    .m4a .m4b .aac .mp4 .mov .3gp .webm .mkv .mka .wma .amr .ac3
"""
SOUNDS = folders.Kind("sound", lambda: set(_EXTENSIONS.split()), "(.wav, .flac, .ogg, .mp3, .m4a, ...)")

_WHERE_ESC50 = (
    f"{catalog.ESC50}.zip from https://github.com/karolpiczak/ESC-50 (Code, Download ZIP; 600 MB, licence CC BY-NC "
    f"3.0: not for commercial use), or the folder {catalog.ESC50}/ unpacked from it, or an audio folder "
    f"esc50/<class>/<fold>-<source>-<take>.ogg"
)


@dataclass(frozen=True)
class Sounds:
    """Clips of one split, in memory.

    Attributes:
        samples: (N, n) int16, 16 kHz mono.
        labels: (N,) int64, an index into `classes`.
        classes: names.
        folds: (N,) int64, 0 or more: clips that belong together share one.
        names: of the files, relative to the folder.
        name: of the data set, for captions; it says which copy was read.
        checksum: sha256 of the samples and labels as loaded.
        split: "train", "test" or "all".
        rejected: reason -> number of the data set's files that were left out for it.
        spans: per clip, (onset, offset) in seconds of all that is heard of its class; None where nobody noted them.
        texts: what is said in each clip, "" for nothing; None where nobody noted it.
        corpora: where each clip comes from or what it was recorded with; None where there is but one kind.
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
    corpora: tuple[str, ...] | None = None
    unit = "clips"  # what one of it is called in captions

    def __len__(self) -> int:
        return len(self.samples)

    def subset(self, indices: Tensor | np.ndarray | Sequence[int] | slice) -> "Sounds":
        """The clips at `indices` (or of a boolean mask), with a checksum of their own."""
        if not isinstance(indices, slice):
            indices = torch.as_tensor(indices).cpu()
            if not len(indices):
                indices = indices.long()
        chosen = torch.arange(len(self))[indices]
        names, spans, texts, corpora = (
            some and tuple(some[index] for index in chosen.tolist())
            for some in (self.names, self.spans, self.texts, self.corpora)
        )
        chosen = chosen.to(self.samples.device)
        samples, labels = self.samples[chosen], self.labels[chosen]
        digest = cache.checksum(_bytes(samples.cpu().numpy()), labels.cpu().numpy())
        return replace(self, samples=samples, labels=labels, folds=self.folds[chosen], names=names, checksum=digest,
                       spans=spans, texts=texts, corpora=corpora)  # fmt: skip

    def to(self, device: torch.device | str) -> "Sounds":
        return replace(
            self, samples=self.samples.to(device), labels=self.labels.to(device), folds=self.folds.to(device)
        )


def load_sounds(
    dataset: str,
    split: Literal["train", "test", "all"],
    *,
    seconds: float = 4.0,
    count: int | None = None,
    seed: int = 0,
    root: str = "",
) -> Sounds:
    """Load one split of a data set, or all of it.

    Args:
        dataset: "esc50" or "folder:<path>".
        split: "train", "test" or "all". ESC-50 is made for cross-validation over its folds; its "test" is
            the last fold that is there. Folders are split as image folders are, see `folders.list_folder`.
        seconds: length of a clip, 0.1 to 600. Of longer files the beginning is taken, shorter ones are
            followed by digital silence, as ESC-50 itself does with what is shorter than 5 s.
        count: load only so many clips, the classes as equal in number as they allow. A smaller
            subset of the same seed lies within a larger one.
        seed: of the subset. It never moves a clip between the splits or folds.
        root: data root, see `catalog.data_root`.

    ESC-50's folds are the official ones less 1. A folder's are 5 by a hash of the file's name, which leaves
    a fold of a small set empty now and then.

    Raises:
        DataError: the data is missing, damaged, not as expected, or the arguments ask for what it
            cannot give. The message says what to do. Files that cannot be read are all named by kind at once.
    """
    _check(dataset, split, seconds, count, seed)
    source = _find(dataset, root)
    clips = _esc50(source, split) if dataset == "esc50" else _folder(source, split)
    if count is not None:
        if count > len(clips.labels):
            raise DataError(f"count={count} asks for more clips than the {len(clips.labels)} there are. Lower it.")
        clips = clips.take(balanced(clips.labels, count, seed))
    return _decoded(clips, split, round(seconds * RATE))


def _check(dataset: str, split: str, seconds: float, count: int | None, seed: int) -> None:
    if dataset != "esc50" and not dataset.startswith("folder:"):
        raise DataError(
            f"There is no audio data set {dataset!r}. Expected one of {', '.join(catalog.AUDIO_SETS)} or "
            f"folder:<path>; did you mean {catalog.nearest(dataset, catalog.AUDIO_SETS)!r}?"
        )
    if dataset.removeprefix("folder:").strip() == "":
        raise DataError("The data set 'folder:' lacks its path. Write folder:<path>, as in folder:birds.")
    if split not in ("train", "test", "all"):
        raise DataError(f"There is no split {split!r}. Expected 'train', 'test' or 'all'.")
    if not decoding.SHORTEST <= seconds <= LONGEST:
        raise DataError(f"seconds={seconds} is not possible. Expected {decoding.SHORTEST} to {LONGEST:g}.")
    if count is not None and count < 1:
        raise DataError(f"count={count} is not possible. Expected 1 or more clips, or None for all.")
    if seed < 0:
        raise DataError(f"seed={seed} is not possible. Expected 0 or more.")


def _find(dataset: str, root: str) -> Source:
    source = catalog.locate(dataset, root)
    if source is None and dataset.startswith("folder:"):
        raise DataError(
            f"The folder {catalog.folder_path(dataset, root)} does not exist. Expected a folder of recordings; a "
            f"relative path starts at the data root ({catalog.data_root(root)}, environment variable "
            f"DATA_ROOT) or at the repository."
        )
    if source is None:
        raise DataError(
            f"{dataset} was not found below {catalog.data_root(root)}. Put there {_WHERE_ESC50}; or set the "
            f"environment variable DATA_ROOT to the folder that holds it."
        )
    return source


# --- The sets -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Clips:
    """What is to be decoded. `read` decodes one of `files` up to some seconds; `place` is where they lie."""

    place: str
    files: tuple[File, ...]
    labels: np.ndarray  # (N,) int64
    folds: np.ndarray  # (N,) int64
    classes: tuple[str, ...]
    name: str
    read: Callable[[str, float], np.ndarray]

    def take(self, chosen: np.ndarray) -> "_Clips":
        files = tuple(self.files[index] for index in chosen)
        return replace(self, files=files, labels=self.labels[chosen], folds=self.folds[chosen])


def _folder(source: Source, split: str) -> _Clips:
    listing = folders.list_folder(source.path, split, SOUNDS)
    folds = [int.from_bytes(folders.name_hash(f"fold {file.name}")[:8], "big") % FOLDS for file in listing.files]
    return _of_listing(listing, np.array(folds, np.int64), f"folder {catalog.readable(source.path.name)}")


def _of_listing(listing: folders.Listing, folds: np.ndarray, name: str) -> _Clips:
    def read(file: str, seconds: float) -> np.ndarray:
        return decoding.decode(listing.folder / file, seconds=seconds)

    return _Clips(os.fspath(listing.folder), listing.files, listing.labels, folds, listing.classes, name, read)


def _esc50(source: Source, split: str) -> _Clips:
    """Classes in alphabetical order, whichever form of the set is there."""
    if source.kind == "folder":
        listing = folders.list_folder(source.path, "all", SOUNDS)
        folds = np.array([_fold(source, file.name) for file in listing.files], np.int64)
        name = _caption(_copy(source.path / listing.files[0].name), _folds_there(folds))
        clips = _of_listing(listing, folds, name)
    else:
        clips = _official_esc50(source)
    if split == "all":
        return clips
    last = clips.folds == clips.folds.max()
    if last.all():
        raise DataError(
            f"{source.path} holds fold {clips.folds[0] + 1} of ESC-50 alone: too few to split it into train and test. "
            f"Add the other folds or load split='all'."
        )
    return clips.take(np.flatnonzero(last if split == "test" else ~last))


def _fold(source: Source, name: str) -> int:
    match = re.match(r"([1-5])-\d+-[A-Z]", name.rpartition("/")[2])
    if not match:
        raise DataError(
            f"The name of {source.path / name} is not that of an ESC-50 clip. Expected "
            f"<fold>-<source>-<take>, as in 1-100032-A.ogg; for recordings of your own use folder:<path>."
        )
    return int(match[1]) - 1


def _folds_there(folds: np.ndarray) -> str:
    """For a caption: nothing if all are."""
    there = np.unique(folds) + 1
    if len(there) == 5:
        return ""
    if len(there) > 1 and there[-1] - there[0] == len(there) - 1:
        return f"folds {there[0]}-{there[-1]}"
    return ("fold " if len(there) == 1 else "folds ") + ", ".join(map(str, there))


def _copy(file: Path) -> str:
    """For a caption: what kind of a copy it is, by one of its files."""
    try:
        with file.open("rb") as content:
            found = soundfile.info(content)
    except (soundfile.LibsndfileError, OSError):
        return "copy"
    return f"{found.samplerate / 1000:g} kHz {found.subtype_info} copy"


def _caption(*words: str) -> str:
    inner = ", ".join(filter(None, words))
    return f"ESC-50 ({inner})" if inner else "ESC-50"


def _official_esc50(source: Source) -> _Clips:
    """The repository as GitHub gives it, unpacked or packed; a packed one stays packed."""
    rows, files, read = (_packed if source.kind == "archive" else _unpacked)(source)
    try:
        names = [f"audio/{row['filename']}" for row in rows]
        folds = np.array([int(row["fold"]) - 1 for row in rows], np.int64)
        categories = [row["category"] for row in rows]
    except (KeyError, ValueError) as error:
        raise DataError(
            f"{catalog.ESC50_LIST} of {source.path} is not ESC-50's list of clips ({error!r}). "
            f"Put the official one in its place: {_WHERE_ESC50}."
        ) from error
    missing = [name for name in names if name not in files]
    if missing or not names:
        first = f", the first is {missing[0]}" if missing else ""
        raise DataError(
            f"{len(missing)} of the {len(names)} clips that {catalog.ESC50_LIST} names are missing in {source.path}"
            f"{first}. Get it again: {_WHERE_ESC50}."
        )
    classes = sorted(set(categories))
    labels = np.array([classes.index(category) for category in categories], np.int64)
    members = tuple(files[name] for name in names)
    name = _caption(_folds_there(folds))
    return _Clips(os.fspath(source.path), members, labels, folds, tuple(classes), name, read)


def _unpacked(source: Source) -> tuple[list[dict], dict[str, File], Callable]:
    def read(name: str, seconds: float) -> np.ndarray:
        return decoding.decode(source.path / name, seconds=seconds)

    try:
        rows = _rows((source.path / catalog.ESC50_LIST).read_bytes())
        return rows, {file.name: file for file in catalog.scan(source.path)}, read
    except OSError as error:
        raise DataError(f"{source.path} cannot be read ({error}). Check its permissions.") from error


def _packed(source: Source) -> tuple[list[dict], dict[str, File], Callable]:
    """Names are those within the archive, less its top folder; "modified" is the checksum."""
    top = f"{catalog.ESC50}/"

    def content(name: str) -> bytes:
        try:
            return archive.read(top + name)
        except (zipfile.BadZipFile, zlib.error, OSError, EOFError, KeyError, RuntimeError) as error:
            raise _damaged(source.path, error) from error

    def read(name: str, seconds: float) -> np.ndarray:
        return decoding.decode_stream(io.BytesIO(content(name)), f"{name} of {source.path}", seconds=seconds)

    try:
        archive = zipfile.ZipFile(source.path)  # open as long as `read` is there
    except (zipfile.BadZipFile, OSError) as error:
        raise _damaged(source.path, error) from error
    members = {info.filename.removeprefix(top): info for info in archive.infolist()}
    files = {name: File(name, info.file_size, info.CRC) for name, info in members.items()}
    return _rows(content(catalog.ESC50_LIST)), files, read


def _damaged(archive: Path, error: Exception) -> DataError:
    return DataError(
        f"The archive {archive} is truncated or damaged ({error}). Delete it and get it again: {_WHERE_ESC50}."
    )


def _rows(content: bytes) -> list[dict]:
    return list(csv.DictReader(io.StringIO(content.decode("utf-8-sig", "replace"))))


# --- Shared -------------------------------------------------------------------------------------


def _decoded(clips: _Clips, split: str, length: int) -> Sounds:
    """Decode clips of `length` samples, through the cache."""
    state = [f"sounds {_FORMAT} {decoding.versions()} {length} {clips.place}"]
    state += [f"{file.name}\0{file.size} {file.modified}" for file in clips.files]
    key = hashlib.sha256("\n".join(state).encode("utf-8", "surrogateescape"))
    content, digest = cache.cached(key.hexdigest()[:32], clips.labels, lambda: _bytes(_decode(clips, length)), "sounds")
    samples = content.view("<i2").astype(np.int16, copy=False)
    return Sounds(
        samples=torch.from_numpy(samples),
        labels=torch.from_numpy(clips.labels),
        classes=clips.classes,
        folds=torch.from_numpy(clips.folds),
        names=tuple(file.name for file in clips.files),
        name=clips.name,
        checksum=digest,
        split=split,
    )


def _bytes(samples: np.ndarray) -> np.ndarray:
    """(N, n) int16 -> (N, 2 n) uint8, little-endian: what the cache keeps and sums up."""
    return np.ascontiguousarray(samples, "<i2").view(np.uint8)


def _decode(clips: _Clips, length: int) -> np.ndarray:
    """(N, length) int16; all files are tried before any that cannot be read is complained of."""
    count = len(clips.files)
    try:
        samples = np.zeros((count, length), np.int16)
    except MemoryError as error:
        raise DataError(
            f"{count} clips of {length / RATE:g} s need {2 * count * length / 1e9:.1f} GB of memory, more than "
            f"there is. Lower seconds= or count=."
        ) from error
    rejected: dict[int, Unreadable] = {}

    def block(start: int) -> None:
        for index in range(start, min(start + 64, count)):
            try:
                clip = clips.read(clips.files[index].name, length / RATE)
                samples[index, : len(clip)] = clip
            except Unreadable as error:
                rejected[index] = error

    # The decoders release the interpreter lock for most of their work.
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        jobs = [pool.submit(block, start) for start in range(0, count, 64)]
        try:
            for job in jobs:
                job.result()
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    if rejected:
        raise _complaint(clips, rejected)
    return samples


def _complaint(clips: _Clips, rejected: dict[int, Unreadable]) -> DataError:
    """One error for all files that cannot be read: how many for which reason, and the first by name of each."""
    groups: dict[str, list[str]] = {}
    for index, error in rejected.items():
        groups.setdefault(error.reason, []).append(clips.files[index].name)
    parts = []
    for reason, names in sorted(groups.items(), key=lambda group: (-len(group[1]), group[0])):
        first = decoding.printable(min(names))
        parts.append(
            f"{len(names)} {reason} ({first})" if len(names) == 1 else f"{len(names)} {reason} (first {first})"
        )
    return DataError(
        f"{len(rejected)} of the {len(clips.files)} sounds of {clips.place} cannot be used: {', '.join(parts)}. "
        f"Remove or repair them."
    )
