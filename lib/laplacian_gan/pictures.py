"""Images for the figures: arrays (…, 3, h, w), uint8 unless noted, from which they are redrawn without models."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from lib.data.images import Images, as_float
from lib.laplacian_gan import copying, pyramid
from lib.laplacian_gan.evaluation import Protocol
from lib.laplacian_gan.models import resolutions
from lib.laplacian_gan.training import Trained, latents
from lib.metrics.features import to_pixels

Arrays = dict[str, np.ndarray]


def pyramid_bands(images: Images, count: int = 3) -> Arrays:
    """Return float images in [-1, 1], their bands and the collapsed bands: "images", "32 px", …, "collapsed"."""
    floats = as_float(images.pixels[:count])
    bands = pyramid.build(floats, len(resolutions(floats.shape[-1])))
    arrays = {"images": floats} | {f"{band.shape[-1]} px": band for band in bands}
    return {name: value.numpy() for name, value in (arrays | {"collapsed": pyramid.collapse(bands)}).items()}


def samples(trained: Trained, count: int, sources: Mapping[str, Tensor] | None = None, *, seed: int) -> Arrays:
    """Return "samples" from the first latents of `seed`; for arms with sources, samples and sources of each split."""
    if not trained.arm.needs_source:
        return {"samples": trained.sample(count, seed=seed).numpy()}
    arrays = {}
    for split, pixels in sources.items():
        arrays[f"{split} sources"] = pixels[:count].numpy()
        arrays[split] = trained.sample(count, pixels[:count], seed=seed).numpy()
    return arrays


def level_samples(trained: Mapping[str, Trained], sources: Tensor, *, seed: int) -> Arrays:
    """Return the sources, and each arm's samples from them at the same z: label -> images."""
    made = {label: result.sample(len(sources), sources, seed=seed).numpy() for label, result in trained.items()}
    return {"sources": sources.numpy()} | made


def nearest(trained: Mapping[str, Trained], protocol: Protocol, count: int = 8, *, seed: int) -> Arrays:
    """Return generated images and the training images nearest in pixel space: label -> (2, count, …)."""
    arrays = {}
    for label, result in trained.items():
        for split in protocol.sources if result.arm.needs_source else [""]:
            made = result.sample(count, protocol.sources.get(split, torch.empty(0))[:count], seed=seed)
            _, index = copying.nearest(made, protocol.training)
            name = f"{label}, {split} pyramids" if split else label
            arrays[name] = torch.stack([made, protocol.training[index]]).numpy()
    return arrays


def interpolations(plain: Trained, conditioned: Trained, sources: Tensor, *, steps: int = 8, seed: int) -> Arrays:
    """Return swaps of coarse and fine levels between images, and interpolation walks.

    "swaps" (n, n, …): the coarse half of the pyramid of image i with the fine half of that of image j, at one z.
    Walks (steps, …): DCGAN from z to z', the pyramid GAN likewise at one pyramid, and between two pyramids at one z.
    """
    count, floats = len(sources), as_float(sources)
    bands = pyramid.build(floats, len(resolutions(floats.shape[-1])))
    half, each = len(bands) // 2, torch.arange(count)
    fine, coarse = each.repeat(count), each.repeat_interleave(count)
    mixed = pyramid.collapse([band[fine] for band in bands[:half]] + [band[coarse] for band in bands[half:]])
    mixed = to_pixels(mixed.clamp(-1, 1))  # mixed pyramids may slightly exceed the range
    z = latents(2, plain.generator.latent, seed)
    swaps = conditioned.sample_from(z[:1].expand(count**2, -1), mixed, seed=seed)
    walk = _great_circle(z[0], z[1], steps)
    weights = torch.linspace(0, 1, steps).view(-1, 1, 1, 1)
    between = to_pixels((1 - weights) * floats[:1] + weights * floats[1:2])
    return {
        "sources": sources.numpy(),
        "swaps": swaps.view(count, count, *sources.shape[1:]).numpy(),
        "DCGAN, z to z'": plain.sample_from(walk, seed=seed).numpy(),
        "pyramid GAN, z to z', one pyramid": conditioned.sample_from(walk, sources[[0] * steps]).numpy(),
        "pyramid GAN, pyramid to pyramid, one z": conditioned.sample_from(z[:1].expand(steps, -1), between).numpy(),
    }


def _great_circle(start: Tensor, end: Tensor, steps: int) -> Tensor:
    """Return latents (steps, d) from `start` to `end` (d,), with norms typical of normal vectors (White 2016)."""
    angle = torch.arccos(torch.clamp(start @ end / (start.norm() * end.norm()), -1, 1))
    weights = torch.linspace(0, 1, steps)[:, None]
    return (torch.sin((1 - weights) * angle) * start + torch.sin(weights * angle) * end) / torch.sin(angle)
