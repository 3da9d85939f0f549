"""Evaluation of trained arms: distances to held-out images, diversity, and copying.

The real images are split into four disjoint parts: pyramids come from `sources` (training and
held-out images), and distances are computed to references, which contain none of the sources.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from lib.data import needs
from lib.data.images import Images, load_images
from lib.forking import side_by_side
from lib.laplacian_gan import copying
from lib.laplacian_gan.arms import DCGAN, NO_SOURCE, PYRAMID, augmentation_arms, control_arms, sign_arms
from lib.laplacian_gan.models import check_levels
from lib.laplacian_gan.training import Settings, Trained, latents, train_arm, train_arms
from lib.metrics import MetricError
from lib.metrics.features import Extractor, load_extractor
from lib.metrics.fid import MINIMUM, compare, frechet_distance, radial_power
from lib.metrics.perceptual import Perceptual, load_lpips, lpips_diversity, mean_lpips
from lib.training import step_count

# Values claimed in the source's table (slide "FID Score, LPIPS score 비교"). The source does not state the sample
# counts, the reference images, the image size, the LPIPS network or which images were paired.
REPORTED = {
    PYRAMID.label: {"reported_fid": 159.12, "reported_lpips": 0.4803},
    DCGAN.label: {"reported_fid": 112.07, "reported_lpips": 0.5063},
}
CANDIDATES = 10_000  # training images searched for the nearest one
CROSSED_PYRAMIDS, CROSSED_LATENTS = 32, 8  # grid for separating the effects of z and of the pyramid


def check(design: Any, size: int, batch_size: int) -> None:
    """Raise ValueError, before anything trains, if no generator has these levels or images do not fill a batch."""
    check_levels(design.levels, size)
    for name in ("sign_count", "few_count"):
        if 0 < getattr(design, name) < batch_size:
            raise ValueError(
                f"{name}={getattr(design, name)} images do not fill one batch of {batch_size}: raise it, or lower "
                "batch_size"
            )


class Protocol:
    """Measurement protocol: real images in disjoint parts, feature extractor and LPIPS.

    Attributes:
        count: images per part: the requested number, at most half of the smaller split.
        second: another extractor, to compare how the two rank the arms, or None.
        reference: features of held-out images that are not sources.
        train_reference: features of as many training images; a model that memorises is close to these only.
        sources: "training" and "held-out" -> uint8 (count, 3, h, w), the images that supply the pyramids.
        training: uint8 training images among which nearest neighbours are sought; the training sources come first.
        pairs: number of image pairs for each LPIPS value.
        queries: number of generated images whose nearest real image is sought, at most `count`.
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
        self.held_out = test.checksum  # identifies the held-out images

    @property
    def key(self) -> str:
        """Identifies everything that a training curve measured with this protocol depends on."""
        return f"{self.extractor.checksum} {self.held_out} {self.count} {self.seed}"

    @property
    def distance(self) -> str:
        """Caption text: extractor and sample counts of every Fréchet distance."""
        sets = f"{self.count:,} generated to {self.count:,} held-out images"
        return f"{self.extractor.distance} of {sets}, features: {self.extractor.name}"

    @property
    def description(self) -> str:
        """Caption text for results that include LPIPS."""
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
    """Load the networks by name and return a `Protocol`. extractor, second: "auto", "inception", "vgg16" or "domain";
    second may be "" (none). lpips_net: "alex", "vgg" or "squeeze".

    Raises:
        MetricError: a network is unknown, images are too few or too small, or there are fewer than two pairs.
    """
    perceptual = load_lpips(lpips_net, device=settings.device)
    lpips_diversity(perceptual, test.pixels[:2], pairs=min(options["pairs"], 2), seed=0)  # raises before any training
    how = {"device": settings.device, "precision": settings.precision}
    features, other = (load_extractor(kind, train, test, **how) if kind else None for kind in (extractor, second))
    return Protocol(train, test, features, perceptual, second=other, **options)


