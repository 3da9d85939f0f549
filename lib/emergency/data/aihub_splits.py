"""Training, validation and test of AI Hub's recordings: as the source drew them, and without shared sentences."""

import hashlib
import math
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from lib.data.catalog import readable
from lib.emergency.data.aihub import SOURCE, SPLITS, Row, letters_of, stem_of


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
        if letters := letters_of(row.line):
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
        name = f"{seed} {row.number} {row.part} {stem_of(row.wav)} {row.onset}"
        ranks.append((hashlib.sha256(name.encode()).digest(), readable(row.wav), row.root))
    return ranks


def _mixed(indices: list[int], ranks: list[tuple[bytes, str, int]]) -> np.ndarray:
    return np.array(sorted(indices, key=lambda index: ranks[index]), np.int64)
