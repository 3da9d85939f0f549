"""Runs the benchmarks: `make bench`, or `python benchmarks/run.py corregularization --rounds 4`.

A benchmark is a module here with `measure(rounds) -> DataFrame` and `check(table) -> DataFrame`, its
targets beside what was measured. Durations of other runs or machines do not compare; the shares
and ratios in the tables do, as everything in a table was timed in turns within one run. Results go to
build/bench/<name>.csv and, with targets, machine and versions, build/bench/<name>.json.
"""

import argparse
import importlib
import json
import os
import platform
from pathlib import Path

import pandas as pd
import torch

from lib import paths

BENCHMARKS = ("corregularization", "laplacian_gan", "categorical", "emergency", "recognition", "metrics")


def machine() -> dict[str, object]:
    """What the numbers depend on: processor, threads, accelerator, versions."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": models[0] if models else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": platform.system(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def write(folder: Path, name: str, table: pd.DataFrame, targets: pd.DataFrame, about: dict[str, object]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    table.to_csv(folder / f"{name}.csv", index=False)
    record = {"machine": about, "targets": targets.to_dict("records"), "rows": table.to_dict("records")}
    (folder / f"{name}.json").write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Time the studies' code beside what it is compared with.")
    parser.add_argument("only", nargs="*", help=f"benchmarks to run (default: {' '.join(BENCHMARKS)})")
    parser.add_argument("--rounds", type=int, default=None, help="rounds instead of each benchmark's own")
    parser.add_argument("--threads", type=int, default=None, help="CPU threads (default: PyTorch's choice)")
    options = parser.parse_args(arguments)
    unknown = set(options.only) - set(BENCHMARKS)
    if unknown:
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there is {', '.join(BENCHMARKS)}")
    if options.rounds is not None and options.rounds < 1:
        parser.error(f"--rounds must be at least 1, not {options.rounds}")
    if options.threads is not None:
        torch.set_num_threads(options.threads)

    about = machine()
    print(", ".join(f"{key} {value}" for key, value in about.items() if value is not None), flush=True)
    missing = []
    for name in options.only or BENCHMARKS:
        module = importlib.import_module(name)
        try:
            table = module.measure(**({} if options.rounds is None else {"rounds": options.rounds}))
        except ModuleNotFoundError as error:  # the others can be measured without it
            missing.append(f"{name} was not measured: {error}")
            continue
        targets = module.check(table)
        write(paths.build() / "bench", name, table, targets, about)
        for frame in (table, targets):
            print("\n" + frame.to_string(index=False, float_format=lambda x: f"{x:.4g}"), flush=True)
    if missing:
        raise SystemExit("\n" + "\n".join(missing))


if __name__ == "__main__":
    main()
