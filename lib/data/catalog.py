"""What data set lies where, and which state of it: quick to import, reads no image and no sound.

A set is looked for under `data_root()`: the official archive first, then an unpacked folder.

    cifar10        cifar-10-batches-py/ or cifar-10-python.tar.gz
                   cifar10/{train,test}/<class>/*
    celeba         celeba/img_align_celeba/ (or .zip) beside the official list_*.txt and identity_CelebA.txt
                   celeba/**/*.jpg
    esc50          ESC-50-master/ (with meta/esc50.csv and audio/) or ESC-50-master.zip
                   esc50/<class>/<fold>-<source>-<take>.ogg, or any other format of sound
    aihub          aihub/{Training,Validation}/, and the ordinary sounds in aihub-controls/*/
    folder:<path>  any folder; a relative path starts at the data root, else at the repository
"""

import contextlib
import difflib
import hashlib
import os
import unicodedata
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from lib import paths

BUILT_IN = ("shapes", "shapes-plain", "soundscapes")  # soundscapes-recorded needs ESC-50
IMAGE_SETS = ("shapes", "shapes-plain", "cifar10", "celeba")  # and folder:<path>
AUDIO_SETS = ("soundscapes", "soundscapes-recorded", "esc50", "aihub", "aihub-strict")  # and folder:<path>

CIFAR10_BATCHES = "cifar-10-batches-py"
CIFAR10_ARCHIVE = "cifar-10-python.tar.gz"
CELEBA_IMAGES = "img_align_celeba"
CELEBA_LISTS = (
    "identity_CelebA.txt",
    "list_attr_celeba.txt",
    "list_bbox_celeba.txt",
    "list_eval_partition.txt",
    "list_landmarks_align_celeba.txt",
)
ESC50 = "ESC-50-master"  # as GitHub names it, unpacked or as a zip
ESC50_LIST = "meta/esc50.csv"


class DataError(Exception):
    """Data that is missing, damaged or not as expected; the message says what to do."""


@dataclass(frozen=True)
class Source:
    """Where a data set was found.

    kind: "official" (unpacked as torchvision expects it), "archive" (official, still packed) or
        "folder" (images or sounds as plain files).
    path: the official folder, the archive or the plain folder.
    """

    kind: str
    path: Path


@dataclass(frozen=True)
class File:
    """One file below a scanned folder. `name` is relative, with forward slashes."""

    name: str
    size: int  # bytes
    modified: int  # nanoseconds


def data_root(value: str = "") -> Path:
    """Where data sets are looked for: `value`, else $DATA_ROOT, else <repository>/data."""
    return _as_spelled(Path(value).expanduser().resolve() if value else paths.data_root())


def locate(dataset: str, root: str = "") -> Source | None:
    """Find `dataset` on disk. None: built-in, not there, or an unknown name."""
    base = data_root(root)
    if dataset == "cifar10":
        return _cifar10(base)
    if dataset == "celeba":
        return _celeba(base)
    if dataset == "esc50":
        return _esc50(base)
    if dataset == "folder:":
        return None
    if dataset.startswith("folder:"):
        folder = folder_path(dataset, root)
        return Source("folder", folder) if folder.is_dir() else None  # the user's: empty is an error later
    if dataset in BUILT_IN or not _plain(dataset):
        return None
    # A set that has no official form known here is a folder of its name.
    return _plain_folder(base / dataset.removesuffix("-strict"))


def _spellings(folder: Path) -> list[Path]:
    """The path as given, and with each folder spelled as a Mac (NFD) or others (NFC) would, or in CP949: they look the
    same."""
    found = [Path(folder.anchor)]
    for name in folder.parts[1 if folder.anchor else 0 :]:
        composed = unicodedata.normalize("NFC", name)
        names = dict.fromkeys([name, composed, unicodedata.normalize("NFD", name)])
        with contextlib.suppress(UnicodeEncodeError):
            names[os.fsdecode(composed.encode("cp949"))] = None
        found = [path / each for path in found for each in names if len(names) == 1 or (path / each).exists()]
    return found


def _as_spelled(folder: Path) -> Path:
    """The folder that is there, however its name is spelled on the disk; as given where there is none."""
    return next((path for path in _spellings(folder) if path.is_dir()), folder)


def _plain_folder(folder: Path) -> Source | None:
    if not folder.is_dir():
        return None
    with os.scandir(folder) as entries:
        filled = any(not hidden(entry.name) for entry in entries)
    return Source("folder", folder) if filled else None


