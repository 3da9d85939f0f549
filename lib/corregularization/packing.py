"""Packing: how far apart can n unit vectors in d dimensions be pushed, and by which penalty?

Without a network the answer is known: RMS |cosine| cannot fall below the Welch bound
√((n-d)/(d(n-1))), and attains it exactly for tight frames, some of which contain a vector twice.

Why squared cosines with random groups end at such frames: in a tight frame the gradients t_ij = c_ij (u_j - c_ij u_i)
of filter i's pairs sum to zero, but a random group contains only some of them, which leaves noise with a variance
proportional to the mean of |t_ij|² = c_ij² - c_ij⁴. All tight frames have the same mean of c², so the noise is smallest
where the mean of c⁴ (which p = 4 minimises) is largest: it vanishes at copies of orthonormal bases. Noisy descent
drifts along its minimisers to where the noise is smaller (Li, Wang & Arora 2022, What happens after SGD reaches zero
loss?). The grouping "noise" is the control: noise of the same magnitude in random directions.
"""

from collections.abc import Iterable
from functools import partial
from typing import Any, Literal

import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import normalize

from lib.corregularization.analysis import coherence, pair_cosines
from lib.corregularization.losses import gram_penalty, welch_bound
from lib.forking import side_by_side

Grouping = Literal["whole", "fixed", "random", "noise"]
GROUPS = 4  # of equal size, in all comparisons
LOSSES: dict[str, dict[str, Any]] = {"p = 2": {}, "p = 4": {"power": 4}, "hinge above Welch": {"margin": "welch"}}


def pack(
    n: int,
    d: int,
    grouping: Grouping = "whole",
    *,
    groups: int = GROUPS,
    steps: int = 1500,
    starts: int = 1,
    learning_rate: float = 0.05,
    seed: int = 0,
    **loss: Any,
) -> Tensor:
    """Minimise `gram_penalty(…, **loss)` of n vectors in d dimensions with Adam, from `starts` random starts.

    grouping: "whole", or `groups` groups of equal size, "fixed" or "random" (drawn anew at every step and start).
        "noise" is the whole loss with noise added to each filter's gradient: as large as that of random groups, but in
        a random tangential direction.
    steps: for the whole loss; (n-1)/(n/groups-1) times as many for the others, so that groups cover as many pairs.

    The learning rate follows a cosine to zero: random groups are noisy wherever a group cannot be orthogonal, and
    settle only if the rate vanishes. Returns (starts, n, d) float32, not of unit length.
    """
    if n % groups or n == groups:
        raise ValueError(f"{n} vectors do not form {groups} equal groups with pairs; choose a multiple of {groups}")
    draw = torch.Generator().manual_seed(seed)
    vectors = normalize(torch.randn(starts, n, d, generator=draw), dim=2).flatten(0, 1).requires_grad_()
    if loss.get("margin") == "welch":  # the bound of one start, not of all starts together
        loss = {**loss, "margin": welch_bound(n, d)}
    if grouping != "whole":
        steps = round(steps * (n - 1) / (n / groups - 1))
    optimizer = torch.optim.Adam([vectors], learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, steps))

    def gradient(pieces: int, *, mixed: bool = False) -> Tensor:
        """Return the gradient for all starts at once; they are separate groups of the loss and never compared.
        It is summed, not averaged, over starts and filters, to keep it far above Adam's ε."""
        order = slice(None)
        if mixed:
            order = torch.rand(starts, n, generator=draw).argsort(1) + n * torch.arange(starts)[:, None]
            order = order.flatten()
        value = gram_penalty(vectors[order], groups=pieces, grouping="contiguous", **loss)
        return torch.autograd.grad(starts * n * value, vectors)[0]

    for _ in range(steps):
        if grouping == "noise":
            whole, part = gradient(starts), gradient(starts * groups, mixed=True)
            unit = normalize(vectors.detach())
            noise = torch.randn(unit.shape, generator=draw)
            noise = normalize(noise - (noise * unit).sum(1, keepdim=True) * unit)
            vectors.grad = whole + noise * (part - whole).norm(dim=1, keepdim=True)
        else:
            vectors.grad = gradient(starts * (1 if grouping == "whole" else groups), mixed=grouping == "random")
        optimizer.step()
        schedule.step()
    return vectors.detach().view(starts, n, d)


def packing_table(
    ratios: Iterable[float], d: int = 32, steps: int = 1500, starts: int = 10, *, groups: int = GROUPS, seed: int = 0
) -> pd.DataFrame:
    """Return the similarity after each loss and grouping at n = ratio·d, one row per (ratio, loss, groups, start).

    noise: mean of c² - c⁴ over pairs, to which the variance of random groups' gradients is proportional. The control
    "noise" is run for p = 2 only.
    """
    measure = partial(_at, d=d, steps=steps, starts=starts, groups=groups, seed=seed)
    return pd.concat(side_by_side([partial(measure, round(ratio * d)) for ratio in ratios]), ignore_index=True)


def _at(n: int, *, d: int, steps: int, starts: int, groups: int, seed: int) -> pd.DataFrame:
    arms = [("random start", "whole", {}, 0)] + [
        (name, grouping, loss, steps)
        for name, loss in LOSSES.items()
        for grouping in ("whole", "fixed", "random", *(["noise"] if name == "p = 2" else []))
    ]
    rows = []
    for name, grouping, loss, count in arms:
        packed = pack(n, d, grouping, groups=groups, steps=count, starts=starts, seed=seed, **loss)
        for start, vectors in enumerate(packed):
            found, square = coherence(vectors), pair_cosines(vectors).square()
            row = {"loss": name, "groups": grouping, "ratio": n / d, "n": n, "d": d, "start": start}
            row |= {key: found[key] for key in ("rms", "max", "welch")}
            rows.append(row | {"noise": (square - square.square()).mean().item()})
    return pd.DataFrame(rows)


def at_ratio(table: pd.DataFrame, ratio: float = 2.0) -> pd.DataFrame:
    """Summarise `packing_table` over starts (and seeds) at the n/d nearest to `ratio`: means, and extremes of max."""
    near = table[(table.ratio - ratio).abs() == (table.ratio - ratio).abs().min()]
    by = near.groupby(["loss", "groups", "ratio", "welch"], sort=False)
    return by.agg(
        starts=("max", "size"), rms=("rms", "mean"), largest=("max", "mean"), lowest=("max", "min"),
        highest=("max", "max"), noise=("noise", "mean"),
    ).reset_index()  # fmt: skip
