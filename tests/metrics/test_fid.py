"""Distances between feature sets: closed forms, properties, and other people's arithmetic."""

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_fid.fid_score import calculate_frechet_distance
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric

from lib.metrics import MetricError, check_pixels, fid
from lib.metrics.codes import check_codes, check_labels
from lib.metrics.features import Extractor
from lib.metrics.fid import (
    FeatureSet,
    Moments,
    check_features,
    compare,
    describe,
    fid_infinity,
    frechet_distance,
    frechet_distance_of_samples,
    kid,
    neighbourhoods,
)
from lib.metrics.perceptual import Perceptual


def normal(count, dimensions, seed, scale=1.0, shift=0.0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, dimensions, generator=generator, dtype=torch.float64) * scale + shift


def feature_set(features, name="random", checksum="0"):
    return FeatureSet(name, checksum, Moments.of(features), features.float(), (32, 32), torch.zeros(1), torch.zeros(1))


# --- Moments ------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 1000),
    cuts=st.lists(st.integers(0, 40), max_size=5),
    shift=st.sampled_from([0.0, 1e4]),
)
def test_moments_in_any_chunking_are_those_of_all_at_once(seed, cuts, shift):
    features = normal(40, 4, seed, shift=shift)
    moments = Moments()
    for start, end in pairwise(sorted({0, 40, *cuts})):
        moments.add(features[start:end])
    assert moments.count == 40
    np.testing.assert_allclose(moments.mean, features.mean(0), rtol=1e-12)
    np.testing.assert_allclose(moments.covariance, np.cov(features.numpy(), rowvar=False), rtol=1e-9, atol=1e-10)


def test_long_chunks_are_split(monkeypatch):
    monkeypatch.setattr(fid, "CHUNK", 7)
    features = normal(40, 4, 0)
    np.testing.assert_allclose(Moments.of(features).covariance, features.T.cov(), rtol=1e-12)


def test_a_covariance_of_one_sample_and_bad_features_are_refused():
    with pytest.raises(MetricError, match="at least 2 samples, not 1"):
        _ = Moments.of(torch.zeros(1, 3)).covariance
    features = torch.zeros(4, 3)
    features[1, 2], features[3] = math.nan, math.inf
    with pytest.raises(MetricError, match="features of 2 of 4 images are not finite"):
        Moments.of(features)
    with pytest.raises(MetricError, match=r"shape \(n, d\), not \(3,\)"):
        Moments.of(torch.zeros(3))


# --- Fréchet distance ---------------------------------------------------------------------------


def moments(mean, covariance):
    made = Moments()
    made.count, made._mean, made._products = 3, torch.as_tensor(mean), 2 * torch.as_tensor(covariance)
    return made


def test_equal_covariances_leave_the_squared_gap_of_the_means():
    features = normal(300, 8, 0)
    assert frechet_distance(Moments.of(features), Moments.of(features + 2)) == pytest.approx(8 * 4, rel=1e-9)


def test_diagonal_gaussians():
    one, two = torch.tensor([1.0, 4, 9]).double(), torch.tensor([4.0, 0, 1]).double()
    a, b = moments(torch.zeros(3).double(), one.diag()), moments(torch.tensor([1.0, 0, 2]).double(), two.diag())
    expected = 5 + (one.sqrt() - two.sqrt()).square().sum().item()
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-12)


def shapes(draw):
    """Two sets of features, full rank or not."""
    dimensions = draw(st.integers(1, 6))
    seed = draw(st.integers(0, 1000))
    a = normal(draw(st.integers(2, 20)), dimensions, seed)
    b = normal(draw(st.integers(2, 20)), dimensions, seed + 1, draw(st.sampled_from([0.0, 0.3, 5.0])), 0.5)
    return a, b


