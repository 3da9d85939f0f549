"""AI Hub's recordings, decoded once into one memory-mapped file of samples."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
from filelock import FileLock
from tqdm.auto import tqdm

from lib.data.catalog import DataError
from lib.data.common import in_threads
from lib.data.decoding import Unreadable, decode, versions
from lib.emergency.data.aihub import OUTSIDE, Catalogue, Rejected, Row
from lib.emergency.features import RATE
from lib.paths import atomic

_VERSION = 3  # version of the shards
_SHARD = 250  # clips: 32 MB at 4 s each


@dataclass(frozen=True)
class Prepared:
    """Prepared clips. samples: (N, n) int16 at 16 kHz, memory-mapped copy-on-write: changes stay in memory.

    rows: onset and offset are in seconds of the prepared clip. rejected: (reason, file) of clips left out.
    """

    samples: np.ndarray
    rows: tuple[Row, ...]
    rejected: tuple[tuple[str, str], ...]


def prepare(catalogue: Catalogue, indices: Sequence[int] | np.ndarray, folder: Path, *, seconds: float) -> Prepared:
    """Decode the clips at `indices` of a catalogue to 16 kHz int16 below `folder`.

    Clips of the data set last about 11 s, the source's inputs 4 s. The window of `seconds` begins at the onset of
    the class, or earlier, so that it ends with the file, if it would otherwise extend beyond it. Files shorter than
    the window are zero-padded. An offset beyond the window or the file is set to its end; a line whose offset equals
    `seconds` may be cut off.

    Clips are decoded shard by shard, so that only one shard is in memory. An interrupted run resumes after its last
    finished shard; shards that are damaged, or whose sources (size, modification time), labels, length or decoders
    have changed, are rebuilt.

    Raises:
        ValueError: seconds is out of range.
        DataError: the disk is full, the folder cannot be written, or permission to read a recording is missing.
    """
    if not 0.1 <= seconds <= 60:
        raise ValueError(f"seconds is {seconds}, expected 0.1 to 60.")
    n = round(seconds * RATE)
    rows, rejected = [], []
    samples = folder / "samples.int16"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock"), samples.open("r+b" if samples.exists() else "w+b") as file:
            what = f"preparing {len(indices):,} clips of AI Hub, {2 * n * len(indices) / 1e9:.1f} GB"
            for start in tqdm(range(0, len(indices), _SHARD), desc=what, unit="shard", leave=False):
                clips = [catalogue.rows[index] for index in indices[start : start + _SHARD]]
                shard = _shard(file, folder / f"{start // _SHARD:05}.json", catalogue, clips, len(rows), n)
                rows += [Row(*row[:7], tuple(row[7]), *row[8:]) for row in shard["rows"]]
                rejected += map(tuple, shard["rejected"])
            file.truncate(2 * n * len(rows))
    except OSError as error:
        raise DataError(
            f"The prepared clips cannot be written to {folder} ({error}). 1,000 clips of {seconds:g} s need "
            f"{n * 2e-3:.0f} MB. Make room or choose another folder; finished shards are kept."
        ) from error
    mapped = np.memmap(samples, np.int16, "c", shape=(len(rows), n)) if rows else np.zeros((0, n), np.int16)
    return Prepared(mapped, tuple(rows), tuple(rejected))


def _shard(file: BinaryIO, record: Path, catalogue: Catalogue, rows: list[Row], place: int, n: int) -> dict:
    """Return the record of the shard that starts at clip `place` of `file`, from disk if it and its data are intact."""
    states = [_state(catalogue.path(row)) for row in rows]
    inputs = json.dumps([_VERSION, versions(), n, place, [astuple(row) for row in rows], states])
    try:
        kept = json.loads(record.read_bytes())
        file.seek(2 * n * place)
        if kept["checksum"] == _checksum(inputs, kept, [file.read(2 * n * len(kept["rows"]))]):
            return kept
    except (OSError, ValueError, LookupError, TypeError):  # the record is missing or damaged
        pass

    def one(index: int) -> tuple[Row, np.ndarray] | str:
        try:
            return _window(catalogue.path(rows[index]), rows[index], n)
        except Rejected as reason:
            return str(reason)
        except Unreadable as error:
            if error.reason == "no access":  # to be fixed by the user, not counted as a fault of the recording
                raise
            return error.reason

    found = in_threads(one, len(rows))
    clips = [one for one in found if not isinstance(one, str)]
    samples = [clip.data for _, clip in clips]
    rejected = [(one, row.wav) for one, row in zip(found, rows, strict=True) if isinstance(one, str)]
    shard = {"rows": [astuple(row) for row, _ in clips], "rejected": rejected}
    file.seek(2 * n * place)
    file.writelines(samples)
    file.flush()  # the record marks the shard as finished, so it is written last
    with atomic(record) as temporary:
        temporary.write_text(json.dumps(shard | {"checksum": _checksum(inputs, shard, samples)}))
    return shard


def _state(path: Path) -> tuple[int, int] | None:
    try:
        state = path.stat()
    except OSError:
        return None
    return state.st_size, state.st_mtime_ns


def _checksum(inputs: str, shard: dict, samples: Iterable[bytes | memoryview]) -> str:
    digest = hashlib.sha256(json.dumps([inputs, shard["rows"], shard["rejected"]]).encode())
    for part in samples:
        digest.update(part)
    return digest.hexdigest()


def _window(path: Path, row: Row, n: int) -> tuple[Row, np.ndarray]:
    """Return the row with onset and offset relative to the window, and the n samples of the window."""
    first = round(row.onset * RATE)
    wave = decode(path, seconds=(first + n) / RATE)
    first = max(min(first, len(wave) - n), 0)
    part = wave[first : first + n]
    onset = max(row.onset - first / RATE, 0.0)
    offset = min(row.offset - first / RATE, len(part) / RATE)
    if onset >= offset:
        raise Rejected(OUTSIDE)
    return replace(row, onset=round(onset, 6), offset=round(offset, 6)), np.pad(part, (0, n - len(part)))
