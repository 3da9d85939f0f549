"""Layer-wise relevance propagation (LRP) through a plain CNN: the contribution of each input cell to a class.

    found = relevance(model, mel, targets)  # (B, 1, mels, frames), sums to about the class's logit

LRP propagates a logit back through the network: each layer distributes the relevance R_j of its outputs over its inputs
i by their share in z_j (Bach et al. 2015; rules: Montavon et al. 2019, Layer-Wise Relevance Propagation: An Overview):

    linear layers: epsilon    R_i = Σ_j a_i w_ij / (z_j + ε sign z_j) R_j      z_j = Σ_i a_i w_ij + b_j
    convolutions: z_plus      the same with w⁺ instead of w, w⁻ where a_i < 0, and b⁺

The implementation is zennit's (Anders et al. 2021). captum's LRP loses its rules after one call, assumes non-negative
inputs, which log-mels are not, and does not support Flatten.
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

# Layers for which zennit has the right rule; for any other layer it uses the plain gradient.
KNOWN = (nn.Conv2d, nn.BatchNorm2d, nn.Linear, nn.ReLU, nn.Dropout, nn.Flatten, nn.MaxPool2d, nn.AvgPool2d,
         nn.AdaptiveAvgPool2d)  # fmt: skip


def relevance(model: nn.Sequential, inputs: Tensor, targets: Tensor | int) -> Tensor:
    """Return the relevance of each input cell for the logit of `targets`, in the shape of the inputs.

    Uses a copy of the network in evaluation mode. Relevance sums to the logit unless biases, including the shifts of
    batch norms, absorb some of it.

    Args:
        model: a flat nn.Sequential of layers of `KNOWN`, with batch norms only directly after convolutions.
        inputs: (B, channels, height, width), with the dtype and device of the weights.
        targets: class of each input, (B,), or one class for all.

    Raises:
        TypeError: there is no rule for a layer.
    """
    # Inference mode and autocast of the caller must not apply here.
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
    """Return the relevance by `method`, in batches: mel (N, 1, mels, frames) of any float type -> float32 on the CPU.

    method: "LRP", or "input x gradient" (captum).
    """
    device = next(model.parameters()).device
    attribute = {
        "LRP": partial(relevance, model),
        "input x gradient": InputXGradient(copy.deepcopy(model).eval()).attribute,  # a copy, to keep the model's mode
    }[method]
    found = []
    for inputs, wanted in zip(mel.split(batch_size), targets.split(batch_size), strict=True):
        with torch.enable_grad():
            inputs = inputs.to(device, torch.float32).detach().requires_grad_()
            found.append(attribute(inputs, wanted.to(device)).detach().cpu())
    return torch.cat(found)
