"""What a training step costs: time and arithmetic of each arm beside the same step with NT-Xent."""

from collections.abc import Callable, Sequence
from functools import partial

import pandas as pd
import torch

from lib.categorical.arms import Arm
from lib.categorical.training import Settings, make_step
from lib.sources import source_hash
from lib.timing import costs, measured_once
from lib.training import start


def step_of(arm: Arm, settings: Settings, pixels: torch.Tensor) -> Callable[[], object]:
    """One training step of a fresh arm on `settings.batch_size` of these images, as training runs it."""
    torch.manual_seed(0)
    step = make_step(start(settings.device, settings.precision), arm, pixels, settings, steps=1_000_000)[1]
    return partial(step, torch.arange(settings.batch_size) % len(pixels))


def measure_steps(arms: Sequence[Arm], settings: Settings, *, size: int, rounds: int = 5) -> pd.DataFrame:
    """Rows: arm, macs (per image: both views, backward), milliseconds (median), relative (to the first arm)."""
    pixels = torch.randint(0, 256, (settings.batch_size, 3, size, size), dtype=torch.uint8)
    tasks = {arm.label: step_of(arm, settings, pixels) for arm in arms}
    table = costs(tasks, rounds=rounds, relative=arms[0].label)
    return table.assign(macs=table.macs // settings.batch_size).rename_axis("arm").reset_index()


def measured_cost(arms: Sequence[Arm], settings: Settings, *, size: int, rounds: int = 5) -> pd.DataFrame:
    """tab24: `measure_steps`, measured once per machine and code (`timing.measured_once`)."""
    key = {"size": size, "rounds": rounds, "settings": repr(settings), "code": source_hash(__name__)}
    key |= {"arms": [repr(arm) for arm in arms]}
    return measured_once(f"categorical-{size}", key, lambda: measure_steps(arms, settings, size=size, rounds=rounds))
