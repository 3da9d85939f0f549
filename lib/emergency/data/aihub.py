"""AI Hub's emergency sounds (위급상황 음성/음향, number 170): catalogue, splits, preparation to 16 kHz.

The data are given to Korean nationals on application and may not be passed on. As unpacked:

    {Training,Validation}/[라벨]N.class/*.json
    {Training,Validation}/[원천]N.class_k/*_label.wav

possibly nested deeper, with names in NFC or NFD. The folders' numbers are not those of the source (5 is fire
here, 8 there; a copy of robbery is numbered 15), so a class is known by its name alone. Classes 17 to 19, and
more of 15 and 16, come from other folders: `controls` of `read_catalogue`.

    catalogue = read_catalogue(data_root() / "aihub", controls=[...])
    prepare(catalogue, split_source(catalogue.rows, seed=0), folder)
    train = load_prepared(folder, "train")
"""

import contextlib
import filecmp
import hashlib
import json
import math
import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass, fields, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from lib.data.cache import atomic
from lib.data.catalog import DataError, scan
from lib.data.decoding import Unreadable, decode, versions
from lib.emergency.classes import NORMAL, find

RATE = 16_000
SOURCE = {"train": 65_848, "validation": 666, "test": 12_102}  # clips of the source
SPLITS = tuple(SOURCE)

# Why a file is not in the catalogue. A clip counts once: the audio of a rejected JSON is not counted again.
REASONS = (
    "unreadable JSON",
    "no annotation",
    "unknown class",  # neither the categories nor the folder name one
    "classes disagree",  # the categories name another class than the folder
    "not a control class",  # an emergency among the controls
    "no area",  # start or end missing or not a number
    "area out of order",  # negative, not start < end, or behind the end of the clip
    "missing audio",
    "ambiguous audio",  # several different files of the name
    "empty audio",  # no more than a header
    "duplicate",  # the same clip, or a copy of it, is already there
    "audio without JSON",
    "neither audio nor JSON",
)
# Why a clip of the catalogue is not in the shards, beside the reasons of `lib.data.decoding`.
OUTSIDE = "event outside the window"

HOW_TO_GET = (
    "Apply for the data set 위급상황 음성/음향 (emergency voice and sound, number 170) at AI Hub, www.aihub.or.kr. "
    "It is open to Korean nationals and may not be redistributed, so this repository cannot bring it. Unpack it to "
    "<data root>/aihub/ with Training/ and Validation/, which hold [라벨]N.class/*.json and "
    "[원천]N.class_k/*_label.wav."
)

_VERSION = 1  # of the shards
_SHARD = 1_000  # clips: 128 MB of 4 s each
_HEADER = 44  # bytes of a WAV file without samples
_BLOCK = 256  # JSON files per task
_AUDIO = {"wav", "flac", "mp3", "ogg", "opus", "m4a", "aac", "wma", "aif", "aiff", "mp4", "webm"}
_KNOWN = _AUDIO | {"json"}
_PART = re.compile(r"(?:\d+\s*[._-]\s*)?(training|validation)", re.IGNORECASE)
_NO_LINE = {"없음", "해당없음", "none", "null", "na", "nan"}


@dataclass(frozen=True, slots=True)
class Row:
    """A clip.

    root: its place in `Catalogue.roots`. json, wav: relative to it, as on disk; json is "" in a plain class folder.
    number: class of the source, 1..19.
    onset, offset: where the class is heard, in seconds; offset is inf where the end of the file is meant.
    line: what is said (NFC, without bracketed remarks); "" for none.
    speaker: gender, generation and dialect, "" where not given. Many speakers share these.
    kind: `audioType`. fine: the type of sound, from category_03. part: "Training", "Validation" or "".
    """

    root: int
    json: str
    wav: str
    number: int
    onset: float
    offset: float
    line: str = ""
    speaker: tuple[str, str, str] = ("", "", "")
    kind: str = ""
    fine: str = ""
    part: str = ""


@dataclass(frozen=True)
class Catalogue:
    """rejected: reason (one of `REASONS`) -> number of files. first: reason -> the first of these files."""

    roots: tuple[Path, ...]
    rows: tuple[Row, ...]
    rejected: dict[str, int]
    first: dict[str, str]

    def path(self, row: Row) -> Path:
        return self.roots[row.root] / row.wav


