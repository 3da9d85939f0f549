"""What notebook 05 does: compare variants, judge the chosen one, and put what comes out into tables."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from lib.emergency.cnn import Mels, Settings, Validated, Variant, cost_of, cross_validate, train_cnn
from lib.metrics import classification

SOURCE_VALIDATION = 666  # clips, on which the source ranked its seven


def compare(
    chosen: Iterable[Variant], clips: Mels, settings: Settings, *, seed: int, score_every: int, checkpoints: Path
) -> dict[str, Validated]:
    """`cross_validate` for each variant, by label."""
    return {
        variant.label: cross_validate(variant, clips, settings, seed=seed, score_every=score_every,
                                      checkpoint=checkpoints / f"compare-{variant.label.replace(' ', '-')}")
        for variant in chosen
    }  # fmt: skip


def curves(compared: dict[str, Validated], seed: int) -> pd.DataFrame:
    """fig41: variant, seed, epoch, accuracy (% over the clips of all folds, each by the model that had not seen it)."""
    frames = []
    for label, one in compared.items():
        scored = one.history.dropna(subset="accuracy").merge(_sizes(one), on="fold")
        scored = scored.assign(right=scored.accuracy * scored["size"]).groupby("epoch")[["right", "size"]].sum()
        frame = pd.DataFrame({"epoch": scored.index, "accuracy": scored.right / scored["size"]})
        frames.append(frame.assign(variant=label, seed=seed))
    return pd.concat(frames, ignore_index=True)[["variant", "seed", "epoch", "accuracy"]]


def _sizes(one: Validated) -> pd.DataFrame:
    folds = one.history.fold.unique()
    return pd.DataFrame({"fold": folds, "size": [len(run.logits) for run in one.runs]})


def variant_table(compared: dict[str, Validated], clips: Mels, *, seed: int) -> pd.DataFrame:
    """tab41: variant, seed, parameters, mega_macs (of one clip), clips, folds, accuracy (%, cross-validated), low and
    high (Wilson, 95 %), and low_666 and high_666, the interval that as many clips as the source's would give."""
    rows = []
    for label, one in compared.items():
        right = int((one.logits.argmax(1) == clips.labels).sum())
        low, high = classification.wilson(right, len(clips))
        few = classification.wilson(round(right / len(clips) * SOURCE_VALIDATION), SOURCE_VALIDATION)
        row = {"variant": label, "seed": seed} | cost_of(one.variant, clips.mel.shape[2:], len(clips.classes))
        row |= {"clips": len(clips), "folds": len(one.runs), "accuracy": 100 * right / len(clips)}
        rows.append(row | {"low": 100 * low, "high": 100 * high, "low_666": 100 * few[0], "high_666": 100 * few[1]})
    return pd.DataFrame(rows)


def best(table: pd.DataFrame) -> str:
    """The variant with the highest cross-validated accuracy; of equals, the one that costs least."""
    return table.sort_values(["accuracy", "mega_macs"], ascending=[False, True]).variant.iloc[0]


@dataclass(frozen=True)
class Judged:
    """The chosen variant on clips that it was neither trained nor chosen on.

    model: the network, or that of the first fold; explained: a mask of the clips that it may be explained on.
    temperature: per clip, fitted without it.
    """

    clips: Mels
    model: nn.Sequential
    explained: Tensor
    history: pd.DataFrame
    logits: Tensor = field(repr=False)
    temperature: Tensor = field(repr=False)

    @property
    def calibrated(self) -> Tensor:
        return self.logits / self.temperature[:, None]


def judge(
    validated: Validated, clips: Mels, test: Mels | None, settings: Settings, *, seed: int, checkpoint: Path
) -> Judged:
    """Train the chosen variant on all `clips` and judge it on `test`; without a test set, on `clips` by folds.

    The temperature comes from clips out of their folds: for a test set from those of the comparison, else for each fold
    from all the others.
    """
    variant = validated.variant
    if test is not None:
        last = train_cnn(variant, clips, test, settings, seed=seed, score_every=settings.epochs, checkpoint=checkpoint)
        fitted = classification.fit_temperature(validated.logits, clips.labels)
        everything = torch.ones(len(test), dtype=torch.bool)
        return Judged(test, last.model, everything, last.history, last.logits, torch.full((len(test),), fitted))
    found = cross_validate(variant, clips, settings, seed=seed, score_every=settings.epochs, checkpoint=checkpoint)
    temperature = torch.empty(len(clips))
    for fold in clips.folds.unique():
        out = clips.folds == fold
        temperature[out] = classification.fit_temperature(found.logits[~out], clips.labels[~out])
    first = clips.folds == clips.folds.min()
    return Judged(clips, found.runs[0].model, first, found.history, found.logits, temperature)


def test_table(judged: Judged, alarming: Sequence[int], *, seed: int) -> pd.DataFrame:
    """tab45, two rows: the network as trained, and with its temperature. Columns as `classification.score_row`."""
    clips = judged.clips
    rows = []
    for name, logits in (("as trained", judged.logits), ("calibrated", judged.calibrated)):
        row = classification.score_row(logits, clips.labels, clips.classes, alarming)
        temperature = judged.temperature.mean().item() if name == "calibrated" else 1.0
        rows.append({"outputs": name, "seed": seed, "temperature": temperature} | row)
    return pd.DataFrame(rows)


def matrices(judged: Judged, alarming: Sequence[int]) -> dict[str, np.ndarray]:
    """fig42: counts of all classes and of alarm against none, names, and reliability before and after calibration."""
    clips = judged.clips
    counts = classification.confusion(clips.labels, judged.logits.argmax(1), len(clips.classes))
    tables = {
        name: classification.reliability(logits.softmax(1), clips.labels)[["confidence", "accuracy", "count"]]
        for name, logits in (("trained", judged.logits), ("calibrated", judged.calibrated))
    }
    return {
        "counts": counts,
        "binary": classification.binary(counts, alarming) if len(alarming) else np.zeros((0, 0), int),
        "names": np.array(clips.classes),
        **{f"reliability_{name}": table.to_numpy() for name, table in tables.items()},
    }
