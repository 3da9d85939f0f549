"""Streams: windows, one timeline, one alarm."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.emergency.recogniser.listener import Listener, Rule, windows

SECONDS, CLASSES = 0.08, 3


def by_level(samples):
    """Stand-in for a network: frames above a tenth of full scale are class 2, all others class 0."""
    loud = np.abs(samples[: 50 * 1280].reshape(50, 1280)).max(1) > 0.1
    return np.eye(CLASSES)[np.where(loud, 2, 0)]


def listener(**rule):
    return Listener((1, 2), SECONDS, Rule(**{"k": 5, "n": 25} | rule))


def sound(seconds, *spans, level=0.5, floor=0.01):
    """int16: noise at `floor` of full scale, and at `level` within the spans (s)."""
    time = np.arange(round(seconds * 16_000)) / 16_000
    loud = np.zeros(len(time), bool)
    for start, stop in spans:
        loud |= (time >= start) & (time < stop)
    draw = np.random.default_rng(0)
    return np.rint(32767 * draw.uniform(-1, 1, len(time)) * np.where(loud, level, floor)).astype(np.int16)


def heard(one, samples, cuts=(), score=by_level):
    """(window, times, probabilities, alarm) of each window."""
    return [(window, *one.hear(at, score(window / 32768))) for at, window in windows(np.split(samples, cuts))]


def alarms(one, samples):
    return [alarm for *_, alarm in heard(one, samples) if alarm is not None]


class TestAlarms:
    def test_one_per_event_with_its_onset(self):
        found = alarms(listener(), sound(20, (7.3, 8.8)))
        assert len(found) == 1
        assert found[0].onset == pytest.approx(7.3, abs=0.1) and found[0].at in (8.0, 9.0)

    def test_a_long_event_is_one(self):
        assert len(alarms(listener(refractory=2.0), sound(30, (5, 20)))) == 1

    def test_the_next_one_after_the_refractory_time(self):
        two = sound(40, (5, 6.5), (25, 26.5))
        assert len(alarms(listener(refractory=5.0), two)) == 2
        assert len(alarms(listener(refractory=60.0), two)) == 1

    def test_too_short(self):
        assert not alarms(listener(), sound(12, (5, 5.2)))

    def test_quiet(self):
        assert not alarms(listener(), sound(12))

    @settings(max_examples=40, deadline=None)
    @given(st.sampled_from([(1, 1), (3, 5), (5, 25), (12, 25)]), st.integers(8, 20), st.floats(5, 6))
    def test_an_event_anywhere_in_a_second_is_not_missed(self, rule, frames, start):
        """The stream finds what the rule would find in the whole recording, wherever windows end."""
        k, n = rule
        found = alarms(listener(k=k, n=n), sound(12, (start, start + frames * SECONDS)))
        if abs(frames - k) > 2:  # its edges may add or remove a frame
            assert len(found) == (frames > k)

    @settings(max_examples=25, deadline=None)
    @given(st.lists(st.integers(0, 16_000 * 14), max_size=30))
    def test_how_sound_is_cut_does_not_matter(self, cuts):
        samples = sound(14, (3.1, 4.9), (9.0, 9.4))
        whole, parts = (heard(listener(), samples, some) for some in ((), sorted(cuts)))
        assert [alarm for *_, alarm in parts] == [alarm for *_, alarm in whole]
        assert all(np.array_equal(one, two) for (one, *_), (two, *_) in zip(parts, whole, strict=True))

    @pytest.mark.parametrize(("between", "count"), [(0.5, 1), (0.2, 2)])
    def test_it_ends_below_off_and_not_below_on(self, between, count):
        likely = iter([0.9] * 4 + [between] * 8 + [0.9] * 4)
        found = heard(listener(refractory=0.0), sound(19),
                      score=lambda _: np.tile([1 - (p := next(likely)), p, 0], (50, 1)))  # fmt: skip
        assert sum(alarm is not None for *_, alarm in found) == count

    def test_an_event_begins_where_it_rises_above_off(self):
        likely = np.repeat([0.1, 0.5, 0.9], [10, 10, 30])
        ((*_, alarm),) = heard(listener(), sound(4), score=lambda _: np.stack([1 - likely, likely, 0 * likely], 1))
        assert alarm.onset == pytest.approx(10 * SECONDS)

    @pytest.mark.parametrize("gain", [0.1, 10.0])
    def test_a_level_rule_hears_levels(self, gain):
        """Windows are scored at their original level: a network that should ignore gain must do so itself."""
        quiet = sound(12, (5, 7), level=0.05)
        assert bool(alarms(listener(), (quiet * gain).clip(-32768, 32767).astype(np.int16))) == (gain > 1)


class TestEndsAndOverrulings:
    def test_the_last_part_of_a_second_is_heard_at_the_end(self):
        samples = sound(9.6, (8.9, 9.6))
        found = heard(listener(), samples)
        assert [alarm is not None for *_, alarm in found] == [False] * 6 + [True]
        window, times, _, alarm = found[-1]
        assert alarm.at == pytest.approx(9.6) and alarm.onset == pytest.approx(8.9, abs=0.1)
        assert times[-1] == pytest.approx(9.6 - SECONDS) and np.array_equal(window, samples[-64_000:])

    @pytest.mark.parametrize(("seconds", "count"), [(0.0, 0), (3.0, 1), (4.0, 1), (9.0, 6), (9.5, 7)])
    def test_nothing_is_left_of_whole_hops(self, seconds, count):
        assert len(list(windows([sound(seconds)]))) == count

    def test_a_stream_shorter_than_a_window_is_heard_too(self):
        samples = sound(1.7, (0.4, 1.5))
        ((at, window),) = windows([samples[:9_000], samples[9_000:]])
        assert at == 4.0 and np.array_equal(window, np.pad(samples, (0, 64_000 - len(samples))))

    @pytest.mark.parametrize("seconds", [1.7, 4.0, 9.0])
    def test_what_comes_first_is_heard_too(self, seconds):
        """In the first window all frames count, in later windows only the newest."""
        (alarm,) = alarms(listener(), sound(seconds, (0.4, 1.5)))
        assert alarm.onset == pytest.approx(0.4, abs=0.1) and alarm.at == 4.0

    def test_an_overruled_alarm_holds_up_no_other(self):
        """Otherwise a harmless noise would suppress alarms during the refractory time."""
        one, found = listener(refractory=60.0), []
        for at, window in windows([sound(30, (5, 7), (15, 17))]):
            if one.hear(at, by_level(window / 32768))[2] is not None:
                found.append(at)
                if at < 12:
                    one.overruled()
        assert any(at < 12 for at in found) and sum(at > 12 for at in found) == 1

    def test_what_was_upheld_before_still_counts(self):
        one, found = listener(refractory=10.0), []
        for at, window in windows([sound(30, (3, 4.9), (14, 15.5), (18, 20))]):
            if one.hear(at, by_level(window / 32768))[2] is not None:
                found.append(at)
                if len(found) == 2:
                    one.overruled()
        assert len(found) > 2 and found[1] - found[0] >= 10 and found[2] - found[1] < 10


class TestTimeline:
    def test_is_averaged_over_the_windows_that_hold_a_moment(self):
        answers = iter([0.0, 0.4, 0.8, 0.2, 0.6])
        all_heard = heard(listener(on=1.0, off=1.0), sound(8),
                          score=lambda _: np.tile([1 - (p := next(answers)), p, 0], (50, 1)))  # fmt: skip
        _, times, found, _ = all_heard[-1]
        assert times[0] == 4 and times[-1] == pytest.approx(8 - SECONDS)
        # The first second of the last window is in windows 2 to 5, its last second only in the fifth.
        assert found[0, 1] == pytest.approx((0.4 + 0.8 + 0.2 + 0.6) / 4) and found[-1, 1] == pytest.approx(0.6)
        np.testing.assert_allclose(found.sum(1), 1)

    def test_a_moment_is_where_it_is_heard(self):
        """A window begins every second, which is not a multiple of 0.08 s."""
        _, times, found, _ = heard(listener(), sound(9, (6.4, 7.2)))[-1]
        where = times[found[:, 2] > 0.5]
        assert where[0] == pytest.approx(6.4, abs=0.08) and where[-1] == pytest.approx(7.12, abs=0.08)


class TestArguments:
    @pytest.mark.parametrize(
        ("rule", "words"), [({"k": 6, "n": 5}, "k=6 of n=5"), ({"on": 0.2, "off": 0.5}, "off=0.5")]
    )
    def test_rules(self, rule, words):
        with pytest.raises(ValueError, match=words):
            Rule(**rule)


def test_a_stream_takes_the_memory_of_seconds():
    tracemalloc.start()
    for _ in windows(np.zeros(16_000, np.int16) for _ in range(3600)):
        pass
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 2e6
