"""Copy diagnostics against brute force and closed forms."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.laplacian_gan.copying import (
    copy_index,
    distance,
    nearest,
    source_correlation,
    source_retrieval,
    variance_shares,
)


def pixels(count: int, size: int = 6, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, size, size), generator=generator, dtype=torch.uint8)


def grey(*levels: int) -> torch.Tensor:
    return torch.tensor(levels, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 4, 4).contiguous()


def brute(queries: torch.Tensor, candidates: torch.Tensor) -> torch.Tensor:
    """All RMS distances (N, M), float64, on the [-1, 1] scale."""
    a, b = queries.double().flatten(1) / 127.5, candidates.double().flatten(1) / 127.5
    return (a[:, None] - b[None]).square().mean(-1).sqrt()


# --- Nearest ------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 23), st.integers(2, 23), st.integers(0, 1000))
def test_nearest_is_brute_force(queries, candidates, seed):
    pool, asked = pixels(candidates, seed=seed), pixels(queries, seed=seed + 1)
    every = brute(asked, pool)
    found, index = nearest(asked, pool)
    assert torch.equal(index, every.argmin(1))
    torch.testing.assert_close(found.double(), every.min(1).values, rtol=1e-5, atol=1e-7)


def test_nearest_finds_copies_at_distance_zero_and_changes_of_one_level():
    """In float32, |a|² + |b|² - 2ab would lose these: the images are large and the differences small."""
    pool = pixels(300, size=32)
    order = torch.randperm(300, generator=torch.Generator().manual_seed(1))
    found, index = nearest(pool[order], pool)
    assert torch.equal(index, order) and found.max() == 0
    touched = pool[order].clone()
    touched[:, 0, 0, 0] ^= 1
    found, index = nearest(touched, pool)
    assert torch.equal(index, order)
    torch.testing.assert_close(found, torch.full((300,), (1 / 127.5) / 3072**0.5), rtol=1e-4, atol=0)


def test_distance_is_on_the_scale_of_the_images():
    assert distance(grey(0, 0, 255), grey(255, 51, 255)).tolist() == pytest.approx([2, 0.4, 0], abs=1e-6)


def test_a_training_image_that_is_there_twice_still_counts_as_copied():
    pool = grey(0, 0, 200, 200)
    index = torch.tensor([0, 1, 2, 3])
    assert source_retrieval(pool, index, pool) == 1
    assert copy_index(pool, pool, index) == copy_index(pool, pool) == 1
    assert copy_index(grey(1, 199), pool) == 0


# --- Retrieval and copy index -------------------------------------------------------------------


def test_retrieval_of_copies_is_one_and_of_strangers_is_chance():
    pool = pixels(400)
    index = torch.randperm(400, generator=torch.Generator().manual_seed(2))
    assert source_retrieval(pool[index], index, pool) == 1
    assert source_retrieval(pool[index], index.roll(1), pool) == 0
    strangers = source_retrieval(pixels(400, seed=5), index, pool)
    assert strangers < 0.03  # chance is 1/400
    half = torch.cat([pool[index[:200]], pixels(200, seed=6)])
    assert source_retrieval(half, index, pool) == pytest.approx(0.5, abs=0.02)


def test_copy_index_on_a_line():
    """Greys 0, 100, 200 and 210: their distances to the nearest other one are 100, 100, 10 and 10."""
    pool = grey(0, 100, 200, 210)
    assert copy_index(grey(40, 99, 201, 206), pool) == 1
    assert copy_index(grey(225, 140), pool) == 0.5  # 15 from 210, which has a neighbour at 10
    sources = torch.tensor([2, 1])
    assert copy_index(grey(189, 199), pool, sources) == 0.5  # 11 > 10 from 200; 99 < 100 from 100
    assert copy_index(grey(211, 201), pool, torch.tensor([0, 0])) == 0  # close to another image, not to the source


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 20), st.integers(1, 20), st.booleans(), st.integers(0, 1000))
def test_copy_index_is_brute_force(candidates, count, known, seed):
    pool, made = pixels(candidates, 3, seed), pixels(count, 3, seed + 1)
    made[::2] = pool[torch.arange(len(made[::2])) % candidates] // 2 + made[::2] // 2  # halfway to a real image
    every = brute(made, pool)
    among = brute(pool, pool).fill_diagonal_(torch.inf).min(1).values
    index = torch.arange(count) % candidates if known else every.argmin(1)
    near = every.gather(1, index[:, None])[:, 0] < among[index]
    assert copy_index(made, pool, index if known else None) == pytest.approx(near.float().mean().item())


def test_real_images_say_what_is_usual_and_noise_on_top_stays_a_copy():
    pool, fresh = pixels(500), pixels(200, seed=9)
    usual = copy_index(fresh, pool)
    assert 0.2 < usual < 0.8  # by symmetry, about an even chance
    noisy = (pool[:200].int() + torch.randint(-9, 10, pool[:200].shape)).clamp(0, 255).to(torch.uint8)
    assert copy_index(noisy, pool) == copy_index(noisy, pool, torch.arange(200)) == 1


# --- Variance shares ----------------------------------------------------------------------------


def crossed(pyramids: int, latents: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Return effects of pyramids (P, 1, 3, 4, 4) and of latents (1, Z, 3, 4, 4), both of unit variance."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(pyramids, 1, 3, 4, 4, generator=generator)
    return rows, torch.randn(1, latents, 3, 4, 4, generator=generator)


def test_variance_shares_of_pure_effects():
    rows, columns = crossed(7, 5)
    shape = (7, 5, 3, 4, 4)
    for made, name in ((rows.expand(shape), "pyramid"), (columns.expand(shape), "z")):
        shares = variance_shares(made)
        assert set(shares) == {"pyramid", "z", "both"}
        assert shares[name] == pytest.approx(1, abs=1e-6)
    assert variance_shares(torch.full(shape, 0.3)) == {"pyramid": 0, "z": 0, "both": 0}


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 9), st.integers(2, 9), st.floats(0.1, 3), st.integers(0, 1000))
def test_variance_shares_of_a_sum_are_the_effects_variances(pyramids, latents, scale, seed):
    """Without interaction the components are the unbiased variances of the effects, exactly."""
    rows, columns = crossed(pyramids, latents, seed)
    shares = variance_shares(rows + scale * columns)
    by_row, by_column = rows.double().var(0).mean().item(), (scale * columns.double()).var(1).mean().item()
    assert shares["pyramid"] == pytest.approx(by_row / (by_row + by_column), rel=1e-4)
    assert shares["both"] == pytest.approx(0, abs=1e-6)
    assert sum(shares.values()) == pytest.approx(1)


def test_variance_shares_of_a_product_and_of_noise_are_interaction():
    rows, columns = crossed(60, 60, seed=1)
    rows, columns = rows - rows.mean(0), columns - columns.mean(1, keepdim=True)
    product = variance_shares(rows * columns)
    assert product["both"] == pytest.approx(1, abs=1e-6)  # its main effects are 0, so their estimates are clipped
    noise = variance_shares(torch.randn(60, 60, 3, 4, 4, generator=torch.Generator().manual_seed(2)))
    assert noise["both"] > 0.98


def test_variance_shares_are_unbiased():
    """Three effects of variance 1: a third each on average, even from few pyramids and latents."""
    sums = {"pyramid": 0.0, "z": 0.0, "both": 0.0}
    for seed in range(40):
        generator = torch.Generator().manual_seed(seed)
        draw = [torch.randn(*shape, 3, 16, 16, generator=generator) for shape in ((4, 1), (1, 3), (4, 3))]
        for name, value in variance_shares(sum(draw)).items():
            sums[name] += value / 40
    assert list(sums.values()) == pytest.approx([1 / 3] * 3, abs=0.02)


def test_variance_shares_do_not_depend_on_the_scale_or_type():
    rows, columns = crossed(6, 4, seed=3)
    made = ((rows + columns) * 20 + 128).clamp(0, 255).to(torch.uint8)
    expected = variance_shares(made)
    assert variance_shares(made.float() / 127.5 - 1) == pytest.approx(expected, abs=1e-6)


def test_correlation_with_the_source():
    sources = pixels(20)
    assert source_correlation(sources, sources) == pytest.approx(1)
    assert source_correlation(255 - sources, sources) == pytest.approx(-1)
    assert source_correlation(sources // 2 + 20, sources) == pytest.approx(1, abs=0.01)
    assert abs(source_correlation(pixels(200, seed=1), pixels(200, seed=2))) < 0.1
    assert source_correlation(torch.full_like(sources, 9), sources) == pytest.approx(0, abs=1e-6)
