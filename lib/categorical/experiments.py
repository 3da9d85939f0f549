"""Steps of the notebook: tune arms, and collect their training histories and measures in tables."""

import os
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from filelock import FileLock

from lib.categorical.arms import PUBLISHED, TWINS, Arm
from lib.categorical.evaluation import Seen, clusters, code_bytes, health_table, representation_table, see
from lib.categorical.training import Settings, Trained, train_arms
from lib.data import needs
from lib.data.catalog import DataError
from lib.data.images import Images
from lib.metrics import clustering
from lib.metrics.comparison import paired_table

TUNING_SEED = 1000  # the same in all runs, whatever their own seed, so that each arm has one temperature


def check(train: Images, small: Images, settings: Settings, design: Any) -> None:
    """Check notebook 02's parameters before anything is trained. small: images of the ablation.

    Raises:
        DataError: there are too few images to fill a batch, or fewer images than clusters.
    """
    if design.ablation_epochs:
        needs.batch(settings.batch_size, len(small), f"ablation_count={design.ablation_count}")
    if max(map(len, (design.code_temperatures, design.embedding_temperatures))) > 1:
        count = min(design.tuning_count or len(train), len(train))
        needs.batch(settings.batch_size, count - held_out(count), f"tuning_count={design.tuning_count}; for tuning")
    known = min(design.fit_count or len(train), len(train))
    if (most := max(design.other_counts, default=1)) > known:
        raise DataError(f"other_counts={list(design.other_counts)} asks for {most} clusters of {known} images.")


def held_out(count: int) -> int:
    """Return how many of `count` images for tuning are held out to score on: a fifth, at most 2,000."""
    return min(2000, count // 5)


def histories(trained: Mapping[str, Trained], seed: int) -> pd.DataFrame:
    """Return fig26: arm, seed, epoch, images (seen), loss, knn, knn_output and used in %; NaN where not measured."""
    columns = ["arm", "seed", "epoch", "images", "loss", "knn", "knn_output", "used"]
    frames = [result.history.assign(arm=label, seed=seed).reindex(columns=columns) for label, result in trained.items()]
    return pd.concat(frames, ignore_index=True)


def at(arm: Arm, temperature: float) -> Arm:
    """Return the arm with another temperature: that of its codes, or of its loss if it makes embeddings."""
    return replace(arm, **{"code_temperature" if arm.makes_codes else "temperature": temperature})


def temperatures(arms: Sequence[Arm]) -> str:
    """Return a note on the arms' temperatures, in ascending order, each once."""
    codes = {arm.code_temperature for arm in arms if arm.makes_codes}
    embeddings = {arm.temperature for arm in arms if not arm.makes_codes}
    parts = (" or ".join(f"{value:g}" for value in sorted(part)) for part in (codes, embeddings))
    return "; code temperature {}; embeddings {}".format(*parts)


def tune(
    arms: Sequence[Arm],
    train: Images,
    settings: Settings,
    grids: Mapping[bool, Sequence[float]],
    *,
    checkpoints: Path | None = None,
) -> tuple[list[Arm], pd.DataFrame | None]:
    """Select the temperature of each arm on a validation split.

    grids: candidates by `Arm.makes_codes`: temperatures of the codes, and of the loss for arms without codes. Every arm
    is trained once per temperature, with `TUNING_SEED`, on `train` without the `held_out` images, on which its soft
    codes or embedding are scored by kNN accuracy. If the best temperature is at an edge of its grid, the next beyond it
    (by the grid's mean ratio) is tried too, once. Arms in `TWINS` take the temperature of their twin. Labels of
    training images are used to choose temperatures and for nothing else. Ties go to the first temperature.

    If `train` does not depend on a run's own seed, nothing here does: runs that share `checkpoints` train each of these
    networks only once, and wait for each other.

    Returns:
        arms, and tab27: arm, temperature, knn (validation, %), chosen. A grid of one temperature is used without
        training, except by published losses; with an empty grid, arms keep their own. If nothing is trained, the
        table is None.
    """
    one = {codes: grid[0] for codes, grid in grids.items() if len(grid) == 1}
    arms = [at(arm, one[arm.makes_codes]) if arm.makes_codes in one and arm.loss not in PUBLISHED else arm
            for arm in arms]  # fmt: skip
    tuned = {arm.label: arm for arm in arms if len(grids[arm.makes_codes]) > 1 and arm.label not in TWINS}
    if not tuned:
        return arms, None
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(TUNING_SEED))
    cut = len(train) - held_out(len(train))
    fitted, held = train.subset(order[:cut]), train.subset(order[cut:])
    first = os.environ.get("RANK", "0") == "0"  # of several processes, only the first takes the lock

    def scored(trials: Sequence[tuple[Arm, float]]) -> list[dict[str, object]]:
        variants = [replace(at(arm, value), label=f"{arm.label}, temperature {value:g}") for arm, value in trials]
        with FileLock(checkpoints / ".lock") if checkpoints and first else nullcontext():
            trained = train_arms(variants, fitted, settings, seed=TUNING_SEED, checkpoints=checkpoints)
        scores = representation_table(see(trained, fitted, held), fitted, held, seed=TUNING_SEED, linear=False)
        knn = scores[scores.representation.isin(("soft codes", "embedding"))].knn
        return [{"arm": arm.label, "temperature": t, "knn": k} for (arm, t), k in zip(trials, knn, strict=True)]

    rows = scored([(arm, value) for arm in tuned.values() for value in grids[arm.makes_codes]])
    beyond = []
    for label, found in pd.DataFrame(rows).groupby("arm", sort=False):
        low, high, best = found.temperature.min(), found.temperature.max(), found.temperature[found.knn.idxmax()]
        if best in (low, high):
            ratio = (high / low) ** (1 / (len(found) - 1))
            beyond.append((tuned[label], float(f"{low / ratio if best == low else high * ratio:.2g}")))
    table = pd.DataFrame(rows + (scored(beyond) if beyond else []))
    table = table.sort_values("arm", key=lambda names: names.map(list(tuned).index), kind="stable", ignore_index=True)
    table["chosen"] = table.index.isin(table.groupby("arm").knn.idxmax())
    best = table[table.chosen].set_index("arm").temperature
    chosen = {arm.label: best.get(TWINS.get(arm.label, arm.label)) for arm in arms}
    return [arm if chosen[arm.label] is None else at(arm, chosen[arm.label]) for arm in arms], table


