"""What the notebook does with trained arms: choose strengths, prune, and put results into tables."""

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from lib.corregularization.analysis import coherence, group_coherence, norms_and_angles, prune_redundant, similarity
from lib.corregularization.arms import Arm
from lib.corregularization.losses import select_layers
from lib.corregularization.training import Settings, Trained, score, train_arms, with_label_noise
from lib.data.catalog import DataError
from lib.metrics.comparison import MARGIN, paired_table

if TYPE_CHECKING:
    from lib.data.images import Images

TUNING_SEEDS = (1000, 1001)  # of no run, and the same for all, so that an arm has one strength whatever the run's seed
LEARNT = 1 / 9  # of the way from chance to no errors: before it, too little is learnt to tell two penalties apart
NOT_JUDGED = "not judged"
FURTHER = 3  # how often a search goes on beyond its grid


def histories(trained: Mapping[str, Trained], seed: int) -> pd.DataFrame:
    """Loss curves of several arms: arm, seed, epoch, task (training loss), test_loss, test_accuracy."""
    columns = ["arm", "seed", "epoch", "task", "test_loss", "test_accuracy"]
    tables = [result.history.assign(arm=label, seed=seed)[columns] for label, result in trained.items()]
    return pd.concat(tables, ignore_index=True)


def correlations(trained: Mapping[str, Trained], seed: int) -> pd.DataFrame:
    """Correlation values of several arms: arm, seed, epoch, layer, n, d, rms, mean, max, welch."""
    tables = [result.layers.assign(arm=label, seed=seed) for label, result in trained.items()]
    return pd.concat(tables, ignore_index=True)


def coherences(trained: Mapping[str, Trained], seed: int) -> pd.DataFrame:
    """Similarity and spectrum of the filters of each layer after training, and mean and sd of their norms, per arm."""
    rows = []
    for label, result in trained.items():
        for number, layer in enumerate(select_layers(result.model).values(), start=1):
            norms = norms_and_angles(layer.weight)[0]
            row = {"layer": f"conv{number}", **coherence(layer.weight)}
            row |= {"norm": norms.mean().item(), "norm_sd": norms.std().item()}
            rows.append(row | {"arm": label, "seed": seed})
    return pd.DataFrame(rows)


def summary(trained: Mapping[str, Trained], seed: int, **facts: object) -> pd.DataFrame:
    """One row per arm: last-epoch accuracy in %, losses in nats, and |cosine| averaged over layers."""
    rows = []
    for label, result in trained.items():
        last = result.history.iloc[-1]
        layers = result.layers[result.layers.epoch == result.layers.epoch.max()]
        rows.append(
            {**facts, "arm": label, "seed": seed, "strength": result.arm.strength}
            | {"accuracy": 100 * last.test_accuracy, "test_loss": last.test_loss, "train_loss": last.task}
            | {"rms": layers.rms.mean(), "max": layers["max"].mean()}
        )
    return pd.DataFrame(rows)


def length_and_angle(trained: Mapping[str, Trained], images: "Images", share: float, seed: int) -> pd.DataFrame:
    """tab38: one row per arm: condition, chance, accuracy, whole and `pruned` of this share of its filters (%), and
    means over layers.

    Those of norm, norm_sd, rms (of the cosines), max and effective_rank are of `coherences`.
    """
    measures = coherences(trained, seed).groupby("arm", sort=False)
    measures = measures[["norm", "norm_sd", "rms", "max", "effective_rank"]].mean()
    accuracies = pruning_table(trained, images, [0.0, share], seed).pivot(
        index="arm", columns="share", values="accuracy"
    )
    facts = {"condition": "small set", "chance": 100 / len(images.classes), "seed": seed}
    table = measures.assign(**facts, accuracy=accuracies[0.0], pruned=accuracies[share]).reset_index()
    return table[["condition", "arm", "seed", "accuracy", "pruned", *measures.columns, "chance"]]


