"""What notebook 06 does: let the three voters vote, look for shortcuts, and follow a recording to its alerts."""

import time
from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from lib.data.audio import Sounds
from lib.emergency import ensemble
from lib.emergency.features import RATE
from lib.emergency.moments import Timed, timed
from lib.emergency.recogniser import Opinion, Recogniser
from lib.metrics.moments import alarm_curve

RULES = ((1, 1), (5, 25), (12, 25), (3, 5))  # k of n moments


def parts(recogniser: Recogniser) -> pd.DataFrame:
    """fig411: name, inside, parameters, below, read off the models."""

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
        ("moments", f"{head[0].in_features} → {head[0].out_features} → {head[2].out_features}, each "
                    f"{1000 * whisper.seconds_per_moment:.0f} ms", size(head), "Whisper encoder"),
        ("Whisper decoder", f"{config.decoder_layers} × {config.d_model}, layers × width", size(decoder),
         "Whisper encoder"),
        ("text classifier", f"{vocabulary:,} character n-grams", recogniser.text.pipeline[1].coef_.size,
         "Whisper decoder"),
        ("vote", "2 of 3", 0, "CNN, moments, text classifier"),
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["name", "inside", "parameters", "below"])


def gains(
    recogniser: Recogniser, sounds: Sounds, opinion: Opinion, decibels: Sequence[float], *, seed: int
) -> pd.DataFrame:
    """tab411: decisions (emergency or not, by the vote) that change when clips are louder or softer: decibels, seed,
    clips, changed (%)."""
    before = ensemble.majority(opinion.votes, recogniser.alarming)
    samples, rows = sounds.samples.float() / 32768, []
    for level in decibels:
        after = ensemble.majority(recogniser.hear(samples * 10 ** (level / 20)).votes, recogniser.alarming)
        rows.append({"decibels": level, "seed": seed, "clips": len(sounds),
                     "changed": 100 * (before != after).float().mean().item()})  # fmt: skip
    return pd.DataFrame(rows)


def silence_audit(clips: Timed, alarming: Sequence[int], *, seed: int) -> pd.DataFrame:
    """tab412: can emergencies be told from the rest by moments in which nothing of either is heard?

    Features: mean and standard deviation of each band over those moments, of clips that have half a second of them.
    Columns: told_apart, seed, and those of `ensemble.audit`.
    """
    nothing = (clips.moments == 0).repeat_interleave(2, 1)[:, : clips.mel.shape[2]]
    possible = (nothing.sum(1) >= 50) & (clips.labels != 0)
    features = []
    for mel, where in zip(clips.mel[possible].float(), nothing[possible], strict=True):
        some = mel[:, where]
        features.append(torch.cat([some.mean(1), some.std(1)]))
    groups = torch.isin(clips.labels[possible], torch.tensor(list(alarming))).numpy()
    features = torch.stack(features) if features else torch.zeros(0, 2 * clips.mel.shape[1])
    row = ensemble.audit(features.numpy(), np.where(groups, "emergency", "none"), seed=seed)
    return pd.DataFrame([{"told_apart": "emergency from none, by the background alone", "seed": seed} | row])


def corpora_left_out(sets: Sequence[Sounds], alarming: Sequence[int], *, seed: int) -> pd.DataFrame | None:
    """tab413: what a listener loses on recordings of a corpus that it has never heard; None where there is but one.

    The listener is a logistic regression on the mean and standard deviation of each mel band, which takes seconds to
    train anew for each corpus; it stands for the shortcuts that there are, not for what the voters make of them.
    Columns: those of `ensemble.leave_one_corpus_out`.
    """
    if any(part.corpora is None for part in sets) or len({name for part in sets for name in part.corpora}) < 2:
        return None
    mels = torch.cat([timed(part).mel.float() for part in sets])
    features = torch.cat([mels.mean(2), mels.std(2)], 1).numpy()
    labels, classes = torch.cat([part.labels for part in sets]), sets[0].classes

    def fit(learned: np.ndarray, judged: np.ndarray) -> torch.Tensor:
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000))
        model.fit(features[learned], labels[learned].numpy())
        logits = torch.full((len(judged), len(classes)), -torch.inf)
        logits[:, model[-1].classes_] = torch.from_numpy(model.predict_log_proba(features[judged])).float()
        return logits

    corpora = np.concatenate([np.array(part.corpora) for part in sets])
    return ensemble.leave_one_corpus_out(fit, corpora, labels, classes, alarming, seed=seed)


def false_alarms(recogniser: Recogniser, opinion: Opinion, labels: torch.Tensor, *, seed: int) -> pd.DataFrame:
    """fig412: `alarm_curve` of the encoder's moments, with the rules `RULES`."""
    alarming = recogniser.moment_probabilities(opinion)[:, :, list(recogniser.alarming)].sum(2)
    emergency = torch.isin(labels, torch.tensor(list(recogniser.alarming))).numpy()
    rules = [(k, n) for k, n in RULES if n <= alarming.shape[1]]
    return alarm_curve(alarming, emergency, seconds=recogniser.whisper.seconds_per_moment, rules=rules).assign(
        seed=seed
    )


def an_evening(
    sounds: Sounds, alarming: Sequence[int], *, calm: int = 4, emergencies: int = 2
) -> tuple[np.ndarray, list]:
    """(samples, spans) of a recording made of test clips: `calm` clips without emergency, one with, and again.

    spans: (start, stop in s, emergency or not) of what is heard. The clips are the first of their kind, in order.
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


def follow(
    recogniser: Recogniser, samples: np.ndarray, spans: Sequence[tuple[float, float, bool]] = (), location: str = ""
) -> dict:
    """fig413: a recording as a stream. samples; spans; times and probability (of an emergency, averaged over windows)
    of each moment; alarms (at, upheld by the vote); threshold; and the alerts themselves under "alerts"."""
    listener, times, chance, alarms, alerts = recogniser.listener(), [], [], [], []
    newest, started = 0.0, time.time()
    for start in range(0, len(samples), RATE):
        for alarm in listener.feed(samples[start : start + RATE]):
            alert = recogniser.judge(alarm, location, started)
            alarms.append((alarm.at, alert is not None))
            alerts += [alert] if alert else []
        at, probabilities = listener.timeline()
        fresh = at >= newest
        times += at[fresh].tolist()
        chance += probabilities[fresh][:, list(recogniser.alarming)].sum(1).tolist()
        newest = times[-1] + 1e-6 if times else newest
    return {
        "samples": samples, "spans": np.array(spans, float).reshape(-1, 3), "times": np.array(times),
        "probability": np.array(chance), "alarms": np.array(alarms, float).reshape(-1, 2),
        "threshold": np.array(recogniser.rule.on), "alerts": alerts,
    }  # fmt: skip


def said_to(recogniser: Recogniser, opinion: Opinion, sounds: Sounds, count: int = 8) -> pd.DataFrame:
    """What each voter makes of the first `count` clips: clip, class, one column per voter, text."""
    names = sounds.classes
    table = pd.DataFrame({"class": [names[label] for label in sounds.labels[:count]]})
    for voter, logits in opinion.votes.items():
        table[voter] = [names[number] for number in logits[:count].argmax(1)]
    return table.assign(text=list(opinion.texts[:count]))
