"""What a trained arm is worth: distances to held-out images, diversity, and how much of it is copied.

Four disjoint parts of the real images keep the comparison honest: pyramids come from `sources`
(of training and of held-out images), distances go to references that hold none of those.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from torch import Tensor

from lib.laplacian_gan import copying
from lib.laplacian_gan.training import Trained, latents
from lib.metrics.features import Extractor
from lib.metrics.fid import FeatureSet, compare, describe, fid
from lib.metrics.perceptual import Perceptual, lpips_diversity, lpips_same_pyramid, lpips_to_source

if TYPE_CHECKING:
    from lib.data.images import Images

NO_SOURCE = "none"
CROSSED_PYRAMIDS, CROSSED_LATENTS = 32, 8  # of the grid that separates what z and what the pyramid decide


@dataclass(frozen=True)
class Yardstick:
    """Real images, cut into disjoint parts, and the two measures.

    Attributes:
        reference: held-out images, which no model saw and no pyramid was taken from.
        train_reference: as many training images; a model that memorises is close to these alone.
        sources: "training" and "held-out" -> uint8 (count, 3, h, w), the images whose pyramids are given.
        training: uint8, training images among which the nearest is looked for; the training sources come first.
        pairs: of images for each LPIPS value.
        queries: generated images whose nearest training image is looked for.
    """

    extractor: Extractor
    perceptual: Perceptual
    reference: FeatureSet
    train_reference: FeatureSet
    sources: Mapping[str, Tensor]
    training: Tensor
    real_diversity: float
    pairs: int
    queries: int
    seed: int

    @property
    def count(self) -> int:
        return len(self.sources["training"])

    @property
    def key(self) -> str:
        """What a training curve measured with this depends on."""
        return f"{self.extractor.checksum} {self.count} {self.seed}"

    @property
    def protocol(self) -> str:
        """For captions: what every distance here was measured with."""
        return (
            f"{self.extractor.distance} of {self.count:,} generated to {self.count:,} held-out images, features: "
            f"{self.extractor.name}, "
            f"{self.perceptual.name} of {self.pairs:,} pairs"
        )


def yardstick(
    train: "Images",
    test: "Images",
    extractor: Extractor,
    perceptual: Perceptual,
    *,
    count: int,
    pairs: int = 1000,
    queries: int = 1000,
    candidates: int = 10_000,
    seed: int = 0,
) -> Yardstick:
    """A yardstick of `count` images per part (fewer where a split has less than twice as many)."""
    count = min(count, len(train) // 2, len(test) // 2)
    order = torch.Generator().manual_seed(seed)
    trained, held_out = torch.randperm(len(train), generator=order), torch.randperm(len(test), generator=order)
    reference = test.pixels[held_out[count : 2 * count]]
    return Yardstick(
        extractor=extractor,
        perceptual=perceptual,
        reference=describe(reference, extractor),
        train_reference=describe(train.pixels[trained[count : 2 * count]], extractor),
        sources={"training": train.pixels[trained[:count]], "held-out": test.pixels[held_out[:count]]},
        training=train.pixels[trained[: max(count, candidates)]],
        real_diversity=lpips_diversity(perceptual, reference, pairs=pairs, seed=seed)["mean"],
        pairs=pairs,
        queries=min(queries, count),
        seed=seed,
    )


def distances(yard: Yardstick, pixels: Tensor) -> dict[str, Any]:
    """FID, KID and relatives of uint8 images against held-out images; fid_train is against training images."""
    made = describe(pixels, yard.extractor)
    row = compare(made, yard.reference, seed=yard.seed)
    return row | {"fid_train": fid(made, yard.train_reference)}


def curve_score(yard: Yardstick):
    """score(trained) for training curves: Fréchet distance, on held-out pyramids for arms that need sources."""

    def score(trained: Trained) -> dict[str, float]:
        pixels = trained.sample(yard.count, yard.sources["held-out"], seed=yard.seed)
        return {"fid": fid(describe(pixels, yard.extractor), yard.reference)}

    return score


def evaluate(trained: Mapping[str, Trained], yard: Yardstick, *, seed: int, copies: bool = True) -> pd.DataFrame:
    """One row per arm, two where it is told of images: of training images, and of held-out ones.

    copies: also retrieval, copy index and variance shares.
    """
    rows = []
    for label, result in trained.items():
        facts = {"arm": label, "seed": seed, "parameters": sum(result.parameters.values())}
        for told in yard.sources if result.arm.needs_source else [NO_SOURCE]:
            sources = yard.sources.get(told)
            pixels = result.sample(yard.count, sources, seed=seed)
            row = facts | {"sources": told} | distances(yard, pixels) | _perceptual(yard, result, pixels, sources)
            if copies:
                row |= _copies(yard, pixels, told) | _shares(result, sources, seed)
            rows.append(row)
    return pd.DataFrame(rows)


def real_rows(yard: Yardstick, *, seed: int) -> pd.DataFrame:
    """The rows that models are read between: a perfect copier of the sources, and images that nobody copied.

    The copy index of held-out images among training images is what chance gives.
    """
    fresh = yard.sources["held-out"]
    row = {"arm": "held-out images", "seed": seed, "parameters": 0, "sources": NO_SOURCE}
    rows = [row | distances(yard, fresh) | _diversity(yard, fresh) | _copies(yard, fresh, NO_SOURCE)]
    for told, pixels in yard.sources.items():
        row = {"arm": f"copy of {told} images", "seed": seed, "parameters": 0, "sources": told}
        row |= distances(yard, pixels) | _diversity(yard, pixels) | {"lpips_to_source": 0.0}
        rows.append(row | _copies(yard, pixels, told))
    return pd.DataFrame(rows)


def _diversity(yard: Yardstick, pixels: Tensor) -> dict[str, float]:
    found = lpips_diversity(yard.perceptual, pixels, pairs=yard.pairs, seed=yard.seed)
    return {
        "lpips_diversity": found["mean"],
        "lpips_low": found["low"],
        "lpips_high": found["high"],
        "lpips_real": yard.real_diversity,
    }


def _perceptual(yard: Yardstick, result: Trained, pixels: Tensor, sources: Tensor | None) -> dict[str, float]:
    row = _diversity(yard, pixels)
    if sources is None:
        return row
    some = slice(yard.pairs)
    row["lpips_to_source"] = lpips_to_source(yard.perceptual, pixels[some], sources[some])["mean"]
    again = result.sample_from(latents(len(sources[some]), result.generator.latent, yard.seed + 1), sources[some])
    row["lpips_same_pyramid"] = lpips_same_pyramid(yard.perceptual, torch.stack([pixels[some], again], dim=1))["mean"]
    return row


def _copies(yard: Yardstick, pixels: Tensor, told: str) -> dict[str, float]:
    some = pixels[: yard.queries]
    if told == NO_SOURCE:
        return {"copy_index": copying.copy_index(some, yard.training)}
    index = torch.arange(len(some))
    pool = yard.training if told == "training" else yard.sources[told]
    return {
        "retrieval": copying.source_retrieval(some, index, yard.sources[told]),
        "source_correlation": copying.source_correlation(pixels, yard.sources[told][: len(pixels)]),
        "copy_index": copying.copy_index(some, pool, index),
    }


def _shares(result: Trained, sources: Tensor | None, seed: int) -> dict[str, float]:
    if sources is None:
        return {}
    pyramids = sources[:CROSSED_PYRAMIDS]
    z = latents(CROSSED_LATENTS, result.generator.latent, seed)
    made = result.sample_from(z.repeat(len(pyramids), 1), pyramids.repeat_interleave(len(z), dim=0), seed=seed)
    shares = copying.variance_shares(made.view(len(pyramids), len(z), *made.shape[1:]))
    return {f"share_{name}": value for name, value in shares.items()}


def spectra(trained: Mapping[str, Trained], yard: Yardstick, *, seed: int) -> pd.DataFrame:
    """Radial power spectrum of real and generated images: arm, seed, frequency (cycles per pixel), power."""
    sets = {"real images": yard.reference}
    for label, result in trained.items():
        sets[label] = describe(result.sample(yard.count, yard.sources["held-out"], seed=seed), yard.extractor)
    return pd.concat(
        [
            pd.DataFrame({"arm": label, "seed": seed, "frequency": found.frequencies, "power": found.power})
            for label, found in sets.items()
        ],
        ignore_index=True,
    )


def histories(trained: Mapping[str, Trained], *, seed: int) -> pd.DataFrame:
    """Training curves of several arms: arm, seed, images, d_loss, g_loss, d_real, d_fake, fid."""
    return pd.concat(
        [result.history.assign(arm=label, seed=seed) for label, result in trained.items()], ignore_index=True
    )