class _Rejected(Exception):
    """Its text is the reason."""


class _Tally:
    """Rejected files: how many for each reason, and the first of them."""

    def __init__(self) -> None:
        self.rejected: dict[str, int] = {}
        self.first: dict[str, str] = {}

    def add(self, reason: str, name: str, count: int = 1) -> None:
        self.rejected[reason] = self.rejected.get(reason, 0) + count
        self.first.setdefault(reason, _text(name))


# --- Catalogue ----------------------------------------------------------------------------------


def read_catalogue(folder: str | Path, *, controls: Sequence[str | Path] = (), workers: int = 1) -> Catalogue:
    """All clips below `folder`, in the order of their paths, and what was rejected and why.

    Audio is opened only where two files may be copies of each other.

    A class is what category_02 names, else category_03 or what stands before its "_", else the folder.

    controls: further folders with classes 15 to 19, either with JSON of the same form (AI Hub's city sounds,
        도시 소리) or without any JSON, as sounds in folders named by class.
    workers: threads that read JSON; more than one pay only where files are slow to come (network, cold disk).

    Raises:
        DataError: a folder is missing or unreadable, or there is not a single clip that can be used.
    """
    roots = tuple(Path(root).expanduser() for root in (folder, *controls))
    tally = _Tally()
    rows: list[Row] = []
    similar: dict[tuple, list[Row]] = defaultdict(list)  # by what copies have in common
    for index, root in enumerate(roots):
        tree = _tree(root, index, tally)
        used = set()
        unused: Counter[tuple[str, str]] = Counter()  # rejected JSON, whose audio lies about
        for name, outcome in _plain(tree) if index and not tree.labels else _labelled(tree, workers):
            if isinstance(outcome, Row):
                alike = similar[outcome.number, _stem(outcome.wav), tree.sizes[outcome.wav], outcome.onset]
                if outcome.wav not in used and not any(_same(roots, outcome, row) for row in alike):
                    used.add(outcome.wav)
                    alike.append(outcome)
                    rows.append(outcome)
                    continue
                outcome = "duplicate"
            tally.add(outcome, name)
            unused[tree.key(name)] += 1
        if tree.labels:
            _count_spare_audio(tree, used, unused, tally)
    if not rows:
        found = ", ".join(f"{count} x {reason}" for reason, count in tally.rejected.items()) or "no files"
        raise DataError(f"{roots[0]} holds no clip that can be used ({found}). Are the archives unpacked? {HOW_TO_GET}")
    order = [reason for reason in REASONS if reason in tally.rejected]
    return Catalogue(roots, tuple(rows), {reason: tally.rejected[reason] for reason in order},
                     {reason: tally.first[reason] for reason in order})  # fmt: skip


def _same(roots: tuple[Path, ...], one: Row, other: Row) -> bool:
    return filecmp.cmp(roots[one.root] / one.wav, roots[other.root] / other.wav, shallow=False)


@dataclass(frozen=True)
class _Tree:
    """The files below one root: names of the JSON, names of the sounds by `key`, bytes by name of a sound."""

    root: Path
    index: int
    labels: list[str]
    sounds: dict[tuple[str, str], list[str]]
    sizes: dict[str, int]

    def place(self, name: str) -> tuple[str, int | None]:
        """(part, class) that the folders of a file tell."""
        return _place(f"{self.root.name}/{name.rpartition('/')[0]}")

    def key(self, name: str) -> tuple[str, str]:
        """(part, stem): what a clip's JSON and audio are found by."""
        return self.place(name)[0], _stem(name)


def _tree(root: Path, index: int, tally: _Tally) -> _Tree:
    if not root.is_dir():
        advice = "It is named in controls=: correct the path or leave it out." if index else HOW_TO_GET
        raise DataError(f"There is no folder {root}. {advice}")
    try:
        files = scan(root)
    except OSError as error:
        raise DataError(f"The folder {root} cannot be read ({error}). Check its permissions.") from error
    tree = _Tree(root, index, [], defaultdict(list), {})
    for file in files:
        extension = file.name.rpartition(".")[2].lower()
        if extension == "json":
            tree.labels.append(file.name)
        elif extension in _AUDIO:
            tree.sounds[tree.key(file.name)].append(file.name)
            tree.sizes[file.name] = file.size
        else:
            tally.add("neither audio nor JSON", file.name)
    return tree


