"""Experiments of notebook 06: votes of the three voters, shortcut audit, and alerts in a recording."""

import contextlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from sklearn.model_selection import GroupKFold

from lib.data.audio import Sounds
from lib.emergency.features import RATE
from lib.emergency.recogniser import ensemble
from lib.emergency.recogniser.listener import Rule
from lib.emergency.recogniser.recogniser import TEXT, Opinion, Recogniser, Report
from lib.emergency.whisper import text
from lib.emergency.whisper.text import TextClassifier
from lib.emergency.whisper.training import Clips
from lib.metrics.classification import percent
from lib.metrics.moments import alarm_curve

RULES = ((1, 1), (5, 25), (12, 25), (3, 5))  # k of n frames
FOLDS = 5  # for the text classifier's votes on the validation clips, and for the audit


def parts(recogniser: Recogniser) -> pd.DataFrame:
    """Return the data of fig411: name, inside (contents), parameters and below (inputs) of each part."""

    def size(model: torch.nn.Module) -> int:
        return sum(weight.numel() for weight in model.parameters())

    whisper, config = recogniser.whisper, recogniser.whisper.whisper.config
    encoder, decoder = whisper.whisper.model.encoder, whisper.whisper.model.decoder
    vocabulary = len(recogniser.text.pipeline[0].vocabulary_)
    head, last = whisper.head, recogniser.cnn[-1]
    convolutions = sum(isinstance(part, torch.nn.Conv2d) for part in recogniser.cnn)
    rows = [
        ("log-mel", f"{whisper.mels} bands, 100 frames/s", 0, ""),
        ("CNN", f"{convolutions} convolutions,\n{last.in_features} → {last.out_features}", size(recogniser.cnn),
         "log-mel"),
        ("Whisper encoder", f"{config.encoder_layers} × {config.d_model}, layers × width", size(encoder), "log-mel"),
        ("frame head", f"{head[0].in_features} → {head[0].out_features} → {head[2].out_features}, each "
                       f"{1000 * whisper.seconds_per_moment:.0f} ms", size(head), "Whisper encoder"),
        ("Whisper decoder", f"{config.decoder_layers} × {config.d_model}, layers × width", size(decoder),
         "Whisper encoder"),
        ("text classifier", f"{vocabulary:,} character n-grams", recogniser.text.pipeline[1].coef_.size,
         "Whisper decoder"),
        ("vote", "2 of 3", 0, "CNN, frame head, text classifier"),
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["name", "inside", "parameters", "below"])


def out_of_fold(
    opinion: Opinion, said: Sequence[str], labels: torch.Tensor, reader: TextClassifier, *, seed: int
) -> Opinion:  # fmt: skip
    """Return the opinion on the validation clips with out-of-fold votes of the text classifier `reader`.

    Notebook 04 fits it on the training clips' texts and on the transcripts of the validation clips, so its confidence
    on the latter says little about other clips. For each fold it is refitted without the fold's transcripts and the
    lines spoken in it (`said`); clips with the same line share a fold.
    """
    texts, votes = np.array(opinion.texts, object), torch.full((len(labels), reader.classes), torch.nan)
    lines = [text.normalise(line) or f"none in {place}" for place, line in enumerate(said)]
    for _, out in GroupKFold(FOLDS, shuffle=True, random_state=seed).split(texts, groups=lines):
        known = {text.normalise(one) for one in (*texts[out], *np.array(said, object)[out])}
        kept = [pair for pair in reader.learned if text.normalise(pair[0]) not in known]
        with contextlib.suppress(ValueError):  # fewer than two classes have words: it abstains
            learned = text.fit_text(
                [one for one, _ in kept], torch.tensor([label for _, label in kept]), reader.classes
            )
            votes[out] = learned.logits(texts[out])
    return replace(opinion, votes=opinion.votes | {TEXT: votes})


