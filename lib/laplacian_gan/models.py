"""DCGAN (Radford et al. 2016) at 32, 64 or 128 px, optionally with pyramid levels as input, and the LAPGAN chain.

All arms share one generator and one discriminator class; LAPGAN adds `BandGenerator`. `levels` lists the resolutions
at which the band of that size is concatenated to the features as three extra channels; without levels, the
two networks are the standard DCGAN, layer for layer.
"""

from collections.abc import Mapping, Sequence
from functools import partial

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm as spectrally_normalised

from lib.laplacian_gan.pyramid import up

COARSEST = 4  # pixels: size of a DCGAN's first feature map and of the pyramid's low-pass residual
LATENT = 100
COLOURS = 3

Bands = Mapping[int, Tensor]  # resolution r -> (n, 3, r, r), normalised to unit variance


def resolutions(size: int) -> tuple[int, ...]:
    """Return all pyramid levels of a `size` px image, coarse to fine: 4, 8, …, size."""
    return tuple(COARSEST * 2**i for i in range((size // COARSEST).bit_length()))


class Generator(nn.Module):
    """z (n, latent), bands -> images (n, 3, size, size) in [-1, 1].

    Transposed 4 x 4 convolutions from 4 px to `size`, with `width` channels before the last,
    doubling at each lower resolution; batch norm and ReLU; tanh at the output. A band at resolution r
    is concatenated to the features of that resolution. DCGAN has no features at the last resolution,
    only colours; if the finest band is given, the last block outputs `width` / 2 channels
    instead, and a 3 x 3 convolution maps them and the band to colours.
    """

    def __init__(self, size: int = 32, *, width: int = 64, latent: int = LATENT, levels: Sequence[int] = ()):
        super().__init__()
        self.size, self.latent, self.levels = size, latent, check_levels(levels, size)
        finest = size in self.levels
        channels = {r: width * size // (2 * r) for r in resolutions(size)[:-1]}
        channels[size] = max(1, width // 2) if finest else COLOURS
        self.first = nn.Sequential(
            nn.ConvTranspose2d(latent, channels[COARSEST], COARSEST, bias=False), *_norm_relu(channels[COARSEST])
        )
        self.blocks = nn.ModuleDict()  # keyed by input resolution
        for r in resolutions(size)[:-1]:
            taken = channels[r] + COLOURS * (r in self.levels)
            block = [nn.ConvTranspose2d(taken, channels[2 * r], 4, 2, 1, bias=False)]
            last = 2 * r == size and not finest
            self.blocks[str(r)] = nn.Sequential(*block, *([] if last else _norm_relu(channels[2 * r])))
        self.mix = nn.Conv2d(channels[size] + COLOURS, COLOURS, 3, padding=1, bias=False) if finest else None
        self.apply(_initialise)

    def forward(self, z: Tensor, bands: Bands | None = None) -> Tensor:
        features = self.first(z[:, :, None, None])
        for r, block in self.blocks.items():
            features = block(_join(features, bands, int(r), self.levels))
        if self.mix is not None:
            features = self.mix(_join(features, bands, self.size, self.levels))
        return torch.tanh(features.float())


class Discriminator(nn.Module):
    """Images (n, 3, size, size), bands -> logits (n,).

    Mirrors the generator: 4 x 4 convolutions with stride 2, LeakyReLU 0.2, batch norm except in the
    first and last block. norm: "batch", "spectral" (Miyato et al. 2018; without batch norm) or "none", for
    gradient penalties, which need each logit to depend on its own image only.
    """

    def __init__(self, size: int = 32, *, width: int = 64, levels: Sequence[int] = (), norm: str = "batch"):
        super().__init__()
        self.size, self.levels = size, check_levels(levels, size)
        self.blocks = nn.ModuleDict()
        taken = COLOURS
        for r in reversed(resolutions(size)):
            given = 1 if r == COARSEST else width * size // r
            geometry = (COARSEST,) if r == COARSEST else (4, 2, 1)
            convolution = nn.Conv2d(taken + COLOURS * (r in self.levels), given, *geometry, bias=norm != "batch")
            _initialise(convolution)
            block = [spectrally_normalised(convolution) if norm == "spectral" else convolution]
            if r != COARSEST:
                if norm == "batch" and r != size:
                    block.append(nn.BatchNorm2d(given).apply(_initialise))
                block.append(nn.LeakyReLU(0.2, inplace=True))
            self.blocks[str(r)] = nn.Sequential(*block)
            taken = given

    def forward(self, images: Tensor, bands: Bands | None = None) -> Tensor:
        features = images
        for r, block in self.blocks.items():
            features = block(_join(features, bands, int(r), self.levels))
        return features.flatten().float()


class BandGenerator(nn.Module):
    """One step of LAPGAN (Denton et al. 2015): noise (n, r·r), upsampled coarse image -> band (both (n, 3, r, r))."""

    def __init__(self, resolution: int, *, width: int = 64):
        super().__init__()
        self.resolution = resolution
        self.layers = nn.Sequential(
            nn.Conv2d(COLOURS + 1, width, 5, padding=2, bias=False),
            *_norm_relu(width),
            nn.Conv2d(width, width, 5, padding=2, bias=False),
            *_norm_relu(width),
            nn.Conv2d(width, COLOURS, 5, padding=2, bias=False),
        )
        self.apply(_initialise)

    def forward(self, noise: Tensor, coarse: Tensor) -> Tensor:
        plane = noise.view(-1, 1, self.resolution, self.resolution)
        return self.layers(torch.cat([coarse, plane], dim=1)).float()


class Chain(nn.Module):
    """LAPGAN: z (n, latent) -> images (n, 3, size, size), from noise alone: sampling needs no training image.

    A DCGAN generates the image at `base` px; each step upsamples the previous image and adds a generated band. z holds
    the latent vector of the DCGAN and one noise plane per step.
    """

    def __init__(self, size: int = 32, *, base: int = 8, width: int = 64, latent: int = LATENT):
        super().__init__()
        self.size, self.base = size, base
        self.first = Generator(base, width=2 * width, latent=latent)
        self.steps = nn.ModuleDict({str(r): BandGenerator(r, width=width) for r in resolutions(size) if r > base})
        self.planes = [latent, *(int(r) ** 2 for r in self.steps)]
        self.latent, self.levels = sum(self.planes), ()

    def each_step(self, z: Tensor, images: Mapping[int, Tensor]) -> dict[int, tuple[Tensor, Bands | None]]:
        """Return, by resolution, the image that each step generates from the true coarse one, and D's condition."""
        parts = z.split(self.planes, dim=1)
        made = {self.base: (self.first(parts[0]), None)}
        for step, noise in zip(self.steps.values(), parts[1:], strict=True):
            r = step.resolution
            coarse = up(images[r // 2], (r, r))
            made[r] = coarse + step(noise, coarse), {r: coarse}
        return made

    def forward(self, z: Tensor, bands: Bands | None = None) -> Tensor:
        parts = z.split(self.planes, dim=1)
        image = self.first(parts[0])
        for step, noise in zip(self.steps.values(), parts[1:], strict=True):
            coarse = up(image, (step.resolution, step.resolution))
            image = coarse + step(noise, coarse)
        return image.clamp(-1, 1)


def parameter_count(model: nn.Module) -> int:
    """Return the number of trainable weights."""
    return sum(weight.numel() for weight in model.parameters() if weight.requires_grad)


def shapes(model: Generator) -> pd.DataFrame:
    """Return the layer sizes of a new generator, recorded in a forward pass: layer, channels and side (pixels) of its
    input, channels_after and side_after of its output."""
    layers = {"first": model.first, **{f"block {r}": block for r, block in model.blocks.items()}, "mix": model.mix}
    rows = []

    def note(name: str, _layer: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        (_, channels, side, _), (_, channels_after, side_after, _) = inputs[0].shape, output.shape
        rows.append((name, channels, side, channels_after, side_after))

    for name, layer in layers.items():
        if layer is not None:
            layer.register_forward_hook(partial(note, name))
    with torch.no_grad():
        model.eval()(torch.zeros(1, model.latent), {r: torch.zeros(1, COLOURS, r, r) for r in model.levels})
    return pd.DataFrame(rows, columns=["layer", "channels", "side", "channels_after", "side_after"])


def _join(features: Tensor, bands: Bands | None, resolution: int, levels: Sequence[int]) -> Tensor:
    if resolution not in levels:
        return features
    return torch.cat([features, bands[resolution].to(features.dtype)], dim=1)


def check_levels(levels: Sequence[int], size: int) -> tuple[int, ...]:
    """Return the levels in ascending order; ValueError if no DCGAN generates `size` px or the pyramid lacks one."""
    if size < 2 * COARSEST or size != resolutions(size)[-1]:
        raise ValueError(f"a DCGAN generates images of 8, 16, 32, 64, 128, … px, not of {size}")
    unknown = [level for level in levels if level not in resolutions(size)]
    if unknown:
        raise ValueError(f"images of {size} px have the pyramid levels {resolutions(size)}, not {unknown}")
    return tuple(sorted(set(levels)))


def _norm_relu(channels: int) -> list[nn.Module]:
    return [nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]


def _initialise(layer: nn.Module) -> None:
    """Draw convolutions from N(0, 0.02) and batch norm scales from N(1, 0.02) (Radford et al. 2016)."""
    if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(layer.weight, 0, 0.02)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    elif isinstance(layer, nn.BatchNorm2d):
        nn.init.normal_(layer.weight, 1, 0.02)
        nn.init.zeros_(layer.bias)
