"""Layer-wise relevance propagation (LRP) through a plain CNN: how much each cell of the input spoke for a class.

    found = relevance(model, mel, targets)  # (B, 1, mels, frames), sums to about the class's logit

LRP sends a logit back through the network, each layer's relevance R_j to its inputs i by their share in z_j
(Bach et al. 2015; the rules by Montavon et al. 2019, Layer-Wise Relevance Propagation: An Overview):

    epsilon     R_i = Σ_j a_i w_ij / (z_j + ε sign z_j) R_j            z_j = Σ_i a_i w_ij + b_j
    z_plus      the same with w⁺ in the place of w; where a_i < 0, with w⁻ (both_signs: a⁺w⁺ + a⁻w⁻)
    gamma       the same with w + γ w⁺; where one of a_i and z_j is negative, w + γ w⁻ (Andéol et al. 2021)
    z_box       R_i = Σ_j (a_i w_ij - l w⁺_ij - h w⁻_ij) / z_j R_j     for l ≤ a_i ≤ h; z_j without b_j

captum's LRP is not used: it forgets its rules after one call, takes inputs for non-negative (log-mels are not) and
refuses Flatten. The tests hold these three facts, so that a repaired captum is noticed. Its input x gradient is used.

Every rule is written as a layer whose value is the network's own and whose gradient is the rule's; then
relevance = input x gradient. One pass forward and one back, and the network itself is never touched.
"""

