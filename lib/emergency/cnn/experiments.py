"""Experiments of notebook 05: comparison of variants, evaluation of the chosen one, and its explanation."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from lib.data.catalog import readable
from lib.emergency.cnn import faithfulness
from lib.emergency.cnn.network import Settings, Trained, cost_of, cross_validate, logits_of, train_cnn
from lib.emergency.cnn.relevance import explain
from lib.emergency.data.sounds import features_of
from lib.emergency.features import Mels
from lib.emergency.synthesis.soundscapes import STEMS, Soundscapes
from lib.forking import side_by_side
from lib.metrics import classification

SOURCE_VALIDATION = 666  # clips on which the source ranked its seven variants


def curves(compared: dict[str, Trained], seed: int) -> pd.DataFrame:
    """Return fig41: variant, seed, epoch and out-of-fold accuracy (%, over the clips of all folds)."""
    history = pd.concat({label: one.history for label, one in compared.items()}, names=["variant"])
    scored = history.dropna(subset="accuracy").assign(right=lambda rows: rows.accuracy * rows.clips)
    summed = scored.groupby(["variant", "epoch"], sort=False)[["right", "clips"]].sum()
    table = (summed.right / summed.clips).rename("accuracy").reset_index().assign(seed=seed)
    return table[["variant", "seed", "epoch", "accuracy"]]


def variant_table(compared: dict[str, Trained], clips: Mels, *, seed: int) -> pd.DataFrame:
    """Return tab41: variant, seed, parameters, mega_macs (of one clip), clips, folds, accuracy (%, cross-validated),
    low and high (Wilson, 95 %), and low_666 and high_666, the same for 666 clips (the source's validation set)."""
    rows = []
    for label, one in compared.items():
        right = int((one.logits.argmax(1) == clips.labels).sum())
        accuracy, low, high = classification.percent(right, len(clips))
        few = classification.percent(round(right / len(clips) * SOURCE_VALIDATION), SOURCE_VALIDATION)
        row = {"variant": label, "seed": seed} | cost_of(one.variant, clips.mel.shape[2:], len(clips.classes))
        row |= {"clips": len(clips), "folds": len(one.models), "accuracy": accuracy, "low": low, "high": high}
        rows.append(row | {"low_666": few[1], "high_666": few[2]})
    return pd.DataFrame(rows)


def best(table: pd.DataFrame) -> str:
    """Return the variant with the highest cross-validated accuracy; ties go to the fewest multiply-adds."""
    return table.sort_values(["accuracy", "mega_macs"], ascending=[False, True]).variant.iloc[0]


@dataclass(frozen=True)
class Evaluation:
    """The chosen variant and its logits on clips not used to train it nor, if there is a test set, to select it.

    model: the network, or that of the first fold. explained: mask of the clips held out from `model`; only these are
    explained. temperature: (N,), fitted for each clip on others. explain: (model, mel, targets[, one of `methods`]) ->
    relevance in the shape of mel, (n, 1, mels, frames), by default with the first method.
    """

    clips: Mels
    model: nn.Module
    explained: Tensor
    logits: Tensor = field(repr=False)
    temperature: Tensor = field(repr=False)
    explain: Callable[..., Tensor] = explain
    methods: tuple[str, ...] = ("LRP", "input x gradient")

    @property
    def calibrated(self) -> Tensor:
        return self.logits / self.temperature[:, None]


def judge(
    validated: Trained, clips: Mels, test: Mels | None, settings: Settings, *, seed: int, checkpoint: Path
) -> Evaluation:
    """Train the chosen variant on all `clips` and evaluate it on `test`; without a test set, cross-validate it.

    Temperatures are fitted on out-of-fold logits of networks with the same training settings: on all folds if there is
    a test set, else for each fold on the other folds.
    """
    variant, how = validated.variant, {"seed": seed, "score_every": settings.epochs}
    folds = checkpoint if test is None else checkpoint.with_name(f"{checkpoint.name}-folds")
    trainings = [partial(cross_validate, variant, clips, settings, **how, checkpoint=folds)]
    if test is not None:
        trainings.append(partial(train_cnn, variant, clips, test, settings, **how, checkpoint=checkpoint))
    found, *on_all = side_by_side(trainings)
    if test is not None:
        fitted = torch.full((len(test),), classification.fit_temperature(found.logits, clips.labels))
        everything = torch.ones(len(test), dtype=torch.bool)
        return Evaluation(test, *on_all[0].models, everything, on_all[0].logits, fitted)
    temperature = torch.empty(len(clips))
    for fold in clips.folds.unique():
        out = clips.folds == fold
        temperature[out] = classification.fit_temperature(found.logits[~out], clips.labels[~out])
    first = clips.folds == clips.folds.min()
    return Evaluation(clips, found.models[0], first, found.logits, temperature)


def test_table(evaluation: Evaluation, alarming: Sequence[int], *, seed: int) -> pd.DataFrame:
    """Return tab45: the network as trained and calibrated, and two constant predictions, always and never alarming.

    Columns: outputs, seed, temperature, those of `score_row`, balanced_accuracy and average_precision (%).
    """
    clips = evaluation.clips
    rows = []
    for name, logits in (("as trained", evaluation.logits), ("calibrated", evaluation.calibrated)):
        row = classification.score_row(logits, clips.labels, clips.classes, alarming)
        temperature = evaluation.temperature.mean().item() if name == "calibrated" else 1.0
        alarms = classification.alarm_row(logits, clips.labels, alarming)
        constant = {"always": alarms.pop("always"), "never": alarms.pop("never")}
        rows.append({"outputs": name, "seed": seed, "temperature": temperature} | row | alarms)
    for number, (name, accuracy) in enumerate(constant.items()):
        if not np.isnan(accuracy):
            row = {"outputs": f"{name} alarming", "seed": seed, "clips": len(clips), "binary_accuracy": accuracy}
            row |= {"miss_rate": 100.0 * number, "false_alarms": 100.0 * (1 - number), "balanced_accuracy": 50.0}
            rows.append(row | {"average_precision": constant["always"]})
    return pd.DataFrame(rows)


def matrices(evaluation: Evaluation, alarming: Sequence[int]) -> dict[str, np.ndarray]:
    """Return fig42 or fig47: confusion counts of all classes and of alarm or none (from calibrated probabilities, as in
    tab45), names, and reliability before and after calibration."""
    clips = evaluation.clips
    raised = classification.raised(evaluation.calibrated, alarming)
    emergency = torch.isin(clips.labels, torch.tensor(list(alarming)))
    found = {
        "counts": classification.confusion(clips.labels, evaluation.logits.argmax(1), len(clips.classes)),
        "binary": classification.binary(raised, emergency) if len(alarming) else np.zeros((0, 0), int),
        "names": np.array(clips.classes),
    }
    for name, logits in (("trained", evaluation.logits), ("calibrated", evaluation.calibrated)):
        table = classification.reliability(logits.softmax(1), clips.labels)
        found[f"reliability_{name}"] = table[["confidence", "accuracy", "count"]].to_numpy()
    return found


# --- Relevance ----------------------------------------------------------------------------------

RANDOM_NETWORKS = 3  # their mean relevance is a null baseline


SHOWN = ("electrical accident", "collapse", "fire")  # classes of which the source shows maps, if they exist here


def names_to_show(names: Sequence[str], classes: Sequence[str], alarming: Sequence[int]) -> list[str]:
    """Return `names`; if empty, `SHOWN`; for data sets without these classes, the first three alarming classes.

    Raises:
        ValueError: a name is not among the classes.
    """
    known = {readable(name): name for name in classes}  # NFC and NFD are equivalent
    if unknown := [name for name in names if readable(name) not in known]:
        raise ValueError(f"there is no class {unknown[0]!r} to show; the classes are {', '.join(known)}")
    others = [classes[number] for number in alarming] or list(classes)
    return [known[readable(name)] for name in names] or [name for name in SHOWN if name in known] or others[:3]


def shown_clips(evaluation: Evaluation, names: Sequence[str], truth: Soundscapes | None) -> list[int]:
    """Return for each class in `names` its clip with the highest probability of the class, even if it is misclassified.

    In soundscapes, only clips with both speech and an event are considered. Classes without such a clip are left out.
    """
    clips, probabilities = evaluation.clips, evaluation.logits.softmax(1)
    possible = evaluation.explained if truth is None else evaluation.explained & _both(truth)
    found = []
    for name in names:
        number = clips.classes.index(name)
        own = (possible & (clips.labels == number)).nonzero()[:, 0]
        if len(own):
            found.append(int(own[probabilities[own, number].argmax()]))
    return found


def _both(truth: Soundscapes) -> Tensor:
    """Return which clips have both speech and an event."""
    return torch.tensor([bool(clip.of("speech")) and bool(clip.of("event")) for clip in truth.clips])


def relevance_pictures(
    evaluation: Evaluation, shown: Sequence[int], truth: Soundscapes | None
) -> dict[str, np.ndarray]:
    """Return fig43 or fig410: mel and relevance (clips, mels, frames) for each clip's true class, names and taken_for,
    the true and predicted classes, and spans (rows: clip, 0 event or 1 speech, onset, offset in s)."""
    clips, chosen = evaluation.clips, torch.tensor(list(shown), dtype=torch.long)
    found = evaluation.explain(evaluation.model, clips.mel[chosen], clips.labels[chosen])
    spans = [
        (place, kind, label.onset, label.offset)
        for place, clip in enumerate(shown if truth is not None else ())
        for kind, name in enumerate(("event", "speech"))
        for label in truth.clips[clip].of(name)
    ]
    names = np.array(clips.classes)
    return {
        "mel": clips.mel[chosen, 0].float().numpy(), "relevance": found[:, 0].numpy(),
        "names": names[clips.labels[chosen].numpy()],
        "taken_for": names[evaluation.logits[chosen].argmax(1).numpy()],
        "spans": np.array(spans, np.float64).reshape(-1, 4),
    }  # fmt: skip


def explained(evaluation: Evaluation, count: int, seed: int) -> Tensor:
    """Return the indices of up to `count` clips, drawn with `seed`, on which explanations are evaluated."""
    possible = evaluation.explained.nonzero()[:, 0]
    order = torch.randperm(len(possible), generator=torch.Generator().manual_seed(seed))
    return possible[order[:count]]


def faithfulness_curves(
    evaluation: Evaluation, chosen: Tensor, *, steps: int, seed: int, randomise: bool = True
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Evaluate explanations of the predicted classes by flipping and, with `randomise`, by randomising weights (on the
    first 16 clips).

    Returns (fig44, areas). fig44: panel ("flipping", "randomised"), method, order, seed, x (share of tiles flipped, or
    number of randomised layers) and value (mean probability, or rank correlation). areas: measure, seed, clips, value,
    low, high, as in tab42.
    """
    mel, targets = evaluation.clips.mel[chosen], evaluation.logits[chosen].argmax(1)
    frames, areas = [], []
    for method in (*evaluation.methods, "random"):
        if method == "random":
            found = torch.rand(mel.shape, generator=torch.Generator().manual_seed(seed))
        else:
            found = evaluation.explain(evaluation.model, mel, targets, method)
        if randomise and method != "random":
            table = faithfulness.randomised(evaluation.model, mel[:16], targets[:16], method, seed=seed)
            table = table.rename(columns={"layers": "x", "correlation": "value"})
            frames.append(table.assign(panel="randomised", method=method, order=""))
        curves = []
        for order in ("most", "least"):
            curves.append(faithfulness.flipping(evaluation.model, mel, found, targets, order=order, steps=steps))
            frame = pd.DataFrame({"x": np.linspace(0, 1, steps + 1), "value": curves[-1].mean(0).numpy()})
            frames.append(frame.assign(panel="flipping", method=method, order=order))
        between = torch.trapezoid(curves[1] - curves[0], dx=1 / steps, dim=1)  # positive for a correct order
        areas.append(_row(f"flipping area, {method}", between.numpy(), seed))
    figure = pd.concat(frames, ignore_index=True).assign(seed=seed)
    return figure[["panel", "method", "order", "seed", "x", "value"]], pd.DataFrame(areas)


def _row(measure: str, values: np.ndarray, seed: int) -> dict:
    mean, low, high = faithfulness.interval(values, seed=seed)
    return {"measure": measure, "seed": seed, "clips": len(values), "value": mean, "low": low, "high": high}


def stem_rows(evaluation: Evaluation, truth: Soundscapes, *, seed: int) -> pd.DataFrame:
    """Measure whether the network relies on the event or on speech, on test clips with both, for predicted classes.

    Returns rows of tab42: those of `share_rows`, and the accuracy (points) lost if a stem is silenced. For the latter,
    stems are summed without simulating the microphone.
    """
    chosen = _both(truth).nonzero()[:, 0]
    right = _right(evaluation, truth, chosen)
    rows = [_row("accuracy, all stems (%)", 100 * right, seed)]
    for place, (stem, of_stem) in enumerate(zip(STEMS, share_rows(evaluation, truth, seed=seed), strict=True)):
        rows += of_stem
        without = _right(evaluation, truth, chosen, without=place)
        rows.append(_row(f"accuracy lost without {stem} (points)", 100 * (right - without), seed))
    return pd.DataFrame(rows)


def share_rows(evaluation: Evaluation, truth: Soundscapes, *, seed: int) -> list[list[dict]]:
    """Return rows of tab42 and tab410 for each stem: relevance (%), each null (%), and relevance - null (points), on
    test clips with both speech and an event, for the predicted classes.

    Shares are those of `faithfulness.shares`, in the cells where the stem has more energy than all others together.
    A further null is the relevance in randomly initialised networks, for the classes that they predict.
    """
    chosen = _both(truth).nonzero()[:, 0]
    mel, energy = evaluation.clips.mel[chosen], truth.energy[chosen.numpy()]

    def shares(model: nn.Module, targets: Tensor) -> dict[str, np.ndarray]:
        return faithfulness.shares(evaluation.explain(model, mel, targets), energy)

    share = shares(evaluation.model, evaluation.logits[chosen].argmax(1))
    relevance, drawn = share.pop("relevance"), []
    for number in range(RANDOM_NETWORKS):
        model = faithfulness.redrawn(evaluation.model, seed + number)
        drawn.append(shares(model, logits_of(model, mel).argmax(1))["relevance"])
    share["random networks"] = np.mean(drawn, axis=0)
    stems = []
    for place, stem in enumerate(STEMS):
        relevant = 100 * relevance[:, place]
        rows = [_row(f"relevance on {stem} (%)", relevant, seed)]
        for name in share:
            null = 100 * share[name][:, place]
            rows.append(_row(f"{name} of {stem} (%)", null, seed))
            rows.append(_row(f"relevance - {name}, {stem} (points)", relevant - null, seed))
        stems.append(rows)
    return stems


def _right(evaluation: Evaluation, truth: Soundscapes, chosen: Tensor, without: int | None = None) -> np.ndarray:
    """Return which clips are classified correctly, (n,) 0 or 1, from the sum of their stems except `without`."""
    right = []
    for part in chosen.split(64):
        stems = torch.from_numpy(truth.stems[part.numpy()]).float() / 32768
        if without is not None:
            stems[:, without] = 0
        logits = logits_of(evaluation.model, features_of(stems.sum(1)))
        right.append((logits.argmax(1) == evaluation.clips.labels[part]).float())
    return torch.cat(right).numpy()


def planted_rows(
    validated: Trained, clips: Mels, test: Mels, settings: Settings, *, uncued: nn.Sequential, number: int,
    seed: int, checkpoint: Path,
) -> pd.DataFrame:  # fmt: skip
    """Test whether LRP exposes a shortcut: clips of other classes with a faint tone replace the training clips of class
    `number`, so that only the tone identifies this class.

    Returns rows of tab42 on test clips of the other classes: the share predicted as class `number` with and without
    the tone (%), and how well the tone is located (area under the ROC curve) by LRP for that class, by LRP of the
    network `uncued`, which was trained without the tone, and by the input level alone.
    """
    own = clips.labels == number
    mel = clips.mel.clone()
    donors, generator = (~own).nonzero()[:, 0], torch.Generator().manual_seed(seed)
    drawn = donors[torch.randint(len(donors), (int(own.sum()),), generator=generator)]
    mel[own] = faithfulness.with_cue(clips.mel[drawn], seed)[0]
    cheating = replace(clips, mel=mel, checksum=f"{clips.checksum}/tone {number} {seed}")
    (model,) = train_cnn(validated.variant, cheating, test, settings, seed=seed, score_every=settings.epochs,
                         checkpoint=checkpoint).models  # fmt: skip
    others = test.mel[test.labels != number]
    cued, mask = faithfulness.with_cue(others, seed + 1)
    taken = {name: (logits_of(model, some).argmax(1) == number).float().numpy()
             for name, some in (("with", cued), ("without", others))}  # fmt: skip
    targets = torch.full((len(cued),), number)
    found = {"LRP": explain(model, cued, targets), "LRP of a network without it": explain(uncued, cued, targets),
             "the input's level": cued.float()}  # fmt: skip
    rows = [_row(f"shortcut taken, {name} the tone (%)", 100 * share, seed) for name, share in taken.items()]
    rows += [_row(f"planted tone found by {name} (area under ROC)", faithfulness.localisation(one, mask), seed)
             for name, one in found.items()]  # fmt: skip
    return pd.DataFrame(rows)
