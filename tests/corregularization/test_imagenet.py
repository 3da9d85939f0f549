"""Measures of the filters of given networks: near-duplicates, pruning criteria, probes."""

import pytest
import torch
from torch import nn
from torchvision import models

from lib.corregularization import imagenet
from lib.data.images import load_images


def network(*kernels):
    """Return a network of convolutions with these kernels."""
    layers = [nn.Conv2d(kernel.shape[1], len(kernel), kernel.shape[2], padding=1) for kernel in kernels]
    for layer, kernel in zip(layers, kernels, strict=True):
        layer.weight.data.copy_(kernel)
        layer.bias.data.zero_()
    return nn.Sequential(*layers).eval().requires_grad_(False)


def test_copies_and_opposites_are_counted():
    torch.manual_seed(0)
    kernel = torch.randn(6, 3, 3, 3)
    kernel[1], kernel[3] = 2 * kernel[0], -kernel[2]
    table = imagenet.similarity_table({"one": network(kernel), "two": network(torch.randn(6, 3, 3, 3))}, {}, seed=0)
    assert not table[(table.network == "two") & (table.filters == "trained")].near_duplicates.any()
    table = table[table.network == "one"].set_index("filters")
    assert table.loc["trained", "near_duplicates"] == 2
    assert table.loc["trained", "max"] == pytest.approx(1) and table.loc["trained", "most_opposite"] == pytest.approx(
        -1
    )
    assert table.loc["random", "near_duplicates"] == 0 and table.loc["orthogonal", "max"] < 1e-6
    assert table.loc["random", "rms"] == pytest.approx(27**-0.5, rel=0.35)  # of n vectors in d dimensions, d^-1/2


def test_what_each_criterion_removes():
    layer = nn.Conv2d(3, 5, 3)
    layer.weight.data = torch.randn(5, 3, 3, 3, generator=torch.Generator().manual_seed(0))
    layer.weight.data[4] = 1.01 * layer.weight.data[0]
    layer.weight.data[2] *= 0.01
    draw = torch.Generator().manual_seed(0)
    assert imagenet.CRITERIA["most similar"](layer, 0.2, draw).tolist() == [False, True, True, True, True]
    assert imagenet.CRITERIA["shortest"](layer, 0.2, draw).tolist() == [True, True, False, True, True]
    assert all(
        imagenet.CRITERIA["random"](layer, share, draw).sum() == 5 - round(5 * share) for share in (0.0, 0.2, 0.6)
    )
    assert imagenet.CRITERIA["random"](layer, 0.99, draw).sum() == 1  # never all


def test_pruning_what_answers_nothing_costs_nothing():
    torch.manual_seed(0)
    kernel = torch.randn(8, 3, 3, 3)
    kernel[4:] *= 1e-9  # half of the filters are almost zero
    train, test = (load_images("shapes-plain", split, count=60) for split in ("train", "test"))
    model = network(kernel)
    table = imagenet.pruning_table(model, train, test, [0.0, 0.5], seed=0).set_index(["removed", "share"]).accuracy
    assert table["shortest", 0.5] == pytest.approx(table["shortest", 0.0], abs=2)
    assert table["most similar", 0.0] == table["random", 0.0] == table["shortest", 0.0]
    assert torch.equal(model[0].weight, kernel)


def test_pixels_are_normalised_as_torchvision_does():
    images = load_images("shapes", "train", count=4)
    wanted = models.VGG16_Weights.IMAGENET1K_V1.transforms(crop_size=32, resize_size=32)(images.pixels)
    found = imagenet.features(nn.Identity(), images)
    torch.testing.assert_close(found, wanted.mean((2, 3)), atol=1e-5, rtol=1e-5)
