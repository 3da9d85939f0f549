"""Published regularisers for comparison, each implemented from the formula in its paper.

Symbols: W (n, d) holds the n filters w_i of a layer, d weights each, as rows; u_i = w_i / ‖w_i‖;
c_ij = ⟨u_i, u_j⟩. Each loss returns a scalar. `mma`, a function of u, lies in [-π, 0]; all others lie in [0, ∞):
`decov` is a function of one layer's activations, the rest of w, the weight of one linear layer or convolution.

The papers sum over pairs of filters, so that wide layers dominate. Here every such sum is a mean, so that a given
strength means the same for every layer; each docstring states the paper's loss as a multiple. Losses of w also change
the length of the filters (for n ≤ d towards 1; `inner_products` towards 0); losses of u only rotate them.

All losses keep float64 and otherwise compute in float32 with autocast off. A zero filter counts as orthogonal to the
others. Its gradient is never NaN, and is zero except in `srip`, whose estimate is not stationary there.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.corregularization.losses import CONVOLUTIONS, SHORTEST, as_matrix
from lib.precision import full_precision


@full_precision
def soft_orthogonality(weight: Tensor) -> Tensor:
    """SO: return the squared distance of the Gram matrix from the identity, averaged over the n² pairs of filters.

        n ≤ d:  1/n² · ‖W Wᵀ - I_n‖_F²          n > d:  1/n² · ‖Wᵀ W - I_d‖_F²

    The smaller Gram matrix is used: it is cheaper and can reach the identity. ‖W Wᵀ - I_n‖² = ‖Wᵀ W - I_d‖² + n - d, so
    the choice does not affect the gradient, and the *double* soft orthogonality of the paper, the sum of both, is this
    loss with twice the weight. It is 0 if and only if the filters (for n > d: the columns of W) are orthonormal.

    Source: Bansal, Chen, Wang, "Can We Gain More from Orthogonality Regularizations in Training Deep CNNs?",
    NeurIPS 2018. There it is a sum over the Gram matrix of the filters: n² times this, plus n - d if n > d.

    >>> soft_orthogonality(torch.eye(4, 9))
    tensor(0.)
    """
    matrix = as_matrix(weight)
    n, d = matrix.shape
    gram = matrix @ matrix.T if n <= d else matrix.T @ matrix  # (m, m), m = min(n, d)
    identity = torch.eye(gram.shape[0], dtype=gram.dtype, device=gram.device)
    return (gram - identity).square().sum() / n**2


@full_precision
def lengths(weight: Tensor) -> Tensor:
    """Return the diagonal part of soft orthogonality: mean of (‖w_i‖² - 1)². Changes lengths only, not directions.

    For n ≤ d, n² times `soft_orthogonality` is n times this plus n(n - 1) times `inner_products`.
    """
    return (as_matrix(weight).square().sum(1) - 1).square().mean()


@full_precision
def inner_products(weight: Tensor) -> Tensor:
    """Return the off-diagonal part of soft orthogonality: mean over i ≠ j of ⟨w_i, w_j⟩² = ‖w_i‖² ‖w_j‖² c_ij².

    Shrinking the filters lowers it, as does rotating them apart; `gram_penalty`, of c_ij alone, rules out the former.
    """
    matrix = as_matrix(weight)
    gram = matrix @ matrix.T
    return (gram.square().sum() - gram.diagonal().square().sum()) / (len(gram) * (len(gram) - 1))


@full_precision
def srip(weight: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
    """SRIP: return the spectral norm of the smaller Gram matrix minus the identity, estimated by power iteration.

        A = W Wᵀ - I_n (n ≤ d) or Wᵀ W - I_d (n > d)
        v_1 = A v_0 / ‖A v_0‖,   σ = ‖A v_1‖  →  max_i |s_i² - 1|

    with s_i the min(n, d) singular values of W. As in the paper, A is applied twice: one step of the power method and
    the estimate. σ never exceeds the norm, and the gradient flows through both products. A is not formed:
    A v = W (Wᵀ v) - v takes 2·n·d multiplications. v_0 is drawn at every call: with a fixed v_0, descent would only
    rotate the filters until v_0 misses the largest directions. generator: for v_0; the global random state if None.

    Source: Bansal, Chen, Wang, NeurIPS 2018. The norm is not squared; some published code squares it.
    """
    matrix = as_matrix(weight)
    if matrix.shape[0] > matrix.shape[1]:
        matrix = matrix.T
    vector = torch.randn(len(matrix), 1, generator=generator, device=matrix.device, dtype=matrix.dtype)
    norm = torch.linalg.vector_norm(vector)
    for _ in range(2):
        vector = vector / torch.where(norm > 0, norm, 1.0)
        vector = matrix @ (matrix.T @ vector) - vector
        norm = torch.linalg.vector_norm(vector)
    return norm


@full_precision
def mma(weight: Tensor) -> Tensor:
    """MMA: return the negative angle to the nearest other filter, in radians, averaged over filters.

        -1/n Σ_i min_{j≠i} θ_ij,   θ_ij = arccos c_ij

    The signed angle, as published, drives filters antiparallel. It is computed for the chosen pairs as
    θ = 2 atan2(‖u_i - u_j‖, ‖u_i + u_j‖), exact up to rounding near 0 and π, where arccos loses half of its digits and
    then its gradient. Two equal filters have θ = 0 and no gradient, as no direction separates them.

    Source: Wang, Xiang, Zou, Xu, "MMA Regularization: Decorrelating Weights of Neural Networks by
    Maximizing the Minimal Angles", NeurIPS 2020 (coefficient 0.07; with skip connections 0.03).
    """
    unit = F.normalize(as_matrix(weight), dim=1, eps=SHORTEST)
    with torch.no_grad():
        cosine = unit @ unit.T  # (n, n)
        nearest = cosine.fill_diagonal_(-2.0).argmax(dim=1)  # (n,)
        alive = unit.any(dim=1)
        paired = alive & alive[nearest]  # (n,): both have a direction
    other = unit.index_select(0, nearest)  # (n, d)
    apart = torch.linalg.vector_norm(unit - other, dim=1)
    together = torch.linalg.vector_norm(unit + other, dim=1)
    angle = 2 * torch.atan2(torch.where(paired, apart, 1.0), torch.where(paired, together, 1.0))
    return -angle.mean()


@full_precision
def ocnn(weight: Tensor, *, stride: int | tuple[int, ...] = 1) -> Tensor:
    """OCNN: return the deviation from filters orthonormal under every spatial shift, averaged over the n² pairs.

        1/n² · ‖Conv(W, W; stride S, padding P) - δ‖_F²

    Convolving the filters with themselves at the layer's stride gives ⟨w_i, w_j shifted by multiples of S⟩
    for every shift at which they overlap, (n, n, 2P/S + 1, …); δ is 1 at i = j without a shift, else 0.
    P = ⌊(k-1)/S⌋·S on each axis covers all shifts. Shifts are summed, pairs averaged. The loss is 0 if and only if the
    rows of the layer's doubly block-Toeplitz matrix are orthonormal, which requires n ≤ C·S² in two dimensions.

    weight: (n, C, k, …) of a convolution without groups or dilation; not the kernel matrix, which lacks the spatial
        axes. `ocnn_over_layers` takes layers.
    stride: stride of the layer; one number or one per axis.

    Source: Wang, Chen, Chakraborty, Yu, "Orthogonal Convolutional Neural Networks", CVPR 2020,
    row orthogonality. There it is a sum: n² times this.
    """
    n, _, *size = weight.shape
    axes = len(size)
    stride = (stride,) * axes if isinstance(stride, int) else stride
    padding = tuple((k - 1) // s * s for k, s in zip(size, stride, strict=True))
    convolve = (F.conv1d, F.conv2d, F.conv3d)[axes - 1]
    overlap = convolve(weight, weight, stride=stride, padding=padding)  # (n, n, 2P/S + 1, …)
    each = torch.arange(n, device=weight.device)
    unshifted = tuple(p // s for p, s in zip(padding, stride, strict=True))
    delta = torch.zeros_like(overlap)
    delta[(each, each, *unshifted)] = delta.new_ones(n)  # a Python 1.0 would be copied from the CPU
    return (overlap - delta).square().sum() / n**2


def ocnn_over_layers(layers: Mapping[str, nn.Module]) -> Tensor:
    """Return the mean over layers of `ocnn` at each layer's stride, for convolutions without groups or dilation."""
    if any(step != 1 for layer in layers.values() for step in layer.dilation):
        raise ValueError("OCNN is not defined for dilated convolutions")
    return torch.stack([ocnn(layer.weight, stride=layer.stride) for layer in layers.values()]).mean()


