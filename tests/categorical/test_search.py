"""Search: rankings against brute force, average precision against scikit-learn, bytes, and a head that learns."""

from dataclasses import dataclass, replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import average_precision_score

from lib.categorical import defaults, frozen, search
from lib.categorical.arms import Arm
from lib.data.catalog import DataError
from lib.metrics import MetricError, clustering


@pytest.fixture(scope="module")
def data():
    draw = torch.Generator().manual_seed(0)
    centres = 3 * torch.randn(4, 32, generator=draw)
    labels = torch.arange(300) % 4, torch.arange(40) % 4
    points = [centres[part] + torch.randn(len(part), 32, generator=draw) for part in labels]
    return search.Embedded("blobs", *points, *labels)


@pytest.fixture(scope="module")
def heads(data):
    settings = frozen.HeadSettings(epochs=20, batch_size=50)
    return frozen.train_heads(frozen.head_arms([4], 16, 4), data, settings, seed=0)


def test_precision_and_recall_are_those_of_brute_force(data, heads):
    table = search.search_table(data, [heads["head, 4 bytes"]], sizes=[4], queries=0, seed=0).set_index("method")
    similar = (data.test @ data.train.T).numpy()
    relevant = (data.train_labels == data.test_labels[:, None]).numpy()
    precision = [average_precision_score(*row) for row in zip(relevant, similar, strict=True)]
    assert table.loc[search.EXACT, "map"] == pytest.approx(100 * np.mean(precision))
    order = torch.randperm(300, generator=torch.Generator().manual_seed(0))
    found = search.rival_distances("PQ", 4, data.train[order], data.test, seed=0)
    true = similar[:, order].argmax(1)
    nearer = (found < np.take_along_axis(found, true[:, None], 1)).sum(1)  # how many are closer than the true neighbour
    for k in search.WITHIN:
        assert table.loc["PQ", f"recall_{k}"] == pytest.approx(100 * (nearer < k).mean())


def test_only_as_many_queries_are_asked_as_wanted(data):
    labels = torch.randint(4, (40,), generator=torch.Generator().manual_seed(5))
    data = replace(data, test_labels=labels)  # with the blobs' own labels, every query has the same precision
    table = search.search_table(data, [], sizes=[4], queries=7, seed=0).set_index("method")
    draw = torch.Generator().manual_seed(0)
    torch.randperm(300, generator=draw)
    asked = torch.randperm(40, generator=draw)[:7]
    similar = (data.test[asked] @ data.train.T).numpy()
    relevant = (data.train_labels == labels[asked][:, None]).numpy()
    precision = [average_precision_score(*row) for row in zip(relevant, similar, strict=True)]
    assert table.loc[search.EXACT, "map"] == pytest.approx(100 * np.mean(precision))


def test_a_positive_is_a_neighbour_and_never_the_image_itself(data, monkeypatch):
    points = torch.tensor([[1.0, 0], [1, 0], [1, 0], [0, 1]])
    assert frozen.mined(points, 1).tolist() == [[1], [0], [0], [0]]
    seen, objective = [], frozen.objective
    monkeypatch.setattr(frozen, "objective", lambda *given: seen.append(given[1:3]) or objective(*given))
    monkeypatch.setattr(frozen, "mined", lambda points, count: (torch.arange(len(points))[:, None] + 1) % len(points))
    whole = frozen.HeadSettings(epochs=1, batch_size=300)  # so that the neighbours of a batch are the batch
    frozen.train_heads(frozen.head_arms([4], 16, 4)[:1], data, whole, seed=0)
    outputs, keys = (part.detach().flatten(1) for part in seen[0])
    assert (outputs - keys).abs().amax(1).min() > 1e-3
    torch.testing.assert_close(*(part[part[:, 0].argsort()] for part in (outputs, keys)))


def test_hamming_distances_are_those_of_brute_force():
    draw = torch.Generator().manual_seed(1)
    stored, asked = (torch.randint(4, (n, 6), generator=draw) for n in (30, 5))
    found = search.hamming(asked, stored)
    assert np.array_equal(found, (asked[:, None] != stored[None]).sum(-1).numpy())
    soft = torch.nn.functional.one_hot(asked, 4).float()
    np.testing.assert_allclose(search.expected_disagreement(soft, stored), found / 6 - 1, atol=1e-6)


def test_as_many_centroids_as_points_reconstruct_them():
    points = torch.nn.functional.normalize(torch.randn(256, 8, generator=torch.Generator().manual_seed(0)), dim=1)
    found = search.rival_distances("PQ", 1, points, points[:20], seed=0)
    np.testing.assert_allclose(found, torch.cdist(points[:20], points).square(), atol=1e-4)


def test_fewer_images_than_dimensions_teach_no_rotation():
    few = torch.nn.functional.normalize(torch.randn(80, 128, generator=torch.Generator().manual_seed(0)), dim=1)
    found = {name: search.rival_distances(name, 4, few, few[:5], seed=0) for name in search.RIVALS}
    assert {name for name, distances in found.items() if distances is None} == {"OPQ", "ITQ"}


