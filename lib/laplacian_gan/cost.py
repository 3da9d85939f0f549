"""Cost of a training step: network sizes, arithmetic and time."""

from collections.abc import Callable, Sequence
from functools import partial

import pandas as pd
import torch
from torch import Tensor

from lib.laplacian_gan import training
from lib.laplacian_gan.arms import DCGAN, Arm
from lib.laplacian_gan.models import parameter_count, resolutions
from lib.timing import costs
from lib.training import start


def our_step(size: int, width: int, precision: str, arm: Arm = DCGAN, device: str = "cpu") -> Callable:
    """Return the training step of a newly built arm, including the moving average: step(real, number) -> terms."""
    accelerator = start(device, precision)
    scales = torch.ones(len(resolutions(size)), device=accelerator.device)
    step = training.make_step(accelerator, arm, size, width, 0.999, scales, read=lambda real: real)[2]
    return lambda real, number=0: step((number, real))


def _four(step: Callable, real: Tensor) -> None:
    for number in range(4):
        step(real, number)


@torch.random.fork_rng()
def measured_cost(arms: Sequence[Arm], *, size: int, width: int, batch_size: int = 64, rounds: int = 5) -> pd.DataFrame:
    """Measure the cost of a training step of each arm on the CPU in float32.

    Columns: arm, generator and discriminator (parameters), macs (multiply-accumulates per step and image,
    backward included), milliseconds (median), relative (to the first arm, median of ratios), threads.
    """
    torch.manual_seed(0)
    real = torch.rand(batch_size, 3, size, size) * 2 - 1
    # Four consecutive steps, as an arm may compute its penalty only at every fourth step.
    tasks = {arm.label: partial(_four, our_step(size, width, "no", arm), real) for arm in arms}
    table = costs(tasks, rounds=rounds, relative=arms[0].label)
    players = [training.networks(arm, size, width) for arm in arms]
    parameters = [[0 if one is None else parameter_count(one) for one in pair] for pair in players]
    sizes = pd.DataFrame(parameters, table.index, ["generator", "discriminator"])
    table = table.assign(macs=table.macs // (4 * batch_size), milliseconds=table.milliseconds / 4)
    return sizes.join(table).rename_axis("arm").reset_index()
