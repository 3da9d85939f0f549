"""Folders of images or sounds: what lies in them, what belongs to which split and class; decoding of images."""

import hashlib
import math
import os
import re
import warnings
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, PngImagePlugin

from lib.data.catalog import DataError, File, hidden, readable, scan

# Pillow registers these without being able to read images from them unaided.
_NOT_IMAGES = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "PDF", "WMF"}
_SPLITS = {
    **dict.fromkeys(("train", "trains", "training", "trn", "trainval", "학습", "훈련"), "train"),
    **dict.fromkeys(("test", "tests", "testing", "tst", "시험", "평가", "테스트"), "test"),
    **dict.fromkeys(("val", "valid", "validation", "dev", "eval", "evaluation", "holdout", "검증"), "other"),
}
_DATA = r"(data|set|dataset|split|images?|img|audio|sounds?|데이터|셋|용)+$"  # said of any split
_SIXTEEN_BITS = {"I", "I;16", "I;16L", "I;16B", "I;16N"}


@dataclass(frozen=True)
class Kind:
    """What a folder is searched for.

    one: "image"; also the class of a folder without class folders.
    extensions: which files it is, by their names (lower case, with the dot).
    readable: says the same to a reader.
    """

    one: str
    extensions: Callable[[], set[str]]
    readable: str


def _image_extensions() -> set[str]:
    registered = Image.registered_extensions()
    return {end for end, kind in registered.items() if kind in Image.OPEN and kind not in _NOT_IMAGES}


IMAGES = Kind("image", _image_extensions, "that Pillow reads (.jpg, .png, .webp, .tif, ...)")


@dataclass(frozen=True)
class Listing:
    """One split of a folder, in an order that mixes the classes."""

    folder: Path
    files: tuple[File, ...]  # names relative to `folder`
    labels: np.ndarray  # (N,) int64
    classes: tuple[str, ...]


# --- Listing ------------------------------------------------------------------------------------


def list_folder(folder: Path, split: str, kind: Kind = IMAGES) -> Listing:
    """List one split of a folder, "train" or "test", or "all" of it.

    Layouts: {train,test}/<class>/*, {train,test}/*, <class>/* or plain files. Without train and
    test folders, the fifth of each class whose names have the smallest hash is the test split: it
    depends on nothing but the names, so the two splits never overlap, whatever the seed.

    The order is that of a hash of the name: any first n files are a fair mixture.

    Raises:
        DataError: nothing of its kind, an empty class, classes that differ between the splits, half a split.
    """
    try:
        groups = _groups(folder, split, kind)
    except OSError as error:
        raise DataError(f"The folder {folder} cannot be read ({error}). Check its permissions.") from error
    names = sorted(groups)
    pairs = [(name_hash(file.name), file, label) for label, name in enumerate(names) for file in groups[name]]
    pairs.sort(key=lambda pair: pair[0])
    labels = np.array([label for _, _, label in pairs], np.int64)
    return Listing(folder, tuple(file for _, file, _ in pairs), labels, tuple(names))


def _groups(folder: Path, split: str, kind: Kind) -> dict[str, list[File]]:
    """{class: its files} of one split."""
    files = _of_kind(folder, kind)
    top = _folders(folder)
    named: dict[str, list[str]] = {}
    for name, split_ in _splits(top).items():
        named.setdefault(split_, []).append(name)
    if all(len(named.get(name, [])) == 1 for name in ("train", "test")):
        parts = {name: _classes(folder, named[name][0], files, kind) for name in ("train", "test")}
        _same_classes(folder, parts["train"], parts["test"])
        if rest := sorted(set(top) - {named["train"][0], named["test"][0]}):
            warnings.warn(f"Of {folder} only train and test are read, not {_words(rest)}.", stacklevel=2)
        if split == "all":
            return {name: members + parts["test"][name] for name, members in parts["train"].items()}
        return parts[split]
    if (top and "" not in named) or len(named.keys() - {""}) > 1:
        raise DataError(
            f"{folder} holds {_words(top)} but not both train and test, once each. Expected both, or class folders "
            f"alone, which are split 80 : 20. Rename, join or add folders."
        )
    inner: dict[str, set[str]] = {}
    for above in {os.path.dirname(file.name) for file in files}:
        parts = above.split("/")
        for depth in range(1, len(parts)):
            inner.setdefault("/".join(parts[:depth]), set()).add(parts[depth])
    found = {parent: set(_splits(sorted(names)).values()) - {""} for parent, names in inner.items()}
    in_each = [found.get(name, set()) for name in top]
    if any(len(splits) > 1 for splits in found.values()) or (len(top) > 1 and set.intersection(*in_each)):
        nested = sorted(name for parent, names in inner.items() if found[parent] for name in names)
        raise DataError(
            f"{folder} holds folders of splits ({_words(list(dict.fromkeys(nested)))}) further down. Expected the "
            "splits above the classes, train/<class>/ and test/<class>/. Move them there, or give the folder that "
            "holds them."
        )
    if len(set().union(*found.values())) > 1:
        where = sorted(f"{parent}/{name}" for parent in found for name in inner[parent] if found[parent])
        warnings.warn(
            f"{folder} holds {_words(where)}: each is read as a part of its class, not as a split. If they are splits, "
            "put them above the classes, train/<class>/ and test/<class>/.",
            stacklevel=2,
        )
    classes = _classes(folder, "", files, kind)
    if split == "all":
        return classes
    return {name: _share(folder, name, members, split, kind) for name, members in classes.items()}


