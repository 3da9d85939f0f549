"""Clusters, neighbours and the linear probe against closed forms, scikit-learn and slow implementations."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler

from lib.metrics import MetricError, clustering
from lib.metrics.clustering import (
    Clusters,
    k_means,
    k_modes,
    knn,
    linear_probe,
    matched_accuracy,
    nearest,
    scores,
)

seeds = st.integers(0, 2**16)


def integers(high, *shape, seed=0):
    return torch.randint(0, high, shape, generator=torch.Generator().manual_seed(seed))


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def noisy_codes(count, length, categories, groups, share, seed=0):
    """Return copies of their group's prototype in which a `share` of the positions is redrawn, labels, prototypes."""
    prototypes = integers(categories, groups, length, seed=seed)
    labels = torch.arange(count) % groups
    drawn = torch.rand(count, length, generator=torch.Generator().manual_seed(seed + 1)) < share
    codes = torch.where(drawn, integers(categories, count, length, seed=seed + 2), prototypes[labels])
    return codes, labels, prototypes


# --- Clusters against labels --------------------------------------------------------------------


@given(seeds, st.integers(1, 5), st.integers(1, 5))
@settings(max_examples=60, deadline=None)
def test_the_matching_is_the_best_of_all(seed, clusters, classes):
    found, true = integers(clusters, 30, seed=seed), integers(classes, 30, seed=seed + 1)
    side = max(clusters, classes)
    best = max(
        sum(order[c] == t for c, t in zip(found.tolist(), true.tolist(), strict=True))
        for order in itertools.permutations(range(side))
    )
    assert matched_accuracy(found, true) == pytest.approx(best / 30)


@given(seeds)
@settings(max_examples=20, deadline=None)
def test_names_of_clusters_do_not_matter(seed):
    found, true = integers(4, 50, seed=seed), integers(5, 50, seed=seed + 1)
    order = torch.randperm(7, generator=torch.Generator().manual_seed(seed))
    assert scores(order[found], true) == pytest.approx(scores(found, true))


def test_scores_of_perfect_and_useless_clusters():
    true = torch.arange(1000) % 5
    assert scores((true + 2) % 5, true) == pytest.approx({"accuracy": 1, "nmi": 1, "ami": 1, "ari": 1, "clusters": 5})
    useless = {"accuracy": 0.2, "nmi": 0, "ami": 0, "ari": 0, "clusters": 1}
    assert scores(torch.full((1000,), 7), true) == pytest.approx(useless)
    drawn = scores(integers(5, 1000), true)
    assert 0.2 <= drawn["accuracy"] < 0.27 and drawn["nmi"] < 0.02 and abs(drawn["ari"]) < 0.01


def test_nmi_rewards_many_random_clusters_and_ami_does_not():
    true = torch.arange(1000) % 5
    many = scores(integers(500, 1000), true)
    assert many["nmi"] > 0.2 and abs(many["ami"]) < 0.05 and abs(many["ari"]) < 0.01


def test_nmi_is_over_the_arithmetic_mean_of_the_entropies():
    true = torch.arange(16) % 4
    # Each class halved: I = H(true) = log 4, H(found) = log 8.
    found = torch.arange(16) % 8
    assert scores(found, true)["nmi"] == pytest.approx(2 * np.log(4) / (np.log(4) + np.log(8)))
    assert scores(found, true)["accuracy"] == 0.5  # four of eight clusters have no class


# --- Clusters -----------------------------------------------------------------------------------


def test_k_means_finds_separate_clusters_and_assigns_new_points():
    true = torch.arange(300) % 6
    centres = 20 * normal(6, 5)
    points = centres[true] + normal(300, 5, seed=1)
    found = k_means(points, 6, seed=0)
    assert found.centres.shape == (6, 5) and found.centres.dtype == torch.float32
    new = centres[true] + normal(300, 5, seed=2)
    assert found.assign(new).dtype == torch.int64
    assert matched_accuracy(found.assign(torch.cat([points, new])), true.repeat(2)) == 1
    assert found.cost == pytest.approx((points - found.centres[found.assign(points)]).square().sum().item(), rel=1e-4)


def test_points_far_from_zero_are_assigned_as_near_it():
    found = Clusters(torch.tensor([[0.0, 0], [1, 0]]), 0.0)
    points = torch.tensor([[0.4, 0.0], [0.6, 0]])
    assert found.assign(points).tolist() == [0, 1]
    assert Clusters(found.centres + 4096, 0.0).assign(points + 4096).tolist() == [0, 1]


