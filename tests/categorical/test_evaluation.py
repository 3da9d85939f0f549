"""Clusters, neighbours, code health and pictures of trained arms, against known codes."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from lib.categorical import cost, evaluation, experiments, figures, pictures
from lib.categorical.arms import Arm, main_arms, size_arms
from lib.categorical.evaluation import Encoded, Seen
from lib.categorical.training import Settings, Trained, train_arms
from lib.data.augment import as_float
from lib.data.images import load_images

SETTINGS = Settings(epochs=1, batch_size=20, learning_rate=0.1, width=4, score_every=1, device="cpu")


@pytest.fixture(scope="module")
def data():
    return tuple(load_images("shapes-plain", split, size=16, count=60) for split in ("train", "test"))


@pytest.fixture(scope="module")
def trained(data):
    return train_arms(main_arms(6, 4, 30), data[0], SETTINGS, seed=0, score=evaluation.curve_score(*data))


@pytest.fixture(scope="module")
def seen(trained, data):
    return evaluation.see(trained, *data)


def known(labels, *, positions=4, categories=10):
    """Return codes whose category is the label at every position."""
    hard = labels[:, None].expand(-1, positions).contiguous()
    soft = torch.nn.functional.one_hot(hard, categories).float()
    return Encoded(soft.flatten(1), soft.flatten(1), soft, hard)


@pytest.fixture
def perfect(data):
    arm = Trained(Arm("perfect", positions=4, categories=10), None, pd.DataFrame())
    return Seen(arm, known(data[0].labels), known(data[1].labels))


# -- encoding ------------------------------------------------------------------------------


def test_codes_are_the_network_s_softmax_in_any_batches(trained, data):
    result, pixels = trained["categorical"], data[1].pixels
    found = evaluation.encode(result, pixels)
    with torch.no_grad():
        expected = (result.network(as_float(pixels)) / result.arm.code_temperature).softmax(-1)
    torch.testing.assert_close(found.soft, expected, atol=1e-5, rtol=1e-4)
    assert torch.equal(found.hard, found.soft.argmax(-1)) and found.points.shape == (60, 24)
    again = evaluation.encode(result, pixels, batch_size=7)
    torch.testing.assert_close(again.soft, found.soft, atol=1e-5, rtol=1e-4)


def test_embeddings_have_unit_length_and_no_codes(seen):
    one = seen["NT-Xent"].test
    assert one.soft is None and one.hard is None
    torch.testing.assert_close(one.points.norm(dim=1), torch.ones(60))


def test_curves_have_the_scores_where_they_were_asked_for(trained):
    frame = experiments.histories(trained, seed=3)
    assert set(frame.arm) == set(trained) and set(frame.seed) == {3}
    assert frame.knn.between(0, 100).all() and frame.loss.isna().sum() == len(trained)  # none before the first step
    codes = frame.arm.str.startswith("categorical")
    assert frame[codes].used.between(25, 100).all() and frame[~codes].used.isna().all()
    assert frame.knn_output.between(0, 100).all()


# -- clusters ------------------------------------------------------------------------------


def test_codes_that_say_the_class_are_perfect_by_every_readout(perfect, data):
    table = evaluation.cluster_table({"perfect": perfect}, *data, seed=0, counts=[5, 20])
    own = table[(table.arm == "perfect") & (table.wanted == 10)].set_index("readout")
    assert set(own.index) == set(evaluation.readouts(perfect))
    assert (own.accuracy == 100).all() and np.allclose(own[["nmi", "ari"]], 1)
    five = table[(table.arm == "perfect") & (table.wanted == 5)]
    assert (five.accuracy == 50).all()  # five clusters can be matched to only five of ten classes
    assert set(five.readout) == {"k-means on soft codes", "k-modes on hard codes", "k-means on features"}
    assert table.iloc[0].arm == "raw pixels" and 0 < table.iloc[0].accuracy < 100


def test_clusters_are_fitted_without_the_test_images(seen, data):
    """With other test images, the clusters of the training images stay the same."""
    one = seen["categorical"]
    other = replace(one, test=Encoded(*(part[:7] for part in vars(one.test).values())))
    for readout in evaluation.readouts(one):
        ours, theirs = (evaluation.clusters(part, readout, 5, seed=0) for part in (one, other))
        assert torch.equal(ours[0], theirs[0]) and torch.equal(ours[1][:7], theirs[1]), readout


def test_the_best_position_is_the_one_that_tells_most():
    labels = torch.arange(40) % 4
    soft = torch.full((40, 3, 4), 0.25)  # uninformative
    soft[:, 1] = torch.eye(4)[labels]
    soft[:, 2] = torch.eye(4)[0]  # constant
    assert evaluation.best_position(soft) == 1


def test_connected_codes_join_chains_and_take_in_the_nearest():
    """Two groups of codes of 12 positions, of which the last four are random."""
    generator = torch.Generator().manual_seed(0)
    free = torch.randint(10, (1500, 4), generator=generator)
    fixed = (torch.arange(1500) % 2 * 7)[:, None].expand(-1, 8)
    ours, theirs = evaluation._connected(torch.cat([fixed, free], 1), torch.tensor([[0] * 12, [7] * 11 + [0]]))
    assert torch.bincount(ours).tolist() == [750, 750]
    assert theirs[0] == ours[0] and theirs[1] == ours[1] and theirs[0] != theirs[1]


def test_readouts_are_those_of_the_kind(seen):
    assert evaluation.readouts(seen["MoCo"]) == ["k-means on embedding", "k-means on features"]


# -- representation and health -------------------------------------------------------------


def test_representations_and_their_bytes(seen, perfect, data):
    table = evaluation.representation_table(seen | {"perfect": perfect}, *data, seed=0).set_index(
        ["arm", "representation"]
    )
    assert table.loc[("categorical", "hard codes"), "bytes"] == 6 * 2 / 8
    assert table.loc[("categorical", "soft codes"), "bytes"] == 4 * 24
    assert table.loc[("MoCo", "embedding"), "bytes"] == 4 * 128
    assert (table.loc["perfect"].knn == 100).all() and table.loc[("perfect", "features"), "linear"] == 100
    assert table.linear.notna().sum() == len(seen) + 1  # only on features


@pytest.mark.parametrize(
    ("positions", "categories", "expected"),
    [(16, 16, 8), (16, 10, 8), (64, 2, 8), (8, 1, 1), (3, 2, 0.375)],
)
def test_bytes_of_codes_are_whole_bits(positions, categories, expected):
    assert evaluation.code_bytes(positions, categories) == expected


def test_health_of_known_codes(perfect):
    row = evaluation.health_table({"perfect": perfect}, seed=0).iloc[0]
    assert row.perplexity == pytest.approx(10) and row.dead == 0 and row["unique"] == pytest.approx(10 / 60)
    assert row.redundancy == pytest.approx(1) and row.sureness == 1  # all positions are equal


def test_histograms_are_shares_of_pairs(seen, data):
    frame = evaluation.agreement_histograms(seen, data[1].pixels[:20], SETTINGS, seed=0)
    sums = frame[frame.panel != "perplexity"].groupby(["arm", "panel"]).value.sum()
    assert len(sums) == 4 and np.allclose(sums, 1)
    pairs = 20 * frame[frame.panel == "positives"].value  # one for each image
    np.testing.assert_allclose(pairs, pairs.round(), atol=1e-9)
    used = frame[(frame.panel == "perplexity") & (frame.arm == "categorical")]
    assert len(used) == 6 and used.value.between(1, 4).all() and used.value.is_monotonic_decreasing
    again = evaluation.agreement_histograms(seen, data[1].pixels[:20], SETTINGS, seed=0)
    pd.testing.assert_frame_equal(frame, again)


def test_ablation_rows_of_known_codes(perfect, data):
    row = experiments.ablation_table({"perfect": perfect}, *data, seed=0).iloc[0]
    assert row.soft == row.hard == row.knn == 100 and row.gap == 0
    assert (row.positions, row.categories, row.bytes) == (4, 10, 2)


def test_measuring_leaves_random_state_and_network_alone(trained, data):
    state = torch.get_rng_state()
    before = [value.clone() for value in trained["categorical"].network.state_dict().values()]
    one = evaluation.see({"categorical": trained["categorical"]}, *data)
    evaluation.agreement_histograms(one, data[1].pixels[:10], SETTINGS, seed=0)
    pictures.pair_and_other(one["categorical"], data[1], SETTINGS, seed=0)
    evaluation.cluster_table(one, *data, seed=0)
    assert torch.equal(torch.get_rng_state(), state)
    after = trained["categorical"].network.state_dict().values()
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


# -- what the positions follow ---------------------------------------------------------------


def test_known_factors_of_shapes():
    images = load_images("shapes", "test", size=16, count=80, seed=5)
    found = pictures.factors(images, "shapes", seed=5)
    assert set(found) == {"class", "brightness", "colour", "size", "orientation", "background"}
    assert all(value.shape == (80,) and not value.is_floating_point() for value in found.values())
    assert torch.bincount(found["brightness"]).tolist() == [10] * 8
    assert found["orientation"].max() <= 7 and found["background"].max() <= 4 and found["colour"].max() <= 5


def test_colours_of_other_images_are_read_from_their_pixels():
    pure = torch.tensor([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0]], dtype=torch.uint8)
    images = load_images("shapes-plain", "test", size=16, count=4)
    painted = replace(images, pixels=pure[:, :, None, None].expand(-1, -1, 16, 16).contiguous())
    assert pictures.factors(painted, "folder:x", seed=0)["colour"].tolist() == [0, 2, 4, 1]


def test_a_position_that_says_the_class_follows_it(perfect, data):
    table = pictures.meanings(perfect, data[1], "shapes-plain", seed=0)
    assert (table[table.factor == "class"].nmi > 0.999).all() and (table[table.factor == "colour"].nmi < 0.5).all()


# -- pictures and figures --------------------------------------------------------------------


def test_the_pair_is_two_views_and_the_least_alike(seen, data, drawn):
    one = seen["categorical"]
    pair = pictures.pair_and_other(one, data[1], SETTINGS, seed=0)
    first = next(n for n, image in enumerate(data[1].pixels) if np.array_equal(image.numpy(), pair["images"][0]))
    others = torch.tensor([(one.test.soft[first] * soft).sum() / 6 for soft in one.test.soft])
    assert pair["agreement"][0, 2] == pytest.approx(others.min().item(), abs=1e-5)
    assert drawn(figures.similarity(pair)) == drawn(figures.similarity(pair))
    assert drawn(figures.categorical_similarity(pair)) and drawn(figures.categorical_similarity(pair, shown=3))


def test_cluster_sheets_show_size_purity_and_the_middle_first(perfect, data, drawn):
    clusters = data[1].labels.clone()
    clusters[clusters == 1] = 0  # two classes in one cluster
    sheet = pictures.cluster_sheet(clusters, perfect.test.points, data[1], columns=3)
    assert sheet["images"].shape == (9, 3, 3, 16, 16)
    assert sheet["sizes"][0] == pytest.approx(0.2) and sheet["purity"][0] == 0.5 and set(sheet["purity"][1:]) == {1.0}
    assert drawn(figures.clusters(sheet))


def test_the_map_sorts_the_matrix_by_cluster(perfect, data, drawn):
    place = pictures.code_map(perfect, data[1].labels, data[1], seed=0, count=50)
    assert place["map"].shape == (50, 2) and np.isfinite(place["map"]).all()
    labels = data[1].labels[:50].sort().values
    np.testing.assert_array_equal(place["matrix"], (labels[:, None] == labels).float().numpy())
    assert drawn(figures.code_map(place))


def test_retrieval_shows_the_nearest_codes(perfect, data, drawn):
    found = pictures.retrieval(perfect, *data, [0, 7, 21], count=4)
    assert (found["agreement"] == 1).all() and found["same"].all() and found["nearest"].shape == (3, 4, 3, 16, 16)
    assert drawn(figures.retrieval(found))


def test_tables_are_drawn_for_one_and_three_seeds(seen, trained, data, drawn):
    sizes = experiments.ablation_table(
        evaluation.see(
            train_arms(size_arms(trained["categorical"].arm, [1, 2], [2, 3]), data[0], SETTINGS, seed=0), *data
        ),
        *data,
        seed=0,
    )
    frames = [
        (experiments.histories(trained, 0), figures.curves),
        (evaluation.agreement_histograms(seen, data[1].pixels[:20], SETTINGS, seed=0), figures.health),
        (sizes, figures.positions),
        (pictures.meanings(seen["categorical"], data[1], "shapes-plain", seed=0), figures.meanings),
        (evaluation.cluster_table(seen, *data, seed=0), figures.scores),
    ]
    for frame, draw in frames:
        assert drawn(draw(frame)) == drawn(draw(frame))
        assert drawn(draw(pd.concat([frame.assign(seed=seed) for seed in range(3)], ignore_index=True)))
    facts = experiments.queue_facts(trained["categorical, queue"].arm)
    assert drawn(figures.moco(facts)) and facts.set_index("name").value["queue"] == 30


# -- cost -------------------------------------------------------------------------


def test_arithmetic_of_a_step_is_that_of_the_formula():
    arms = [Arm("NT-Xent", "nt_xent", dimensions=8), Arm("categorical", positions=2, categories=4)]
    table = cost.measured_cost(arms, Settings(batch_size=4, width=4, device="cpu"), size=16, rounds=1)
    convolutions = 256 * 9 * (3 * 4 + 2 * 16) + 64 * (9 * (4 * 8 + 64) + 32) + 16 * (9 * (8 * 16 + 256) + 128)
    head = 16 * 16 + 16 * 8
    first = 256 * 9 * 3 * 4  # the image needs no gradient
    # Forward and two gradients of two views, and of a 2B x 2B matrix of dot products of 8 numbers.
    expected = 2 * (3 * (convolutions + head) - first) + 3 * 8 * 8 * 8 // 4
    assert table.macs.tolist() == pytest.approx([expected, expected], rel=1e-3)  # more by the augmentation's matrices
    assert (table.macs >= expected).all() and (table.milliseconds > 0).all()
    assert table.relative[0] == 1