@full_precision
def decov(activations: Tensor) -> Tensor:
    """DeCov: return the squared covariances of a layer's features over the batch, averaged over ordered pairs.

        C = 1/N Σ_s (h_s - h̄)(h_s - h̄)ᵀ,   1/c(c-1) Σ_{i≠j} C_ij²

    for N samples h of c features. As these are covariances, not correlations, smaller activations lower it too.

    activations: (B, c), or (B, c, …) with spatial axes, where each position of each image is a sample, N = B·H·W.

    Source: Cogswell, Ahmed, Girshick, Zitnick, Batra, "Reducing Overfitting in Deep Networks by
    Decorrelating Representations", ICLR 2016: ½ (‖C‖_F² - ‖diag C‖²) for a vector of hidden units,
    ½ c(c-1) times this. Treating positions as samples is our choice.
    """
    rows = activations.transpose(0, 1).flatten(1).T  # (N, c)
    samples, count = rows.shape
    centred = rows - rows.mean(dim=0)
    covariance = centred.T @ centred / samples  # (c, c)
    same = torch.eye(count, dtype=torch.bool, device=rows.device)
    return covariance.masked_fill(same, 0.0).square().sum() / (count * (count - 1))


@torch.no_grad()
def orthogonal_init(model: nn.Module) -> None:
    """Replace every convolution's weight by a random one of the same Frobenius norm ‖W‖ with W Wᵀ = ‖W‖²/n I_n.

    For n > d the n rows cannot be orthogonal, so the columns are: Wᵀ W = ‖W‖²/d I_d, a tight frame. ‖W‖, which
    determines how far a step rotates the filters, is that of the replaced initialisation. Biases and other layers are
    unchanged.

    Source: Saxe, McClelland, Ganguli, "Exact solutions to the nonlinear dynamics of learning in deep
    linear neural networks", ICLR 2014, through `torch.nn.init.orthogonal_`, where ‖W‖² is min(n, d).
    """
    for layer in model.modules():
        if isinstance(layer, CONVOLUTIONS):
            norm = layer.weight.norm()
            nn.init.orthogonal_(layer.weight)
            layer.weight *= norm / layer.weight.norm()
