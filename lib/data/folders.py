"""Folders of images or sounds: list their files, and assign them to splits and classes."""

import hashlib
import os
import re
import warnings
from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from lib.data.catalog import DataError, File, hidden, readable, scan

_SPLITS = {
    **dict.fromkeys(("train", "trains", "training", "trn", "trainval", "학습", "훈련"), "train"),
    **dict.fromkeys(("test", "tests", "testing", "tst", "시험", "평가", "테스트"), "test"),
    **dict.fromkeys(("val", "valid", "validation", "dev", "eval", "evaluation", "holdout", "검증"), "other"),
}
_DATA = r"(data|set|dataset|split|images?|img|audio|sounds?|데이터|셋|용)+$"  # suffixes that any split may have


@dataclass(frozen=True)
class Kind:
    """The kind of files that a folder is searched for.

    one: "image" or "sound"; also the class of a folder without class folders.
    extensions: file extensions (lower case, with the dot).
    readable: the same, as text for messages.
    """

    one: str
    extensions: frozenset[str]
    readable: str


@dataclass(frozen=True)
class Listing:
    """Files to decode, in an order that mixes the classes.

    place: the folder or archive. files: their names are relative to `place`. folds: as in `Sounds`.
    """

    place: Path
    files: tuple[File, ...]
    labels: np.ndarray  # (N,) int64
    classes: tuple[str, ...]
    folds: np.ndarray | None = None  # (N,) int64

    def take(self, chosen: np.ndarray) -> "Listing":
        files = tuple(self.files[index] for index in chosen)
        folds = None if self.folds is None else self.folds[chosen]
        return replace(self, files=files, labels=self.labels[chosen], folds=folds)

    def paths(self) -> list[Path]:
        return [self.place / file.name for file in self.files]

    def state(self) -> str:
        """Return text for a cache key that changes whenever a file does."""
        return "\n".join([str(self.place), *(f"{file.name}\0{file.size} {file.modified}" for file in self.files)])


def list_folder(folder: Path, split: str, kind: Kind) -> Listing:
    """List one split of a folder, "train" or "test", or "all" of it.

    Layouts: {train,test}/<class>/*, {train,test}/*, <class>/* or plain files. Without train and
    test folders, the test split is the fifth of each class whose names have the smallest hashes: it
    depends on the names alone, so the two splits never overlap, whatever the seed.

    Files are ordered by a hash of their names, so the first n are always a fair mixture of the classes.

    Raises:
        DataError: no files of the kind, an empty class, classes that differ between the splits, or only one split.
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
    """Return {class: files} of one split."""
    files, top = _of_kind(folder, kind), _folders(folder)
    split_of = _splits(top)
    train, test, other, plain = (
        [name for name in top if split_of[name] == each] for each in ("train", "test", "other", "")
    )
    if len(train) == len(test) == 1:
        parts = {"train": _classes(folder, train[0], files, kind), "test": _classes(folder, test[0], files, kind)}
        only = {"train": parts["train"].keys() - parts["test"], "test": parts["test"].keys() - parts["train"]}
        if found := [f"only in {name}: {_words(sorted(names))}" for name, names in only.items() if names]:
            raise DataError(
                f"The classes of {folder} differ between train and test ({'; '.join(found)}). "
                f"Expected the same class folders in both."
            )
        if rest := other + plain:
            warnings.warn(f"Of {folder} only train and test are read, not {_words(sorted(rest))}.", stacklevel=2)
        if split == "all":
            return {name: members + parts["test"][name] for name, members in parts["train"].items()}
        return parts[split]
    if (top and not plain) or sum(map(bool, (train, test, other))) > 1:
        raise DataError(
            f"{folder} holds {_words(top)} but not both train and test, once each. Expected both, or class folders "
            f"alone, which are split 80 : 20. Rename, join or add folders."
        )
    if odd := [name for name in train + test + other if set(plain) & set(_folders(folder / name))]:
        raise DataError(f"{folder} holds class folders and, beside them, {_words(odd)} with folders of the same names. "
                        "Move the classes into train/, beside test/, or the split elsewhere.")  # fmt: skip
    _refuse_splits_further_down(folder, files)
    classes = _classes(folder, "", files, kind)
    if split == "all":
        return classes
    return {name: _share(folder, name, members, split, kind) for name, members in classes.items()}


def _refuse_splits_further_down(folder: Path, files: list[File]) -> None:
    inner: dict[str, set[str]] = defaultdict(set)  # folders within each folder
    for above in {os.path.dirname(file.name) for file in files}:
        parts = above.split("/")
        for depth in range(1, len(parts)):
            inner["/".join(parts[:depth])].add(parts[depth])
    for parent, names in sorted(inner.items()):
        found = {name: split for name, split in _splits(sorted(names)).items() if split}
        if len(set(found.values())) > 1:
            raise DataError(
                f"{folder / parent} holds folders of splits ({_words(list(found))}) further down. Expected the splits "
                "above the classes, train/<class>/ and test/<class>/. Move them there, or give the folder that holds "
                "them."
            )


def _of_kind(folder: Path, kind: Kind) -> list[File]:
    """Return the files of the kind below `folder`; a warning counts the others."""
    left_out: Counter[str] = Counter()
    files = []
    for file in scan(folder, left_out):
        extension = os.path.splitext(file.name)[1].lower()
        if extension in kind.extensions:
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
    """Map folder names to "train", "test" or "other" if they name a split in any usual spelling, else to "".

    A name with another word (birds_train) counts only if a folder of another split has that word too (birds_test).
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
    """Return {class: files} of the folder `part` ("" for the whole)."""
    prefix = f"{part}/" if part else ""
    names = _folders(folder / part)
    # The same name in NFC and NFD, from a Mac and another computer, is one class.
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


def _share(folder: Path, name: str, members: list[File], split: str, kind: Kind) -> list[File]:
    """Return the 80 % (train) or 20 % (test) of one class."""
    if len(members) < 2:
        raise DataError(
            f"The class {name!r} of {folder} has only 1 {kind.one}: too few to split it 80 : 20 into train and "
            f"test. Add {kind.one}s or make train and test folders."
        )
    ranked = sorted(members, key=lambda file: name_hash(f"split {file.name}"))
    cut = max(len(members) // 5, 1)
    return ranked[:cut] if split == "test" else ranked[cut:]


def name_hash(name: str) -> bytes:
    """Hash a file name regardless of its encoding on disk, so that a copy from a Mac is split like the original."""
    return hashlib.sha256(readable(name).encode()).digest()


def _words(names: list[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