def ablation_table(seen: Mapping[str, Seen], train: Images, test: Images, *, seed: int) -> pd.DataFrame:
    """Return tab23 and the data of fig28, one row per arm with codes.

    arm, seed, positions, categories, bytes, bits, soft and hard (accuracy of k-means on soft and k-modes on hard codes,
    %), gap (soft - hard), knn (Hamming, %), perplexity, dead, unique, redundancy, sureness, collapsed; on test images.
    """
    health = health_table(seen, seed=seed).set_index("arm")
    table = representation_table(seen, train, test, seed=seed, linear=False)
    near = table[table.representation == "hard codes"].set_index("arm").knn
    rows = []
    for label, one in seen.items():
        found = {}
        for name, readout in (("soft", "k-means on soft codes"), ("hard", "k-modes on hard codes")):
            asked = clusters(one, readout, len(train.classes), seed=seed)[1]
            found[name] = 100 * clustering.matched_accuracy(asked, test.labels)
        arm = one.trained.arm
        row = {"arm": label, "seed": seed, "positions": arm.positions, "categories": arm.categories}
        row |= {"bytes": code_bytes(*arm.shape)} | found | {"gap": found["soft"] - found["hard"], "knn": near[label]}
        rows.append(row | health.loc[label].drop("seed").to_dict())
    return pd.DataFrame(rows)


def queue_facts(arm: Arm) -> pd.DataFrame:
    """Return the data of fig22: name and value of parameters of an arm with a queue; the diagram omits the last."""
    names = ("positions", "categories", "queue", "momentum", "temperature")
    return pd.DataFrame({"name": names, "value": [float(getattr(arm, name)) for name in names]})


def main_readouts(table: pd.DataFrame) -> pd.Series:
    """Return which rows of tab21 over seeds are tested: k-means on the soft codes or embedding of each arm and on raw
    pixels, with as many clusters as classes, the number in the first row."""
    return (table.wanted == table.wanted.iloc[0]) & table.arm.str.contains(
        r"k-means on (?:soft codes|embedding|pixels)"
    )


def at_equal_bytes(clusters: pd.DataFrame, represented: pd.DataFrame) -> pd.DataFrame:
    """Return tab29 from tab21 and tab22 of all seeds: hard codes of other losses against those of the study's own arm.

    The measures are the accuracies (%) of k-modes with as many clusters as classes and of kNN by Hamming distance.
    """
    modes = clusters[(clusters.readout == "k-modes on hard codes") & (clusters.wanted == clusters.wanted.iloc[0])]
    near = represented[represented.representation == "hard codes"].rename(columns={"knn": "accuracy"})
    rows = pd.concat([modes.assign(measure="k-modes"), near.assign(measure="kNN")])
    return paired_table(rows, baseline="categorical", by=["measure"], means=["bytes"])
