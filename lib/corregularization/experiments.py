"""Experiments on trained arms: tuning strengths, pruning, and tables of results."""

import copy
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from filelock import FileLock, Timeout
from torch import Tensor, nn

from lib.corregularization.analysis import CRITERIA, coherence, group_coherence, norms_and_angles, similarity
from lib.corregularization.arms import Arm
from lib.corregularization.disentanglement import VaeSettings
from lib.corregularization.losses import select_layers
from lib.corregularization.packing import GROUPS
from lib.corregularization.training import Settings, Trained, score, train_arms, with_label_noise
from lib.data import needs
from lib.data.augment import as_float, flip_and_shift
from lib.data.catalog import DataError
from lib.metrics.comparison import MARGIN, paired_table

if TYPE_CHECKING:
    from lib.data.images import Images

TUNING_SEEDS = (1000,)  # not a run's own seed, but the same in all runs, so that each arm has one strength
LEARNT = 1 / 9  # of the way from chance to no errors: below it, too little is learnt to compare penalties
NOT_JUDGED = "not judged"
FURTHER = 1  # maximum number of times a search extends its grid
CALIBRATION = 1000  # training images on which the statistics of batch norm are recomputed after pruning
REMOVED = ("most similar", "random")  # criteria of pruning
DRAWS = 3  # of random filters to prune, averaged
MODELS = ("vanilla", "resnet18")
SMALLEST = 8  # pixels: the networks halve the resolution three times


def check(small: "Images", settings: Settings, design: Any, groups: Sequence[int]) -> None:
    """Check notebook 03's parameters before anything is trained. small: images of the experiments after the first.

    Raises:
        DataError: a batch is not filled, the images are too small, a network is unknown, or a ratio or number of groups
            is not possible.
    """
    if min(small.pixels.shape[2:]) < SMALLEST:
        raise DataError(f"The networks take images of {SMALLEST} px or more, and {small.name} has "
                        f"{tuple(small.pixels.shape[2:])}. Give size=32, which resizes them.")  # fmt: skip
    needs.batch(settings.batch_size, len(small), f"small_count={design.small_count}")
    if design.vae_epochs:
        needs.batch(VaeSettings.batch_size, design.vae_count, f"vae_count={design.vae_count}; of the VAEs")
    if not groups or min(groups) < 2:
        raise DataError(f"groups={list(groups)}: expected numbers of groups from 2, as groups=[2,8].")
    for ratio in design.packing_ratios:
        if (count := round(ratio * design.packing_dimension)) % GROUPS or count <= GROUPS:
            raise DataError(f"packing_ratios: {ratio:g} x {design.packing_dimension} dimensions are {count} vectors, "
                            f"which do not form {GROUPS} equal groups with pairs.")  # fmt: skip
    if unknown := set(design.cost_models) - {*MODELS}:
        raise DataError(f"cost_models: {', '.join(sorted(unknown))} is unknown; choose from {', '.join(MODELS)}.")


def histories(trained: Mapping[str, Trained], seed: int) -> pd.DataFrame:
    """Return the loss curves of several arms: arm, seed, epoch, task (training loss), test_loss, test_accuracy."""
    columns = ["arm", "seed", "epoch", "task", "test_loss", "test_accuracy"]
    tables = [result.history.assign(arm=label, seed=seed)[columns] for label, result in trained.items()]
    return pd.concat(tables, ignore_index=True)


def correlations(trained: Mapping[str, Trained], seed: int) -> pd.DataFrame:
    """Return the correlation values of several arms: arm, seed, epoch, layer, n, d, rms, mean, max, welch."""
    tables = [result.layers.assign(arm=label, seed=seed) for label, result in trained.items()]
    return pd.concat(tables, ignore_index=True)


def coherences(trained: Mapping[str, Trained], seed: int) -> pd.DataFrame:
    """Return `coherence`, and mean and sd of the norms, of each layer's filters after training, per arm."""
    rows = []
    for label, result in trained.items():
        for number, layer in enumerate(select_layers(result.model).values(), start=1):
            norms = norms_and_angles(layer.weight)[0]
            row = {"layer": f"conv{number}", **coherence(layer.weight)}
            row |= {"norm": norms.mean().item(), "norm_sd": norms.std().item()}
            rows.append(row | {"arm": label, "seed": seed})
    return pd.DataFrame(rows)