def distances(protocol: Protocol, pixels: Tensor) -> dict[str, Any]:
    """Return `compare` of uint8 images (n, 3, h, w) with held-out images, and fid_train with training images."""
    made = protocol.extractor(pixels).cpu()
    row = compare(made, protocol.reference, seed=protocol.seed) | {"extractor": protocol.extractor.name}
    row["fid_train"] = frechet_distance(made, protocol.train_reference)
    if protocol.second is not None:
        row["fid_second"] = frechet_distance(protocol.second(pixels).cpu(), protocol.second_reference)
        row["second_extractor"] = protocol.second.name
    return row


def curve_score(trained: Trained, *, protocol: Protocol) -> dict[str, float]:
    """Return the Fréchet distance for training curves, with held-out pyramids for arms that need sources."""
    pixels = trained.sample(protocol.count, protocol.sources["held-out"], seed=protocol.seed)
    return {"fid": frechet_distance(protocol.extractor(pixels), protocol.reference)}


def evaluate(trained: Mapping[str, Trained], protocol: Protocol, *, seed: int, copies: bool = True) -> pd.DataFrame:
    """Return one row per arm, or two for arms conditioned on images: with training and with held-out sources.

    copies: whether to add retrieval, source correlation, copy index and variance shares.
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
    """Return reference rows: held-out images, which are not copies, and perfect copies of the sources.

    The copy index of held-out images with respect to training images is its chance level.
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
    first = result.arm.images - 1  # earlier rows take a band from other sources in the second, shorter draw
    some = slice(max(protocol.pairs, first + 1))
    made, asked = pixels[some], sources[some]
    to_each = (mean_lpips(protocol.perceptual, made, sources.roll(number, 0)[some]) for number in range(first + 1))
    row["lpips_to_source"] = min(to_each)  # of the source copied most
    again = result.sample(len(asked), asked, seed=protocol.seed + 1)
    row["lpips_same_pyramid"] = mean_lpips(protocol.perceptual, made[first:], again[first:])
    return row


def _copies(protocol: Protocol, pixels: Tensor, split: str, images: int = 1) -> dict[str, float]:
    """Return the copying measures; for images with several sources, each is the largest in magnitude over them.

    Images without sources are compared with as many training images as others have candidate sources, since the copy
    index falls with the number of candidates.
    chance_correlation: correlation with a real image that is not a source.
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
    # All pyramids for one z, then for the next, so that bands of several images are combined alike for every z.
    made = result.sample_from(z.repeat_interleave(len(pyramids), dim=0), pyramids.repeat(len(z), 1, 1, 1), seed=seed)
    shares = copying.variance_shares(made.view(len(z), len(pyramids), *made.shape[1:]).transpose(0, 1))
    return {f"share_{name}": value for name, value in shares.items()}


def spectra(trained: Mapping[str, Trained], protocol: Protocol, *, seed: int) -> pd.DataFrame:
    """Return radial power spectra of real and generated images: arm, seed, frequency (cycles per pixel), power."""
    sets = {"real images": protocol.real_spectrum}
    for label, result in trained.items():
        sets[label] = radial_power(result.sample(protocol.count, protocol.sources["held-out"], seed=seed))
    frames = (
        pd.DataFrame({"arm": label, "seed": seed, "frequency": frequencies, "power": power})
        for label, (frequencies, power) in sets.items()
    )
    return pd.concat(frames, ignore_index=True)


def histories(trained: Mapping[str, Trained], *, seed: int) -> pd.DataFrame:
    """Return the training curves of several arms: arm, seed, epoch, images, d_loss, g_loss, d_real, d_fake, fid."""
    frames = (result.history.assign(arm=label, seed=seed) for label, result in trained.items())
    return pd.concat(frames, ignore_index=True)


def signs(
    train: Images, protocol: Protocol, settings: Settings, design: Any, *, seed: int, checkpoints: Path
) -> tuple[pd.DataFrame, str]:
    """Return correlations with held-out sources and with other images over training, and a note on the measurement.

    Each of `arms.sign_arms` is trained `design.sign_seeds` times, with seeds that runs with another `seed` do not use.
    Columns: arm, seed, training (the seed of one training), images, source_correlation, chance_correlation; one row
    before training and one after each epoch.
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
    found = [
        result.history.assign(arm=arm.label, seed=seed, training=one)
        for result, (arm, one) in zip(trained, runs, strict=True)
    ]
    note = f"{len(train):,} training images, {settings.epochs} epochs, width {settings.width}"
    columns = ["arm", "seed", "training", "images", "source_correlation", "chance_correlation"]
    return pd.concat(found, ignore_index=True)[columns], f"{note}; {len(sources):,} held-out sources"


