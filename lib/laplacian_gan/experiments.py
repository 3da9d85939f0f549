"""What the notebook does with data and trained arms: set up the protocol, and put results into tables."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from lib.laplacian_gan.arms import DCGAN, PYRAMID, control_arms
from lib.laplacian_gan.evaluation import Protocol, curve_score, evaluate, protocol_of
from lib.laplacian_gan.training import Settings, Trained, train_arms
from lib.metrics.features import load_extractor
from lib.metrics.perceptual import load_lpips

if TYPE_CHECKING:
    from lib.data.images import Images

# The source's table (slide "FID Score, LPIPS score 비교"): claims to compare with. It names neither sample
# counts nor the reference images, the size, the LPIPS network or what was paired.
REPORTED = {
    PYRAMID.label: {"reported_fid": 159.12, "reported_lpips": 0.4803},
    DCGAN.label: {"reported_fid": 112.07, "reported_lpips": 0.5063},
}


def load_protocol(
    train: "Images",
    test: "Images",
    settings: Settings,
    *,
    extractor: str = "auto",
    lpips_net: str = "alex",
    count: int,
    pairs: int,
    seed: int,
) -> Protocol:
    """The protocol of a data set. extractor: "auto", "inception" or "domain"; lpips_net: "alex", "vgg", "squeeze"."""
    features = load_extractor(extractor, train, test, device=settings.device, precision=settings.precision)
    perceptual = load_lpips(lpips_net, device=settings.device)
    return protocol_of(train, test, features, perceptual, count=count, pairs=pairs, seed=seed)


def compare_on(
    train: "Images", protocol: Protocol, settings: Settings, levels: Sequence[int], *, seed: int, checkpoints: Path
) -> dict[str, Trained]:
    """The source's comparison on one data set: DCGAN, pyramid GAN and its null control, with their training curves."""
    return train_arms(
        control_arms(levels)[:3],
        train,
        settings,
        seed=seed,
        score=curve_score(protocol),
        score_key=protocol.key,
        checkpoints=checkpoints,
    )


def headline(trained: dict[str, Trained], protocol: Protocol, dataset: str, *, seed: int) -> pd.DataFrame:
    """tab11: the source's table with what it left out, and the source's values beside ours."""
    rows = evaluate(trained, protocol, seed=seed)
    reported = pd.DataFrame([REPORTED.get(arm, {}) for arm in rows.arm], columns=["reported_fid", "reported_lpips"])
    rows.insert(0, "dataset", dataset)
    return pd.concat([rows, reported], axis=1)
