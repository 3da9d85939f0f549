"""Distances between feature sets: closed forms, properties, and other implementations."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_fid.fid_score import calculate_frechet_distance
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from lib.metrics import MetricError, fid
from lib.metrics.features import Extractor
from lib.metrics.fid import (
    compare,
    frechet_distance,
    kid,
    neighbourhoods,
)


def normal(count, dimensions, seed, scale=1.0, shift=0.0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, dimensions, generator=generator, dtype=torch.float64) * scale + shift


def test_bad_features_are_refused():
    features = torch.zeros(4, 3)
    features[1, 2], features[3] = math.nan, math.inf
    with pytest.raises(MetricError, match="features of 2 of 4 images are not finite"):
        frechet_distance(features, features)


# --- Fréchet distance ---------------------------------------------------------------------------


def test_equal_covariances_leave_the_squared_gap_of_the_means():
    features = normal(300, 8, 0)
    assert frechet_distance(features, features + 2) == pytest.approx(8 * 4, rel=1e-9)


def test_diagonal_gaussians():
    one, two = torch.tensor([1.0, 4, 9]).double(), torch.tensor([4.0, 0, 1]).double()
    corners = torch.tensor(list(itertools.product([-1.0, 1], repeat=3))).double() * (7 / 8) ** 0.5  # covariance 1
    a, b = corners * one.sqrt(), corners * two.sqrt() + torch.tensor([1.0, 0, 2])
    expected = 5 + (one.sqrt() - two.sqrt()).square().sum().item()
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-12)


def shapes(draw):
    """Draw two sets of features, of full rank or not."""
    dimensions = draw(st.integers(2, 6))
    seed = draw(st.integers(0, 1000))
    a = normal(draw(st.integers(2, 20)), dimensions, seed)
    b = normal(draw(st.integers(2, 20)), dimensions, seed + 1, draw(st.sampled_from([0.0, 0.3, 5.0])), 0.5)
    return a, b


@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_properties(data):
    a, b = shapes(data.draw)
    scale = (a.square().sum() + b.square().sum()).item()
    distance = frechet_distance(a, b)
    assert distance >= 0
    assert frechet_distance(b, a) == pytest.approx(distance, abs=1e-6 * scale)
    rotation = torch.linalg.qr(normal(a.shape[1], a.shape[1], 5)).Q
    assert frechet_distance(a @ rotation, b @ rotation) == pytest.approx(distance, abs=1e-6 * scale)
    assert frechet_distance(a, a) < 1e-6


@pytest.mark.parametrize("count", [50, 1000])
def test_a_set_has_no_distance_from_itself_in_many_dimensions(count):
    features = (normal(count, 200, 0) * torch.logspace(0, -2, 200)).float()
    features[:, ::7] = 0  # dead features
    assert frechet_distance(features, features) < 1e-6


@pytest.mark.parametrize("count", [600, 40], ids=["full rank", "rank deficient"])
def test_agreement_with_pytorch_fid(count):
    a, b = normal(count, 64, 0).relu(), normal(count + 10, 64, 1, 1.3, 0.2).relu()
    theirs = [x for f in (a, b) for x in (f.numpy().mean(0), np.cov(f.numpy(), rowvar=False))]
    assert frechet_distance(a, b) == pytest.approx(calculate_frechet_distance(*theirs), rel=1e-4)


# --- KID ----------------------------------------------------------------------------------------


def test_kid_by_loops(monkeypatch):
    monkeypatch.setattr(fid, "KID_SUBSETS", 5)
    a, b = normal(12, 4, 0).double(), normal(15, 4, 1, 1.1, 0.1).double()
    draw, values = np.random.RandomState(3), []
    for _ in range(5):
        x, y = (s[draw.choice(len(s), 6, replace=False)] for s in (a, b))
        inside = [(u @ v / 4 + 1) ** 3 for s in (x, y) for i, u in enumerate(s) for j, v in enumerate(s) if i != j]
        across = [(u @ v / 4 + 1) ** 3 for u in x for v in y]
        values.append(sum(inside).item() / 30 - 2 * sum(across).item() / 36)
    found, reach = kid(a, b, seed=3), 1.96 * np.std(values)  # half of 12 without replacement: factor 1
    assert found["kid"] == pytest.approx(np.mean(values), abs=1e-12)
    assert [found["kid_low"], found["kid_high"]] == pytest.approx([np.mean(values) - reach, np.mean(values) + reach])


def test_kid_is_unbiased_and_its_interval_covers():
    """On 40 pairs of sets with the same true value."""
    truth = kid(normal(4000, 4, 1, shift=0.3), normal(4000, 4, 2), seed=0)["kid"]
    found = [kid(normal(200, 4, 10 + i, shift=0.3), normal(200, 4, 90 + i), seed=0) for i in range(40)]
    means = np.array([k["kid"] for k in found])
    assert abs(means.mean() - truth) < 3 * means.std() / 40**0.5
    assert sum(k["kid_low"] <= truth <= k["kid_high"] for k in found) >= 34
    same = [kid(normal(100, 4, 200 + i), normal(100, 4, 300 + i), seed=0)["kid"] for i in range(40)]
    assert min(same) < 0 < max(same)


# --- Precision, recall, density, coverage -------------------------------------------------------


def brute_force(fake, real):
    def distances(x, y):
        return np.linalg.norm(x[:, None] - y[None], axis=2)

    def radii(x, k):
        return np.sort(distances(x, x), axis=1)[:, k]

    fake, real = fake.numpy(), real.numpy()
    gaps = distances(fake, real)
    near = radii(real, 5)
    return {
        "precision": (gaps <= radii(real, 3)).any(1).mean(),
        "recall": (gaps <= radii(fake, 3)[:, None]).any(0).mean(),
        "density": (gaps <= near).sum(1).mean() / 5,
        "coverage": (gaps.min(0) <= near).mean(),
    }


@pytest.mark.parametrize("rows", [1024, 9, 2])
@pytest.mark.parametrize("shift", [0.0, 1000.0])
def test_neighbourhoods_are_those_of_brute_force(rows, shift, monkeypatch):
    monkeypatch.setattr(fid, "ROWS", rows)
    fake, real = normal(50, 3, 0, 1.2, 1 + shift), normal(60, 3, 1, shift=shift)
    found = neighbourhoods(fake, real)
    assert found == pytest.approx(brute_force(fake, real), abs=1e-12)
    assert 0 < found["precision"] < 1 and 0 < found["recall"] < 1


def test_neighbourhoods_of_known_sets():
    real = normal(50, 3, 0)
    same = neighbourhoods(real, real)
    assert same["precision"] == same["recall"] == same["coverage"] == 1 and same["density"] > 1
    assert set(neighbourhoods(real + 100, real).values()) == {0}
    collapsed = neighbourhoods(real[:1].expand(50, 3), real)
    assert collapsed["precision"] == 1 and collapsed["coverage"] < 0.3 and collapsed["recall"] == 1 / 50
    constant = torch.full((20, 3), 0.1).double()
    assert neighbourhoods(constant, constant) == {"precision": 1, "recall": 1, "density": 4, "coverage": 1}


class Largest(TorchDispatchMode):
    """Records the size of the largest tensor that any operation returns."""

    def __init__(self):
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for part in result if isinstance(result, tuple | list) else [result]:
            if isinstance(part, torch.Tensor):
                self.numel = max(self.numel, part.numel())
        return result


def test_no_table_of_all_pairs_is_held(monkeypatch):
    monkeypatch.setattr(fid, "ROWS", 20)
    with Largest() as largest:
        neighbourhoods(normal(400, 3, 0), normal(500, 3, 1))
    assert largest.numel <= 500 * 20  # all pairs would be 200,000


# --- One pass -----------------------------------------------------------------------------------


class Projection(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(normal(3 * 8 * 8, 5, 0).float())

    def forward(self, pixels):
        return pixels.float().flatten(1) @ self.weight / 255


@pytest.fixture
def extractor():
    return Extractor("projection", "12345678", Projection())


def pixels_of(count, seed=0, size=8):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, size, size), generator=generator, dtype=torch.uint8)


def test_what_cannot_be_described_is_refused(extractor):
    with pytest.raises(MetricError, match="uint8"):
        extractor(torch.zeros(2, 3, 8, 8))
    extractor.network.weight.data[0, 0] = math.nan
    broken = extractor(pixels_of(2))
    with pytest.raises(MetricError, match="not finite"):
        frechet_distance(broken, broken)


def test_compare(extractor):
    fake, real = extractor(pixels_of(120)), extractor(pixels_of(150, 1))
    row = compare(fake, real, seed=0)
    assert list(row) == [
        *("fid", "kid", "kid_low", "kid_high", "precision", "recall", "density", "coverage"),
        *("n_fake", "n_real"),
    ]
    assert (row["n_fake"], row["n_real"]) == (120, 150)
    assert row["kid_low"] < row["kid"] < row["kid_high"]
    assert row == compare(fake, real, seed=0)
    assert row["fid"] == frechet_distance(fake, real)
    assert compare(fake, fake, seed=0)["fid"] < 1e-6
    some = torch.randperm(150, generator=torch.Generator().manual_seed(0))[:120]  # as many of each
    assert row | neighbourhoods(fake.double(), real[some].double()) == row


def test_sets_that_do_not_compare_are_refused():
    one, few = normal(100, 4, 0), normal(99, 4, 0)
    with pytest.raises(MetricError, match="at least 100 images of each set, not 99"):
        compare(few, one, seed=0)
    with pytest.raises(MetricError, match="at least 100 images of each set, not 99"):
        compare(one, few, seed=0)