def test_faiss_and_torch_share_a_process_with_several_threads():
    points = torch.nn.functional.normalize(torch.randn(600, 32, generator=torch.Generator().manual_seed(0)), dim=1)
    found = []
    for count in (1, 4):
        torch.set_num_threads(count)
        product = points @ points.T
        rivals = (search.rival_distances(name, 4, points, points[:9], seed=0) for name in ("OPQ", "ITQ"))
        found.append([product, *rivals])
    for one, two in zip(*found, strict=True):
        np.testing.assert_allclose(one, two, atol=1e-6)


def test_table_is_deterministic_and_exact_search_finds_all(data, heads):
    how = {"sizes": [4, 64], "queries": 0, "seed": 0}
    table, again = (search.search_table(data, [heads["head, 4 bytes"]], **how) for _ in range(2))
    assert table.equals(again)
    exact = table[table.method == search.EXACT].iloc[0]
    assert exact.bytes == 128 and exact.recall_1 == exact.recall_100 == 100
    assert set(table[table.bytes == 4].method) == {*search.RIVALS, search.OURS, search.SOFT}
    assert set(table[table.bytes == 64].method) == {"LSH"}  # PQ, OPQ and ITQ would need more dimensions
    assert table["map"].between(0, 100).all()


def test_a_head_learns_separable_classes_without_labels(data, heads):
    fitted, tested = heads["head, 4 bytes"]
    assert fitted.hard.shape == (300, 8) and tested.soft.shape == (40, 8, 16)
    found = clustering.k_means(fitted.points, 4, seed=0).assign(tested.points)
    assert clustering.matched_accuracy(found, data.test_labels) == 1
    assert len(frozen.cluster_table(data, heads, "head, 4 bytes", 4, seed=0)) == 4


def test_what_cannot_be_searched_is_told():
    with pytest.raises(MetricError, match="head_categories=10"):
        frozen.head_arms([4], 10, 4)


def test_what_experiments_and_heads_cannot_use_is_refused_before_anything_trains(tmp_path, monkeypatch):
    values = {name: value for name, value in vars(defaults).items() if not name.startswith("_")}
    frozen.check(SimpleNamespace(**values))
    with pytest.raises(MetricError, match="'resnet' is unknown; choose 'vgg16'"):
        frozen.check(SimpleNamespace(**values | {"frozen": "resnet"}))
    with pytest.raises(MetricError, match="head_categories=10"):
        frozen.check(SimpleNamespace(**values | {"head_categories": 10}))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(DataError, match="VGG16 are not in .*TORCH_HOME"):
        frozen.check(SimpleNamespace(**values | {"frozen": "vgg16"}))
    frozen.check(SimpleNamespace(**values | {"frozen": "resnet", "head_epochs": 0}))  # no heads, so not checked


def test_embeddings_at_equal_bytes_keep_most_of_their_neighbours(data, monkeypatch):
    """Blobs are still classified from 4 bytes; where OPQ cannot be fitted, as to half bytes, no row is added."""
    monkeypatch.setattr(search, "representation_table", lambda *_, **__: pd.DataFrame({"arm": ["NT-Xent"]}))
    train, test = [SimpleNamespace(points=part) for part in (data.train, data.test)]
    sets = [Labelled(labels, range(4)) for labels in (data.train_labels, data.test_labels)]
    for positions, rows in ((8, 2), (5, 1)):
        ours = SimpleNamespace(trained=SimpleNamespace(arm=Arm("categorical", positions=positions, categories=16)))
        seen = {"NT-Xent": SimpleNamespace(train=train, test=test), "categorical": ours}
        table = search.representation_with_opq(seen, *sets, seed=0)
        assert len(table) == rows
        if rows == 2:
            assert table.bytes.iloc[1] == 4 and table.knn.iloc[1] > 90


@dataclass
class Labelled:
    labels: torch.Tensor
    classes: range

    def __len__(self):
        return len(self.labels)


def test_search_needs_no_heads(data, monkeypatch):
    parts, arm = (data.train, data.test), Arm("codes", positions=8, categories=16)
    codes = [frozen.read_head(arm, part, torch.randn(len(part), 8, 16)) for part in parts]
    pairs = {"NT-Xent": [SimpleNamespace(points=part) for part in parts], "categorical": codes}
    seen = {label: SimpleNamespace(train=one, test=two) for label, (one, two) in pairs.items()}
    monkeypatch.setattr(frozen, "train_heads", None)
    design = SimpleNamespace(search_sizes=[4], search_queries=0, head_epochs=0)
    labels = SimpleNamespace(labels=data.train_labels), SimpleNamespace(labels=data.test_labels)
    table, clusters = frozen.compare(design, seen, *labels, batch_size=20, seed=0, checkpoints=None)
    assert clusters is None and set(table.method) == {search.EXACT, *search.RIVALS, search.OURS, search.SOFT}
    assert table.recall_1.isna().tolist() == table.method.isin([search.OURS, search.SOFT]).tolist()