def _plain(tree: _Tree) -> Iterator[tuple[str, Row | str]]:
    """(name, its row or why there is none) of a folder of controls without JSON."""
    for name in tree.sizes:
        part, number = tree.place(name)
        if number is None:
            yield name, "unknown class"
        elif number not in NORMAL:
            yield name, "not a control class"
        elif tree.sizes[name] <= _HEADER:
            yield name, "empty audio"
        else:
            yield name, Row(tree.index, "", name, number, 0.0, math.inf, part=part)


def _labelled(tree: _Tree, workers: int) -> Iterator[tuple[str, Row | str]]:
    """(name, its row or why there is none) of every annotation; nearly all JSON have one."""
    blocks = [tree.labels[start : start + _BLOCK] for start in range(0, len(tree.labels), _BLOCK)]
    with ThreadPoolExecutor(workers) as pool:
        for found in pool.map(lambda block: [one for name in block for one in _outcomes(tree, name)], blocks):
            yield from found


def _outcomes(tree: _Tree, name: str) -> Iterator[tuple[str, Row | str]]:
    try:
        content = _parse(tree.root, name)
    except (OSError, ValueError, RecursionError):
        yield name, "unreadable JSON"
        return
    annotations = content.get("annotations") if isinstance(content, dict) else None
    if not isinstance(annotations, list) or not annotations:
        yield name, "no annotation"
        return
    for place, annotation in enumerate(annotations, 1):
        try:
            yield name, _row(tree, name, content.get("audio"), annotation, place)
        except _Rejected as reason:
            yield name, str(reason)


def _parse(root: Path, name: str) -> object:
    """The content of a JSON file: UTF-8 (with or without BOM), UTF-16 or CP949."""
    with open(os.path.join(root, name), "rb") as file:  # noqa: PTH123 (a Path each costs as much as the JSON)
        data = file.read()
    try:
        return json.loads(data)
    except UnicodeDecodeError:
        return json.loads(data.decode("cp949"))


def _row(tree: _Tree, name: str, audio: object, annotation: object, place: int) -> Row:
    """The row of annotation number `place` of a JSON file."""
    if not isinstance(annotation, dict):
        raise _Rejected("no annotation")
    audio = audio if isinstance(audio, dict) else {}
    part, in_folder = tree.place(name)
    categories = annotation.get("categories")
    categories = categories if isinstance(categories, dict) else {}
    number = _number(categories, in_folder)
    if tree.index and number not in NORMAL:
        raise _Rejected("not a control class")
    onset, offset = _area(annotation.get("area"), _seconds(audio.get("duration")))
    stem, called = _stem(name), audio.get("fileName")
    names = [annotation.get("labelName"), f"{stem}_label", called, f"{called}_label", stem, f"{stem}_{place}"]
    wav = _wav(tree, part, number, names)
    if tree.sizes[wav] <= _HEADER:
        raise _Rejected("empty audio")
    speaker = tuple(_word(annotation.get(key)) for key in ("gender", "generation", "dialect"))
    fine = _word(categories.get("category_03")).rpartition("_")[2]
    return Row(tree.index, name, wav, number, onset, offset, _line(_word(annotation.get("note"))), speaker,
               _word(annotation.get("audioType")), fine, part)  # fmt: skip


def _number(categories: dict, in_folder: int | None) -> int:
    second, third = _word(categories.get("category_02")), _word(categories.get("category_03"))
    numbers = (_class(name) for name in (second, third, third.rpartition("_")[0]))
    named = next((number for number in numbers if number), None)
    if not (named or in_folder):
        raise _Rejected("unknown class")
    if named and in_folder and named != in_folder:
        raise _Rejected("classes disagree")
    return named or in_folder


def _area(area: object, duration: float | None) -> tuple[float, float]:
    onset, offset = (_seconds(area.get(key)) if isinstance(area, dict) else None for key in ("start", "end"))
    if onset is None or offset is None:
        raise _Rejected("no area")
    if not 0 <= onset < offset or (duration and onset >= duration):
        raise _Rejected("area out of order")
    return onset, offset


def _seconds(value: object) -> float | None:
    with contextlib.suppress(TypeError, ValueError):
        seconds = float(value)
        return seconds if math.isfinite(seconds) and not isinstance(value, bool) else None