def silence_audit(clips: Clips, alarming: Sequence[int], *, seed: int) -> pd.DataFrame | None:
    """Return tab412: whether emergencies can be separated from other clips by frames without a labelled sound.

    Features: mean and standard deviation of each band over these frames, for clips (except silent ones) with at least
    half a second of them. Columns: compared, seed, those of `ensemble.audit`. None if there are too few such clips.
    """
    nothing = (clips.moments == 0).repeat_interleave(2, 1)[:, : clips.mel.shape[2]]
    nothing &= clips.mel.float().std(1) > 1e-3  # excludes the padding of short clips
    possible = (nothing.sum(1) >= 50) & (clips.labels != 0)
    quiet = [mel[:, where] for mel, where in zip(clips.mel[possible].float(), nothing[possible], strict=True)]
    features = np.array([torch.cat([some.mean(1), some.std(1)]).numpy() for some in quiet])
    groups = torch.isin(clips.labels[possible], torch.tensor(list(alarming))).numpy()
    if min(groups.sum(), (~groups).sum()) < FOLDS:
        return None
    row = ensemble.audit(features, np.where(groups, "emergency", "none"), folds=FOLDS, seed=seed)
    return pd.DataFrame([{"compared": "emergency or not, by the background alone", "seed": seed} | row])


def false_alarms(recogniser: Recogniser, opinion: Opinion, labels: torch.Tensor, *, seed: int) -> pd.DataFrame:
    """Return the data of fig412: `alarm_curve` of the encoder's frames for each of `RULES`."""
    alarming = recogniser.likely_alarms(opinion).numpy()
    emergency = torch.isin(labels, torch.tensor(list(recogniser.alarming))).numpy()
    rules = [(k, n) for k, n in RULES if n <= alarming.shape[1]]
    step = recogniser.whisper.seconds_per_moment
    return alarm_curve(alarming, emergency, seconds=step, rules=rules).assign(seed=seed)


def with_rule(recogniser: Recogniser, opinion: Opinion, labels: torch.Tensor, *, seed: int) -> Recogniser:
    """Return the recogniser with the rule of `RULES` and the threshold with the lowest mean of two shares: emergencies
    missed, and other (validation) clips that raise an alarm; unchanged if all clips or none are emergencies."""
    table = false_alarms(recogniser, opinion, labels, seed=seed)
    calm = int((~torch.isin(labels, torch.tensor(list(recogniser.alarming)))).sum())
    errors = table.miss_rate / 100 + table.alarms / max(calm, 1)
    if errors.isna().any() or not calm:
        return recogniser
    best = table.loc[errors.idxmin()]
    k, n = map(int, best.rule.split(" of "))
    on, off = best.threshold, min(best.threshold, Rule.off)
    return replace(recogniser, rule=replace(recogniser.rule, k=k, n=n, on=on, off=off))


TARGET = 1.0  # false alarms per hour, about a dozen in a family's waking hours


def operating_points(table: pd.DataFrame) -> list[str]:
    """Return sentences about a table of `false_alarms`: the lowest false-alarm rate with at most 5 and 20 % of the
    emergencies missed, and whether any rule and threshold meets `TARGET`."""
    if not table.hours.iloc[0]:
        return ["All test clips are emergencies: false alarms cannot be counted on them."]
    said = []
    for most in (5.0, 20.0):
        some = table[table.miss_rate <= most]
        if len(some):
            best = some.loc[some.alarms_per_hour.idxmin()]
            said.append(f"With at most {most:g} % of the emergencies missed, the lowest false-alarm rate is "
                        f"{best.alarms_per_hour:.0f} per hour (95 % interval: {best.alarms_low:.0f} to "
                        f"{best.alarms_high:.0f}), by the rule {best.rule} frames above {best.threshold:.2g}; the rule "
                        "was chosen on these same clips, so the rate is optimistic.")  # fmt: skip
        else:
            said.append(f"No rule and threshold misses as few as {most:g} % of the emergencies.")
    rare = table[table.alarms_high <= TARGET]
    if len(rare):
        best = rare.loc[rare.miss_rate.idxmin()]
        return [*said, f"With at most {TARGET:g} false alarm per hour (upper end of the 95 % interval), "
                       f"{best.miss_rate:.0f} % of the emergencies are missed."]  # fmt: skip
    return [*said, f"{60 * table.hours.iloc[0]:.0f} minutes of sound without an emergency are too few to show for any "
                   f"operating point at most {TARGET:g} false alarm per hour, the target set here."]  # fmt: skip


