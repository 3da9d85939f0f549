"""Transcripts: character error rate, and a classifier from text to class."""

import json
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import jiwer
import numpy as np
import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import Pipeline, make_pipeline
from torch import Tensor

from lib.data.cache import atomic
from lib.data.catalog import written_by
from lib.metrics.classification import fit_temperature
from lib.metrics.moments import bootstrap

# Each adds a step to the one before. The CER of the same three Korean sentences is 19.5, 17.5, 15.2 and 14.5 %.
NORMALISERS = ("NFC", "no punctuation", "no spaces", "jamo")
NORMALISER = "no spaces"  # Korean syllables alone, as word spacing in Korean varies between writers


def normalise(text: str, normaliser: str = NORMALISER) -> str:
    """Return `text` in the form in which it is compared, by one of `NORMALISERS`."""
    text = " ".join(unicodedata.normalize("NFC", text).split())
    if normaliser == "NFC":
        return text
    kept = "".join(" " if unicodedata.category(letter)[0] in "PS" else letter for letter in text.casefold())
    if normaliser == "no punctuation":
        return " ".join(kept.split())
    joined = "".join(kept.split())
    return joined if normaliser == "no spaces" else unicodedata.normalize("NFD", joined)


def errors(references: Sequence[str], hypotheses: Sequence[str], normaliser: str = NORMALISER) -> np.ndarray:
    """Return the numbers of wrong characters (Levenshtein) and of reference characters per clip with words, (n, 2).

    Clips with an empty reference are excluded, as CER is undefined for them; see `hallucinations`.
    """
    rows = []
    for reference, hypothesis in zip(references, hypotheses, strict=True):
        if said := normalise(reference, normaliser):
            found = jiwer.process_characters(said, normalise(hypothesis, normaliser))
            rows.append((found.substitutions + found.deletions + found.insertions, len(said)))
    return np.array(rows, np.int64).reshape(-1, 2)


def cer_row(
    references: Sequence[str], hypotheses: Sequence[str], normaliser: str = NORMALISER, *, seed: int
) -> dict[str, float]:
    """Return clips, cer, cer_low, cer_high: CER in % with a 95 % interval by Efron's bootstrap over clips."""
    counts = errors(references, hypotheses, normaliser)
    found = bootstrap(counts, lambda sums: 100 * sums[..., 0] / sums[..., 1], seed) if len(counts) else 3 * (np.nan,)
    return {"clips": len(counts)} | dict(zip(("cer", "cer_low", "cer_high"), found, strict=True))


def chance_cer(
    references: Sequence[str], hypotheses: Sequence[str], normaliser: str = NORMALISER, *, seed: int
) -> float:
    """Return the CER (%) by chance: each hypothesis is scored against the reference of another clip.

    This is the mean over 20 permutations of the clips with words; NaN if fewer than two have words.
    """
    pairs = [pair for pair in zip(references, hypotheses, strict=True) if normalise(pair[0], normaliser)]
    if len(pairs) < 2:
        return np.nan
    generator, wrong, said = np.random.default_rng(seed), 0, 0
    for _ in range(20):
        order = generator.permutation(len(pairs))
        others = np.roll(order, 1)  # a cyclic shift: no clip is paired with itself
        counts = errors([pairs[k][0] for k in order], [pairs[k][1] for k in others], normaliser)
        wrong, said = wrong + counts[:, 0].sum(), said + counts[:, 1].sum()
    return float(100 * wrong / said)


def hallucinations(references: Sequence[str], hypotheses: Sequence[str]) -> tuple[int, int]:
    """Return the number of clips without speech whose hypothesis has words, and of all clips without speech."""
    silent = [bool(normalise(two)) for one, two in zip(references, hypotheses, strict=True) if not normalise(one)]
    return sum(silent), len(silent)


def aligned(reference: str, hypothesis: str) -> list[tuple[str, str, str]]:
    """Return aligned chunks (kind, reference, hypothesis); kind is "equal", "substitute", "insert" or "delete"."""
    one, two = (normalise(text, "no punctuation") for text in (reference, hypothesis))
    if not one:
        return [("insert", "", two)] if two else []
    return [
        (chunk.type, one[chunk.ref_start_idx : chunk.ref_end_idx], two[chunk.hyp_start_idx : chunk.hyp_end_idx])
        for chunk in jiwer.process_characters(one, two).alignments[0]
    ]


