"""Measure multiply-accumulates and durations of tasks. As machines are shared, tasks are timed in turns (A B C A B C …)
and compared within each round."""

import contextlib
import time
from collections.abc import Callable, Mapping

import pandas as pd
import torch
from torch.utils.flop_counter import FlopCounterMode


def interleave(tasks: Mapping[str, Callable[[], object]], *, rounds: int, warmup: int = 1) -> pd.DataFrame:
    """Return the seconds of each task in each round: one row per round, one column per task, in the given order.

    `warmup` rounds come first and are discarded. GPU calls return before the work is done, so the device is
    synchronised before each reading of the clock.
    """
    if rounds < 1 or not tasks:
        raise ValueError(f"expected at least 1 round of at least 1 task, not {rounds} of {len(tasks)}")
    wait = torch.accelerator.synchronize if torch.accelerator.is_available() else lambda: None
    seconds = []
    for number in range(warmup + rounds):
        row = {}
        for name, task in tasks.items():
            wait()
            begin = time.perf_counter()
            task()
            wait()
            row[name] = time.perf_counter() - begin
        if number >= warmup:
            seconds.append(row)
    return pd.DataFrame(seconds, columns=list(tasks)).rename_axis(index="round")


def ratio(seconds: pd.DataFrame, task: str, reference: str) -> float:
    """Return the median over rounds of the time of `task` relative to that of `reference`."""
    return float((seconds[task] / seconds[reference]).median())


class _NoModules(contextlib.nullcontext):
    """Stand-in for the module tracker of FlopCounterMode, which cannot follow second derivatives."""

    parents = ("Global",)


def count_macs(task: Callable[[], object]) -> int:
    """Count the multiply-accumulates of the matrix products and convolutions that `task` runs, including backward.

    They are computed from the shapes at run time; elementwise operations are not counted, and matrix-vector products
    only if the vector has the shape of a matrix with one column.
    """
    counter = FlopCounterMode(display=False)
    counter.mod_tracker = _NoModules()
    with counter:
        task()
    return counter.get_total_flops() // 2


def costs(
    tasks: Mapping[str, Callable[[], object]],
    *,
    rounds: int,
    **references: str,
) -> pd.DataFrame:
    """Return the cost of each task: macs (`count_macs`), milliseconds (median over rounds), a column for each of
    `references` (the time relative to that task, see `ratio`), and threads. The random state is preserved.
    """
    with torch.random.fork_rng():
        for task in tasks.values():
            task()  # the first call selects the algorithms of all convolutions
        macs = [count_macs(task) for task in tasks.values()]
        # Steps that run as a CUDA graph are captured by their fourth call (`training.Captured`).
        seconds = interleave(tasks, rounds=rounds, warmup=3 if torch.cuda.is_available() else 0)
    table = pd.DataFrame({"macs": macs, "milliseconds": 1e3 * seconds.median()}, index=list(tasks))
    for column, reference in references.items():
        table[column] = [ratio(seconds, task, reference) for task in tasks]
    return table.assign(threads=torch.get_num_threads())
