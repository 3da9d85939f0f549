"""Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon) for many small matrices and for convolutions.

PyTorch's version updates one matrix after the other, in bfloat16, which takes ten times as long for a small network on
a CPU: half of a training step. Here all matrices of one shape are orthogonalised at once; on a CPU, in float32.
"""

from collections import defaultdict

import torch
from torch import Tensor

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the Newton-Schulz iteration with five steps


class Muon(torch.optim.Optimizer):
    """PyTorch's Muon with Nesterov momentum and updates of the same RMS as AdamW's ("match_rms_adamw").

    A convolution weight (filters, channels, height, width) is flattened to a matrix with one row per filter.
    """

    def __init__(self, params, lr: float = 1e-3, weight_decay: float = 0.1, momentum: float = 0.95):
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        for group in self.param_groups:
            alike: dict[tuple, list[Tensor]] = defaultdict(list)
            for weight in group["params"]:
                if weight.grad is not None:
                    alike[weight.shape, weight.device, weight.dtype].append(weight)
            for weights in alike.values():
                directions = torch.stack([self._direction(weight, group["momentum"]).flatten(1) for weight in weights])
                # Match the root mean square of AdamW's updates (Liu et al. 2025).
                rate = group["lr"] * 0.2 * max(directions.shape[1:]) ** 0.5
                for weight, update in zip(weights, orthogonalised(directions), strict=True):
                    weight.mul_(1 - group["lr"] * group["weight_decay"])
                    update = update.view(weight.shape)
                    # In a CUDA graph the learning rate is a tensor, which `alpha` does not accept.
                    weight.sub_(rate * update) if torch.is_tensor(rate) else weight.add_(update, alpha=-rate)

    def _direction(self, weight: Tensor, momentum: float) -> Tensor:
        """Return Nesterov's direction, one step beyond the running mean of the gradient; updates the mean in place."""
        state = self.state[weight]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(weight.grad)
        return weight.grad.lerp(state["momentum_buffer"].lerp_(weight.grad, 1 - momentum), momentum)


def orthogonalised(matrices: Tensor, coefficients: tuple[float, ...] = COEFFICIENTS, steps: int = 5) -> Tensor:
    """Return the matrices (N, rows, columns) with all singular values moved to about 1 (0.7 to 1.2 after five steps).

    Newton-Schulz iteration X <- a X + (b G + c G²) X with G = X Xᵀ, starting from X of Frobenius norm 1.
    """
    a, b, c = coefficients
    found = matrices if matrices.device.type == "cpu" else matrices.bfloat16()
    turned = found.shape[1] > found.shape[2]  # the Gram matrix of the shorter side is the smaller one
    found = found.mT if turned else found
    found = found / found.flatten(1).norm(dim=1).clamp_min(1e-7)[:, None, None]
    for _ in range(steps):
        gram = found @ found.mT
        found = torch.baddbmm(found, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), found, beta=a)
    return (found.mT if turned else found).to(matrices.dtype)
