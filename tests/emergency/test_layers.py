"""The table of a network's layers, and its drawing."""

import torch
from torch import nn

from lib.emergency.figures import layer_table, layers


def test_layers_are_those_that_have_weights_or_change_the_shape():
    network = nn.Sequential(nn.Conv2d(1, 4, 3, stride=2, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2),
                            nn.Flatten(), nn.Linear(4 * 2 * 3, 5)).eval()  # fmt: skip
    table = layer_table(network, torch.zeros(1, 1, 8, 12), what="input")
    assert table.layer.tolist() == ["input", "Conv2d 3 x 3, stride 2, 1 → 4", "MaxPool2d", "Flatten", "Linear 24 → 5"]
    assert table["shape"].tolist() == ["1 x 8 x 12", "4 x 4 x 6", "4 x 2 x 3", "24", "5"]
    assert table.parameters.tolist() == [0, 40, 0, 0, 125]
    assert not any(layer._forward_hooks for layer in network) and len(layers(table).axes[0].patches) == 5