# --- Text to class --------------------------------------------------------------------------------


@dataclass(frozen=True)
class TextClassifier:
    """Logistic regression on character n-grams (1 to 4), calibrated by one temperature fitted out of fold.

    classes: number of classes. learned: the training texts and their classes, which suffice to refit the classifier.
    """

    pipeline: Pipeline
    classes: int
    temperature: float
    learned: tuple[tuple[str, int], ...] = field(repr=False)

    def save(self, path: Path) -> None:
        """Write the training texts and classes, which, unlike a pickled pipeline, cannot contain code."""
        with atomic(path) as temporary:
            content = {"classes": self.classes, "learned": self.learned}
            temporary.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")

    def logits(self, texts: Sequence[str]) -> Tensor:
        """Return calibrated log-probabilities (N, classes) float32; classes without training texts get the lowest.

        A text without words is no evidence: its row is NaN, an abstention. How often clips without words are
        emergencies is a property of the data set, not of the text.
        """
        plain = [normalise(text, "no punctuation") for text in texts]
        found = torch.full((len(plain), self.classes), torch.nan)
        if any(plain):
            spoken = torch.tensor([bool(text) for text in plain])
            decided = torch.from_numpy(self.pipeline.predict_log_proba([text for text in plain if text])).float()
            # Scaled before the other classes are added: a high temperature must not raise classes never trained on.
            everywhere = torch.full((len(decided), self.classes), _NEVER)
            everywhere[:, self.pipeline.classes_] = (decided / self.temperature).log_softmax(1).clamp_min(_NEVER)
            found[spoken] = everywhere.log_softmax(1)
        return found


_NEVER = -20.0  # log-probability of a class without training texts


def fit_text(texts: Sequence[str], labels: Tensor, classes: int) -> TextClassifier:
    """Fit a classifier from text to class (0 … classes - 1); texts without words are left out.

    Fit it on transcripts of clips that the decoder was not trained on, so that it learns the decoder's mistakes.
    The result is deterministic.

    Raises:
        ValueError: fewer than two classes have texts with words.
    """
    plain = [normalise(text, "no punctuation") for text in texts]
    spoken = np.array([bool(text) for text in plain])
    known, wanted = [text for text in plain if text], labels.numpy()[spoken]
    if len(set(wanted)) < 2:
        raise ValueError("the text classifier needs texts with words of at least two classes")
    pipeline = make_pipeline(TfidfVectorizer(analyzer="char_wb", ngram_range=(1, 4), sublinear_tf=True),
                             LogisticRegression(C=10, max_iter=1000))  # fmt: skip
    places = np.unique(wanted, return_inverse=True)[1]
    counts = np.bincount([place for _, place in set(zip(known, places.tolist(), strict=True))])  # of distinct texts
    temperature = 1.0
    if counts.min() > 1:  # else some class cannot be split into folds, and the probabilities stay uncalibrated
        # Copies of a text share a fold: a text from training says nothing about calibration on unseen ones.
        folds = StratifiedGroupKFold(min(5, counts.min()), shuffle=True, random_state=0)
        held_out = np.full((len(known), len(counts)), np.nan)
        for learned, out in folds.split(known, wanted, known):
            if len(set(wanted[learned])) == len(counts):  # else a class has no training text
                pipeline.fit([known[k] for k in learned], wanted[learned])
                held_out[out] = pipeline.predict_log_proba([known[k] for k in out])
        temperature = fit_temperature(torch.from_numpy(held_out), torch.from_numpy(places))
    learned = tuple(zip(known, wanted.tolist(), strict=True))
    return TextClassifier(pipeline.fit(known, wanted), classes, temperature, learned)


def load_text(path: Path) -> TextClassifier:
    """Load a classifier written by `TextClassifier.save` by refitting it.

    Raises:
        DataError: the file is missing or damaged.
    """
    with written_by("04", path):
        content = json.loads(path.read_text(encoding="utf-8"))
        texts, labels = zip(*content["learned"], strict=True)
        return fit_text(texts, torch.tensor(labels), content["classes"])
