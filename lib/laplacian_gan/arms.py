"""Arms (model variants) of the experiments: network, conditioning and loss."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

# The four pyramid levels of the source's generator. At 32 px they are the whole pyramid; the finest
# bands of larger images are not given to the generator.
LEVELS = (4, 8, 16, 32)
NO_SOURCE = "none"  # in column `sources` of tables, for arms without sources


@dataclass(frozen=True)
class Arm:
    """One model. The defaults are the source's DCGAN: AdamW, lr 2e-4, betas (0.1, 0.999), weight decay 2e-5.

    Attributes:
        label: name in figures and tables.
        kind: "gan", "lapgan" (a chain that samples without any image) or "decoder" (the generator
            trained to reconstruct its own source by mean squared error, without a discriminator).
        levels: resolutions at which the generator receives pyramid bands; empty: plain DCGAN.
        condition: content of the band channels. "own": bands of real images; null controls with as
            many parameters: "zeros" and "noise" (white, with the variance of the band).
        images: number of images the bands are taken from; adjacent levels share one. 1: all bands from
            one image; as many as levels: every band from a different image.
        level_noise: standard deviation of noise added to the bands, which have unit variance.
        sees_levels: whether the discriminator receives the same bands.
        loss: a key of `losses.LOSSES`.
        norm: normalisation in the discriminator: "batch", "spectral" or "none"; "batch" does not go with a gradient
            penalty, which needs each logit to depend on its own image only.
        penalty: weight of the loss's gradient penalty, if it has one; only for kind "gan".
        penalty_every: steps from one gradient penalty to the next (lazy regularisation, Karras et al. 2020).
        critic_steps: discriminator updates per update of the generator, which skips the steps in between; not for kind
            "decoder", which has no discriminator.
        augmentation: a key of `augment.AUGMENTATIONS`, applied to both real and generated images; only for
            kind "gan" without `sees_levels`, as the bands would not match an augmented image.
    """

    label: str
    kind: str = "gan"
    levels: tuple[int, ...] = ()
    condition: str = "own"
    images: int = 1
    level_noise: float = 0.0
    sees_levels: bool = False
    loss: str = "non-saturating"
    norm: str = "batch"
    penalty: float = 0.0
    penalty_every: int = 1
    critic_steps: int = 1
    augmentation: str = "none"
    learning_rate: float = 2e-4
    beta1: float = 0.1
    weight_decay: float = 2e-5

    def __post_init__(self):
        if self.penalty and self.norm == "batch":
            raise ValueError(f"{self.label}: gradient penalties do not go with norm='batch'; set 'spectral' or 'none'")
        if self.sees_levels and self.augmentation != "none":
            raise ValueError(f"{self.label}: bands do not match augmented images; set sees_levels=False")

    @property
    def needs_source(self) -> bool:
        """Whether sampling needs source images."""
        return bool(self.levels) and self.condition == "own"


DCGAN = Arm("DCGAN")
PYRAMID = Arm("pyramid GAN", levels=LEVELS)


def control_arms(levels: Sequence[int] = LEVELS) -> list[Arm]:
    """Return DCGAN, the pyramid GAN, its null controls, a variant whose D sees the pyramid, a decoder and LAPGAN."""
    pyramid = replace(PYRAMID, levels=tuple(levels))
    return [
        DCGAN,
        pyramid,
        replace(pyramid, label="null: zeros", condition="zeros"),
        replace(pyramid, label="null: band noise", condition="noise"),
        replace(pyramid, label="pyramid GAN, D sees it", sees_levels=True),
        replace(pyramid, label="L2 decoder", kind="decoder"),
        Arm("LAPGAN chain", kind="lapgan"),
    ]


def mixture_arms(levels: Sequence[int] = LEVELS) -> list[Arm]:
    """Return pyramid GANs conditioned on bands of two images, and of as many images as there are levels."""
    counts = sorted({min(2, len(levels)), len(levels)} - {1})
    return [replace(PYRAMID, label=f"bands of {n} images", levels=tuple(levels), images=n) for n in counts]


def level_arms(levels: Sequence[int] = LEVELS) -> list[Arm]:
    """Return pyramid GANs with a single level each, and with all levels but one."""
    only = [replace(PYRAMID, label=f"only {level} px", levels=(level,)) for level in levels]
    if len(levels) < 3:  # leaving out one of two levels is the same as keeping the other
        return only
    return only + [
        replace(PYRAMID, label=f"without {level} px", levels=tuple(r for r in levels if r != level)) for level in levels
    ]


def noise_arms(strengths: Sequence[float], levels: Sequence[int] = LEVELS) -> list[Arm]:
    """Return pyramid GANs with noise added to the bands: the stronger the noise, the less they reveal of the source."""
    return [
        replace(PYRAMID, label=f"pyramid + noise {s:g}", levels=tuple(levels), level_noise=float(s)) for s in strengths
    ]


def sign_arms(levels: Sequence[int] = LEVELS) -> list[Arm]:
    """Return the pyramid GAN with discriminators that see images, randomly negated images, or images and pyramids.

    They test what a discriminator needs to tell a copy of the source from its negative."""
    pyramid = replace(PYRAMID, levels=tuple(levels))
    return [
        pyramid,
        replace(pyramid, label="pyramid GAN, D sees negatives", augmentation="negatives"),
        replace(pyramid, label="pyramid GAN, D sees it", sees_levels=True),
    ]


def objective_arms() -> list[Arm]:
    """Return DCGAN and variants: the source's future work (stabilised losses, augmentation) and optimiser settings."""
    wasserstein = replace(DCGAN, label="Wasserstein, GP", loss="wasserstein-gp", norm="none", penalty=10.0)
    return [
        DCGAN,
        replace(DCGAN, label="hinge, spectral norm", loss="hinge", norm="spectral"),
        wasserstein,
        replace(DCGAN, label="relativistic, R1 + R2", loss="relativistic", norm="none", penalty=0.2, penalty_every=4),
        replace(DCGAN, label="DiffAugment", augmentation="diffaugment"),
        replace(DCGAN, label="pyramid augmentation", augmentation="pyramid"),
        replace(DCGAN, label="beta1 = 0", beta1=0.0),
        replace(DCGAN, label="beta1 = 0.5", beta1=0.5),
        replace(wasserstein, label="Wasserstein, GP, 5 critic steps", critic_steps=5),  # as published
    ]


def augmentation_arms() -> list[Arm]:
    """Return DCGAN without and with augmentation, which matters where training images are few (Zhao et al. 2020)."""
    return [arm for arm in objective_arms() if arm == DCGAN or arm.augmentation != "none"]