import copy
from collections.abc import Callable
from functools import partial

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

    The network is taken in evaluation mode, whatever mode it is in, and its hooks are not called. Relevance sums to the
    logit where nothing is absorbed by biases (a batch norm's shift is one).

    Args:
        model: nested nn.Sequential of Conv2d, BatchNorm2d right after it, ReLU, MaxPool2d, AvgPool2d,
            AdaptiveAvgPool2d, any dropout, Flatten and Linear; subclasses of nn.Sequential that keep its forward, too.
        inputs: (B, channels, height, width), of the weights' type and device.
        targets: class per input (B,), or one for all.
        rule: of convolutions after the first, "epsilon", "z_plus" or "gamma"; linear layers take epsilon.
        first: of the first convolution, "both_signs" (z_plus), "z_box" or "same" as the others.
        box: least and largest possible input for "z_box"; those of each of the `inputs` if None.

    Raises:
        TypeError: a layer that no rule is written for.
        ValueError: an unknown rule, a box that does not hold the inputs or is not for them, or targets that do not fit.
    """
    if rule not in RULES or first not in FIRST:
        raise ValueError(f"there is no rule {rule!r} with {first!r}; choose from {', '.join(RULES)} and, for the first "
                         f"convolution, {', '.join(FIRST)}")  # fmt: skip
    with torch.inference_mode(False):  # weights that are copied in it could not be differentiated through
        layers = _folded(_flat(model))
    if inputs.ndim != 4:
        raise ValueError(
            f"inputs are {tuple(inputs.shape)}, expected (B, channels, height, width); "
            "a log-mel (B, mels, frames) becomes one by mel[:, None]"
        )
    targets = torch.as_tensor(targets)
    if targets.dtype.is_floating_point or targets.shape not in ((), inputs.shape[:1]):
        raise ValueError(f"targets are {targets.dtype} {tuple(targets.shape)}, expected a class for all inputs or one "
                         f"for each of the {len(inputs)}")  # fmt: skip
    # Neither inference mode nor autocast of the caller reaches what follows.
    with torch.inference_mode(False), torch.enable_grad(), torch.autocast(inputs.device.type, enabled=False):
        targets = targets.to(inputs.device, torch.long).expand(len(inputs)).clone()
        leaves = [inputs.detach().clone().requires_grad_()]
        activation = leaves[0]
        fresh, signed = True, True  # no convolution so far; activations may be negative
        for layer in layers:
            if isinstance(layer, _Convolution):
                chosen = first if fresh and first != "same" else rule
                if chosen == "z_box":
                    if activation is not leaves[0]:
                        raise ValueError("z_box is a rule for inputs: only dropout may come before the convolution")
                    leaves += _box(inputs.detach(), box)
                activation = _step(layer, activation, chosen, gamma, signed, leaves)
                fresh, signed = False, not layer.rectified
            else:
                activation = layer(activation)
                signed = signed and layer is not F.relu
        if activation.ndim != 2:
            raise ValueError(f"the network gives {tuple(activation.shape)}, expected (inputs, classes)")
        if ((targets < 0) | (targets >= activation.shape[1])).any():
            raise ValueError(f"targets are {targets.tolist()}, expected classes 0 to {activation.shape[1] - 1}")
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
    if method == "LRP":
        attribute = partial(relevance, model)
    else:  # of a copy, so that the network keeps its mode
        attribute = InputXGradient(copy.deepcopy(model).eval()).attribute
    found = []
    for inputs, wanted in zip(mel.split(batch_size), targets.split(batch_size), strict=True):
        with torch.enable_grad():
            inputs = inputs.to(device, torch.float32).detach().requires_grad_()
            found.append(attribute(inputs, wanted.to(device)).detach().cpu())
    return torch.cat(found)


class _Convolution:
    """A convolution with the batch norm after it folded in, and the ReLU after both; weights are copies."""

    rectified = False

    def __init__(self, layer: nn.Conv2d, norm: nn.BatchNorm2d | None):
        self.options = {
            "stride": layer.stride,
            "padding": layer.padding,
            "dilation": layer.dilation,
            "groups": layer.groups,
        }
        self.margins = None
        if isinstance(layer.padding, str) or layer.padding_mode != "zeros":  # padded before the convolution
            self.options["padding"] = (0, 0)
            self.margins = layer._reversed_padding_repeated_twice
            self.margin_mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
        self.weight = layer.weight.detach().clone()
        self.bias = torch.zeros_like(self.weight[:, 0, 0, 0]) if layer.bias is None else layer.bias.detach().clone()
        if norm is not None:
            if norm.running_mean is None:
                raise TypeError("no rule is written for a BatchNorm2d without running statistics")
            scale = (norm.running_var + norm.eps).rsqrt()
            shift = -norm.running_mean * scale
            if norm.affine:
                scale, shift = scale * norm.weight.detach(), shift * norm.weight.detach() + norm.bias.detach()
            self.weight = self.weight * scale[:, None, None, None]
            self.bias = self.bias * scale + shift

    def padded(self, a: Tensor) -> Tensor:
        return a if self.margins is None else F.pad(a, self.margins, self.margin_mode)

    def signs(self, a: Tensor) -> Tensor:
        """What is positive and what is negative in channels of their own, group by group: (B, 2 C, H, W).

        In channels_last, which everything that follows keeps, and in which it is faster.
        """
        groups = a.unflatten(1, (self.options["groups"], -1))
        both = torch.cat([groups.clamp(min=0), groups.clamp(max=0)], 2)
        return both.flatten(1, 2).contiguous(memory_format=torch.channels_last)


def _box(inputs: Tensor, box: tuple[float, float] | None) -> list[Tensor]:
    """Least and largest possible inputs, each in the shape of the inputs."""
    if box is None:
        dims = tuple(range(1, inputs.ndim))
        low, high = inputs.amin(dims, keepdim=True), inputs.amax(dims, keepdim=True)
    else:
        low, high = (torch.as_tensor(bound, dtype=inputs.dtype, device=inputs.device) for bound in box)
        if (inputs < low).any() or (inputs > high).any():
            raise ValueError(f"inputs from {inputs.min():.4g} to {inputs.max():.4g} lie outside of the box {box}")
    return [bound.expand_as(inputs).clone().requires_grad_() for bound in (low, high)]


def _step(layer: _Convolution, a: Tensor, rule: str, gamma: float, signed: bool, leaves: list[Tensor]) -> Tensor:
    """The layer's output by value, after its ReLU if it has one, with the gradient of `rule`."""
    a = layer.padded(a)
    weight, bias = layer.weight, layer.bias
    positive, negative = weight.clamp(min=0), weight.clamp(max=0)
    if rule == "gamma":
        found = _gamma(layer, a, weight, bias, gamma, signed)
        return found if layer.rectified else found - _gamma(layer, a, -weight, -bias, gamma, signed)
    if rule in ("z_plus", "both_signs"):
        return _Share.apply(a, layer, weight, bias, positive, negative, bias.clamp(min=0), signed, layer.rectified,
                            False)  # fmt: skip
    z = true = F.conv2d(a, weight, bias, **layer.options)
    if rule == "z_box":
        low, high = (layer.padded(leaf) for leaf in leaves[1:])
        z = F.conv2d(a, weight, **layer.options) - F.conv2d(low, positive, **layer.options)
        z = z - F.conv2d(high, negative, **layer.options)
    found = z * (true / _away_from_zero(z)).detach()
    return F.relu(found) if layer.rectified else found


def _gamma(layer: _Convolution, a: Tensor, weight: Tensor, bias: Tensor, gamma: float, signed: bool) -> Tensor:
    """The positive part of W a + b, with the gradient of the gamma rule."""
    up, down = weight + gamma * weight.clamp(min=0), weight + gamma * weight.clamp(max=0)
    return _Share.apply(a, layer, weight, bias, up, down, bias + gamma * bias.clamp(min=0), signed, True, True)


class _Share(torch.autograd.Function):
    """W a + b by value (its positive part if `rectified`), with the gradient of z, times value / z.

    z = up a + own_bias, or up a⁺ + down a⁻ + own_bias if `signed`; positive wherever the value is not 0.
    """

    @staticmethod
    def forward(ctx, a: Tensor, layer: _Convolution, weight: Tensor, bias: Tensor, up: Tensor, down: Tensor,
                own_bias: Tensor, signed: bool, rectified: bool, may_cancel: bool) -> Tensor:  # fmt: skip
        inputs, own = a, up
        if signed:
            inputs, own, weight = layer.signs(a), _joined(up, down), _joined(weight, weight)
        true = F.conv2d(inputs, weight, bias, **layer.options)
        if rectified:  # relevance ends where nothing comes out
            true.relu_()
        # In place here and below: on a CPU, new memory for maps of this size costs more than the arithmetic.
        z = F.conv2d(inputs, own, own_bias + EPSILON, **layer.options)
        if may_cancel:  # else all of its terms are positive
            z.clamp_min_(EPSILON)
        ctx.save_for_backward(a, inputs, own, torch.div(true, z, out=z))
        ctx.options, ctx.signed = layer.options, signed
        return true

    @staticmethod
    def backward(ctx, gradient: Tensor):
        a, inputs, own, share = ctx.saved_tensors
        stride, padding, dilation, groups = (ctx.options[name] for name in ("stride", "padding", "dilation", "groups"))
        # conv2d_input of torch.nn.grad does the same, but loses channels_last and with it a third of the speed.
        only_inputs = (True, False, False)
        found, *_ = torch.ops.aten.convolution_backward(
            share.mul_(gradient), inputs, own, None, stride, padding, dilation, False, (0, 0), groups, only_inputs
        )
        if ctx.signed:
            above, below = found.unflatten(1, (groups, 2, -1)).unbind(2)
            # Chooses by 0 and 1 and is exact; torch.where takes three times as long where signs alternate.
            found = torch.lerp(below.flatten(1, 2), above.flatten(1, 2), (a > 0).to(a.dtype))
        return found, *[None] * 9


def _joined(one: Tensor, other: Tensor) -> Tensor:
    """Weights of both signs' channels, in the layout of `_Convolution.signs`."""
    return torch.cat([one, other], 1).contiguous(memory_format=torch.channels_last)


def _away_from_zero(z: Tensor) -> Tensor:
    z = z.detach()
    return z + torch.full_like(z, EPSILON).copysign(z)


def _linear(layer: nn.Linear) -> Layer:
    weight = layer.weight.detach().clone()
    bias = None if layer.bias is None else layer.bias.detach().clone()

    def step(a: Tensor) -> Tensor:
        z = F.linear(a, weight, bias)
        return z * (z / _away_from_zero(z)).detach()

    return step


_PLAIN: dict[type, Callable[[nn.Module], Layer]] = {
    nn.ReLU: lambda layer: F.relu,
    **dict.fromkeys((nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.AlphaDropout), lambda layer: lambda a: a),
    nn.Identity: lambda layer: lambda a: a,
    nn.Flatten: lambda layer: lambda a: a.flatten(layer.start_dim, layer.end_dim),
    nn.AdaptiveAvgPool2d: lambda layer: lambda a: F.adaptive_avg_pool2d(a, layer.output_size),
    nn.AvgPool2d: lambda layer: layer.forward,
    nn.MaxPool2d: lambda layer: layer.forward,
    nn.Linear: _linear,
}


# What to do about layers that others can stand for, with the same numbers.
_INSTEAD: dict[type, str] = {
    nn.modules.conv._ConvNd: "A Conv1d of kernel k is a Conv2d of kernel (1, k) with its weight[:, :, None], on "
                             "inputs[:, :, None]; norms and pools after it take two dimensions likewise",
    nn.BatchNorm1d: "Fold it into the layer before it by torch.nn.utils.fusion: fuse_linear_bn_eval, or "
                    "fuse_conv_bn_eval",
    nn.LazyLinear: "Call the network once, which makes it a Linear",
}  # fmt: skip


def _flat(model: nn.Module) -> list[nn.Module]:
    if isinstance(model, nn.Sequential) and type(model).forward is nn.Sequential.forward:
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
            hint = next((f". {hint}" for kind, hint in _INSTEAD.items() if isinstance(layer, kind)), "")
            raise TypeError(f"LRP has no rule for {type(layer).__name__} (layer {place}); known are {known}, and "
                            f"BatchNorm2d right after Conv2d{hint}")  # fmt: skip
    return found
