"""What a regulariser costs, in time and in multiplications, beside a training step of the network."""

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from lib.corregularization.baselines import mma, ocnn_over_layers, soft_orthogonality, srip
from lib.corregularization.losses import SHORTEST, mean_over_layers, select_layers
from lib.corregularization.models import build_model
from lib.sources import source_hash
from lib.timing import interleave, measured_once, ratio

STEP = "training step"
WHOLE = "Gram, whole"
AUTOGRAD = "Gram, whole, by autograd"


def random_groups(groups: int) -> str:
    """Name of the penalty with random regrouping in a table of costs."""
    return f"Gram, random g = {groups}"


def gram_by_autograd(matrix: Tensor) -> Tensor:
    """The default `gram_penalty` of a kernel matrix (n, d), its gradient left to autograd.

    1/n(n-1) · Σ_{i≠j} c_ij²: what the closed-form gradient is compared with. Differentiating
    C = U Uᵀ takes two products, one for each factor, although both are the same.
    """
    n = matrix.shape[0]
    unit = F.normalize(matrix, dim=1, eps=SHORTEST)
    gram = unit @ unit.T - torch.eye(n, dtype=unit.dtype, device=unit.device)  # (n, n)
    return gram.square().sum() / (n * (n - 1))


def regularisers(groups: Sequence[int] = (2, 4, 8)) -> dict[str, Callable[[Mapping[str, nn.Module]], Tensor]]:
    """What is compared, by its name in the table: functions of the layers, means over layers."""
    return {
        WHOLE: mean_over_layers,
        AUTOGRAD: partial(mean_over_layers, penalty=gram_by_autograd),
        **{random_groups(g): partial(mean_over_layers, groups=g, grouping="random") for g in groups},
        "Soft orthogonality": partial(mean_over_layers, penalty=soft_orthogonality),
        "SRIP": partial(mean_over_layers, penalty=srip),
        "MMA": partial(mean_over_layers, penalty=mma),
        "OCNN": ocnn_over_layers,
    }


def count_macs(task: Callable[[], object]) -> int:
    """Multiply-accumulates of the matrix products and convolutions that `task` runs, backward included.

    Counted from the shapes as they run; elementwise work is not counted. Products of a matrix and
    a vector count only as a matrix with one column.
    """
    with FlopCounterMode(display=False) as counter:
        task()
    return counter.get_total_flops() // 2


def measure_cost(
    model: nn.Module,
    batch: tuple[Tensor, Tensor],
    *,
    rounds: int = 10,
    groups: Sequence[int] = (2, 4, 8),
) -> pd.DataFrame:
    """Cost of each regulariser on all convolutions of `model`, forward and backward, and of a step.

    A training step is forward, cross-entropy, backward and AdamW on `batch`, images (B, C, H, W)
    and labels (B,), on the device of the model and without a regulariser. All are timed in turns,
    `rounds` times, on a copy: the model and the random state stay as they are.

    One row per method, the step first:
        method
        milliseconds    median over rounds; q25, q75: its quartiles
        share           of the training step, median of the ratios within rounds
        relative        to the whole Gram penalty, likewise
        macs            multiply-accumulates, see `count_macs`
    """
    images, labels = batch
    device = images.device
    model = copy.deepcopy(model).train()
    layers = select_layers(model)
    weights = [layer.weight for layer in layers.values()]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()

    def value_and_gradient(regulariser: Callable[[Mapping[str, nn.Module]], Tensor]) -> None:
        torch.autograd.grad(regulariser(layers), weights)

    tasks = {STEP: step}
    tasks |= {name: partial(value_and_gradient, function) for name, function in regularisers(groups).items()}
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        macs = {name: count_macs(task) for name, task in tasks.items()}
        synchronise = partial(torch.cuda.synchronize, device) if device.type == "cuda" else None
        seconds = interleave(tasks, rounds=rounds, synchronise=synchronise)
    return pd.DataFrame(
        {
            "method": name,
            "milliseconds": 1e3 * seconds[name].median(),
            "q25": 1e3 * seconds[name].quantile(0.25),
            "q75": 1e3 * seconds[name].quantile(0.75),
            "share": ratio(seconds, name, STEP),
            "relative": ratio(seconds, name, WHOLE),
            "macs": macs[name],
        }
        for name in tasks
    )


def measured_cost(models: Sequence[str], *, rounds: int = 10, batch_size: int = 128) -> pd.DataFrame:
    """`measure_cost` of each model at 32 px, measured once per machine and code (`timing.measured_once`).

    `make bench` measures anew.
    """
    tables = []
    for name in models:

        def measure(name: str = name) -> pd.DataFrame:
            generator = torch.Generator().manual_seed(0)
            images = torch.randn(batch_size, 3, 32, 32, generator=generator)
            batch = images.contiguous(memory_format=torch.channels_last), torch.arange(batch_size) % 10
            model = build_model(name, 10).to(memory_format=torch.channels_last)
            return measure_cost(model, batch, rounds=rounds)

        key = {"rounds": rounds, "batch": batch_size, "code": source_hash(__name__)}
        tables.append(measured_once(name, key, measure).assign(model=name))
    table = pd.concat(tables, ignore_index=True)
    return table[["model", *[column for column in table if column != "model"]]]
