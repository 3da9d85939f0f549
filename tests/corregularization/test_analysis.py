"""Measures of similarity against an SVD in NumPy, closed forms, and pruning of known duplicates."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from lib.corregularization.analysis import (
    coherence,
    gram_matrix,
    group_coherence,
    norms_and_angles,
    pair_cosines,
    prune_redundant,
    similar_pairs,
    similarity,
)
from lib.corregularization.losses import gram_penalty, welch_bound


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def orthonormal(n, d, seed=0):
    return torch.linalg.qr(draw(d, n, seed=seed)).Q.T


def spread(matrix):
    """Return the cosines of pairs i < j and the singular values of the unit filters, by NumPy."""
    unit = matrix.numpy() / np.linalg.norm(matrix.numpy(), axis=1, keepdims=True)
    cosines = np.array([unit[i] @ unit[j] for i in range(len(unit)) for j in range(i + 1, len(unit))])
    return cosines, np.linalg.svd(unit, compute_uv=False)


@pytest.mark.parametrize("shape", [(5, 9), (9, 5), (6, 6), (8, 3, 2, 2), (12, 1, 3)])
def test_coherence_is_what_an_svd_in_numpy_says(shape):
    weight = draw(*shape)
    n, d = weight.flatten(1).shape
    cosines, values = spread(weight.flatten(1))
    share = values / values.sum()
    found = coherence(weight)
    assert (found["n"], found["d"]) == (n, d)
    assert found["rms"] == pytest.approx(np.sqrt(np.mean(cosines**2)))
    assert found["mean"] == pytest.approx(np.abs(cosines).mean())
    assert found["max"] == pytest.approx(np.abs(cosines).max())
    assert found["welch"] == pytest.approx(math.sqrt(max(n - d, 0) / (d * (n - 1))))
    assert found["excess"] == pytest.approx(found["rms"] - found["welch"])
    assert found["effective_rank"] == pytest.approx(np.exp(-(share * np.log(share)).sum()))
    assert found["condition"] == pytest.approx(values[0] / values[-1], rel=1e-6)


def test_rms_is_the_root_of_the_squared_penalty_and_lengths_do_not_count():
    weight = draw(7, 4)
    longer = weight * torch.linspace(0.1, 9, 7, dtype=torch.float64).unsqueeze(1)
    assert coherence(longer)["rms"] == pytest.approx(gram_penalty(weight).sqrt().item())
    for name, value in coherence(weight).items():
        assert coherence(longer)[name] == pytest.approx(value), name


def test_the_cheap_part_is_the_same_as_in_the_whole():
    weight = draw(7, 4)
    assert similarity(weight).items() <= coherence(weight).items()


@pytest.mark.parametrize(("n", "d"), [(4, 4), (3, 8)])
def test_orthonormal_filters_fill_as_many_dimensions_as_they_are(n, d):
    found = coherence(3 * orthonormal(n, d))
    assert found["max"] == pytest.approx(0, abs=1e-12)
    assert found["excess"] == found["rms"] - 0
    assert found["effective_rank"] == pytest.approx(n)
    assert found["condition"] == pytest.approx(1)


def test_a_tight_frame_reaches_the_welch_bound_and_fills_every_dimension():
    found = coherence(torch.cat([orthonormal(5, 5), orthonormal(5, 5, seed=1)]))
    assert found["rms"] == pytest.approx(welch_bound(10, 5))
    assert found["excess"] == pytest.approx(0, abs=1e-12)
    assert found["effective_rank"] == pytest.approx(5)
    assert found["condition"] == pytest.approx(1)


def test_filters_that_are_all_alike_have_rank_one_and_no_condition():
    found = coherence(torch.outer(torch.tensor([1.0, -2.0, 3.0]), torch.tensor([1.0, 2.0, 2.0, 0.0])))
    assert found["rms"] == found["mean"] == found["max"] == pytest.approx(1)
    assert found["effective_rank"] == pytest.approx(1, abs=1e-4)
    assert found["condition"] == math.inf


@pytest.mark.parametrize(("n", "d"), [(4, 6), (4, 4), (9, 5)])
def test_the_condition_of_rank_deficient_filters_is_infinite(n, d):
    deficient = draw(n, min(n, d) - 1) @ draw(min(n, d) - 1, d, seed=1)
    assert coherence(deficient)["condition"] == math.inf
    assert coherence(deficient + 1e-3 * draw(n, d, seed=2))["condition"] < 1e6


def test_gram_matrix_has_a_unit_diagonal_and_cosines_beside_it():
    weight = draw(5, 3)
    gram = gram_matrix(weight)
    assert torch.equal(gram.diagonal(), torch.ones(5, dtype=torch.float64))
    torch.testing.assert_close(gram, gram.T)
    np.testing.assert_allclose(pair_cosines(weight).numpy(), spread(weight)[0])


def test_measuring_leaves_no_gradient_and_takes_half_precision():
    weight = draw(5, 3).requires_grad_()
    assert not gram_matrix(weight).requires_grad
    assert coherence(draw(5, 3).bfloat16())["rms"] == pytest.approx(coherence(weight)["rms"], rel=0.02)


def test_filters_without_direction_are_left_out():
    weight = draw(6, 4)
    weight[2] = 0
    kept = torch.cat([weight[:2], weight[3:]])
    assert coherence(weight) == coherence(kept)


# --- groups ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "groups"), [(6, 2), (7, 3), (8, 4)])
def test_within_and_across_groups_split_all_pairs(n, groups):
    weight = draw(n, 4)
    sizes = [n // groups + (g < n % groups) for g in range(groups)]
    label = [g for g, size in enumerate(sizes) for _ in range(size)]
    gram = gram_matrix(weight).numpy()
    pairs = [(i, j) for i in range(n) for j in range(i + 1, n)]
    within = [gram[i, j] ** 2 for i, j in pairs if label[i] == label[j]]
    across = [gram[i, j] ** 2 for i, j in pairs if label[i] != label[j]]
    found = group_coherence(weight, groups)
    assert found == pytest.approx((np.sqrt(np.mean(within)), np.sqrt(np.mean(across))))


def test_two_copies_of_a_basis_look_perfect_within_groups_and_not_across():
    basis = orthonormal(4, 4)
    within, across = group_coherence(torch.cat([basis, basis]), 2)
    assert within == pytest.approx(0, abs=1e-12)
    assert across == pytest.approx(0.5)  # 4 of 16 pairs at |cosine| 1


def test_one_group_has_nothing_across():
    within, across = group_coherence(draw(5, 4), 1)
    assert within == pytest.approx(coherence(draw(5, 4))["rms"])
    assert math.isnan(across)


# --- pairs, norms, angles --------------------------------------------------------------------------


def test_the_most_similar_pairs_come_first_and_each_filter_once():
    weight = torch.eye(8, dtype=torch.float64)
    weight[5] = -2 * weight[1]  # the same feature with its sign flipped
    weight[7] = weight[2] + 0.5 * weight[3]
    weight[6] = weight[2] + 1.0 * weight[4]
    found = similar_pairs(weight, 3)
    assert list(found.columns) == ["i", "j", "cosine"]
    assert found.iloc[0].tolist() == [1, 5, -1]
    assert found.iloc[1].tolist() == pytest.approx([2, 7, 1 / math.sqrt(1.25)])
    assert found.cosine[2] == pytest.approx(1 / math.sqrt(2))  # 4 and 6, as 2 is taken
    assert {found.i[2], found.j[2]} == {4, 6}


def test_there_are_at_most_half_as_many_pairs_as_filters():
    found = similar_pairs(draw(7, 3), 10)
    assert len(found) == 3
    assert len({*found.i, *found.j}) == 6
    assert found.cosine.abs().is_monotonic_decreasing
    assert (found.i < found.j).all()


def test_norms_and_angles_of_known_filters():
    norms, angles = norms_and_angles(torch.tensor([[3.0, 0.0], [1.0, 1.0], [-2.0, 0.0]]))
    assert norms.tolist() == pytest.approx([3, math.sqrt(2), 2])
    assert angles.tolist() == pytest.approx([45, 180, 135])


# --- pruning ---------------------------------------------------------------------------------------


def convolution(matrix):
    layer = nn.Conv2d(matrix.shape[1], len(matrix), 1)
    layer.weight.data = matrix.view(*matrix.shape, 1, 1).float()
    return layer


def test_pruning_drops_the_shorter_of_each_duplicate_first():
    matrix = torch.eye(10, dtype=torch.float64)[:8]
    matrix[4] = -0.5 * matrix[0]  # shorter: goes
    matrix[5] = 3.0 * matrix[1]  # longer: its twin goes
    keep = prune_redundant(convolution(matrix), 0.25)
    assert (~keep).nonzero().flatten().tolist() == [1, 4]


def test_of_many_copies_the_longest_stays():
    matrix = torch.cat([torch.outer(torch.tensor([1.0, 4.0, 2.0, 3.0]), torch.eye(6)[0]), torch.eye(6)[1:5]])
    keep = prune_redundant(convolution(matrix), 3 / 8)
    assert keep.nonzero().flatten().tolist() == [1, 4, 5, 6, 7]


@pytest.mark.parametrize("share", [0, 0.1, 0.3, 0.5, 0.75, 0.9])
def test_pruning_drops_the_share_that_was_asked_for(share):
    keep = prune_redundant(convolution(draw(20, 6)), share)
    assert keep.dtype == torch.bool
    assert (~keep).sum() == round(share * 20)


def test_a_filter_without_direction_keeps_its_place():
    matrix = torch.eye(5)
    matrix[0], matrix[4] = 0, matrix[2]
    assert similar_pairs(matrix, 1).iloc[0].tolist() == [2, 4, 1]
