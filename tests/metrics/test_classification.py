import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn.metrics import balanced_accuracy_score

from lib.metrics.classification import (
    alarm_row,
    binary,
    calibration_error,
    confusion,
    fit_temperature,
    raised,
    reliability,
    score_row,
    wilson,
)

NAMES = ("fire", "fall", "indoor")


def logits_for(predicted, classes=3, sure=5.0):
    return sure * torch.nn.functional.one_hot(torch.as_tensor(predicted), classes).float()


@given(hits=st.integers(0, 500), more=st.integers(0, 500))
def test_wilson_is_the_textbook_formula(hits, more):
    n = hits + more
    if n == 0:
        assert wilson(0, 0) == (0.0, 1.0)
        return
    z, p = norm.ppf(0.975), hits / n
    middle = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    assert wilson(hits, n) == pytest.approx((middle - half, middle + half), abs=1e-9)


def test_the_interval_of_the_sources_accuracy():
    """For 96.25 % of 666 clips it is about three points wide: too wide to rank seven close variants."""
    low, high = wilson(round(0.9625 * 666), 666)
    assert (100 * low, 100 * high) == pytest.approx((94.5, 97.4), abs=0.1)


def test_confusion_rows_are_classes():
    counts = confusion(torch.tensor([0, 0, 1, 2]), torch.tensor([0, 1, 1, 1]), 3)
    assert counts.tolist() == [[1, 1, 0], [0, 1, 0], [0, 1, 0]]


def test_one_emergency_taken_for_another_still_alarms():
    labels, predicted = torch.tensor([0, 0, 1, 2, 2]), torch.tensor([1, 2, 1, 2, 0])
    assert binary(raised(logits_for(predicted), [0, 1]), labels < 2).tolist() == [[2, 1], [1, 1]]


def test_emergencies_that_cannot_be_told_apart_alarm_together():
    unsure = torch.tensor([[0.3, 0.3, 0.4], [0.2, 0.2, 0.6]]).log()
    assert raised(unsure, (0, 1)).tolist() == [True, False]
    assert unsure.argmax(1).tolist() == [2, 2]


@settings(max_examples=30)
@given(seed=st.integers(0, 10_000))
def test_macro_recall_is_balanced_accuracy(seed):
    rng = np.random.default_rng(seed)
    labels, predicted = rng.integers(0, 3, 40), rng.integers(0, 3, 40)
    row = score_row(logits_for(predicted), torch.tensor(labels), NAMES)
    present = [label for label in range(3) if (labels == label).any()]
    expected = np.mean([(predicted[labels == label] == label).mean() for label in present])
    assert row["macro_recall"] == pytest.approx(100 * expected)
    if len(present) == 3:
        assert row["macro_recall"] == pytest.approx(100 * balanced_accuracy_score(labels, predicted))


def test_score_row_counts():
    labels, predicted = [0, 0, 1, 1, 2, 2, 2, 2], [0, 1, 1, 2, 2, 2, 2, 0]
    row = score_row(logits_for(predicted), torch.tensor(labels), NAMES, alarming=(0, 1))
    assert row["clips"] == 8 and row["accuracy"] == pytest.approx(62.5)
    assert row["worst_class"] == "fire" and row["worst_recall"] == pytest.approx(50)
    assert row["miss_rate"] == pytest.approx(25) and row["false_alarms"] == pytest.approx(25)
    assert row["binary_accuracy"] == pytest.approx(75)
    assert row["accuracy_low"] < row["accuracy"] < row["accuracy_high"]


def test_without_alarming_classes_there_is_no_alarm_rate():
    row = score_row(logits_for([0, 1]), torch.tensor([0, 1]), NAMES)
    assert np.isnan([row["miss_rate"], row["false_alarms"], row["binary_accuracy"]]).all()


@pytest.mark.parametrize("logits, labels", [(torch.zeros(2, 4), torch.zeros(2)), (torch.zeros(0, 3), torch.zeros(0))])
def test_what_does_not_fit_is_refused(logits, labels):
    with pytest.raises(ValueError, match="expected one row for each"):
        score_row(logits, labels.long(), NAMES)


def test_calibration_error_in_closed_form():
    """Ten predictions with confidence 0.9, seven of them correct: an error of 0.2."""
    probabilities = torch.tensor([[0.9, 0.1]] * 10)
    labels = torch.tensor([0] * 7 + [1] * 3)
    assert calibration_error(probabilities, labels) == pytest.approx(0.2, abs=1e-6)
    table = reliability(probabilities, labels)
    assert table["count"].sum() == 10 and len(table) == 15


def test_calibration_error_by_an_explicit_loop_over_bins():
    draw = torch.Generator().manual_seed(0)
    probabilities = (2 * torch.randn(300, 4, generator=draw)).softmax(1)
    labels = torch.randint(4, (300,), generator=draw)
    sure, taken = probabilities.max(1)
    error = 0.0
    for k in range(15):
        inside = (sure > k / 15) & (sure <= (k + 1) / 15)
        error += abs((sure[inside] - (taken == labels)[inside].float()).sum().item()) / 300
    assert calibration_error(probabilities, labels) == pytest.approx(error, abs=1e-6)


def test_temperature_undoes_overconfidence():
    """For labels drawn from softmax(z), logits 3 z need T = 3."""
    torch.manual_seed(0)
    true = torch.randn(20_000, 5) * 2
    labels = torch.multinomial(true.softmax(1), 1)[:, 0]
    assert fit_temperature(3 * true, labels) == pytest.approx(3, rel=0.05)
    before, after = ((3 * true / t).softmax(1) for t in (1, fit_temperature(3 * true, labels)))
    assert calibration_error(after, labels) < 0.2 * calibration_error(before, labels)


def test_perfect_predictions_get_a_finite_temperature():
    assert 0.009 < fit_temperature(logits_for([0, 1, 2], sure=30.0), torch.tensor([0, 1, 2])) < 1


@pytest.mark.parametrize("constant", [0, 2])
def test_a_constant_predictor_has_a_balanced_accuracy_of_half(constant):
    row = alarm_row(logits_for([constant] * 10), torch.tensor([0] + [2] * 9), alarming=(0, 1))
    assert row["balanced_accuracy"] == 50 and row["average_precision"] == pytest.approx(10)
    assert (row["always"], row["never"]) == pytest.approx((10, 90))


def test_base_rates_without_emergencies():
    assert all(np.isnan(value) for value in alarm_row(logits_for([0, 1]), torch.tensor([2, 2]), (0,)).values())
