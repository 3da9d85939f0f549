"""The vote, against closed forms."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from lib.emergency.recogniser import ensemble
from lib.emergency.recogniser.ensemble import (
    CONSTANT,
    MAJORITY,
    MEAN,
    STACKED,
    audit,
    calibrated,
    ensemble_table,
    if_independent,
    majority,
    majority_class,
    mcnemar,
    mean_probability,
    overlap_table,
    stacking,
)
from lib.metrics.classification import fit_temperature, score_row

CLASSES, ALARMING = ("silence", "fire", "gas", "indoor"), (1, 2)


def sure(*classes, of=4, by=5.0):
    return by * F.one_hot(torch.tensor(classes), of).float()


def noisy(labels, accuracy, seed, of=4):
    """Logits of a voter that is right with probability `accuracy`, and otherwise predicts another class."""
    draw = torch.Generator().manual_seed(seed)
    wrong = (labels + torch.randint(1, of, labels.shape, generator=draw)) % of
    right = torch.rand(len(labels), generator=draw) < accuracy
    return 3 * F.one_hot(torch.where(right, labels, wrong), of) + torch.rand(len(labels), of, generator=draw)


class TestMajority:
    def test_two_of_three_name_some_emergency(self):
        votes = {"a": sure(1, 1, 0, 3), "b": sure(2, 0, 0, 1), "c": sure(0, 3, 3, 2)}
        assert majority(votes, ALARMING).tolist() == [True, False, False, True]

    @given(st.lists(st.tuples(*[st.integers(0, 3)] * 3), min_size=1, max_size=8), st.permutations("abc"))
    def test_the_order_of_voters_does_not_matter(self, rows, order):
        votes = {name: sure(*column) for name, column in zip("abc", zip(*rows, strict=True), strict=True)}
        other = {name: votes[name] for name in order}
        assert majority(votes, ALARMING).equal(majority(other, ALARMING))

    def test_of_two_both(self):
        votes = {"a": sure(1, 1, 0), "b": sure(2, 0, 3)}
        assert majority(votes, ALARMING).tolist() == [True, False, False]

    def test_an_abstention_calls_nothing_and_has_no_part_in_means(self):
        votes = {"a": sure(1, 1, 3), "b": sure(2, 0, 3), "c": torch.full((3, 4), torch.nan)}
        others = {name: votes[name] for name in "ab"}
        assert majority(votes, ALARMING).tolist() == [True, False, False]
        assert majority_class(votes).equal(majority_class(others))
        torch.testing.assert_close(mean_probability(votes), mean_probability(others))

    def test_of_independent_voters(self):
        labels = torch.tensor([1, 3]).repeat(20_000)
        votes = {}
        for seed, accuracy in enumerate((0.9, 0.8, 0.7)):
            right = torch.rand(40_000, generator=torch.Generator().manual_seed(seed)) < accuracy
            votes[str(seed)] = sure(*torch.where(right, labels, 4 - labels).tolist())
        found = (majority(votes, ALARMING) == (labels == 1)).float().mean().item()
        assert found == pytest.approx(if_independent((0.9, 0.8, 0.7)), abs=0.005)

    def test_closed_form(self):
        assert if_independent((0.9, 0.9, 0.9)) == pytest.approx(3 * 0.9**2 - 2 * 0.9**3)
        assert if_independent((0.9985, 0.9960, 0.9621)) == pytest.approx(0.99979, abs=1e-5)  # the source's three

    def test_classes(self):
        votes = {"a": sure(1, 1, 0), "b": sure(1, 2, 3, by=9.0), "c": sure(0, 3, 2, by=2.0)}
        assert majority_class(votes).tolist() == [1, 2, 3]  # two agree; else the most confident of three


class TestProbabilities:
    def test_mean(self):
        votes = {"a": torch.tensor([[0.8, 0.2]]).log(), "b": torch.tensor([[0.4, 0.6]]).log()}
        torch.testing.assert_close(mean_probability(votes).exp(), torch.tensor([[0.6, 0.4]]))

    def test_temperature_comes_from_the_validation(self):
        labels = torch.arange(4).repeat(200)
        voter = noisy(labels, 0.7, 0)
        found = calibrated({"a": 10 * voter}, labels, {"a": 10 * voter[:5]})["a"]
        torch.testing.assert_close(found, calibrated({"a": voter}, labels, {"a": voter[:5]})["a"], atol=1e-3, rtol=1e-3)
        torch.testing.assert_close(found.exp().sum(1), torch.ones(5))

    def test_stacking_learns_whom_to_trust(self):
        labels = torch.arange(4).repeat(100)
        good, bad = noisy(labels, 0.9, 1), noisy(labels, 0.25, 2)
        found = stacking({"a": bad, "b": good}, labels, {"a": bad, "b": good}, 4)
        assert (found.argmax(1) == good.argmax(1)).float().mean() > 0.95
        torch.testing.assert_close(found.exp().sum(1), torch.ones(400), atol=1e-5, rtol=1e-5)

    def test_stacking_without_some_class(self):
        labels = torch.tensor([0, 1, 3] * 20)
        votes = {"a": noisy(labels, 0.9, 1)}
        assert stacking(votes, labels, votes, 4)[:, 2].max() <= -20


class TestMcNemar:
    @pytest.mark.parametrize(("fixed", "broken", "p"), [(14, 4, 0.0309), (20, 10, 0.0987), (3, 0, 0.25), (0, 0, 1.0)])
    def test_by_hand(self, fixed, broken, p):
        before = torch.tensor([False] * fixed + [True] * broken + [True, False])
        after = torch.tensor([True] * fixed + [False] * broken + [True, False])
        assert mcnemar(before, after) == {"fixed": fixed, "broken": broken, "p": pytest.approx(p, abs=1e-4)}


class TestTables:
    def votes(self, count=2000):
        labels = torch.arange(4).repeat(count // 4)
        voters = {name: noisy(labels, accuracy, seed) for seed, (name, accuracy)
                  in enumerate({"CNN": 0.6, "Whisper encoder": 0.8, "decoder's text": 0.5}.items())}  # fmt: skip
        return voters, labels

    def test_ensemble(self):
        votes, labels = self.votes()
        half = torch.arange(len(labels)) % 8 < 4
        parts = [{name: logits[chosen] for name, logits in votes.items()} for chosen in (half, ~half)]
        table = ensemble_table(parts[0], labels[half], parts[1], labels[~half], CLASSES, ALARMING, seed=3)
        table = table.set_index("voter")
        assert list(table.index) == [*votes, MAJORITY, MEAN, STACKED, *CONSTANT] and set(table.seed) == {3}
        assert table.loc[[MEAN, STACKED], "accuracy"].min() >= table.loc["Whisper encoder", "accuracy"] - 1
        assert table.loc["CNN", "source"] == 99.60 and np.isnan(table.loc[MEAN, "source"])
        assert set(table.against.dropna()) == {"Whisper encoder"}
        emergency = torch.isin(labels[~half], torch.tensor(ALARMING))
        always, never = table.loc[list(CONSTANT), "binary_accuracy"]
        assert always == pytest.approx(100 * emergency.float().mean().item()) and always + never == pytest.approx(100)
        assert (table.loc[list(CONSTANT), "balanced_accuracy"] == 50).all()
        assert table.loc[MAJORITY, "balanced_accuracy"] > 60
        assert (table.loc[list(CONSTANT), "average_precision"] == always).all()
        cnn = parts[1]["CNN"] / fit_temperature(parts[0]["CNN"], labels[half])
        wanted = average_precision_score(emergency, cnn.softmax(1)[:, list(ALARMING)].sum(1))
        assert table.loc["CNN", "average_precision"] == pytest.approx(100 * wanted)
        assert table.loc[MAJORITY, "average_precision"] > always
        wanted = (majority(parts[1], ALARMING) == emergency).float().mean().item()
        assert table.loc[MAJORITY, "binary_accuracy"] == pytest.approx(100 * wanted)

    def test_schemes_are_compared_with_the_voter_that_was_best_on_the_validation(self):
        labels = torch.tensor([1, 3]).repeat(50)
        right, wrong = sure(*labels.tolist()), sure(*(4 - labels).tolist())
        before, after = {"a": right, "b": wrong, "c": wrong}, {"a": wrong, "b": right, "c": right}
        table = ensemble_table(before, labels, after, labels, CLASSES, ALARMING, seed=0).set_index("voter")
        assert set(table.against.dropna()) == {"a"}
        assert (table.fixed[MAJORITY], table.broken[MAJORITY]) == (100, 0)

    def test_a_voter_that_abstains(self):
        votes, labels = self.votes(400)
        votes["decoder's text"][::2] = torch.nan
        table = ensemble_table(votes, labels, votes, labels, CLASSES, ALARMING, seed=0).set_index("voter")
        assert table.answered.iloc[:3].tolist() == [100, 100, 50]
        kept = slice(1, None, 2)
        alone = score_row(votes["decoder's text"][kept] / fit_temperature(votes["decoder's text"][kept], labels[kept]),
                          labels[kept], CLASSES, ALARMING)  # fmt: skip
        assert table.loc["decoder's text", "ece"] == pytest.approx(alone["ece"])
        emergency = torch.isin(labels, torch.tensor(ALARMING))
        missed = alone["miss_rate"] / 100 * emergency[kept].sum() + emergency[::2].sum()
        assert table.loc["decoder's text", "miss_rate"] == pytest.approx(float(100 * missed / emergency.sum()))
        assert table.loc[[MEAN, STACKED], "accuracy"].notna().all()

    def test_a_change_of_order_changes_nothing(self):
        votes, labels = self.votes(400)
        order = torch.randperm(400, generator=torch.Generator().manual_seed(0))
        mixed = {name: logits[order] for name, logits in votes.items()}
        one = ensemble_table(votes, labels, votes, labels, CLASSES, ALARMING, seed=0)
        two = ensemble_table(votes, labels, mixed, labels[order], CLASSES, ALARMING, seed=0)
        np.testing.assert_allclose(one.accuracy, two.accuracy, atol=0.3)  # the solver's sums depend on the order

    def test_overlap_of_independent_errors(self):
        labels = torch.tensor([1, 3]).repeat(20_000)
        draw = torch.Generator().manual_seed(0)
        votes = {name: sure(*torch.where(torch.rand(40_000, generator=draw) < 0.8, labels, 4 - labels).tolist())
                 for name in "ab"}  # fmt: skip
        row = overlap_table(votes, labels, ALARMING, seed=0).iloc[0]
        assert row.both_wrong == pytest.approx(4, abs=0.3) and row.if_independent == pytest.approx(4, abs=0.3)
        assert abs(row.q) < 0.05 and abs(row.kappa) < 0.02

    def test_overlap_of_twins(self):
        labels = torch.tensor([1, 3, 1, 3])
        votes = {name: sure(1, 3, 3, 3) for name in "ab"}
        row = overlap_table(votes, labels, ALARMING, seed=0).iloc[0]
        assert (row.both_wrong, row.q, row.kappa) == (25, 1, 1)


class TestAudit:
    def test_nothing_to_tell_apart(self):
        draw = np.random.default_rng(0)
        found = audit(draw.normal(size=(400, 10)), draw.integers(0, 2, 400))
        assert found["low"] < 50 < found["high"] + 3 and found["chance"] == 50

    def test_a_recording_chain_is_found(self):
        draw = np.random.default_rng(0)
        groups = np.repeat(["one", "other"], [300, 60])
        found = audit(draw.normal(size=(360, 10)) + (groups == "one")[:, None], groups)
        assert found["low"] > 80

    def test_the_interval_stays_a_percentage(self):
        groups = np.repeat([0, 1], 30)
        found = audit(np.random.default_rng(0).normal(size=(60, 4)) + 2.2 * groups[:, None], groups)
        assert found["balanced_accuracy"] > 95 and found["high"] == 100


def test_the_source_s_voters_are_ours():
    assert set(ensemble.SOURCE) == {"CNN", "Whisper encoder", "decoder's text", MAJORITY}
