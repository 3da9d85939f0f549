"""Training of one arm of an experiment: a classifier with one regulariser under one condition."""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.corregularization import baselines
from lib.corregularization.analysis import similarity
from lib.corregularization.arms import Arm, penalty_of
from lib.corregularization.losses import ResponsePenalty, select_layers
from lib.corregularization.models import build_model
from lib.data.augment import as_float, flip_and_shift
from lib.forking import train_each
from lib.training import fit_arm, gradient_step, one_cycle, predict, prepare, scored, start, step_count

if TYPE_CHECKING:  # data enters a checkpoint's key by its checksum, not by the code that loaded it
    from lib.data.images import Images


@dataclass(frozen=True)
class Settings:
    """Settings shared by all arms of an experiment."""

    epochs: int = 5
    batch_size: int = 128
    learning_rate: float = 2e-3  # peak of a one-cycle schedule (Smith & Topin 2018), AdamW
    model: str = "vanilla"
    augment: bool = True
    score_every: int = 1  # epochs between two scores on the test images; 0: only after the last epoch
    precision: str = "no"
    device: str = "auto"


@dataclass(frozen=True)
class Trained:
    """A trained arm: its model, history and filter statistics."""

    arm: Arm
    model: nn.Module
    history: pd.DataFrame  # per epoch: images seen, task, penalty, test_loss, test_accuracy (NaN where not scored)
    layers: pd.DataFrame  # per epoch and layer: rms, mean, max |cosine|, Welch bound
    snapshots: dict[int, Tensor]  # epoch → filters of the first convolution, (n, 3, k, k)


class Snapshots:
    """Filters and layer statistics per epoch, and the penalties' generator, saved with the checkpoint."""

    def __init__(self, layers: dict[str, nn.Module], generator: torch.Generator):
        self.generator = generator
        self.layers = {f"conv{i}": layer for i, layer in enumerate(layers.values(), 1)}
        self.rows: list[dict[str, Any]] = []
        self.filters: dict[int, Tensor] = {}

    def take(self, epoch: int) -> None:
        for name, layer in self.layers.items():
            self.rows.append({"epoch": epoch, "layer": name, **similarity(layer.weight)})
        first = next(iter(self.layers.values()))
        self.filters[epoch] = first.weight.detach().float().cpu().contiguous().clone()

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows, "filters": self.filters, "generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rows, self.filters = state["rows"], state["filters"]
        self.generator.set_state(state["generator"])


def train_arm(
    arm: Arm, train: "Images", test: "Images", settings: Settings, *, seed: int, checkpoint: Path | None = None
) -> Trained:
    """Train one arm.

    Arms with the same seed get the same crops of the same images in the same order, whatever their penalty draws.
    Arms with the same model and default initialisation also start from the same weights.
    """
    accelerator = start(settings.device, settings.precision)
    torch.manual_seed(seed)
    model = build_model(settings.model, len(train.classes))
    if arm.orthogonal_init:
        baselines.orthogonal_init(model)
    layers = select_layers(model)
    regrouping = torch.Generator(accelerator.device).manual_seed(seed)
    penalty = penalty_of(arm, layers, regrouping)
    filters = [layer.weight for layer in layers.values()]
    others = [value for value in model.parameters() if all(value is not weight for weight in filters)]
    optimizer = torch.optim.AdamW(
        [
            {"params": filters, "weight_decay": arm.strength if arm.penalty == "weight_decay" else 0.0},
            {"params": others, "weight_decay": 0.0},
        ],
        settings.learning_rate,
        capturable=accelerator.device.type == "cuda",
    )
    schedule = one_cycle(optimizer, step_count(len(train), settings))
    network, optimizer, schedule = prepare(accelerator, model, optimizer, schedule)
    snapshots = Snapshots(layers, regrouping)
    accelerator.register_for_checkpointing(snapshots)
    # An arm whose initialisation draws more random numbers would otherwise get other augmentations.
    torch.manual_seed(seed + 1)

    train, test = train.to(accelerator.device), test.to(accelerator.device)

    def losses(network: nn.Module, index: Tensor) -> dict[str, Tensor]:
        pixels = train.pixels[index]
        if settings.augment:
            pixels = flip_and_shift(pixels)
        terms = {"task": F.cross_entropy(network(as_float(pixels)), train.labels[index])}
        if penalty is not None:
            terms["penalty"] = arm.strength * penalty()
        return terms

    scores = scored(
        len(train), settings, lambda: dict(zip(("test_loss", "test_accuracy"), score(network, test), strict=True))
    )

    def evaluate(epoch: int) -> dict[str, float]:
        snapshots.take(epoch)
        return scores(epoch)

    # A CUDA graph would always draw the same groups, and the same start of SRIP's power iteration.
    drawn = "groups" in arm.options or arm.penalty == "srip"
    step = gradient_step(accelerator, network, optimizer, schedule, losses, capture=not drawn)
    history = fit_arm(
        accelerator, step, arm, train, settings, seed=seed, code=__name__, test=test.checksum,
        evaluate=evaluate, checkpoint=checkpoint,
    )  # fmt: skip
    if isinstance(penalty, ResponsePenalty):
        penalty.close()
    # Without the autocast of `prepare`, which pickling drops, so that a worker returns the same model as this process.
    model = accelerator.unwrap_model(network, keep_fp32_wrapper=False).eval().cpu()
    return Trained(arm, model, history, pd.DataFrame(snapshots.rows), snapshots.filters)


def score(model: nn.Module, images: "Images", batch_size: int = 500) -> tuple[float, float]:
    """Return (cross-entropy in nats, accuracy in [0, 1]) on `images`."""
    logits = predict(model, (as_float(chunk) for chunk in images.pixels.split(batch_size)))
    accuracy = (logits.argmax(dim=1) == images.labels).float().mean().item()
    return F.cross_entropy(logits, images.labels).item(), accuracy


# Runs `train_arm` for each arm and returns the results by label; each arm has its own folder in `checkpoints`.
train_arms = partial(train_each, train_arm)


def with_label_noise(images: "Images", share: float, *, seed: int) -> "Images":
    """Return a copy in which a `share` of the labels are replaced by a different class, drawn uniformly."""
    if not 0 <= share <= 1:
        raise ValueError(f"label noise is a share in [0, 1], not {share}")
    generator = torch.Generator().manual_seed(seed)
    count, classes = len(images), len(images.classes)
    chosen = torch.randperm(count, generator=generator)[: round(share * count)]
    labels = images.labels.clone()
    labels[chosen] = (labels[chosen] + torch.randint(1, classes, (len(chosen),), generator=generator)) % classes
    return replace(images, labels=labels, checksum=f"{images.checksum}+noise{share}seed{seed}")