def _of_kind(folder: Path, kind: Kind) -> list[File]:
    """Files below `folder` that are of the kind; a warning counts the others."""
    left_out: Counter[str] = Counter()
    extensions, files = kind.extensions(), []
    for file in scan(folder, left_out):
        extension = os.path.splitext(file.name)[1].lower()
        if extension in extensions:
            files.append(file)
        else:
            left_out[f"file {extension}" if extension else "file without extension"] += 1
    found = _words([f"{count} x {what}" for what, count in left_out.most_common()])
    if not files:
        raise DataError(
            f"{folder} holds no {kind.one}s: {found or 'no files'} found. Expected class folders with {kind.one}s "
            f"{kind.readable}, or such {kind.one}s without class folders."
        )
    if found:
        warnings.warn(f"Of {folder} these are left out: {found}. {kind.one.capitalize()}s are files {kind.readable}.",
                      stacklevel=2)  # fmt: skip
    return files


def _splits(names: list[str]) -> dict[str, str]:
    """{name: "train", "test" or "other"} of folders that are named as splits are, in any usual spelling; "" of others.

    A name with another word beside the split's (birds_train) is one where a second split has the same (birds_test).
    """
    found = {}
    for name in names:
        words = [re.sub(_DATA, "", word) for word in re.findall(r"[^\W\d_]+", readable(name).casefold())]
        if split := _SPLITS.get("".join(words), ""):
            found[name] = split, ""
        else:
            said = [word for word in words if word in _SPLITS]
            rest = " ".join(word for word in words if word not in _SPLITS)
            found[name] = (_SPLITS[said[0]], rest) if len(said) == 1 else ("", "")
    known = set(found.values())
    return {name: split if not rest or any(one != split and two == rest for one, two in known) else ""
            for name, (split, rest) in found.items()}  # fmt: skip


def _folders(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not hidden(entry.name))


def _classes(folder: Path, part: str, files: list[File], kind: Kind) -> dict[str, list[File]]:
    """{class: its files} of the folder `part` ("" for the whole)."""
    prefix = f"{part}/" if part else ""
    names = _folders(folder / part)
    # One name in NFC and NFD, as of a Mac and another computer, is one class.
    groups: dict[str, list[File]] = {readable(name): [] for name in names or [kind.one]}
    beside = 0
    for file in files:
        if not file.name.startswith(prefix):
            continue
        first, slash, _ = file.name[len(prefix) :].partition("/")
        if names and not slash:
            beside += 1
        else:
            groups[readable(first) if names else kind.one].append(file)
    if not any(groups.values()):
        raise DataError(
            f"{folder / part} holds no {kind.one}s{' in class folders' if beside else ''}. Expected class folders with "
            f"{kind.one}s {kind.readable}, or such {kind.one}s without class folders."
        )
    for name, members in groups.items():
        if not members:
            raise DataError(
                f"The class folder {folder / part / name} holds no {kind.one}s. Put {kind.one}s there or delete it."
            )
    if beside:
        warnings.warn(f"{beside} {kind.one}s beside the class folders of {folder / part} are ignored.", stacklevel=2)
    return groups


def _same_classes(folder: Path, train: dict, test: dict) -> None:
    if set(train) != set(test):
        only = [f"only in {name}: {_words(sorted(set(own) - set(other)))}"
                for name, own, other in (("train", train, test), ("test", test, train))
                if set(own) - set(other)]  # fmt: skip
        raise DataError(
            f"The classes of {folder} differ between train and test ({'; '.join(only)}). "
            f"Expected the same class folders in both."
        )


