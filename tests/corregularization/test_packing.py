"""Packing: which losses and groupings spread vectors up to the Welch bound, and which end with duplicates."""

from functools import cache

import pandas as pd
import pytest
import torch

from lib.corregularization.analysis import coherence, group_coherence
from lib.corregularization.losses import gram_penalty
from lib.corregularization.packing import LOSSES, at_ratio, pack, packing_table


@cache
def packed(grouping="whole", loss="p = 2", n=24, d=12, steps=200, starts=3, **options):
    """Return the coherence of each start."""
    return [coherence(one) for one in pack(n, d, grouping, steps=steps, starts=starts, **LOSSES[loss], **options)]


@pytest.mark.parametrize("grouping", ["whole", "random", "noise"])
def test_the_squared_loss_reaches_the_welch_bound_whole_and_with_random_groups(grouping):
    start = coherence(pack(24, 12, steps=0)[0])
    assert start["rms"] > 1.2 * start["welch"]  # so there was room for improvement
    for found in packed(grouping):
        assert found["rms"] == pytest.approx(found["welch"], rel=0.01)
        assert found["effective_rank"] == pytest.approx(12, rel=2e-3)


def test_of_the_squared_loss_random_groups_make_near_duplicates_and_as_much_noise_of_another_shape_does_not():
    largest = {grouping: [found["max"] for found in packed(grouping)] for grouping in ("whole", "random", "noise")}
    assert min(largest["random"]) > 0.8
    assert max(largest["whole"] + largest["noise"]) < 0.7


def test_the_noise_of_the_control_is_as_large_as_that_of_groups_and_tangential(monkeypatch):
    found, start = {}, torch.nn.functional.normalize(pack(24, 12, steps=0)[0], dim=1)

    def note(self, closure=None):
        found[grouping].append(self.param_groups[0]["params"][0].grad.clone())

    monkeypatch.setattr(torch.optim.Adam, "step", note)  # nothing moves
    for grouping in ("whole", "random", "noise"):
        found[grouping] = []
        pack(24, 12, grouping, steps=60)
    random, noise = (torch.stack(found[kind]) - found["whole"][0] for kind in ("random", "noise"))
    assert (noise * start).sum(-1).abs().max() < 1e-4 * noise.norm(dim=-1).mean()
    assert noise.norm(dim=-1).mean().item() == pytest.approx(random.norm(dim=-1).mean().item(), rel=0.05)


@pytest.mark.parametrize("loss", ["p = 4", "hinge above Welch"])
@pytest.mark.parametrize("grouping", ["whole", "random"])
def test_a_higher_power_or_a_hinge_keeps_all_pairs_apart_with_random_groups_too(loss, grouping):
    assert max(found["max"] for found in packed(grouping, loss)) < 0.4


def group_gradients(vectors, groups=4, draws=4000):
    """Return tangential gradients of the squared loss under random groups, (draws, n, d)."""
    generator = torch.Generator().manual_seed(0)
    leaf = vectors.clone().requires_grad_()
    values = (gram_penalty(leaf, groups=groups, generator=generator) for _ in range(draws))
    return torch.stack([torch.autograd.grad(value, leaf)[0] for value in values])


def test_the_noise_of_random_groups_on_tight_frames_is_that_of_the_docstring():
    """Sampling k = m - 1 of a filter's N = n - 1 pairs without replacement: the variance times (N-k)/(N-1) / k."""
    n, groups = 24, 4
    frame = pack(n, 12, steps=400)[0].double()
    cosine = frame @ frame.T / torch.outer(frame.norm(dim=1), frame.norm(dim=1))
    cosine.fill_diagonal_(0)
    pairs, taken = n - 1, n // groups - 1
    terms = (cosine**2 - cosine**4).sum(1) / pairs  # mean of |t_ij|²
    expected = (4 / n) ** 2 * terms * (pairs - taken) / (pairs - 1) / taken
    found = group_gradients(torch.nn.functional.normalize(frame), draws=2000)
    assert found.mean(0).norm() < 0.1 * found.norm(dim=(1, 2)).mean()  # a minimum
    assert found.square().sum(-1).mean().item() == pytest.approx(expected.mean().item(), rel=0.05)


