"""Evaluation of trained arms: clusters, nearest neighbours, and the health of their codes.

Labels are used for evaluation and to choose temperatures (`experiments.tune`), never for training. Everything is
fitted on training images and reported on test images; a readout's own choices (position, threshold) need no labels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import normalize

from lib.categorical.arms import Arm
from lib.categorical.augment import Views
from lib.categorical.losses import agreement, soft_code
from lib.categorical.training import Settings, Trained
from lib.data.augment import as_float
from lib.metrics import clustering, codes
from lib.training import predict

if TYPE_CHECKING:
    from lib.data.images import Images

NEIGHBOURS = 200  # k of the kNN classifier, as in Wu et al. 2018; at most a tenth of the training set
CONNECTED = 4000  # training codes that are compared pairwise to find connected components
PIXELS = 10_000  # training images for k-means on raw pixels
RESTARTS = 5


@dataclass(frozen=True)
class Encoded:
    """One set of images encoded by an arm, on the CPU.

    features: (N, F) of the encoder. points: (N, D), what is clustered: normalised embedding or concatenated soft code.
    soft: (N, L, K) probabilities, hard: (N, L) categories; None for embeddings.
    """

    features: Tensor
    points: Tensor
    soft: Tensor | None = None
    hard: Tensor | None = None


def encode(trained: Trained, images: Tensor, batch_size: int = 500) -> Encoded:
    """Encode images (N, 3, H, W), uint8 or floats in [-1, 1], with encoder and head in evaluation mode, in float32."""
    device = next(trained.network.parameters()).device
    parts = (part.to(device) for part in images.split(batch_size))
    features = predict(trained.network.encoder, (as_float(x) if x.dtype == torch.uint8 else x for x in parts))
    outputs = predict(trained.network.head, features.split(batch_size)).unflatten(1, trained.arm.shape)
    return read_head(trained.arm, features.cpu(), outputs.cpu())


def read_head(arm: Arm, features: Tensor, outputs: Tensor) -> Encoded:
    """Convert features (N, F) and head outputs (N, *arm.shape) to `Encoded`, with the arm's own code temperature."""
    if not arm.makes_codes:
        return Encoded(features, normalize(outputs, dim=1))
    soft = soft_code(outputs, arm.code_temperature)
    return Encoded(features, soft.flatten(1), soft, soft.argmax(-1))


@dataclass(frozen=True)
class Seen:
    """A trained arm with its encoded training and test images, shared by all measures."""

    trained: Trained
    train: Encoded
    test: Encoded


def see(trained: Mapping[str, Trained], train: "Images", test: "Images") -> dict[str, Seen]:
    """Encode training and test images with every arm."""
    return {
        label: Seen(result, encode(result, train.pixels), encode(result, test.pixels))
        for label, result in trained.items()
    }


def curve_score(train: "Images", test: "Images"):
    """Return score(trained) for training curves, comparable across losses.

    knn, knn_output: kNN accuracy (%) on features and on embeddings or soft codes; used: mean perplexity in % of K.
    """

    def score(trained: Trained) -> dict[str, float]:
        ours, theirs = encode(trained, train.pixels), encode(trained, test.pixels)
        row = {"knn": knn_accuracy(ours.features, theirs.features, train, test)}
        row["knn_output"] = knn_accuracy(ours.points, theirs.points, train, test)
        if theirs.hard is not None:
            used = codes.perplexities(theirs.hard, trained.arm.categories).mean().item()
            row["used"] = 100 * used / trained.arm.categories
        return row

    return score