@pytest.mark.parametrize(("k", "length"), [(1, 3), (4, 8), (12, 16)])
def test_k_modes_is_exact_on_separate_codes(k, length):
    prototypes = torch.arange(k)[:, None].expand(k, length)
    true = torch.arange(20 * k) % k
    codes = prototypes[true].clone()
    codes[torch.arange(20 * k), torch.arange(20 * k) // k % length] = k  # one position of each is wrong
    found = k_modes(codes, k, seed=0)
    assert sorted(map(tuple, found.centres.tolist())) == sorted(map(tuple, prototypes.tolist()))
    assert found.cost == len(codes) and matched_accuracy(found.assign(codes), true) == 1
    assert found.assign(prototypes + 0).dtype == torch.int64
    # A category that no mode has agrees with none.
    assert found.assign(torch.full((1, length), 50)).tolist() == [0]


@given(seeds, st.integers(1, 30))
@settings(max_examples=40, deadline=None)
def test_the_cost_of_k_modes_is_that_of_its_modes(seed, k):
    codes = integers(3, 30, 5, seed=seed)
    found = k_modes(codes, k, seed=seed, restarts=2)
    distances = (codes[:, None] != found.centres).sum(dim=2)
    assert found.cost == distances.amin(dim=1).sum()
    assert torch.equal(found.assign(codes), distances.argmin(dim=1))
    if k >= len(codes.unique(dim=0)):
        assert found.cost == 0


def test_more_restarts_never_cost_more():
    codes, _, _ = noisy_codes(300, 10, 4, 8, 0.5)
    costs = [k_modes(codes, 8, seed=3, restarts=restarts).cost for restarts in (1, 2, 4, 8)]
    assert costs == sorted(costs, reverse=True)


def test_empty_clusters_restart_at_the_farthest_codes():
    codes = torch.tensor([[0, 0, 0, 0]] * 5 + [[1, 1, 1, 0], [2, 2, 2, 2]])
    modes = torch.tensor([[0, 0, 0, 0], [9, 9, 9, 9], [8, 8, 8, 8], [7, 7, 7, 7]])
    moved = clustering._moved(codes, torch.zeros(7, dtype=torch.int64), modes)
    # No different code is left for the last one.
    assert moved.tolist() == [[0, 0, 0, 0], [2, 2, 2, 2], [1, 1, 1, 0], [7, 7, 7, 7]]


def test_modes_take_the_lowest_of_equally_frequent_categories():
    codes = torch.tensor([[3, 1], [2, 1], [2, 0], [3, 0]])
    assert k_modes(codes, 1, seed=0).centres.tolist() == [[2, 0]]


def test_codes_are_assigned_as_their_one_hot_points():
    codes, modes = integers(5, 200, 12), integers(5, 7, 12, seed=1)
    hot, centres = (torch.nn.functional.one_hot(x, 5).flatten(1).float() for x in (codes, modes))
    squares = (hot[:, None] - centres).square().sum(dim=2)
    assert torch.equal(squares, 2.0 * (codes[:, None] != modes).sum(dim=2))
    untied = squares.topk(2, largest=False).values.diff().flatten() > 0
    assert untied.sum() > 100
    found = Clusters(centres, 0.0).assign(hot)
    assert torch.equal(found[untied], Clusters(modes, 0).assign(codes)[untied])


@pytest.mark.parametrize("find", [k_means, k_modes])
def test_clusters_depend_on_the_seed_alone(find):
    data = normal(200, 4) if find is k_means else integers(4, 200, 8)
    state, state_numpy = torch.get_rng_state(), np.random.get_state()[1].copy()
    a = find(data, 5, seed=1, restarts=2).assign(data)
    assert torch.equal(torch.get_rng_state(), state) and np.array_equal(np.random.get_state()[1], state_numpy)
    torch.manual_seed(5)
    np.random.seed(5)
    assert torch.equal(a, find(data, 5, seed=1, restarts=2).assign(data))
    others = [find(data, 5, seed=seed, restarts=1).cost for seed in range(6)]
    assert len(set(others)) > 1


# --- Neighbours ---------------------------------------------------------------------------------


def test_neighbours_by_cosine_are_those_of_scikit_learn():
    train, test = normal(150, 8), normal(40, 8, seed=1)
    indices, similarities = nearest(train, test, 20)
    distances, expected = (
        NearestNeighbors(n_neighbors=20, metric="cosine", algorithm="brute").fit(train).kneighbors(test)
    )
    assert np.array_equal(indices, expected)
    assert similarities.numpy() == pytest.approx(1 - distances, abs=1e-6)
    assert torch.equal(nearest(5 * train, 0.1 * test, 20)[0], indices)


@given(seeds, st.integers(1, 40))
@settings(max_examples=40, deadline=None)
def test_neighbours_by_hamming_with_ties_by_index(seed, k):
    train, test = integers(3, 40, 4, seed=seed), integers(4, 9, 4, seed=seed + 1)
    equal = (test[:, None] == train).sum(dim=2)
    expected = np.argsort(-equal.numpy(), axis=1, kind="stable")[:, :k]
    indices, similarities = nearest(train, test, k)
    assert np.array_equal(indices, expected)
    torch.testing.assert_close(similarities, equal.gather(1, indices) / 4)


def test_equal_points_of_either_sign_are_in_the_order_of_their_index():
    train = torch.tensor([[-1.0, 0], [0, 1], [-1, 0], [1, 0], [0, -1], [1, 0], [0, 0]])
    indices, similarities = nearest(train, torch.tensor([[2.0, 0], [0, 0]]), 7)
    assert indices.tolist() == [[3, 5, 1, 4, 6, 0, 2], [0, 1, 2, 3, 4, 5, 6]]
    assert similarities[0].tolist() == [1, 1, 0, 0, 0, -1, -1] and not similarities[1].any()


@pytest.mark.parametrize("measure", ["cosine", "hamming"])
def test_blocks_find_the_same(measure, monkeypatch):
    train, test = (integers(3, n, 6, seed=n) for n in (50, 33))
    if measure == "cosine":
        train, test = normal(50, 6), normal(33, 6, seed=1)
    whole = nearest(train, test, 9)
    monkeypatch.setattr(clustering, "BLOCK", 150)
    indices, similarities = nearest(train, test, 9)
    assert torch.equal(indices, whole[0])
    torch.testing.assert_close(similarities, whole[1])


@pytest.mark.parametrize("measure", ["cosine", "hamming"])
def test_the_vote_of_the_neighbours(measure):
    if measure == "cosine":
        train, test = normal(60, 5), normal(25, 5, seed=1)
        table = torch.cosine_similarity(test[:, None], train, dim=2)
    else:
        train, test = integers(4, 60, 7), integers(4, 25, 7, seed=1)
        table = (test[:, None] == train).float().mean(dim=2)
    labels = integers(3, 60, seed=2)
    expected = []
    for row in table.tolist():
        chosen = sorted(range(60), key=lambda i: (-row[i], i))[:11]
        votes = [sum(np.exp(row[i] / 0.2) for i in chosen if labels[i] == c) for c in range(3)]
        expected.append(int(np.argmax(votes)))
    assert knn(train, labels, test, classes=3, k=11, temperature=0.2).tolist() == expected


def test_votes_at_the_extremes():
    points, labels = normal(50, 4), integers(5, 50, seed=1)
    assert torch.equal(knn(points, labels, points, classes=5, k=1), labels)
    # At such a low temperature only the nearest counts, without overflow.
    assert torch.equal(knn(points, labels, points, classes=5, k=50, temperature=1e-4), labels)
    # At such a high temperature all count equally; k above the number of samples means all of them.
    most = torch.bincount(labels).argmax()
    assert (knn(points, labels, points, classes=9, k=1000, temperature=1e6) == most).all()


# --- Linear probe -------------------------------------------------------------------------------


def test_the_linear_probe_reads_what_is_linear():
    true = torch.arange(400) % 4
    points = 4 * normal(4, 6)[true] + normal(400, 6, seed=1)
    assert linear_probe(points[:300], true[:300], points[300:], true[300:]) > 0.98
    assert linear_probe(points[:300], integers(4, 300), points[300:], integers(4, 100, seed=1)) < 0.45


def test_the_linear_probe_is_logistic_regression_on_standardised_features():
    train, test = 3 + 10 * normal(200, 5), 3 + 10 * normal(80, 5, seed=1)
    labels = ((train[:, 0] + train[:, 1] + 10 * normal(200, seed=2)) > 6).long()
    true = ((test[:, 0] + test[:, 1]) > 6).long()
    scaler = StandardScaler().fit(train)
    model = LogisticRegression(max_iter=1000).fit(scaler.transform(train), labels)
    accuracy = linear_probe(train, labels, test, true)
    assert accuracy == pytest.approx(model.score(scaler.transform(test), true), abs=0.013)  # one of 80 may differ
    assert accuracy == linear_probe(train, labels, test, true)
    # Neither a constant feature nor the scale changes anything.
    wider = [torch.cat([x * 1000, torch.full((len(x), 1), 7.0)], dim=1) for x in (train, test)]
    assert linear_probe(wider[0], labels, wider[1], true) == pytest.approx(accuracy, abs=0.013)


# --- Errors -------------------------------------------------------------------------------------

POINTS, LABELS = normal(6, 3), torch.tensor([0, 1, 2, 0, 1, 2])
BROKEN = torch.tensor([[0.0, 1.0, torch.nan]])


@pytest.mark.parametrize(
    "call",
    [
        lambda: k_means(BROKEN, 1, seed=0),
        lambda: k_means(POINTS, 2, seed=0).assign(BROKEN),
        lambda: nearest(POINTS, BROKEN, 1),
        lambda: linear_probe(POINTS, LABELS, BROKEN, LABELS[:1]),
    ],
)
def test_points_that_are_not_finite_are_refused(call):
    with pytest.raises(MetricError, match="1 of 1 points are not finite"):
        call()