def _sign(trained: Trained, *, sources: Tensor) -> dict[str, float]:
    pixels = trained.sample(len(sources), sources, seed=0)
    pairs = {"source_correlation": sources, "chance_correlation": sources.roll(1, 0)}
    return {name: copying.source_correlation(pixels, those) for name, those in pairs.items()}


def on_few(
    train: Images, protocol: Protocol, settings: Settings, count: int, *, seed: int, checkpoints: Path
) -> tuple[pd.DataFrame, str]:
    """Return tab17, arms trained on the first `count` images for as many steps as on all, and a note on the budget."""
    few = train.subset(slice(count))
    each = step_count(len(few), replace(settings, epochs=1))
    settings = replace(settings, epochs=round(step_count(len(train), settings) / each))
    trained = train_arms(augmentation_arms(), few, settings, seed=seed, checkpoints=checkpoints)
    note = f"{len(few):,} training images, epochs: {settings.epochs}, width {settings.width}; {protocol.description}"
    return evaluate(trained, protocol, seed=seed, copies=False), note


def compare_on(
    train: Images, protocol: Protocol, settings: Settings, levels: Sequence[int], *, seed: int, checkpoints: Path
) -> dict[str, Trained]:
    """Train the source's comparison on one data set: DCGAN, pyramid GAN and its null control, with training curves."""
    score = {"score": partial(curve_score, protocol=protocol), "score_key": protocol.key}
    return train_arms(control_arms(levels)[:3], train, settings, seed=seed, checkpoints=checkpoints, **score)


def load_others(names: Sequence[str], *, size: int, seed: int) -> dict[str, tuple[Images, Images]]:
    """Load training and test images of further data sets by name; DataError if a data set has too few."""
    others = {
        name: tuple(load_images(name, split, size=size, seed=seed) for split in ("train", "test")) for name in names
    }
    for images in (images for pair in others.values() for images in pair):
        needs.check("01_laplacian_gan", images)
    return others


def repeated(
    others: Mapping[str, tuple[Images, Images]], settings: Settings, levels: Sequence[int],
    measured: Mapping[str, Any], *, seed: int, checkpoints: Path,
) -> list[tuple[pd.DataFrame, str]]:  # fmt: skip
    """Run the comparison on each of `others`; return rows of tab11 and a note for each.

    measured: options of `load_protocol`.
    """
    found = []
    for name, (train, test) in others.items():
        protocol = load_protocol(train, test, settings, **measured)
        trained = compare_on(train, protocol, settings, levels, seed=seed, checkpoints=checkpoints / name)
        found.append((headline(trained, protocol, train.name, seed=seed), f"{train.name}: {protocol.description}"))
    return found


def headline(trained: dict[str, Trained], protocol: Protocol, dataset: str, *, seed: int) -> pd.DataFrame:
    """Return tab11: the source's table with measures that it omits, and the reported values next to ours."""
    rows = evaluate(trained, protocol, seed=seed)
    reported = pd.DataFrame([REPORTED.get(arm, {}) for arm in rows.arm], columns=["reported_fid", "reported_lpips"])
    rows.insert(0, "dataset", dataset)
    return pd.concat([rows, reported], axis=1)