@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_properties(data):
    a, b = shapes(data.draw)
    scale = (a.square().sum() + b.square().sum()).item()
    distance = frechet_distance_of_samples(a, b)
    assert distance >= 0
    assert frechet_distance_of_samples(b, a) == pytest.approx(distance, abs=1e-6 * scale)
    assert frechet_distance(Moments.of(a), Moments.of(b)) == pytest.approx(distance, abs=1e-6 * scale)
    rotation = torch.linalg.qr(normal(a.shape[1], a.shape[1], 5)).Q
    assert frechet_distance_of_samples(a @ rotation, b @ rotation) == pytest.approx(distance, abs=1e-6 * scale)
    for same in (frechet_distance_of_samples(a, a), frechet_distance(Moments.of(a), Moments.of(a))):
        assert same < 1e-6


@pytest.mark.parametrize("count", [50, 1000])
def test_a_set_has_no_distance_from_itself_in_many_dimensions(count):
    features = (normal(count, 200, 0) * torch.logspace(0, -2, 200)).float()
    features[:, ::7] = 0  # dead features
    assert frechet_distance_of_samples(features, features) < 1e-6
    assert frechet_distance(Moments.of(features), Moments.of(features)) < 1e-6


@pytest.mark.parametrize("count", [600, 40], ids=["full rank", "rank deficient"])
def test_agreement_with_pytorch_fid_and_torch_fidelity(count):
    a, b = normal(count, 64, 0).relu(), normal(count + 10, 64, 1, 1.3, 0.2).relu()
    ours = frechet_distance_of_samples(a, b)
    theirs = [x for f in (a, b) for x in (f.numpy().mean(0), np.cov(f.numpy(), rowvar=False))]
    assert ours == pytest.approx(calculate_frechet_distance(*theirs), rel=1e-4)
    statistics = [fid_features_to_statistics(f) for f in (a, b)]
    other = fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]
    assert ours == pytest.approx(other, rel=1e-4)
    assert frechet_distance(Moments.of(a), Moments.of(b)) == pytest.approx(ours, rel=1e-4)


def test_one_sample_has_no_distribution():
    with pytest.raises(MetricError, match="at least 2 samples of each set, not 1 and 5"):
        frechet_distance_of_samples(torch.zeros(1, 3), torch.zeros(5, 3))


# --- FID∞ ---------------------------------------------------------------------------------------


def test_fid_infinity_takes_the_bias_away():
    fakes, truth = normal(2000, 16, 0), normal(100_000, 16, 1)
    real = Moments.of(truth)
    assert abs(fid_infinity(fakes, real, seed=0)) < 0.5 * frechet_distance(Moments.of(fakes), real)
    assert fid_infinity(fakes, real, seed=0) == fid_infinity(fakes, real, seed=0)


@pytest.mark.parametrize("dimensions", [8, 150])
def test_its_largest_subset_is_the_fid(dimensions, monkeypatch):
    """Both routes, below and above as many samples as dimensions."""
    fakes, real = normal(120, dimensions, 0), Moments.of(normal(400, dimensions, 1, 1.2))
    fitted = []
    monkeypatch.setattr(
        np.polynomial.Polynomial, "fit", lambda x, y, degree: fitted.append((1 / x, y)) or (lambda at: 0.0)
    )
    fid_infinity(fakes, real, seed=0)
    ((counts, values),) = fitted
    assert len(counts) == 15 and counts[-1] == 120 and counts[0] == (16 if dimensions == 8 else 60)
    assert values[-1] == pytest.approx(frechet_distance(Moments.of(fakes), real), rel=1e-6)


# --- KID ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("tile", [1024, 37])
def test_kid_is_that_of_torch_fidelity(tile, monkeypatch):
    monkeypatch.setattr(fid, "TILE", tile)
    a, b = normal(150, 12, 0), normal(190, 12, 1, 1.1, 0.1)
    ours = kid(a, b, seed=3, subsets=20, size=60)
    theirs = kid_features_to_metric(a, b, kid_subsets=20, kid_subset_size=60, rng_seed=3, verbose=False)
    assert ours.mean == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-4)
    assert ours.sd == pytest.approx(theirs["kernel_inception_distance_std"], rel=1e-4)


