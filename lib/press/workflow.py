"""`make figures` and `make plan`: run the stale jobs through Snakemake, and report.

Jobs are defined in `lib.press.jobs`, staleness in `lib.press.staleness`; `lib.press.execution` runs one.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from filelock import Timeout

from lib import paths
from lib.press import execution, jobs
from lib.press.jobs import Job
from lib.press.parameters import ParameterError
from lib.press.staleness import plan

PAGES = {"verify": "", "site": "quick", "paper": "public"}  # module: the profile that it reads by default
INTERRUPTED = 130  # exit status of shells after Ctrl-C


def show_plan(selected: list[Job]) -> None:
    """`make plan`: print what would run and why, without changing anything."""
    why = plan(selected)
    stale, fresh = ([job for job in selected if bool(why[job.name]) == wanted] for wanted in (True, False))
    print(f"{len(stale)} of {len(selected)} notebook runs to do")
    print(slow_precision(stale), end="")
    for job in stale:
        reasons = why[job.name] if len(why[job.name]) <= 8 else [*why[job.name][:7], "…"]
        print(f"\n  {job.title}", *(f"    - {reason}" for reason in reasons), sep="\n")
    if fresh:
        print("\n  Up to date: " + ", ".join(job.title for job in fresh))


def slow_precision(stale: list[Job], processor: Path = Path("/proc/cpuinfo")) -> str:
    """Return a warning if a job would use bfloat16 on a processor without it; "" if not, or if this is unknown."""
    asks = [job.title for job in stale if job.values.get("precision") == "bf16"]
    if not asks or shutil.which("nvidia-smi") or not processor.exists() or "bf16" in processor.read_text():
        return ""
    return (f"This processor has no bfloat16 in hardware, and {', '.join(asks)} would use it (precision=bf16): some "
            "eight times slower than float32. Stop, and add PARAMS=precision=no (results go to <profile>-custom), or "
            "run where lscpu shows avx512_bf16 or amx_bf16, or on a GPU.\n")  # fmt: skip


def make_figures(selected: list[Job], options: argparse.Namespace) -> int:
    """`make figures`: run the stale jobs and return the exit status."""
    why = plan(selected)
    stale = [job for job in selected if why[job.name]]
    if not stale:
        print(f"Nothing to do: all {len(selected)} notebook runs are up to date.")
        return 0
    print(f"{len(stale)} of {len(selected)} notebook runs to do (`make plan` tells why)", flush=True)
    if not options.executor:  # jobs on a cluster run on other processors
        print(slow_precision(stale), end="", flush=True)
    paths.build().mkdir(parents=True, exist_ok=True)
    for job in stale:  # remove earlier failed copies, so that any left at the end are from this run
        try:
            with jobs.lock(job.name):
                jobs.failed(job.name).unlink(missing_ok=True)
        except Timeout:  # reported before anything starts
            print(f"{jobs.title(job.name)} is already running in another process; not started again.")
            return 1
    status, log = _snakemake(options)
    if status == INTERRUPTED:
        print("\nInterrupted. The next `make figures` goes on from here.")
        return status
    left: list[Job] = []
    for job in selected:
        if not jobs.executed(job.name).exists() or any(other.name in job.reads for other in left):
            left.append(job)
    if not left and status == 0:
        log.unlink()
        print(f"Done: figures and tables are in {jobs.short(paths.figures() / selected[-1].folder)}")
        return 0
    _tell_what_is_left(left, log)
    return status or 1


def _snakemake(options: argparse.Namespace) -> tuple[int, Path]:
    """Run Snakemake and return (status, log). Its own messages go to the log, those of the jobs to the terminal."""
    log = paths.build() / f"snakemake-{os.getpid()}.log"
    selection = {name: getattr(options, name) for name in ("profile", "seeds", "only", "params", "jobs")}
    command = [sys.executable, "-m", "snakemake", "--snakefile", paths.ROOT / "Snakefile"]
    command += ["--cores", options.cores, "--resources", f"slots={options.jobs}"]
    if options.executor:
        plugin = f"snakemake_executor_plugin_{options.executor.replace('-', '_')}"
        if options.executor not in ("local", "dryrun", "touch") and find_spec(plugin) is None:
            how = "-e '.[cluster]'" if options.executor == "slurm" else f"{plugin.replace('_', '-')}, if there is one"
            raise ParameterError(f"Snakemake has no executor '{options.executor}' here: pip install {how}")  # fmt: skip
        selection["cores"] = str(options.cores)  # per notebook
        command += ["--executor", options.executor, "--jobs", options.jobs, "--seconds-between-status-checks", "10"]
        command += ["--default-resources", *(f"slurm_{name}={value}" for name in ("partition", "account")
                                             if (value := getattr(options, name)))]  # fmt: skip
    if options.executor == "slurm":
        command += ["--slurm-logdir", paths.build() / "slurm", "--slurm-init-seconds-before-status-checks", "10"]
        shown = subprocess.run(["scontrol", "show", "config"], capture_output=True, text=True).stdout
        if "accounting_storage/none" in shown:  # without accounting, sacct reports nothing
            command += ["--slurm-status-command", "squeue"]
    command += ["--rerun-triggers", "mtime", "--rerun-incomplete", "--keep-going", "--quiet", "progress"]
    # Snakemake's lock would outlive a killed run; the locks of `jobs` are released by the operating system.
    command += ["--nolock", "--scheduler", "greedy", "--profile", "none", "--workflow-profile", "none"]
    # Not by --config, which would parse the values as YAML. Snakemake writes to its working directory and a clone may
    # be read-only, so it runs in the output folder: hence absolute paths.
    environment = os.environ | {"SELECTION": json.dumps(selection), "DATA_ROOT": str(paths.data_root()),
                                "OUTPUT_ROOT": str(paths.output_root())}  # fmt: skip
    with log.open("w") as stream:
        process = subprocess.Popen(
            [str(word) for word in command], cwd=paths.output_root(), stderr=stream, env=environment
        )
        try:
            return process.wait(), log
        except KeyboardInterrupt:
            process.wait()  # Snakemake received the signal too and is stopping its jobs
            return INTERRUPTED, log


def _tell_what_is_left(left: list[Job], log: Path) -> None:
    """Print which jobs did not finish, and the end of Snakemake's log if none of them failed."""
    failed = [job for job in left if jobs.failed(job.name).exists()]
    print(f"\n{len(left)} notebook runs did not finish:" if left else "\nSnakemake reports an error:")
    for job in left:
        state = f"failed, see {jobs.short(jobs.failed(job.name))}" if job in failed else "not reached"
        print(f"  {job.title}: {state}")
    if not failed:
        print(log.read_text(encoding="utf-8", errors="replace")[-3000:])
    print(f"Snakemake's own log: {jobs.short(log)}")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m lib.press.workflow", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    settings = ("seeds", "only", "params", "jobs", "cores", "executor", "partition", "account")  # see `make help`
    for name in ("figures", "plan", "outputs"):
        command = commands.add_parser(name)
        command.add_argument("--profile", default="quick")
        for setting in settings:
            command.add_argument(f"--{setting}", default="")
    for name, profile in PAGES.items():
        commands.add_parser(name).add_argument("--profile", default=profile, help="a folder of figures/")
    run = commands.add_parser("run", help="run one job (called by Snakemake)")
    run.add_argument("job")
    run.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)
    if options.command == "run":
        return execution.run(options.job, options.threads)
    try:
        if options.command in PAGES:  # each takes seconds to import
            return import_module(f"lib.press.{options.command}").main(options.profile)
        from joblib import cpu_count  # respects container quotas; imported here, as it takes a while

        options.jobs = _count("JOBS", options.jobs, 8 if options.executor else 1)
        options.cores = _count("CORES", options.cores, 4 if options.executor else cpu_count())
        selected = jobs.select(options.profile, options.seeds, options.only, options.params)
        if options.command == "plan":
            show_plan(selected)
            return 0
        status = make_figures(selected, options)
    except (ParameterError, OSError) as error:
        remedy = ". Set OUTPUT_ROOT to a folder that you may write" if isinstance(error, PermissionError) else ""
        print(f"Error: {error}{remedy}", file=sys.stderr)
        return 2
    if options.command == "outputs" and status == 0:
        execution.store_outputs(selected)
    return status


def _count(name: str, text: str, default: int) -> int:
    if not text.strip():
        return default
    if not text.strip().isdecimal() or int(text) < 1:
        raise ParameterError(f'{name} takes a positive whole number; found "{text}"')
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
