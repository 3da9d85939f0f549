"""Steps of the notebook: tune arms, and collect their histories and measures in tables."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from lib.categorical.arms import Arm
from lib.categorical.evaluation import Seen, clusters, code_bytes, health_table, representation_table, see
from lib.categorical.training import Settings, Trained, train_arms
from lib.data import needs
from lib.data.catalog import DataError
from lib.data.images import Images
from lib.metrics import clustering


def check(train: Images, small: Images, settings: Settings, design: Any) -> None:
    """Check notebook 02's parameters before anything is trained. small: images of tuning and ablation.

    Raises:
        DataError: a batch is not filled, or there are fewer images than clusters.
    """
    if design.ablation_epochs:
        needs.batch(settings.batch_size, len(small), f"ablation_count={design.ablation_count}")
    if design.tuning_epochs and max(map(len, (design.code_temperatures, design.embedding_temperatures))) > 1:
        fitted = min(len(small), len(train) * 4 // 5)
        needs.batch(settings.batch_size, fitted, f"ablation_count={design.ablation_count}; for tuning")
    known = min(design.fit_count or len(train), len(train))
    if (most := max(design.other_counts, default=1)) > known:
        raise DataError(f"other_counts={list(design.other_counts)} asks for {most} clusters of {known} images.")


def histories(trained: Mapping[str, Trained], seed: int) -> pd.DataFrame:
    """Return fig26: arm, seed, epoch, images (seen), loss, knn and knn_output in %, used; NaN where not measured."""
    columns = ["arm", "seed", "epoch", "images", "loss", "knn", "knn_output", "used"]
    frames = [result.history.assign(arm=label, seed=seed).reindex(columns=columns) for label, result in trained.items()]
    return pd.concat(frames, ignore_index=True)


def tune(
    arms: Sequence[Arm],
    train: Images,
    settings: Settings,
    grids: Mapping[bool, Sequence[float]],
    *,
    count: int,
    seed: int,
    checkpoints: Path | None = None,
) -> tuple[list[Arm], pd.DataFrame | None]:
    """Select the temperature of each arm on a validation split.

    grids: candidates by `Arm.makes_codes`: temperatures of the codes, and of the loss for arms without codes. Every arm
    is trained once per temperature on the same `count` training images (0: four fifths), and scored on up to 2,000
    others by kNN accuracy of its soft codes or embedding. Labels of training images are used to choose the temperature
    of every arm in this way, and for nothing else. Ties go to the first temperature.

    Returns:
        arms, and tab27: arm, seed, temperature, knn (validation, %), chosen. A grid of one temperature is used without
        training, with an empty one the arms keep their own; if nothing is trained, the table is None.
    """
    names = {True: "code_temperature", False: "temperature"}
    grids = {codes: list(grid) for codes, grid in grids.items()}
    arms = [
        replace(arm, **{names[arm.makes_codes]: grid[0]}) if len(grid := grids[arm.makes_codes]) == 1 else arm
        for arm in arms
    ]
    tried = {
        f"{arm.label}, temperature {value:g}": (arm, value)
        for arm in arms
        if len(grids[arm.makes_codes]) > 1
        for value in grids[arm.makes_codes]
    }
    if not tried:
        return arms, None
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))
    cut = min(count or len(train), len(train) * 4 // 5)
    fitted, held = train.subset(order[:cut]), train.subset(order[cut : cut + 2000])
    variants = [replace(arm, label=label, **{names[arm.makes_codes]: value}) for label, (arm, value) in tried.items()]
    found = see(train_arms(variants, fitted, settings, seed=seed, checkpoints=checkpoints), fitted, held)
    scores = representation_table(found, fitted, held, seed=seed, linear=False)
    scores = scores[scores.representation.isin(("soft codes", "embedding"))].set_index("arm").knn
    table = pd.DataFrame(
        {"arm": arm.label, "seed": seed, "temperature": value, "knn": scores[label]}
        for label, (arm, value) in tried.items()
    )
    table["chosen"] = table.index.isin(table.groupby("arm").knn.idxmax())
    best = {row.arm: row.temperature for row in table[table.chosen].itertuples()}
    arms = [replace(arm, **{names[arm.makes_codes]: best[arm.label]}) if arm.label in best else arm for arm in arms]
    return arms, table


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
    """Return fig22: name and value of the parameters behind the diagram of the queue, which shows all but the last."""
    names = ("positions", "categories", "queue", "momentum", "temperature")
    return pd.DataFrame({"name": names, "value": [float(getattr(arm, name)) for name in names]})
