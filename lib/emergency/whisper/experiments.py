"""Experiments of notebook 04: choice of the loss ratio, evaluation of the chosen Whisper, and its explanation."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from lib.emergency.cnn import faithfulness
from lib.emergency.cnn.experiments import Evaluation, faithfulness_curves, share_rows
from lib.emergency.data.sounds import Sounds, three_sets
from lib.emergency.features import Mels
from lib.emergency.synthesis.soundscapes import Soundscapes
from lib.emergency.whisper import text
from lib.emergency.whisper.frozen import train_head
from lib.emergency.whisper.model import EmergencyWhisper, WhisperSize, build, from_checkpoint
from lib.emergency.whisper.relevance import METHODS, ClipClassifier, explain_clips
from lib.emergency.whisper.text import TextClassifier
from lib.emergency.whisper.training import UNKNOWN, Clips, FrameOutputs, Settings, label_frames, predict_frames, train
from lib.forking import give_back
from lib.metrics import classification
from lib.metrics.moments import GAP, SHORTEST, event_interval, events, moment_interval, psds_interval

Build = Callable[[], EmergencyWhisper]  # returns a new model, always with the same weights

TRAINED_HEAD = 0.1  # share of `head_rate` for a head that is already trained: the full rate would undo this
# The source's results (%) for its Model 2 on its own test set from AI Hub.
SOURCE = {
    "accuracy of moments": 93.38, "accuracy of clips": 97.4, "emergency or not": 99.85,
    "character error rate, seen lines": 12.63, "emergency or not, from the text": 96.21,
}  # fmt: skip


@dataclass(frozen=True)
class Task:
    """Data, model and training settings given by the parameters of notebook 04.

    clips, validation, test: for training, selection and evaluation. samples: of the test clips, (N, n) int16, 16 kHz.
    truth: ground truth of the test clips, for soundscapes. head: settings for first training the head alone, on the
    frozen encoder of a checkpoint; None to skip this, as from scratch. fresh: builds the model that every training of
    the sweep starts from. settings: of the final training, with the ratio not yet set; the sweep may take fewer epochs.
    """

    clips: Clips
    validation: Clips
    test: Clips
    samples: Tensor
    truth: Soundscapes | None
    head: Settings | None
    fresh: Build
    settings: Settings


def task(values: Mapping[str, Any], use: Callable[[Sounds], Any] = lambda sounds: None) -> Task:
    """Load the data and set up the model given by `values`, the parameters of notebook 04 by name.

    `use` registers each data set. Only the test clips keep their samples in memory.

    Raises:
        ValueError: before any training, if a ratio is outside 0 to 1 or needs texts that the data set lacks, or if
            `epochs` = 0 although there is no head to train or a ratio is above 0, or if a text is too long.
    """
    for ratio in values.get("ratios", ()):
        Settings(ratio)
    if not values["epochs"] and not (values["checkpoint"] and values["head_epochs"]):
        raise ValueError("epochs = 0 trains the head of a checkpoint alone: set checkpoint and head_epochs")
    if not values["epochs"] and any(values.get("ratios", ())):
        raise ValueError("epochs = 0 leaves the decoder as it is: set ratios = [0.0]")
    counts = {name: values[name] for name in ("train_count", "validation_count", "test_count")}
    *parts, truth = three_sets(values["dataset"], seconds=values["seconds"], seed=values["seed"], **counts)
    if parts[0].texts is None and any(values.get("ratios", ())):
        raise ValueError(f"{parts[0].name} has no words to learn from: set ratios = [0.0]")
    fresh = fresh_model(values, parts[0].texts, parts[0].classes)
    model = fresh()  # a faulty checkpoint raises its error here, before spectrograms are computed
    if any(values.get("ratios", ())):
        model.tokens_of(parts[0].texts)  # as does a text that is too long
    mels = model.mels
    del model
    samples, sets = parts[2].samples, []
    while parts:
        use(parts[0])
        sets.append(label_frames(parts.pop(0), mels))
    give_back()
    head, settings = settings_of(values)
    return Task(*sets, samples, truth, head, fresh, settings)


def fresh_model(values: Mapping[str, Any], texts: Sequence[str] | None, classes: Sequence[str]) -> Build:
    """Return a builder: from folder or hub name `checkpoint`, or if that is "", from scratch with a BPE of `texts`."""
    how = {name: values[name] for name in ("stack", "hidden", "seed")}
    if values["checkpoint"]:
        return partial(from_checkpoint, values["checkpoint"], classes, **how)
    size = WhisperSize(*(values[name] for name in ("d_model", "encoder_layers", "decoder_layers", "heads")))
    return partial(build, [text for text in texts or classes if text], classes, size, **how)


def settings_of(values: Mapping[str, Any]) -> tuple[Settings | None, Settings]:
    """Return `head` and `settings` of a `Task`."""
    how = {"ratio": 0.0} | {name: values[name] for name in ("batch_size", "precision", "device")}
    rest = {name: values[name] for name in ("epochs", "equaliser", "time_mask", "frequency_mask")}
    if not values["checkpoint"]:
        return None, Settings(learning_rate=values["learning_rate"], optimizer="muon", **how, **rest)
    how["learning_rate"] = values["head_rate"]  # a rate that suits random weights would destroy pretrained ones
    rest |= {name: values[name] for name in ("trained_rate", "layer_decay", "adapters")}
    if not values["head_epochs"]:
        return None, Settings(**how, **rest)
    return Settings(epochs=values["head_epochs"], **how), Settings(head_rate=TRAINED_HEAD, **how, **rest)


def prepared(task: Task, *, seed: int, checkpoints: Path) -> Task:
    """Return the task with its head trained on the frozen encoder of a checkpoint; unchanged if `head` is None."""
    if task.head is None:
        return task
    model = task.fresh()
    train_head(model, task.clips, task.head, seed=seed, checkpoint=checkpoints / "head")
    return replace(task, fresh=partial(copy.deepcopy, model))


# --- The ratio ----------------------------------------------------------------------------------


def sweep(
    fresh: Build, clips: Clips, validation: Clips, settings: Settings, ratios: Sequence[float], *,
    seed: int, checkpoints: Path,
) -> tuple[float, pd.DataFrame | None]:  # fmt: skip
    """Return the best ratio of the text loss, and fig45; with a single ratio, there is no choice and fig45 is None.

    Columns: ratio, seed, epochs, and on validation clips moments and clips (accuracy of frames and clips, %), cer and
    hallucinations (%; NaN at ratio 0); all but the last with 95 % intervals, `_low` and `_high` (Wilson's for clips,
    else a bootstrap over clips).
    """
    if len(ratios) == 1:
        return ratios[0], None
    rows = []
    for ratio in ratios:
        model = trained(fresh, clips, settings, ratio, seed=seed, checkpoints=checkpoints)
        outputs = predict_frames(model, validation.mel, words=ratio > 0)
        row = {"ratio": ratio, "seed": seed, "epochs": settings.epochs}
        row |= frame_shares(validation, outputs, model.head.stack, "clips", seed)
        row |= dict.fromkeys(("cer", "cer_low", "cer_high", "hallucinations"), np.nan)
        if ratio > 0:
            found = text.cer_row(validation.texts, outputs.texts, seed=seed)
            row |= {name: found[name] for name in ("cer", "cer_low", "cer_high")}
            invented, of = text.hallucinations(validation.texts, outputs.texts)
            row["hallucinations"] = classification.percent(invented, of)[0]
        rows.append(row)
    table = pd.DataFrame(rows)
    return choose(table), table


def frame_shares(clips: Clips, outputs: FrameOutputs, stack: int, name: str, seed: int) -> dict[str, float]:
    """Return the accuracy (%) of frames, as moments, and of clips, as `name`, each with `_low` and `_high`."""
    each, right = clip_accuracies(clips, outputs, stack), outputs.clips.argmax(1) == clips.labels
    values = (*faithfulness.interval(each[~np.isnan(each)], seed=seed),
              *classification.percent(int(right.sum()), len(right)))  # fmt: skip
    names = (f"{one}{end}" for one in ("moments", name) for end in ("", "_low", "_high"))
    return dict(zip(names, values, strict=True))


def trained(
    fresh: Build, clips: Clips, settings: Settings, ratio: float, *, seed: int, checkpoints: Path
) -> EmergencyWhisper:
    """Return a fresh model after training at `ratio`, resumed from its checkpoint; unchanged if there are 0 epochs."""
    model, still = fresh(), "" if settings.shift else "-still"
    if settings.epochs:
        train(model, clips, replace(settings, ratio=ratio), seed=seed, name=f"ratio {ratio:g}",
              checkpoint=checkpoints / f"ratio-{ratio:g}-of-{settings.epochs}{still}")  # fmt: skip
        give_back()
    return model


def choose(table: pd.DataFrame) -> float:
    """Return the ratio with the largest sum of frame accuracy and 100 - CER (at least 0).

    Ratios that train both tasks are preferred to 0 and 1.
    """
    both = table[(table.ratio > 0) & (table.ratio < 1)]
    some = both if len(both) else table
    score = some.moments + (100 - some.cer).clip(lower=0).fillna(0)
    return float(some.ratio[score.idxmax()])


# --- The chosen model ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Predictions:
    """The chosen model and its predictions on held-out clips.

    temperature: of clip logits, fitted on the validation clips. reader: text classifier fitted on the training clips'
    texts and on the transcripts of the validation clips, which have the decoder's mistakes. ideal: text classifier
    fitted on the training clips' texts alone, for perfect transcripts. Both are None without texts and at ratio 0.
    """

    model: EmergencyWhisper
    test: Clips
    outputs: FrameOutputs
    validation: Clips
    validation_outputs: FrameOutputs
    temperature: float
    reader: TextClassifier | None
    ideal: TextClassifier | None

    def evaluation(self) -> Evaluation:
        """Return the encoder as a clip classifier, for the analyses shared with the CNN."""
        clips = self.test
        mels = Mels(clips.mel[:, None], clips.labels, clips.classes, torch.zeros(len(clips), dtype=torch.long),
                    clips.name, clips.checksum)  # fmt: skip
        return Evaluation(
            mels, ClipClassifier(self.model), torch.ones(len(clips), dtype=torch.bool), self.outputs.clips,
            torch.full((len(clips),), self.temperature), explain_clips, METHODS,
        )  # fmt: skip


def judge(model: EmergencyWhisper, clips: Clips, validation: Clips, test: Clips, ratio: float) -> Predictions:
    """Predict both sets, calibrate on the validation clips, and fit the text classifier with their transcripts."""
    before, outputs = (predict_frames(model, some.mel, words=ratio > 0) for some in (validation, test))
    temperature = classification.fit_temperature(before.clips, validation.labels)
    reader = ideal = None
    if clips.texts is not None and ratio:
        ideal = text.fit_text(clips.texts, clips.labels, len(clips.classes))
        both = torch.cat([clips.labels, validation.labels])
        reader = text.fit_text([*clips.texts, *before.texts], both, len(clips.classes))
    return Predictions(model, test, outputs, validation, before, temperature, reader, ideal)


def recognition_table(predictions: Predictions, alarming: Sequence[int], *, seed: int) -> pd.DataFrame:
    """Return tab44: measure, seed, count (of clips, frames or events), value, low, high (95 %); validation with
    validation_low and validation_high (on the validation clips); source (the source's result on its own test set).

    Intervals are Wilson's for shares of clips and bootstrapped over clips for the rest; balanced accuracy, average
    precision, the constant predictions and the calibration error have none.
    """
    test = _measures(predictions, predictions.test, predictions.outputs, alarming, seed)
    before = _measures(predictions, predictions.validation, predictions.validation_outputs, alarming, seed)
    # The text classifier was fitted on the transcripts of the validation clips.
    before = {name: row for name, row in before.items() if not name.startswith("emergency or not, from the text")}
    if predictions.reader is not None:
        for which, split, said, written in _kinds_of_lines(predictions):
            measure, row = f"character error rate, {which} lines", text.cer_row(said, written, seed=seed)
            (test if split == "test" else before)[measure] = tuple(row.values())
            test.setdefault(measure, (0, *[np.nan] * 3))  # no such clips
    columns = ("count", "value", "low", "high")
    table, validation = (
        pd.DataFrame([dict(zip(columns, row, strict=False)) for row in found.values()], list(found), columns)
        for found in (test, before)
    )
    names = {"value": "validation", "low": "validation_low", "high": "validation_high"}
    table = table.join(validation[list(names)].rename(columns=names)).rename_axis("measure").reset_index()
    table.insert(1, "seed", seed)
    return table.assign(source=table.measure.map(SOURCE))


def _kinds_of_lines(predictions: Predictions) -> list[tuple[str, str, list[str], list[str]]]:
    """Return (kind, split, references, hypotheses): "unseen" are test clips whose line is in no training clip, "seen"
    those whose line is in one or, if there are none, as in soundscapes, such validation clips."""
    learned = {line for line, _ in predictions.ideal.learned}

    def pairs(clips: Clips, outputs: FrameOutputs, seen: bool) -> list[tuple[str, str]]:
        return [(said, written) for said, written in zip(clips.texts, outputs.texts, strict=True)
                if (text.normalise(said, "no punctuation") in learned) == seen]  # fmt: skip

    test, validation = (predictions.test, predictions.outputs), (predictions.validation, predictions.validation_outputs)
    new, known = pairs(*test, False), pairs(*test, True)
    seen = ("test", known) if known else ("validation", pairs(*validation, True))
    return [(kind, split, [said for said, _ in some], [written for _, written in some])
            for kind, split, some in (("unseen", "test", new), ("seen", *seen))]  # fmt: skip


def _measures(
    predictions: Predictions, clips: Clips, outputs: FrameOutputs, alarming: Sequence[int], seed: int
) -> dict[str, tuple[float, ...]]:
    """Return (count, value) or (count, value, low, high) of each measure."""
    stack, found = predictions.model.head.stack, {}
    if has_times(clips):  # else all frames have the class of their clip, which is scored below
        for measure, silence in (("accuracy of moments", True), ("accuracy of moments without silence", False)):
            each = clip_accuracies(clips, outputs, stack, silence)
            each = each[~np.isnan(each)]
            found[measure] = (len(each), *faithfulness.interval(each, seed=seed))
        step = predictions.model.seconds_per_moment
        predicted, wanted = outputs.moments.argmax(2).numpy(), clips.targets(stack).numpy()
        found["macro F1 of moments"] = (int((wanted >= 0).sum()), *moment_interval(predicted, wanted, seed=seed))
        true = events(clips.moments.numpy(), 0.02)
        ours = events(predicted, step, gap=GAP, shortest=SHORTEST)
        found["event F1, collars of 200 ms"] = (len(true), *event_interval(ours, true, len(clips), seed=seed))
        likely = outputs.moments.softmax(2).numpy()
        found["PSDS1 (0 to 1)"] = (len(true), *psds_interval(likely, true, seconds=step, seed=seed))
    calibrated = outputs.clips / predictions.temperature
    score = classification.score_row(calibrated, clips.labels, clips.classes, alarming)
    emergencies = int(torch.isin(clips.labels, torch.tensor(list(alarming))).sum())
    for measure, name, of in (("accuracy of clips", "accuracy", len(clips)),
                              ("emergency or not", "binary_accuracy", len(clips)),
                              ("missed emergencies", "miss_rate", emergencies),
                              ("false alarms", "false_alarms", len(clips) - emergencies)):  # fmt: skip
        found[measure] = (of, *_with_interval(score, name))
    for name, value in classification.alarm_row(calibrated, clips.labels, alarming).items():
        constant = " alarming" if name in ("always", "never") else ""
        found[f"emergency or not, {name.replace('_', ' ')}{constant}"] = (score["clips"], value)
    found["calibration error of clips"] = (score["clips"], score["ece"])
    if predictions.reader is not None:
        invented, of = text.hallucinations(clips.texts, outputs.texts)
        found["clips with invented words"] = (of, *classification.percent(invented, of))
        # The second measure is what perfect transcripts would give.
        for measure, reader, texts in (
            ("emergency or not, from the text", predictions.reader, outputs.texts),
            ("emergency or not, from what was said", predictions.ideal, clips.texts),
        ):
            logits = classification.without_abstentions(reader.logits(texts))
            score = classification.score_row(logits, clips.labels, clips.classes, alarming)
            found[measure] = (len(clips), *_with_interval(score, "binary_accuracy"))
            balanced = classification.alarm_row(logits, clips.labels, alarming)["balanced_accuracy"]
            found[f"{measure}, balanced accuracy"] = (score["clips"], balanced)
    return found


def _with_interval(score: Mapping[str, Any], name: str) -> tuple[float, ...]:
    return tuple(score[f"{name}{end}"] for end in ("", "_low", "_high"))


def has_times(clips: Clips) -> bool:
    """Return whether the times of the sounds are known."""
    return clips.classes[0] == "silence" and bool((clips.moments == 0).any())


def clip_accuracies(clips: Clips, outputs: FrameOutputs, stack: int, silence: bool = True) -> np.ndarray:
    """Return the accuracy (%) over the known frames of each clip, (N,), NaN without any; `silence` includes class 0."""
    wanted = clips.targets(stack)
    known = (wanted != UNKNOWN) & (silence | (wanted != 0))
    right = ((outputs.moments.argmax(2) == wanted) & known).sum(1)
    return (100 * right / known.sum(1)).numpy().astype(np.float64)


def cer_table(predictions: Predictions, *, seed: int) -> pd.DataFrame:
    """Return tab49: CER by normaliser, for lines seen in training and for unseen lines.

    Columns: lines, split (of the clips), normaliser, seed, clips, cer, cer_low, cer_high, chance (%,
    `text.chance_cer`)."""
    return pd.DataFrame([
        {"lines": which, "split": split, "normaliser": name, "seed": seed}
        | text.cer_row(said, written, name, seed=seed) | {"chance": text.chance_cer(said, written, name, seed=seed)}
        for which, split, said, written in reversed(_kinds_of_lines(predictions))
        for name in text.NORMALISERS
    ])  # fmt: skip


def read_lines(predictions: Predictions, count: int) -> pd.DataFrame:
    """Return fig49: lines, reference and hypothesis of the first `count` clips with words, for each kind of line."""
    rows = []
    for which, _, said, written in reversed(_kinds_of_lines(predictions)):
        spoken = [pair for pair in zip(said, written, strict=True) if pair[0]]
        rows += [{"lines": which, "reference": one, "hypothesis": two} for one, two in spoken[:count]]
    return pd.DataFrame(rows)


def timelines(
    predictions: Predictions, alarming: Sequence[int], samples: Tensor, *, ranks: Sequence[float] = (0.9, 0.5, 0.1)
) -> dict[str, np.ndarray]:
    """Return fig48: the non-silent clips at the given `ranks` of frame accuracy, 0 to 1 (1 is the best).

    Keys: samples (clips, n) int16, mel (clips, mels, frames), truth and found classes (clips, moments), alarming,
    names, accuracy (%), ranks.
    """
    each = clip_accuracies(predictions.test, predictions.outputs, predictions.model.head.stack)
    heard = (predictions.test.moments > 0).any(1).numpy() & ~np.isnan(each)
    order = np.flatnonzero(heard)[np.argsort(each[heard], kind="stable")]
    chosen = [int(order[round(rank * (len(order) - 1))]) for rank in ranks]
    return {
        "samples": samples[chosen].numpy(), "mel": predictions.test.mel[chosen].numpy(),
        "truth": predictions.test.targets(predictions.model.head.stack)[chosen].numpy(),
        "found": predictions.outputs.moments.argmax(2)[chosen].numpy(),
        "alarming": np.array(list(alarming)), "names": np.array(predictions.test.classes), "accuracy": each[chosen],
        "ranks": np.array(list(ranks)),
    }  # fmt: skip


# --- Explanation --------------------------------------------------------------------------------


def encoder_table(
    evaluation: Evaluation, chosen: Tensor, truth: Soundscapes | None, *, steps: int, seed: int
) -> pd.DataFrame:
    """Return tab410: measure, seed, clips, value, low, high. Measures are the flipping areas of each method and of a
    random order, and for soundscapes the shares of the stems in CP-LRP relevance and in the nulls of `share_rows`."""
    give_back()
    rows = faithfulness_curves(evaluation, chosen, steps=steps, seed=seed, randomise=False)[1].to_dict("records")
    return pd.DataFrame(rows + (sum(share_rows(evaluation, truth, seed=seed), []) if truth is not None else []))
