"""Layer-wise relevance propagation (LRP) through a plain CNN: how much each cell of the input spoke for a class.

    found = relevance(model, mel, targets)  # (B, 1, mels, frames), sums to about the class's logit

LRP sends a logit back through the network, each layer's relevance R_j to its inputs i by their share in z_j
(Bach et al. 2015; the rules by Montavon et al. 2019, Layer-Wise Relevance Propagation: An Overview):

    linear layers: epsilon    R_i = Σ_j a_i w_ij / (z_j + ε sign z_j) R_j      z_j = Σ_i a_i w_ij + b_j
    convolutions: z_plus      the same with w⁺ in the place of w, with w⁻ where a_i < 0, and with b⁺

captum's LRP is not used: it forgets its rules after one call, takes inputs for non-negative (log-mels are not) and
refuses Flatten. The tests hold these three facts, so that a repaired captum is noticed. Its input x gradient is used.

Every rule is written as a layer whose value is the network's own and whose gradient is the rule's; then
relevance = input x gradient.
"""

import copy
from functools import partial

import torch
from captum.attr import InputXGradient
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

EPSILON = 1e-6
# Layers whose own gradient is the rule.
PLAIN = (nn.ReLU, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.AlphaDropout, nn.Identity, nn.Flatten, nn.MaxPool2d,
         nn.AvgPool2d, nn.AdaptiveAvgPool2d)  # fmt: skip


def relevance(model: nn.Sequential, inputs: Tensor, targets: Tensor | int) -> Tensor:
    """Relevance of each input cell for the logit of `targets`, in the shape of the inputs.

    Of a copy of the network in evaluation mode. Relevance sums to the logit where nothing is absorbed by biases (a
    batch norm's shift is one).

    Args:
        model: nested nn.Sequential of Conv2d, BatchNorm2d right after it, Linear and layers of `PLAIN`.
        inputs: (B, channels, height, width), of the weights' type and device.
        targets: class per input (B,), or one for all.

    Raises:
        TypeError: a layer that no rule is written for.
        ValueError: inputs or targets of another shape, or targets that are no classes.
    """
    if inputs.ndim != 4:
        raise ValueError(f"inputs are {tuple(inputs.shape)}, expected (B, channels, height, width); a log-mel "
                         "(B, mels, frames) becomes one by mel[:, None]")  # fmt: skip
    targets = torch.as_tensor(targets)
    # Neither inference mode nor autocast of the caller reaches what follows.
    with torch.inference_mode(False), torch.enable_grad(), torch.autocast(inputs.device.type, enabled=False):
        layers = _folded(_flat(copy.deepcopy(model).eval().requires_grad_(False)))
        inputs = inputs.detach().clone().requires_grad_()
        activation = inputs
        for layer in layers:
            if isinstance(layer, nn.Conv2d):
                activation = _z_plus(layer, activation)
            elif isinstance(layer, nn.Linear):
                z = layer(activation)
                activation = z * (z / (z + torch.full_like(z, EPSILON).copysign(z))).detach()
            else:
                activation = layer(activation)
        if activation.ndim != 2:
            raise ValueError(f"the network gives {tuple(activation.shape)}, expected (inputs, classes)")
        fits = not targets.is_floating_point() and targets.shape in ((), inputs.shape[:1])
        if not fits or ((targets < 0) | (targets >= activation.shape[1])).any():
            raise ValueError(f"targets are {targets.tolist()}, expected a class of {activation.shape[1]} for all or "
                             f"one for each of the {len(inputs)} inputs")  # fmt: skip
        targets = targets.to(inputs.device, torch.long).expand(len(inputs)).clone()
        (gradient,) = torch.autograd.grad(activation.gather(1, targets[:, None]).sum(), inputs)
    return inputs.detach() * gradient


def explain(model: nn.Sequential, mel: Tensor, targets: Tensor, method: str = "LRP", batch_size: int = 32) -> Tensor:
    """Relevance by a named method, in batches: mel (N, 1, mels, frames) of any float type -> float32 on the CPU.

    method: "LRP", or "input x gradient" (captum).
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


def _z_plus(layer: nn.Conv2d, a: Tensor) -> Tensor:
    """The layer's output by value, with the gradient of the z_plus rule."""
    weight, bias = layer.weight, layer.bias
    own_bias = EPSILON + (bias.clamp(min=0) if bias is not None else torch.zeros_like(weight[:, 0, 0, 0]))
    with torch.no_grad():
        true, signed = layer(a), bool((a < 0).any())
    z = layer._conv_forward(a.clamp(min=0) if signed else a, weight.clamp(min=0), own_bias)
    if signed:
        z = z + layer._conv_forward(a.clamp(max=0), weight.clamp(max=0), None)
    return z * (true / z.detach())  # z is positive


def _flat(model: nn.Module) -> list[nn.Module]:
    if isinstance(model, nn.Sequential) and type(model).forward is nn.Sequential.forward:
        return [layer for part in model for layer in _flat(part)]
    return [model]


def _folded(layers: list[nn.Module]) -> list[nn.Module]:
    """Batch norms folded into the convolutions before them; TypeError for a layer that is not known."""
    found: list[nn.Module] = []
    for place, layer in enumerate(layers):
        if type(layer) is nn.BatchNorm2d and place and type(layers[place - 1]) is nn.Conv2d:
            found[-1] = fuse_conv_bn_eval(found[-1], layer)
        elif type(layer) in (nn.Conv2d, nn.Linear, *PLAIN):
            found.append(layer)
        else:
            known = ", ".join(kind.__name__ for kind in (nn.Conv2d, nn.Linear, *PLAIN))
            raise TypeError(f"LRP has no rule for {type(layer).__name__} (layer {place}); known are {known}, and "
                            "BatchNorm2d right after Conv2d")  # fmt: skip
    return found
