"""The penalty on a generative model: does it make a β-VAE disentangle better? (future work in the source)"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from lib.corregularization.analysis import similarity
from lib.corregularization.arms import Arm, gram, penalty_of
from lib.corregularization.losses import select_layers
from lib.corregularization.training import Snapshots
from lib.data.cache import checksum
from lib.data.shapes import draw_shapes
from lib.forking import train_each
from lib.metrics import disentanglement
from lib.training import fit_arm, gradient_step, one_cycle, predict, prepare, start, step_count

SIZE = 16  # pixels: at larger sizes, training several networks takes more than minutes
SD = 0.1  # of pixels around the decoder's output; if it is larger, encoding a dim shape costs more KL than it saves
FACTORS = ("class", "x", "y", "scale", "orientation", "hue")
UNTRAINED = "untrained"


class VAE(nn.Module):
    """A small convolutional variational autoencoder (Kingma & Welling 2014) of images (B, 3, 16, 16) in [0, 1].

    The encoder has three strided convolutions and returns mean and log-variance of `latents` normal variables. The
    decoder has three upsamplings, each with a convolution (no checkerboard artefacts, Odena et al. 2016), so that both
    halves have filters to compare. width: filters of the encoder's first convolution, doubled in each of the next two.
    """

    def __init__(self, latents: int = 8, width: int = 16):
        super().__init__()
        down, inside = [3, width, 2 * width, 4 * width], 4 * width * (SIZE // 8) ** 2
        parts = [(nn.Conv2d(a, b, 4, 2, 1), nn.ReLU()) for a, b in zip(down, down[1:], strict=False)]
        self.encoder = nn.Sequential(*(layer for part in parts for layer in part), nn.Flatten(), nn.Linear(inside, 128),
                                     nn.ReLU(), nn.Linear(128, 2 * latents))  # fmt: skip
        up = [(nn.Upsample(scale_factor=2), nn.Conv2d(b, a, 3, padding=1), nn.ReLU())
              for a, b in zip(down[::-1][1:], down[::-1], strict=False)]  # fmt: skip
        self.decoder = nn.Sequential(nn.Linear(latents, 128), nn.ReLU(), nn.Linear(128, inside), nn.ReLU(),
                                     nn.Unflatten(1, (4 * width, SIZE // 8, SIZE // 8)),
                                     *[layer for part in up for layer in part][:-1])  # fmt: skip

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return pixel logits (B, 3, 16, 16) for sampled latents; also their means and log-variances (B, latents)."""
        mean, log_variance = self.encoder(images).chunk(2, dim=1)
        drawn = mean + torch.randn_like(mean) * (0.5 * log_variance).exp()
        return self.decoder(drawn), mean, log_variance


def misfit(logits: Tensor, images: Tensor) -> Tensor:
    """Return -log p(images | latents), (B,), for normal pixels of standard deviation `SD`, in nats up to a constant."""
    return (logits.float().sigmoid() - images).square().sum((1, 2, 3)) / (2 * SD**2)


def divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Return the elementwise KL divergence of N(mean, variance) from N(0, 1) in nats."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance)


@dataclass(frozen=True)
class VaeArm:
    """An arm: label, β (weight of the divergence, Higgins et al. 2017; 1: VAE) and penalty on all convolutions."""

    label: str
    beta: float = 1.0
    penalty: Arm = Arm("none")


def vae_arms(beta: float, strength: float) -> list[VaeArm]:
    return [
        VaeArm("VAE"),
        VaeArm("beta-VAE", beta),
        VaeArm("beta-VAE, Gram", beta, gram("", strength)),
        VaeArm("beta-VAE, p = 4, random g = 2", beta, gram("", strength, power=4, groups=2)),
    ]


@dataclass(frozen=True)
class VaeSettings:
    """Settings shared by all arms."""

    epochs: int = 12
    batch_size: int = 32
    learning_rate: float = 2e-3
    latents: int = 8
    width: int = 16
    precision: str = "no"
    device: str = "auto"


@dataclass(frozen=True)
class Scenes:
    """Images with known factors. pixels: (N, 3, 16, 16) uint8; factors: name → (N,) int64, see `draw_shapes`."""

    pixels: Tensor
    factors: dict[str, Tensor]
    checksum: str

    def __len__(self) -> int:
        return len(self.pixels)


def draw_scenes(count: int, split: str, seed: int) -> Scenes:
    """Draw plain shapes on dark backgrounds that vary in position, orientation, size and hue."""
    pixels, labels, factors = draw_shapes(count, size=SIZE, seed=seed, split=split, plain=True, still=False)
    known = {name: torch.from_numpy(np.asarray(factors[name])) for name in FACTORS}
    return Scenes(pixels, known, checksum(pixels.numpy(), labels.numpy()))