def _wav(tree: _Tree, part: str, number: int, names: list[object]) -> str:
    """The first of `names` that there is, with or without extension, in the folders of the same part."""
    for name in names:
        if not isinstance(name, str) or not name:
            continue
        found = tree.sounds.get((part, _stem(name.replace("\\", "/"))), [])
        if len(found) > 1:
            found = [wav for wav in found if tree.place(wav)[1] == number] or found
            if not all(filecmp.cmp(tree.root / found[0], tree.root / wav, shallow=False) for wav in found[1:]):
                raise _Rejected("ambiguous audio")
        if found:
            return found[0]
    raise _Rejected("missing audio")


def _count_spare_audio(tree: _Tree, used: set[str], unused: Counter, tally: _Tally) -> None:
    """Counts sounds that no row took, except those of a JSON that has been counted."""
    labels = {tree.key(name) for name in tree.labels}
    spare = defaultdict(list)
    for (part, stem), names in tree.sounds.items():
        stem = stem if (part, stem) in labels else re.sub(r"_(label|\d+)$", "", stem)
        spare[part, stem] += [name for name in names if name not in used]
    for key, names in spare.items():
        if key not in labels and names:
            tally.add("audio without JSON", names[0], len(names))
        elif len(names) > unused[key]:
            tally.add("duplicate", names[unused[key]], len(names) - unused[key])


# --- Names --------------------------------------------------------------------------------------


def _text(path: str) -> str:
    """NFC. A name that is not UTF-8 on disk is CP949, as some tools unpack it."""
    try:
        path.encode()
    except UnicodeEncodeError:
        path = "/".join(_cp949(name) for name in path.split("/"))
    return unicodedata.normalize("NFC", path)


def _cp949(name: str) -> str:
    try:
        name.encode()
    except UnicodeEncodeError:
        return os.fsencode(name).decode("cp949", "replace")
    return name


def _stem(name: str) -> str:
    """File name without folders and, if it has one of these, without extension ("5.화재_1" has none)."""
    name = _text(name.rpartition("/")[2])
    stem, _, extension = name.rpartition(".")
    return stem if extension.lower() in _KNOWN else name


@lru_cache(maxsize=4096)
def _place(folder: str) -> tuple[str, int | None]:
    """(part, class) that the names of nested folders tell, the innermost first."""
    part, number = "", None
    for name in _text(folder).split("/"):
        if found := _PART.fullmatch(name):
            part = found[1].capitalize()
        number = _class(name) or number
    return part, number


@lru_cache(maxsize=4096)
def _class(name: str) -> int | None:
    try:
        return find(name).number or None
    except KeyError:
        return None


def _word(value: object) -> str:
    return _tidy(value) if isinstance(value, str) else ""


@lru_cache(maxsize=65_536)  # few words in many clips: each is kept once
def _tidy(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).split())


@lru_cache(maxsize=65_536)
def _line(note: str) -> str:
    """What is said: remarks in brackets are not, nor is the word for "nothing"."""
    line = re.sub(r"\([^()]*\)|\[[^\[\]]*\]|\{[^{}]*\}|<[^<>]*>|（[^（）]*）", " ", note)
    line = " ".join(line.split())
    return "" if _letters(line) in _NO_LINE else line


def _letters(line: str) -> str:
    """A line without case, spaces and marks: by this two lines are the same."""
    return re.sub(r"[\W_]+", "", line.casefold())


# --- Splits -------------------------------------------------------------------------------------