def tuned_on(train: "Images", settings: Settings, design: Any, grid: Sequence[float]) -> int:
    """How many training images strengths are tuned on: `design.tuning_count`, or all of `train` where it has fewer.

    grid: factors tried. With one, nothing is tuned.

    Raises:
        DataError: without the fifth that is held out they fill no batch, which no training of the notebook does sooner;
            or a factor is none.
    """
    if not grid or min(grid) <= 0:
        raise DataError(f"strength_grid={list(grid)}: expected one factor or more, all above 0.")
    count = min(design.tuning_count or len(train), len(train))
    left = count - max(1, round(0.2 * count))
    if len(grid) > 1 and left < settings.batch_size:
        raise DataError(
            f"{train.name} has {len(train)} training images here, and strengths are tuned on {count} of them less a "
            f"fifth: too few for a batch of {settings.batch_size}. Set batch_size to {left} or less, raise train_count "
            "and tuning_count (0 takes all), or add images."
        )
    return count


def conditions(
    train: "Images", test: "Images", small: "Images", settings: Settings, short: Settings, design: Any, *, seed: int
) -> dict[str, tuple["Images", "Images", Settings]]:
    """Of tab31: by condition, the images trained on, those tested on, and the settings.

    small: the part of `train` that shorter trainings (`short`) take. design: the values of `defaults`.
    """
    some = slice(max(short.batch_size, round(design.reduced_share * len(small))))
    found = {
        "first experiment": (train, test, settings),
        "small set": (small, test, short),
        "little data": (small.subset(some), test, short),
        "label noise": (with_label_noise(small, design.label_noise, seed=seed), test, short),
        "no augmentation": (small, test, replace(short, augment=False)),
    }
    if design.resnet_epochs:
        found["ResNet-18"] = train, test, replace(settings, epochs=design.resnet_epochs, model="resnet18")
    return found


def accuracy_table(
    arms: Sequence[Arm],
    conditions: Mapping[str, tuple["Images", "Images", Settings]],
    done: Mapping[str, Mapping[str, Trained]],
    *,
    seed: int,
    checkpoints: Path | None = None,
) -> pd.DataFrame:
    """`summary` of `arms` under each condition: trained on its first images and tested on the second.

    Those of `done` are trained already. Columns beside those of `summary`: condition, images, tested, epochs, chance.
    """
    tables = []
    for name, (train, test, settings) in conditions.items():
        trained = done.get(name)
        if trained is None:
            trained = train_arms(arms, train, test, settings, seed=seed, checkpoints=checkpoints and checkpoints / name)
        facts = {"images": len(train), "tested": len(test), "epochs": settings.epochs}
        tables.append(summary(trained, seed, condition=name, **facts, chance=100 / len(train.classes)))
    return pd.concat(tables, ignore_index=True)


def group_table(trained: Mapping[str, Trained], groups: int, seed: int) -> pd.DataFrame:
    """RMS |cosine| within and across contiguous groups, averaged over layers, whatever an arm was trained with.

    first_largest: the largest |cosine| in the first layer, the only one of the vanilla CNN with n > d.

    Every arm is cut in the same `groups` contiguous groups, so that those trained with fixed
    groups and those without groups are compared on the same pairs.
    """
    rows = []
    for label, result in trained.items():
        layers = [layer.weight for layer in select_layers(result.model).values()]
        within, across = np.mean([group_coherence(layer, groups) for layer in layers], axis=0)
        row = {"arm": label, "seed": seed, "groups": result.arm.options.get("groups", 1)}
        rows.append(row | {"within": within, "across": across, "first_largest": similarity(layers[0])["max"]})
    return pd.DataFrame(rows)


def judged(table: pd.DataFrame) -> pd.DataFrame:
    """A `comparison.paired_table` by condition and chance (%), without verdicts where there is nothing to judge.

    A condition whose baseline is near chance (`LEARNT`) or has no error left says nothing of a penalty.
    """
    baseline = table[table.verdict == "baseline"].set_index("condition")
    mean, other = table.condition.map(baseline["mean"]), table.verdict != "baseline"
    near = mean < table.chance + LEARNT * (100 - table.chance)
    verdict = table.verdict.mask(other & near, f"{NOT_JUDGED}: near chance")
    return table.assign(verdict=verdict.mask(other & (mean >= 100), f"{NOT_JUDGED}: no errors"))


def accuracies(rows: pd.DataFrame, means: Sequence[str] = ()) -> pd.DataFrame:
    """Paired differences in accuracy from the arm without penalty, per condition, and `means` over seeds.

    rows: tab31, tab32 or tab38 of all seeds.
    """
    by = [name for name in ("condition", "images", "tested", "epochs", "chance") if name in rows]
    return judged(paired_table(rows, baseline="plain", by=by, means=means, margin=MARGIN))


