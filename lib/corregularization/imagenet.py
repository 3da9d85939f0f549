"""Networks trained on ImageNet: similarity of their filters, and accuracy of a probe after pruning."""

import copy
import math
from collections.abc import Mapping, Sequence

import pandas as pd
import torch
from torch import Tensor, nn

from lib.corregularization.analysis import CRITERIA, coherence, pair_cosines
from lib.corregularization.losses import as_matrix, select_layers
from lib.corregularization.training import Trained
from lib.data.images import Images
from lib.metrics.clustering import linear_probe
from lib.metrics.imagenet import as_input
from lib.training import predict

ALIKE = 0.9  # |cosine| above which two filters count as near-duplicates
CHUNK = 250  # images per batch


def similarity_table(networks: Mapping[str, nn.Module], arms: Mapping[str, Trained], seed: int) -> pd.DataFrame:
    """Return fig312: similarity of every convolution's filters, and of random and orthogonal ones of the same shape.

    networks: by name. arms: trained arms of the study's CNN, called "CNN, <label>" in the table.

    Random filters are normally distributed. For n > d, where the filters cannot be orthogonal, the columns are.

    Columns: network, layer (from 1), filters ("trained", "random", "orthogonal"), seed, those of `analysis.coherence`,
    most_opposite (the lowest cosine) and near_duplicates (pairs with a |cosine| above `ALIKE`).
    """
    rows, draw = [], torch.Generator().manual_seed(seed)
    ours = {f"CNN, {label}": trained.model for label, trained in arms.items()}
    for network, model in (dict(networks) | ours).items():
        for number, layer in enumerate(select_layers(model).values(), start=1):
            trained = as_matrix(layer.weight).detach()
            random = torch.randn(trained.shape, generator=draw)
            orthogonal = nn.init.orthogonal_(torch.empty_like(random), generator=draw)
            for filters, matrix in (("trained", trained), ("random", random), ("orthogonal", orthogonal)):
                cosines = pair_cosines(matrix)
                row = {"network": network, "layer": number, "filters": filters, "seed": seed}
                row |= coherence(matrix) | {"most_opposite": cosines.min().item()}
                rows.append(row | {"near_duplicates": int((cosines.abs() > ALIKE).sum())})
    return pd.DataFrame(rows)


# --- Pruning -------------------------------------------------------------------------------------


def pruning_table(
    network: nn.Module, train: Images, test: Images, shares: Sequence[float], *, seed: int
) -> pd.DataFrame:
    """Return fig315: accuracy (%) of a linear probe on the network's features, averaged over positions, with a share
    of every convolution's filters set to zero. The probe is refitted each time; the network is not.

    Columns: removed (the criterion), share, seed, images (in `test`), accuracy with low and high (95 %, normal).
    """
    rows, whole = [], _probe(network, train, test)
    for name, criterion in CRITERIA.items():
        for share in shares:
            pruned, draw = copy.deepcopy(network), torch.Generator().manual_seed(seed)
            for layer in select_layers(pruned).values():
                gone = ~criterion(layer, share, draw)
                layer.weight[gone] = layer.bias[gone] = 0
            right = _probe(pruned, train, test) if share else whole
            half = 196 * math.sqrt(right * (1 - right) / len(test))
            row = {"removed": name, "share": share, "seed": seed, "images": len(test), "accuracy": 100 * right}
            rows.append(row | {"low": 100 * right - half, "high": 100 * right + half})
    return pd.DataFrame(rows)


def _probe(network: nn.Module, train: Images, test: Images) -> float:
    return linear_probe(features(network, train), train.labels, features(network, test), test.labels)


def features(network: nn.Module, images: Images) -> Tensor:
    """Return the last layer's output averaged over positions, (N, channels). Normalises pixels as in torchvision."""
    inputs = (as_input(part) for part in images.pixels.split(CHUNK))
    return predict(nn.Sequential(network, nn.AdaptiveAvgPool2d(1), nn.Flatten()), inputs)
