"""Copy diagnostics: brute force, copies and strangers, and variance with known parts."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.data.augment import as_float
from lib.laplacian_gan import copying
from lib.laplacian_gan.copying import copy_index, distance, nearest, source_retrieval, variance_shares


def images(count, seed=0, size=6):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, size, size), generator=generator, dtype=torch.uint8)


def brute(queries, candidates):
    a, b = as_float(queries).double().flatten(1), as_float(candidates).double().flatten(1)
    return torch.cdist(a, b) / a.shape[1] ** 0.5


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 5))
def test_nearest_is_that_of_brute_force_in_any_tiles(queries, candidates, tile):
    a, b = images(queries), images(candidates, seed=1)
    kept, copying.TILE = copying.TILE, tile
    try:
        found, index = nearest(a, b)
    finally:
        copying.TILE = kept
    expected = brute(a, b).min(dim=1)
    torch.testing.assert_close(found.double(), expected.values, atol=1e-6, rtol=1e-5)
    assert torch.equal(index, expected.indices)


@pytest.mark.parametrize("tile", [3, 100])
def test_an_image_is_not_its_own_neighbour(tile, monkeypatch):
    monkeypatch.setattr(copying, "TILE", tile)
    a = images(10)
    table = brute(a, a).fill_diagonal_(torch.inf)
    found, index = nearest(a, a, exclude_self=True)
    torch.testing.assert_close(found.double(), table.min(1).values, atol=1e-6, rtol=1e-5)
    assert not (index == torch.arange(10)).any()


def test_nearly_equal_images_are_told_apart():
    """Where differences of squares cancel: one grey level in one pixel."""
    a = images(1, size=32)
    b = a.repeat(2, 1, 1, 1)
    b[1, 0, 0, 0] ^= 1
    found, index = nearest(a, b)
    assert found.item() == 0 and index.item() == 0
    assert distance(a, b[1:]).item() == pytest.approx((2 / 255) / (3 * 32 * 32) ** 0.5)


def test_copies_are_found_and_strangers_are_not():
    sources = images(40)
    index = torch.arange(40)
    noisy = (sources.float() + 2).clamp(0, 255).to(torch.uint8)
    assert source_retrieval(noisy, index, sources) == 1 and copy_index(noisy, sources, index) == 1
    assert copy_index(noisy, sources) == 1
    assert source_retrieval(noisy.roll(1, 0), index, sources) == 0
    assert copy_index(noisy.roll(1, 0), sources, index) == 0
    assert copy_index(torch.full_like(sources, 0), sources) == 0  # black is far from all of them


def test_held_out_images_of_the_same_kind_lie_in_between():
    share = copy_index(images(300, seed=1), images(300))
    assert 0.0 < share < 1.0


def test_memory_is_that_of_tiles():
    seen = []
    original = copying._flat
    copying._flat = lambda pixels: seen.append(len(pixels)) or original(pixels)
    try:
        nearest(images(5000, size=2), images(4500, seed=1, size=2))
    finally:
        copying._flat = original
    assert max(seen) == copying.TILE


# -- variance --------------------------------------------------------------------------------

P, Z = 40, 30


def effects():
    generator = torch.Generator().manual_seed(0)
    return (
        torch.randn(P, 1, 3, 4, 4, generator=generator, dtype=torch.float64),
        torch.randn(1, Z, 3, 4, 4, generator=generator, dtype=torch.float64),
        torch.randn(P, Z, 3, 4, 4, generator=generator, dtype=torch.float64),
    )


def test_variance_of_pure_effects():
    pyramid, z, both = effects()
    assert variance_shares(pyramid.expand(P, Z, -1, -1, -1))["pyramid"] == pytest.approx(1)
    assert variance_shares(z.expand(P, Z, -1, -1, -1))["z"] == pytest.approx(1)
    assert variance_shares(both)["both"] == pytest.approx(1, abs=0.02)
    assert variance_shares(pyramid * z)["both"] == pytest.approx(1, abs=0.1)


def test_variance_of_a_sum():
    pyramid, z, both = effects()
    shares = variance_shares(3 * pyramid + 2 * z + both)
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["pyramid"] == pytest.approx(9 / 14, abs=0.08)
    assert shares["z"] == pytest.approx(4 / 14, abs=0.08)
    assert shares["both"] == pytest.approx(1 / 14, abs=0.03)


def test_images_that_never_vary_have_no_shares():
    assert set(variance_shares(torch.zeros(2, 2, 3, 4, 4)).values()) == {0.0}


# -- what is refused -------------------------------------------------------------------------


def test_wrong_sizes_are_refused():
    with pytest.raises(ValueError, match="cannot be compared pixel by pixel"):
        nearest(images(2), images(2, size=8))
    with pytest.raises(ValueError, match="leave no neighbour"):
        nearest(images(1), images(1), exclude_self=True)
    with pytest.raises(ValueError, match="at least 2 pyramids x 2 latents"):
        variance_shares(torch.zeros(1, 5, 3, 4, 4))
    with pytest.raises(TypeError, match="uint8"):
        nearest(images(2).float(), images(2))
