"""Evaluation of trained arms: distances to held-out images, diversity, and how much of it is copied.

The real images are split into four disjoint parts: pyramids come from `sources` (of training and of
held-out images), distances are computed to references that contain none of those.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from lib.data.images import Images, load_images
from lib.forking import side_by_side
from lib.laplacian_gan import copying
from lib.laplacian_gan.arms import DCGAN, NO_SOURCE, PYRAMID, control_arms, sign_arms
from lib.laplacian_gan.training import Settings, Trained, latents, train_arm, train_arms
from lib.metrics import MetricError
from lib.metrics.features import Extractor, load_extractor
from lib.metrics.fid import MINIMUM, compare, frechet_distance, radial_power
from lib.metrics.perceptual import Perceptual, load_lpips, lpips_diversity, mean_lpips

# The source's table (slide "FID Score, LPIPS score 비교"): claims to compare with. It names neither sample
# counts nor the reference images, the size, the LPIPS network or what was paired.
REPORTED = {
    PYRAMID.label: {"reported_fid": 159.12, "reported_lpips": 0.4803},
    DCGAN.label: {"reported_fid": 112.07, "reported_lpips": 0.5063},
}
CANDIDATES = 10_000  # training images among which the nearest is looked for
CROSSED_PYRAMIDS, CROSSED_LATENTS = 32, 8  # of the grid that separates what z and what the pyramid decide


class Protocol:
    """How arms are measured: real images, split into disjoint parts, feature extractor and LPIPS.

    Attributes:
        count: images per part: as many as asked for, or half of the smaller split.
        second: another extractor, to see whether both order the arms alike; None: there is none.
        reference: features of held-out images, which no model saw and no pyramid was taken from.
        train_reference: those of as many training images; a model that memorises is close to these alone.
        sources: "training" and "held-out" -> uint8 (count, 3, h, w), the images whose pyramids are given.
        training: uint8, training images among which the nearest is looked for; the training sources come first.
        pairs: of images for each LPIPS value.
        queries: generated images whose nearest training image is looked for.
    """

    def __init__(
        self,
        train: Images,
        test: Images,
        extractor: Extractor,
        perceptual: Perceptual,
        *,
        second: Extractor | None = None,
        count: int,
        pairs: int = 1000,
        queries: int = 1000,
        seed: int = 0,
    ):
        self.count = count = min(count, len(train) // 2, len(test) // 2)
        if count < MINIMUM:
            raise MetricError(
                f"distances need {MINIMUM} images of each part, not {count}: raise sample_count or add images"
            )
        self.extractor, self.perceptual, self.second, self.seed = extractor, perceptual, second, seed
        self.pairs, self.queries = pairs, min(queries, count)
        order = torch.Generator().manual_seed(seed)
        trained, held_out = torch.randperm(len(train), generator=order), torch.randperm(len(test), generator=order)
        reference = test.pixels[held_out[count : 2 * count]]
        self.reference = extractor(reference).cpu()
        self.second_reference = second and second(reference).cpu()
        self.train_reference = extractor(train.pixels[trained[count : 2 * count]]).cpu()
        self.sources = {"training": train.pixels[trained[:count]], "held-out": test.pixels[held_out[:count]]}
        self.training = train.pixels[trained[: max(count, CANDIDATES)]]
        self.real_diversity = lpips_diversity(perceptual, reference, pairs=pairs, seed=seed)["mean"]
        self.real_spectrum = radial_power(reference)
        self.held_out = test.checksum  # of the held-out images

    @property
    def key(self) -> str:
        """What a training curve measured with this depends on."""
        return f"{self.extractor.checksum} {self.held_out} {self.count} {self.seed}"

    @property
    def distance(self) -> str:
        """For captions: extractor and sample counts behind every Fréchet distance."""
        sets = f"{self.count:,} generated to {self.count:,} held-out images"
        return f"{self.extractor.distance} of {sets}, features: {self.extractor.name}"

    @property
    def description(self) -> str:
        """For captions of what holds LPIPS as well."""
        return f"{self.distance}, {self.perceptual.name} of {self.pairs:,} pairs"


def load_protocol(
    train: Images,
    test: Images,
    settings: Settings,
    *,
    extractor: str,
    lpips_net: str,
    second: str = "",
    **options: int,
) -> Protocol:
    """A `Protocol`, by name. extractor, second: "auto", "inception", "vgg16" or "domain", the second may be "";
    lpips_net: "alex", "vgg", "squeeze"."""
    how = {"device": settings.device, "precision": settings.precision}
    features, other = (load_extractor(kind, train, test, **how) if kind else None for kind in (extractor, second))
    return Protocol(train, test, features, load_lpips(lpips_net, device=settings.device), second=other, **options)


def distances(protocol: Protocol, pixels: Tensor) -> dict[str, Any]:
    """FID, KID and relatives of uint8 images against held-out images; fid_train is against training images."""
    made = protocol.extractor(pixels).cpu()
    row = compare(made, protocol.reference, seed=protocol.seed) | {"extractor": protocol.extractor.name}
    row["fid_train"] = frechet_distance(made, protocol.train_reference)
    if protocol.second is not None:
        row["fid_second"] = frechet_distance(protocol.second(pixels).cpu(), protocol.second_reference)
        row["second_extractor"] = protocol.second.name
    return row


def curve_score(trained: Trained, *, protocol: Protocol) -> dict[str, float]:
    """For training curves: Fréchet distance, on held-out pyramids for arms that need sources."""
    pixels = trained.sample(protocol.count, protocol.sources["held-out"], seed=protocol.seed)
    return {"fid": frechet_distance(protocol.extractor(pixels), protocol.reference)}


def evaluate(trained: Mapping[str, Trained], protocol: Protocol, *, seed: int, copies: bool = True) -> pd.DataFrame:
    """One row per arm, two where it is conditioned on images: on training images, and on held-out ones.

    copies: also retrieval, copy index and variance shares.
    """
    rows = []
    for label, result in trained.items():
        facts = {"arm": label, "seed": seed, "parameters": sum(result.parameters.values())}
        for split in protocol.sources if result.arm.needs_source else [NO_SOURCE]:
            sources = protocol.sources.get(split)
            pixels = result.sample(protocol.count, sources, seed=seed)
            row = facts | {"sources": split, "images": result.arm.images if result.arm.needs_source else 0}
            row |= distances(protocol, pixels) | _perceptual(protocol, result, pixels, sources)
            if copies:
                row |= _copies(protocol, pixels, split, result.arm.images) | _shares(result, sources, seed)
            rows.append(row)
    return pd.DataFrame(rows)


def real_rows(protocol: Protocol, *, seed: int) -> pd.DataFrame:
    """Reference rows: a perfect copier of the sources, and real images that are not copies.

    The copy index of held-out images among training images is its chance level.
    """
    fresh = protocol.sources["held-out"]
    facts = {"seed": seed, "parameters": 0, "images": 0}
    row = facts | {"arm": "held-out images", "sources": NO_SOURCE}
    rows = [row | distances(protocol, fresh) | _diversity(protocol, fresh) | _copies(protocol, fresh, NO_SOURCE)]
    for split, pixels in protocol.sources.items():
        row = facts | {"arm": f"copy of {split} images", "sources": split}
        row |= distances(protocol, pixels) | _diversity(protocol, pixels) | {"lpips_to_source": 0.0}
        rows.append(row | _copies(protocol, pixels, split))
    return pd.DataFrame(rows)


def _diversity(protocol: Protocol, pixels: Tensor) -> dict[str, float]:
    found = lpips_diversity(protocol.perceptual, pixels, pairs=protocol.pairs, seed=protocol.seed)
    row = {"lpips_diversity": found["mean"], "lpips_low": found["low"], "lpips_high": found["high"]}
    return row | {"lpips_real": protocol.real_diversity}


def _perceptual(protocol: Protocol, result: Trained, pixels: Tensor, sources: Tensor | None) -> dict[str, float]:
    row = _diversity(protocol, pixels)
    if sources is None:
        return row
    first = result.arm.images - 1  # those before have a band of another in the second draw
    some = slice(max(protocol.pairs, first + 1))
    made, asked = pixels[some], sources[some]
    to_each = (mean_lpips(protocol.perceptual, made, sources.roll(number, 0)[some]) for number in range(first + 1))
    row["lpips_to_source"] = min(to_each)  # that of the source that is copied most
    again = result.sample(len(asked), asked, seed=protocol.seed + 1)
    row["lpips_same_pyramid"] = mean_lpips(protocol.perceptual, made[first:], again[first:])
    return row


def _copies(protocol: Protocol, pixels: Tensor, split: str, images: int = 1) -> dict[str, float]:
    """Of several sources of an image, each measure is that of the source (the coarsest bands', say) copied most.

    Sources and, for arms without, training images are as many, as the copy index falls with their number.
    chance_correlation: with a real image that is none of the sources.
    """
    some = pixels[: protocol.queries]
    if split == NO_SOURCE:
        return {"copy_index": copying.copy_index(some, protocol.training[: protocol.count])}
    sources = protocol.sources[split]
    rows = []
    for number in range(images):
        index = (torch.arange(len(pixels)) - number) % len(sources)  # as in `training.conditions`
        asked = index[: len(some)]
        rows.append(
            {
                "retrieval": copying.source_retrieval(some, asked, sources),
                "source_correlation": copying.source_correlation(pixels, sources[index]),
                "copy_index": copying.copy_index(some, sources, asked),
            }
        )
    most = {name: max((row[name] for row in rows), key=abs) for name in rows[0]}
    chance = copying.source_correlation(pixels, sources[(torch.arange(len(pixels)) - images) % len(sources)])
    return most | {"chance_correlation": chance}


def _shares(result: Trained, sources: Tensor | None, seed: int) -> dict[str, float]:
    if sources is None:
        return {}
    pyramids = sources[:CROSSED_PYRAMIDS]
    z = latents(CROSSED_LATENTS, result.generator.latent, seed)
    # All pyramids for one z, then for the next: bands of several images are then the same for every z.
    made = result.sample_from(z.repeat_interleave(len(pyramids), dim=0), pyramids.repeat(len(z), 1, 1, 1), seed=seed)
    shares = copying.variance_shares(made.view(len(z), len(pyramids), *made.shape[1:]).transpose(0, 1))
    return {f"share_{name}": value for name, value in shares.items()}


def spectra(trained: Mapping[str, Trained], protocol: Protocol, *, seed: int) -> pd.DataFrame:
    """Radial power spectrum of real and generated images: arm, seed, frequency (cycles per pixel), power."""
    sets = {"real images": protocol.real_spectrum}
    for label, result in trained.items():
        sets[label] = radial_power(result.sample(protocol.count, protocol.sources["held-out"], seed=seed))
    frames = (
        pd.DataFrame({"arm": label, "seed": seed, "frequency": frequencies, "power": power})
        for label, (frequencies, power) in sets.items()
    )
    return pd.concat(frames, ignore_index=True)


def histories(trained: Mapping[str, Trained], *, seed: int) -> pd.DataFrame:
    """Training curves of several arms: arm, seed, images, d_loss, g_loss, d_real, d_fake, fid."""
    frames = (result.history.assign(arm=label, seed=seed) for label, result in trained.items())
    return pd.concat(frames, ignore_index=True)


def signs(
    train: Images, protocol: Protocol, settings: Settings, design: Any, *, seed: int, checkpoints: Path
) -> tuple[pd.DataFrame, str]:
    """Correlation with held-out sources and with other images over training, and how it was measured.

    Each of `arms.sign_arms` is trained `design.sign_seeds` times, with seeds that no other `seed` has.
    Columns: arm, seed, images, source_correlation, chance_correlation, before the training and after each epoch.
    """
    train, sources = train.subset(slice(design.sign_count or None)), protocol.sources["held-out"]
    settings = replace(settings, epochs=design.sign_epochs, score_every=1)
    how = {"score": partial(_sign, sources=sources), "score_key": f"sign {protocol.held_out} {len(sources)}"}
    seeds = range(seed * design.sign_seeds, (seed + 1) * design.sign_seeds)
    runs = [(arm, one) for one in seeds for arm in sign_arms(design.levels)]
    trained = side_by_side(
        [
            partial(train_arm, arm, train, settings, seed=one, checkpoint=checkpoints / f"{arm.label}-{one}", **how)
            for arm, one in runs
        ]
    )
    found = [result.history.assign(arm=arm.label, seed=one) for result, (arm, one) in zip(trained, runs, strict=True)]
    note = f"{len(train):,} training images, {settings.epochs} epochs, width {settings.width}"
    columns = ["arm", "seed", "images", "source_correlation", "chance_correlation"]
    return pd.concat(found, ignore_index=True)[columns], f"{note}; {len(sources):,} held-out sources"


def _sign(trained: Trained, *, sources: Tensor) -> dict[str, float]:
    pixels = trained.sample(len(sources), sources, seed=0)
    pairs = {"source_correlation": sources, "chance_correlation": sources.roll(1, 0)}
    return {name: copying.source_correlation(pixels, those) for name, those in pairs.items()}


def compare_on(
    train: Images, protocol: Protocol, settings: Settings, levels: Sequence[int], *, seed: int, checkpoints: Path
) -> dict[str, Trained]:
    """The source's comparison on one data set: DCGAN, pyramid GAN and its null control, with their training curves."""
    score = {"score": partial(curve_score, protocol=protocol), "score_key": protocol.key}
    return train_arms(control_arms(levels)[:3], train, settings, seed=seed, checkpoints=checkpoints, **score)


def load_others(names: Sequence[str], *, size: int, seed: int) -> dict[str, tuple[Images, Images]]:
    """Training and test images of further data sets, by name."""
    return {
        name: tuple(load_images(name, split, size=size, seed=seed) for split in ("train", "test")) for name in names
    }


def repeated(
    others: Mapping[str, tuple[Images, Images]], settings: Settings, levels: Sequence[int],
    measured: Mapping[str, Any], *, seed: int, checkpoints: Path,
) -> list[tuple[pd.DataFrame, str]]:  # fmt: skip
    """The comparison on each of `others`: its rows of tab11, and how they were measured. measured: for a protocol."""
    found = []
    for name, (train, test) in others.items():
        protocol = load_protocol(train, test, settings, **measured)
        trained = compare_on(train, protocol, settings, levels, seed=seed, checkpoints=checkpoints / name)
        found.append((headline(trained, protocol, train.name, seed=seed), f"{train.name}: {protocol.description}"))
    return found


def headline(trained: dict[str, Trained], protocol: Protocol, dataset: str, *, seed: int) -> pd.DataFrame:
    """tab11: the source's table with what it left out, and the source's values beside ours."""
    rows = evaluate(trained, protocol, seed=seed)
    reported = pd.DataFrame([REPORTED.get(arm, {}) for arm in rows.arm], columns=["reported_fid", "reported_lpips"])
    rows.insert(0, "dataset", dataset)
    return pd.concat([rows, reported], axis=1)
