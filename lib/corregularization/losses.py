"""The Gram-matrix penalty on filters, whole and in groups.

Symbols, as in the paper: a layer has n filters of d weights each; W is its (n, d) kernel
matrix, U = W with rows of unit length, C = U Uᵀ its Gram matrix with entries c_ij, the
cosine between filters i and j. The penalty is

    R(W) = 1 / n(n-1) · Σ_{i≠j} max(|c_ij| - margin, 0)^power

so its weight λ means the same for every width, and the mean over layers makes it mean the
same for every depth. Without the absolute value, antiparallel filters, which are the same feature
with the sign flipped, would cost nothing.

Related work: OrthoReg (Rodríguez et al., ICLR 2017), MMA (Wang et al., NeurIPS 2020), GOR (Kurtz et
al., BMVC 2023, fixed groups), frame potential (Benedetto & Fickus, Adv. Comput. Math. 2003).
"""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from lib.precision import full_precision

Grouping = Literal["random", "contiguous"]

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)

# A filter shorter than this has no direction: it counts as orthogonal to all and gets no gradient.
SHORTEST = 1e-12


def as_matrix(weight: Tensor) -> Tensor:
    """Return the kernel matrix W, (n, d): one row per filter (output channel) of a linear layer or convolution."""
    return weight.flatten(1)


def welch_bound(n: int, d: int) -> float:
    """Return the smallest possible RMS |cosine| of n ≥ 2 unit vectors in d dimensions (Welch 1974); 0 for n ≤ d."""
    return math.sqrt(max(n - d, 0) / (d * (n - 1)))


