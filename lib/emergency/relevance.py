"""Layer-wise relevance propagation (LRP) through a plain CNN: how much each cell of the input spoke for a class.

    found = relevance(model, mel, targets)  # (B, 1, mels, frames), sums to about the class's logit

LRP sends a logit back through the network, each layer's relevance R_j to its inputs i by their share in z_j
(Bach et al. 2015; the rules by Montavon et al. 2019, Layer-Wise Relevance Propagation: An Overview):

    epsilon     R_i = Σ_j a_i w_ij / (z_j + ε sign z_j) R_j            z_j = Σ_i a_i w_ij + b_j
    z_plus      the same with w⁺ in the place of w (for a_i ≥ 0)
    gamma       the same with w + γ w⁺
    both_signs  z_plus where a_i has both signs: a⁺w⁺ + a⁻w⁻
    z_box       R_i = Σ_j (a_i w_ij - l w⁺_ij - h w⁻_ij) / z_j R_j     for l ≤ a_i ≤ h; z_j without b_j

captum's LRP is not used: it forgets its rules after one call, takes inputs for non-negative (log-mels are not) and
refuses Flatten. The tests hold these three facts, so that a repaired captum is noticed. Its input x gradient is used.

Every rule is written as a layer whose value is the network's own and whose gradient is the rule's; then
relevance = input x gradient. One pass forward and one back, and the network itself is never touched.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from captum.attr import InputXGradient
from torch import Tensor, nn

RULES = ("epsilon", "z_plus", "gamma")
FIRST = ("both_signs", "z_box", "same")
EPSILON = 1e-6

Layer = Callable[[Tensor], Tensor]


def relevance(
    model: nn.Sequential,
    inputs: Tensor,
    targets: Tensor | int,
    *,
    rule: str = "z_plus",
    first: str = "both_signs",
    gamma: float = 0.25,
    box: tuple[float, float] | None = None,
) -> Tensor:
    """Relevance of each input cell for the logit of `targets`, in the shape of the inputs.

    The network is taken in evaluation mode, whatever mode it is in. Its sum is the logit where nothing is absorbed by
    biases (a batch norm's shift is one).

    Args:
        model: nested nn.Sequential of Conv2d, BatchNorm2d right after it, ReLU, MaxPool2d, AvgPool2d,
            AdaptiveAvgPool2d, Dropout, Flatten and Linear.
        inputs: (B, channels, height, width), of the weights' type and device.
        targets: class per input (B,), or one for all.
        rule: of convolutions after the first, "epsilon", "z_plus" or "gamma"; linear layers take epsilon.
        first: of the first convolution, "both_signs", "z_box" or "same" as the others.
        box: least and largest possible input for "z_box"; those of `inputs` if None.

    Raises:
        TypeError: a layer that no rule is written for.
        ValueError: an unknown rule, or targets that do not fit.
    """
    if rule not in RULES or first not in FIRST:
        raise ValueError(f"there is no rule {rule!r} with {first!r}; choose from {', '.join(RULES)} and, for the first "
                         f"convolution, {', '.join(FIRST)}")  # fmt: skip
    targets = torch.as_tensor(targets, device=inputs.device).expand(len(inputs))
    leaves = [inputs.detach().clone().requires_grad_()]
    if first == "z_box":
        low, high = box or (inputs.min().item(), inputs.max().item())
        leaves += [torch.full_like(inputs, bound).requires_grad_() for bound in (low, high)]
    with torch.enable_grad():
        activation = leaves[0]
        fresh = True
        for layer in _folded(_flat(model)):
            if isinstance(layer, _Convolution):
                chosen = first if fresh and first != "same" else rule
                activation = _step(layer, activation, chosen, gamma, leaves)
                fresh = False
            else:
                activation = layer(activation)
        logits = activation.gather(1, targets[:, None])
        gradients = torch.autograd.grad(logits.sum(), leaves)
    return sum(leaf.detach() * gradient for leaf, gradient in zip(leaves, gradients, strict=True))


def explain(model: nn.Sequential, mel: Tensor, targets: Tensor, method: str = "LRP", batch_size: int = 32) -> Tensor:
    """Relevance by a named method, in batches: mel (N, 1, mels, frames) of any float type -> float32 on the CPU.

    method: "LRP" (both_signs, then z_plus, epsilon in the classifier), or "input x gradient" (captum).
    """
    if method not in ("LRP", "input x gradient"):
        raise ValueError(f"there is no method {method!r}; choose 'LRP' or 'input x gradient'")
    device = next(model.parameters()).device
    found = []
    for inputs, wanted in zip(mel.split(batch_size), targets.split(batch_size), strict=True):
        inputs, wanted = inputs.to(device).float(), wanted.to(device)
        if method == "LRP":
            found.append(relevance(model, inputs, wanted).cpu())
        else:
            with torch.enable_grad():
                product = InputXGradient(model.eval()).attribute(inputs.requires_grad_(), wanted)
            found.append(product.detach().cpu())
    return torch.cat(found)


class _Convolution:
    """A convolution with the batch norm after it folded in, and the ReLU after both; weights are copies."""

    rectified = False

    def __init__(self, layer: nn.Conv2d, norm: nn.BatchNorm2d | None):
        self.options = {"stride": layer.stride, "padding": layer.padding, "dilation": layer.dilation}
        if layer.padding_mode != "zeros" or layer.groups != 1:
            raise TypeError("LRP has no rule for a Conv2d with groups, or with a padding other than zeros")
        self.weight = layer.weight.detach()
        self.bias = torch.zeros_like(self.weight[:, 0, 0, 0]) if layer.bias is None else layer.bias.detach()
        if norm is not None:
            if norm.running_mean is None:
                raise TypeError("no rule is written for a BatchNorm2d without running statistics")
            scale = (norm.running_var + norm.eps).rsqrt()
            shift = -norm.running_mean * scale
            if norm.affine:
                scale, shift = scale * norm.weight.detach(), shift * norm.weight.detach() + norm.bias.detach()
            self.weight = self.weight * scale[:, None, None, None]
            self.bias = self.bias * scale + shift

    def __call__(self, inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.conv2d(inputs, weight, bias, **self.options)


def _step(layer: _Convolution, a: Tensor, rule: str, gamma: float, leaves: list[Tensor]) -> Tensor:
    """The layer's output by value, with the gradient of `rule`."""
    weight, bias = layer.weight, layer.bias
    positive, negative = weight.clamp(min=0), weight.clamp(max=0)
    if rule == "z_plus":
        return _ZPlus.apply(a, layer, positive, weight)
    if rule == "both_signs":  # what is positive and what is negative as two maps, each with weights of its own
        # From here on channels_last, in which everything that follows is faster.
        signs = torch.cat([a.clamp(min=0), a.clamp(max=0)], 1).contiguous(memory_format=torch.channels_last)
        return _ZPlus.apply(signs, layer, torch.cat([positive, negative], 1), torch.cat([weight, weight], 1))
    if rule == "epsilon":
        z = true = layer(a, weight, bias)
    else:
        with torch.no_grad():
            true = layer(a, weight, bias)
    if rule == "gamma":
        z = layer(a, weight + gamma * positive, bias + gamma * bias.clamp(min=0))
    elif rule == "z_box":
        _, low, high = leaves
        z = layer(a, weight, None) - layer(low, positive, None) - layer(high, negative, None)
    found = z * (true / _away_from_zero(z)).detach()
    return F.relu(found) if layer.rectified else found


class _ZPlus(torch.autograd.Function):
    """z = V a + b⁺ ≥ 0 by gradient, W a + b by value, or where a ReLU follows its positive part."""

    @staticmethod
    def forward(ctx, a: Tensor, layer: _Convolution, own: Tensor, true_weight: Tensor) -> Tensor:
        true = layer(a, true_weight, layer.bias)
        if layer.rectified:  # relevance ends where nothing comes out
            true.relu_()
        share = true / layer(a, own, layer.bias.clamp(min=0)).add_(EPSILON)
        ctx.save_for_backward(a, own, share)
        ctx.options = layer.options
        return true

    @staticmethod
    def backward(ctx, gradient: Tensor):
        a, own, share = ctx.saved_tensors
        stride, padding, dilation = (ctx.options[name] for name in ("stride", "padding", "dilation"))
        # conv2d_input of torch.nn.grad does the same, but loses channels_last and with it a third of the speed.
        only_inputs = (True, False, False)
        found = torch.ops.aten.convolution_backward(
            gradient * share, a, own, None, stride, padding, dilation, False, (0, 0), 1, only_inputs
        )
        return found[0], None, None, None


def _away_from_zero(z: Tensor) -> Tensor:
    z = z.detach()
    return z + torch.full_like(z, EPSILON).copysign(z)


def _linear(layer: nn.Linear) -> Layer:
    weight = layer.weight.detach()
    bias = None if layer.bias is None else layer.bias.detach()

    def step(a: Tensor) -> Tensor:
        z = F.linear(a, weight, bias)
        return z * (z / _away_from_zero(z)).detach()

    return step


_PLAIN: dict[type, Callable[[nn.Module], Layer]] = {
    nn.ReLU: lambda layer: F.relu,
    nn.Dropout: lambda layer: lambda a: a,
    nn.Identity: lambda layer: lambda a: a,
    nn.Flatten: lambda layer: lambda a: a.flatten(layer.start_dim, layer.end_dim),
    nn.AdaptiveAvgPool2d: lambda layer: lambda a: F.adaptive_avg_pool2d(a, layer.output_size),
    nn.AvgPool2d: lambda layer: layer.forward,
    nn.MaxPool2d: lambda layer: layer.forward,
    nn.Linear: _linear,
}


def _flat(model: nn.Module) -> list[nn.Module]:
    if type(model) is nn.Sequential:
        return [layer for part in model for layer in _flat(part)]
    return [model]


def _folded(layers: list[nn.Module]) -> list[Layer]:
    """The layers as functions, batch norms gone into the convolutions before them."""
    found: list[Layer] = []
    for place, layer in enumerate(layers):
        before = layers[place - 1] if place else None
        after = layers[place + 1] if place + 1 < len(layers) else None
        if type(layer) is nn.Conv2d:
            found.append(_Convolution(layer, after if type(after) is nn.BatchNorm2d else None))
        elif type(layer) is nn.ReLU and found and isinstance(found[-1], _Convolution):
            found[-1].rectified = True  # done with the convolution
        elif type(layer) in _PLAIN:
            found.append(_PLAIN[type(layer)](layer))
        elif not (type(layer) is nn.BatchNorm2d and type(before) is nn.Conv2d):
            known = ", ".join(kind.__name__ for kind in (nn.Conv2d, *_PLAIN))
            raise TypeError(f"LRP has no rule for {type(layer).__name__} (layer {place}); known are {known}, and "
                            f"BatchNorm2d right after Conv2d")  # fmt: skip
    return found