def split_source(rows: Sequence[Row], seed: int) -> dict[str, np.ndarray]:
    """Indices of "train", "validation" and "test" as the source has them: clip by clip.

    The source's numbers are 12,102 clips of 78,616 for the test, and of the remaining 66,514 a hundredth,
    rounded up, for validation. Where there are as many clips or more, exactly as many are drawn; of fewer,
    the same shares. Each class has its share of each split (to a clip). Which clips the source tested on is
    not known: those of the part "Validation" are taken first, since the set's makers held them out.

    Scripted lines and speakers are on both sides of this split, so it flatters: see `split_strict`.

    The same clips give the same splits whatever their order and wherever they lie. The indices of a split are
    in an order that mixes the classes.

    Raises:
        ValueError: fewer than 3 clips.
    """
    _enough(rows)
    total = min(len(rows), sum(SOURCE.values()))
    test = max(round(total * SOURCE["test"] / sum(SOURCE.values())), 1)
    validation = math.ceil((total - test) / 100)
    ranks = _ranks(rows, seed)
    members = defaultdict(list)
    for index, row in enumerate(rows):
        members[row.number].append(((row.part != "Validation", ranks[index]), index))
    # Every class is spread evenly over the interval 0..1: any stretch of it holds its share of each class.
    places = {index: (place + 0.5) / len(ranked)
              for ranked in map(sorted, members.values()) for place, (_, index) in enumerate(ranked)}  # fmt: skip
    order = sorted(places, key=lambda index: (places[index], ranks[index]))
    chosen = {"train": order[test + validation : total], "validation": order[test : test + validation],
              "test": order[:test]}  # fmt: skip
    return {split: _mixed(indices, ranks) for split, indices in chosen.items()}


def split_strict(
    rows: Sequence[Row], seed: int, shares: tuple[float, float, float] = (0.75, 0.1, 0.15)
) -> dict[str, np.ndarray]:
    """Indices of "train", "validation" and "test" so that no line is on two sides, whoever says it.

    Lines are the same if they differ in case, spaces and punctuation only. Clips of a class without a line stay
    together by speaker group (gender, generation, dialect); where that is unknown as well, each is on its own.
    All clips go somewhere. The shares of each class come as close to `shares` as whole lines allow; a class
    with one line alone is in one split alone.

    Order of rows and of indices as in `split_source`.

    Raises:
        ValueError: fewer than 3 clips, or shares that are not three positive numbers.
    """
    _enough(rows)
    if len(shares) != 3 or not all(math.isfinite(share) and share > 0 for share in shares):
        raise ValueError(f"shares are {shares}, expected three positive numbers, for {', '.join(SPLITS)}.")
    ranks = _ranks(rows, seed)
    units = defaultdict(list)
    for index, row in enumerate(rows):
        if letters := _letters(row.line):
            units[letters].append(index)
        elif any(row.speaker):
            units[row.number, row.speaker].append(index)
        else:
            units[index].append(index)

    def counts(unit: Sequence[int]) -> np.ndarray:
        """(21,) clips of each class, and of all, lest small classes leave nothing to the small shares."""
        return np.append(np.bincount([rows[index].number for index in unit], minlength=20), len(unit))

    total = counts(range(len(rows)))
    lacking = np.outer(np.array(shares) / sum(shares), total)  # (3, 21) clips
    weight = 1 / np.maximum(total, 1)
    # Large ones first, as they are hard to place; among those of about one size, as the seed wants it.
    chosen: dict[str, list[int]] = {split: [] for split in SPLITS}
    for unit in sorted(units.values(), key=lambda unit: (-len(unit).bit_length(), min(ranks[i] for i in unit))):
        clips = counts(unit)
        split = int(np.argmax(lacking @ (clips * weight)))
        lacking[split] -= clips
        chosen[SPLITS[split]] += unit
    return {split: _mixed(indices, ranks) for split, indices in chosen.items()}


def _enough(rows: Sequence[Row]) -> None:
    if len(rows) < 3:
        raise ValueError(f"There are {len(rows)} clips, expected at least 3 to split them.")


def _ranks(rows: Sequence[Row], seed: int) -> list[tuple[bytes, str, int]]:
    """Of each row, something random that depends on the seed and the clip, not on the folders it lies in."""
    ranks = []
    for row in rows:
        name = f"{seed} {row.number} {row.part} {_stem(row.wav)} {row.onset}"
        ranks.append((hashlib.sha256(name.encode()).digest(), _text(row.wav), row.root))
    return ranks


def _mixed(indices: list[int], ranks: list[tuple[bytes, str, int]]) -> np.ndarray:
    return np.array(sorted(indices, key=lambda index: ranks[index]), np.int64)


