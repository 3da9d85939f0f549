"""Cost of the regularisers, in time and multiplications, relative to a training step of the network."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.corregularization.baselines import inner_products, mma, ocnn_over_layers, soft_orthogonality, srip
from lib.corregularization.losses import SHORTEST, mean_over_layers, select_layers
from lib.corregularization.models import build_model
from lib.timing import costs

STEP = "training step"
WHOLE = "Gram, whole"
AUTOGRAD = "Gram, whole, by autograd"


def gram_by_autograd(matrix: Tensor) -> Tensor:
    """Return the default `gram_penalty` of a kernel matrix (n, d), differentiated by autograd.

    1/n(n-1) · Σ_{i≠j} c_ij², the reference for the closed-form gradient. Differentiating
    C = U Uᵀ takes two products, one for each factor, although both are the same.
    """
    return inner_products(F.normalize(matrix, dim=1, eps=SHORTEST))


# Regularisers by their name in the table, each a function of the layers that returns the mean over them.
REGULARISERS: dict[str, Callable[[Mapping[str, nn.Module]], Tensor]] = {
    WHOLE: mean_over_layers,
    AUTOGRAD: partial(mean_over_layers, penalty=gram_by_autograd),
    **{f"Gram, random g = {g}": partial(mean_over_layers, groups=g, grouping="random") for g in (2, 4, 8)},
    "Soft orthogonality": partial(mean_over_layers, penalty=soft_orthogonality),
    "SRIP": partial(mean_over_layers, penalty=srip),
    "MMA": partial(mean_over_layers, penalty=mma),
    "OCNN": ocnn_over_layers,
}


def measure_cost(model: nn.Module, batch: tuple[Tensor, Tensor], *, rounds: int = 10) -> pd.DataFrame:
    """Measure the cost of each of `REGULARISERS`, forward and backward, on all convolutions, and of a training step.

    A training step is forward, cross-entropy, backward and AdamW without a regulariser, on `batch`, images (B, C, H, W)
    and labels (B,) on the device of `model`; it updates the model. All are timed in turns, `rounds` times.

    One row per method, the step first: method, macs (multiply-accumulates, see `timing.count_macs`), milliseconds
    (median over rounds), share (time relative to the training step, median of the ratios within rounds), relative (the
    same relative to the whole Gram penalty), threads.
    """
    images, labels = batch
    layers = select_layers(model)
    weights = [layer.weight for layer in layers.values()]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()

    def value_and_gradient(regulariser: Callable[[Mapping[str, nn.Module]], Tensor]) -> None:
        torch.autograd.grad(regulariser(layers), weights)

    tasks = {STEP: step} | {name: partial(value_and_gradient, function) for name, function in REGULARISERS.items()}
    return costs(tasks, rounds=rounds, share=STEP, relative=WHOLE).rename_axis("method").reset_index()


@torch.random.fork_rng()
def measured_cost(models: Sequence[str], *, rounds: int = 10) -> pd.DataFrame:
    """Return `measure_cost` of each model, with a column model, on a batch of 128 images of 32 px."""
    images = torch.randn(128, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    batch = images.contiguous(memory_format=torch.channels_last), torch.arange(128) % 10
    networks = {name: build_model(name, 10).to(memory_format=torch.channels_last) for name in models}
    tables = {name: measure_cost(network, batch, rounds=rounds) for name, network in networks.items()}
    return pd.concat(tables, names=["model", None]).reset_index(0).reset_index(drop=True)