def summary(trained: Mapping[str, Trained], seed: int, **facts: object) -> pd.DataFrame:
    """Return one row per arm: accuracy in %, losses in nats and layer-averaged |cosine| after the last epoch.

    gap: test loss minus training loss. The latter is the mean over the last epoch, with the augmentation and the wrong
    labels of training, if any; test labels are always the true ones.
    """
    rows = []
    for label, result in trained.items():
        last = result.history.iloc[-1]
        layers = result.layers[result.layers.epoch == result.layers.epoch.max()]
        rows.append(
            {**facts, "arm": label, "seed": seed, "strength": result.arm.strength}
            | {"accuracy": 100 * last.test_accuracy, "test_loss": last.test_loss, "train_loss": last.task}
            | {"gap": last.test_loss - last.task}
            | {"rms": layers.rms.mean(), "max": layers["max"].mean()}
        )
    return pd.DataFrame(rows)


def length_and_angle(
    trained: Mapping[str, Trained], train: "Images", test: "Images", share: float, seed: int
) -> pd.DataFrame:
    """Return tab38: one row per arm with its accuracy (%), whole and after pruning a `share` of its filters, the most
    similar ones (pruned) or random ones (pruned_random), as in `pruning_table`.

    Further columns: condition, seed, chance (%), and the means over layers of norm, norm_sd, rms (of the cosines), max
    and effective_rank from `coherences`.
    """
    measures = coherences(trained, seed).groupby("arm", sort=False)
    measures = measures[["norm", "norm_sd", "rms", "max", "effective_rank"]].mean()
    found = pruning_table(trained, train, test, [0.0, share], seed)
    found = found.pivot(index="arm", columns=["removed", "share"], values="accuracy")
    table = measures.assign(
        condition="small set", seed=seed, chance=100 / len(test.classes), accuracy=found["most similar"][0.0],
        pruned=found["most similar"][share], pruned_random=found["random"][share],
    ).reset_index()  # fmt: skip
    return table[["condition", "arm", "seed", "accuracy", "pruned", "pruned_random", *measures.columns, "chance"]]


def tuned_on(train: "Images", settings: Settings, design: Any, grid: Sequence[float]) -> int:
    """Return the number of training images for tuning: `design.tuning_count`, or all of `train` if it has fewer.

    grid: factors tried. With only one, nothing is tuned.

    Raises:
        DataError: the images left after holding out a fifth do not fill a batch, which no earlier training in the
            notebook would detect; or the grid is empty or has a factor that is not positive.
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
    """Return the conditions of tab31: name → (training images, test images, settings).

    small: the subset of `train` for the shorter trainings (settings `short`). design: the values of `defaults`.

    "label noise" and "no augmentation" each differ from "little data" in one respect alone: all three train on the same
    part of `small` for the same number of steps, enough to memorise it.
    """
    little = small.subset(slice(max(short.batch_size, round(design.reduced_share * len(small)))))
    often = replace(short, epochs=design.reduced_epochs, score_every=0)
    found = {
        "first experiment": (train, test, settings),
        "small set": (small, test, short),
        "little data": (little, test, often),
        "label noise": (with_label_noise(little, design.label_noise, seed=seed), test, often),
        "no augmentation": (little, test, replace(often, augment=False)),
    }
    if design.resnet_epochs:
        other = replace(settings, epochs=design.resnet_epochs, model="resnet18", score_every=0)
        found["ResNet-18"] = train, test, other
    return found


def accuracy_table(
    arms: Sequence[Arm],
    conditions: Mapping[str, tuple["Images", "Images", Settings]],
    done: Mapping[str, Mapping[str, Trained]],
    *,
    seed: int,
    checkpoints: Path | None = None,
) -> pd.DataFrame:
    """Return `summary` of `arms` under each condition, by its name: training images, test images, settings.

    done: condition → arms trained under it before, which are used as they are.
    Additional columns: condition, images and tested (numbers of training and test images), epochs, chance (%).
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
    """Return RMS |cosine| within and across contiguous groups, averaged over layers, for each arm.

    first_largest: the largest |cosine| in the first layer, the only one of the vanilla CNN with n > d.

    Whatever an arm was trained with, its filters are split into the same `groups` contiguous groups, so that arms with
    fixed groups and arms without groups are compared on the same pairs.
    """
    rows = []
    for label, result in trained.items():
        layers = [layer.weight for layer in select_layers(result.model).values()]
        within, across = np.mean([group_coherence(layer, groups) for layer in layers], axis=0)
        row = {"arm": label, "seed": seed, "groups": result.arm.options.get("groups", 1)}
        rows.append(row | {"within": within, "across": across, "first_largest": similarity(layers[0])["max"]})
    return pd.DataFrame(rows)


