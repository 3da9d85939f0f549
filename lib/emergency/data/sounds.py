"""The sounds of study 4 from any data set, and the features that networks take as input.

train = load("soundscapes", "train", count=1000, seconds=4.0)
clips = mels(train)
"""

import hashlib
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lib.data import cache
from lib.data.audio import Sounds, load_sounds
from lib.data.catalog import DataError, data_root, locate, readable
from lib.data.common import balanced
from lib.emergency.classes import EMERGENCY, NAMES, find
from lib.emergency.data import aihub, aihub_shards, aihub_splits
from lib.emergency.features import HOP, Mels, log_mel, scaled
from lib.emergency.synthesis import recordings
from lib.emergency.synthesis.recordings import Recordings
from lib.emergency.synthesis.soundscapes import Soundscapes, draw_soundscapes
from lib.sources import source_hash

SOUNDSCAPES = ("soundscapes", "soundscapes-recorded")
FOLDS = 5
COUNT = {"train": 2000, "validation": 400, "test": 600}  # default counts for soundscapes


def load(dataset: str, split: str, *, seconds: float = 4.0, count: int | None = None, seed: int = 0) -> Sounds:
    """Return one split of a data set as clips of `seconds`: "soundscapes" (built in, synthetic),
    "soundscapes-recorded", "aihub", "aihub-strict", "esc50" or "folder:<path>".

    "soundscapes-recorded" has recordings of ESC-50 among its sounds. "aihub" is split as in the source, "aihub-strict"
    so that no line is in two splits. count: number of clips; None for all, or for the `COUNT` of soundscapes.

    Raises:
        DataError: the data are missing or damaged, or cannot satisfy the arguments.
    """
    if dataset in ("aihub", "aihub-strict"):
        return _aihub(dataset, split, seconds, count, seed)
    if dataset not in SOUNDSCAPES:
        if split == "validation":
            raise DataError(f"{dataset} has no validation clips, and no words to vote on: take soundscapes or aihub.")
        return load_sounds(dataset, split, seconds=seconds, count=count, seed=seed)
    return of_soundscapes(_drawn(dataset, split, seconds, count, seed), split)


def _drawn(dataset: str, split: str, seconds: float, count: int | None, seed: int, **how) -> Soundscapes:
    if split not in COUNT:
        raise DataError(f"Soundscapes are drawn for 'train', 'validation' and 'test', not for {split!r}.")
    recorded = _recordings(split) if dataset == "soundscapes-recorded" else None
    return draw_soundscapes(count or COUNT[split], seed=seed, split=split, seconds=seconds, recorded=recorded, **how)


def _recordings(split: str) -> Recordings:
    """Return ESC-50's recordings for `split`: the last fold for the test, the one before it for validation."""
    whole = _named(load_sounds("esc50", "test" if split == "test" else "train", seconds=5.0))
    if silent := int((whole.samples == 0).all(1).sum()):
        raise DataError(f"{silent} of the recordings of ESC-50 are digital silence: get a fresh copy of it.")
    if split != "test" and len(whole.folds.unique()) < 2:
        raise DataError(
            "soundscapes-recorded needs three folds of ESC-50, for training, validation and test; there are two. "
            "Take dataset=soundscapes, or a whole copy of ESC-50."
        )
    if split != "test":
        last = whole.folds == whole.folds.max()
        whole = whole.subset(last if split == "validation" else ~last)
    categories = tuple(whole.classes[label] for label in whole.labels.tolist())
    return Recordings(whole.samples.numpy(), categories, whole.checksum)


def recorded(count: int, *, seed: int = 0) -> Sounds | None:
    """Return `count` clips (whole, 5 s, from all classes) of ESC-50's last fold, which training scenes never use;
    None if `count` is 0 or ESC-50 is not on this machine.

    Raises:
        DataError: ESC-50 is damaged, or has fewer clips.
    """
    if not count or locate("esc50") is None:
        return None
    return _named(load_sounds("esc50", "test", seconds=5.0, count=count, seed=seed))


def _named(sounds: Sounds) -> Sounds:
    """Return ESC-50's `sounds`; DataError if none of their classes has a name that `recordings` lists."""
    known = {*chain(*recordings.EVENTS.values()), *recordings.BACKGROUNDS, *recordings.DISTRACTORS}
    if known.isdisjoint(sounds.classes):
        first = ", ".join(sounds.classes[:5])
        raise DataError(f"The classes of ESC-50 are named {first} here: name its folders as there (glass_breaking).")
    return sounds