def test_copies_of_a_basis_are_minima_without_noise():
    basis = torch.linalg.qr(torch.randn(12, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)).Q
    twice = torch.cat([basis, -basis])
    assert coherence(twice)["rms"] == pytest.approx(coherence(twice)["welch"])
    assert group_gradients(twice, draws=20).abs().max() < 1e-12


def test_fixed_groups_that_are_smaller_than_the_space_stay_above_the_bound():
    (vectors,) = pack(24, 12, "fixed", steps=200)
    within, across = group_coherence(vectors, 4)
    assert within < 1e-3  # their own loss is at zero
    assert across > 0.2
    assert coherence(vectors)["rms"] > 1.03 * coherence(vectors)["welch"]


def test_fixed_groups_of_whole_bases_reach_the_bound():
    (found,) = packed("fixed", starts=1, groups=2)  # two orthogonal bases are a tight frame
    assert found["rms"] == pytest.approx(found["welch"], rel=0.01)


def test_the_absolute_penalty_ends_with_duplicates_where_there_is_no_room():
    assert coherence(pack(24, 12, steps=300, power=1)[0])["max"] > 0.99


@pytest.mark.parametrize("grouping", ["whole", "random"])
def test_with_room_for_all_they_become_orthogonal(grouping):
    assert packed(grouping, n=8, d=16, starts=1)[0]["rms"] < 0.01


@pytest.mark.parametrize("grouping", ["whole", "fixed", "random", "noise"])
def test_starts_do_not_meet_and_are_a_function_of_the_seed(grouping):
    several, again, other = (pack(8, 4, grouping, steps=5, starts=2, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(several, again)
    assert not torch.equal(several, other)
    assert not torch.equal(several[0], several[1])
    if grouping in ("whole", "fixed"):  # nothing is drawn after the start
        torch.testing.assert_close(pack(8, 4, grouping, steps=5, seed=0)[0], several[0])


def test_the_table_has_every_arm_ratio_and_start_and_none_below_the_bound():
    table = packing_table([1, 2], d=8, steps=2, starts=2)
    arms = table.groupby(["loss", "groups"], sort=False).size()
    assert len(arms) == 1 + 3 * len(LOSSES) + 1 and set(arms) == {2 * 2}
    assert set(table.n) == {8, 16} and set(table.ratio) == {1.0, 2.0}
    assert (table.rms >= table.welch - 1e-6).all()
    assert (table["max"] >= table.rms).all()


def test_vectors_that_do_not_form_equal_groups_are_refused():
    with pytest.raises(ValueError, match=r"6 vectors do not form 4 equal groups .* multiple of 4"):
        packing_table([0.75], d=8, steps=1)


def made_up(largest):
    """Return a table of two starts with these largest cosines by grouping at n/d = 2, the same for every loss."""
    rows = [("random start", "whole", 0.6)] + [
        (loss, groups, value) for loss in LOSSES for groups, value in largest.items()
    ]
    return pd.DataFrame(
        {"loss": loss, "groups": groups, "ratio": ratio, "welch": 0.1, "rms": 0.1, "noise": 0.0, "start": start}
        | {"max": value + 0.02 * start if ratio > 1 else 0.0}
        for loss, groups, value in rows for ratio in (1.0, 2.0) for start in (0, 1)
    )  # fmt: skip


def test_rows_at_a_ratio_sum_up_their_starts():
    row = at_ratio(made_up({"random": 0.2})).iloc[1]
    assert (row.largest, row.lowest, row.highest, row.starts) == pytest.approx((0.21, 0.2, 0.22, 2))