def recorded(recogniser: Recogniser, sounds: Sounds, *, emergencies: Sequence[str], seed: int) -> pd.DataFrame:
    """Return tab415_recorded: how many recorded sounds of each class raise an alert when played as a stream.

    emergencies: the classes of `sounds` that should raise one.
    Columns: sound (all others, all emergencies, then each class), emergency, seed, clips, alarms (clips with an alert)
    and share (%) with low and high (95 %, Wilson).
    """
    alarms = np.array([next(recogniser.watch(clip.numpy()), None) is not None for clip in sounds.samples], bool)
    names = np.array(sounds.classes)[sounds.labels.numpy()]
    real = np.isin(names, list(emergencies))
    rows = [("all others", False, ~real), ("all emergencies", True, real)]
    rows += sorted([(name, name in emergencies, names == name) for name in dict.fromkeys(names.tolist())],
                   key=lambda row: (not row[1], -alarms[row[2]].mean(), row[0]))  # fmt: skip
    found = []
    for name, emergency, chosen in rows:
        count, raised = int(chosen.sum()), int(alarms[chosen].sum())
        share, low, high = percent(raised, count)
        found.append({"sound": name, "emergency": emergency, "seed": seed, "clips": count, "alarms": raised,
                      "share": share, "low": low, "high": high})  # fmt: skip
    return pd.DataFrame(found)


def an_evening(
    sounds: Sounds, alarming: Sequence[int], *, calm: int = 4, emergencies: int = 2
) -> tuple[np.ndarray, list]:
    """Return (samples, spans) of a recording in which each emergency clip follows `calm` clips without an emergency.

    Uses the first clips of each kind; two more calm ones end it. spans: (start, stop in s, emergency or not) of sounds.
    """
    alarms = torch.isin(sounds.labels, torch.tensor(list(alarming)))
    quiet, loud = ((~alarms).nonzero()[:, 0].tolist(), alarms.nonzero()[:, 0].tolist())
    order = []
    for turn in range(emergencies):
        order += quiet[turn * calm : (turn + 1) * calm] + loud[turn : turn + 1]
    order += quiet[emergencies * calm : emergencies * calm + 2]
    seconds, spans = sounds.samples.shape[1] / RATE, []
    for place, index in enumerate(order):
        for onset, offset in sounds.spans[index] if sounds.spans else ():
            spans.append((place * seconds + onset, place * seconds + offset, bool(alarms[index])))
    return sounds.samples[order].flatten().numpy(), spans


def recording_arrays(
    recogniser: Recogniser, samples: np.ndarray, report: Report, spans: Sequence[tuple[float, float, bool]] = ()
) -> dict[str, np.ndarray]:
    """Return the data of fig413: samples; spans (start, stop in s, emergency or not) of known sounds; frame times and
    probability (of an emergency); alarms (at, upheld by the vote); threshold; refractory (s)."""
    return {
        "samples": samples, "spans": np.array(spans, float).reshape(-1, 3), "times": report.times,
        "probability": report.probabilities[:, list(recogniser.alarming)].sum(1),
        "alarms": np.array(report.alarms, float).reshape(-1, 2), "threshold": np.array(recogniser.rule.on),
        "refractory": np.array(recogniser.rule.refractory),
    }  # fmt: skip