def _share(folder: Path, name: str, members: list[File], split: str, kind: Kind) -> list[File]:
    """The 80 % (train) or 20 % (test) of one class."""
    if len(members) < 2:
        raise DataError(
            f"The class {name!r} of {folder} has only 1 {kind.one}: too few to split it 80 : 20 into train and "
            f"test. Add {kind.one}s or make train and test folders."
        )
    ranked = sorted(members, key=lambda file: name_hash(f"split {file.name}"))
    cut = max(len(members) // 5, 1)
    return ranked[:cut] if split == "test" else ranked[cut:]


def name_hash(name: str) -> bytes:
    """Of a file's name, the same however the disk spells it: a copy from a Mac is split as its original."""
    return hashlib.sha256(readable(name).encode()).digest()


def _words(names: list[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


# --- Decoding -----------------------------------------------------------------------------------


def decode(folder: Path, names: list[str], size: int | None) -> np.ndarray:
    """Decode images to (N, 3, H, W) uint8.

    With `size`, each is cut to its central square and resized to (size, size), antialiased. Without,
    all must have the size of the first.

    Raises:
        DataError: an image that cannot be read, or unequal sizes without `size`.
    """
    first = _read(folder / names[0], size)
    shape = (len(names), 3, *first.shape[:2])
    try:
        pixels = np.empty(shape, np.uint8)
    except MemoryError as error:
        raise DataError(
            f"{len(names)} images of {_size(first)} need {math.prod(shape) / 1e9:.1f} GB of memory, more "
            f"than there is. Lower size= or count=."
        ) from error

    def one(index: int) -> None:
        image = _read(folder / names[index], size)
        if image.shape != first.shape:
            raise DataError(
                f"The images have unequal sizes: {folder / names[0]} has {_size(first)}, "
                f"{folder / names[index]} has {_size(image)}. Give size= to resize and crop all of them."
            )
        pixels[index] = image.transpose(2, 0, 1)

    def block(start: int) -> None:
        for index in range(start, min(start + 256, len(names))):
            one(index)

    # Pillow releases the interpreter lock while it decodes and resizes.
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        jobs = [pool.submit(block, start) for start in range(0, len(names), 256)]
        try:
            for job in jobs:
                job.result()
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return pixels


def _size(image: np.ndarray) -> str:
    return f"{image.shape[1]} x {image.shape[0]} pixels"


def _read(path: Path, size: int | None) -> np.ndarray:
    """(H, W, 3) uint8 of one file, upright."""
    try:
        with Image.open(path) as opened:
            opened.load()
            try:
                upright = ImageOps.exif_transpose(opened)
            except Exception:  # what is beside the picture is malformed; the picture is not
                upright = opened
            image = to_rgb(upright)
    except Image.DecompressionBombError as error:
        raise DataError(
            f"The image {path} has more than {2 * Image.MAX_IMAGE_PIXELS / 1e6:.0f} million pixels. Make it smaller, "
            "or raise PIL.Image.MAX_IMAGE_PIXELS if it can be trusted."
        ) from error
    except Exception as error:  # what a decoder raises on a damaged file is not settled by Pillow
        if not path.exists():
            raise DataError(f"The image {path} vanished while the folder was read. Start again.") from error
        if "MAX_TEXT" in str(error):
            raise DataError(
                f"The image {path} carries more than {PngImagePlugin.MAX_TEXT_CHUNK / 2**20:g} MB of text in a PNG "
                "chunk. Save it again without its metadata."
            ) from error
        raise DataError(
            f"The image {path} cannot be read: it is corrupt, truncated or of an unusual kind ({error}). "
            f"Replace or delete it."
        ) from error
    return np.asarray(square(image, size) if size else image)


def to_rgb(image: Image.Image) -> Image.Image:
    """Any Pillow mode to RGB: 16-bit grey is scaled to 8 bit, transparency laid over white."""
    if image.mode in _SIXTEEN_BITS:
        # Pillow itself would clip 16-bit values at 255.
        grey = np.asarray(image).astype(np.int64).clip(0, 65535)
        return Image.fromarray((grey // 257).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        grey = np.nan_to_num(np.asarray(image, np.float64))
        if grey.min() < 0 or grey.max() > 255:
            raise ValueError(f"float values from {grey.min():g} to {grey.max():g}, expected 0 to 255")
        scale = 255 if grey.max() <= 1 else 1
        return Image.fromarray((grey * scale).round().astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def square(image: Image.Image, size: int) -> Image.Image:
    """The central square of an RGB image, resized to (size, size) with antialiasing (Lanczos)."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    box = (left, top, left + side, top + side)
    if side == size:
        return image.crop(box)
    return image.resize((size, size), Image.Resampling.LANCZOS, box=box)