# --- Preparation --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Prepared:
    """A prepared split.

    shards: (n, samples) int16 at 16 kHz each, mapped from disk.
    rows: of all shards in order; onset and offset are in seconds of the prepared clip.
    rejected: reason -> number of clips that could not be prepared. first: reason -> the first of them.
    seconds: length of a clip.
    """

    shards: tuple[np.ndarray, ...]
    rows: tuple[Row, ...]
    rejected: dict[str, int]
    first: dict[str, str]
    seconds: float

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def numbers(self) -> np.ndarray:
        """(N,) int64, classes of the source."""
        return np.array([row.number for row in self.rows], np.int64)

    def samples(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """(B, samples) int16: a copy of the clips at `indices` (0 <= index < N)."""
        indices = np.asarray(indices, np.int64)
        if indices.size and not (indices.min() >= 0 and indices.max() < len(self)):
            raise IndexError(f"Clips {indices.min()} to {indices.max()} are asked for, there are {len(self)}.")
        starts = np.cumsum([0, *(len(shard) for shard in self.shards)])
        where = np.searchsorted(starts, indices, "right") - 1
        found = np.empty((len(indices), round(self.seconds * RATE)), np.int16)
        for shard in np.unique(where):
            here = where == shard
            found[here] = self.shards[shard][indices[here] - starts[shard]]
        return found


def prepare(
    catalogue: Catalogue,
    indices: Mapping[str, Sequence[int] | np.ndarray],
    out_folder: str | Path,
    *,
    seconds: float = 4.0,
    start: str = "area",
    workers: int = 1,
) -> None:
    """Decode the clips of each split to shards of 16 kHz int16 below `out_folder`, for `load_prepared`.

    A clip of the set lasts some 11 s, the source's inputs 4 s. The window of `seconds` begins where the class
    is first heard (start="area"), but never so late that it would reach beyond a file that is long enough: then
    it holds the file's end. With start="file" it begins with the file, and a clip whose class is heard only
    later is rejected. Shorter files are filled up with zeros. What a window cuts off ends at its border: a line
    may be cut where offset is `seconds`.

    A shard holds up to 1,000 clips and is all that is in memory. A run that was killed goes on behind its last
    finished shard; shards that are damaged, or whose sources (size, time of change), labels, settings or decoders
    have changed, are made again. One process at a time may write a folder.

    indices: split -> rows of the catalogue, as the splitting functions return them.
    workers: threads that decode.

    Raises:
        ValueError: seconds, start or a split's name cannot be.
        DataError: the disk is full, the folder cannot be written, or a recording may not be read.
    """
    if not 0.1 <= seconds <= 60:
        raise ValueError(f"seconds is {seconds}, expected 0.1 to 60.")
    if start not in ("area", "file"):
        raise ValueError(f"start is {start!r}, expected 'area' or 'file'.")
    for split in indices:
        if not re.fullmatch(r"\w[\w-]*", split):
            raise ValueError(f"A split is called {split!r}, expected a plain word.")
    try:
        for split, chosen in indices.items():
            rows = [catalogue.rows[index] for index in chosen]
            _prepare_split(catalogue, rows, Path(out_folder), split, seconds, start, workers)
    except OSError as error:
        raise DataError(
            f"The prepared clips cannot be written to {out_folder} ({error}). 1,000 clips of {seconds:g} s need "
            f"{seconds * RATE * 2e-6:.0f} MB. Make room or choose another folder; finished shards are kept."
        ) from error


def _prepare_split(
    catalogue: Catalogue, rows: list[Row], out: Path, split: str, seconds: float, start: str, workers: int
) -> None:
    folder, index = out / split, out / f"{split}.json"
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob(".*"):  # of a run that was killed while writing
        left.unlink()
    blocks = [rows[first : first + _SHARD] for first in range(0, len(rows), _SHARD)]
    checksums = []
    for place, block in enumerate(blocks):
        path = folder / f"{place:05d}.npy"
        paths = [catalogue.path(row) for row in block]
        states = [_state(path) for path in paths]
        inputs = json.dumps([_VERSION, versions(), seconds, start, [astuple(row) for row in block], states])
        key = hashlib.sha256(inputs.encode()).hexdigest()
        record = _read_record(path)
        if record is None or record["key"] != key:
            index.unlink(missing_ok=True)  # the split is not whole any more
            record = _prepare_shard(path, key, paths, block, round(seconds * RATE), start, workers)
        checksums.append(record["checksum"])
    for path in folder.iterdir():  # of an earlier, larger split
        if path.stem.isdecimal() and int(path.stem) >= len(blocks):
            path.unlink()
    with atomic(index) as temporary:
        temporary.write_text(json.dumps({"seconds": seconds, "start": start, "shards": checksums}))


def _state(path: Path) -> tuple[int, int] | None:
    try:
        state = path.stat()
    except OSError:
        return None
    return state.st_size, state.st_mtime_ns


def _prepare_shard(path: Path, key: str, paths: list[Path], rows: list[Row], n: int, start: str, workers: int) -> dict:
    """Writes the samples, then the record that makes them a finished shard, which it returns."""
    samples = np.zeros((len(rows), n), np.int16)

    def one(place: int) -> Row | str:
        try:
            row, part = _window(paths[place], rows[place], n, start)
        except _Rejected as reason:
            return str(reason)
        except Unreadable as error:
            if error.reason == "no access":  # no fault of the recording: to be mended, not to be counted
                raise
            return error.reason
        samples[place, : len(part)] = part
        return row

    with ThreadPoolExecutor(workers) as pool:
        try:
            outcomes = list(pool.map(one, range(len(rows))))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    tally = _Tally()
    kept: list[Row] = []
    for place, outcome in enumerate(outcomes):
        if isinstance(outcome, Row):
            samples[len(kept)] = samples[place]  # in place: a shard is not held twice
            kept.append(outcome)
        else:
            tally.add(outcome, rows[place].wav)
    record = {"key": key, "rejected": tally.rejected, "first": tally.first, "rows": [astuple(row) for row in kept]}
    path.with_suffix(".json").unlink(missing_ok=True)
    with atomic(path) as temporary, temporary.open("wb") as file:
        np.save(file, samples[: len(kept)], allow_pickle=False)
    record |= {"checksum": _checksum(path, record)}
    with atomic(path.with_suffix(".json")) as temporary:
        temporary.write_text(json.dumps(record))
    return record


def _read_record(path: Path) -> dict | None:
    """The record of a finished shard; None if there is none, or it and its samples do not agree."""
    try:
        record = json.loads(path.with_suffix(".json").read_bytes())
        checksum = record.pop("checksum")
        return record | {"checksum": checksum} if _checksum(path, record) == checksum else None
    except (OSError, ValueError, LookupError, TypeError, AttributeError):  # what a damaged record can cause
        return None


def _checksum(path: Path, record: dict) -> str:
    """sha256 over the file of samples and its record."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    digest.update(json.dumps(record).encode())
    return digest.hexdigest()


def _window(path: Path, row: Row, n: int, start: str) -> tuple[Row, np.ndarray]:
    """The row with onset and offset in the window, and up to n samples of it."""
    first = round(row.onset * RATE) if start == "area" else 0
    wave = decode(path, seconds=(first + n) / RATE)
    first = max(min(first, len(wave) - n), 0)
    part = wave[first : first + n]
    onset = max(row.onset - first / RATE, 0.0)
    offset = min(row.offset - first / RATE, len(part) / RATE)
    if onset >= offset:
        raise _Rejected(OUTSIDE)
    return replace(row, onset=round(onset, 6), offset=round(offset, 6)), part


def load_prepared(out_folder: str | Path, split: str) -> Prepared:
    """A split that `prepare` has finished. Reads all of it once to compare its checksums; memory stays free.

    Raises:
        DataError: not (wholly) prepared, or damaged.
    """
    out = Path(out_folder)
    shards, rows, tally = [], [], _Tally()
    again = "Call prepare again: it keeps what is sound and makes the rest."
    try:
        index = json.loads((out / f"{split}.json").read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(f"The split {split!r} in {out} is not prepared, or not to its end. {again}") from error
    for place, checksum in enumerate(index["shards"]):
        path = out / split / f"{place:05d}.npy"
        record = _read_record(path)
        if record is None or record["checksum"] != checksum:
            raise DataError(f"The shard {path} is damaged or missing. {again}")
        shards.append(np.load(path, mmap_mode="r", allow_pickle=False))
        rows += [Row(**dict(zip(_FIELDS, row, strict=True)) | {"speaker": tuple(row[_FIELDS.index("speaker")])})
                 for row in record["rows"]]  # fmt: skip
        for reason, count in record["rejected"].items():
            tally.add(reason, record["first"][reason], count)
    return Prepared(tuple(shards), tuple(rows), tally.rejected, tally.first, index["seconds"])


_FIELDS = tuple(one.name for one in fields(Row))
