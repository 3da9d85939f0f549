"""Locations and states of the data sets. Quick to import; reads no images or sounds.

A set is searched for below `data_root()`: first in its official form, then as a folder of plain files.

    cifar10        cifar-10-batches-py/ or cifar-10-python.tar.gz
                   cifar10/{train,test}/<class>/*
    celeba         celeba/img_align_celeba/ (or .zip) beside the official list_*.txt and identity_CelebA.txt
                   celeba/**/*.jpg
    esc50          ESC-50-master/ (with meta/esc50.csv and audio/) or ESC-50-master.zip
                   esc50/<class>/<fold>-<source>-<take>.ogg, or any other audio format
    aihub          aihub/{Training,Validation}/, and ordinary sounds in aihub-controls/*/
    folder:<path>  any folder; a relative path is below the data root, else below the repository
"""

import contextlib
import hashlib
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lib import paths

BUILT_IN = ("shapes", "shapes-plain", "soundscapes")  # soundscapes-recorded needs ESC-50
IMAGE_SETS = ("shapes", "shapes-plain", "cifar10", "celeba")  # and folder:<path>
AUDIO_SETS = ("soundscapes", "soundscapes-recorded", "esc50", "aihub", "aihub-strict")  # and folder:<path>

CIFAR10_BATCHES = "cifar-10-batches-py"
CIFAR10_ARCHIVE = "cifar-10-python.tar.gz"
CELEBA_IMAGES = "img_align_celeba"
CELEBA_LIST = "list_eval_partition.txt"
ESC50 = "ESC-50-master"  # as GitHub names it, unpacked or as a zip
ESC50_LIST = "meta/esc50.csv"


class DataError(Exception):
    """Missing, damaged or unexpected data; the message says what to do."""


@contextlib.contextmanager
def written_by(notebook: str, path: Path) -> Iterator[None]:
    """Guard the reading of `path`, a notebook's output: if this fails, raise a DataError that names the notebook."""
    if not path.exists():
        raise DataError(f"There is no {path}. Notebook {notebook} writes it: run it first.")
    try:
        yield
    except Exception as error:  # whichever of the readers fails, the remedy is the same
        raise DataError(f"{path} is damaged ({error}). Delete it, and run notebook {notebook} again.") from error


@dataclass(frozen=True)
class Source:
    """Where a data set was found.

    kind: "official" (an official folder), "archive" (the same, packed) or "folder" (plain image or sound files).
    path: the folder or archive.
    """

    kind: str
    path: Path


@dataclass(frozen=True)
class File:
    """One file below a scanned folder. `name` is relative to the folder, with forward slashes."""

    name: str
    size: int  # bytes
    modified: int  # nanoseconds


def data_root() -> Path:
    """Return the folder that is searched for data sets: $DATA_ROOT, else <repository>/data."""
    return _as_spelled(paths.data_root())


def locate(dataset: str) -> Source | None:
    """Find `dataset` on disk. Returns None if it is built-in, missing or unknown."""
    base = data_root()
    if dataset.startswith("folder:"):
        folder = folder_path(dataset)
        return Source("folder", folder) if folder.is_dir() and dataset != "folder:" else None  # empty: fails later
    if dataset in BUILT_IN or dataset in ("", ".", "..") or set(dataset) & set("/\\:\0"):
        return None
    for kind, path, marker in _official_forms(base, dataset):
        if (path / marker).exists():
            return Source(kind, path)
    folder = base / dataset.removesuffix("-strict")
    filled = folder.is_dir() and any(not hidden(name) for name in os.listdir(folder))
    return Source("folder", folder) if filled else None


def _official_forms(base: Path, dataset: str) -> Iterator[tuple[str, Path, str]]:
    """Yield (kind, path, what has to exist below it) for each form of an official set, in order of preference."""
    inside = base / dataset
    if dataset == "cifar10":
        for folder in (base, inside):
            yield "official", folder / CIFAR10_BATCHES, "."
            yield "archive", folder / CIFAR10_ARCHIVE, ""
    elif dataset == "celeba" and (inside / CELEBA_LIST).is_file():
        yield "official", inside, CELEBA_IMAGES
        yield "archive", inside / f"{CELEBA_IMAGES}.zip", ""
    elif dataset == "esc50":
        for folder in (base / ESC50, base / ESC50 / ESC50, base / "ESC-50", inside / ESC50, inside):  # zip, git, esc50
            yield "official", folder, ESC50_LIST
        for folder in (base, inside):
            yield "archive", folder / f"{ESC50}.zip", ""


