"""The sounds of study 4 from any data set, and what of them a network takes.

    train = load("soundscapes", "train", count=1000, seconds=4.0)
    clips = mels(train)
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from lib.data.audio import Sounds, load_sounds
from lib.data.catalog import DataError
from lib.emergency.classes import EMERGENCY, NAMES, find
from lib.emergency.cnn import Mels
from lib.emergency.features import log_mel
from lib.emergency.soundscapes import Soundscapes, draw_soundscapes

FOLDS = 5
COUNT = {"train": 2000, "test": 600}  # soundscapes, when no count is asked for


def load(
    dataset: str,
    split: str,
    *,
    seconds: float = 4.0,
    count: int | None = None,
    seed: int = 0,
    root: str = "",
) -> Sounds:
    """One split of "soundscapes" (built in, synthetic), "esc50" or "folder:<path>" as clips of `seconds`.

    Raises:
        DataError: see `lib.data.audio.load_sounds`.
    """
    if dataset != "soundscapes":
        return load_sounds(dataset, split, seconds=seconds, count=count, seed=seed, root=root)
    if split not in COUNT:
        raise DataError(f"Soundscapes are drawn for 'train' and 'test', not for {split!r}.")
    return of_soundscapes(draw_soundscapes(count or COUNT[split], seed=seed, split=split, seconds=seconds), split)


def of_soundscapes(drawn: Soundscapes, split: str) -> Sounds:
    """Soundscapes as the sounds of a data set like any other, without what is known of them."""
    index = torch.arange(len(drawn.numbers))
    return Sounds(
        samples=torch.from_numpy(drawn.samples),
        labels=torch.from_numpy(drawn.numbers),
        classes=NAMES,
        folds=index // len(NAMES) % FOLDS,  # each round over the classes goes to one fold
        names=tuple(f"{split} {i}" for i in index.tolist()),
        name="soundscapes (synthetic)" if drawn.speech == "espeak" else "soundscapes (synthetic, babble for speech)",
        checksum=drawn.digest,
        split=split,
    )


def mels(sounds: Sounds, batch_size: int = 64) -> Mels:
    """Whisper's log-mels of all clips, float16."""
    parts = [features_of(batch).half() for batch in sounds.samples.split(batch_size)]
    return Mels(torch.cat(parts), sounds.labels, sounds.classes, sounds.folds, sounds.name, sounds.checksum)


def features_of(samples: Tensor) -> Tensor:
    """int16 (B, n) -> log-mels (B, 1, 80, n // 160) float32."""
    return log_mel(samples.float() / 32768)[:, None]


def in_folds(clips: Mels, folds: int) -> Mels:
    """The same clips in fewer folds; 0 leaves them.

    Raises:
        ValueError: the clips have fewer folds than asked for.
    """
    have = clips.folds.unique()
    if not folds or folds == len(have):
        return clips
    if folds > len(have):
        raise ValueError(f"folds={folds} is more than the {len(have)} folds of {clips.name}; lower it, or 0 takes all")
    joined = torch.searchsorted(have, clips.folds) % folds
    return Mels(clips.mel, clips.labels, clips.classes, joined, clips.name, f"{clips.checksum}/{folds} folds")


def alarming(classes: Sequence[str], names: Sequence[str] = ()) -> tuple[int, ...]:
    """Indices of the classes that are emergencies: those in `names`, or else those that the source calls so.

    Raises:
        ValueError: a name is none of the classes.
    """
    unknown = [name for name in names if name not in classes]
    if unknown:
        raise ValueError(f"there is no class {unknown[0]!r} to alarm at; the classes are {', '.join(classes)}")
    return tuple(i for i, name in enumerate(classes) if (name in names if names else _emergency(name)))


def _emergency(name: str) -> bool:
    try:
        return find(name).number in EMERGENCY
    except KeyError:
        return False