def test_kid_is_unbiased_and_its_interval_covers():
    """40 pairs of sets, each of which has the same true value."""
    truth = kid(normal(4000, 4, 1, shift=0.3), normal(4000, 4, 2), seed=0, subsets=20).mean
    found = [kid(normal(200, 4, 10 + i, shift=0.3), normal(200, 4, 90 + i), seed=0) for i in range(40)]
    means = np.array([k.mean for k in found])
    assert abs(means.mean() - truth) < 3 * means.std() / 40**0.5
    assert sum(k.low <= truth <= k.high for k in found) >= 34
    same = [kid(normal(100, 4, 200 + i), normal(100, 4, 300 + i), seed=0).mean for i in range(40)]
    assert min(same) < 0 < max(same)


@pytest.mark.parametrize(("count", "size"), [(100, 100), (3, None), (100, 1)])
def test_kid_refuses_subsets_that_give_no_interval(count, size):
    with pytest.raises(MetricError, match="needs more than"):
        kid(normal(count, 4, 0), normal(200, 4, 1), seed=0, size=size)


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


@pytest.mark.parametrize("tile", [1024, 9, 2])
@pytest.mark.parametrize("shift", [0.0, 1000.0])
def test_neighbourhoods_are_those_of_brute_force(tile, shift, monkeypatch):
    monkeypatch.setattr(fid, "TILE", tile)
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
    constant = torch.full((20, 3), 0.1)
    assert neighbourhoods(constant, constant) == {"precision": 1, "recall": 1, "density": 4, "coverage": 1}


def test_neighbourhoods_need_neighbours():
    with pytest.raises(MetricError, match="at least 6 images of each set, not 5 and 9"):
        neighbourhoods(normal(5, 3, 0), normal(9, 3, 0))


class Largest(TorchDispatchMode):
    """The number of elements in the largest tensor that any operation returns."""

    def __init__(self):
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for part in result if isinstance(result, tuple | list) else [result]:
            if isinstance(part, torch.Tensor):
                self.numel = max(self.numel, part.numel())
        return result


@pytest.mark.parametrize(
    "measure",
    [neighbourhoods, lambda x, y: kid(x, y, seed=0, subsets=10, size=20)],
    ids=["neighbourhoods", "kid"],
)
def test_no_table_of_all_pairs_is_held(measure, monkeypatch):
    monkeypatch.setattr(fid, "TILE", 20)
    with Largest() as largest:
        measure(normal(400, 3, 0), normal(500, 3, 1))
    assert largest.numel <= 500 * 10  # the marks of the subsets; all pairs would be 200,000


# --- One pass -----------------------------------------------------------------------------------


class Projection(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(normal(3 * 8 * 8, 5, 0).float())

    def forward(self, pixels):
        return pixels.float().flatten(1) @ self.weight / 255


@pytest.fixture
def extractor():
    return Extractor("projection", 5, "none", "12345678", Projection())


def pixels_of(count, seed=0, size=8):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, size, size), generator=generator, dtype=torch.uint8)