def train_vae(arm: VaeArm, train: Scenes, settings: VaeSettings, *, seed: int, checkpoint: Path | None = None) -> VAE:
    """Train one arm: (`misfit` + β · `divergence`) / number of pixel values + λ · penalty.

    Arms with the same seed share their initial weights, the order of images and the noise on the latents.
    """
    accelerator = start(settings.device, settings.precision)
    torch.manual_seed(seed)
    model = VAE(settings.latents, settings.width)
    regrouping = torch.Generator(accelerator.device).manual_seed(seed)
    penalty = penalty_of(arm.penalty, select_layers(model), regrouping)
    optimizer = torch.optim.AdamW(model.parameters(), settings.learning_rate, weight_decay=0.0)
    network, optimizer, schedule = prepare(
        accelerator, model, optimizer, one_cycle(optimizer, step_count(len(train), settings))
    )
    accelerator.register_for_checkpointing(Snapshots({}, regrouping))
    torch.manual_seed(seed + 1)
    pixels = train.pixels.to(accelerator.device)

    def losses(network: nn.Module, index: Tensor) -> dict[str, Tensor]:
        images = pixels[index] / 255
        logits, mean, log_variance = network(images)
        values = images[0].numel()
        terms = {"reconstruction": misfit(logits, images).mean() / values}
        terms["divergence"] = arm.beta * divergence(mean, log_variance).sum(1).mean() / values
        return terms if penalty is None else terms | {"penalty": arm.penalty.strength * penalty()}

    step = gradient_step(accelerator, network, optimizer, schedule, losses)
    fit_arm(accelerator, step, arm, train, settings, seed=seed, code=__name__, evaluate=lambda epoch: {},
            checkpoint=checkpoint)  # fmt: skip
    return model.eval().cpu()


def table(arms: Sequence[VaeArm], trained: Mapping[str, VAE], test: Scenes, *, seed: int) -> pd.DataFrame:
    """Return tab37: one row per arm and one for an untrained network. trained: networks by arm label.

    Columns: arm, seed, beta, strength, reconstruction (`misfit` in nats per image, latents at their means), kl (nats
    per image), active (latents with a KL above 0.1 nats), rms (RMS cosine of filters, averaged over layers), and
    `lib.metrics.disentanglement.scores` of the latent means.
    """
    torch.manual_seed(seed)
    first = next(iter(trained.values()))
    fresh = VAE(first.encoder[-1].out_features // 2, first.encoder[0].out_channels).eval()
    rows, images = [], test.pixels / 255
    for arm in [*arms, VaeArm(UNTRAINED, np.nan)]:
        model = trained.get(arm.label, fresh)
        mean, log_variance = predict(model.encoder, images.split(500)).chunk(2, dim=1)
        logits = predict(model.decoder, mean.split(500))
        nats = divergence(mean, log_variance).mean(0)
        error = misfit(logits, images).mean()
        rms = np.mean([similarity(layer.weight)["rms"] for layer in select_layers(model).values()])
        row = {"arm": arm.label, "seed": seed, "beta": arm.beta, "strength": arm.penalty.strength}
        row |= {"reconstruction": error.item(), "kl": nats.sum().item(), "active": int((nats > 0.1).sum()), "rms": rms}
        rows.append(row | disentanglement.scores(mean, test.factors))
    return pd.DataFrame(rows)


def traversals(trained: Mapping[str, VAE], test: Scenes, count: int = 5, steps: int = 7) -> dict[str, np.ndarray]:
    """Return fig313: the first test image decoded while one latent moves from -2 to 2; pixels in [0, 1].

    arm → (count, steps, 16, 16, 3), for the latents of largest mean divergence (over 500 test images), largest first.
    """
    shown = {}
    for label, model in trained.items():
        mean, log_variance = predict(model.encoder, (test.pixels[:500] / 255).split(500)).chunk(2, dim=1)
        latents = divergence(mean, log_variance).mean(0).argsort(descending=True)[:count]
        moved = mean[0].expand(len(latents), steps, -1).clone()
        for row, latent in enumerate(latents):
            moved[row, :, latent] = torch.linspace(-2, 2, steps)
        images = predict(model.decoder, [moved.flatten(0, 1)]).sigmoid()
        shown[label] = images.unflatten(0, (len(latents), steps)).permute(0, 1, 3, 4, 2).numpy()
    return shown


def experiment(
    count: int, epochs: int, beta: float, strength: float, *, seed: int, checkpoints: Path | None, **how: Any
) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """Train all arms on `count` scenes; return `table`, and `traversals` of the β-VAE with and without the penalty.

    how: precision and device.
    """
    train, test = draw_scenes(count, "train", seed), draw_scenes(min(1000, count), "test", seed)
    arms, settings = vae_arms(beta, strength), VaeSettings(epochs, **how)
    trained = train_each(train_vae, arms, train=train, settings=settings, seed=seed, checkpoints=checkpoints)
    shown = {label: trained[label] for label in ("beta-VAE", "beta-VAE, Gram")}
    return table(arms, trained, test, seed=seed), traversals(shown, test)
