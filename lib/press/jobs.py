"""Jobs (one run of one notebook each) and the locations of their files.

A notebook with a parameter `seed` has one job per seed; one with `seeds` or neither has a single job over all seeds. A
job's name is its path below `figures/` and `build/*/`:

    build/inputs/<job>.json      what the job depends on now, and all it needs to run
    build/running/<job>.ipynb    the copy during execution
    build/executed/<job>.ipynb   the completed copy, present only after success
    build/executed/<job>.json    what the completed copy was made from
    build/failed/<job>.ipynb     the copy of a failed run, with the error
    figures/<job>.json           the record that the notebook's `lib.press.run.Run` writes at its end
"""

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

from filelock import FileLock

from lib import paths
from lib.paths import atomic
from lib.press import fingerprint, parameters
from lib.press.parameters import ParameterError


@dataclass(frozen=True)
class Job:
    """One notebook with its parameters, for one seed or over all seeds (`seed` is None)."""

    notebook: str
    folder: str
    seed: int | None
    values: dict[str, Any]
    parts: dict[str, str]
    reads: tuple[str, ...]  # names of the jobs whose results this one reads
    resources: dict[str, int]  # on a cluster, see `parameters.Resources`

    @property
    def name(self) -> str:
        """Path below `figures/` and `build/*/`, such as `quick/seed-0/03_corregularization`."""
        scope = [] if self.seed is None else [f"seed-{self.seed}"]
        return "/".join([self.folder, *scope, self.notebook])

    @property
    def title(self) -> str:
        return title(self.name)


def title(job: str) -> str:
    folder, *scope, notebook = job.split("/")
    seed = scope[0].replace("-", " ") if scope else "all seeds"
    return f"{notebook} ({folder}, {seed})"


def _in_build(folder: str, ending: str = ".ipynb") -> Callable[[str], Path]:
    return lambda job: paths.build() / folder / f"{job}{ending}"


executed, running, failed = _in_build("executed"), _in_build("running"), _in_build("failed")
made_from, inputs_file = _in_build("executed", ".json"), _in_build("inputs", ".json")


def record(job: str) -> Path:
    return paths.figures() / f"{job}.json"


def lock(job: str) -> FileLock:
    """Return the lock of a run, which is released when the process that holds it ends."""
    return FileLock(paths.build() / "locks" / f"{job}.lock", timeout=0)  # creates the folder


def select(profile: str, seeds: str = "", only: str = "", params: str = "") -> list[Job]:
    """Return the requested jobs and those whose results they read, each after the jobs that it reads.

    `seeds` and `only` are lists separated by spaces or commas; empty means the profile's seeds and all notebooks
    that it does not skip. ParameterError if a name is unknown or a value has the wrong type.
    """
    seed_list = _seeds(seeds) if seeds.strip() else parameters.load_profile(profile).seeds
    skipped = {name: parameters.profile_entry(name, profile).skip for name in parameters.notebooks()}
    asked = only.replace(",", " ").split() or [name for name, reason in skipped.items() if not reason]
    if not asked:
        raise ParameterError(f"Profile '{profile}' selects no notebook of {paths.NOTEBOOKS}; name one by ONLY=")
    for notebook in asked:
        parameters.check_notebook(notebook)
        if skipped[notebook]:
            raise ParameterError(f"Profile '{profile}' has no {notebook}: {skipped[notebook]}")
    ordered = _in_order(asked, profile)
    known = {notebook: parameters.defaults(notebook) for notebook in ordered}
    overrides = parameters.parse_assignments(params, {n: v for values in known.values() for n, v in values.items()})
    parameters.check_names(overrides, known)
    resolved = {
        notebook: parameters.resolve(notebook, profile, {n: v for n, v in overrides.items() if n in values})
        for notebook, values in known.items()
    }
    for path in filter(None, map(fingerprint.recording, resolved.values())):
        if not path.is_file():  # reported before any model is trained
            raise ParameterError(f"There is no recording {path}. A relative path starts at {paths.ROOT}.")
    changed = {name for name, values in resolved.items() if parameters.changed(name, profile, values)}
    reads_of = {name: parameters.profile_entry(name, profile).reads for name in ordered}
    # If all changed notebooks read others and none of them is read, they use the profile's results: notebook 06 takes
    # another recording with the same models.
    all_custom = any(not reads_of[name] or any(name in reads for reads in reads_of.values()) for name in changed)
    names: dict[str, list[str]] = {}
    jobs = []
    for notebook in ordered:
        entry = parameters.profile_entry(notebook, profile)
        folder = paths.folder_name(profile, all_custom or notebook in changed)
        for seed in seed_list if "seed" in known[notebook] else [None]:
            reads = []
            for other in entry.reads:
                same_seed = [name for name in names[other] if f"/seed-{seed}/" in name]
                reads += same_seed or names[other]
            over = {"seed": seed, "seeds": list(seed_list)}
            values = {name: over.get(name, value) for name, value in resolved[notebook].items()}
            parts = fingerprint.parts_of(notebook, values)
            resources = entry.resources.model_dump()
            job = Job(notebook, folder, seed, values, parts, tuple(reads), resources)
            names.setdefault(notebook, []).append(job.name)
            jobs.append(job)
    return jobs


def _seeds(text: str) -> list[int]:
    words = text.replace(",", " ").split()
    if not words or not all(
        word.isdecimal() and len(word) <= 10 and int(word) < parameters.SEEDS_BELOW for word in words
    ):
        raise ParameterError(f'SEEDS takes whole numbers below 2^32, such as SEEDS="0 1 2"; found "{text}"')
    return list(dict.fromkeys(int(word) for word in words))


def _in_order(asked: list[str], profile: str) -> list[str]:
    """Return `asked` and all notebooks that they read, each after those that it reads."""
    reads: dict[str, list[str]] = {}
    waiting = list(asked)
    while waiting:
        notebook = waiting.pop(0)
        reads[notebook] = parameters.profile_entry(notebook, profile).reads
        waiting += [other for other in reads[notebook] if other not in reads]
    try:
        return list(TopologicalSorter(reads).static_order())
    except CycleError as error:
        circle = " reads ".join(reversed(error.args[1]))
        raise ParameterError(f"Profile '{profile}' has notebooks that read each other: {circle}") from None


def short(path: Path) -> str:
    """Return the path relative to the working directory if it is inside, else unchanged."""
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)


def write_atomically(path: Path, text: str) -> None:
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def read_json(path: Path, *names: str) -> dict | None:
    """Return the file's content; None if it is missing or not a JSON object with these names."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) and content.keys() >= {*names} else None
