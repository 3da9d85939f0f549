"""Recordings of ESC-50 among the sounds of the clips: the data set `soundscapes-recorded`.

Of classes that ESC-50 has, half of the events are recordings, and so are half of the distractors and a third of the
backgrounds. All else is as in `soundscapes`: the words, the rooms, the microphones, the known onsets. ESC-50's last
fold is in the test alone and the one before it in the validation; clips cut from one recording share a fold.

ESC-50 (Piczak 2015) is licensed CC BY-NC 3.0, and what is made of it must not be used commercially either.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np

from lib.emergency.synthesis.generators import RATE, Draw, Family

EVENT, DISTRACTOR, BACKGROUND = 0.5, 0.5, 0.3  # shares that are recorded

# Class number -> categories of ESC-50; the others are below.
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
# What sounds behind an event, or behind silence, is no event of another clip: one sound has one label.
BACKGROUNDS = ("crickets", "insects", "rain", "sea_waves", "thunderstorm", "water_drops", "wind")
# door_knock is a copy's spelling of door_wood_knock.
DISTRACTORS = ("can_opening", "cat", "church_bells", "coughing", "crow", "door_knock", "door_wood_knock", "hand_saw",
               "hen", "keyboard_typing", "rooster", "sheep", "snoring")  # fmt: skip


@dataclass(frozen=True)
class Recordings:
    """samples: (N, n) int16 at 16 kHz. categories: of each. checksum: of both."""

    samples: np.ndarray
    categories: tuple[str, ...]
    checksum: str

    def of(self, category: str) -> Family:
        """A generator like those of `events`: a piece of any recording of `category`."""
        found = partial(_piece, self.samples[[name == category for name in self.categories]])
        found.__name__ = f"recorded {category}"
        return found


def _piece(recordings: np.ndarray, draw: Draw, n: int) -> np.ndarray:
    """(n,) from anywhere in what sounds of a recording, one after another where that is shorter."""
    wave = draw.choice(recordings).astype(np.float64)
    loud = np.flatnonzero(np.abs(wave) > 0.02 * np.abs(wave).max())
    wave = wave[loud[0] : loud[-1] + RATE // 20]
    start = draw.integer(0, max(len(wave) - n, 0))
    return np.resize(wave[start : start + n], n)


def either(
    draw: Draw, recipes: tuple[Family, ...], recordings: Recordings | None, categories: tuple[str, ...], share: float
) -> Family:
    """One of the recipes, or with probability `share` a recording where there are any of `categories`."""
    if recordings is not None:
        found = [name for name in categories if name in recordings.categories]
        if found and draw.chance(share):
            return recordings.of(draw.choice(found))
    return draw.choice(recipes)