def knn_accuracy(fitted: Tensor, asked: Tensor, train: "Images", test: "Images") -> float:
    """Return the test accuracy (%) of kNN. fitted, asked: representations of the training and of the test images."""
    k = min(NEIGHBOURS, max(1, len(train) // 10))
    found = clustering.knn(fitted, train.labels, asked, k=k, classes=len(train.classes))
    return 100 * (found == test.labels).float().mean().item()


# --- Clusters -------------------------------------------------------------------------------------


def clusters(seen: Seen, readout: str, count: int, *, seed: int) -> tuple[Tensor, Tensor]:
    """Return the cluster of every training and every test image by one of the arm's `readouts`.

    count: number of clusters; "one position" and "connected codes" ignore it and determine their own.
    """
    both = seen.train, seen.test
    if readout == "one position":
        position = best_position(seen.train.soft)
        return tuple(part.hard[:, position] for part in both)
    if readout == "connected codes":
        return _connected(seen.train.hard, seen.test.hard)
    if readout == "k-modes on hard codes":
        (fitted, asked), fit = (part.hard for part in both), clustering.k_modes
    elif readout == "k-means on features":
        (fitted, asked), fit = (normalize(part.features, dim=1) for part in both), clustering.k_means
    else:
        (fitted, asked), fit = (part.points for part in both), clustering.k_means
    found = fit(fitted, count, seed=seed, restarts=RESTARTS)
    return found.assign(fitted), found.assign(asked)


def readouts(seen: Seen) -> list[str]:
    """Return the names of the methods that read clusters from an arm."""
    coded = ["k-means on soft codes", "k-modes on hard codes", "connected codes", "one position"]
    return [*(coded if seen.trained.arm.makes_codes else ["k-means on embedding"]), "k-means on features"]


def best_position(soft: Tensor) -> int:
    """Return the most informative position of codes (N, L, K): highest H(mean) - mean H (Krause et al. 2010).

    This is the mutual information between image and category and needs no labels.
    """
    entropy = torch.special.entr  # -p log p
    return int((entropy(soft.mean(0)) - entropy(soft).mean(0)).sum(-1).argmax())


def _connected(fitted: Tensor, asked: Tensor) -> tuple[Tensor, Tensor]:
    """Return connected components of codes that agree in enough positions; other codes join their nearest code.

    The threshold is the one that yields the most components with at least 1 % of the codes.
    """
    some, length = fitted[:CONNECTED], fitted.shape[1]
    tried = [codes.connected_codes(some, at_least=least) for least in range(length // 2 + 1, length + 1)]
    sizes = [int((torch.bincount(labels) >= 0.01 * len(some)).sum()) for labels in tried]
    labels = tried[int(np.argmax(sizes))]
    return tuple(labels[clustering.nearest(some, part, k=1)[0][:, 0]] for part in (fitted, asked))


def cluster_table(
    seen: Mapping[str, Seen], train: "Images", test: "Images", *, seed: int, counts: Sequence[int] = ()
) -> pd.DataFrame:
    """Return tab21: arm, seed, readout, bytes (per image), wanted (number of clusters), accuracy in %, nmi and more.

    Measured on test images; the first row is for raw pixels. counts: numbers of clusters besides that of classes.
    """
    fitted, asked = (part.pixels.flatten(1).float().div(255) for part in (train.subset(slice(PIXELS)), test))
    found = clustering.k_means(fitted, len(train.classes), seed=seed, restarts=RESTARTS)  # without any learning
    row = {"arm": "raw pixels", "seed": seed, "readout": "k-means on pixels", "bytes": float(fitted.shape[1])}
    rows = [row | {"wanted": len(train.classes)} | clustering.scores(found.assign(asked), test.labels)]
    for label, one in seen.items():
        for readout in readouts(one):
            own = readout in ("connected codes", "one position")
            for count in dict.fromkeys([len(train.classes), *(() if own else counts)]):
                found = clustering.scores(clusters(one, readout, count, seed=seed)[1], test.labels)
                row = {"arm": label, "seed": seed, "readout": readout, "bytes": _bytes(one, readout)}
                rows.append(row | {"wanted": count} | found)
    table = pd.DataFrame(rows)
    return table.assign(accuracy=100 * table.accuracy)


def _bytes(seen: Seen, readout: str) -> float:
    """Return the bytes per image of the representation that a readout clusters, counting real numbers as float32."""
    if readout == "one position":
        return code_bytes(1, seen.trained.arm.categories)
    if readout in ("k-modes on hard codes", "connected codes"):
        return code_bytes(*seen.trained.arm.shape)
    return 4.0 * (seen.test.features if readout == "k-means on features" else seen.test.points).shape[1]


# --- Representation -------------------------------------------------------------------------------


def representation_table(
    seen: Mapping[str, Seen], train: "Images", test: "Images", *, seed: int, linear: bool = True
) -> pd.DataFrame:
    """Return tab22: arm, seed, code_temperature, representation, bytes (per image), knn, linear (test accuracy, %)."""
    rows = []
    for label, one in seen.items():
        arm, (ours, theirs) = one.trained.arm, (one.train, one.test)
        facts = {"arm": label, "seed": seed}
        facts["code_temperature"] = arm.code_temperature if arm.makes_codes else float("nan")
        wide = {"features": (ours.features, theirs.features)}
        wide["soft codes" if arm.makes_codes else "embedding"] = (ours.points, theirs.points)
        for name, (fitted, asked) in wide.items():
            row = facts | {"representation": name, "bytes": 4.0 * fitted.shape[1]}
            row["knn"] = knn_accuracy(fitted, asked, train, test)
            if linear and name == "features":
                row["linear"] = 100 * clustering.linear_probe(fitted, train.labels, asked, test.labels)
            rows.append(row)
        if arm.makes_codes:
            row = facts | {"representation": "hard codes", "bytes": code_bytes(*arm.shape)}
            rows.append(row | {"knn": knn_accuracy(ours.hard, theirs.hard, train, test)})
    return pd.DataFrame(rows)


def code_bytes(positions: int, categories: int) -> float:
    """Return the bytes of one hard code: L positions of ⌈log2 K⌉ bits each, packed without gaps."""
    return positions * max(1, (categories - 1).bit_length()) / 8


# --- Health of the codes --------------------------------------------------------------------------


def health_table(seen: Mapping[str, Seen], *, seed: int) -> pd.DataFrame:
    """Measure arms with codes on test images: perplexity, dead, unique, redundancy, bits (`codes.code_health`), …

    sureness: mean probability of the most likely category; 1 - sureness is lost by discretisation. collapsed: whether
    all images have the same hard code, so that anything read from hard codes is at chance.
    """
    return pd.DataFrame(
        {"arm": label, "seed": seed}
        | codes.code_health(one.test.hard, one.trained.arm.categories)
        | {"sureness": one.test.soft.max(-1).values.mean().item()}
        | {"collapsed": len(one.test.hard.unique(dim=0)) == 1}
        for label, one in seen.items()
        if one.trained.arm.makes_codes
    )


def agreement_histograms(
    seen: Mapping[str, Seen], pixels: Tensor, settings: Settings, *, seed: int, bins: int = 40
) -> pd.DataFrame:
    """Return the data of fig27: arm, seed, panel, x, value.

    panel "positives": share of pairs by agreement, for two views of one image; "negatives": for views of different
    images; "perplexity": perplexity of the categories at each position over test images, in descending order.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        views = Views(pixels.shape[-2:], settings.smallest_crop, settings.hue)(pixels)
    rows = []
    edges = np.linspace(0, 1, bins + 1)
    for label, one in seen.items():
        if one.trained.arm.makes_codes:
            first, second = (encode(one.trained, view).soft for view in views)
            matrix = agreement(first, second)
            same = torch.eye(len(matrix), dtype=torch.bool)
            for panel, values in (("positives", matrix[same]), ("negatives", matrix[~same])):
                share = np.histogram(values.clamp(0, 1).numpy(), edges)[0] / len(values)
                rows += [(label, panel, x, y) for x, y in zip((edges[1:] + edges[:-1]) / 2, share, strict=True)]
            used = sorted(codes.perplexities(one.test.hard, one.trained.arm.categories).tolist(), reverse=True)
            rows += [(label, "perplexity", float(number), value) for number, value in enumerate(used, 1)]
    return pd.DataFrame(rows, columns=["arm", "panel", "x", "value"]).assign(seed=seed)
