"""What the notebook does with trained arms: choose strengths, prune, and put results into tables."""

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from lib.corregularization.analysis import coherence_table, group_coherence, prune_redundant
from lib.corregularization.arms import Arm
from lib.corregularization.losses import layer_matrix, select_layers
from lib.corregularization.training import Settings, Trained, score, train_arms

if TYPE_CHECKING:
    from lib.data.images import Images


def histories(trained: Mapping[str, Trained], seed: int) -> pd.DataFrame:
    """Loss curves of several arms: arm, seed, epoch, task (training loss), test_loss, test_accuracy."""
    columns = ["arm", "seed", "epoch", "task", "test_loss", "test_accuracy"]
    return pd.concat(
        [result.history.assign(arm=label, seed=seed)[columns] for label, result in trained.items()],
        ignore_index=True,
    )


def correlations(trained: Mapping[str, Trained], seed: int) -> pd.DataFrame:
    """Correlation values of several arms: arm, seed, epoch, layer, n, d, rms, mean, max, welch."""
    return pd.concat(
        [result.layers.assign(arm=label, seed=seed) for label, result in trained.items()], ignore_index=True
    )


def coherences(trained: Mapping[str, Trained], seed: int) -> pd.DataFrame:
    """Similarity and spectrum of the filters of each layer after training, per arm: `analysis.coherence_table`."""
    tables = []
    for label, result in trained.items():
        layers = {f"conv{i}": layer for i, layer in enumerate(select_layers(result.model).values(), 1)}
        tables.append(coherence_table(layers).assign(arm=label, seed=seed))
    return pd.concat(tables, ignore_index=True)


def summary(trained: Mapping[str, Trained], seed: int, **facts: object) -> pd.DataFrame:
    """One row per arm: last-epoch accuracy in %, losses in nats, and |cosine| averaged over layers."""
    rows = []
    for label, result in trained.items():
        last, layers = (
            result.history.iloc[-1],
            result.layers[result.layers.epoch == result.layers.epoch.max()],
        )
        rows.append(
            {**facts, "arm": label, "seed": seed, "strength": result.arm.strength}
            | {"accuracy": 100 * last.test_accuracy, "test_loss": last.test_loss, "train_loss": last.task}
            | {"rms": layers.rms.mean(), "max": layers["max"].mean()}
        )
    return pd.DataFrame(rows)


def group_table(trained: Mapping[str, Trained], groups: int, seed: int) -> pd.DataFrame:
    """RMS |cosine| within and across contiguous groups, averaged over layers, whatever an arm was trained with.

    Every arm is cut in the same `groups` contiguous groups, so that those trained with fixed
    groups and those that never heard of groups are compared on the same pairs.
    """
    rows = []
    for label, result in trained.items():
        pairs = [group_coherence(layer_matrix(layer), groups) for layer in select_layers(result.model).values()]
        within, across = np.mean(pairs, axis=0)
        own = result.arm.options.get("groups", 1)
        rows.append({"arm": label, "seed": seed, "groups": own, "within": within, "across": across})
    return pd.DataFrame(rows)


def kernels(trained: Mapping[str, Trained], layers: Sequence[int] = (0, -1)) -> dict[str, dict[str, Tensor]]:
    """Layer → arm → kernel (n, C_in, k, k) of the given convolutions, by their position in the network."""
    found: dict[str, dict[str, Tensor]] = {}
    for label, result in trained.items():
        convolutions = list(select_layers(result.model).values())
        for position in layers:
            name = f"conv{position % len(convolutions) + 1}"
            found.setdefault(name, {})[label] = convolutions[position].weight.detach().float().contiguous()
    return found


def split_validation(images: "Images", share: float = 0.2, *, seed: int = 0) -> tuple["Images", "Images"]:
    """Two disjoint random parts of the training images: to train on, and to choose strengths on."""
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    held_out = max(1, round(share * len(images)))
    return images.subset(order[held_out:]), images.subset(order[:held_out])


def choose_strengths(
    arms: Iterable[Arm],
    grid: Sequence[float],
    train: "Images",
    settings: Settings,
    *,
    seed: int,
    checkpoints: Path | None = None,
) -> list[Arm]:
    """The arms with the strengths that gave the best accuracy on a part of the *training* images.

    Every penalty gets the same grid, relative to its arm's own strength, and the same budget.
    A grid of one value chooses nothing and trains nothing.
    """
    if len(grid) == 1:
        return [replace(arm, strength=arm.strength * grid[0]) for arm in arms]
    fit_on, choose_on = split_validation(train, seed=seed)
    chosen = []
    for arm in arms:
        trials = [replace(arm, label=f"{arm.label} x {f:g}", strength=arm.strength * f) for f in grid]
        found = train_arms(trials, fit_on, choose_on, settings, seed=seed, checkpoints=checkpoints)
        best = max(found.values(), key=lambda result: result.history.test_accuracy.iloc[-1])
        chosen.append(replace(arm, strength=best.arm.strength))
    return chosen


def prune(model: nn.Module, share: float) -> nn.Module:
    """A copy in which `share` of each convolution's filters, the most redundant, answer zero.

    Works for convolutions that are followed by their batch norm in a Sequential (VanillaCNN):
    its scale and shift go to zero with the filter, so that the channel is silent.
    """
    model = copy.deepcopy(model)
    for block in model.features:
        convolution, norm = block[0], block[1]
        gone = ~prune_redundant(convolution, share)
        with torch.no_grad():
            convolution.weight[gone] = 0
            for parameter in (norm.weight, norm.bias):
                parameter[gone] = 0
            norm.running_mean[gone] = 0
    return model


def pruning_table(trained: Mapping[str, Trained], images: "Images", shares: Sequence[float], seed: int) -> pd.DataFrame:
    """Accuracy in % after removing a share of the filters, without training again: arm, seed, share, accuracy."""
    return pd.DataFrame(
        {
            "arm": label,
            "seed": seed,
            "share": share,
            "accuracy": 100 * score(prune(result.model, share), images)[1],
        }
        for label, result in trained.items()
        for share in shares
    )
