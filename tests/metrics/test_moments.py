"""Timelines: closed-form cases and invariances."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lib.metrics.moments import (
    Event,
    alarm_curve,
    event_f1,
    events,
    moment_scores,
    poisson_bounds,
    psds,
)

timelines = arrays(np.int64, (3, 20), elements=st.integers(-1, 3))


def curve(row):
    return np.eye(5)[np.asarray(row)]


class TestEvents:
    def test_stretches(self):
        found = events(np.array([[0, 2, 2, 0, 1], [3, 3, -100, 3, 0]]), 0.5)
        assert found == [(0, 2, 0.5, 1.5), (0, 1, 2.0, 2.5), (1, 3, 0.0, 1.0), (1, 3, 1.5, 2.0)]

    def test_gaps_are_closed_within_a_class(self):
        row = np.array([[1, 0, 1, 2, 1, 0, 0, 1]])
        assert events(row, 0.1, gap=0.15) == [(0, 2, pytest.approx(0.3), pytest.approx(0.4)),
                                              (0, 1, 0, pytest.approx(0.5)),
                                              (0, 1, pytest.approx(0.7), pytest.approx(0.8))]  # fmt: skip

    def test_short_ones_are_left_out(self):
        assert events(np.array([[1, 0, 2, 2]]), 0.1, shortest=0.2) == [(0, 2, pytest.approx(0.2), pytest.approx(0.4))]

    @given(timelines)
    def test_without_rules_they_make_up_the_timeline(self, moments):
        again = np.zeros_like(moments)
        for clip, number, onset, offset in events(moments, 1.0):
            again[clip, round(onset) : round(offset)] = number
        assert np.array_equal(again, np.maximum(moments, 0))


class TestMoments:
    def test_by_hand(self):
        scores = moment_scores(np.array([[0, 1, 1, 2]]), np.array([[0, 1, 2, -100]]))
        # F1: class 0 is 1, class 1 is 2/3, class 2 is 0.
        assert scores["accuracy"] == pytest.approx(200 / 3) and scores["macro_f1"] == pytest.approx(500 / 9)


class TestEventF1:
    def test_collars(self):
        true = [Event(0, 1, 1.0, 2.0)]
        assert event_f1([Event(0, 1, 1.2, 2.2)], true)["event_f1"] == 100
        assert event_f1([Event(0, 1, 1.21, 2.0)], true)["event_f1"] == 0
        assert event_f1([Event(0, 1, 1.0, 2.21)], true)["event_f1"] == 0
        assert event_f1([Event(0, 1, 0.0, 4.7)], [Event(0, 1, 0.0, 4.0)])["event_f1"] == 100  # 20 % of 4 s

    def test_each_counts_once(self):
        found = [Event(0, 1, 1.0, 2.0), Event(0, 1, 1.1, 2.1)]
        scores = event_f1(found, [Event(0, 1, 1.05, 2.05)])
        assert scores["event_precision"] == 50 and scores["event_recall"] == 100
        assert scores["event_f1"] == pytest.approx(200 / 3)

    def test_the_matching_with_most_pairs(self):
        """The first found event fits both; taking the nearer one would leave the second alone."""
        true = [Event(0, 1, 1.0, 2.0), Event(0, 1, 1.3, 2.2)]
        found = [Event(0, 1, 1.2, 2.1), Event(0, 1, 1.45, 2.3)]
        assert event_f1(found, true)["event_recall"] == 100

    def test_other_class_or_clip(self):
        true = [Event(0, 1, 1.0, 2.0)]
        assert event_f1([Event(0, 2, 1.0, 2.0)], true)["event_f1"] == 0
        assert event_f1([Event(1, 1, 1.0, 2.0)], true)["event_f1"] == 0

    @given(timelines)
    def test_the_truth_is_perfect(self, moments):
        true = events(moments, 0.5)
        if true:
            assert event_f1(true, true) == {"event_f1": 100, "event_precision": 100, "event_recall": 100}

    @given(timelines, timelines)
    def test_order_of_clips_does_not_matter(self, one, two):
        a = event_f1(events(one, 0.1), events(two, 0.1))
        b = event_f1(events(one[::-1], 0.1), events(two[::-1], 0.1))
        assert all(a[key] == pytest.approx(b[key], nan_ok=True) for key in a)


class TestPsds:
    def test_perfect(self):
        row = [[0, 1, 1, 0, 2, 2, 0, 0]] * 3
        assert psds(curve(row), events(np.array(row), 1.0), seconds=1.0) == pytest.approx(1)

    def test_nothing_found(self):
        row = np.array([[0, 1, 1, 0]])
        assert psds(np.zeros((1, 4, 5)), events(row, 1.0), seconds=1.0) == 0

    def test_half_of_one_class(self):
        """One of two events found and none invented: 0.5 whatever the false positives."""
        row = np.array([[0, 1, 1, 0], [0, 1, 1, 0]])
        probabilities = curve(row)
        probabilities[1] = 0
        assert psds(probabilities, events(row, 1.0), seconds=1.0) == pytest.approx(0.5)

    def test_the_spread_over_classes_costs(self):
        """One class perfect and the other never found: mean 0.5 less a standard deviation of 0.5."""
        row = np.array([[0, 1, 1, 0, 2, 2]])
        probabilities = curve(row)
        probabilities[:, :, 2] = 0
        assert psds(probabilities, events(row, 1.0), seconds=1.0) == pytest.approx(0, abs=1e-9)

    def test_false_positives_shift_the_curve(self):
        """Found only below the threshold at which a false positive comes along: counts from that rate on."""
        row = np.zeros((1, 7200), int)  # 2 h of 1 s
        row[0, 100:110] = 1
        probabilities = np.zeros((1, 7200, 2))
        probabilities[0, 100:110, 1] = 0.5
        probabilities[0, np.arange(1000, 1100, 2), 1] = 0.6  # 50 false ones, 25 per hour
        found = psds(probabilities, events(row, 1.0), seconds=1.0)
        assert found == pytest.approx(0.75, abs=0.001)

    def test_seventy_percent(self):
        row = np.zeros((1, 20), int)
        row[0, :10] = 1
        for stop, wanted in ((7, 1), (6, 0)):
            probabilities = np.zeros((1, 20, 2))
            probabilities[0, :stop, 1] = 1
            assert psds(probabilities, events(row, 1.0), seconds=1.0) == pytest.approx(wanted)

    @settings(max_examples=20, deadline=None)
    @given(timelines, st.integers(0, 3))
    def test_cutting_at_silence_changes_nothing(self, moments, seed):
        moments = np.maximum(moments, 0)
        moments[:, [0, 9, 10, 19]] = 0
        if not moments.any():
            return
        probabilities = np.random.default_rng(seed).random((3, 20, 4))
        probabilities[:, [0, 9, 10, 19]] = 0
        halves = [array.reshape(6, 10, *array.shape[2:]) for array in (moments, probabilities)]
        whole = psds(probabilities, events(moments, 1.0), seconds=1.0)
        assert psds(halves[1], events(halves[0], 1.0), seconds=1.0) == pytest.approx(whole)

    def test_no_event(self):
        assert np.isnan(psds(np.zeros((1, 4, 5)), [], seconds=1.0))


class TestAlarms:
    def test_by_hand(self):
        alarming = np.array([[0.1, 0.9, 0.9, 0.1], [0.9, 0.1, 0.9, 0.1], [0.1, 0.6, 0.1, 0.1], [0.0, 0.0, 0.0, 0.0]])
        table = alarm_curve(alarming, np.array([True, True, False, False]), seconds=450.0,
                            rules=[(1, 1), (2, 2), (2, 3)], thresholds=[0.5])  # fmt: skip
        assert table.rule.tolist() == ["1 of 1", "2 of 2", "2 of 3"]
        assert table.miss_rate.tolist() == [0, 50, 0]
        assert table.alarms_per_hour.tolist() == [1, 0, 0]  # one alarm in an hour of nothing
        assert table.hours.tolist() == [1, 1, 1]

    def test_more_alarms_and_fewer_misses_at_lower_thresholds(self):
        draw = np.random.default_rng(0)
        table = alarm_curve(draw.random((50, 30)), draw.random(50) < 0.5, seconds=1.0, rules=[(3, 5)])
        assert table.alarms.is_monotonic_decreasing and table.miss_rate.is_monotonic_increasing

    def test_no_alarm_in_an_hour_proves_little(self):
        assert poisson_bounds(0)[1] == pytest.approx(3.689, abs=0.001)  # -ln 0.025
        assert poisson_bounds(10) == pytest.approx((4.795, 18.390), abs=0.001)  # Garwood's table

    def test_a_rule_that_no_clip_can_meet(self):
        with pytest.raises(ValueError, match="rule 3 of 9 asks for"):
            alarm_curve(np.zeros((2, 4)), np.zeros(2, bool), seconds=1.0, rules=[(3, 9)])
