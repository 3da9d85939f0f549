"""Sound event detection: cases in closed form, invariances, and intervals against a plain bootstrap."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import f1_score

from lib.metrics import moments as module
from lib.metrics.moments import (
    Event,
    alarm_curve,
    event_interval,
    events,
    moment_interval,
    poisson_bounds,
    psds_interval,
)


@pytest.fixture
def few_draws(monkeypatch):
    monkeypatch.setattr(module, "DRAWS", 2)


def event_f1(found, true):
    return event_interval(found, true, 1 + max(event.clip for event in [*found, *true]))[0]


def psds(*arguments, **options):
    return psds_interval(*arguments, **options)[0]


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

    def test_a_gap_of_just_that_length_stays(self):
        row = np.array([[1, 0, 0, 1]])
        assert len(events(row, 0.1, gap=0.2)) == 2 and len(events(row, 0.1, gap=0.21)) == 1

    def test_short_ones_are_left_out(self):
        assert events(np.array([[1, 0, 2, 2]]), 0.1, shortest=0.2) == [(0, 2, pytest.approx(0.2), pytest.approx(0.4))]

    @given(timelines)
    def test_without_rules_they_make_up_the_timeline(self, moments):
        again = np.zeros_like(moments)
        for clip, number, onset, offset in events(moments, 1.0):
            again[clip, round(onset) : round(offset)] = number
        assert np.array_equal(again, np.maximum(moments, 0))


def macro_f1(predicted, wanted):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "DRAWS", 1)  # its interval takes most of the time
        return moment_interval(predicted, wanted)[0]


class TestMoments:
    def test_by_hand(self):
        # F1: class 0 is 1, class 1 is 2/3, class 2 is 0.
        assert macro_f1(np.array([[0, 1, 1, 2]]), np.array([[0, 1, 2, -100]])) == pytest.approx(500 / 9)

    @given(timelines, timelines)
    def test_as_scikit_learn(self, predicted, wanted):
        known = wanted >= 0
        if known.any():
            theirs = f1_score(wanted[known], predicted[known], labels=np.unique(wanted[known]), average="macro",
                              zero_division=0)  # fmt: skip
            assert macro_f1(predicted, wanted) == pytest.approx(100 * theirs)


class TestEventF1:
    def test_collars(self):
        true = [Event(0, 1, 1.0, 2.0)]
        assert event_f1([Event(0, 1, 1.2, 2.2)], true) == 100
        assert event_f1([Event(0, 1, 1.21, 2.0)], true) == 0
        assert event_f1([Event(0, 1, 1.0, 2.21)], true) == 0
        assert event_f1([Event(0, 1, 0.0, 4.7)], [Event(0, 1, 0.0, 4.0)]) == 100  # 20 % of 4 s

    def test_each_counts_once(self):
        found = [Event(0, 1, 1.0, 2.0), Event(0, 1, 1.1, 2.1)]
        assert event_f1(found, [Event(0, 1, 1.05, 2.05)]) == pytest.approx(200 / 3)

    def test_the_matching_with_most_pairs(self):
        """The first detection fits both events; matched to the nearer one, it would leave the second unmatched."""
        true = [Event(0, 1, 1.0, 2.0), Event(0, 1, 1.3, 2.2)]
        found = [Event(0, 1, 1.2, 2.1), Event(0, 1, 1.45, 2.3)]
        assert event_f1(found, true) == 100

    def test_other_class_or_clip(self):
        true = [Event(0, 1, 1.0, 2.0)]
        assert event_f1([Event(0, 2, 1.0, 2.0)], true) == 0
        assert event_f1([Event(1, 1, 1.0, 2.0)], true) == 0

    @given(timelines)
    def test_the_truth_is_perfect(self, moments):
        true = events(moments, 0.5)
        if true:
            assert event_f1(true, true) == 100

    @given(timelines, timelines)
    def test_order_of_clips_does_not_matter(self, one, two):
        a = event_interval(events(one, 0.1), events(two, 0.1), 3)[0]
        b = event_interval(events(one[::-1], 0.1), events(two[::-1], 0.1), 3)[0]
        assert a == pytest.approx(b, nan_ok=True)


@pytest.mark.usefixtures("few_draws")
class TestPsds:
    def test_perfect(self):
        row = [[0, 1, 1, 0, 2, 2, 0, 0]] * 3
        assert psds(curve(row), events(np.array(row), 1.0), seconds=1.0) == pytest.approx(1)

    def test_nothing_found(self):
        row = np.array([[0, 1, 1, 0]])
        assert psds(np.zeros((1, 4, 5)), events(row, 1.0), seconds=1.0) == 0

    def test_half_of_one_class(self):
        """One of two events is found, without false positives: recall is 0.5 at every rate of them."""
        row = np.array([[0, 1, 1, 0], [0, 1, 1, 0]])
        probabilities = curve(row)
        probabilities[1] = 0
        assert psds(probabilities, events(row, 1.0), seconds=1.0) == pytest.approx(0.5)

    def test_the_spread_over_classes_costs(self):
        """One class is perfect and the other never found: a mean of 0.5 minus a standard deviation of 0.5."""
        row = np.array([[0, 1, 1, 0, 2, 2]])
        probabilities = curve(row)
        probabilities[:, :, 2] = 0
        assert psds(probabilities, events(row, 1.0), seconds=1.0) == pytest.approx(0, abs=1e-9)

    def test_false_positives_shift_the_curve(self):
        """The event is found only at a threshold that admits false positives: recall counts from their rate on."""
        row = np.zeros((1, 7200), int)  # 2 h of 1 s
        row[0, 100:110] = 1
        probabilities = np.zeros((1, 7200, 2))
        probabilities[0, 100:110, 1] = 0.5
        probabilities[0, np.arange(1000, 1100, 2), 1] = 0.6  # 50 false positives, 25 per hour
        found = psds(probabilities, events(row, 1.0), seconds=1.0)
        assert found == pytest.approx(0.75, abs=0.001)

    def test_seventy_percent(self):
        row = np.zeros((1, 20), int)
        row[0, :10] = 1
        for stop, wanted in ((7, 1), (6, 0)):
            probabilities = np.zeros((1, 20, 2))
            probabilities[0, :stop, 1] = 1
            assert psds(probabilities, events(row, 1.0), seconds=1.0) == pytest.approx(wanted)

    @settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
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

    @pytest.mark.parametrize("sharper", [np.sqrt, np.square, lambda p: p**30, lambda p: 1 / (1 + np.exp(30 - 60 * p))])
    def test_how_sure_the_network_is_changes_nothing(self, sharper):
        """Only the order of frames within a class counts."""
        drawn = np.random.default_rng(1)
        moments = np.repeat(drawn.integers(0, 4, (12, 8)), 5, axis=1)
        probabilities = 0.45 * np.eye(4)[moments] + 0.55 * drawn.random((12, 40, 4))
        true, how = events(moments, 1.0), {"seconds": 1.0}
        wanted = psds(probabilities, true, **how)
        assert 0 < wanted < 1 and psds(sharper(probabilities), true, **how) == pytest.approx(wanted)

    def test_no_event(self):
        assert np.isnan(psds(np.zeros((1, 4, 5)), [], seconds=1.0))


def _drawn_anew(score, clips, seed, draws=1000):
    """Return the percentile bootstrap of a textbook: every resample is scored from scratch."""
    often = np.random.default_rng(seed).multinomial(clips, np.full(clips, 1 / clips), draws)
    scores = [score(np.repeat(np.arange(clips), row)) for row in often]
    return np.nanpercentile(scores, (2.5, 97.5))


def _of_clips(some, chosen):
    """Return the events of the clips `chosen`, repeated as chosen and renumbered."""
    return [event._replace(clip=new) for new, old in enumerate(chosen) for event in some if event.clip == old]


class TestIntervals:
    draw = np.random.default_rng(0)
    wanted = np.repeat(draw.integers(0, 3, (12, 5)), 4, 1)  # runs of 4 frames
    predicted = np.where(draw.random((12, 20)) < 0.8, wanted, draw.integers(0, 3, (12, 20)))
    probabilities = 0.7 * np.eye(4)[predicted] + 0.3 * draw.random((12, 20, 4))
    true, found = events(wanted, 0.1), events(predicted, 0.1, gap=0.15)

    def test_moments_as_by_drawing_clips(self):
        value, low, high = moment_interval(self.predicted, self.wanted, seed=3)
        assert value == pytest.approx(macro_f1(self.predicted, self.wanted)) and low < value < high
        slow = _drawn_anew(lambda c: macro_f1(self.predicted[c], self.wanted[c]), 12, 3)
        assert (low, high) == pytest.approx(slow)

    def test_events_as_by_drawing_clips(self, monkeypatch):
        value, low, high = event_interval(self.found, self.true, 12, seed=3)
        assert value == pytest.approx(event_f1(self.found, self.true)) and low < value < high
        monkeypatch.setattr(module, "DRAWS", 2)
        slow = _drawn_anew(lambda c: event_f1(_of_clips(self.found, c), _of_clips(self.true, c)), 12, 3)
        assert (low, high) == pytest.approx(slow)

    def test_psds_as_by_drawing_clips(self, monkeypatch):
        """The basic bootstrap: the value deviates from the truth as the resamples do from the value."""
        levels = np.array([0.0, 0.3, 0.5, 0.8])  # so few that every resample contains all of them
        probabilities, how = levels[(4 * self.probabilities).astype(int)], {"seconds": 60.0}
        true = events(self.wanted, 60.0)
        monkeypatch.setattr(module, "DRAWS", 100)
        value, low, high = psds_interval(probabilities, true, seed=3, **how)
        assert value == pytest.approx(psds(probabilities, true, **how)) and low < value < high
        monkeypatch.setattr(module, "DRAWS", 2)
        drawn = _drawn_anew(lambda c: psds(probabilities[c], _of_clips(true, c), **how), 12, 3, draws=100)
        assert (low, high) == pytest.approx((max(0, 2 * value - drawn[1]), min(1, 2 * value - drawn[0])))

    def test_four_times_the_clips_halve_it(self):
        many = [np.tile(array, (16, 1)) for array in (self.predicted, self.wanted)]
        width = np.diff(moment_interval(self.predicted, self.wanted)[1:])
        assert np.diff(moment_interval(*many)[1:]) == pytest.approx(width / 4, rel=0.15)

    def test_one_clip_says_nothing_of_others(self):
        value, low, high = moment_interval(self.predicted[:1], self.wanted[:1])
        assert np.isfinite(value) and np.isnan([low, high]).all()

    def test_nothing_to_find(self):
        assert np.isnan(event_interval([], [], 5)).all()
        assert np.isnan(psds_interval(np.zeros((3, 4, 5)), [], seconds=1.0)).all()
        assert np.isnan(moment_interval(np.ones((3, 4), int), np.full((3, 4), -100))).all()


class TestAlarms:
    def test_by_hand(self, monkeypatch):
        monkeypatch.setattr(module, "ALARM_THRESHOLDS", np.array([0.5]))
        alarming = np.array([[0.1, 0.9, 0.9, 0.1], [0.9, 0.1, 0.9, 0.1], [0.1, 0.6, 0.1, 0.1], [0.0, 0.0, 0.0, 0.0]])
        table = alarm_curve(alarming, np.array([True, True, False, False]), seconds=450.0,
                            rules=[(1, 1), (2, 2), (2, 3)])  # fmt: skip
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
