"""AI Hub's recordings decoded once, into shards of samples on disk that are memory-mapped."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass, fields, replace
from pathlib import Path

import numpy as np

from lib.data.cache import atomic
from lib.data.catalog import DataError
from lib.data.decoding import Unreadable, decode, versions
from lib.emergency.data.aihub import OUTSIDE, RATE, Catalogue, Rejected, Row, Tally

_VERSION = 1  # of the shards
_SHARD = 1_000  # clips: 128 MB of 4 s each


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
        except Rejected as reason:
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
    tally = Tally()
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
        raise Rejected(OUTSIDE)
    return replace(row, onset=round(onset, 6), offset=round(offset, 6)), part


def load_prepared(out_folder: str | Path, split: str) -> Prepared:
    """A split that `prepare` has finished. Reads all of it once to compare its checksums; memory stays free.

    Raises:
        DataError: not (wholly) prepared, or damaged.
    """
    out = Path(out_folder)
    shards, rows, tally = [], [], Tally()
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
