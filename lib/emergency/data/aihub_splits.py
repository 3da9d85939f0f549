"""Training, validation and test of AI Hub's recordings: as the source drew them, and without shared sentences."""

import hashlib
import math
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from lib.data.catalog import readable
from lib.emergency.data.aihub import SOURCE, SPLITS, Row, letters_of, stem_of

STRICT_SHARES = (0.75, 0.1, 0.15)


def split_source(rows: Sequence[Row], seed: int) -> dict[str, np.ndarray]:
    """Indices of "train", "validation" and "test" as the source has them: clip by clip.

    The source's numbers are 12,102 clips of 78,616 for the test, and of the remaining 66,514 a hundredth,
    rounded up, for validation. Where there are as many clips or more, exactly as many are drawn; of fewer,
    the same shares. Each class has its share of each split (to a clip). Which clips the source tested on is
    not known: those of the part "Validation" are taken first, since the set's makers held them out.

    Scripted lines and speakers are on both sides of this split, so it flatters: see `split_strict`.

    The same clips give the same splits whatever their order and wherever they lie. The indices of a split are
    in an order that mixes the classes.
    """
    total = min(len(rows), sum(SOURCE.values()))
    test = max(round(total * SOURCE["test"] / sum(SOURCE.values())), 1)
    validation = math.ceil((total - test) / 100)
    ranks = _ranks(rows, seed)
    members = defaultdict(list)
    for index in sorted(range(len(rows)), key=lambda index: (rows[index].part != "Validation", ranks[index])):
        members[rows[index].number].append(index)
    # Every class is spread evenly over the interval 0..1: any stretch of it holds its share of each class.
    places = {index: (place + 0.5) / len(ranked) for ranked in members.values() for place, index in enumerate(ranked)}
    order = sorted(places, key=lambda index: (places[index], ranks[index]))
    return _mixed([order[test + validation : total], order[test : test + validation], order[:test]], ranks)


def split_strict(rows: Sequence[Row], seed: int) -> dict[str, np.ndarray]:
    """Indices of "train", "validation" and "test" so that no line is on two sides, whoever says it.

    Lines are the same if they differ in case, spaces and punctuation only. Clips of a class without a line stay
    together by speaker group (gender, generation, dialect); where that is unknown as well, those of one file do.
    All clips go somewhere. The shares of each class come as close to `STRICT_SHARES` as whole lines allow; a class
    with one line alone is in one split alone.

    Order of rows and of indices as in `split_source`.
    """
    ranks = _ranks(rows, seed)
    units = defaultdict(list)
    for index, row in enumerate(rows):
        source = (row.number, row.speaker) if any(row.speaker) else (row.root, row.json or row.wav)
        units[letters_of(row.line) or source].append(index)

    def counts(unit: Sequence[int]) -> np.ndarray:
        """(21,) clips of each class, and of all, lest small classes leave nothing to the small shares."""
        return np.append(np.bincount([rows[index].number for index in unit], minlength=20), len(unit))

    total = counts(range(len(rows)))
    lacking = np.outer(STRICT_SHARES, total)  # (3, 21) clips
    weight = 1 / np.maximum(total, 1)
    # Large ones first, as they are hard to place; among those of about one size, as the seed wants it.
    chosen: list[list[int]] = [[], [], []]
    for unit in sorted(units.values(), key=lambda unit: (-len(unit).bit_length(), min(ranks[i] for i in unit))):
        clips = counts(unit)
        split = int(np.argmax(lacking @ (clips * weight)))
        lacking[split] -= clips
        chosen[split] += unit
    return _mixed(chosen, ranks)


def _ranks(rows: Sequence[Row], seed: int) -> list[tuple[bytes, str, int]]:
    """Of each row, something random that depends on the seed and the clip, not on the folders it lies in."""
    names = (f"{seed} {row.number} {row.part} {stem_of(row.wav)} {row.onset}" for row in rows)
    return [(hashlib.sha256(name.encode()).digest(), readable(row.wav), row.root)
            for name, row in zip(names, rows, strict=True)]  # fmt: skip


def _mixed(splits: list[list[int]], ranks: list[tuple[bytes, str, int]]) -> dict[str, np.ndarray]:
    return {split: np.array(sorted(indices, key=ranks.__getitem__), np.int64)
            for split, indices in zip(SPLITS, splits, strict=True)}  # fmt: skip
