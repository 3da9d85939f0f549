"""Ablations of the encoder's classifier: onset of the sound, data set, number of clips and initialisation."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from lib.emergency.data import sounds
from lib.emergency.whisper import frozen
from lib.emergency.whisper.experiments import Task, frame_shares, fresh_model, prepared, settings_of, trained
from lib.emergency.whisper.model import EmergencyWhisper
from lib.emergency.whisper.training import Clips, Settings, label_frames, predict_frames, starting_at
from lib.metrics import classification

ADAPTERS = 8  # rank, in figure 417
PROBE = 0.001  # inverse L2 penalty of the logistic regression in table 418, whose features are those of all layers

# --- Onsets -------------------------------------------------------------------------------------


def onsets(
    task: Task, clips: Clips, settings: Settings, *, seconds: Sequence[float], longest: float, seed: int,
    checkpoints: Path,
) -> pd.DataFrame:  # fmt: skip
    """Return fig46: accuracy by onset, after training on sounds that all start at 0 s, as the source's do, or anywhere.

    Two models are trained at ratio 0 on the same `clips`, with all onsets at 0 s or with random shifts (from a
    checkpoint, their heads first, on the same clips), and compared on the task's test clips with sounds of at most
    `longest` seconds, shifted to begin at each of `seconds`.

    Columns: training, onset, seed, clips, silent (% of their frames, the accuracy of always predicting silence),
    moments and accuracy (of frames and of clips, %) with 95 % intervals as in `sweep`. The table is empty if no test
    clip is that short.
    """
    short, rows = task.test.part(_extent(task.test) <= longest, f"up to {longest:g} s"), []
    if not len(short):
        return pd.DataFrame(rows)
    for name, anywhere in (("all at 0 s", False), ("anywhere", True)):
        some = clips if anywhere else starting_at(clips, 0.0)
        how, where = replace(settings, shift=anywhere), {"seed": seed, "checkpoints": checkpoints / name}
        model = trained(prepared(replace(task, clips=some), **where).fresh, some, how, 0.0, **where)
        for second in seconds:
            turned = starting_at(short, second)
            outputs = predict_frames(model, turned.mel, words=False)
            silent = 100 * (turned.targets(model.head.stack) == 0).double().mean().item()
            row = {"training": name, "onset": second, "seed": seed, "clips": len(turned), "silent": silent}
            rows.append(row | frame_shares(turned, outputs, model.head.stack, "accuracy", seed))
    return pd.DataFrame(rows)


def _extent(clips: Clips) -> Tensor:
    """Return the seconds from the first sound of any class to the end of the last, (N,); inf without any."""
    heard = (clips.moments > 0).int()
    around = heard.argmax(1) + heard.flip(1).argmax(1)  # positions before the first sound and after the last
    return torch.where(heard.any(1), (heard.shape[1] - around) / 50, float("inf"))


# --- Cross-validation ---------------------------------------------------------------------------


def cross_validation(
    values: Mapping[str, Any], alarming: Sequence[int], *, seed: int, checkpoints: Path
) -> pd.DataFrame:
    """Return tab418: classifiers on the frozen encoder of a checkpoint, by cross-validation over the folds of ESC-50,
    so that each clip is classified by one that was not trained on its fold.

    They are the head of notebook 04, and a logistic regression on the mean and standard deviation over time of all
    layers. values: the parameters of notebook 04 by name.

    Columns: classifier, seed, folds, those of `score_row` (ece without calibration), balanced_accuracy and
    average_precision (%), and the accuracy of the constant predictions, always and never (alarming).
    """
    whole = sounds.load(values["dataset"], "all", seconds=values["seconds"], count=values["train_count"] or None,
                        seed=values["seed"])  # fmt: skip
    fresh, settings = fresh_model(values, None, whole.classes), settings_of(values)[0]
    clips = label_frames(whole, fresh().mels)
    states = frozen.hidden_states(fresh(), clips, precision=values["precision"], device=values["device"])
    features = frozen.pooled(states).reshape(len(clips), -1)
    found = {name: torch.empty(len(clips), len(clips.classes)) for name in ("head", "logistic regression")}
    folds = whole.folds.unique().tolist()
    for fold in folds:
        model, out = fresh(), whole.folds == fold
        where = checkpoints / f"head-without-fold-{fold}"
        frozen.train_head(model, clips, settings, seed=seed, checkpoint=where, chosen=~out)
        found["head"][out] = predict_frames(model, clips.mel[out], words=False).clips
        probe = frozen.linear_probe(PROBE).fit(features[~out.numpy()], clips.labels[~out].numpy())
        likely = torch.full((int(out.sum()), len(clips.classes)), -torch.inf)
        likely[:, probe.classes_] = torch.from_numpy(probe.predict_log_proba(features[out.numpy()])).float()
        found["logistic regression"][out] = likely
    return pd.DataFrame([
        {"classifier": name, "seed": seed, "folds": len(folds)}
        | classification.score_row(logits, clips.labels, clips.classes, alarming)
        | classification.alarm_row(logits, clips.labels, alarming)
        for name, logits in found.items()
    ])  # fmt: skip


# --- Transfer and learning curves ---------------------------------------------------------------


def transfer(
    tasks: Mapping[str, Task], settings: Settings, alarming: Sequence[int], *, seed: int, checkpoints: Path
) -> pd.DataFrame:
    """Return tab417: models trained on each data set (ratio 0) and evaluated on the test set of every one.

    tasks: by name of the data set; all are trained with the same settings, or their head alone if `head` is set.

    Columns: training, test, seed, clips, and moments (frames), accuracy and binary_accuracy in % with 95 % intervals.
    """
    rows = []
    for number, (name, task) in enumerate(tasks.items()):
        places = checkpoints if number == 0 else checkpoints / name
        task = prepared(task, seed=seed, checkpoints=places)
        how = settings if task.head is None else replace(settings, epochs=0)
        model = trained(task.fresh, task.clips, how, 0.0, seed=seed, checkpoints=places)
        for other, judged in tasks.items():
            rows.append({"training": name, "test": other, "seed": seed} | _judged(model, judged.test, alarming, seed))
    return pd.DataFrame(rows)


def _judged(model: EmergencyWhisper, clips: Clips, alarming: Sequence[int], seed: int) -> dict[str, float]:
    outputs = predict_frames(model, clips.mel, words=False)
    binary = classification.score_row(outputs.clips, clips.labels, clips.classes, alarming)
    return (
        {"clips": len(clips)}
        | frame_shares(clips, outputs, model.head.stack, "accuracy", seed)
        | {name: value for name, value in binary.items() if name.startswith("binary_accuracy")}
    )


def starts(task: Task, values: Mapping[str, Any]) -> dict[str, Task]:
    """Return tasks by what they train: all weights of the checkpoint, adapters of rank `ADAPTERS`, its head alone, or a
    Whisper from scratch for `scratch_epochs`."""
    scratch = {**values, "checkpoint": "", "epochs": values["scratch_epochs"]}
    fresh = fresh_model(scratch, task.clips.texts, task.clips.classes)
    return {
        "all weights": replace(task, settings=replace(task.settings, adapters=0)),
        f"adapters of rank {ADAPTERS}": replace(task, settings=replace(task.settings, adapters=ADAPTERS)),
        "head, frozen encoder": replace(task, settings=replace(task.settings, epochs=0)),
        "from scratch": replace(task, head=None, settings=settings_of(scratch)[1], fresh=fresh),
    }


def learning_curve(
    tasks: Mapping[str, Task], sizes: Sequence[int], alarming: Sequence[int], *, seed: int, checkpoints: Path
) -> pd.DataFrame:
    """Return fig417: test scores of `tasks` (see `starts`), each trained at ratio 0 on its first n clips, n in `sizes`.

    Columns: training, size, seed, clips, and moments (frames), accuracy and binary_accuracy in % with 95 % intervals.
    """
    rows = []
    for name, whole in tasks.items():
        for size in sizes:
            some = whole.clips.first(size)
            # Tasks that first train the head alone share this head.
            task = prepared(replace(whole, clips=some), seed=seed, checkpoints=checkpoints / f"first-{size}")
            model = trained(task.fresh, some, task.settings, 0.0, seed=seed, checkpoints=checkpoints / f"{name}-{size}")
            rows.append({"training": name, "size": len(some), "seed": seed} | _judged(model, task.test, alarming, seed))
    return pd.DataFrame(rows)
