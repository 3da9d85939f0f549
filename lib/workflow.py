"""Which notebooks are to be run, why, and running them: what `make figures` and `make plan` call.

A job is one run of one notebook: per seed where the notebook has a `seed`, once over all
seeds where it has `seeds` or neither. Whether it is stale is decided here, by content
(`lib.fingerprint`); Snakemake orders the stale jobs, runs them in parallel and goes on
after failures; `lib.execution` runs one.

    build/inputs/<job>.json      what the job depends on now, and all it needs to run
    build/executed/<job>.ipynb   the finished copy, there only after success
    build/executed/<job>.json    what the finished copy was made from
    build/failed/<job>.ipynb     the copy of a failed run, with the error
    figures/<job>.json           the record that the notebook's `lib.run.Run` writes at its end
"""

import argparse
import contextlib
import hashlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from lib import fingerprint, parameters, paths
from lib.parameters import ParameterError

LARGEST_CHECKED_FILE = 1_000_000  # bytes; larger files of a record are only looked for


@dataclass(frozen=True)
class Job:
    """One notebook, with its parameters, for one seed or over all of them (`seed` None)."""

    notebook: str
    profile: str
    folder: str
    seed: int | None
    values: dict[str, Any] = field(hash=False)
    parts: dict[str, str] = field(hash=False)
    reads: tuple[str, ...]  # names of the jobs whose results this one reads
    most_threads: int | None = None

    @property
    def name(self) -> str:
        """`quick/seed-0/03_corregularization`: its place below `figures/` and below `build/*/`."""
        scope = [] if self.seed is None else [f"seed-{self.seed}"]
        return "/".join([self.folder, *scope, self.notebook])

    @property
    def title(self) -> str:
        return title(self.name)

    def threads(self, cores: int, jobs: int) -> int:
        return min(max(1, cores // jobs), self.most_threads or cores)

    def description(self) -> dict[str, Any]:
        """All that running it needs; as the content of its inputs file also what makes it stale."""
        return {
            "job": self.name,
            "notebook": self.notebook,
            "profile": self.profile,
            "folder": self.folder,
            "seed": self.seed,
            "parameters": self.values,
            "reads": list(self.reads),
            "parts": self.parts,
        }


def title(job: str) -> str:
    folder, *scope, notebook = job.split("/")
    seed = scope[0].replace("-", " ") if scope else "all seeds"
    return f"{notebook} ({folder}, {seed})"


def executed(job: str) -> Path:
    return paths.build() / "executed" / f"{job}.ipynb"


def made_from(job: str) -> Path:
    return paths.build() / "executed" / f"{job}.json"


def inputs_file(job: str) -> Path:
    return paths.build() / "inputs" / f"{job}.json"


def failed(job: str) -> Path:
    return paths.build() / "failed" / f"{job}.ipynb"


def record(job: str) -> Path:
    return paths.figures() / f"{job}.json"


# -- what there is to run ------------------------------------------------------------------


def select(profile: str, seeds: str = "", only: str = "", params: str = "") -> list[Job]:
    """The jobs asked for and those whose results they read, each after what it reads.

    `seeds` and `only` are lists separated by spaces; empty means the profile's seeds and
    all notebooks. ParameterError where anything is unknown or of the wrong type.
    """
    settings = parameters.load_profile(profile)
    seed_list = _seeds(seeds) if seeds.strip() else settings.get("seeds", [0])
    asked = only.split() or parameters.notebooks()
    if not asked:
        raise ParameterError(f"No notebooks in {paths.NOTEBOOKS}")
    for notebook in asked:
        parameters.check_notebook(notebook)
    ordered = _in_order(asked, profile)
    overrides = parameters.parse_assignments(params)
    known = {notebook: parameters.defaults(notebook) for notebook in ordered}
    parameters.check_names(overrides, known)
    mine = {
        notebook: {name: value for name, value in overrides.items() if name in known[notebook]}
        for notebook in ordered
    }
    custom = any(_is_custom(notebook, profile, mine[notebook]) for notebook in ordered)
    folder = paths.folder_name(profile, custom)
    names: dict[str, list[str]] = {}
    jobs = []
    for notebook in ordered:
        entry = parameters.profile_entry(notebook, profile)
        for seed in seed_list if "seed" in known[notebook] else [None]:
            reads = []
            for other in entry.get("reads") or []:
                same_seed = [name for name in names[other] if f"/seed-{seed}/" in name]
                reads += same_seed or names[other]
            values = fingerprint.run_parameters(notebook, profile, mine[notebook], seed, seed_list)
            parts = fingerprint.parts_of(notebook, values)
            job = Job(notebook, profile, folder, seed, values, parts, tuple(reads), entry.get("threads"))
            names.setdefault(notebook, []).append(job.name)
            jobs.append(job)
    return jobs


def _is_custom(notebook: str, profile: str, overrides: dict[str, Any]) -> bool:
    """Whether a setting differs from the profile's, so that the results are not the profile's."""
    usual, now = parameters.resolve(notebook, profile), parameters.resolve(notebook, profile, overrides)
    return any(usual[name] != now[name] for name in usual if name not in parameters.NOT_SETTINGS)


def _seeds(text: str) -> list[int]:
    words = text.replace(",", " ").split()
    if not all(word.isdecimal() for word in words):
        raise ParameterError(f'SEEDS takes whole numbers, such as SEEDS="0 1 2"; found "{text}"')
    return list(dict.fromkeys(int(word) for word in words))


def _in_order(asked: list[str], profile: str) -> list[str]:
    """`asked` and everything they read, the read ones first."""
    ordered: list[str] = []

    def visit(notebook: str, above: tuple[str, ...]) -> None:
        if notebook in above:
            circle = " → ".join([*above, notebook])
            raise ParameterError(f"Profile '{profile}': notebooks read each other in a circle: {circle}")
        for other in parameters.profile_entry(notebook, profile).get("reads") or []:
            visit(other, (*above, notebook))
        if notebook not in ordered:
            ordered.append(notebook)

    for notebook in asked:
        visit(notebook, ())
    return ordered


# -- what is stale, and why ----------------------------------------------------------------


def plan(jobs: list[Job]) -> dict[str, list[str]]:
    """For each job the reasons to run it, in words; none where it is up to date."""
    why: dict[str, list[str]] = {}
    for job in jobs:
        why[job.name] = reasons(job)
        why[job.name] += [f"after {title(name)}" for name in job.reads if why[name]]
    return why


def reasons(job: Job) -> list[str]:
    """Why this job by itself is stale, whatever happens to those that it reads."""
    before = _read_json(made_from(job.name))
    if not executed(job.name).exists():
        if failed(job.name).exists():
            return ["failed last time"]
        if before is None:
            return ["not run yet"]
    if before is None:
        return ["nothing is known about its last run"]
    found = _differences(before["inputs"], job.parts)
    found += _changed_reads(before["reads"], records_of(job.reads))
    if not executed(job.name).exists():
        return found or ["its last run did not finish"]
    return found + damage(job.name)


def damage(job: str) -> list[str]:
    """What is missing from, or altered in, the files that a finished job left."""
    content = _read_json(record(job))
    if content is None:
        return ["its record is missing"]
    found = []
    for identity, output in content.get("outputs", {}).items():
        # The sidecar holds times and the commit, so that its content may differ.
        for name, expected in {f"{identity}.json": None, **output.get("files", {})}.items():
            path = record(job).parent / name
            if not path.exists():
                found.append(f"{name} is missing")
            elif expected and path.stat().st_size <= LARGEST_CHECKED_FILE and sha256(path) != expected:
                found.append(f"{name} was altered")
    return found


def records_of(jobs) -> dict[str, str]:
    """The hash of each job's record, empty where there is none."""
    return {job: sha256(record(job)) if record(job).exists() else "" for job in jobs}


def _differences(before: dict[str, str], now: dict[str, str]) -> list[str]:
    found = []
    for part in [*now, *(part for part in before if part not in now)]:
        old, new = before.get(part), now.get(part)
        if old == new:
            continue
        kind, _, rest = part.partition(" ")
        label = rest if kind == "module" else part
        if old is None or new is None:
            found.append(f"{label} {'is new' if old is None else 'is gone'}")
        elif kind in ("parameter", "Python"):
            found.append(f"{label}: {old} → {new}")
        else:
            found.append(f"{label} changed")
    return found


def _changed_reads(before: dict[str, str], now: dict[str, str]) -> list[str]:
    return [
        f"the results of {title(job)} changed"
        for job in [*now, *(job for job in before if job not in now)]
        if before.get(job) != now.get(job)
    ]


def prepare(job: Job) -> None:
    """Make Snakemake, which looks at files alone, see the job as `reasons` does.

    A stale job has no executed copy: it is no result any more. An up-to-date one has an
    inputs file that is older than its results. Otherwise the inputs file is left alone
    while its content is the same.
    """
    stale = bool(reasons(job))
    if stale:
        executed(job.name).unlink(missing_ok=True)
    content = json.dumps(job.description(), indent=1, ensure_ascii=False) + "\n"
    path = inputs_file(job.name)
    if not path.exists() or path.read_text(encoding="utf-8") != content:
        write_atomically(path, content)
    if not stale:
        oldest = min(executed(job.name).stat().st_mtime, record(job.name).stat().st_mtime) - 1
        if path.stat().st_mtime > oldest:
            os.utime(path, (oldest, oldest))


def write_atomically(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _read_json(path: Path) -> dict | None:
    """The file's content; None where there is no file or no JSON in it."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


# -- the commands --------------------------------------------------------------------------


def show_plan(jobs: list[Job]) -> None:
    """`make plan`: what would run and why. Changes nothing."""
    why = plan(jobs)
    stale = [job for job in jobs if why[job.name]]
    print(f"{len(stale)} of {len(jobs)} notebook runs to do")
    for job in stale:
        print(f"\n  {job.title}")
        shown = why[job.name] if len(why[job.name]) <= 8 else [*why[job.name][:7], "…"]
        for reason in shown:
            print(f"    - {reason}")
    fresh = [job.title for job in jobs if not why[job.name]]
    if fresh:
        print("\n  Up to date: " + ", ".join(fresh))


def make_figures(jobs: list[Job], options: argparse.Namespace) -> int:
    """`make figures`: run what is stale. Returns the exit status."""
    why = plan(jobs)
    stale = [job for job in jobs if why[job.name]]
    if not stale:
        print(f"Nothing to do: all {len(jobs)} notebook runs are up to date.")
        return 0
    print(f"{len(stale)} of {len(jobs)} notebook runs to do (`make plan` tells why)", flush=True)
    with contextlib.ExitStack() as locks:
        for job in stale:
            try:
                locks.enter_context(lock(job.name, "make"))
            except Timeout:
                print(f"{job.title} is being run by another `make figures`. Wait for it, or move this")
                print("run's output elsewhere with OUTPUT_ROOT=<folder>.")
                return 1
        status, log = _snakemake(options)
    left = [job for job, reasons_left in zip(jobs, plan(jobs).values(), strict=True) if reasons_left]
    if not left and status == 0:
        print(f"Done: figures and tables are in {short(paths.figures() / jobs[0].folder)}")
        return 0
    _tell_what_is_left(left, log)
    return status or 1


def _snakemake(options: argparse.Namespace) -> tuple[int, Path]:
    """Hand over to Snakemake. Its own words go to a log; what the jobs say goes to the terminal."""
    log = paths.build() / "snakemake.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    selection = {name: getattr(options, name) for name in ("profile", "seeds", "only", "params")}
    command = [sys.executable, "-m", "snakemake", "--snakefile", paths.ROOT / "Snakefile"]
    command += ["--directory", paths.ROOT, "--cores", options.cores, "--resources", f"slots={options.jobs}"]
    command += ["--rerun-triggers", "mtime", "--rerun-incomplete", "--keep-going", "--quiet", "progress"]
    # Its lock would outlive a killed run; the locks here are released by the operating system.
    command += ["--nolock", "--scheduler", "greedy", "--profile", "none", "--workflow-profile", "none"]
    command += ["--config", *(f"{name}={json.dumps(value)}" for name, value in selection.items())]
    command += [f"jobs={options.jobs}"]
    with log.open("w") as stream:
        process = subprocess.Popen([str(word) for word in command], cwd=paths.ROOT, stderr=stream)
        try:
            return process.wait(), log
        except KeyboardInterrupt:
            process.wait()  # it got the signal as well and is ending its jobs
            print("\nInterrupted. The next `make figures` goes on from here.")
            return 130, log


def _tell_what_is_left(left: list[Job], log: Path) -> None:
    print(f"\n{len(left)} notebook runs did not finish:" if left else "\nSnakemake reports an error:")
    for job in left:
        copy = failed(job.name)
        state = f"failed, see {short(copy)}" if copy.exists() else "not reached"
        print(f"  {job.title}: {state}")
    if not any(failed(job.name).exists() for job in left):
        print(log.read_text(encoding="utf-8", errors="replace")[-3000:])


def store_outputs(jobs: list[Job]) -> None:
    """`make outputs`: put the outputs of checked cells into the notebooks in git, and no others."""
    from lib import execution

    for job in {job.notebook: job for job in reversed(jobs)}.values():
        if execution.store_outputs(paths.NOTEBOOKS / f"{job.notebook}.ipynb", executed(job.name)):
            print(f"Wrote the checked outputs of {job.notebook}")


def lock(job: str, kind: str) -> FileLock:
    """A lock that ends with the process that holds it. `make` holds one from the start, a run its own."""
    path = paths.build() / "locks" / f"{job}.{kind}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(path, timeout=0)


def short(path: Path) -> str:
    """The path as one would type it."""
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)


def available_cores() -> int:
    """Cores that this process may use, which in a container or on a cluster are not all of the machine's."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m lib.workflow", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("figures", "plan", "outputs"):
        command = commands.add_parser(name)
        command.add_argument("--profile", default="quick")
        command.add_argument("--seeds", default="", help="such as '0 1 2'; default: the profile's")
        command.add_argument("--only", default="", help="names of notebooks; default: all")
        command.add_argument("--params", default="", help="such as 'epochs=3 dataset=cifar10'")
        command.add_argument("--jobs", default="", help="notebooks at a time; default: 1")
        command.add_argument("--cores", default="", help="default: all that this process may use")
    run = commands.add_parser("run", help="run the job that an inputs file describes (called by Snakemake)")
    run.add_argument("inputs", type=Path)
    run.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)
    if options.command == "run":
        from lib import execution

        return execution.run(options.inputs, options.threads)
    try:
        options.jobs = _count("JOBS", options.jobs, 1)
        options.cores = _count("CORES", options.cores, available_cores())
        jobs = select(options.profile, options.seeds, options.only, options.params)
    except ParameterError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    if options.command == "plan":
        show_plan(jobs)
        return 0
    status = make_figures(jobs, options)
    if options.command == "outputs" and status == 0:
        store_outputs(jobs)
    return status


def _count(name: str, text: str, default: int) -> int:
    if not text.strip():
        return default
    if not text.strip().isdecimal() or int(text) < 1:
        raise ParameterError(f'{name} takes a positive whole number; found "{text}"')
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
