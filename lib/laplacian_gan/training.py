"""Training of one arm, generator against discriminator, and sampling from the averaged generator."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.data.augment import as_float
from lib.forking import train_each
from lib.laplacian_gan import pyramid
from lib.laplacian_gan.arms import Arm
from lib.laplacian_gan.augment import AUGMENTATIONS
from lib.laplacian_gan.losses import LOSSES
from lib.laplacian_gan.models import Chain, Discriminator, Generator, parameter_count, resolutions
from lib.training import Captured, MovingAverage, TrainingError, fit_arm, prepare, scored, shuffled, start

if TYPE_CHECKING:  # checkpoints depend on the checksum of the data, not on the code that loads the data
    from lib.data.images import Images

CALIBRATION_BATCHES = 16
SAMPLES_AT_ONCE = 250
NOISE = 2**31  # added to the sampling seed (CPUs use 32 bits of it), so that noise on bands does not repeat z

Bands = dict[int, Tensor]
CONDITIONS = {"own": nn.Identity(), "zeros": torch.zeros_like, "noise": torch.randn_like}
# Of real images (n, 3, h, w), whether to add the penalty, and whether to update the generator.
Step = Callable[[Tensor, bool, bool], dict[str, Tensor]]


@dataclass(frozen=True)
class Settings:
    """Settings shared by all arms of an experiment."""

    epochs: int = 20
    batch_size: int = 64
    width: int = 64  # channels of the last feature map
    ema: float = 0.999  # decay of the averaged generator
    score_every: int = 0  # epochs between two points of the training curve; 0: only the last
    precision: str = "no"
    device: str = "auto"


@dataclass(frozen=True)
class Trained:
    """A trained arm."""

    arm: Arm
    generator: nn.Module  # averaged, batch norm calibrated
    scales: Tensor  # (bands,) coarse to fine, standard deviation of each band of the training images
    history: pd.DataFrame  # per epoch: images seen, d_loss, g_loss, d_real, d_fake, and the values of `score`
    parameters: dict[str, int]  # number of weights of generator and discriminator

    def sample(self, count: int, sources: Tensor | None = None, *, seed: int) -> Tensor:
        """Return `count` uint8 images (count, 3, h, w). Arms with the same latent size get the same z from a seed."""
        z = latents(count, self.generator.latent, seed)
        return self.sample_from(z, sources, seed=seed)

    @torch.no_grad()
    def sample_from(self, z: Tensor, sources: Tensor | None = None, *, seed: int = 0) -> Tensor:
        """Return images for latents z (n, latent), conditioned on uint8 `sources` (n, 3, h, w) if the arm needs any.

        Image i uses sources[i]; with bands of several images, the g-th image is sources[i - g], see `Arm.images`.
        Returns uint8 (n, 3, h, w) on the CPU; the caller's random state is unchanged.
        """
        device = next(self.generator.parameters()).device
        chunks = []
        with torch.random.fork_rng():
            torch.manual_seed(seed + NOISE)
            for begin in range(0, len(z), SAMPLES_AT_ONCE):
                part = z[begin : begin + SAMPLES_AT_ONCE].to(device)
                images = self.generator(part, self._bands(begin, part, sources))
                chunks.append(images.float().add(1).mul_(127.5).round_().clamp_(0, 255).to(torch.uint8).cpu())
        return torch.cat(chunks)

    def _bands(self, begin: int, z: Tensor, sources: Tensor | None) -> Bands:
        if not self.arm.needs_source:
            size = self.generator.size
            return conditions(torch.zeros(len(z), 3, size, size, device=z.device), self.arm, self.scales)
        before = self.arm.images - 1  # extra rows, which only supply bands for the first rows of this chunk
        rows = torch.arange(begin - before, begin + len(z)) % len(sources)
        bands = conditions(as_float(sources[rows].to(z.device)), self.arm, self.scales)
        return {level: band[before:] for level, band in bands.items()}


def latents(count: int, latent: int, seed: int) -> Tensor:
    """Return standard normal numbers (count, latent), the same on every device."""
    return torch.randn(count, latent, generator=torch.Generator().manual_seed(seed))


def own_latents(accelerator, count: int, latent: int, device: torch.device) -> Tensor:
    """Draw one step's latents of all processes, which share the random state; return this process's (count, latent)."""
    z = torch.randn(count * accelerator.num_processes, latent, device=device)
    return z[accelerator.process_index * count :][:count]


def conditions(images: Tensor, arm: Arm, scales: Tensor) -> Bands:
    """Return the arm's bands of float images (n, 3, h, w): resolution -> band, in units of its standard deviation.

    Row i of a band comes from image i - g (mod n) if the band belongs to the g-th of `arm.images` images. Uses torch's
    global random state if the arm's condition is random.
    """
    if not arm.levels:
        return {}
    found = all_bands(images, scales)
    bands = {}
    for place, level in enumerate(sorted(arm.levels)):
        band = found[level].roll(place * arm.images // len(arm.levels), 0)
        band = CONDITIONS[arm.condition](band)
        bands[level] = band + arm.level_noise * torch.randn_like(band) if arm.level_noise else band
    return bands


def all_bands(images: Tensor, scales: Tensor) -> Bands:
    """Return all bands of float images by resolution, divided by `scales` (coarse to fine), zeros replaced by 1."""
    sizes = resolutions(images.shape[-1])
    bands = reversed(pyramid.build(images, len(sizes)))
    scales = torch.where(scales > 0, scales, 1.0).to(images.device)
    return {size: band / scale for size, band, scale in zip(sizes, bands, scales, strict=True)}


def scales_of(images: "Images", count: int = 2000) -> Tensor:
    """Return each band's standard deviation about its channel means over the first `count` images, coarse to fine.

    Coarse bands of natural images are several times stronger than fine ones; divided by these deviations, all have
    unit variance.
    """
    floats = as_float(images.pixels[:count])
    bands = reversed(pyramid.build(floats, len(resolutions(floats.shape[-1]))))
    return torch.stack([band.std(dim=(0, 2, 3), correction=0).square().mean().sqrt() for band in bands])


@torch.no_grad()
def calibrate(generator: nn.Module, arm: Arm, scales: Tensor, train: "Images", batch_size: int) -> None:
    """Recompute the batch norm statistics of an averaged generator.

    The averaged weights have never processed a batch, and the running statistics that they inherit belong
    to the weights of the trained network. The caller's random state is unchanged.
    """
    norms = [layer for layer in generator.modules() if isinstance(layer, nn.BatchNorm2d)]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # cumulative average over all batches
        generator.train()
        for _ in range(CALIBRATION_BATCHES):
            real = as_float(train.pixels[torch.randint(len(train), (batch_size,)).to(train.pixels.device)])
            z = torch.randn(batch_size, generator.latent).to(real.device)
            generator(z, conditions(real, arm, scales))
    generator.eval()


def train_arm(
    arm: Arm,
    train: "Images",
    settings: Settings,
    *,
    seed: int,
    score: Callable[[Trained], Mapping[str, float]] | None = None,
    score_key: str = "",
    checkpoint: Path | None = None,
) -> Trained:
    """Train one arm. Arms with the same seed see the same images in the same order.

    score(trained) returns the values of the training curve, every `score_every` epochs and at the end;
    `score_key` identifies what they depend on, as checkpoints store the curve.
    """
    accelerator = start(settings.device, settings.precision)
    torch.manual_seed(seed)
    scales, train = scales_of(train).to(accelerator.device), train.to(accelerator.device)
    read = lambda index: as_float(train.pixels[index])  # noqa: E731
    mean, parameters, step = make_step(
        accelerator, arm, train.pixels.shape[-1], settings.width, settings.ema, scales, read
    )
    torch.manual_seed(seed + 1)

    def trained(history: pd.DataFrame) -> Trained:
        calibrate(mean, arm, scales, train, settings.batch_size)
        return Trained(arm, mean, scales, history, parameters)

    shares = shuffled(accelerator, len(train), settings.batch_size, seed)

    def batches(epoch: int) -> list[tuple[int, Tensor]]:
        indices = shares(epoch)
        return list(enumerate(indices, (epoch - 1) * len(indices)))

    now = None if score is None else lambda: score(trained(pd.DataFrame()))
    history = fit_arm(
        accelerator, step, arm, train, settings, seed=seed, code=__name__, score=score_key, batches=batches,
        evaluate=scored(len(train), settings, now), checkpoint=checkpoint,
    )  # fmt: skip
    return trained(history)


def make_step(
    accelerator, arm: Arm, size: int, width: int, ema: float, scales: Tensor, read: Callable[[Tensor], Tensor]
) -> tuple[nn.Module, dict[str, int], Callable[[tuple[int, Tensor]], dict[str, Tensor]]]:
    """Build an arm's networks; return the averaged generator, parameter counts and a training step for `fit`,
    step((number, batch)) -> terms. Everything is registered for checkpoints.

    read(batch) returns real images (n, 3, h, w). On a GPU, steps with and without a gradient penalty or an update of
    the generator are captured as separate graphs.

    Raises:
        TrainingError: a LAPGAN in several processes.
    """
    if accelerator.num_processes > 1 and arm.kind == "lapgan":
        raise TrainingError(
            f"{arm.label} trains in one process, as its step calls parts of networks whose gradients would not be "
            "averaged over processes; run it without `accelerate launch`, or with --num_processes 1"
        )
    players = [part for part in networks(arm, size, width) if part is not None]
    mean = MovingAverage(players[0], ema, ramp=True).to(accelerator.device)
    parameters = dict(zip(("generator", "discriminator"), [*map(parameter_count, players), 0], strict=False))
    parts = prepare(accelerator, *players, *(optimizer_of(part, arm) for part in players))
    if accelerator.num_processes > 1:
        # Otherwise each forward pass overwrites batch norm's statistics, which the gradient of the one before needs.
        for part in parts[: len(players)]:
            part.broadcast_buffers = False
    accelerator.register_for_checkpointing(mean)
    update = STEPS[arm.kind](accelerator, arm, parts, scales)

    def one(batch: Tensor, penalised: bool, generates: bool) -> dict[str, Tensor]:
        terms = update(read(batch), penalised, generates)
        if generates:
            mean.update_parameters(accelerator.unwrap_model(parts[0]))
        return terms

    optimizers = parts[len(players) :]
    variants = {
        kind: Captured(accelerator, partial(one, penalised=kind[0], generates=kind[1]), optimizers)
        for kind in product((False, True), repeat=2)
    }

    def step(batch: tuple[int, Tensor]) -> dict[str, Tensor]:
        number, index = batch
        return variants[number % arm.penalty_every == 0, (number + 1) % arm.critic_steps == 0](index)

    return mean.module, parameters, step


def networks(arm: Arm, size: int, width: int) -> tuple[nn.Module, nn.Module | None]:
    """Build the generator and discriminator of an arm; a decoder has no discriminator, a chain has one per step."""
    if arm.kind == "lapgan":
        chain = Chain(size, width=width)
        steps = {chain.base: Discriminator(chain.base, width=width, norm=arm.norm)}
        steps |= {int(r): Discriminator(int(r), width=width, levels=(int(r),), norm=arm.norm) for r in chain.steps}
        return chain, nn.ModuleDict({str(r): part for r, part in steps.items()})
    generator = Generator(size, width=width, levels=arm.levels)
    if arm.kind == "decoder":
        return generator, None
    return generator, Discriminator(size, width=width, levels=arm.levels if arm.sees_levels else (), norm=arm.norm)


def optimizer_of(part: nn.Module, arm: Arm) -> torch.optim.Optimizer:
    """Return AdamW with the settings of the arm, whose defaults are those of the source."""
    return torch.optim.AdamW(
        part.parameters(),
        arm.learning_rate,
        betas=(arm.beta1, 0.999),
        weight_decay=arm.weight_decay,
        fused=True,
        capturable=torch.cuda.is_available(),
    )


def adversarial_step(accelerator, arm: Arm, parts, scales: Tensor) -> Step:
    """Return a step that updates the discriminator, then the generator, on real images (n, 3, h, w).

    A LAPGAN has one such pair of networks for each step of its chain, which is given the true coarse image (Denton et
    al. 2015, section 3.2). Nothing is copied back from the device, both updates use the same generated batch, and the
    generator's update computes no gradients for the discriminator's weights.
    """
    generator, discriminator, generator_optimizer, discriminator_optimizer = parts
    plain, chain = accelerator.unwrap_model(generator), arm.kind == "lapgan"
    loss, augment = LOSSES[arm.loss], AUGMENTATIONS[arm.augmentation]

    def pairs(real: Tensor) -> list[tuple[nn.Module, Tensor, Tensor, Bands | None]]:
        """Return (discriminator, real images, generated images, condition of the discriminator) for each pair."""
        images = gaussian(real) if chain else {}
        bands = {} if chain else conditions(real, arm, scales)
        z = own_latents(accelerator, len(real), plain.latent, real.device)
        with accelerator.autocast():
            if chain:
                made = plain.each_step(z, images)
                return [(discriminator[str(r)], images[r], fake, coarse) for r, (fake, coarse) in made.items()]
            return [(discriminator, real, generator(z, bands), bands if arm.sees_levels else None)]

    def step(real: Tensor, penalised: bool, generates: bool) -> dict[str, Tensor]:
        with torch.set_grad_enabled(generates):
            made = pairs(real)
        discriminator_optimizer.zero_grad(set_to_none=True)
        with accelerator.autocast():
            seen = [augment(images) for _, images, _, _ in made]
            on_real = [judge(images, shown) for (judge, _, _, shown), images in zip(made, seen, strict=True)]
            on_fake = [judge(augment(fake.detach()), shown) for judge, _, fake, shown in made]
        total = sum(loss.discriminator(a, b) for a, b in zip(on_real, on_fake, strict=True))
        d_loss = total / len(made)
        if loss.gradient_penalty and penalised:
            total = total + _penalty(accelerator.unwrap_model(discriminator), arm, *made[0][1:])
        accelerator.backward(total)
        discriminator_optimizer.step()
        # d_real, d_fake: the mean probability of being real that D assigns to real and to generated images.
        d_real, d_fake = (torch.stack(logits).detach().sigmoid().mean() for logits in (on_real, on_fake))
        terms = {"d_loss": d_loss.detach(), "g_loss": None, "d_real": d_real, "d_fake": d_fake}
        if not generates:
            total = sum(loss.generator(a, b) for a, b in zip(on_real, on_fake, strict=True))
            return terms | {"g_loss": total.detach() / len(made)}

        discriminator.requires_grad_(False)
        generator_optimizer.zero_grad(set_to_none=True)
        with accelerator.autocast():
            judged = [judge(augment(fake), shown) for judge, _, fake, shown in made]
            compared = [logits.detach() for logits in on_real]
            if loss.needs_real:
                compared = [judge(images, shown) for (judge, _, _, shown), images in zip(made, seen, strict=True)]
        total = sum(loss.generator(a, b) for a, b in zip(compared, judged, strict=True))
        accelerator.backward(total)
        generator_optimizer.step()
        discriminator.requires_grad_(True)
        return terms | {"g_loss": total.detach() / len(made)}

    return step


def _penalty(discriminator: Discriminator, arm: Arm, real: Tensor, fake: Tensor, shown: Bands | None) -> Tensor:
    def score(images: Tensor) -> Tensor:
        # Not the instance's own forward, which Accelerate wraps in autocast.
        return Discriminator.forward(discriminator, images, shown)

    # Lazy regularisation: applied less often, with a proportionally larger weight.
    return arm.penalty * arm.penalty_every * LOSSES[arm.loss].gradient_penalty(score, real, fake.detach())


def gaussian(images: Tensor) -> dict[int, Tensor]:
    """Return float images at every resolution of their pyramid: 4 px, 8 px, …, full size."""
    bands = pyramid.build(images, len(resolutions(images.shape[-1])))
    return {band.shape[-1]: pyramid.collapse(bands[i:]) for i, band in enumerate(bands)}


def decoder_step(accelerator, arm: Arm, parts, scales: Tensor) -> Step:
    """Return a step that trains the generator to reconstruct its source by mean squared error: pure copying."""
    generator, optimizer = parts

    def step(real: Tensor, penalised: bool, generates: bool) -> dict[str, Tensor]:
        bands = conditions(real, arm, scales)
        z = own_latents(accelerator, len(real), accelerator.unwrap_model(generator).latent, real.device)
        optimizer.zero_grad(set_to_none=True)
        with accelerator.autocast():
            made = generator(z, bands)
        g_loss = F.mse_loss(made, real)
        accelerator.backward(g_loss)
        optimizer.step()
        return {"g_loss": g_loss.detach()}

    return step


STEPS = {"gan": adversarial_step, "lapgan": adversarial_step, "decoder": decoder_step}


# Train several arms: label -> Trained, with one checkpoint folder per arm below `checkpoints`.
train_arms = partial(train_each, train_arm)
