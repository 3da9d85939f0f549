"""Codes on frozen features: a linear layer that learns categories from an image and its nearest neighbours.

The network that extracts the features is not trained, so learning a code takes seconds. As in SCAN (Van Gansbeke et al.
2020), a positive pair is an image and one of its mined neighbours, not two views; the loss is the study's or SCAN's.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from torch import Tensor, nn

from lib.categorical.arms import Arm
from lib.categorical.evaluation import RESTARTS, Encoded, Seen, read_head
from lib.categorical.search import Embedded, search_table
from lib.categorical.training import objective
from lib.metrics import MetricError, clustering
from lib.metrics.features import vgg16
from lib.training import fit_arm, gradient_step, one_cycle, predict, prepare, shuffled, start, step_count

if TYPE_CHECKING:
    from lib.data.images import Images


@dataclass(frozen=True)
class HeadSettings:
    """Settings shared by all heads on frozen features."""

    epochs: int = 60
    batch_size: int = 256
    learning_rate: float = 3e-3  # peak, AdamW; one cycle
    neighbours: int = 10  # per image, whose positive is drawn from them at every step
    device: str = "cpu"  # matrices this small gain nothing from a GPU


def check(design: Any) -> None:
    """Raise an error for invalid head parameters before any training. design: the values of `defaults`."""
    if design.head_epochs and design.search_sizes:
        head_arms(design.search_sizes, design.head_categories, classes=2)
        if design.frozen not in ("", "vgg16"):
            raise MetricError(f"frozen={design.frozen!r} is unknown; choose 'vgg16', or '' for our own network")
        if design.frozen:
            vgg16()  # raises a DataError if its weights are missing


def embedded(extractor: str, seen: Seen, train: "Images", test: "Images") -> Embedded:
    """Return frozen features of both sets.

    extractor: "vgg16", trained on ImageNet with labels; or "" for the encoder of `seen`, trained on images of the same
    data set without labels.
    """
    labels = {"train_labels": train.labels, "test_labels": test.labels}
    if not extractor:
        return Embedded(f"{seen.trained.arm.label}, features", seen.train.features, seen.test.features, **labels)
    network = vgg16()
    features = (network(part.pixels).cpu().half().float() for part in (train, test))  # rounded as in stored results
    return Embedded("VGG16, features", *features, **labels)


def mined(points: Tensor, count: int) -> Tensor:
    """Return indices (N, count) of the nearest other points by cosine, nearest first; count is below N."""
    found = clustering.nearest(points, points, k=count + 1)[0]
    itself = found == torch.arange(len(points))[:, None]
    itself[~itself.any(dim=1), -1] = True  # ranked behind its duplicates, which count as neighbours
    return found[~itself].view(len(points), count)


def head_arms(sizes: Sequence[int], categories: int, classes: int) -> list[Arm]:
    """Return one arm with the study's loss per code size in bytes, and SCAN's form with one cluster per class.

    categories: K, a power of two up to 256 such that positions fill whole bytes; otherwise a MetricError.
    """
    bits = categories.bit_length() - 1
    if not 1 <= bits <= 8 or categories != 2**bits or any(8 * size % bits for size in sizes):
        raise MetricError(f"head_categories={categories} does not fill whole bytes: choose 2, 4, 16 or 256")
    ours = [Arm(f"head, {size} bytes", positions=8 * size // bits, categories=categories) for size in sizes]
    return [*ours, Arm("SCAN form", "scan", positions=1, categories=classes, entropy=0.0, code_temperature=1.0)]


def train_heads(
    arms: Sequence[Arm], data: Embedded, settings: HeadSettings, *, seed: int, checkpoints: Path | None = None
) -> dict[str, tuple[Encoded, Encoded]]:
    """Train a linear head of each arm on the training embeddings: label -> (codes of training images, of test images).

    No class labels are used. Features are standardised over the training images; each arm has a checkpoint folder.
    """
    deviation, mean = torch.std_mean(data.train, dim=0)
    train, test = ((part - mean) / deviation.clamp_min(1e-6) for part in (data.train, data.test))
    near = mined(data.train, min(settings.neighbours, len(train) - 1))
    fitted = SimpleNamespace(points=train, checksum=hashlib.sha256(train.numpy().tobytes()).hexdigest())
    found = {}
    for arm in arms:
        folder = None if checkpoints is None else checkpoints / arm.label
        head = _train_head(arm, fitted, near, settings, seed, folder)
        found[arm.label] = tuple(read_head(arm, part, predict(head, part.split(1000))) for part in (train, test))
    return found


def _train_head(arm: Arm, data: Any, near: Tensor, settings: HeadSettings, seed: int, checkpoint) -> nn.Module:
    """Train one head. data: `points` and their `checksum`."""
    accelerator = start(settings.device)
    torch.manual_seed(seed)
    head = nn.Sequential(nn.Linear(data.points.shape[1], arm.positions * arm.categories), nn.Unflatten(1, arm.shape))
    optimizer = torch.optim.AdamW(head.parameters(), settings.learning_rate)
    schedule = one_cycle(optimizer, step_count(len(data.points), settings))
    head, optimizer, schedule = prepare(accelerator, head, optimizer, schedule, channels_last=False)
    points, near = data.points.to(accelerator.device), near.to(accelerator.device)

    def losses(model: nn.Module, index: Tensor) -> dict[str, Tensor]:
        chosen = torch.randint(near.shape[1], (len(index),)).to(index.device)
        outputs, keys = model(torch.cat([points[index], points[near[index, chosen]]])).chunk(2)
        return objective(arm, outputs, keys, None)[0]

    fit_arm(
        accelerator, gradient_step(accelerator, head, optimizer, schedule, losses), arm, data, settings, seed=seed,
        code=__name__, evaluate=lambda epoch: {}, checkpoint=checkpoint,
        batches=shuffled(accelerator, len(points), settings.batch_size, seed),
    )  # fmt: skip
    return accelerator.unwrap_model(head).cpu()


def cluster_table(
    data: Embedded, heads: Mapping[str, tuple[Encoded, Encoded]], arm: str, classes: int, *, seed: int
) -> pd.DataFrame:
    """Return tab28: features, seed, method, accuracy (Hungarian, %), nmi, ami, ari, clusters (number not empty).

    heads: from `train_heads`, including "SCAN form"; arm: label of the head whose codes are clustered. k-means and
    k-modes are fitted on training images, with `classes` clusters, and measured on test images.
    """
    ours, scan = heads[arm], heads["SCAN form"]
    how = {"seed": seed, "restarts": RESTARTS}
    means = clustering.k_means(ours[0].points, classes, **how)
    modes = clustering.k_modes(ours[0].hard, classes, **how)
    found = {
        "k-means on features": clustering.k_means(data.train, classes, **how).assign(data.test),
        "SCAN form, one position": scan[1].hard[:, 0],
        "categorical head, k-means on soft codes": means.assign(ours[1].points),
        "categorical head, k-modes on hard codes": modes.assign(ours[1].hard),
    }
    rows = [
        {"features": data.name, "seed": seed, "method": name} | clustering.scores(clusters, data.test_labels)
        for name, clusters in found.items()
    ]
    table = pd.DataFrame(rows)
    return table.assign(accuracy=100 * table.accuracy)


def compare(
    design: Any, seen: Mapping[str, Seen], train: "Images", test: "Images", *, batch_size: int, seed: int,
    checkpoints: Path | None,
) -> tuple[pd.DataFrame, pd.DataFrame | None]:  # fmt: skip
    """Return tab26 and tab28: search on NT-Xent's embedding and on frozen features, and clusters of the latter.

    design: the values of `defaults`; if `head_epochs` is 0, there are no heads: tab26 has only the embedding, and
    tab28 is None. seen: trained arms with `train` and `test` encoded, including "NT-Xent" and "categorical".
    """
    embedding, ours = seen["NT-Xent"], seen["categorical"]
    own = Embedded("NT-Xent, embedding", embedding.train.points, embedding.test.points, train.labels, test.labels)
    how = {"sizes": design.search_sizes, "queries": design.search_queries, "seed": seed}
    searched = search_table(own, [(ours.train, ours.test)], own=False, **how)
    if not design.head_epochs:
        return searched, None
    data = embedded(design.frozen, embedding, train, test)
    settings = HeadSettings(design.head_epochs, batch_size, neighbours=design.head_neighbours)
    arms = head_arms(design.search_sizes, design.head_categories, len(train.classes))
    heads = train_heads(arms, data, settings, seed=seed, checkpoints=checkpoints)
    searched = pd.concat([searched, search_table(data, [heads[arm.label] for arm in arms[:-1]], **how)])
    middle = arms[len(design.search_sizes) // 2].label
    clusters = cluster_table(data, heads, middle, len(train.classes), seed=seed)
    return searched.reset_index(drop=True), clusters