def group_indices(
    n: int,
    groups: int,
    grouping: Grouping = "random",
    *,
    generator: torch.Generator | None = None,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Return the indices of the filters in each group: (groups, m) int64, m = n/groups ≥ 2.

    "contiguous": filters 0…m-1, m…2m-1, …; "random": a new uniform permutation at every call, so that every pair
    shares a group equally often. ValueError if there are no such groups.
    """
    if not 1 <= groups < n or n % groups:  # n groups hold no pairs
        raise ValueError(f"{n} filters do not form {groups} equal groups with pairs to compare")
    if grouping not in ("random", "contiguous"):
        raise ValueError(f"grouping {grouping!r} is unknown; choose 'random' or 'contiguous'")
    if grouping == "random":
        home = generator.device if generator is not None else device
        order = torch.randperm(n, generator=generator, device=home).to(device)
    else:
        order = torch.arange(n, device=device)
    return order.view(groups, -1)


class _GramPenalty(torch.autograd.Function):
    """Value and closed-form gradient, two matrix products in all.

    With W the unnormalised filters of one group, s_i = 1/‖w_i‖ (0 for a filter without direction),
    c_ij = s_i s_j ⟨w_i, w_j⟩, φ the summand and P the number of ordered pairs:
        R = 1/P Σ_{i≠j} φ(c_ij)
        ∂R/∂w_i = 2/P Σ_j K_ij w_j,   K_ij = s_i s_j φ'(c_ij) for j ≠ i,   K_ii = -s_i² Σ_j φ'(c_ij) c_ij.
    The diagonal of K is the projection that keeps the length of w_i. Unit filters are never formed, and
    the squared lengths are the diagonal of W Wᵀ, so only the two products read the weights.
    Autograd takes three: it multiplies dC U and dCᵀ U although dC is symmetric.
    """

    @staticmethod
    def forward(ctx, matrix: Tensor, index: Tensor, power: float, margin: float) -> Tensor:
        members = _members(matrix, index)  # (g, m, d)
        pairs = len(matrix) * (members.shape[1] - 1)  # ordered pairs of filters that share a group
        gram = torch.bmm(members, members.transpose(1, 2))  # (g, m, m)
        square = gram.diagonal(dim1=1, dim2=2)
        scale = torch.where(square > SHORTEST**2, square.clamp_min(SHORTEST**2).rsqrt(), 0)  # (g, m)
        gram.mul_(scale[:, :, None]).mul_(scale[:, None, :])
        gram.diagonal(dim1=1, dim2=2).zero_()
        ctx.save_for_backward(matrix, gram, scale, index)
        ctx.pairs, ctx.power, ctx.margin = pairs, power, margin
        return (gram.abs() - margin).clamp_min(0).pow(power).sum() / pairs

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        with torch.autocast(device_type=grad.device.type, enabled=False):  # as in the forward pass
            return _GramPenalty._gradient(ctx, grad), None, None, None

    @staticmethod
    def _gradient(ctx, grad: Tensor) -> Tensor:
        matrix, gram, scale, index = ctx.saved_tensors
        excess = (gram.abs() - ctx.margin).clamp_min(0)
        # For power 1, excess^0 = 1 also below the margin, where sign() alone would give a gradient.
        slope = ctx.power * excess.pow(ctx.power - 1) * gram.sign() * (excess > 0)
        slope.diagonal(dim1=1, dim2=2).copy_(-(slope * gram).sum(-1))
        slope.mul_(scale[:, :, None] * (2 * grad / ctx.pairs)).mul_(scale[:, None, :])
        change = torch.bmm(slope, _members(matrix, index))  # (g, m, d)
        return torch.empty_like(matrix).index_copy_(0, index.flatten(), change.flatten(0, 1))


def _members(matrix: Tensor, index: Tensor) -> Tensor:
    """Return the filters by group, (g, m, d)."""
    return matrix.index_select(0, index.flatten()).view(*index.shape, -1)


@full_precision
def gram_penalty(
    weight: Tensor,
    *,
    groups: int = 1,
    power: float = 2,
    grouping: Grouping = "random",
    margin: float | Literal["welch"] = 0.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Return the mean over filter pairs of max(|cosine| - margin, 0)^power, a scalar in [0, 1].

    weight: kernel of a linear layer or convolution with at least two filters.
    groups, grouping: only filters in the same group are compared, about 1/groups of the pairs; groups divides n. Pairs
        across "contiguous" groups are never compared; "random" draws a new partition at every call, an unbiased
        estimate of the whole penalty.
    power: at least 1. 2 (default) is minimal at tight frames (RMS at the Welch bound); 1 admits duplicates for n > d,
        and so does 2 with random groups (`lib.corregularization.packing`); 4 puts the most weight on the most
        similar pairs.
    margin: similarity below which a pair costs nothing, in [0, 1); "welch" for the layer's Welch bound, which is 0 for
        n ≤ d and for n > d keeps the most similar pair apart, also with random groups.
    generator: for grouping="random"; the global random state if None.

    Runs in float32 under autocast (float64 stays float64). The gradient is closed-form and tangential: a filter's
    length changes only through the finite size of a step or an optimiser that scales weights one by one (Adam). The
    gradient cannot be differentiated again.
    """
    matrix = as_matrix(weight)
    n, d = matrix.shape
    grouping = grouping if groups != 1 else "contiguous"
    index = group_indices(n, groups, grouping, generator=generator, device=matrix.device)
    bound = welch_bound(n, d) if margin == "welch" else float(margin)
    return _GramPenalty.apply(matrix, index, power, bound)


def select_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Return the layers whose filters are compared, by their name in the model.

    These are the convolutions with at least two filters, except transposed and grouped or depthwise ones (whose filters
    may have different input channels); no linear layers, as the rows of a classifier are classes.
    """
    return {
        name: layer
        for name, layer in model.named_modules()
        if isinstance(layer, CONVOLUTIONS) and layer.groups == 1 and layer.out_channels > 1
    }


def mean_over_layers(
    layers: Mapping[str, nn.Module], penalty: Callable[..., Tensor] = gram_penalty, **options
) -> Tensor:
    """Return the penalty of a network: `penalty(W, **options)`, averaged over `layers`.

        layers = select_layers(model)
        loss = cross_entropy(model(x), y) + strength * mean_over_layers(layers, groups=8)

    A layer that cannot form `groups` equal groups of at least two filters is split into the next lower number that it
    can form. Under DDP, add the penalty to the loss on every process: it counts once, as DDP averages gradients.
    """
    if not layers:
        raise ValueError("no layers to compare: select_layers takes convolutions of two or more filters")

    def value(layer: nn.Module) -> Tensor:
        matrix = as_matrix(layer.weight)
        if "groups" not in options:
            return penalty(matrix, **options)
        most = max([1, *(g for g in range(1, min(options["groups"], len(matrix) // 2) + 1) if len(matrix) % g == 0)])
        return penalty(matrix, **options | {"groups": most})

    return torch.stack([value(layer) for layer in layers.values()]).mean()


@full_precision
def response_penalty(responses: Tensor, *, rows: int | None = 4096, **options) -> Tensor:
    """Return the penalty on the responses of filters instead of the filters.

    responses: (B, C, *positions) output of a layer. Each channel is centred over batch and positions, so the cosines
    are correlations. At most `rows` samples are used (the full Gram matrix would cost as much as the layer), at a step
    near 0.618 times the total: evenly spaced ones could all fall into a few pixel columns.
    """
    flat = responses.transpose(0, 1).flatten(1)  # (C, B·positions)
    if rows is not None and flat.shape[1] > rows:
        count = flat.shape[1]
        step = next(s for s in range(round(0.618 * count), 2 * count) if math.gcd(s, count) == 1)  # none comes twice
        flat = flat.index_select(1, torch.arange(rows, device=flat.device) * step % count)
    return gram_penalty(flat - flat.mean(dim=1, keepdim=True), **options)


class ResponsePenalty:
    """Mean over layers of a penalty on their latest outputs (B, C, H, W), which forward hooks keep (not detached).

    Orthogonal filters can still have correlated responses if their inputs are correlated: the covariance of two
    responses is w_iᵀ S w_j, with S the covariance of the input patches.
    Call it between the forward and the backward pass. penalty: `response_penalty` (correlation of channels, default) or
    any other function of responses.
    """

    def __init__(self, layers: Mapping[str, nn.Module], penalty: Callable[..., Tensor] = response_penalty, **options):
        self.penalty = functools.partial(penalty, **options)
        self.outputs: dict[str, Tensor] = {}
        self.hooks = [
            layer.register_forward_hook(functools.partial(self._keep, name)) for name, layer in layers.items()
        ]

    def _keep(self, name: str, _layer: nn.Module, _inputs: Any, output: Tensor) -> None:
        self.outputs[name] = output.clone()  # an in-place ReLU may follow

    def __call__(self) -> Tensor:
        return torch.stack([self.penalty(output) for output in self.outputs.values()]).mean()

    def close(self) -> None:
        """Remove the hooks from the model."""
        for hook in self.hooks:
            hook.remove()
        self.outputs.clear()
