"""AI Hub's emergency sounds (위급상황 음성/음향, number 170): the catalogue.

The data are available to Korean nationals on application and may not be redistributed. Unpacked layout:

    {Training,Validation}/[라벨]N.class/*.json
    {Training,Validation}/[원천]N.class_k/*_label.wav

possibly nested deeper, with names in NFC or NFD. Folder numbers differ from those of the source (fire is 5 here
and 8 there; a copy of robbery is numbered 15), so classes are identified by name only. Classes 17 to 19, and
more of 15 and 16, come from other folders: see `controls` of `read_catalogue`.

    catalogue = read_catalogue(data_root() / "aihub", controls=[...])
    splits = aihub_splits.split_source(catalogue.rows, seed=0)
    train = aihub_shards.prepare(catalogue, splits["train"], folder, seconds=4.0)
"""

import contextlib
import filecmp
import json
import math
import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from lib.data.catalog import DataError, readable, scan
from lib.emergency.classes import NORMAL, find

SOURCE = {"train": 65_848, "validation": 666, "test": 12_102}  # numbers of clips in the source
SPLITS = tuple(SOURCE)

# Why a clip of the catalogue is missing from the shards, in addition to the reasons of `lib.data.decoding`.
OUTSIDE = "event outside the window"

HOW_TO_GET = (
    "Apply for the data set 위급상황 음성/음향 (emergency voice and sound, number 170) at AI Hub, www.aihub.or.kr. "
    "It is open to Korean nationals and may not be redistributed, so this repository cannot bring it. Unpack it to "
    "<data root>/aihub/ with Training/ and Validation/, which hold [라벨]N.class/*.json and "
    "[원천]N.class_k/*_label.wav. It lacks classes 17 to 19: put sounds of them, without speech, into "
    "<data root>/aihub-controls/<any name>/<class>/."
)

LONGEST = 1e9  # seconds; larger values are not valid times
_HEADER = 44  # bytes of a WAV file without samples
_AUDIO = {"wav", "flac", "mp3", "ogg", "opus", "m4a", "aac", "wma", "aif", "aiff", "mp4", "webm"}
_PART = re.compile(r"(?:\d+\s*[._-]\s*)?(training|validation)", re.IGNORECASE)
_NO_LINE = {"없음", "해당없음", "none", "null", "na", "nan"}


@dataclass(frozen=True, slots=True)
class Row:
    """A clip.

    root: index into `Catalogue.roots`. json, wav: paths relative to it, as on disk; json is "" in a plain class folder.
    number: class of the source, 1..19.
    onset, offset: span in which the class is audible, in seconds; offset is inf for the end of the file.
    line: the spoken words (NFC, without bracketed remarks); "" for none.
    speaker: gender, generation and dialect, "" where not given. Many speakers share these.
    part: "Training", "Validation" or "".
    """

    root: int
    json: str
    wav: str
    number: int
    onset: float
    offset: float
    line: str = ""
    speaker: tuple[str, str, str] = ("", "", "")
    part: str = ""


@dataclass(frozen=True)
class Catalogue:
    """Usable clips. rejected: (reason, file) of all other files, not counting the audio of a rejected JSON again."""

    roots: tuple[Path, ...]
    rows: tuple[Row, ...]
    rejected: tuple[tuple[str, str], ...]

    def path(self, row: Row) -> Path:
        return self.roots[row.root] / row.wav


class Rejected(Exception):
    """Raised if a clip cannot be used; the message is the reason."""


# --- Catalogue ----------------------------------------------------------------------------------


def read_catalogue(folder: str | Path, *, controls: Sequence[str | Path] = ()) -> Catalogue:
    """Return all clips below `folder` in the order of their paths, and the rejected files with reasons.

    Audio files are opened only if two may be copies of each other.

    The class is named by category_02, else by category_03 or its part before the last "_", else by the folder.

    controls: further folders with classes 15 to 19, either with JSON of the same format (AI Hub's city sounds,
        도시 소리) or without any JSON, with sounds in folders named by class.

    Raises:
        DataError: a folder is missing or unreadable, or there is no usable clip.
    """
    roots = tuple(Path(root).expanduser() for root in (folder, *controls))
    rows: list[Row] = []
    rejected: list[tuple[str, str]] = []
    similar: dict[tuple, list[Row]] = defaultdict(list)  # by properties that copies share

    def is_copy(row: Row, alike: list[Row]) -> bool:
        return any(filecmp.cmp(roots[row.root] / row.wav, roots[one.root] / one.wav, shallow=False) for one in alike)

    for index, root in enumerate(roots):
        tree = _Tree(root, index)
        rejected += [("neither audio nor JSON", name) for name in tree.others]
        used: dict[str, str] = {}  # sound -> its JSON
        unused: Counter[tuple[str, str]] = Counter()  # rejections per JSON, whose audio is not counted again
        for name, found in _plain(tree) if index and not tree.labels else _labelled(tree):
            if isinstance(found, Row):
                alike = similar[found.number, stem_of(found.wav), tree.sizes[found.wav], found.onset]
                if found.wav not in used and not is_copy(found, alike):
                    used[found.wav] = found.json
                    alike.append(found)
                    rows.append(found)
                    continue
                found = "second annotation" if used.get(found.wav) == found.json else "duplicate"
            rejected.append((found, readable(name)))
            unused[tree.key(name)] += 1
        if tree.labels:
            rejected += [(reason, readable(name)) for reason, name in _spare_audio(tree, used, unused)]
    if not rows:
        counts = Counter(reason for reason, _ in rejected)
        found = ", ".join(f"{count} x {reason}" for reason, count in counts.items()) or "no files"
        raise DataError(f"{roots[0]} holds no clip that can be used ({found}). Are the archives unpacked? {HOW_TO_GET}")
    return Catalogue(roots, tuple(rows), tuple(rejected))


