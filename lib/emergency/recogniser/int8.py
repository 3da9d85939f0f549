"""A Whisper whose encoder and head compute in 8 bits: less than half of the time on a CPU, for a loss that is measured.

    quick = quantised(model)   # says nearly the same; `voting.int8_gate` asks how nearly before it is used

Weights are quantised once, each output by its own scale; activations anew for each call, by their range (dynamic
quantisation, Jacob et al. 2018). Convolutions become linear layers of their windows, queries, keys and values one
layer. The decoder keeps its precision: its mistakes add up from word to word.
"""

import copy

import torch
from torch import Tensor, nn

from lib.emergency.recogniser.packed import windows
from lib.emergency.whisper.model import EmergencyWhisper


def quantised(model: EmergencyWhisper) -> EmergencyWhisper:
    """A copy in evaluation mode and for the CPU that shares the decoder with `model`, which is left as it is."""
    whisper, encoder = model.whisper, model.whisper.model.encoder
    replaced = [encoder.conv1, encoder.conv2, model.head[0], model.head[2]]
    replaced += [one for layer in encoder.layers for one in (layer.self_attn, layer.fc1, layer.fc2)]
    # What is shared or replaced is not copied: a weight takes memory as it was and in 8 bits, and not a third time.
    kept = (whisper.model.decoder, whisper.proj_out, model.tokenizer, *replaced)
    found = copy.deepcopy(model, {id(one): one for one in kept})
    encoder = found.whisper.model.encoder
    encoder.conv1, encoder.conv2 = (Int8Convolution(conv) for conv in (encoder.conv1, encoder.conv2))
    for layer in encoder.layers:
        layer.self_attn = Int8Attention(layer.self_attn)
        layer.fc1, layer.fc2 = (Int8Linear(one.weight, one.bias) for one in (layer.fc1, layer.fc2))
    found.head[0], found.head[2] = (Int8Linear(one.weight, one.bias) for one in (found.head[0], found.head[2]))
    return found.eval()


class Int8Linear(nn.Module):
    """x (…, inputs) float32 -> (…, outputs) float32; weight (outputs, inputs), bias (outputs,) or None."""

    @torch.no_grad()
    def __init__(self, weight: Tensor, bias: Tensor | None):
        super().__init__()
        self.out_features, self.in_features = weight.shape
        scales = (weight.float().abs().amax(1) / 127).clamp_min(1e-12)
        zeros = torch.zeros(len(scales), dtype=torch.long)
        rounded = torch.quantize_per_channel(weight.float(), scales, zeros, 0, torch.qint8)
        # Kept beside what is packed, so that a digest of the model covers them.
        self.register_buffer("weight", rounded.int_repr())
        self.register_buffer("scales", scales)
        self.register_buffer("bias", None if bias is None else bias.detach().float().clone())
        self._packed = _packed(rounded, self.bias)

    def forward(self, x: Tensor) -> Tensor:
        # 7 bits for activations: sums of two products of 8 bits overflow on processors without VNNI.
        return torch.ops.quantized.linear_dynamic(x, self._packed, reduce_range=True)


def _packed(weight: Tensor, bias: Tensor | None) -> torch.ScriptObject:
    """For oneDNN where PyTorch has it, which knows more of a processor (AMX): two thirds of the time."""
    before = torch.backends.quantized.engine
    if "onednn" in torch.backends.quantized.supported_engines:
        torch.backends.quantized.engine = "onednn"
    try:
        return torch.ops.quantized.linear_prepack(weight, bias)
    finally:
        torch.backends.quantized.engine = before


class Int8Convolution(nn.Module):
    """nn.Conv1d of stride s and padding p as a linear layer: (B, channels, n) -> (B, outputs, n / s)."""

    def __init__(self, conv: nn.Conv1d):
        super().__init__()
        self.kernel, self.stride, self.padding = conv.kernel_size[0], conv.stride[0], conv.padding[0]
        self.linear = Int8Linear(conv.weight.flatten(1), conv.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(windows(x, self.kernel, self.stride, self.padding)).mT


class Int8Attention(nn.Module):
    """Self-attention of Whisper's encoder, (B, n, d) -> (B, n, d); the products of queries and keys stay float32."""

    @torch.no_grad()
    def __init__(self, attention: nn.Module):
        super().__init__()
        self.heads = attention.num_heads
        parts = (attention.q_proj, attention.k_proj, attention.v_proj)
        biases = [torch.zeros_like(one.weight[:, 0]) if one.bias is None else one.bias for one in parts]
        weights, biases = ([one[0] * attention.scaling, *one[1:]] for one in ([p.weight for p in parts], biases))
        self.together = Int8Linear(torch.cat(weights), torch.cat(biases))  # queries come out scaled
        self.out = Int8Linear(attention.out_proj.weight, attention.out_proj.bias)

    def forward(self, hidden_states: Tensor, **_) -> tuple[Tensor, None]:
        query, key, value = self.together(hidden_states).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = (query @ key.mT).softmax(-1) @ value  # (B, heads, n, d / heads)
        return self.out(mixed.transpose(1, 2).flatten(2)), None
