"""The penalty on the responses of filters, or in the geometry of their inputs.

Filters that are orthogonal as vectors still respond alike when their inputs are correlated:
the correlation of two responses is w_iᵀ S w_j, with S the covariance of the input patches.
Both penalties watch a model through forward hooks and hold what the last passes showed.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from lib.corregularization.losses import PenaltyError, as_matrix, gram_penalty, mean_by_name, response_penalty


class Hooked:
    """A penalty that watches layers through `hooks` until it is closed."""

    hooks: list[RemovableHandle]

    def close(self) -> None:
        """Take the hooks off the model."""
        for hook in self.hooks:
            hook.remove()


class ResponsePenalty(Hooked):
    """Mean over layers of a penalty on their last responses (B, C, H, W), gradient included.

    Call it after the forward pass and before the backward pass. penalty: `response_penalty`
    (correlation of channels, the default) or any other function of responses.
    """

    def __init__(self, layers: Mapping[str, nn.Module], penalty: Callable[..., Tensor] = response_penalty, **options):
        self.penalty = partial(penalty, **options)
        self.outputs: dict[str, Tensor] = {}
        self.hooks = [layer.register_forward_hook(partial(self._keep, name)) for name, layer in layers.items()]

    def _keep(self, name: str, _layer: nn.Module, _inputs: Any, output: Tensor) -> None:
        self.outputs[name] = output.clone()  # an in-place ReLU may follow

    def __call__(self) -> Tensor:
        if not self.outputs:
            raise PenaltyError("there are no responses yet: run the model before asking for the penalty")
        return mean_by_name(self.penalty, self.outputs)

    def close(self) -> None:
        super().close()
        self.outputs.clear()


class WhitenedPenalty(Hooked):
    """Mean over layers of the Gram penalty in the metric S, the running covariance of each layer's input patches.

    momentum: weight of the newest batch in S. patches: how many enter per batch. ridge: added
    to S as this share of its mean variance, so that flat inputs leave it positive definite.
    Its state (S per layer) belongs into the checkpoint: register it with the accelerator.
    """

    def __init__(
        self,
        layers: Mapping[str, nn.Conv2d],
        *,
        momentum: float = 0.1,
        patches: int = 1024,
        ridge: float = 1e-2,
        **options,
    ):
        wrong = [
            name
            for name, layer in layers.items()
            if not isinstance(layer, nn.Conv2d) or layer.padding_mode != "zeros" or isinstance(layer.padding, str)
        ]
        if wrong:
            raise PenaltyError(
                f"patch covariances need 2-D convolutions with zero padding given in numbers; these are none: {wrong}"
            )
        self.layers, self.options = layers, options
        self.momentum, self.patches, self.ridge = momentum, patches, ridge
        self.covariance: dict[str, Tensor] = {}
        self.hooks = [layer.register_forward_pre_hook(partial(self._update, name)) for name, layer in layers.items()]

    @torch.no_grad()
    def _update(self, name: str, layer: nn.Conv2d, inputs: tuple[Tensor, ...]) -> None:
        if not layer.training:
            return
        image = inputs[0].detach().float()
        with torch.autocast(image.device.type, enabled=False):
            per_image = -(-image.shape[2] // layer.stride[0]) * -(-image.shape[3] // layer.stride[1])
            image = image[: max(1, -(-4 * self.patches // per_image))]  # some images, then every k-th patch
            columns = F.unfold(image, layer.kernel_size, layer.dilation, layer.padding, layer.stride)  # (b, d, L)
            rows = columns.transpose(1, 2).reshape(-1, columns.shape[1])
            rows = rows[:: max(1, len(rows) // self.patches)]
            rows = rows - rows.mean(dim=0)
            batch = rows.T @ rows / len(rows)  # (d, d)
        old = self.covariance.get(name)
        self.covariance[name] = batch if old is None else torch.lerp(old, batch, self.momentum)

    def __call__(self) -> Tensor:
        unseen = [name for name in self.layers if name not in self.covariance]
        if unseen:
            raise PenaltyError(f"no input patches were seen yet of {unseen}: run the model in training mode first")
        seen = {name: (layer, self.covariance[name]) for name, layer in self.layers.items()}
        return mean_by_name(self._penalty, seen)

    def _penalty(self, seen: tuple[nn.Conv2d, Tensor]) -> Tensor:
        layer, metric = seen
        scale = metric.diagonal().mean().clamp_min(1e-12)
        metric = metric / scale + self.ridge * torch.eye(len(metric), device=metric.device)
        return gram_penalty(as_matrix(layer.weight), metric=metric, **self.options)

    def state_dict(self) -> dict[str, Tensor]:
        return dict(self.covariance)

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        device = next(iter(self.layers.values())).weight.device
        self.covariance = {name: value.to(device) for name, value in state.items()}