class _Tree:
    """The files below one root.

    labels: names of JSON files. sounds: names of audio files by `key`. sizes: bytes per audio file. others: names.
    """

    def __init__(self, root: Path, index: int):
        if not root.is_dir():
            advice = "It is named in controls=: correct the path or leave it out." if index else HOW_TO_GET
            raise DataError(f"There is no folder {root}. {advice}")
        try:
            files = scan(root)
        except OSError as error:
            raise DataError(f"The folder {root} cannot be read ({error}). Check its permissions.") from error
        self.root, self.index = root, index
        self.labels, self.sounds, self.sizes, self.others = [], defaultdict(list), {}, []
        for file in files:
            extension = file.name.rpartition(".")[2].lower()
            if extension == "json":
                self.labels.append(file.name)
            elif extension in _AUDIO:
                self.sounds[self.key(file.name)].append(file.name)
                self.sizes[file.name] = file.size
            else:
                self.others.append(file.name)

    def place(self, name: str) -> tuple[str, int | None]:
        """Return the (part, class) given by the folders of a file."""
        return _place(f"{self.root.name}/{name.rpartition('/')[0]}")

    def key(self, name: str) -> tuple[str, str]:
        """Return (part, stem), by which a clip's JSON and audio are looked up."""
        return self.place(name)[0], stem_of(name)


def _plain(tree: _Tree) -> Iterator[tuple[str, Row | str]]:
    """Yield (name, row or reason for rejection) of every sound in a folder of controls without JSON."""
    for name, size in tree.sizes.items():
        part, number = tree.place(name)
        if number is None:
            yield name, "unknown class"
        elif number not in NORMAL:
            yield name, "not a control class"
        elif size <= _HEADER:
            yield name, "empty audio"
        elif stem_of(name).endswith("_SD") and tree.sounds.get((part, stem_of(name)[:-2] + "SN")):
            yield name, "duplicate"  # in AI Hub's noisy speech: the same take without noise
        else:
            yield name, Row(tree.index, "", name, number, 0.0, math.inf, part=part)


def _labelled(tree: _Tree) -> Iterator[tuple[str, Row | str]]:
    """Yield (name, row or reason for rejection) of every annotation; nearly all JSON files have exactly one."""
    for name in tree.labels:
        try:
            content = _parse(tree.root, name)
        except (OSError, ValueError, RecursionError):
            yield name, "unreadable JSON"
            continue
        annotations = content.get("annotations") if isinstance(content, dict) else None
        if not isinstance(annotations, list) or not annotations:
            yield name, "no annotation"
            continue
        for place, annotation in enumerate(annotations, 1):
            try:
                yield name, _row(tree, name, _dict(content.get("audio")), annotation, place)
            except Rejected as reason:
                yield name, str(reason)


def _parse(root: Path, name: str) -> object:
    """Return the content of a JSON file in UTF-8 (with or without BOM), UTF-16 or CP949."""
    with open(os.path.join(root, name), "rb") as file:  # noqa: PTH123 (creating Path objects costs as much as parsing)
        data = file.read()
    try:
        return json.loads(data)
    except UnicodeDecodeError:
        return json.loads(data.decode("cp949"))


