"""Run the benchmarks: `make bench`, or `python benchmarks/run.py corregularization --rounds 4`.

A benchmark is a module here with `measure(rounds) -> DataFrame` and `check(table) -> DataFrame`, its targets beside the
measured values. Durations are not comparable between runs or machines; the shares and ratios in the tables are, as both
sides were timed in turns within one run. Each benchmark is measured three times, and up to five times while these
disagree about a target; if they still disagree, the target is too noisy to tell. Results go to build/bench/<name>.csv
and, with targets, machine, versions and date, build/bench/<name>.json. README.md in this folder explains the measures.
"""

import argparse
import importlib
import inspect
import json
import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import torch

from lib import paths

PAGE, BEGIN, END = Path(__file__).with_name("README.md"), "--page` -->\n", "<!-- end of measured -->"
REPEATS, MOST = 3, 5
NOISY = "too noisy to tell"
BENCHMARKS = ("corregularization", "laplacian_gan", "categorical", "emergency", "recognition")


def machine() -> dict[str, object]:
    """Return what the numbers depend on: processor, threads, accelerator, versions."""
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
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def repeated(module: ModuleType, rounds: int | None) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return all measurements, with a column `repeat`, and the targets as `judged`."""
    rounds = rounds or inspect.signature(module.measure).parameters["rounds"].default
    tables, checks = [], []
    while len(tables) < REPEATS or (len(tables) < MOST and (judged(checks).met == NOISY).any()):
        tables.append(module.measure(rounds=max(1, -(-rounds // REPEATS))).reset_index(drop=True))
        checks.append(module.check(tables[-1]))
    return pd.concat([table.assign(repeat=number) for number, table in enumerate(tables, 1)]), judged(checks)


def judged(checks: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Return targets over repeats: measured (median) with lowest and highest, and met ("yes", "no", or `NOISY`)."""
    found = checks[0].copy()
    values = pd.concat([check.measured for check in checks], axis=1)
    met = values.ge(found.at_least, axis=0) if "at_least" in found else values.le(found.at_most, axis=0)
    found["measured"] = values.median(axis=1)
    place = found.columns.get_loc("measured") + 1
    found.insert(place, "lowest", values.min(axis=1))
    found.insert(place + 1, "highest", values.max(axis=1))
    found["met"] = np.select([met.all(axis=1), ~met.any(axis=1)], ["yes", "no"], NOISY)
    return found


def write(folder: Path, name: str, table: pd.DataFrame, targets: pd.DataFrame, about: dict[str, object]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    table.to_csv(folder / f"{name}.csv", index=False)
    record = {"machine": about, "targets": targets.to_dict("records"), "rows": table.to_dict("records")}
    (folder / f"{name}.json").write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")


def paged(page: str, targets: dict[str, pd.DataFrame], about: dict[str, object]) -> str:
    """Return the text of `PAGE` with these targets in place of the old ones."""
    rows = [["benchmark", "target", "asked", "measured", "lowest", "highest", "met"]]
    for name, table in targets.items():
        for row in table.to_dict("records"):
            where = ", ".join(str(row[key]) for key in ("network", "size") if key in row)
            asked = f"≥ {row['at_least']:.3g}" if "at_least" in row else f"≤ {row['at_most']:.3g}"
            values = [f"{row[key]:.3g}" for key in ("measured", "lowest", "highest")]
            rows.append([f"`{name}`", row["target"] + f" ({where})" * bool(where), asked, *values, row["met"]])
    rows.insert(1, ["---"] * len(rows[0]))
    lines = [", ".join(f"{key} {value}" for key, value in about.items() if value is not None) + "."]
    lines += ["", *("| " + " | ".join(row) + " |" for row in rows)]
    before, _, rest = page.partition(BEGIN)
    return before + BEGIN + "\n".join(lines) + "\n" + END + rest.partition(END)[2]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Time the studies' code beside what it is compared with.")
    parser.add_argument("only", nargs="*", help=f"benchmarks to run (default: {' '.join(BENCHMARKS)})")
    parser.add_argument("--rounds", type=int, default=None, help="rounds in all instead of each benchmark's own")
    parser.add_argument("--threads", type=int, default=None, help="CPU threads (default: PyTorch's choice)")
    parser.add_argument("--page", action="store_true", help="write the targets to benchmarks/README.md")
    options = parser.parse_args(arguments)
    unknown = set(options.only) - set(BENCHMARKS)
    if unknown:
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there is {', '.join(BENCHMARKS)}")
    if options.rounds is not None and options.rounds < 1:
        parser.error(f"--rounds must be at least 1, not {options.rounds}")
    if options.page and options.only:
        parser.error("--page writes the targets of all benchmarks; run it without naming any")
    if options.threads is not None:
        torch.set_num_threads(options.threads)

    about = machine()
    print(", ".join(f"{key} {value}" for key, value in about.items() if value is not None), flush=True)
    missing, all_targets = [], {}
    for name in options.only or BENCHMARKS:
        module = importlib.import_module(name)
        try:
            table, targets = repeated(module, options.rounds)
        except ModuleNotFoundError as error:  # the others can be measured without it
            missing.append(f"{name} was not measured: {error}")
            continue
        write(paths.build() / "bench", name, table, targets, about)
        all_targets[name] = targets
        by_row = table.drop(columns="repeat").groupby(level=0)
        shown = by_row.first()
        shown.update(by_row.median(numeric_only=True))
        for frame in (shown, targets):
            print("\n" + frame.to_string(index=False, float_format=lambda x: f"{x:.4g}"), flush=True)
    if options.page and not missing:  # else the missing benchmarks would lose their rows
        PAGE.write_text(paged(PAGE.read_text(encoding="utf-8"), all_targets, about), encoding="utf-8")
    if missing:
        missing += ["benchmarks/README.md was left as it is."] * options.page
        raise SystemExit("\n" + "\n".join(missing))


if __name__ == "__main__":
    main()
