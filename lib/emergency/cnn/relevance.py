"""Layer-wise relevance propagation (LRP) through a plain CNN: how much each cell of the input spoke for a class.

    found = relevance(model, mel, targets)  # (B, 1, mels, frames), sums to about the class's logit

LRP sends a logit back through the network, each layer's relevance R_j to its inputs i by their share in z_j
(Bach et al. 2015; the rules by Montavon et al. 2019, Layer-Wise Relevance Propagation: An Overview):

    linear layers: epsilon    R_i = Σ_j a_i w_ij / (z_j + ε sign z_j) R_j      z_j = Σ_i a_i w_ij + b_j
    convolutions: z_plus      the same with w⁺ in the place of w, with w⁻ where a_i < 0, and with b⁺

The rules are zennit's (Anders et al. 2021). captum's LRP forgets its rules after one call, takes inputs for
non-negative, which log-mels are not, and refuses Flatten.
"""

import copy
from functools import partial

import torch
import torch.nn.functional as F
from captum.attr import InputXGradient
from torch import Tensor, nn
from zennit.attribution import Gradient
from zennit.composites import EpsilonPlus
from zennit.torchvision import SequentialMergeBatchNorm

# Layers that zennit has the right rule for; it takes any other's gradient for one.
KNOWN = (nn.Conv2d, nn.BatchNorm2d, nn.Linear, nn.ReLU, nn.Dropout, nn.Flatten, nn.MaxPool2d, nn.AvgPool2d,
         nn.AdaptiveAvgPool2d)  # fmt: skip


def relevance(model: nn.Sequential, inputs: Tensor, targets: Tensor | int) -> Tensor:
    """Relevance of each input cell for the logit of `targets`, in the shape of the inputs.

    Of a copy of the network in evaluation mode. Relevance sums to the logit where nothing is absorbed by biases (a
    batch norm's shift is one).

    Args:
        model: a flat nn.Sequential of layers of `KNOWN`, batch norms right after convolutions.
        inputs: (B, channels, height, width), of the weights' type and device.
        targets: class per input (B,), or one for all.

    Raises:
        TypeError: a layer that no rule is written for.
    """
    # Neither inference mode nor autocast of the caller reaches what follows.
    with torch.inference_mode(False), torch.autocast(inputs.device.type, enabled=False):
        model = copy.deepcopy(model).eval().requires_grad_(False)
        for before, layer in zip([None, *model], model, strict=False):
            if type(layer) not in KNOWN or (type(layer) is nn.BatchNorm2d and type(before) is not nn.Conv2d):
                raise TypeError(f"LRP has no rule for {type(layer).__name__} here, see `KNOWN`; batch norms come right "
                                "after convolutions")  # fmt: skip
        targets = torch.as_tensor(targets, device=inputs.device).expand(len(inputs))
        with Gradient(model, EpsilonPlus(canonizers=[SequentialMergeBatchNorm()])) as attribute:
            return attribute(inputs.detach().clone(), lambda logits: F.one_hot(targets, logits.shape[1]) * logits)[1]


def explain(model: nn.Sequential, mel: Tensor, targets: Tensor, method: str = "LRP", batch_size: int = 32) -> Tensor:
    """Relevance by a named method, in batches: mel (N, 1, mels, frames) of any float type -> float32 on the CPU.

    method: "LRP", or "input x gradient" (captum).
    """
    device = next(model.parameters()).device
    attribute = {
        "LRP": partial(relevance, model),
        "input x gradient": InputXGradient(copy.deepcopy(model).eval()).attribute,  # so that the network keeps its mode
    }[method]
    found = []
    for inputs, wanted in zip(mel.split(batch_size), targets.split(batch_size), strict=True):
        with torch.enable_grad():
            inputs = inputs.to(device, torch.float32).detach().requires_grad_()
            found.append(attribute(inputs, wanted.to(device)).detach().cpu())
    return torch.cat(found)
