"""Order of tasks, clock readings and ratios; never real durations."""

import pytest
import torch

from lib.timing import count_macs, interleave, ratio


class FakeTime:
    """A clock that advances only when a task runs."""

    def __init__(self):
        self.now, self.calls = 0.0, []

    def task(self, name, *durations):
        durations = iter(durations)

        def run():
            self.calls.append(name)
            self.now += next(durations)

        return run


def test_tasks_take_turns_and_the_warm_up_is_dropped(monkeypatch):
    fake = FakeTime()
    monkeypatch.setattr("time.perf_counter", lambda: fake.now)
    tasks = {"a": fake.task("a", 100, 1, 2, 3), "b": fake.task("b", 100, 2, 2, 12)}
    seconds = interleave(tasks, rounds=3, warmup=1)
    assert "".join(fake.calls) == "abababab"
    assert seconds.to_dict("list") == {"a": [1, 2, 3], "b": [2, 2, 12]}
    assert seconds.index.name == "round"


def test_ratios_are_taken_within_rounds(monkeypatch):
    fake = FakeTime()  # the machine becomes ten times slower in the second half
    monkeypatch.setattr("time.perf_counter", lambda: fake.now)
    tasks = {"a": fake.task("a", 1, 1, 10, 10), "b": fake.task("b", 2, 2, 20, 20)}
    seconds = interleave(tasks, rounds=4, warmup=0)
    assert ratio(seconds, "b", "a") == 2
    assert ratio(seconds, "a", "a") == 1


def test_waits_for_the_device_before_each_reading_of_the_clock(monkeypatch):
    events = []

    def clock():
        events.append("clock")
        return 0.0

    monkeypatch.setattr("time.perf_counter", clock)
    monkeypatch.setattr("torch.accelerator.is_available", lambda: True)
    monkeypatch.setattr("torch.accelerator.synchronize", lambda: events.append("wait"))
    interleave({"a": lambda: events.append("a")}, rounds=1, warmup=0)
    assert events == ["wait", "clock", "a", "wait", "clock"]


def test_count_macs_of_a_product():
    a, b = torch.ones(2, 3), torch.ones(3, 5)
    assert count_macs(lambda: a @ b) == 2 * 3 * 5


@pytest.mark.parametrize(("tasks", "rounds"), [({}, 1), ({"a": int}, 0)])
def test_nothing_to_time(tasks, rounds):
    with pytest.raises(ValueError, match="at least 1 round of at least 1 task"):
        interleave(tasks, rounds=rounds)