def _spellings(folder: Path) -> list[Path]:
    """Return the path as given, and with each existing folder name in NFD (as on a Mac), NFC or CP949."""
    found = [Path(folder.anchor)]
    for name in folder.parts[1 if folder.anchor else 0 :]:
        composed = unicodedata.normalize("NFC", name)
        names = dict.fromkeys([name, composed, unicodedata.normalize("NFD", name)])
        with contextlib.suppress(UnicodeError):
            names[os.fsdecode(composed.encode("cp949"))] = None
        found = [path / each for path in found for each in names if len(names) == 1 or os.path.exists(path / each)]
    return found


def _as_spelled(folder: Path) -> Path:
    """Return the existing folder, however its name is encoded on disk; `folder` itself if there is none."""
    return next((path for path in _spellings(folder) if path.is_dir()), folder)


def folder_path(dataset: str) -> Path:
    """Return the folder that `folder:<path>` names: absolute, or below the data root, or below the repository.

    It never depends on the working directory, which differs between a notebook, papermill and a shell.
    """
    path = Path(dataset.removeprefix("folder:")).expanduser()
    below_root = _as_spelled(data_root() / path)  # an absolute path stays as it is
    return below_root if below_root.is_dir() else _as_spelled(paths.ROOT / path)


def scan(folder: Path, left_out: Counter[str] | None = None) -> list[File]:
    """Return all files below `folder`, sorted by name, except hidden files and folders.

    60,000 files take about a second. left_out: counts everything else that is skipped, by kind.
    """
    left_out = Counter() if left_out is None else left_out
    found: list[File] = []
    visited: set[tuple[int, int]] = set()  # prevents endless loops through links that lead back up
    links: list[tuple[str, str]] = []  # followed last, as their targets may be read under their own names

    def visit(path: str, prefix: str) -> None:
        state = os.stat(path)
        if (state.st_dev, state.st_ino) in visited:
            left_out["link to a folder that is read already"] += 1
            return
        visited.add((state.st_dev, state.st_ino))
        with os.scandir(path) as entries:
            for entry in entries:
                if hidden(entry.name):
                    continue
                if entry.is_dir():
                    if entry.is_symlink():
                        links.append((entry.path, f"{prefix}{entry.name}/"))
                    else:
                        visit(entry.path, f"{prefix}{entry.name}/")
                elif entry.is_file():
                    state = entry.stat()
                    found.append(File(prefix + entry.name, state.st_size, state.st_mtime_ns))
                else:
                    left_out["broken link" if entry.is_symlink() else "special file"] += 1

    visit(os.fspath(folder), "")
    for path, prefix in links:  # grows during the loop if links contain links
        visit(path, prefix)
    return sorted(found, key=lambda file: file.name)


# Files and folders left behind by synchronisation and desktop software (case is ignored).
OF_SOFTWARE = frozenset(
    ["thumbs.db", "desktop.ini", "ehthumbs.db", "icon\r", "lost+found", "@eadir", "@tmp", "#recycle", "#snapshot",
     "$recycle.bin", "system volume information", "found.000", "network trash folder", "temporary items"]
)  # fmt: skip


def readable(path: str) -> str:
    """Return a path as NFC text for display and comparison; a name that is not UTF-8 on disk is read as CP949, in
    which some tools unpack Korean archives."""
    if not path.isascii():
        path = re.sub("[\ud800-\udc7f\udd00-\udfff]", "\ufffd", path)  # lone surrogates that represent no byte
        path = "/".join(os.fsencode(name).decode("cp949", "replace") if re.search("[\ud800-\udfff]", name) else name
                        for name in path.split("/"))  # fmt: skip
    return unicodedata.normalize("NFC", path)


def hidden(name: str) -> bool:
    """Return whether a name is hidden or left behind by file managers and archivers."""
    return name.startswith((".", "__MACOSX")) or name.casefold() in OF_SOFTWARE


def signature(dataset: str) -> str:
    """Return the state of a data set as one word, for deciding which results are stale. Never raises.

    Returns:
        "built-in" for sets generated by this repository; "absent" if the set is missing, unreadable
        or unknown; else a sha256 over the sorted relative names and the sizes of its files. Moving
        or touching a data set does not change it, nor does different content of the same size.
    """
    if dataset in BUILT_IN:
        return "built-in"
    try:
        source = locate(dataset)
        if source is None:
            return "absent"
        if source.kind == "archive":
            parts = [(source.path.name, source.path.stat().st_size)]
        else:
            parts = [(file.name, file.size) for file in scan(source.path)]
    except (OSError, ValueError, RuntimeError):  # unreadable, a NUL in the name, an unknown ~user
        return "absent"
    digest = hashlib.sha256(source.kind.encode())
    for name, size in parts:
        digest.update(f"{name}\0{size}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()
