"""Arms of the experiments: the penalty added to the cross-entropy, and the initialisation of the network."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import Generator, Tensor, nn

from lib.corregularization import baselines
from lib.corregularization.losses import ResponsePenalty, mean_over_layers


@dataclass(frozen=True)
class Arm:
    """One curve of a figure: the penalty added to the cross-entropy, and the initialisation of the network.

    penalty: "none", "gram", "weight_decay" (AdamW's; like all penalties, on the filters alone) or a key of `PENALTIES`
        or `ON_LAYERS`; options are passed to it.
    strength: λ, the weight of the penalty (a mean over layers), or the weight decay.
    """

    label: str
    penalty: str = "none"
    strength: float = 0.0
    options: dict[str, Any] = field(default_factory=dict)
    orthogonal_init: bool = False


def gram(label: str, strength: float, **options: Any) -> Arm:
    """Return an arm with the study's own penalty; options (groups, grouping, power, margin) as in `gram_penalty`."""
    return Arm(label, "gram", strength, options)


def grouping_arms(strength: float, groups: Iterable[int]) -> list[Arm]:
    """Return arms without penalty, with it on all pairs, and in groups: fixed (as in the source) or new each step."""
    fixed = [gram(f"fixed g = {g}", strength, groups=g, grouping="contiguous") for g in groups]
    random = [gram(f"random g = {g}", strength, groups=g) for g in groups]
    return [Arm("plain"), gram("Gram", strength), *fixed, *random]


def regulariser_arms(strength: float, groups: int = 8) -> list[Arm]:
    """Return arms for the penalty, its variants and the published regularisers.

    groups: number of groups in the variant with random groups. The factors compensate for losses whose scales differ
    by orders of magnitude; they are rough, as they only centre the grid searched by `experiments.tune_strengths`.
    """
    return [
        gram("Gram, p = 2", strength),
        gram("Gram, p = 4", strength, power=4),
        gram(f"Gram, hinge, random g = {groups}", strength, groups=groups, margin="welch"),
        Arm("Gram on responses", "responses", 0.1 * strength),
        Arm("soft orthogonality", "soft_orthogonality", strength),
        Arm("lengths", "lengths", 0.1 * strength),
        Arm("inner products", "inner_products", 10 * strength),
        Arm("SRIP", "srip", 0.01 * strength),
        Arm("MMA", "mma", 0.01 * strength),
        Arm("OCNN", "ocnn", strength),
        Arm("DeCov", "decov", 0.1 * strength),
        Arm("weight decay", "weight_decay", 0.05),
    ]


# Arms by what they act on: nothing, filter length, the angle between filters, and (the last two) both.
LENGTH_AND_ANGLE = ("plain", "lengths", "Gram, p = 2", "inner products", "soft orthogonality")

# Penalties on one kernel matrix; the penalty of a network is the mean over its convolutions.
PENALTIES: dict[str, Callable[..., Tensor]] = {
    "soft_orthogonality": baselines.soft_orthogonality,
    "lengths": baselines.lengths,
    "inner_products": baselines.inner_products,
    "srip": baselines.srip,
    "mma": baselines.mma,
}
# Penalties that need the layers. OCNN compares shifted filters, so it needs kernels with spatial axes.
ON_LAYERS: dict[str, Callable[..., Callable[[], Tensor]]] = {
    "responses": ResponsePenalty,
    "decov": partial(ResponsePenalty, penalty=baselines.decov),
    "ocnn": lambda layers, **options: partial(baselines.ocnn_over_layers, layers, **options),
}


def penalty_of(
    arm: Arm, layers: dict[str, nn.Module], generator: Generator | None = None
) -> Callable[[], Tensor] | None:
    """Return the arm's penalty on these layers as a function without arguments, or None if it adds none to the loss.

    generator: for SRIP and the random groups of the Gram penalty on weights; the global random state if None.
    """
    if arm.penalty in ("none", "weight_decay"):
        return None
    if arm.penalty == "gram":
        return partial(mean_over_layers, layers, generator=generator, **arm.options)
    if arm.penalty in ON_LAYERS:
        return ON_LAYERS[arm.penalty](layers, **arm.options)
    drawn = {"generator": generator} if arm.penalty == "srip" else {}
    return partial(mean_over_layers, layers, PENALTIES[arm.penalty], **arm.options, **drawn)