def _row(tree: _Tree, name: str, audio: dict, annotation: object, place: int) -> Row:
    """Return the row of annotation number `place` of a JSON file."""
    if not isinstance(annotation, dict):
        raise Rejected("no annotation")
    part, in_folder = tree.place(name)
    number = _number(_dict(annotation.get("categories")), in_folder)
    if tree.index and number not in NORMAL:
        raise Rejected("not a control class")
    area, duration = _dict(annotation.get("area")), _seconds(audio.get("duration"))
    onset, offset = _seconds(area.get("start")), _seconds(area.get("end"))
    if onset is None or offset is None:
        raise Rejected("no area")
    if not 0 <= onset < offset or (duration and onset >= duration):
        raise Rejected("area out of order")
    stem, called = stem_of(name), audio.get("fileName")
    names = [annotation.get("labelName"), f"{stem}_label", called, f"{called}_label", stem, f"{stem}_{place}"]
    wav = _wav(tree, part, number, names)
    if tree.sizes[wav] <= _HEADER:
        raise Rejected("empty audio")
    speaker = tuple(_word(annotation.get(key)) for key in ("gender", "generation", "dialect"))
    return Row(tree.index, name, wav, number, onset, offset, _line(_word(annotation.get("note"))), speaker, part)


def _number(categories: dict, in_folder: int | None) -> int:
    second, third = _word(categories.get("category_02")), _word(categories.get("category_03"))
    numbers = (_class(name) for name in (second, third, third.rpartition("_")[0]))
    named = next((number for number in numbers if number), None)
    if not (named or in_folder):
        raise Rejected("unknown class")
    if named and in_folder and named != in_folder:
        raise Rejected("classes disagree")
    return named or in_folder


def _wav(tree: _Tree, part: str, number: int, names: list[object]) -> str:
    """Return the sound of the first of `names` that exists, with or without extension, in folders of the same part."""
    for name in names:
        if not isinstance(name, str) or not name:
            continue
        found = tree.sounds.get((part, stem_of(name.replace("\\", "/"))), [])
        if len(found) > 1:
            found = [wav for wav in found if tree.place(wav)[1] == number] or found
            if not all(filecmp.cmp(tree.root / found[0], tree.root / wav, shallow=False) for wav in found[1:]):
                raise Rejected("ambiguous audio")
        if found:
            return found[0]
    raise Rejected("missing audio")


def _spare_audio(tree: _Tree, used: dict[str, str], unused: Counter) -> Iterator[tuple[str, str]]:
    """Yield (reason, name) of sounds that no row uses, except those of a JSON already counted as rejected."""
    labels = {tree.key(name) for name in tree.labels}
    spare = defaultdict(list)
    for (part, stem), names in tree.sounds.items():
        stem = stem if (part, stem) in labels else re.sub(r"_(label|\d+)$", "", stem)
        spare[part, stem] += [name for name in names if name not in used]
    for key, names in spare.items():
        reason, counted = ("duplicate", unused[key]) if key in labels else ("audio without JSON", 0)
        yield from ((reason, name) for name in names[counted:])


# --- Values and names ---------------------------------------------------------------------------


def _dict(value: object) -> dict:
    return value if isinstance(value, dict) else {}


def _seconds(value: object) -> float | None:
    with contextlib.suppress(TypeError, ValueError, OverflowError):
        seconds = float(value)
        return seconds if abs(seconds) < LONGEST and not isinstance(value, bool) else None


def stem_of(name: str) -> str:
    """Return the file name without folders and without a known extension ("5.화재_1" has none)."""
    name = readable(name.rpartition("/")[2])
    stem, _, extension = name.rpartition(".")
    return stem if extension.lower() in _AUDIO | {"json"} else name


@lru_cache(maxsize=4096)
def _place(folder: str) -> tuple[str, int | None]:
    """Return the (part, class) given by the names of nested folders; the innermost takes precedence."""
    part, number = "", None
    for name in readable(folder).split("/"):
        if found := _PART.fullmatch(name):
            part = found[1].capitalize()
        number = _class(name) or number
    return part, number


@lru_cache(maxsize=4096)
def _class(name: str) -> int | None:
    row = find(name)
    return row.number or None if row else None


def _word(value: object) -> str:
    return _tidy(value) if isinstance(value, str) else ""


@lru_cache(maxsize=65_536)  # few distinct words in many clips: each is stored once
def _tidy(text: str) -> str:
    text = text.encode("utf-8", "replace").decode()  # a lone surrogate ("\ud800" in the JSON) is replaced by "?"
    return " ".join(unicodedata.normalize("NFC", text).split())


@lru_cache(maxsize=65_536)
def _line(note: str) -> str:
    """Return the spoken words of a note, without remarks in brackets; "" if it only says "nothing"."""
    note = re.sub(r"\(([^()]*)\)\s*/\s*\([^()]*\)", r"\1", note)  # (written form)/(spoken form)
    line = re.sub(r"\([^()]*\)|\[[^\[\]]*\]|\{[^{}]*\}|<[^<>]*>|（[^（）]*）", " ", note)
    line = " ".join(line.split())
    return "" if letters_of(line) in _NO_LINE else line


def letters_of(line: str) -> str:
    """Return a line without case, spaces and punctuation, the form in which lines are compared."""
    return re.sub(r"[\W_]+", "", line.casefold())