def load_sets(
    dataset: str, *, train_count: int = 0, test_count: int = 0, seconds: float = 4.0, seed: int = 0
) -> tuple[Sounds, Sounds | None, Soundscapes | None]:
    """Return (training clips, test clips, ground truth of the test); a count of 0 means all, or `COUNT` of soundscapes.

    ESC-50 has no test set (it is evaluated over its folds): the second is None. The third is for soundscapes only.
    """
    how = {"seconds": seconds, "seed": seed}
    if dataset == "esc50":
        return load(dataset, "all", count=train_count or None, **how), None, None
    return load(dataset, "train", count=train_count or None, **how), *_test(dataset, test_count, stems=True, **how)


def _test(dataset: str, count: int, *, seconds: float, seed: int, **more) -> tuple[Sounds, Soundscapes | None]:
    if dataset not in SOUNDSCAPES:
        return load(dataset, "test", seconds=seconds, count=count or None, seed=seed), None
    truth = _drawn(dataset, "test", seconds, count, seed, **more)
    return of_soundscapes(truth, "test"), truth


def three_sets(
    dataset: str, *, train_count: int, validation_count: int, test_count: int, seconds: float, seed: int
) -> tuple[Sounds, Sounds, Sounds, Soundscapes | None]:
    """Return (training, validation, test, ground truth of the test); a count of 0 means all, or `COUNT` of soundscapes.

    For ESC-50, the first fold is the test and the second the validation, and `train_count` is that of all folds; for
    a folder, the validation is one fold of its training clips. The fourth is for soundscapes only.
    """
    how = {"seconds": seconds, "seed": seed}
    if dataset == "esc50":
        whole = load(dataset, "all", count=train_count or None, **how)
        if len(whole.folds.unique()) < 3:
            raise DataError(
                "Training, validation and test take three folds of ESC-50: get a whole copy, or set train_count=0."
            )
        first, second = whole.folds.unique()[:2]
        masks = {"train": (whole.folds != first) & (whole.folds != second), "validation": whole.folds == second,
                 "test": whole.folds == first}  # fmt: skip
        return (*(replace(whole.subset(mask), split=split) for split, mask in masks.items()), None)
    test = _test(dataset, test_count, **how)
    train = load(dataset, "train", count=train_count or None, **how)
    if dataset in (*SOUNDSCAPES, "aihub", "aihub-strict"):
        return train, load(dataset, "validation", count=validation_count or None, **how), *test
    out = train.folds == train.folds.min()
    return train.subset(~out), replace(train.subset(out), split="validation"), *test


def of_soundscapes(drawn: Soundscapes, split: str) -> Sounds:
    """Return soundscapes as `Sounds`, which keep only labels, spans and words of the ground truth."""
    index = torch.arange(len(drawn.numbers))
    recorded = ", with recordings of ESC-50, CC BY-NC" if drawn.recorded else ""
    return Sounds(
        samples=torch.from_numpy(drawn.samples),
        labels=torch.from_numpy(drawn.numbers),
        classes=NAMES,
        folds=index // len(NAMES) % FOLDS,  # each round over the classes is in one fold
        names=tuple(f"{split} {i}" for i in index.tolist()),
        name=f"soundscapes (synthetic{recorded})",
        checksum=drawn.digest,
        split=split,
        spans=tuple(tuple((label.onset, label.offset) for label in clip.labels if label.kind != "distractor")
                    for clip in drawn.clips),
        texts=tuple(clip.transcript for clip in drawn.clips),
    )  # fmt: skip


