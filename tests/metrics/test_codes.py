"""Measures of discrete codes against closed forms, scikit-learn and slow implementations."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import normalized_mutual_info_score

from lib.metrics.codes import code_health, connected_codes, nmi, position_scores

seeds = st.integers(0, 2**16)


def integers(high, *shape, seed=0):
    return torch.randint(0, high, shape, generator=torch.Generator().manual_seed(seed))


# --- Positions ----------------------------------------------------------------------------------


def test_codes_that_use_everything():
    codes = torch.tensor(list(itertools.product(range(3), repeat=4)))  # all codes once: independent positions
    expected = {"perplexity": 3, "dead": 0, "unique": 1, "redundancy": 0, "bits": 4 * math.log2(3)}
    assert code_health(codes, 3) == pytest.approx(expected, abs=1e-9)
    # Unused categories do not change the entropy.
    assert code_health(codes, 8) == pytest.approx(expected | {"bits": 12}, abs=1e-9)


def test_codes_that_repeat_themselves():
    said = torch.arange(40) % 4
    repeated = code_health(torch.stack([said, (said + 1) % 4, 3 - said], dim=1), 4)
    assert repeated == pytest.approx({"perplexity": 4, "dead": 0, "unique": 0.1, "redundancy": 1, "bits": 6})


def test_codes_with_dead_positions():
    said, dead = torch.arange(40) % 4, torch.full((40,), 2)
    health = code_health(torch.stack([said, dead, said, dead], dim=1), 4)
    # One of the six pairs is redundant; pairs with a dead position count as 0.
    assert health == pytest.approx({"perplexity": 2.5, "dead": 2, "unique": 0.1, "redundancy": 1 / 6, "bits": 8})
    assert code_health(dead[:, None], 4)["redundancy"] == 0 == code_health(said[:, None], 4)["redundancy"]


@given(seeds, st.integers(1, 5), st.integers(1, 6))
@settings(max_examples=30, deadline=None)
def test_redundancy_and_perplexity_by_loops(seed, length, categories):
    codes = integers(categories, 25, length, seed=seed)
    codes[:, -1] = codes[:, 0] // 2
    health = code_health(codes, categories)
    pairs = []
    for a, b in itertools.combinations(codes.T.numpy(), 2):
        alive = len(set(a)) > 1 and len(set(b)) > 1
        pairs.append(normalized_mutual_info_score(a, b) if alive else 0)
    assert health["redundancy"] == pytest.approx(np.mean(pairs) if pairs else 0, abs=1e-9)
    shares = [np.unique(row, return_counts=True)[1] / 25 for row in codes.T.numpy()]
    assert health["perplexity"] == pytest.approx(np.mean([np.exp(-(p * np.log(p)).sum()) for p in shares]))
    assert health["dead"] == sum(len(p) == 1 for p in shares)
    assert health["unique"] == len(set(map(tuple, codes.tolist()))) / 25


@given(seeds)
@settings(max_examples=20, deadline=None)
def test_order_and_names_do_not_matter(seed):
    generator = torch.Generator().manual_seed(seed)
    codes = integers(4, 30, 5, seed=seed)
    names = torch.stack([torch.randperm(4, generator=generator) for _ in range(5)])
    renamed = names[torch.arange(5), codes]
    shuffled = renamed[torch.randperm(30, generator=generator)][:, torch.randperm(5, generator=generator)]
    assert code_health(shuffled, 4) == pytest.approx(code_health(codes, 4))
    clusters = connected_codes(codes, at_least=3)
    assert torch.equal(connected_codes(renamed[:, [4, 2, 0, 1, 3]], at_least=3), clusters)


def test_mutual_information_by_loops():
    table = integers(6, 3, 4)
    total, p = table.sum().item(), table.double() / table.sum()
    rows, columns = p.sum(dim=1), p.sum(dim=0)
    information = sum(
        p[i, j] * (p[i, j] / rows[i] / columns[j]).log() for i in range(3) for j in range(4) if table[i, j]
    )
    entropies = -(rows * rows.log()).sum() - (columns * columns.log()).sum()
    cells = torch.arange(12).repeat_interleave(table.flatten())  # two labellings with this contingency table
    assert total > 10 and nmi(cells // 4, cells % 4) == pytest.approx((2 * information / entropies).item())


def test_what_is_constant_shares_nothing():
    constant, other = torch.zeros(9).long(), torch.arange(9) % 3
    assert nmi(constant, constant) == nmi(constant, other) == 0 and nmi(other, 2 - other) == pytest.approx(1)


def test_what_each_position_follows():
    factors = {"class": torch.arange(60) % 5, "hue": integers(3, 60), "image": torch.arange(60) * 10**12}
    codes = torch.stack([4 - factors["class"], factors["hue"], torch.full((60,), 1), integers(5, 60, seed=1)], dim=1)
    table = position_scores(codes.to(torch.uint8), factors)
    assert list(table.columns) == ["position", "factor", "nmi"] and len(table) == 12
    assert list(table["factor"][::4]) == list(factors) and list(table["position"][:4]) == [0, 1, 2, 3]
    for row in table.itertuples():
        expected = normalized_mutual_info_score(codes[:, row.position], factors[row.factor])
        assert row.nmi == pytest.approx(expected if row.position != 2 else 0, abs=1e-9)
    scores = table.pivot(index="position", columns="factor", values="nmi")
    assert scores.loc[0, "class"] == pytest.approx(1) and scores.loc[1, "hue"] == pytest.approx(1)


# --- Codes that nearly agree --------------------------------------------------------------------


def by_search(codes, at_least):
    """Return components by breadth-first search over all pairs, by decreasing size, then by first member."""
    near = (codes[:, None] == codes).sum(dim=2) >= at_least
    seen, groups = set(), []
    for start in range(len(codes)):
        if start in seen:
            continue
        group = queue = [start]
        seen.add(start)
        while queue:
            queue = [j for i in queue for j in near[i].nonzero().flatten().tolist() if not (j in seen or seen.add(j))]
            group = group + queue
        groups.append(group)
    labels = torch.empty(len(codes), dtype=torch.int64)
    for number, group in enumerate(sorted(groups, key=lambda group: (-len(group), group[0]))):
        labels[group] = number
    return labels


@given(seeds, st.integers(1, 40), st.integers(1, 5))
@settings(max_examples=60, deadline=None)
def test_components_are_those_of_a_search(seed, count, at_least):
    codes = integers(4, count, 5, seed=seed)
    assert torch.equal(connected_codes(codes, at_least=at_least), by_search(codes, at_least))


def test_a_chain_is_one_cluster_and_equal_codes_are_one():
    chain = torch.tensor([[5, 5, 5], [0, 0, 0], [0, 0, 1], [0, 2, 1], [3, 2, 1]])
    assert connected_codes(chain, at_least=2).tolist() == [1, 0, 0, 0, 0]
    twice = torch.tensor([[1, 1], [0, 1], [0, 2], [0, 1]])
    assert connected_codes(twice, at_least=2).tolist() == [1, 0, 2, 0]