def judged(table: pd.DataFrame) -> pd.DataFrame:
    """Return a `comparison.paired_table` by condition and chance (%) with meaningless verdicts replaced.

    A condition whose baseline is near chance (`LEARNT`) or makes no errors says nothing about a penalty.
    """
    baseline = table[table.verdict == "baseline"].set_index("condition")
    mean, other = table.condition.map(baseline["mean"]), table.verdict != "baseline"
    near = mean < table.chance + LEARNT * (100 - table.chance)
    verdict = table.verdict.mask(other & near, f"{NOT_JUDGED}: near chance")
    return table.assign(verdict=verdict.mask(other & (mean >= 100), f"{NOT_JUDGED}: no errors"))


def accuracies(rows: pd.DataFrame, means: Sequence[str] = ()) -> pd.DataFrame:
    """Return paired differences in accuracy from the arm without penalty, per condition, and `means` over seeds.

    rows: tab31, tab32 or tab38 of all seeds.
    """
    by = [name for name in ("condition", "images", "tested", "epochs", "chance") if name in rows]
    return judged(paired_table(rows, baseline="plain", by=by, means=means, margin=MARGIN, pooled=True))


def kernels(trained: Mapping[str, Trained]) -> dict[str, dict[str, Tensor]]:
    """Return the kernels (n, C_in, k, k) of the first and the last convolution: layer → arm → kernel."""
    found: dict[str, dict[str, Tensor]] = {}
    for label, result in trained.items():
        convolutions = list(select_layers(result.model).values())
        for number in (1, len(convolutions)):
            kernel = convolutions[number - 1].weight.detach().float().contiguous()
            found.setdefault(f"conv{number}", {})[label] = kernel
    return found


def split_validation(images: "Images", share: float = 0.2, *, seed: int = 0) -> tuple["Images", "Images"]:
    """Split training images at random; return the part for training and the `share` for choosing strengths."""
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    held_out = max(1, round(share * len(images)))
    return images.subset(order[held_out:]), images.subset(order[:held_out])


def tune_strengths(
    arms: Sequence[Arm], grid: Sequence[float], train: "Images", settings: Settings, *, checkpoints: Path | None = None
) -> pd.DataFrame:
    """Return each arm's loss on held-out *training* images at each strength tried, averaged over `TUNING_SEEDS`.

    Every penalty gets the same grid of factors, relative to its arm's own strength, and the same budget. The factor
    with the lowest cross-entropy is chosen, as networks may have equal accuracy on the few held-out images. If it is
    the smallest or largest tried, the grid is extended there by its own ratio, at most `FURTHER` times. With a grid of
    one value nothing is trained and that value is used. Nothing here depends on a run's own seed: runs that share
    `checkpoints` train each of these networks once, different arms at a time, and wait for each other.

    Columns: arm, strength, factor, loss (nats) and accuracy (%; both NaN if nothing was trained), chosen (one per arm),
    edge (the chosen factor is still the smallest or largest tried).
    """
    splits, found = {seed: split_validation(train, seed=seed) for seed in TUNING_SEEDS}, {}
    first = os.environ.get("RANK", "0") == "0"  # of a distributed run, only the first process takes locks
    several = int(os.environ.get("WORLD_SIZE", 1)) > 1  # all processes need the same order of arms
    for wait in (True,) if several else (False, True):  # first the arms that no other run is training, then the rest
        for number in sorted({*range(len(arms))} - {*found}):
            lock = nullcontext()
            if checkpoints and first:
                lock = FileLock(checkpoints / f".lock-{number}", timeout=-1 if wait else 0)
            with suppress(Timeout), lock:
                found[number] = _search(arms[number], grid, splits, settings, checkpoints)
    return pd.concat([found[number] for number in range(len(arms))], ignore_index=True)


