"""Explanations of a Whisper encoder's class on the spectrogram: CP-LRP, attention rollout and input x gradient.

Conservative propagation (Ali et al. 2022, XAI for Transformers: Better Explanations through Conservative Propagation)
holds the attention weights and the standard deviations of the layer norms at their values in the forward pass, here
also the ratio GELU(x) / x. The remaining network is linear in the spectrogram, the position embeddings and the biases,
so that its input x gradient attributes the whole output to these three. The input x gradient of the original network
does not: because of the softmax and the layer norms, it may sum to many times the output, with either sign.
"""

from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from lib.emergency.whisper.model import EmergencyWhisper, encode

METHODS = ("CP-LRP", "attention rollout", "input x gradient")


class ClipClassifier(nn.Module):
    """A Whisper with a head as a clip classifier, like the CNN: (B, 1, mels, frames) -> (B, classes)."""

    def __init__(self, model: EmergencyWhisper):
        super().__init__()
        self.model = model

    def forward(self, mel: Tensor) -> Tensor:
        return self.model.clip_logits(self.model(mel[:, 0]))


def explain_clips(classifier: ClipClassifier, mel: Tensor, targets: Tensor, method: str = METHODS[0]) -> Tensor:
    """Apply `explain` to a clip classifier: (B, 1, mels, frames) -> relevance of the same shape."""
    return explain(classifier.model, mel[:, 0], targets, method)[:, None]


def selected(moments: Tensor, targets: Tensor) -> Tensor:
    """Return weights (B, moments, classes) whose dot product with the logits is the explained output: the mean logit
    of `targets` (B,) over the frames predicted as that class, or over all frames if there are none."""
    taken = moments.argmax(-1) == targets[:, None]
    taken |= ~taken.any(1, keepdim=True)
    share = taken.float() / taken.sum(1, keepdim=True)
    return share[:, :, None] * F.one_hot(targets, moments.shape[-1])[:, None]


@torch.inference_mode(False)
def explain(
    model: EmergencyWhisper, mel: Tensor, targets: Tensor, method: str = "CP-LRP", batch_size: int = 16
) -> Tensor:
    """Return the relevance (B, mels, frames) of spectrograms for the classes `targets`, by one of `METHODS`.

    Attention rollout (Abnar & Zuidema 2020) does not resolve frequency: all bands of a frame have the same value.
    """
    if not len(mel):  # transformers' attention does not accept an empty batch
        return mel.float()
    found = []
    for part, wanted in zip(mel.float().clone().split(batch_size), targets.clone().split(batch_size), strict=True):
        if method == "attention rollout":
            found.append(rollout(model, part, wanted)[:, None].expand_as(part))
        else:
            part = part.detach().requires_grad_()
            with torch.enable_grad(), {"CP-LRP": Held, "input x gradient": nullcontext}[method]() as held:
                logits = model(part)
                output = (logits * selected(logits.detach(), wanted)).sum()
            found.append(part.detach() * torch.autograd.grad(output, part)[0])
            if held is not None and not held.attention:  # the softmax of other implementations would not be held
                raise ValueError("CP-LRP needs a Whisper with transformers' attention 'sdpa'")
    return torch.cat(found)


@torch.no_grad()
def rollout(model: EmergencyWhisper, mel: Tensor, targets: Tensor) -> Tensor:
    """Return the share of each frame, (B, frames), in the attention of the `selected` outputs through all layers."""
    with Held() as held:
        states = encode(model.whisper.model.encoder, mel)
    count = states[-1].shape[1]
    flow, itself = [], torch.eye(count, device=mel.device)
    for weights in held.attention:  # half of the flow passes through the residual connection
        flow.append((0.5 * weights.mean(1) + 0.5 * itself) @ (flow[-1] if flow else itself))
    logits = model.head(model.head.mix(states))
    at = selected(logits, targets).sum(2).repeat_interleave(model.head.stack, 1) / model.head.stack  # (B, positions)
    at = F.pad(at, (0, count - at.shape[1]))
    weights = model.head.layer_weights(len(flow))
    whole = sum(weight * one for weight, one in zip(weights, flow, strict=True))
    return (at[:, None] @ whole)[:, 0].repeat_interleave(2, 1)[:, : mel.shape[2]] / 2


class Held(TorchFunctionMode):
    """Context in which the outputs of the encoder and its head are unchanged, but gradients treat all nonlinear factors
    as constants: the logits are the sum of input x gradient and the contributions of position embeddings and biases.

    attention: the weights (B, heads, n, n) of each layer.
    """

    def __init__(self):
        super().__init__()
        self.attention: list[Tensor] = []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function is F.gelu:
            with torch.no_grad():
                slope = torch.where(args[0].abs() > 1e-6, F.gelu(args[0]) / args[0], 0.5)
            return args[0] * slope
        if function is F.layer_norm:
            centred = args[0] - args[0].mean(-1, keepdim=True)
            normal = centred / (centred.square().mean(-1, keepdim=True) + kwargs["eps"]).sqrt().detach()
            return normal if kwargs["weight"] is None else normal * kwargs["weight"] + kwargs["bias"]
        if function is F.scaled_dot_product_attention:
            query, key, value = args
            self.attention.append((query.detach() * kwargs["scale"] @ key.detach().mT).softmax(-1))
            return self.attention[-1] @ value
        return function(*args, **kwargs)