def _aihub(dataset: str, split: str, seconds: float, count: int | None, seed: int) -> Sounds:
    """Return AI Hub clips, prepared once in `build/cache/aihub`; silence is among the classes, but has no clips."""
    base = data_root()
    catalogue = _catalogue(base, tuple(sorted(one for one in (base / "aihub-controls").glob("*") if one.is_dir())))
    split_by = aihub_splits.split_strict if dataset == "aihub-strict" else aihub_splits.split_source
    parts = split_by(catalogue.rows, seed)
    if split not in parts:
        raise DataError(f"AI Hub's sounds are split into {', '.join(parts)}; there is no {split!r}.")
    chosen = parts[split]
    if count is not None:
        chosen = chosen[balanced(np.array([catalogue.rows[index].number for index in chosen]), count, seed)]
    where = f"{base}\0{dataset}\0{split}\0{seed}\0{count}\0{seconds}"
    folder = cache.folder("aihub") / _digest(where).hex()[:16]
    ready = aihub_shards.prepare(catalogue, chosen, folder, seconds=seconds)
    labels = np.array([row.number for row in ready.rows], np.int64)
    # Clips of one sentence, or of one file if nothing is said, share a fold, so that no sentence is in two folds.
    kept = [aihub.letters_of(row.line) or f"{row.root} {row.json or row.wav}" for row in ready.rows]
    folds = [int.from_bytes(_digest(text)[:4], "big") % FOLDS for text in kept]
    rejected = Counter(reason for reason, _ in catalogue.rejected + ready.rejected)
    name = "AI Hub emergency sounds" + (" (strict split)" if dataset == "aihub-strict" else "")
    name += f", {rejected.total():,} files rejected" if rejected else ""
    cut = sum(bool(row.line) and row.offset >= seconds - 1e-3 for row in ready.rows)  # their last words are cut off
    name += f", {cut:,} lines reach beyond their clip" if cut else ""
    return Sounds(
        samples=torch.from_numpy(ready.samples),
        labels=torch.from_numpy(labels),
        classes=NAMES,
        folds=torch.tensor(folds),
        names=tuple(row.wav for row in ready.rows),
        name=name,
        checksum=cache.checksum(ready.samples, labels),
        split=split,
        rejected=dict(rejected),
        spans=tuple(((row.onset, row.offset),) for row in ready.rows),
        texts=tuple(row.line for row in ready.rows),
    )


@lru_cache(maxsize=1)  # 78,616 JSON files, which every split needs
def _catalogue(base: Path, controls: tuple[Path, ...]) -> aihub.Catalogue:
    found = aihub.read_catalogue(base / "aihub", controls=controls)
    if missing := sorted(set(range(1, len(NAMES))) - {row.number for row in found.rows}):
        warnings.warn(f"There are no clips of {', '.join(NAMES[number] for number in missing)}: put recordings into "
                      f"{base / 'aihub-controls'}/<any name>/<class>/, and restart an open notebook.",
                      stacklevel=3)  # fmt: skip
    return found


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()


def mels(sounds: Sounds, batch_size: int = 16) -> Mels:
    """Return Whisper's log-mels of all clips as float16."""
    # Filled batch by batch: concatenating the batches would take twice the memory.
    mel = torch.empty(len(sounds), 1, 80, sounds.samples.shape[1] // HOP, dtype=torch.float16)
    for place, batch in zip(mel.split(batch_size), sounds.samples.split(batch_size), strict=True):
        place.copy_(features_of(batch))
    # A network trained on other features must not resume training on these.
    checksum = f"{sounds.checksum}/features {source_hash('lib.emergency.features')[:16]}"
    return Mels(mel, sounds.labels, sounds.classes, sounds.folds, sounds.name, checksum)


def features_of(samples: Tensor) -> Tensor:
    """Return log-mels (B, 1, 80, n // 160) float32 of clips (B, n), int16 or float32 in -1 to 1, scaled to `PEAK`."""
    return log_mel(scaled(samples))[:, None]


def in_folds(clips: Mels, folds: int) -> Mels:
    """Return the same clips in fewer folds; 0 keeps the folds.

    Raises:
        ValueError: the clips have fewer folds than asked for.
    """
    have = clips.folds.unique()
    if not folds or folds == len(have):
        return clips
    if folds > len(have):
        raise ValueError(f"folds={folds} is more than the {len(have)} folds of {clips.name}; lower it, or 0 takes all")
    joined = torch.searchsorted(have, clips.folds) % folds
    return replace(clips, folds=joined, checksum=f"{clips.checksum}/{folds} folds")


def alarming(classes: Sequence[str], names: Sequence[str] = ()) -> tuple[int, ...]:
    """Return the indices of the classes that are emergencies: those in `names`, or else those of the source.

    Raises:
        ValueError: a name is not one of the classes.
    """
    classes, names = [readable(name) for name in classes], [readable(name) for name in names]  # NFC and NFD are equal
    unknown = [name for name in names if name not in classes]
    if unknown:
        raise ValueError(f"there is no class {unknown[0]!r} to alarm at; the classes are {', '.join(classes)}")
    names = names or [name for name in classes if (row := find(name)) and row.number in EMERGENCY]
    return tuple(i for i, name in enumerate(classes) if name in names)
