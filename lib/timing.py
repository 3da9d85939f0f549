"""Comparing durations on a shared machine: tasks are timed in turns, A B C A B C …, and compared within each round."""

import json
import platform
import time
from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd
import torch

from lib import paths
from lib.paths import atomic


def interleave(
    tasks: Mapping[str, Callable[[], object]],
    *,
    rounds: int,
    warmup: int = 1,
    synchronise: Callable[[], object] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> pd.DataFrame:
    """Seconds of each task in each round: one row per round, one column per task, in their order.

    `warmup` rounds come first and are not kept. `synchronise`, for work that returns before it is
    done (a GPU's), is waited for before each reading of the clock.
    """
    if rounds < 1 or not tasks:
        raise ValueError(f"expected at least 1 round of at least 1 task, not {rounds} of {len(tasks)}")
    wait = synchronise or (lambda: None)
    seconds = []
    for number in range(warmup + rounds):
        row = {}
        for name, task in tasks.items():
            wait()
            begin = clock()
            task()
            wait()
            row[name] = clock() - begin
        if number >= warmup:
            seconds.append(row)
    return pd.DataFrame(seconds, columns=list(tasks)).rename_axis(index="round")


def ratio(seconds: pd.DataFrame, task: str, reference: str) -> float:
    """Median over rounds of the time of `task` in times of `reference`."""
    return float((seconds[task] / seconds[reference]).median())


def measured_once(name: str, key: Mapping[str, Any], measure: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    """`measure()`, kept in build/cost/<name>.json and measured anew where `key`, the machine or its threads change.

    So a notebook that runs again gives the same results. `key` says what was measured, with the hash of its code.
    """
    machine = {"machine": platform.node(), "processor": platform.processor(), "threads": torch.get_num_threads()}
    wanted = json.loads(json.dumps(machine | dict(key)))
    kept = paths.build() / "cost" / f"{name}.json"
    found = json.loads(kept.read_text()) if kept.exists() else {}
    if found.get("key") != wanted:
        found = {"key": wanted, "rows": measure().to_dict("records")}
        with atomic(kept) as temporary:
            temporary.write_text(json.dumps(found))
    return pd.DataFrame(found["rows"]).assign(threads=machine["threads"])
