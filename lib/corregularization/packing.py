"""Packing: how far apart can n unit vectors in d dimensions be pushed, and by which penalty?

The network is left out, so the answer is known: RMS |cosine| cannot fall below the Welch
bound √((n-d)/(d(n-1))), and reaches it exactly for tight frames.
"""

from collections.abc import Callable
from functools import partial

import pandas as pd
import torch
from torch import Tensor

from lib.corregularization import baselines
from lib.corregularization.analysis import coherence
from lib.corregularization.losses import gram_penalty

Penalty = Callable[[Tensor], Tensor]


def variants(groups: int = 4) -> dict[str, Penalty]:
    """What is compared, by its name in the figure."""
    gram = partial(partial, gram_penalty)
    return {
        "squared": gram(),
        "absolute": gram(power=1),
        "p = 4": gram(power=4),
        "hinge above Welch": gram(margin="welch"),
        f"squared, fixed g = {groups}": gram(groups=groups, grouping="contiguous"),
        f"squared, random g = {groups}": gram(groups=groups),
        f"p = 4, random g = {groups}": gram(groups=groups, power=4),
        "MMA (signed)": baselines.mma,
        "MHE": baselines.mhe,
        "soft orthogonality": baselines.soft_orthogonality,
    }


def pack(penalty: Penalty, n: int, d: int, *, steps: int = 1500, learning_rate: float = 0.05, seed: int = 0) -> Tensor:
    """n vectors in d dimensions from a random start, after `steps` of Adam on `penalty`; (n, d) float32.

    The rate falls to zero along a cosine: random regrouping is noisy wherever groups cannot
    all be orthogonal, and only a vanishing rate lets it settle.
    """
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.nn.functional.normalize(torch.randn(n, d, generator=generator)).requires_grad_()
    torch.manual_seed(seed + 1)  # regrouping draws from the global state
    optimizer = torch.optim.Adam([vectors], learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        optimizer.zero_grad(set_to_none=True)
        penalty(vectors).backward()
        optimizer.step()
        schedule.step()
    return vectors.detach()


def packing_table(
    ratios: list[float], d: int = 27, steps: int = 1500, starts: int = 3, *, groups: int = 4, seed: int = 0
) -> pd.DataFrame:
    """Coherence of every variant at n = ratio·d, one row per (variant, ratio, start)."""
    rows = []
    for ratio in ratios:
        n = round(ratio * d)
        if n <= groups:
            raise ValueError(f"n = {n} vectors (ratio {ratio} at d = {d}) cannot form {groups} groups with pairs")
        for name, penalty in {"random start": None, **variants(groups)}.items():
            for start in range(starts):
                number = 1000 * seed + start
                found = coherence(pack(penalty, n, d, steps=steps if penalty else 0, seed=number))
                rows.append(
                    {"variant": name, "ratio": n / d, "n": n, "d": d, "start": start}
                    | {key: getattr(found, key) for key in ("rms", "mean", "max", "welch", "effective_rank")}
                )
    return pd.DataFrame(rows)
