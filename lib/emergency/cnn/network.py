"""A plain CNN on log-mel spectrograms, in the seven variants compared in study 4."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import pandas as pd
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from lib.data.cache import atomic
from lib.data.catalog import written_by
from lib.emergency.features import Mels, masked, rolled
from lib.training import fit_arm, gradient_step, one_cycle, predict, prepare, start, step_count

POOLING = {"max": nn.MaxPool2d, "average": nn.AvgPool2d}


@dataclass(frozen=True)
class Variant:
    """Architecture of a CNN. channels: filters of each block. convolutions: number per block.

    pooling: "max" or "average", by 2 between blocks. stride: of the first convolution, along frequency and time.
    dropout: before the classifier.
    """

    label: str
    channels: tuple[int, ...] = (16, 32, 64, 128)
    convolutions: int = 1
    kernel: int = 3
    pooling: str = "max"
    stride: tuple[int, int] = (2, 2)
    dropout: float = 0.0


def variants(width: int = 16) -> list[Variant]:
    """Return the seven variants: a plain network and six single changes to it. width: filters of the first block."""
    plain = Variant("plain", tuple(width * factor for factor in (1, 2, 4, 8)))
    return [
        plain,
        replace(plain, label="deeper", convolutions=2),
        replace(plain, label="wider", channels=tuple(2 * n for n in plain.channels)),
        replace(plain, label="kernel 5", kernel=5),
        replace(plain, label="average pooling", pooling="average"),
        replace(plain, label="dropout 0.3", dropout=0.3),
        replace(plain, label="stride 4 in time", stride=(2, 4)),
    ]


def build_cnn(variant: Variant, classes: int, mels: int = 80) -> nn.Sequential:
    """Build a network: log-mels (B, 1, mels, frames) -> logits (B, classes), for 32 frames or more (64 at stride 4).

    The last feature maps are averaged over time alone, as the frequency of a sound is informative about its class.
    """
    layers: list[nn.Module] = []
    before = 1
    for block, channels in enumerate(variant.channels):
        for place in range(variant.convolutions):
            stride = variant.stride if block == place == 0 else 1
            layers += [
                nn.Conv2d(before, channels, variant.kernel, stride, variant.kernel // 2, bias=False),
                nn.BatchNorm2d(channels),
                nn.ReLU(),
            ]
            before = channels
        if block < len(variant.channels) - 1:
            layers.append(POOLING[variant.pooling](2))
    rows = -(-mels // variant.stride[0]) // 2 ** (len(variant.channels) - 1)
    layers += [nn.AdaptiveAvgPool2d((rows, 1)), nn.Flatten()]
    if variant.dropout:
        layers.append(nn.Dropout(variant.dropout))
    return nn.Sequential(*layers, nn.Linear(before * rows, classes))


@dataclass(frozen=True)
class Settings:
    """Training settings shared by all variants of an experiment.

    shift: clips are rolled in time by up to this share of their length, in either direction.
    time_mask, frequency_mask: SpecAugment (Park et al. 2019), the largest share of frames and of bands in one mask.
    mixup: parameter of Beta(mixup, mixup) (Zhang et al. 2018); 0 for no mixup.
    """

    epochs: int = 10
    batch_size: int = 32
    learning_rate: float = 3e-3  # peak of a one-cycle schedule (Smith & Topin 2018), AdamW
    weight_decay: float = 1e-2
    shift: float = 1.0
    time_mask: float = 0.2
    frequency_mask: float = 0.2
    mixup: float = 0.0
    precision: str = "no"
    device: str = "auto"


@dataclass(frozen=True)
class Trained:
    """A variant trained once or on every fold.

    models: one, or one per fold. history: per epoch (and fold), loss, and on the held-out clips validation_loss,
    accuracy (%) and clips, their number. logits: (N, classes) of these clips, each by the model not trained on it.
    """

    variant: Variant
    models: tuple[nn.Sequential, ...]
    history: pd.DataFrame
    logits: Tensor = field(repr=False)


def augment(mel: Tensor, targets: Tensor, settings: Settings) -> tuple[Tensor, Tensor]:
    """Roll, mix and mask: mel (B, 1, mels, frames), targets (B, classes) -> the same shapes.

    Random parameters are drawn for each clip separately.
    """
    count = len(mel)
    if settings.shift:
        most = round(settings.shift * mel.shape[3])
        mel = rolled(mel, torch.randint(-most, most + 1, (count, 1, 1, 1), device=mel.device))
    if settings.mixup:
        share = torch.distributions.Beta(settings.mixup, settings.mixup).sample((count,)).to(mel)
        share = torch.maximum(share, 1 - share)  # the clip itself outweighs its partner
        partner = torch.randperm(count, device=mel.device)
        mel = torch.lerp(mel[partner], mel, share[:, None, None, None])
        targets = torch.lerp(targets[partner], targets, share[:, None])
    return masked(mel, settings.time_mask, settings.frequency_mask), targets


def train_cnn(
    variant: Variant, train: Mels, validation: Mels, settings: Settings, *, seed: int, score_every: int = 1,
    checkpoint: Path | None = None,
) -> Trained:  # fmt: skip
    """Train one variant, scored on the validation clips before training, every `score_every` epochs and at the end.

    If there are fewer clips than `batch_size`, all of them form one batch.
    """
    settings = replace(settings, batch_size=min(settings.batch_size, len(train)))
    accelerator = start(settings.device, settings.precision)
    torch.manual_seed(seed)
    model = build_cnn(variant, len(train.classes), train.mel.shape[2])
    # The same layers, scored in float32: Accelerate makes `model` itself compute in bf16 from then on.
    plain = nn.Sequential(*model)
    # Norms and biases are not decayed: decay would shift activations without limiting the size of the filters.
    decayed = [weight for weight in model.parameters() if weight.ndim > 1]
    others = [weight for weight in model.parameters() if weight.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, settings.learning_rate)
    schedule = one_cycle(optimizer, step_count(len(train), settings))
    network, optimizer, schedule = prepare(accelerator, model, optimizer, schedule)
    torch.manual_seed(seed + 1)
    device = accelerator.device
    mel, targets = train.mel.to(device), F.one_hot(train.labels, len(train.classes)).float().to(device)

    def losses(network: nn.Module, index: Tensor) -> dict[str, Tensor]:
        index = index.to(device)
        inputs, wanted = augment(mel[index].float(), targets[index], settings)
        return {"loss": F.cross_entropy(network(inputs), wanted)}

    def evaluate(epoch: int) -> dict[str, float]:
        if epoch not in (0, settings.epochs) and epoch % score_every:
            return {}
        logits = logits_of(plain, validation.mel)
        right = (logits.argmax(1) == validation.labels).float().mean().item()
        loss = F.cross_entropy(logits, validation.labels).item()
        return {"validation_loss": loss, "accuracy": 100 * right, "clips": len(validation)}

    step = gradient_step(accelerator, network, optimizer, schedule, losses)
    history = fit_arm(
        accelerator, step, variant, train, settings, seed=seed, code=__name__, evaluate=evaluate, checkpoint=checkpoint,
        validation=validation.checksum, score_every=score_every,
    )  # fmt: skip
    plain.eval().cpu()
    return Trained(variant, (plain,), history, logits_of(plain, validation.mel))


def logits_of(model: nn.Module, mel: Tensor, batch_size: int = 64) -> Tensor:
    """Return logits (N, classes), float32 on the CPU, of mel (N, 1, mels, frames), in evaluation mode."""
    device = next(model.parameters()).device
    return predict(model, (chunk.to(device).float() for chunk in mel.split(batch_size))).cpu()


def cross_validate(
    variant: Variant, clips: Mels, settings: Settings, *, seed: int, score_every: int = 1,
    checkpoint: Path | None = None,
) -> Trained:  # fmt: skip
    """Train `variant` once per fold, on the clips of all other folds; the history has a column `fold`.

    Raises:
        ValueError: there are fewer than two folds.
    """
    folds = clips.folds.unique().tolist()
    if len(folds) < 2:
        raise ValueError(f"cross-validation needs two folds at least, and the clips have {len(folds)}")
    models, histories, logits = [], [], torch.zeros(len(clips), len(clips.classes))
    for fold in folds:
        out = clips.folds == fold
        run = train_cnn(variant, clips.part(~out, f"without {fold}"), clips.part(out, f"fold {fold}"), settings,
                        seed=seed, score_every=score_every,
                        checkpoint=checkpoint and checkpoint / f"fold-{fold}")  # fmt: skip
        logits[out] = run.logits
        models += run.models
        histories.append(run.history.assign(fold=fold))
    return Trained(variant, tuple(models), pd.concat(histories, ignore_index=True), logits)


def cost_of(variant: Variant, shape: Sequence[int], classes: int) -> dict[str, float]:
    """Return the number of parameters and the millions of multiply-adds for one clip of `shape` (mels, frames)."""
    model = build_cnn(variant, classes, shape[0]).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 1, *shape))
    return {"parameters": sum(p.numel() for p in model.parameters()), "mega_macs": counter.get_total_flops() / 2e6}


def save_cnn(model: nn.Sequential, variant: Variant, classes: Sequence[str], path: Path) -> None:
    """Write weights, variant and classes to one file, atomically."""
    about = {"variant": json.dumps(asdict(variant)), "classes": json.dumps(list(classes), ensure_ascii=False)}
    weights = {name: value.cpu().contiguous() for name, value in model.state_dict().items()}
    with atomic(path) as temporary:
        save_file(weights, temporary, about)


def load_cnn(path: Path) -> tuple[nn.Sequential, tuple[str, ...]]:
    """Load a network for 80 mels written by `save_cnn`: (network in evaluation mode, its classes).

    Raises:
        DataError: the file is missing or damaged.
    """
    with written_by("05", path):
        with safe_open(path, "pt") as file:
            about = {name: json.loads(value) for name, value in file.metadata().items()}
        model = build_cnn(Variant(**about["variant"]), len(about["classes"]))
        model.load_state_dict(load_file(path))
        return model.eval(), tuple(about["classes"])
