"""Time the study's loss against lightly's NT-Xent and against a logarithm at every position, with gradients.

All losses take the same soft codes: 256 images, two views, 64 positions of 16 categories, so 1,024 numbers each;
lightly takes them flattened, as embeddings. Queues hold 4,096 codes. On one-hot codes the mean agreement equals the
cosine, so our loss and lightly's must be equal there. The logarithm at every position is timed in two forms: all pairs
and positions in one tensor, as it is usually written, and position by position, as in our own option. Finally, the
whole training step with our loss is timed against the same step with NT-Xent.
"""

from collections.abc import Callable

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from lib.categorical.arms import Arm
from lib.categorical.cost import measured_cost
from lib.categorical.losses import SMALLEST, categorical_info_nce, harden
from lib.categorical.training import Settings
from lib.timing import interleave, ratio

BATCH, POSITIONS, CATEGORIES, QUEUE = 256, 64, 16, 4096
TEMPERATURE = 0.1

IN_BATCH, NT_XENT = "agreement, in batch", "lightly NTXentLoss, in batch"
QUEUED, LOGARITHMS = "agreement, queue", "log agreement, queue"
AT_ONCE = "log agreement, queue, all at once"
STEP, STEP_NT_XENT = "training step, agreement", "training step, NT-Xent"
REFERENCE = {IN_BATCH: NT_XENT, NT_XENT: NT_XENT, QUEUED: AT_ONCE, LOGARITHMS: AT_ONCE, AT_ONCE: AT_ONCE}

SHARE = 0.7  # of lightly's time, at most
QUEUE_SHARE = 1 / 20  # of the time with a logarithm at every position, as usually written, at most
STEP_SHARE = 1.05  # of the step with NT-Xent, at most
DIFFERENCE = 1e-5  # relative, on one-hot codes, at most

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]  # p and q (B, L, K), queue (Q, L, K) -> scalar


def codes(count: int, seed: int) -> Tensor:
    """Return codes (count, L, K), about as confident as a trained encoder's: largest probability 0.6 on average."""
    logits = torch.randn(count, POSITIONS, CATEGORIES, generator=torch.Generator().manual_seed(seed))
    return (3 * logits).softmax(-1)


def losses() -> dict[str, Loss]:
    try:
        from lightly.loss import NTXentLoss
    except ModuleNotFoundError as error:
        message = (
            "this benchmark compares with lightly, which is missing: install the bench extra, pip install -e .[bench]"
        )
        raise ModuleNotFoundError(message) from error
    nt_xent = NTXentLoss(temperature=TEMPERATURE)

    def ours(p: Tensor, q: Tensor, queue: Tensor | None, similarity: str = "agreement") -> Tensor:
        return categorical_info_nce(p, q, queue, temperature=TEMPERATURE, similarity=similarity)

    def at_once(p: Tensor, q: Tensor, queue: Tensor) -> Tensor:
        keys = torch.cat([q.detach(), queue])
        logits = torch.einsum("blk,nlk->bnl", p, keys).clamp_min(SMALLEST).log().mean(-1) / TEMPERATURE
        return F.cross_entropy(logits, torch.arange(len(p), device=p.device))

    return {
        IN_BATCH: lambda p, q, queue: ours(p, q, None),
        NT_XENT: lambda p, q, queue: nt_xent(p.flatten(1), q.flatten(1)),
        QUEUED: ours,
        LOGARITHMS: lambda p, q, queue: ours(p, q, queue, "log_agreement"),
        AT_ONCE: at_once,
    }


def with_gradients(loss: Loss, p: Tensor, q: Tensor, queue: Tensor) -> None:
    """Compute a loss and its gradients with respect to both views; with a queue, q may have none."""
    torch.autograd.grad(loss(p, q, queue), (p, q), allow_unused=True)


def measure(rounds: int = 12) -> pd.DataFrame:
    """Return loss, batch, dimensions, queue, rounds, median milliseconds, relative (to its reference), one_hot (value).

    Raises:
        ModuleNotFoundError: lightly is not installed.
    """
    functions = losses()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    p, q = (codes(BATCH, seed).to(device).requires_grad_(True) for seed in (0, 1))
    queue = codes(QUEUE, 2).to(device)

    # Views that agree at half of the positions: values far from both 0 and the logarithm of the candidate count.
    first = harden(p)
    second = torch.where(torch.arange(POSITIONS, device=device)[:, None] % 2 == 0, first, harden(q))
    with torch.no_grad():
        values = {name: loss(first, second, harden(queue)).item() for name, loss in functions.items()}

    tasks = {name: lambda loss=loss: with_gradients(loss, p, q, queue) for name, loss in functions.items()}
    seconds = interleave(tasks, rounds=rounds)
    table = pd.DataFrame(
        {
            "loss": name,
            "batch": BATCH,
            "dimensions": POSITIONS * CATEGORIES,
            "queue": QUEUE if name in (QUEUED, LOGARITHMS, AT_ONCE) else 0,
            "rounds": rounds,
            "milliseconds": 1e3 * seconds[name].median(),
            "relative": ratio(seconds, name, REFERENCE[name]),
            "one_hot": values[name],
        }
        for name in tasks
    )
    return pd.concat([table, steps(max(3, rounds // 2))], ignore_index=True)


def steps(rounds: int) -> pd.DataFrame:
    """Time the step at batch 256 on 32 px images, small encoder: 16 positions of 10 categories, or NT-Xent at 128."""
    arms = [Arm(STEP_NT_XENT, "nt_xent"), Arm(STEP)]
    table = measured_cost(arms, Settings(batch_size=BATCH), size=32, rounds=rounds).drop(columns="macs")
    return table.rename(columns={"arm": "loss"}).assign(batch=BATCH, queue=0, rounds=rounds)


def check(table: pd.DataFrame) -> pd.DataFrame:
    """Return the study's targets with their measured and largest allowed values."""
    rows = table.set_index("loss")
    difference = abs(rows.one_hot[IN_BATCH] / rows.one_hot[NT_XENT] - 1)
    return pd.DataFrame(
        [
            ("agreement / lightly's NT-Xent at equal dimensions, time", rows.relative[IN_BATCH], SHARE),
            ("agreement / log agreement all at once, both with the queue, time", rows.relative[QUEUED], QUEUE_SHARE),
            ("training step with agreement / with NT-Xent, time", rows.relative[STEP], STEP_SHARE),
            ("agreement on one-hot codes, relative difference from lightly's", difference, DIFFERENCE),
        ],
        columns=["target", "measured", "at_most"],
    )
