"""Where in a spectrogram a Whisper's encoder finds a class: CP-LRP, beside attention rollout and input x gradient.

Conservative propagation (Ali et al. 2022, XAI for Transformers: Better Explanations through Conservative Propagation)
takes the attention weights, the standard deviation of layer norms and the ratio GELU(x) / x as they came out. What is
left is linear in the spectrogram, in the positions and in the biases, so that input x gradient of it shares the output
out among the three without a rest. A plain gradient does not: through the softmax and the layer norms it may add up to
many times the output, of either sign.
"""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.emergency.whisper.model import EmergencyWhisper

METHODS = ("CP-LRP", "attention rollout", "input x gradient")


class ClipClassifier(nn.Module):
    """A Whisper with a head as a classifier of clips, as the CNN is one: (B, 1, mels, frames) -> (B, classes)."""

    def __init__(self, model: EmergencyWhisper):
        super().__init__()
        self.model = model

    def forward(self, mel: Tensor) -> Tensor:
        return self.model.clip_logits(self.model(mel[:, 0]))


def explain_clips(classifier: ClipClassifier, mel: Tensor, targets: Tensor, method: str = METHODS[0]) -> Tensor:
    """`explain` for a classifier of clips: (B, 1, mels, frames) -> the same shape."""
    return explain(classifier.model, mel[:, 0], targets, method)[:, None]


def selected(moments: Tensor, targets: Tensor) -> Tensor:
    """Weights (B, moments, classes) whose product with the logits is what an explanation is of: the mean logit of
    `targets` (B,) over the moments that were taken for it, or over all where none was."""
    taken = moments.argmax(-1) == targets[:, None]
    taken |= ~taken.any(1, keepdim=True)
    share = taken.float() / taken.sum(1, keepdim=True)
    return share[:, :, None] * F.one_hot(targets, moments.shape[-1])[:, None]


@torch.inference_mode(False)
def explain(
    model: EmergencyWhisper, mel: Tensor, targets: Tensor, method: str = "CP-LRP", batch_size: int = 16
) -> Tensor:
    """Relevance (B, mels, frames) of spectrograms for the classes `targets`; one of `METHODS`.

    Attention rollout (Abnar & Zuidema 2020) has no bands: each frame has one value for all.
    """
    if method not in METHODS:
        raise ValueError(f"there is no method {method!r}; choose one of {', '.join(METHODS)}")
    found = []
    for part, wanted in zip(mel.float().clone().split(batch_size), targets.clone().split(batch_size), strict=True):
        if method == "attention rollout":
            found.append(rollout(model, part, wanted)[:, None].expand_as(part))
        else:
            network = partial(linear, model) if method == "CP-LRP" else model
            found.append(_input_x_gradient(network, part, wanted))
    return torch.cat(found)


def linear(model: EmergencyWhisper, mel: Tensor) -> Tensor:
    """The model's logits (B, moments, classes) with everything held that is not linear: their input x gradient, and
    what positions and biases contribute, add up to them."""
    encoder = model.whisper.model.encoder
    return _linear_head(model, _linear_encoder(encoder, mel, _positions(encoder, mel))[0])


@torch.no_grad()
def rollout(model: EmergencyWhisper, mel: Tensor, targets: Tensor) -> Tensor:
    """(B, frames): how much of what the selected moments attend to comes from each frame, through all layers."""
    encoder = model.whisper.model.encoder
    states, attention = _linear_encoder(encoder, mel, _positions(encoder, mel))
    count = states[-1].shape[1]
    flow, itself = [], torch.eye(count, device=mel.device)
    for weights in attention:  # half comes through the residual connection
        flow.append((0.5 * weights.mean(1) + 0.5 * itself) @ (flow[-1] if flow else itself))
    logits = _linear_head(model, states)
    at = selected(logits, targets).sum(2).repeat_interleave(model.head.stack, 1) / model.head.stack  # (B, positions)
    at = F.pad(at, (0, count - at.shape[1]))
    weights = model.head.layer_weights(len(flow))
    whole = sum(weight * one for weight, one in zip(weights, flow, strict=True))
    return (at[:, None] @ whole)[:, 0].repeat_interleave(2, 1)[:, : mel.shape[2]] / 2


@torch.enable_grad()
def _input_x_gradient(model: Callable[[Tensor], Tensor], mel: Tensor, targets: Tensor) -> Tensor:
    mel = mel.detach().clone().requires_grad_()
    logits = model(mel)
    output = (logits * selected(logits.detach(), targets)).sum()
    return (mel * torch.autograd.grad(output, mel)[0]).detach()


def _positions(encoder: nn.Module, mel: Tensor) -> Tensor:
    return encoder.embed_positions.weight[: -(-mel.shape[2] // 2)].detach()


# --- The encoder with everything held that is not linear ------------------------------------------


def _linear_encoder(encoder: nn.Module, mel: Tensor, positions: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """The hidden states of `model.encode`, and the attention (B, heads, n, n) of each layer."""
    hidden = _gelu(encoder.conv2(_gelu(encoder.conv1(mel)))).mT + positions
    states, attention = [], []
    for layer in encoder.layers:
        mixed, weights = _attend(layer.self_attn, _norm(layer.self_attn_layer_norm, hidden))
        hidden = hidden + mixed
        hidden = hidden + layer.fc2(_gelu(layer.fc1(_norm(layer.final_layer_norm, hidden))))
        states.append(hidden)
        attention.append(weights)
    return [*states[:-1], _norm(encoder.layer_norm, hidden)], attention


def _linear_head(model: EmergencyWhisper, states: list[Tensor]) -> Tensor:
    head, hidden = model.head, states[-1]
    if head.layer_logits is not None:
        hidden = sum(weight * _normalised(one) for weight, one in zip(head.layer_weights(), states, strict=True))
    count = hidden.shape[1] // head.stack
    return head[2](_gelu(head[0](hidden[:, : count * head.stack].unflatten(1, (count, head.stack)).flatten(2))))


def _attend(attention: nn.Module, hidden: Tensor) -> tuple[Tensor, Tensor]:
    shape = (*hidden.shape[:2], attention.num_heads, attention.head_dim)
    with torch.no_grad():
        query, key = (project(hidden).view(shape).transpose(1, 2) for project in (attention.q_proj, attention.k_proj))
        weights = (query * attention.scaling @ key.mT).softmax(-1)
    mixed = weights @ attention.v_proj(hidden).view(shape).transpose(1, 2)
    return attention.out_proj(mixed.transpose(1, 2).flatten(2)), weights


def _norm(norm: nn.LayerNorm, x: Tensor) -> Tensor:
    return _normalised(x, norm.eps) * norm.weight + norm.bias


def _normalised(x: Tensor, eps: float = 1e-5) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + eps).sqrt().detach()


def _gelu(x: Tensor) -> Tensor:
    with torch.no_grad():
        slope = torch.where(x.abs() > 1e-6, F.gelu(x) / x, 0.5)
    return x * slope
