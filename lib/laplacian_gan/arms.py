"""The arms of the experiments: which network, what it is conditioned on, and its loss."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

# The four levels of the source's generator. At 32 px they are the whole pyramid; larger images
# keep their finest bands to themselves.
LEVELS = (4, 8, 16, 32)
NO_SOURCE = "none"  # in tables: where sources come from


@dataclass(frozen=True)
class Arm:
    """One model. The defaults are the source's DCGAN: AdamW, lr 2e-4, betas (0.1, 0.999), weight decay 2e-5.

    Attributes:
        label: as figures and tables name it.
        kind: "gan", "lapgan" (a chain that needs no image to sample) or "decoder" (the generator
            trained to rebuild its own source by mean squared error, without a discriminator).
        levels: resolutions at which the generator is given the pyramid; empty: plain DCGAN.
        condition: what stands in those channels. "own": bands of real images; the null controls,
            with equal parameters: "zeros" and "noise" (white, with the variance of the band).
        images: number of images that the bands come from; neighbouring levels share one. 1: the pyramid
            of one image; as many as levels: every band from an image of its own.
        level_noise: standard deviation of noise added to the levels, which have unit variance.
        sees_levels: the discriminator is given the same levels.
        loss: a name of `losses.LOSSES`.
        norm: of the discriminator: "batch", "spectral" or "none". Not "batch" with a gradient penalty, which is of each
            image's own gradient.
        penalty: weight of the gradient penalty of the loss, if it has one; for kind "gan".
        penalty_every: steps between two gradient penalties (lazy regularisation, Karras et al. 2020).
        augmentation: a name of `augment.AUGMENTATIONS`, applied to real and generated images alike; for
            kind "gan", and not with `sees_levels`, as an augmented image no longer has the pyramid that is seen.
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
    augmentation: str = "none"
    learning_rate: float = 2e-4
    beta1: float = 0.1
    weight_decay: float = 2e-5

    @property
    def needs_source(self) -> bool:
        """Whether sampling looks at an image."""
        return bool(self.levels) and self.condition == "own"


DCGAN = Arm("DCGAN")
PYRAMID = Arm("pyramid GAN", levels=LEVELS)


def control_arms(levels: Sequence[int] = LEVELS) -> list[Arm]:
    """DCGAN, the pyramid GAN, its null controls, a decoder that only copies, and LAPGAN."""
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
    """The pyramid GAN conditioned on bands of two images, and of as many images as there are levels."""
    counts = sorted({min(2, len(levels)), len(levels)} - {1})
    return [replace(PYRAMID, label=f"bands of {n} images", levels=tuple(levels), images=n) for n in counts]


def level_arms(levels: Sequence[int] = LEVELS) -> list[Arm]:
    """Each level alone, and all but one."""
    only = [replace(PYRAMID, label=f"only {level} px", levels=(level,)) for level in levels]
    if len(levels) < 3:  # all but one is one alone
        return only
    return only + [
        replace(PYRAMID, label=f"without {level} px", levels=tuple(r for r in levels if r != level)) for level in levels
    ]


def noise_arms(strengths: Sequence[float], levels: Sequence[int] = LEVELS) -> list[Arm]:
    """The pyramid under noise: the more of it, the less the condition reveals."""
    return [
        replace(PYRAMID, label=f"pyramid + noise {s:g}", levels=tuple(levels), level_noise=float(s)) for s in strengths
    ]


def sign_arms(levels: Sequence[int] = LEVELS) -> list[Arm]:
    """The pyramid GAN under three discriminators: one that sees images, one that sees negatives of half of them, and
    one that sees the pyramid as well. Which of them tell a copy of the source from its negative?"""
    pyramid = replace(PYRAMID, levels=tuple(levels))
    return [
        pyramid,
        replace(pyramid, label="pyramid GAN, D sees negatives", augmentation="negatives"),
        replace(pyramid, label="pyramid GAN, D sees it", sees_levels=True),
    ]


def objective_arms() -> list[Arm]:
    """The source's future work on the plain DCGAN: stabilised losses, augmentation; and its optimiser's settings."""
    return [
        DCGAN,
        replace(DCGAN, label="hinge, spectral norm", loss="hinge", norm="spectral"),
        replace(DCGAN, label="Wasserstein, GP", loss="wasserstein-gp", norm="none", penalty=10.0),
        replace(DCGAN, label="relativistic, R1 + R2", loss="relativistic", norm="none", penalty=0.2, penalty_every=4),
        replace(DCGAN, label="DiffAugment", augmentation="diffaugment"),
        replace(DCGAN, label="pyramid augmentation", augmentation="pyramid"),
        replace(DCGAN, label="beta1 = 0", beta1=0.0),
        replace(DCGAN, label="beta1 = 0.5", beta1=0.5),
        replace(DCGAN, label="no weight decay", weight_decay=0.0),
    ]