@settings(deadline=None, max_examples=15)
@given(sizes=st.lists(st.integers(1, 30), min_size=1, max_size=6), keep=st.sampled_from([1, 10, 200]))
def test_describing_in_any_chunks_is_describing_at_once(sizes, keep):
    extractor = Extractor("projection", 5, "none", "12345678", Projection())
    pixels = pixels_of(sum(sizes) + 1)
    whole = describe(pixels, extractor, keep=keep)
    parts = describe(iter(pixels.split([*sizes, 1])), extractor, keep=keep)
    assert parts.count == whole.count == len(pixels) and len(whole.features) == min(keep, len(pixels))
    torch.testing.assert_close(parts.features, whole.features)
    # The features are float32 and their last digit depends on how many are computed together.
    torch.testing.assert_close(parts.moments.covariance, whole.moments.covariance, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(parts.power, whole.power)
    if keep == 200:
        torch.testing.assert_close(whole.features, extractor(pixels))


def test_kept_features_come_from_all_of_the_set(extractor):
    pixels = pixels_of(400)
    kept = describe(pixels, extractor, keep=100).features
    place = torch.cdist(kept, extractor(pixels)).argmin(1)
    assert (place.diff() > 0).all() and 20 < (place < 200).sum() < 80


def test_what_cannot_be_described_is_refused(extractor):
    with pytest.raises(MetricError, match="iterable of chunks is empty"):
        describe([], extractor)
    with pytest.raises(MetricError, match="uint8"):
        describe(torch.zeros(2, 3, 8, 8), extractor)
    convolution = replace(extractor, network=nn.Sequential(Mean(), nn.Linear(3, 5)))
    with pytest.raises(MetricError, match="different sizes"):
        describe([pixels_of(2), pixels_of(2, size=16)], convolution)
    extractor.network.weight.data[0, 0] = math.nan
    with pytest.raises(MetricError, match="not finite"):
        describe(pixels_of(2), extractor)


class Mean(nn.Module):
    def forward(self, pixels):
        return pixels.float().mean(dim=(2, 3))


def test_compare(extractor):
    fake, real = describe(pixels_of(120), extractor), describe(pixels_of(150, 1), extractor)
    row = compare(fake, real, seed=0)
    assert list(row) == [
        *("fid", "kid", "kid_low", "kid_high", "fid_infinity", "precision", "recall", "density", "coverage"),
        *("n_fake", "n_real", "extractor"),
    ]
    assert (row["n_fake"], row["n_real"], row["extractor"]) == (120, 150, "projection")
    assert row["kid_low"] < row["kid"] < row["kid_high"]
    assert row == compare(fake, real, seed=0)
    assert row["fid"] == pytest.approx(frechet_distance(fake.moments, real.moments))
    assert compare(fake, fake, seed=0)["fid"] < 1e-6


def test_fid_is_of_all_images_even_where_only_some_are_kept(extractor):
    a, b = (describe(pixels_of(30, seed), extractor, keep=4) for seed in (0, 1))
    assert fid.fid(a, b) == frechet_distance(a.moments, b.moments)
    short = [replace(s, features=normal(4, 5, 0).float(), moments=Moments.of(normal(4, 5, 0))) for s in (a, b)]
    assert fid.fid(*short) == frechet_distance_of_samples(short[0].features, short[1].features)


def test_sets_that_do_not_compare_are_refused():
    one, few = feature_set(normal(100, 4, 0)), feature_set(normal(99, 4, 0))
    with pytest.raises(MetricError, match="different extractors"):
        compare(one, feature_set(normal(100, 4, 1), name="other"), seed=0)
    with pytest.raises(MetricError, match="same one"):
        compare(one, feature_set(normal(100, 4, 1), checksum="1"), seed=0)
    with pytest.raises(MetricError, match="at least 100 generated images, not 99"):
        compare(few, one, seed=0)
    with pytest.raises(MetricError, match="at least 100 real images, not 99"):
        compare(one, few, seed=0)
    with pytest.raises(MetricError, match="FID∞ needs at least 100"):
        fid_infinity(few.features, one.moments, seed=0)


def test_images_of_another_size_are_refused(extractor):
    square = describe(torch.randint(0, 256, (120, 3, 8, 8), dtype=torch.uint8), extractor)
    for measure in (fid.fid, lambda *sets: compare(*sets, seed=0)):
        with pytest.raises(MetricError, match="8 x 8 pixels do not compare with real ones of 8 x 9"):
            measure(square, replace(square, size=(9, 8)))


@pytest.mark.parametrize("call", [
    lambda x: check_pixels(x), lambda x: check_features(x), lambda x: check_codes(x), lambda x: check_labels(x),
    lambda x: Perceptual("LPIPS", 1, torch.nn.Identity()).distance(x, x),
])  # fmt: skip
def test_numpy_arrays_are_said_to_be_none(call):
    with pytest.raises(MetricError, match=r"are a numpy.ndarray, expected a torch.Tensor; torch.as_tensor"):
        call(np.zeros((2, 3, 8, 8), np.uint8))


def test_features_of_two_widths_are_refused():
    x, y = normal(30, 4, 0), normal(30, 5, 1)
    for call in (lambda: frechet_distance_of_samples(x, y), lambda: kid(x, y, seed=0),
                 lambda: frechet_distance(Moments.of(x), Moments.of(y))):  # fmt: skip
        with pytest.raises(MetricError, match="of 4 and of 5 dimensions"):
            call()
    with pytest.raises(MetricError, match="frechet_distance_of_samples takes features"):
        frechet_distance(x, x)
