"""Packing: which penalties spread vectors as far as the Welch bound allows, and which do not."""

import pytest
import torch

from lib.corregularization.analysis import coherence, group_coherence
from lib.corregularization.packing import pack, packing_table, variants

STEPS = 300


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def packed(name, n=24, d=12, steps=STEPS, **options):
    return pack(variants(**options)[name], n, d, steps=steps)


@pytest.mark.parametrize("name", ["squared", "squared, random g = 4"])
def test_the_squared_penalty_reaches_the_welch_bound_whole_and_with_random_regrouping(name):
    found = coherence(packed(name))
    assert found.rms == pytest.approx(found.welch, rel=0.01)
    assert found.effective_rank == pytest.approx(12, rel=1e-3)
    random = coherence(pack(None, 24, 12, steps=0))
    assert random.rms > 1.2 * found.welch  # so there was something to gain


def test_fixed_groups_that_are_smaller_than_the_space_stay_above_the_bound():
    vectors = packed("squared, fixed g = 4")
    within, across = group_coherence(vectors, 4)
    assert within < 1e-3  # their own loss is at zero
    assert across > 0.2
    assert coherence(vectors).rms > 1.03 * coherence(vectors).welch


def test_fixed_groups_of_whole_bases_reach_the_bound():
    found = coherence(packed("squared, fixed g = 2", groups=2))  # two orthogonal bases are a tight frame
    assert found.rms == pytest.approx(found.welch, rel=0.01)


def test_the_absolute_penalty_ends_with_duplicates_where_there_is_no_room():
    assert coherence(packed("absolute")).max > 0.99
    assert coherence(packed("squared")).max < 0.9


def test_the_fourth_power_keeps_the_most_similar_pair_further_apart():
    assert coherence(packed("p = 4")).max < 0.8 * coherence(packed("squared")).max


@pytest.mark.parametrize("name", ["squared", "absolute", "squared, random g = 4"])
def test_with_room_for_all_they_become_orthogonal(name):
    assert coherence(packed(name, n=8, d=16)).rms < 0.01


def test_a_packing_is_a_function_of_its_seed():
    vectors = [pack(variants()["squared, random g = 4"], 8, 4, steps=5, seed=seed) for seed in (0, 0, 1)]
    assert torch.equal(vectors[0], vectors[1])
    assert not torch.equal(vectors[0], vectors[2])


def test_the_table_has_every_variant_ratio_and_start_and_none_below_the_bound():
    table = packing_table([1, 2], d=6, steps=2, starts=2, groups=3)
    names = ["random start", *variants(3)]
    assert len(table) == len(names) * 2 * 2
    assert list(table.variant.unique()) == names
    assert set(table.n) == {6, 12}
    assert set(table.ratio) == {1.0, 2.0}
    assert (table.rms >= table.welch - 1e-6).all()
    assert (table["mean"] <= table.rms).all()
    assert (table["max"] >= table.rms).all()
    starts = table[table.variant == "random start"].pivot(index="start", columns="n", values="rms")
    assert starts.loc[0].ne(starts.loc[1]).all()


def test_other_seeds_have_other_starts():
    first, second = (packing_table([1], d=6, steps=0, starts=2, groups=3, seed=seed) for seed in (0, 1))
    assert not set(first.rms) & set(second.rms)


def test_too_few_vectors_for_the_groups_are_refused():
    with pytest.raises(ValueError, match=r"n = 4 vectors \(ratio 0.5 at d = 8\) cannot form 4 groups"):
        packing_table([0.5], d=8, steps=1, groups=4)
