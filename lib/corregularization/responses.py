"""The penalty on the responses of filters, which a model shows through forward hooks.

Filters that are orthogonal as vectors still respond alike when their inputs are correlated:
the correlation of two responses is w_iᵀ S w_j, with S the covariance of the input patches.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch import Tensor, nn

from lib.corregularization.losses import PenaltyError, mean_by_name, response_penalty


class ResponsePenalty:
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
        """Take the hooks off the model."""
        for hook in self.hooks:
            hook.remove()
        self.outputs.clear()
