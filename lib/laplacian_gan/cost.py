"""What a training step costs: networks, arithmetic and time, and the classic example's step to compare with."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import pandas as pd
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode
from torchvision import transforms

from lib.data.augment import as_float
from lib.laplacian_gan import training
from lib.laplacian_gan.arms import DCGAN, Arm
from lib.laplacian_gan.models import Discriminator, Generator, parameter_count, resolutions
from lib.sources import source_hash
from lib.timing import interleave, measured_once, ratio
from lib.training import MovingAverage, prepare, start

CLASSIC = "classic example"


class _Files(Dataset):
    """Images as an image folder gives them: decoded one by one, transformed on the way."""

    def __init__(self, pixels: Tensor):
        self.pictures = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in pixels]
        self.transform = transforms.Compose(
            [transforms.ToTensor(), transforms.Normalize((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))]
        )

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> Tensor:
        return self.transform(self.pictures[index])


def loader(pixels: Tensor, batch_size: int, workers: int = 2) -> Iterator[Tensor]:
    """Batches without end, as the classic example loads them: a DataLoader with two workers."""
    found = DataLoader(
        _Files(pixels),
        batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        multiprocessing_context="fork" if workers else None,
    )
    return itertools.chain.from_iterable(itertools.repeat(found))


def classic_step(
    generator: nn.Module, discriminator: nn.Module, optimizers: Sequence[torch.optim.Optimizer]
) -> Callable[[Tensor, Tensor], tuple[float, ...]]:
    """One step as in the DCGAN example of the PyTorch examples, from its description: step(real, z) -> five numbers.

    Binary cross-entropy on probabilities, separate backward passes for real and generated
    images, gradients of the discriminator computed again in the generator's update, and five
    numbers read back from the device.
    """
    criterion = nn.BCELoss()
    generator_optimizer, discriminator_optimizer = optimizers

    def step(real: Tensor, z: Tensor) -> tuple[float, ...]:
        discriminator.zero_grad()
        ones, zeros = torch.ones(len(real), device=real.device), torch.zeros(len(real), device=real.device)
        output = torch.sigmoid(discriminator(real))
        on_real = criterion(output, ones)
        on_real.backward()
        d_x = output.mean().item()
        fake = generator(z)
        output = torch.sigmoid(discriminator(fake.detach()))
        on_fake = criterion(output, zeros)
        on_fake.backward()
        d_g_z1 = output.mean().item()
        d_loss = on_real + on_fake
        discriminator_optimizer.step()
        generator.zero_grad()
        output = torch.sigmoid(discriminator(fake))
        g_loss = criterion(output, ones)
        g_loss.backward()
        d_g_z2 = output.mean().item()
        generator_optimizer.step()
        return d_loss.item(), g_loss.item(), d_x, d_g_z1, d_g_z2

    return step


def our_step(size: int, width: int, precision: str, arm: Arm = DCGAN, device: str = "cpu") -> Callable:
    """`training`'s step of a fresh arm as it is run there, with the moving average: step(real, number) -> terms."""
    accelerator = start(device, precision)
    players = [part for part in training.networks(arm, size, width) if part is not None]
    mean = MovingAverage(players[0], 0.999, ramp=True).to(accelerator.device)
    prepared = prepare(accelerator, *players, *(training.optimizer_of(part, arm) for part in players))
    scales = torch.ones(len(resolutions(size)), device=accelerator.device)
    step = training.step_of(accelerator, arm, prepared, scales, mean, read=lambda real: real)
    return lambda real, number=0: step((number, real))


def _four(step: Callable, real: Tensor) -> None:
    for number in range(4):
        step(real, number)


class _NoModules:
    """What FlopCounterMode asks about modules. Its own tracker cannot follow a gradient of a gradient."""

    parents = ("Global",)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return None


def _count_macs(task: Callable[[], object]) -> int:
    """Multiply-accumulates of the convolutions and matrix products that `task` runs."""
    counter = FlopCounterMode(display=False)
    counter.mod_tracker = _NoModules()
    with counter:
        task()
    return counter.get_total_flops() // 2


def compare_steps(
    size: int,
    *,
    width: int = 64,
    batch_size: int = 64,
    precision: str = "bf16",
    steps: int = 5,
    rounds: int = 10,
    workers: int = 2,
) -> pd.DataFrame:
    """Our step against the classic one on the same networks, in turns of `steps` steps, each with its own loading.

    Rows: step, size, width, images_per_second (median), relative (median ratio to the classic step's time, inverted).
    """
    pixels = torch.randint(0, 256, (20 * batch_size, 3, size, size), dtype=torch.uint8)
    torch.manual_seed(0)
    generator, discriminator = Generator(size, width=width), Discriminator(size, width=width)
    optimizers = [torch.optim.AdamW(part.parameters(), 2e-4, betas=(0.5, 0.999)) for part in (generator, discriminator)]
    classic, batches = classic_step(generator, discriminator, optimizers), loader(pixels, batch_size, workers)
    ours = {name: our_step(size, width, name) for name in dict.fromkeys(("no", precision))}

    def run_classic() -> None:
        for _ in range(steps):
            classic(next(batches), torch.randn(batch_size, generator.latent))

    def run_ours(step: Callable) -> None:
        for _ in range(steps):
            step(as_float(pixels[torch.randint(len(pixels), (batch_size,))]))

    tasks = {CLASSIC: run_classic} | {f"ours, {name}": partial(run_ours, step) for name, step in ours.items()}
    seconds = interleave(tasks, rounds=rounds)
    return pd.DataFrame(
        {
            "step": name.replace(", no", ", float32"),
            "size": size,
            "width": width,
            "images_per_second": steps * batch_size / seconds[name].median(),
            "relative": 1 / ratio(seconds, name, CLASSIC),
        }
        for name in tasks
    )


def measured_cost(arms: Sequence[Arm], *, size: int, width: int, batch_size: int = 64, rounds: int = 5) -> pd.DataFrame:
    """Cost of a training step of each arm, float32, measured once per machine and code (`timing.measured_once`).

    Rows: arm, generator and discriminator (parameters), macs (multiply-accumulates of a step and
    image, backward included), milliseconds (median), relative (to the first arm, median of ratios).
    """

    def measure() -> pd.DataFrame:
        torch.manual_seed(0)
        real = torch.rand(batch_size, 3, size, size) * 2 - 1
        # Four steps in turn, as some arms pay for their penalty in every fourth only.
        tasks = {arm.label: partial(_four, our_step(size, width, "no", arm), real) for arm in arms}
        macs = {label: _count_macs(task) // (4 * batch_size) for label, task in tasks.items()}
        seconds = interleave(tasks, rounds=rounds)
        rows = []
        for arm in arms:
            generator, discriminator = training.networks(arm, size, width)
            rows.append(
                {
                    "arm": arm.label,
                    "generator": parameter_count(generator),
                    "discriminator": 0 if discriminator is None else parameter_count(discriminator),
                    "macs": macs[arm.label],
                    "milliseconds": 1e3 * seconds[arm.label].median() / 4,
                    "relative": ratio(seconds, arm.label, arms[0].label),
                }
            )
        return pd.DataFrame(rows)

    key = {"size": size, "width": width, "batch": batch_size, "rounds": rounds, "code": source_hash(__name__)}
    with torch.random.fork_rng():
        return measured_once(f"gan-{size}-{width}", key | {"arms": [repr(arm) for arm in arms]}, measure)