def _plain(name: str) -> bool:
    """A single folder name: nothing that leads out of the data root."""
    return bool(name) and name not in (".", "..") and not set(name) & set("/\\:\0")


def _cifar10(base: Path) -> Source | None:
    for folder in (base, base / "cifar10"):
        if (folder / CIFAR10_BATCHES).is_dir():
            return Source("official", folder / CIFAR10_BATCHES)
        if (folder / CIFAR10_ARCHIVE).is_file():
            return Source("archive", folder / CIFAR10_ARCHIVE)
    return _plain_folder(base / "cifar10")


def _celeba(base: Path) -> Source | None:
    folder = base / "celeba"
    if all((folder / name).is_file() for name in CELEBA_LISTS):
        if (folder / CELEBA_IMAGES).is_dir():
            return Source("official", folder)
        if (folder / f"{CELEBA_IMAGES}.zip").is_file():
            return Source("archive", folder / f"{CELEBA_IMAGES}.zip")
    return _plain_folder(folder)


def _esc50(base: Path) -> Source | None:
    for folder in (base / ESC50, base / "esc50" / ESC50, base / "esc50"):
        if (folder / ESC50_LIST).is_file():
            return Source("official", folder)
    for folder in (base, base / "esc50"):
        if (folder / f"{ESC50}.zip").is_file():
            return Source("archive", folder / f"{ESC50}.zip")
    return _plain_folder(base / "esc50")


def folder_path(dataset: str, root: str = "") -> Path:
    """The folder that `folder:<path>` names: absolute, or below the data root, or below the repository.

    Never relative to the working directory, which differs between a notebook, papermill and a shell.
    """
    path = Path(dataset.removeprefix("folder:")).expanduser()
    below_root = _as_spelled(data_root(root) / path)  # an absolute path stays itself
    return below_root if below_root.is_dir() else _as_spelled(paths.ROOT / path)


def scan(folder: Path, left_out: Counter[str] | None = None) -> list[File]:
    """All files below `folder`, sorted by name; hidden files and folders are left out.

    60,000 files take about a second. left_out: counts what else is not among them, by its kind.
    """
    left_out = Counter() if left_out is None else left_out
    found: list[File] = []
    visited: set[tuple[int, int]] = set()  # a link that leads back up must not loop
    links: list[tuple[str, str]] = []  # followed last: what a link leads to may be read by its own name

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
    for path, prefix in links:  # grows while it is read: links within links
        visit(path, prefix)
    return sorted(found, key=lambda file: file.name)


# Files and folders that synchronising and desktop software leaves among one's own (compared without case).
OF_SOFTWARE = frozenset(
    ["thumbs.db", "desktop.ini", "ehthumbs.db", "icon\r", "lost+found", "@eadir", "@tmp", "#recycle", "#snapshot",
     "$recycle.bin", "system volume information", "found.000", "network trash folder", "temporary items"]
)  # fmt: skip


def readable(path: str) -> str:
    """A path as text that can be shown and compared: NFC; a name that is not UTF-8 on disk is CP949, as some
    tools unpack Korean archives."""
    try:
        path.encode()
    except UnicodeEncodeError:
        path = "/".join(os.fsencode(name).decode("cp949", "replace") if _undecoded(name) else name
                        for name in path.split("/"))  # fmt: skip
    return unicodedata.normalize("NFC", path)


def _undecoded(name: str) -> bool:
    return any("\ud800" <= letter <= "\udfff" for letter in name)


def hidden(name: str) -> bool:
    """What file managers and archivers leave behind."""
    return name.startswith((".", "__MACOSX")) or name.casefold() in OF_SOFTWARE


def signature(dataset: str, root: str = "") -> str:
    """The state of a data set as one word, for deciding what is stale. Never raises.

    Returns:
        "built-in" for sets drawn by this repository; "absent" when nothing is found, cannot be
        read or has an unknown name; else a sha256 over the sorted relative names and the sizes of
        its files. Moving or touching a data set does not change it.
    """
    if dataset in BUILT_IN:
        return "built-in"
    try:
        source = locate(dataset, root)
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


def nearest(name: str, sets: tuple[str, ...] = IMAGE_SETS) -> str:
    """The known data set whose name is most like `name`."""
    known = {known.replace("-", ""): known for known in sets}
    plain = name.lower().replace("-", "").replace("_", "").replace(" ", "")
    if plain.startswith("folder") or Path(name).expanduser().is_dir():
        return "folder:<path>"
    close = difflib.get_close_matches(plain, known, n=1, cutoff=0.4)
    return known[close[0]] if close else "folder:<path>"
