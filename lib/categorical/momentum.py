"""The queue of Momentum Contrast, of outputs of a slow copy of the network."""

from typing import Any

import torch
from torch import Tensor, nn


class Queue(nn.Module):
    """The last `size` rows that were pushed, codes (L, K) or vectors (D,): first in, first out (He et al. 2020).

    Slots that were never filled are never shown, batches of any size wrap around, and of a batch larger than
    the queue the newest rows stay. `state_dict` holds all of it.
    """

    def __init__(self, size: int, shape: tuple[int, ...]):
        super().__init__()
        self.size = size
        self.register_buffer("rows", torch.zeros(size, *shape))
        self.register_buffer("pushed", torch.zeros((), dtype=torch.long))  # rows so far
        self.known = 0  # as many at least: a number, as a GPU would have to be waited for

    def filled(self) -> Tensor:
        """(n, *shape), n ≤ size: what has been pushed, in no particular order."""
        return self.rows[: min(self.known, self.size)]

    @property
    def full(self) -> bool:
        return self.known >= self.size

    @torch.no_grad()
    def push(self, rows: Tensor) -> None:
        """Put `rows` (n, *shape) in the place of the oldest."""
        kept = rows.detach()[-self.size :]
        self.known += len(rows)
        self.pushed += len(rows)
        places = (self.pushed - len(kept) + torch.arange(len(kept), device=self.rows.device)) % self.size
        self.rows.index_copy_(0, places, kept.to(self.rows))

    def load_state_dict(self, *arguments: Any, **options: Any) -> Any:
        found = super().load_state_dict(*arguments, **options)
        self.known = int(self.pushed)
        return found
