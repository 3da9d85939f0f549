"""Arms: what is added to the cross-entropy in one curve of a figure, and how the network starts."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import Generator, Tensor, nn

from lib.corregularization import baselines
from lib.corregularization.losses import ResponsePenalty, mean_over_layers


@dataclass(frozen=True)
class Arm:
    """One curve of a figure: what is added to the cross-entropy, and how the network starts.

    penalty: "none", "gram", "weight_decay" (AdamW's) or a key of `PENALTIES` or `ON_LAYERS`; options go to it.
    strength: λ, the weight of the penalty (a mean over pairs and layers), or the decay.
    """

    label: str
    penalty: str = "none"
    strength: float = 0.0
    options: dict[str, Any] = field(default_factory=dict)
    orthogonal_init: bool = False


def gram(label: str, strength: float, **options: Any) -> Arm:
    """The study's own penalty as an arm: groups, grouping, power, margin as in `gram_penalty`."""
    return Arm(label, "gram", strength, options)


def grouping_arms(strength: float, groups: Iterable[int]) -> list[Arm]:
    """No penalty, the whole one, and grouped ones: fixed as in the source, and drawn anew at every step."""
    fixed = [gram(f"fixed g = {g}", strength, groups=g, grouping="contiguous") for g in groups]
    random = [gram(f"random g = {g}", strength, groups=g) for g in groups]
    return [Arm("plain"), gram("Gram", strength), *fixed, *random]


def regulariser_arms(strength: float, groups: int = 8) -> list[Arm]:
    """The penalty, variants of it and the published regularisers. groups: of the variant with random groups.

    The scales of these losses differ by orders of magnitude, hence the factors; they are rough and
    only the middle of the grid from which `experiments.tune_strengths` searches.
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


# By what each acts on: the length of filters, the angle between them, both at once.
LENGTH_AND_ANGLE = ("plain", "lengths", "Gram, p = 2", "inner products", "soft orthogonality")

# Penalties on one kernel matrix; the network's penalty is their mean over its convolutions.
PENALTIES: dict[str, Callable[..., Tensor]] = {
    "soft_orthogonality": baselines.soft_orthogonality,
    "lengths": baselines.lengths,
    "inner_products": baselines.inner_products,
    "srip": baselines.srip,
    "mma": baselines.mma,
}
# Other penalties, as functions of the layers. OCNN compares shifted filters, so it needs kernels with spatial axes.
ON_LAYERS: dict[str, Callable[..., Callable[[], Tensor]]] = {
    "responses": ResponsePenalty,
    "decov": partial(ResponsePenalty, penalty=baselines.decov),
    "ocnn": lambda layers, **options: partial(baselines.ocnn_over_layers, layers, **options),
}


def penalty_of(
    arm: Arm, layers: dict[str, nn.Module], generator: Generator | None = None
) -> Callable[[], Tensor] | None:
    """The arm's penalty on these layers as a function without arguments; None where the loss has none.

    generator: of the random groups of the Gram penalty on weights, and of SRIP; the global random state if None.
    """
    if arm.penalty in ("none", "weight_decay"):
        return None
    if arm.penalty == "gram":
        return partial(mean_over_layers, layers, generator=generator, **arm.options)
    if arm.penalty in ON_LAYERS:
        return ON_LAYERS[arm.penalty](layers, **arm.options)
    drawn = {"generator": generator} if arm.penalty == "srip" else {}
    return partial(mean_over_layers, layers, PENALTIES[arm.penalty], **arm.options, **drawn)
