"""Training, validation and test splits of AI Hub's recordings: the source's, and one without shared sentences."""

import hashlib
import math
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from lib.data.catalog import readable
from lib.emergency.data.aihub import SOURCE, SPLITS, Row, letters_of, stem_of

STRICT_SHARES = (0.75, 0.1, 0.15)


def split_source(rows: Sequence[Row], seed: int) -> dict[str, np.ndarray]:
    """Return the indices of "train", "validation" and "test", split clip by clip as in the source.

    The source uses 12,102 of 78,616 clips for the test and a hundredth of the remaining 66,514, rounded up, for
    validation. From at least 78,616 clips, exactly these numbers are drawn; from fewer, the same shares. Every split
    has the same proportions of classes (to within a clip). Which clips the source tested on is unknown: the test set
    takes those of the part "Validation" first, since the publishers of the data set held them out.

    Scripted lines and speakers occur in several splits, so results are optimistic: see `split_strict`.

    The same clips give the same splits regardless of their order and location. The indices of a split are in an
    order that mixes the classes.
    """
    total = min(len(rows), sum(SOURCE.values()))
    test = max(round(total * SOURCE["test"] / sum(SOURCE.values())), 1)
    validation = math.ceil((total - test) / 100)
    ranks = _ranks(rows, seed)
    members = defaultdict(list)
    for index in sorted(range(len(rows)), key=lambda index: (rows[index].part != "Validation", ranks[index])):
        members[rows[index].number].append(index)
    # Each class is spread evenly over the interval 0..1, so any section of it holds the same share of every class.
    places = {index: (place + 0.5) / len(ranked) for ranked in members.values() for place, index in enumerate(ranked)}
    order = sorted(places, key=lambda index: (places[index], ranks[index]))
    return _mixed([order[test + validation : total], order[test : test + validation], order[:test]], ranks)


def split_strict(rows: Sequence[Row], seed: int) -> dict[str, np.ndarray]:
    """Return the indices of "train", "validation" and "test" so that no line is in two splits, whoever speaks it.

    Lines that differ only in case, spaces and punctuation are the same. Clips of a class without a line stay
    together by speaker group (gender, generation, dialect), or by file if that is unknown as well. Every clip is
    in a split. The shares of each class approximate `STRICT_SHARES` as far as whole lines allow; a class with a
    single line is in one split only.

    The order of rows and indices is handled as in `split_source`.
    """
    ranks = _ranks(rows, seed)
    units = defaultdict(list)
    for index, row in enumerate(rows):
        source = (row.number, row.speaker) if any(row.speaker) else (row.root, row.json or row.wav)
        units[letters_of(row.line) or source].append(index)

    def counts(unit: Sequence[int]) -> np.ndarray:
        """Return (21,) clips per class and in total; the total lets small splits get some of the small classes."""
        return np.append(np.bincount([rows[index].number for index in unit], minlength=20), len(unit))

    total = counts(range(len(rows)))
    lacking = np.outer(STRICT_SHARES, total)  # (3, 21) clips
    weight = 1 / np.maximum(total, 1)
    # Large units first, as they are hard to place; those of similar size in an order that depends on the seed.
    chosen: list[list[int]] = [[], [], []]
    for unit in sorted(units.values(), key=lambda unit: (-len(unit).bit_length(), min(ranks[i] for i in unit))):
        clips = counts(unit)
        split = int(np.argmax(lacking @ (clips * weight)))
        lacking[split] -= clips
        chosen[split] += unit
    return _mixed(chosen, ranks)


def _ranks(rows: Sequence[Row], seed: int) -> list[tuple[bytes, str, int]]:
    """Return a random sort key per row that depends on the seed and the clip, not on where it is stored."""
    names = (f"{seed} {row.number} {row.part} {stem_of(row.wav)} {row.onset}" for row in rows)
    return [(hashlib.sha256(name.encode()).digest(), readable(row.wav), row.root)
            for name, row in zip(names, rows, strict=True)]  # fmt: skip


def _mixed(splits: list[list[int]], ranks: list[tuple[bytes, str, int]]) -> dict[str, np.ndarray]:
    return {split: np.array(sorted(indices, key=ranks.__getitem__), np.int64)
            for split, indices in zip(SPLITS, splits, strict=True)}  # fmt: skip
