"""Time our training step against that of the classic PyTorch DCGAN example: the same networks, batch 64, in turns.

Each side loads its images in its own way: the example by a DataLoader of decoded pictures, ours from one tensor.
A test checks that both compute the same losses in float32 (`test_losses_equal_those_of_the_classic_step`).
"""

from collections.abc import Callable
from functools import partial

import pandas as pd
import torch
from classic import classic_step, loader

from lib.data.augment import as_float
from lib.laplacian_gan.cost import our_step
from lib.laplacian_gan.models import Discriminator, Generator
from lib.timing import interleave, ratio

CLASSIC = "classic example"
TARGETS = {32: 1.6, 64: 1.7}  # relative to the images per second of the classic step, at least


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
    """Time our step against the classic one on the same networks, in turns of `steps` steps, each with its own loading.

    Columns: step, size, width, images_per_second (median), relative (inverse median ratio to the classic step's time).
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


def measure(rounds: int = 10) -> pd.DataFrame:
    """Return `compare_steps` at 32 and 64 px."""
    sizes = {32: 5, 64: 2}  # steps per turn
    return pd.concat([compare_steps(size, steps=steps, rounds=rounds) for size, steps in sizes.items()])


def check(table: pd.DataFrame) -> pd.DataFrame:
    """Return the study's targets per image size with their measured and smallest allowed values."""
    ours = table[table.step == "ours, bf16"].set_index("size").relative
    rows = [("our step / classic example", size, ours[size], least) for size, least in TARGETS.items()]
    return pd.DataFrame(rows, columns=["target", "size", "measured", "at_least"])
