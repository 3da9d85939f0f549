"""Cost of a training step: time and arithmetic of each arm relative to NT-Xent."""

from collections.abc import Sequence
from functools import partial

import pandas as pd
import torch

from lib.categorical.arms import Arm
from lib.categorical.models import Queue
from lib.categorical.training import Settings, make_step
from lib.timing import costs
from lib.training import start


@torch.random.fork_rng()
def measured_cost(arms: Sequence[Arm], settings: Settings, *, size: int, rounds: int = 5) -> pd.DataFrame:
    """Return arm, macs (per image: both views, backward), milliseconds (median), relative (to the first), threads."""
    pixels = torch.randint(0, 256, (settings.batch_size, 3, size, size), dtype=torch.uint8)
    tasks = {}
    for arm in arms:
        torch.manual_seed(0)
        accelerator = start(settings.device, settings.precision)
        step = make_step(accelerator, arm, pixels, settings, steps=1_000_000)[1]
        for queue in (part for part in accelerator._custom_objects if isinstance(part, Queue)):
            queue.push(torch.rand(queue.size, *arm.shape))  # full, as in all but the first steps
        tasks[arm.label] = partial(step, torch.arange(settings.batch_size))
    table = costs(tasks, rounds=rounds, relative=arms[0].label)
    return table.assign(macs=table.macs // settings.batch_size).rename_axis("arm").reset_index()