def _search(
    arm: Arm,
    grid: Sequence[float],
    splits: Mapping[int, tuple["Images", "Images"]],
    settings: Settings,
    checkpoints: Path | None,
) -> pd.DataFrame:
    """Return the rows of `tune_strengths` for one arm. splits: seed → images for training, and for choosing."""
    tried = {factor: np.full(2, np.nan) for factor in grid}  # factor → loss, accuracy
    wanted = list(grid) if len(grid) > 1 else []
    ratio = (max(grid) / min(grid)) ** (1 / max(1, len(grid) - 1))
    for _ in range(1 + FURTHER):
        trials = [replace(arm, label=f"{arm.label} x {f:g}", strength=arm.strength * f) for f in wanted]
        last = np.zeros((len(trials), 2))
        for seed, split in splits.items():
            place = checkpoints and checkpoints / f"seed-{seed}"
            found = train_arms(trials, *split, settings, seed=seed, checkpoints=place).values()
            scores = [one.history[["test_loss", "test_accuracy"]].iloc[-1].tolist() for one in found]
            last += np.reshape(scores, (-1, 2)) * [1, 100] / len(splits)
        tried |= dict(zip(wanted, last, strict=True))
        best = _best({factor: loss for factor, (loss, _) in tried.items()})
        beyond = {min(tried): min(tried) / ratio, max(tried): max(tried) * ratio}
        if len(grid) == 1 or best not in beyond:
            break
        wanted = [beyond[best]]
    edge = len(tried) > 1 and best in (min(tried), max(tried))
    return pd.DataFrame(
        {"arm": arm.label, "strength": arm.strength * factor, "factor": factor, "loss": loss, "accuracy": accuracy}
        | {"chosen": factor == best, "edge": edge}
        for factor, (loss, accuracy) in sorted(tried.items())
    )


def _best(losses: Mapping[float, float]) -> float:
    """Return the factor with the lowest loss; ties go to the one nearest to 1, so that no edge is chosen by chance."""
    return min(losses, key=lambda factor: (losses[factor], abs(np.log(factor))))


def at_chosen(arms: Iterable[Arm], tuned: pd.DataFrame) -> list[Arm]:
    """Return the arms with the strengths chosen by `tune_strengths`."""
    chosen = tuned[tuned.chosen].set_index("arm").strength
    return [replace(arm, strength=float(chosen[arm.label])) for arm in arms]


def prune(model: nn.Module, share: float, images: "Images", removed: str = "most similar", draw: int = 0) -> nn.Module:
    """Return a copy in which a `share` of each convolution's filters, by a criterion of `CRITERIA`, output zero.

    Works for convolutions followed by batch norm in a Sequential (VanillaCNN): the scale and shift
    of batch norm are zeroed with the filter, so that the channel outputs zero.

    images: training images on which the statistics of batch norm are recomputed, as those after a removed filter no
        longer hold. The images are augmented as in training: otherwise a network on CIFAR-10 loses 1.5 points of
        accuracy even if no filter is removed. No weight is retrained. A share of 0 changes nothing.
    draw: seed of the random filters, which are the same in all networks of one shape.
    """
    model, generator = copy.deepcopy(model).eval(), torch.Generator().manual_seed(draw)
    if not share:
        return model
    for block in model.features:
        convolution, norm = block[0], block[1]
        gone = ~CRITERIA[removed](convolution, share, generator)
        with torch.no_grad():
            for silenced in (convolution.weight, norm.weight, norm.bias):
                silenced[gone] = 0
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches instead of a moving average
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(0)  # the same crops for all networks
        model.train()
        for chunk in images.pixels.split(250):
            model(as_float(flip_and_shift(chunk)))
    return model.eval()


def pruning_table(
    trained: Mapping[str, Trained], train: "Images", test: "Images", shares: Sequence[float], seed: int
) -> pd.DataFrame:
    """Return the accuracy in % after pruning without retraining: arm, seed, removed (the criterion), share, accuracy.

    Statistics of batch norm are recomputed on `CALIBRATION` training images. Random removal is the mean of `DRAWS`.
    """
    rows, few = [], train.subset(slice(CALIBRATION))
    for label, result in trained.items():
        for removed in REMOVED:
            for share in shares:
                draws = range(DRAWS if share and removed == "random" else 1)
                found = [score(prune(result.model, share, few, removed, DRAWS * seed + i), test)[1] for i in draws]
                row = {"arm": label, "seed": seed, "removed": removed, "share": share}
                rows.append(row | {"accuracy": 100 * float(np.mean(found))})
    return pd.DataFrame(rows)