def kernels(trained: Mapping[str, Trained]) -> dict[str, dict[str, Tensor]]:
    """Layer → arm → kernel (n, C_in, k, k) of the first and the last convolution."""
    found: dict[str, dict[str, Tensor]] = {}
    for label, result in trained.items():
        convolutions = list(select_layers(result.model).values())
        for number in (1, len(convolutions)):
            kernel = convolutions[number - 1].weight.detach().float().contiguous()
            found.setdefault(f"conv{number}", {})[label] = kernel
    return found


def split_validation(images: "Images", share: float = 0.2, *, seed: int = 0) -> tuple["Images", "Images"]:
    """Two disjoint random parts of the training images: to train on, and to choose strengths on."""
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    held_out = max(1, round(share * len(images)))
    return images.subset(order[held_out:]), images.subset(order[:held_out])


def tune_strengths(
    arms: Sequence[Arm], grid: Sequence[float], train: "Images", settings: Settings, *, checkpoints: Path | None = None
) -> pd.DataFrame:
    """Accuracy of each arm at each strength tried, on held-out *training* images, pooled over `TUNING_SEEDS`.

    Every penalty gets the same grid of factors, relative to its arm's own strength, and the same budget. An arm whose
    best factor is the smallest or largest tried goes on beyond it, at most `FURTHER` times, by the grid's own ratio.
    A grid of one value chooses nothing and trains nothing.

    Columns: arm, strength, factor, accuracy (%; NaN if nothing was trained), chosen (one per arm), edge (the chosen
    one is still the smallest or largest tried).
    """
    rows, splits = [], {seed: split_validation(train, seed=seed) for seed in TUNING_SEEDS}
    ratio = (max(grid) / min(grid)) ** (1 / max(1, len(grid) - 1))
    for arm in arms:
        tried, wanted = dict.fromkeys(grid, float("nan")), list(grid) if len(grid) > 1 else []
        for _ in range(1 + FURTHER):
            trials = [replace(arm, label=f"{arm.label} x {f:g}", strength=arm.strength * f) for f in wanted]
            last = np.zeros(len(trials))
            for seed, split in splits.items():
                place = checkpoints and checkpoints / f"seed-{seed}"
                found = train_arms(trials, *split, settings, seed=seed, checkpoints=place)
                last += [100 * one.history.test_accuracy.iloc[-1] / len(splits) for one in found.values()]
            tried |= dict(zip(wanted, last, strict=True))
            beyond = {min(tried): min(tried) / ratio, max(tried): max(tried) * ratio}
            if len(grid) == 1 or _best(tried) not in beyond:
                break
            wanted = [beyond[_best(tried)]]
        edge = len(tried) > 1 and _best(tried) in (min(tried), max(tried))
        rows += [
            {"arm": arm.label, "strength": arm.strength * factor, "factor": factor, "accuracy": accuracy}
            | {"chosen": factor == _best(tried), "edge": edge}
            for factor, accuracy in sorted(tried.items())
        ]
    return pd.DataFrame(rows)


def _best(tried: Mapping[float, float]) -> float:
    """The factor of the highest accuracy; of equal ones, that nearest to 1, where no edge is reached by chance."""
    return max(tried, key=lambda factor: (tried[factor], -abs(np.log(factor))))


def at_chosen(arms: Iterable[Arm], tuned: pd.DataFrame) -> list[Arm]:
    """The arms at the strengths that `tune_strengths` chose."""
    chosen = tuned[tuned.chosen].set_index("arm").strength
    return [replace(arm, strength=float(chosen[arm.label])) for arm in arms]


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
            for silenced in (convolution.weight, norm.weight, norm.bias, norm.running_mean):
                silenced[gone] = 0
    return model


def pruning_table(trained: Mapping[str, Trained], images: "Images", shares: Sequence[float], seed: int) -> pd.DataFrame:
    """Accuracy in % after removing a share of the filters, without training again: arm, seed, share, accuracy."""
    return pd.DataFrame(
        {"arm": label, "seed": seed, "share": share, "accuracy": 100 * score(prune(result.model, share), images)[1]}
        for label, result in trained.items()
        for share in shares
    )
