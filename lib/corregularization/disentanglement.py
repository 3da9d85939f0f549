"""The penalty on a generative model: does a β-VAE disentangle better under it? (the source's future work)"""

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

SIZE = 16  # pixels: with more, minutes do not suffice for several networks
SD = 0.1  # of the pixels about what the decoder says; more, and dim images are not worth a latent
FACTORS = ("class", "x", "y", "scale", "orientation", "hue")
UNTRAINED = "untrained"


class VAE(nn.Module):
    """A small convolutional variational autoencoder (Kingma & Welling 2014) of images (B, 3, 16, 16) in [0, 1].

    Three strided convolutions to the mean and the log-variance of `latents` normal numbers; back by three enlargements
    with a convolution each (Odena et al. 2016: no checkerboards), so that both halves have filters to compare. width:
    filters of the outermost convolution, twice and four times as many further inside.
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
        """Logits of the pixels (B, 3, 16, 16) from latents drawn once; their means and log-variances (B, latents)."""
        mean, log_variance = self.encoder(images).chunk(2, dim=1)
        drawn = mean + torch.randn_like(mean) * (0.5 * log_variance).exp()
        return self.decoder(drawn), mean, log_variance


def misfit(logits: Tensor, images: Tensor) -> Tensor:
    """-log p(images | latents) of a normal distribution with deviation `SD`, in nats but for a constant, (B,)."""
    return (logits.float().sigmoid() - images).square().sum((1, 2, 3)) / (2 * SD**2)


def divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL divergence of N(mean, variance) from N(0, 1) in nats, of each number."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance)


@dataclass(frozen=True)
class VaeArm:
    """label; β, the weight of the divergence (Higgins et al. 2017; 1: VAE); and the penalty on all convolutions."""

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
    """What all arms share."""

    epochs: int = 12
    batch_size: int = 32
    learning_rate: float = 2e-3
    latents: int = 8
    width: int = 16
    precision: str = "no"
    device: str = "auto"


@dataclass(frozen=True)
class Scenes:
    """pixels: (N, 3, 16, 16) uint8. factors: name → (N,) int64, see `draw_shapes`."""

    pixels: Tensor
    factors: dict[str, Tensor]
    checksum: str

    def __len__(self) -> int:
        return len(self.pixels)


def draw_scenes(count: int, split: str, seed: int) -> Scenes:
    """Plain shapes that move, turn and change in size and hue on dark backgrounds."""
    pixels, labels, factors = draw_shapes(count, size=SIZE, seed=seed, split=split, plain=True, still=False)
    known = {name: torch.from_numpy(np.asarray(factors[name])) for name in FACTORS}
    return Scenes(pixels, known, checksum(pixels.numpy(), labels.numpy()))


def train_vae(arm: VaeArm, train: Scenes, settings: VaeSettings, *, seed: int, checkpoint: Path | None = None) -> VAE:
    """Train one arm: (`misfit` + β · `divergence`) / number of pixel values + λ · penalty.

    Arms of one seed start from the same weights and see the same images and the same noise of the latents.
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
    """tab37: one row per arm, and one of the same network with random weights. trained: networks by the arms' labels.

    Columns: arm, seed, beta, strength, reconstruction (`misfit`, nats an image, latents at their means), kl (nats
    an image), active (latents with more than 0.1 nat), rms (RMS cosine of filters, mean of layers), and of the latents'
    means what `lib.metrics.disentanglement.scores` returns.
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
    """fig313: the first test image decoded with one latent moved from -2 to 2, in [0, 1].

    arm → (count, steps, 16, 16, 3); the latents are those with the largest divergence, the largest first.
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
    """`table` of all arms trained on `count` scenes, and `traversals` of the β-VAE with and without the penalty.

    how: precision and device.
    """
    train, test = draw_scenes(count, "train", seed), draw_scenes(min(1000, count), "test", seed)
    arms, settings = vae_arms(beta, strength), VaeSettings(epochs, **how)
    trained = train_each(train_vae, arms, train=train, settings=settings, seed=seed, checkpoints=checkpoints)
    shown = {label: trained[label] for label in ("beta-VAE", "beta-VAE, Gram")}
    return table(arms, trained, test, seed=seed), traversals(shown, test)
