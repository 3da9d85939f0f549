"""Arms (model variants, one row of a table each): what is learned, and with which loss."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from lib.categorical.losses import SIMILARITIES

PUBLISHED = ("imsvd", "carp", "scan")
CODE_LOSSES = ("categorical", *PUBLISHED)
# Each arm with a momentum encoder takes the temperature of the arm without one whose loss is most similar: in runs as
# short as those of the tuning, a momentum encoder still consists largely of its random initial weights.
TWINS = {"categorical, queue": "categorical", "MoCo": "NT-Xent", "CARP form": "SCAN form"}


@dataclass(frozen=True)
class Arm:
    """One method of learning without labels; all arms share encoder, augmentation, batches and schedule.

    loss: "categorical", the loss of this study; "nt_xent" (SimCLR) and "moco" on embeddings; "imsvd", "carp" and
        "scan", published losses on codes.
    positions, categories: L and K of the codes.
    code: kind of `losses.discretise`: "soft", "straight_through" or "gumbel"; code_temperature is its temperature,
        which `experiments.tune` selects.
    similarity, temperature: arguments of `losses.categorical_info_nce`; NT-Xent and MoCo use temperature as well.
    entropy: weight of `losses.position_entropy`.
    queue: number of earlier keys, for "categorical" and "moco"; 0: negatives come from the batch alone.
    momentum: in [0, 1), of the momentum encoder, which computes the keys if there is a queue or the loss is "carp".
    dimensions: size of an embedding.
    """

    label: str
    loss: str = "categorical"
    positions: int = 16
    categories: int = 10
    code: str = "soft"
    code_temperature: float = 0.3
    similarity: str = "agreement"
    temperature: float = 0.1
    entropy: float = 0.2
    queue: int = 0
    momentum: float = 0.99
    dimensions: int = 128

    def __post_init__(self):
        if self.loss == "moco" and not self.queue:
            raise ValueError(f"{self.label}: MoCo takes its negatives from a queue: set, for example, queue=4096")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"{self.label}: momentum must be in [0, 1), not {self.momentum}")

    @property
    def makes_codes(self) -> bool:
        return self.loss in CODE_LOSSES

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the head's output for one image."""
        return (self.positions, self.categories) if self.makes_codes else (self.dimensions,)


def main_arms(positions: int, categories: int, queue: int, momentum: float = 0.99) -> list[Arm]:
    """Return the study's arm with negatives from the batch and from a queue, and its two counterparts on embeddings."""
    slow = {"queue": queue, "momentum": momentum}
    codes = {"positions": positions, "categories": categories}
    return [
        Arm("categorical", **codes),
        Arm("categorical, queue", **codes, **slow),
        Arm("NT-Xent", "nt_xent", temperature=0.5),
        Arm("MoCo", "moco", **slow),
    ]


def published_arms(positions: int, categories: int, momentum: float = 0.99) -> list[Arm]:
    """Return arms with the closest published losses on codes, which have no code temperature: it is 1 unless tuned."""
    codes = {"positions": positions, "categories": categories, "entropy": 0.0}
    return [
        Arm("IMSVD form", "imsvd", **codes, code_temperature=1.0),
        Arm("CARP form", "carp", **codes, code_temperature=1.0, momentum=momentum),
        Arm("SCAN form", "scan", **codes, code_temperature=1.0),
    ]


def ablation_arms(base: Arm) -> list[Arm]:
    """Return the study's arm and variants with one change each; `experiments.tune` compares code temperatures."""
    others = [replace(base, label=f"similarity: {name}", similarity=name) for name in list(SIMILARITIES)[1:]]
    codes = [replace(base, label=f"code: {name}", code=name) for name in ("straight_through", "gumbel")]
    return [
        base,
        *others,
        *codes,
        replace(base, label="no entropy term", entropy=0.0),
        replace(base, label="entropy term × 5", entropy=5 * base.entropy),
    ]


def size_arms(base: Arm, positions: Sequence[int], categories: Sequence[int]) -> list[Arm]:
    """Return the study's arm over a grid of L and K."""
    return [
        replace(base, label=f"L = {length}, K = {k}", positions=length, categories=k)
        for k in categories
        for length in positions
    ]
