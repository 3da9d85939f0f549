"""Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon) for many small matrices.

PyTorch's takes one matrix after the other, in bfloat16, which costs a small network on a CPU ten times as much: half of
a training step. Here all matrices of one shape are orthogonalised at once, on a CPU in float32.
"""

from collections import defaultdict

import torch
from torch import Tensor


class Muon(torch.optim.Muon):
    """PyTorch's with Nesterov's momentum and its state; updates are as large as AdamW's ("match_rms_adamw")."""

    def __init__(self, params, lr: float = 1e-3, weight_decay: float = 0.1, momentum: float = 0.95):
        super().__init__(params, lr, weight_decay, momentum, adjust_lr_fn="match_rms_adamw")

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        for group in self.param_groups:
            alike: dict[tuple, list[Tensor]] = defaultdict(list)
            for weight in group["params"]:
                if weight.grad is not None:
                    alike[weight.shape, weight.device, weight.dtype].append(weight)
            for ((rows, columns), *_), weights in alike.items():
                found = orthogonalised(
                    torch.stack([self._direction(weight, group["momentum"]) for weight in weights]),
                    group["ns_coefficients"], group["ns_steps"], group["eps"],
                )  # fmt: skip
                rate = group["lr"] * 0.2 * max(rows, columns) ** 0.5  # AdamW's root mean square (Liu et al. 2025)
                for weight, update in zip(weights, found, strict=True):
                    weight.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-rate)

    def _direction(self, weight: Tensor, momentum: float) -> Tensor:
        """Nesterov's: one step beyond the gradient's running mean, which is updated."""
        state = self.state[weight]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(weight.grad)
        return weight.grad.lerp(state["momentum_buffer"].lerp_(weight.grad, 1 - momentum), momentum)


def orthogonalised(matrices: Tensor, coefficients: tuple[float, float, float], steps: int, eps: float) -> Tensor:
    """(N, rows, columns) -> the same shape: each with its singular values taken to about 1 (0.7 to 1.2 in five steps).

    Newton-Schulz iteration of X <- a X + (b G + c G²) X with G = X Xᵀ, from X of Frobenius norm 1.
    """
    a, b, c = coefficients
    found = matrices if matrices.device.type == "cpu" else matrices.bfloat16()
    turned = found.shape[1] > found.shape[2]  # the Gram matrix of the shorter side is the smaller one
    found = found.mT if turned else found
    found = found / found.flatten(1).norm(dim=1).clamp_min(eps)[:, None, None]
    for _ in range(steps):
        gram = found @ found.mT
        found = torch.baddbmm(found, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), found, beta=a)
    return (found.mT if turned else found).to(matrices.dtype)
