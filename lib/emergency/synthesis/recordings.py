"""ESC-50 recordings among the sounds of the clips: the data set `soundscapes-recorded`.

For classes that ESC-50 covers, half of the events are recordings, as are half of the distractors and 30 % of the
backgrounds. Everything else is as in `soundscapes`: words, rooms, microphones and known onsets. ESC-50's last fold
is used only for the test and the one before it only for validation; clips cut from one recording share a fold.

A tenth of the clips of training and validation are dry: one recording of ESC-50 with nothing but a gain applied, like
a recording played to the recogniser. Ten classes have recordings: silence, all five ordinary ones, and four of the
fourteen emergencies, so a smaller share of the dry clips than of the others are emergencies.

ESC-50 (Piczak 2015) is licensed CC BY-NC 3.0, so clips made from it must not be used commercially either.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np

from lib.emergency.synthesis.generators import RATE, Draw, Family

EVENT, DISTRACTOR, BACKGROUND = 0.5, 0.5, 0.3  # probability of a recording
DRY = 0.2  # probability of a dry clip for a class with recordings (ten of twenty)

# Class number -> categories of ESC-50; the remaining categories are below.
EVENTS = {
    2: ("glass_breaking",),
    8: ("crackling_fire",),
    9: ("crying_baby",),
    14: ("siren",),
    15: ("breathing", "brushing_teeth", "clapping", "clock_tick", "dog", "door_wood_creaks", "drinking_sipping",
         "footsteps", "laughing", "mouse_click", "pouring_water", "sneezing", "toilet_flush"),
    16: ("airplane", "car_horn", "chainsaw", "chirping_birds", "cow", "engine", "fireworks", "frog", "helicopter",
         "pig", "train"),
    17: ("washing_machine",),
    18: ("vacuum_cleaner",),
    19: ("clock_alarm",),
}  # fmt: skip
# A category heard behind events or in silent clips is never an event itself: one sound has one label. Coughing is left
# out: synthetic coughing is a medical emergency.
BACKGROUNDS = ("crickets", "insects", "rain", "sea_waves", "thunderstorm", "water_drops", "wind")
# One copy of ESC-50 spells door_wood_knock as door_knock.
DISTRACTORS = ("can_opening", "cat", "church_bells", "crow", "door_knock", "door_wood_knock", "hand_saw",
               "hen", "keyboard_typing", "rooster", "sheep", "snoring")  # fmt: skip


@dataclass(frozen=True)
class Recordings:
    """Recordings to draw from. samples: (N, n) int16 at 16 kHz. categories: one per recording. checksum: of both."""

    samples: np.ndarray
    categories: tuple[str, ...]
    checksum: str

    def of(self, category: str) -> Family:
        """Return a generator like those of `events` that cuts a piece from a random recording of `category`."""
        found = partial(_piece, self.samples[[name == category for name in self.categories]])
        found.__name__ = f"recorded {category}"
        return found


def _piece(recordings: np.ndarray, draw: Draw, n: int) -> np.ndarray:
    """Return (n,) from a random place in the audible part of a random recording, repeated if that is shorter."""
    wave = draw.choice(recordings).astype(np.float64)
    loud = np.flatnonzero(np.abs(wave) > 0.02 * np.abs(wave).max())
    wave = wave[loud[0] : loud[-1] + RATE // 20]
    start = draw.integer(0, max(len(wave) - n, 0))
    return np.resize(wave[start : start + n], n)


def either(
    draw: Draw, recipes: tuple[Family, ...], recordings: Recordings | None, categories: tuple[str, ...], share: float
) -> Family:
    """Return a random recipe, or with probability `share` a recording if there are any of `categories`."""
    found = _among(recordings, categories)
    return recordings.of(draw.choice(found)) if found and draw.chance(share) else draw.choice(recipes)


def dry(draw: Draw, recordings: Recordings | None, number: int, n: int) -> tuple[str, np.ndarray] | None:
    """Return with probability `DRY` a recording of class `number` (for silence, a background or distractor) as
    (category, (n,) int16), else None. Without recordings of the class nothing is drawn, so its clips do not change."""
    found = _among(recordings, EVENTS.get(number, ()) if number else BACKGROUNDS + DISTRACTORS)
    if not found or not draw.chance(DRY):
        return None
    category = draw.choice(found)
    wave = draw.choice(recordings.samples[np.array(recordings.categories) == category]).astype(np.float64)
    # A random section that contains the loudest sample; shorter recordings are padded with zeros.
    top, near = int(np.abs(wave).argmax()), RATE // 10
    low, high = np.clip((top + near - n, top - near), *sorted((0, len(wave) - n))).tolist()
    start, around = draw.integer(low, high), max(n - len(wave), 0)
    piece = np.pad(wave, around)[start + around :][:n]
    level = 10 ** (draw.between(-30, -0.5) / 20)  # of the peak, as in `rooms.microphone`
    return category, np.rint(piece * (level * 32767 / np.abs(piece).max())).astype(np.int16)


def _among(recordings: Recordings | None, categories: tuple[str, ...]) -> list[str]:
    return [name for name in categories if recordings is not None and name in recordings.categories]
