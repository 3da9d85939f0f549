"""The training step of the classic PyTorch DCGAN example, and the loading of its images."""

import itertools
from collections.abc import Callable, Iterator, Sequence

import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision import transforms

TRANSFORM = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))])


def _batch(pictures: list[Image.Image]) -> Tensor:
    return torch.stack([TRANSFORM(picture) for picture in pictures])


def loader(pixels: Tensor, batch_size: int, workers: int = 2) -> Iterator[Tensor]:
    """Return an endless iterator of batches, loaded as in the example from an image folder: by a DataLoader whose
    `workers` processes transform the decoded pictures one by one."""
    pictures = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in pixels]
    options = {"multiprocessing_context": "fork", "persistent_workers": True} if workers else {}
    found = DataLoader(
        pictures, batch_size, shuffle=True, drop_last=True, num_workers=workers, collate_fn=_batch, **options
    )
    return itertools.chain.from_iterable(itertools.repeat(found))


def classic_step(
    generator: nn.Module, discriminator: nn.Module, optimizers: Sequence[torch.optim.Optimizer]
) -> Callable[[Tensor, Tensor], tuple[float, ...]]:
    """Return a step like that of PyTorch's DCGAN example, written from its description: step(real, z) -> five numbers.

    It uses binary cross-entropy on probabilities and separate backward passes for real and generated images, computes
    the discriminator's gradients again in the generator's update, and reads five numbers back from the device.
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
