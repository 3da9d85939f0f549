"""Training in parallel processes: results, failures, and that the processes end with their parent."""

import os
import platform
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from threadpoolctl import threadpool_info, threadpool_limits
from toy import ROOT

from lib import forking
from lib.forking import side_by_side, train_each
from lib.training import TrainingError

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere processes are started anew")


@pytest.fixture
def threads():
    torch.set_num_threads(2)


def test_they_come_back_in_order(threads):
    here, weights = os.getpid(), torch.arange(6.0)
    found = side_by_side([lambda place=place: (place, torch.get_num_threads(), os.getpid()) for place in range(5)])
    assert [place for place, *_ in found] == list(range(5))
    if sys.platform.startswith("linux"):  # lambdas cannot be pickled, and need not be
        assert {count for _, count, _ in found} == {1} and here not in {process for *_, process in found}
    assert torch.equal(side_by_side([lambda: weights * 2, lambda: weights * 3])[1], weights * 3)
    assert torch.get_num_threads() == 2 and os.environ.get("TQDM_DISABLE") is None


@linux
def test_products_of_matrices_take_one_thread_there(threads):
    """On two cores, two processes with two threads each took twice as long as with one thread each."""
    with threadpool_limits(2):  # as in a notebook; the tests themselves may run with one
        found = [threadpool_info(), *side_by_side([threadpool_info] * 2)]
    here, *there = ({pool["num_threads"] for pool in pools} for pools in found)
    assert 2 in here and there == [{1}, {1}]


def test_a_gradient_is_the_same_there_and_here(threads):
    layer = torch.nn.Linear(300, 300)

    def gradient() -> torch.Tensor:
        layer.zero_grad()
        layer(torch.ones(64, 300)).square().mean().backward()
        return layer.weight.grad

    here = gradient().clone()  # with two threads; a forked process has one
    for there in side_by_side([gradient] * 3):
        torch.testing.assert_close(there, here)


@linux
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries keep little")
def test_memory_that_was_freed_goes_back_to_the_system():
    code = """
import re, sys
from pathlib import Path
from lib.forking import give_back

def held():
    return int(re.search(r"RssAnon:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024

parts = [bytearray(100_000) for _ in range(2000)]  # too small for pages of their own
for part in parts:
    part[::1000] = bytes(100)
full, last = held(), parts[-1]
del parts, part
kept = held()
give_back()
print(full - kept, full - held())
"""
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    before, after = map(float, found.stdout.split())
    assert after > 150 and after > before + 50


def test_an_error_is_raised_here(threads):
    def fails():
        raise ValueError("no such ratio")

    with pytest.raises(ValueError, match="no such ratio"):
        side_by_side([lambda: 1, fails])
    assert side_by_side([lambda: 1, lambda: 2]) == [1, 2]


@linux
def test_a_killed_process_is_told_of(threads):
    with pytest.raises(TrainingError, match="process ended, as a rule for want of memory"):
        side_by_side([lambda: os.kill(os.getpid(), signal.SIGKILL), lambda: 2])


def test_a_gpu_without_memory_is_told_of(threads):
    def full():
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(TrainingError, match="Use a smaller batch or network"):
        side_by_side([full, lambda: 2])


@linux
def test_they_end_with_the_process_that_began_them(tmp_path):
    program = f"""
import os, time, torch
from pathlib import Path
from lib.forking import side_by_side
torch.set_num_threads(2)
def work(name):
    Path({str(tmp_path)!r}, f"{{name}}-{{os.getpid()}}").touch()
    time.sleep(600)
side_by_side([lambda: work("one"), lambda: work("two")])
"""
    parent = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT)
    try:
        wait(lambda: len(list(tmp_path.iterdir())) == 2)
    finally:
        parent.kill()
        parent.wait()
    children = [Path("/proc", path.name.split("-")[1]) for path in tmp_path.iterdir()]
    wait(lambda: not any(running(child) for child in children))


def running(process: Path) -> bool:
    try:
        return "State:\tZ" not in (process / "status").read_text()
    except OSError:
        return False


def wait(done) -> None:
    for _ in range(600):
        if done():
            return
        time.sleep(0.1)
    raise AssertionError("it did not come to that within a minute")


@pytest.mark.parametrize("change", ["platform", "accelerator", "threads"])
def test_where_forking_is_not_safe_it_is_not_done(change, threads, monkeypatch):
    if change == "platform":
        monkeypatch.setattr(sys, "platform", "darwin")
    elif change == "accelerator":
        monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    else:
        torch.set_num_threads(1)
    monkeypatch.setattr(forking, "_anew", lambda trainings, workers: (len(trainings), workers))
    found = forking.side_by_side([lambda: 1, lambda: 2])
    assert found == ([1, 2] if change == "threads" else (2, 2))


def test_new_processes_have_data_settings_and_functions_within_functions(threads, monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    weights = torch.arange(4.0)

    def training(factor):
        return weights * factor, torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(), os.getpid()

    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        found = side_by_side([lambda: training(2), lambda: training(3)])
    finally:
        torch.use_deterministic_algorithms(False)
    for factor, (product, count, deterministic, process) in zip((2, 3), found, strict=True):
        assert torch.equal(product, weights * factor) and count == 1 and deterministic and process != os.getpid()


@dataclass
class Arm:
    label: str


def test_each_arm_has_its_folder_and_its_place(threads, tmp_path):
    found = train_each(lambda arm, checkpoint: checkpoint, [Arm("A, p = 2"), Arm("b")], checkpoints=tmp_path)
    assert found == {"A, p = 2": tmp_path / "a--p---2", "b": tmp_path / "b"}
    assert train_each(lambda arm, checkpoint: checkpoint, [Arm("c")]) == {"c": None}
    assert train_each(lambda arm, checkpoint, train: train, [Arm("c")], train="images") == {"c": "images"}
