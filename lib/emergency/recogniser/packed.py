"""A Whisper's encoder and head as they serve on a CPU: weights are laid out once for its products, not at each call.

    packed(model)   # in place: the same weights and gradients, numbers up to rounding, in six sevenths of the time

oneDNN, which PyTorch brings, multiplies by blocks of weights that follow each other in memory. A layer makes them when
it is first called without gradients, and anew once its weight has changed; they take as much memory again. With
gradients, and on an accelerator, a layer is what it was. The decoder stays as it is: it takes one token at a time, and
has little to gain.
"""

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.emergency.whisper.model import EmergencyWhisper

_ROWS = 200  # positions of 4 s: for how many rows blocks are laid out; any number can be multiplied


def packed(model: EmergencyWhisper) -> EmergencyWhisper:
    """The same model, the layers of its encoder and head replaced by ones that share their parameters."""
    for part in (model.whisper.model.encoder, model.head):
        for parent in list(part.modules()):
            for name, layer in list(parent.named_children()):
                if type(layer) in (nn.Linear, nn.Conv1d):
                    setattr(parent, name, _packed(layer))
    return model


def windows(x: Tensor, kernel: int, stride: int, padding: int) -> Tensor:
    """What a convolution sees at each place: (B, channels, n) -> (B, n / stride, channels * kernel)."""
    seen = F.pad(x, (padding, padding)).unfold(2, kernel, stride)  # (B, channels, n / stride, kernel)
    return seen.transpose(1, 2).flatten(2)


class Blocks:
    """The blocks of a weight, for as long as it stays as it is."""

    def __init__(self):
        self._weight, self._state, self._blocks = None, None, None

    def product(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """x (…, inputs), weight (outputs, …) of `inputs` in all, bias (outputs,) or None -> (…, outputs)."""
        if weight.is_inference():  # made in inference mode: it has no version that would tell of a change
            return F.linear(x, weight.flatten(1), bias)
        state = (weight.data_ptr(), weight._version)
        if weight is not self._weight or state != self._state:
            self._blocks = torch.ops.mkldnn._reorder_linear_weight(weight.detach().flatten(1), _ROWS)
            self._weight, self._state = weight, state
        return torch.ops.mkldnn._linear_pointwise(x, self._blocks, bias, "none", [], "")


class PackedLinear(nn.Linear):
    """nn.Linear, (…, inputs) -> (…, outputs)."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.blocks = Blocks()

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks.product(x, self.weight, self.bias) if _serves(x) else super().forward(x)


class PackedConvolution(nn.Conv1d):
    """nn.Conv1d as a linear layer of its `windows`, (B, channels, n) -> (B, outputs, n / stride)."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.blocks = Blocks()

    def forward(self, x: Tensor) -> Tensor:
        if not _serves(x):
            return super().forward(x)
        seen = windows(x, self.kernel_size[0], self.stride[0], self.padding[0])
        return self.blocks.product(seen, self.weight, self.bias).mT


def _packed(layer: nn.Linear | nn.Conv1d) -> PackedLinear | PackedConvolution:
    how = {"bias": layer.bias is not None, "device": "meta"}  # its parameters come from `layer`
    if isinstance(layer, nn.Linear):
        found = PackedLinear(layer.in_features, layer.out_features, **how)
    else:
        found = PackedConvolution(
            layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride, layer.padding, **how
        )
    found.weight, found.bias = layer.weight, layer.bias
    return found.train(layer.training)


def _serves(x: Tensor) -> bool:
    return x.device.type == "cpu" and x.dtype == torch.float32 and not torch.is_grad_enabled() and _known()


@cache
def _known() -> bool:
    """Whether this PyTorch and processor have what oneDNN's blocks take: operators of PyTorch's compiler, which may
    change from version to version and are asked for a product that is known."""
    with torch.inference_mode(False), torch.no_grad():
        x, weight, bias = (torch.arange(float(count)) % 5 - 2 for count in (30, 12, 4))
        x, weight = x.view(2, 5, 3), weight.view(4, 3)
        try:
            return torch.allclose(Blocks().product(x, weight, bias), F.linear(x, weight, bias), atol=1e-5)
        except (AttributeError, RuntimeError, TypeError):
            return False
