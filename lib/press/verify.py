"""`make verify`: check that the stored results are intact and up to date.

An *error* is a result that does not match its record: a file that is missing, altered or in no record, an unfinished
run, another profile's result, no commit. A *warning* is one that the repository would not produce now: stale, stopped,
never run, made from uncommitted code or from a commit that is not in this history. Only errors set exit status 1.
Files that .gitignore excludes may be missing: PDF, NPZ, a seed's picture if there is one over all seeds.
"""

import json
import re
import shlex
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from jsonschema import Draft202012Validator as Validator

from lib import paths, sources
from lib.press import fingerprint, jobs, parameters, staleness
from lib.press.jobs import Job, read_json, sha256
from lib.press.parameters import ParameterError

TEMPORARY = ("smoke", "-custom")  # suffixes of the folders that `make clean` removes


def _object(**properties: dict) -> dict:
    return {"type": "object", "properties": properties, "required": [*properties]}


def _named(values: dict) -> dict:
    return {"type": "object", "propertyNames": {"pattern": r"^\w[\w.-]*$"}, "additionalProperties": values}


TEXT, WHOLE = {"type": "string"}, {"type": "integer"}
DATA = {"type": "array", "items": _object(name=TEXT, split=TEXT, count=WHOLE, checksum=TEXT)}
FILES = _named(TEXT)  # SHA-256 by name
PROVENANCE = _object(notebook=TEXT, profile=TEXT, seed={"type": ["integer", "array"], "items": WHOLE}, data=DATA,
                     versions=_object(), device=TEXT, threads=WHOLE, seconds={"type": ["number", "null"]}, made=TEXT,
                     files=FILES)  # fmt: skip
PROVENANCE["properties"]["commit"] = {"type": ["string", "null"]}  # optional; may be null
SIDECAR = {"caption": TEXT, "origin": TEXT, "provenance": PROVENANCE}
ROWS = {"type": "array", "items": {"type": "array"}}
FIGURE = _object(kind={"const": "figure"}, **SIDECAR)
TABLE = _object(kind={"const": "table"}, columns={"type": "array", "items": TEXT}, data=ROWS, **SIDECAR)
RECORD = _object(inputs=TEXT, parameters=_object(), data=DATA, outputs=_named(_object(files=FILES)))
RECORD["properties"]["read"] = {"type": "object", "additionalProperties": TEXT}  # of runs over seeds: hash by path
FORM = Validator({"anyOf": [FIGURE, TABLE, RECORD]})


def _read(path: Path) -> dict | None:
    """Return a record or sidecar; None if it is not in the format that `Run` writes."""
    content = read_json(path)
    whole = FORM.is_valid(content) and all(len(row) == len(content["columns"]) for row in content.get("data", ())
                                           if "columns" in content)  # fmt: skip
    return content if whole else None


class Finding(NamedTuple):
    """One problem: its severity, where it is, what is wrong, and what to do about it."""

    level: str  # "error" or "warning"
    where: str
    what: str
    todo: str

    def __str__(self) -> str:
        return f"{self.level:7}  {self.where}: {self.what}. {self.todo}"


@dataclass(frozen=True)
class Scope:
    """The contents of one seed's results folder, or of the folder over all seeds."""

    folder: Path

    @cached_property
    def _contents(self) -> dict[str, dict | None]:
        return {path.stem: _read(path) for path in sorted(self.folder.glob("*.json"))}

    @property
    def name(self) -> str:
        """`public/seed-0` or `public`."""
        return self.folder.relative_to(paths.figures()).as_posix()

    @property
    def seed(self) -> int | None:
        return int(self.folder.name.removeprefix("seed-")) if _is_seed(self.folder) else None

    @property
    def label(self) -> str:
        return "all seeds" if self.seed is None else f"seed {self.seed}"

    @property
    def unreadable(self) -> list[str]:
        return [name for name, content in self._contents.items() if content is None]

    @cached_property
    def sidecars(self) -> dict[str, dict]:
        """The sidecars of figures and tables, by id."""
        return {name: content for name, content in self._contents.items() if "provenance" in (content or {})}

    @cached_property
    def records(self) -> dict[str, dict]:
        """The records of finished runs, by notebook."""
        return {name: content for name, content in self._contents.items() if "outputs" in (content or {})}


def scopes(folder: str) -> list[Scope]:
    """Return the folder over all seeds, then those of the seeds in order."""
    top = paths.figures() / folder
    if folder not in {path.name for path in paths.figures().glob("*/")}:  # a name, not a path to somewhere else
        raise ParameterError(f"There is no {jobs.short(top)}: run `make figures PROFILE={folder}` first")
    seeds = [path for path in top.iterdir() if _is_seed(path)]
    return [Scope(top), *sorted(map(Scope, seeds), key=lambda scope: scope.seed)]


def stored(folder: str) -> Iterator[tuple[Scope, str, dict]]:
    """Yield all figures and tables with their sidecars, except figures whose pictures are missing and not in git."""
    for scope in scopes(folder):
        for name in scope.unreadable:
            where = f"{scope.name}/{name}.json"
            raise ParameterError(f"{where} cannot be read as a result; `make verify` tells what else is wrong")
        for identity, sidecar in scope.sidecars.items():
            picture = scope.folder / f"{identity}.png"
            if sidecar["kind"] == "table" or picture.exists() or not not_in_git(picture):
                yield scope, identity, sidecar


def numbered(identity: str) -> tuple[str, int]:
    """Return the study's digit and the number within it, ("3", 4) for fig34_loss_curves; ("", 0) without one."""
    found = re.match(r"(?:fig|tab)(\d)(\d+)_", identity)
    return (found[1], int(found[2])) if found else ("", 0)


def _is_seed(path: Path) -> bool:
    return path.is_dir() and path.name.removeprefix("seed-").isdecimal()


def not_in_git(path: Path) -> bool:
    """Return whether git excludes this result: PDF, NPZ, a seed's picture that also exists over all seeds."""
    name, rules = f"/figures/{path.relative_to(paths.figures()).as_posix()}", paths.ROOT / ".gitignore"
    lines = rules.read_text(encoding="utf-8").splitlines() if rules.exists() else []
    fitting = [line for line in lines if fnmatch(name, line.removeprefix("!").replace("**/", "*"))]
    if path.suffix in (".pdf", ".npz") or (fitting and not fitting[-1].startswith("!")):
        return True
    return path.suffix == ".png" and _is_seed(path.parent) and (path.parent.parent / path.name).exists()


def kept_folders() -> list[str]:
    """Return the results folders that `make clean` does not remove."""
    found = sorted(path.name for path in paths.figures().glob("*") if path.is_dir())
    return [name for name in found if not name.endswith(TEMPORARY)]


def verify(folder: str) -> tuple[list[Finding], Counter]:
    """Return all findings in one folder of `figures/`, errors first, and counts of what was checked."""
    found, counts = [], Counter()
    places, commits = scopes(folder), history(paths.ROOT)
    for scope in places:
        found += _files(scope, counts)
        found += _orphaned(scope)
        found += _provenance(scope, folder, commits)
    if folder in parameters.profiles():
        found += _currency(folder, places, counts)
    elif folder.removesuffix("-custom") not in parameters.profiles():
        todo = f"Add profiles/{folder}.yaml or remove the folder."
        found.append(Finding("error", folder, "no profile has this name", todo))
    counts["seeds"] = len(places) - 1
    return sorted(found, key=lambda finding: finding.level), counts


def _files(scope: Scope, counts: Counter) -> Iterator[Finding]:
    """Check that the files listed in the records are present and unchanged."""
    for name in scope.unreadable:
        again = f"Restore it with `git restore`, or run {_make(scope)}."
        yield Finding("error", f"{scope.name}/{name}.json", "is not a complete result in JSON", again)
    for notebook, record in scope.records.items():
        counts["runs"] += 1
        counts["figures and tables"] += len(record["outputs"])
        again = f"Restore it with `git restore`, remove it if git does not keep it, or run {_make(scope, notebook)}."
        for name, expected in staleness.files_of(record).items():
            path, where = scope.folder / name, f"{scope.name}/{name}"
            counts["hashes"] += path.exists() and bool(expected)
            if not path.exists() and not not_in_git(path):
                yield Finding("error", where, f"is missing, though {notebook} made it", again)
            elif path.exists() and expected and sha256(path) != expected:
                yield Finding("error", where, f"is not the file that {notebook} wrote", again)
        for identity, output in record["outputs"].items():
            sidecar, where = scope.sidecars.get(identity), f"{scope.name}/{identity}.json"
            if sidecar and sidecar["provenance"]["files"] != output["files"]:
                yield Finding("error", where, f"is of another run than {notebook}'s record", again)
            elif sidecar and "columns" in sidecar and not _same_table(sidecar, scope.folder / f"{identity}.csv"):
                yield Finding("error", where, "does not hold the table that the CSV file beside it holds", again)


def _same_table(sidecar: dict, path: Path) -> bool:
    """Return whether a table's sidecar, which has no hash, has the same content as its hashed CSV file."""
    if not path.exists():
        return True  # already reported
    frame = pd.DataFrame(sidecar["data"], columns=sidecar["columns"], dtype=object)
    return frame.to_csv(index=False, lineterminator="\n").encode() == path.read_bytes()


def _orphaned(scope: Scope) -> Iterator[Finding]:
    """Find results that no record lists, such as those of an unfinished run."""
    known = {f"{notebook}.json" for notebook in scope.records}
    for record in scope.records.values():
        known |= staleness.files_of(record).keys()
    names = {path.name for path in scope.folder.iterdir() if path.is_file() and not path.name.startswith(".")} - known
    for identity in sorted({Path(name).stem for name in names} - set(scope.unreadable)):
        notebook = scope.sidecars[identity]["provenance"]["notebook"] if identity in scope.sidecars else ""
        todo = f"Run {_make(scope, notebook)} to its end, or remove {jobs.short(scope.folder / identity)}.*"
        yield Finding("error", f"{scope.name}/{identity}", "no record of a finished run names it", todo)


def history(root: Path) -> frozenset[str] | None:
    """Return the commit checked out in `root` and its ancestors; None outside git and in a shallow clone."""
    commits = sources.git(root, "rev-list", "HEAD")
    whole = sources.git(root, "rev-parse", "--is-shallow-repository") == "false"
    return frozenset(commits.split()) if commits and whole else None


def _provenance(scope: Scope, folder: str, commits: frozenset[str] | None) -> Iterator[Finding]:
    """Check that sidecars name the folder's profile and seed and one of `commits`. Problems are grouped by run."""
    profile, wrong = folder.removesuffix("-custom"), Counter()
    for sidecar in scope.sidecars.values():
        origin = sidecar["provenance"]
        notebook, commit = origin["notebook"], str(origin.get("commit") or "unknown")
        again = f"Run {_make(scope, notebook)}."
        if origin["profile"] != profile:
            wrong["error", notebook, f"of profile {origin['profile']} in the folder of {profile}", again] += 1
        if scope.seed is not None and origin["seed"] != scope.seed:
            wrong["error", notebook, f"of seed {origin['seed']} in the folder of seed {scope.seed}", again] += 1
        if commit == "unknown":
            # Where git is unavailable, as in an unpacked archive or another user's clone, results cannot name a commit.
            level, todo = ("error", again) if commits is not None else (
                "warning", "Run again in a git clone that is yours, where the exact code matters.")  # fmt: skip
            wrong[level, notebook, "without the commit that made them", todo] += 1
            continue
        if commit.endswith(" + changes"):
            what = f"made from commit {commit[:7]} with changes that were not committed"
            wrong["warning", notebook, what, "Commit, and run again where the exact code matters."] += 1
        if commits is not None and commit[:40] not in commits:
            what = f"name commit {commit[:7]}, which is not in this repository's history"
            record = jobs.short(scope.folder / f"{notebook}.json")
            todo = f"Fetch or merge it; where the exact code matters, remove {record} and run {_make(scope, notebook)}."
            wrong["warning", notebook, what, todo] += 1
    for (level, notebook, what, todo), count in wrong.items():
        yield Finding(level, f"{scope.name}/{notebook}", f"{count} figures and tables {what}", todo)


def _currency(profile: str, places: list[Scope], counts: Counter) -> Iterator[Finding]:
    """Find runs of the profile that were never made, and results that would be different now."""
    by_seed = {scope.seed: scope for scope in places}
    seeds = dict.fromkeys([*filter(lambda seed: seed is not None, by_seed), *parameters.load_profile(profile).seeds])
    stale: set[str] = set()
    for job in jobs.select(profile, seeds=" ".join(map(str, seeds))):
        scope = by_seed.get(job.seed)
        record = scope and scope.records.get(job.notebook)
        if not record:
            saved = scope.sidecars.values() if scope else ()
            if not any(sidecar["provenance"]["notebook"] == job.notebook for sidecar in saved):
                yield Finding("warning", job.name, "was never run", f"Run {_make(job, job.notebook)}.")
            continue  # unfinished: already reported as an error
        if "stopped" in record:
            what = f"was stopped {record['stopped']}: {len(record['outputs'])} figures and tables are there"
            yield Finding("warning", job.name, what, f"Run {_make(job, job.notebook)} for the rest.")
        why = _reasons(job, record) or [f"after {jobs.title(name)}" for name in job.reads if name in stale]
        read = {paths.figures() / name: digest for name, digest in record.get("read", {}).items()}
        why = why or [f"{path.name} has changed" for path in read if not path.is_file() or sha256(path) != read[path]]
        stale |= {job.name} if why else set()
        if why == [ABSENT]:
            counts["without data"] += 1
        elif why:
            todo = f"If it matters, run {_make(job, job.notebook)}."
            yield Finding("warning", job.name, f"is stale ({'; '.join(why)})", todo)
    for scope in places:
        for notebook in scope.records.keys() - set(parameters.notebooks()):
            todo = f"Remove {jobs.short(scope.folder / notebook)}.json and what it names."
            yield Finding("error", f"{scope.name}/{notebook}", "there is no notebook of this name", todo)


ABSENT = "its data set is missing"


def _reasons(job: Job, record: dict) -> list[str]:
    """Return why the recorded results are not what the notebook would produce now; empty if they are."""
    if sources.digest(job.parts | {"data in use": json.dumps(record["data"])})[:16] == record["inputs"]:
        return []
    then, now = record["parameters"], json.loads(json.dumps(job.values))
    pairs = {name: (then.get(name, "nothing"), now.get(name, "nothing")) for name in then | now}
    changed = [f"{name}: {old} → {new}" for name, (old, new) in pairs.items() if old != new]
    if not changed and "absent" in fingerprint.data_parts(job.values).values():
        return [ABSENT]
    return changed or ["code, packages or data (optional ones, too) are not those that it was made from"]


def _make(place: Scope | Job, notebook: str = "") -> str:
    """Return the command that makes a scope's results again."""
    profile = place.name.split("/")[0].removesuffix("-custom")
    only = f" ONLY={notebook}" if notebook else ""
    # Without a notebook, selecting one seed would also remake the results over all seeds, from that seed alone.
    seed = f' SEEDS="{place.seed}"' if notebook and place.seed is not None else ""
    return f"`make figures PROFILE={shlex.quote(profile)}{only}{seed}`"


def show(folder: str, found: list[Finding], counts: Counter) -> int:
    """Print the findings of `verify` and return the number of errors."""
    for finding in found:
        print(finding)
    levels = Counter(finding.level for finding in found)
    print(
        f"{folder}: {counts['runs']} runs, {counts['seeds']} seeds, {counts['figures and tables']} figures and tables, "
        f"{counts['hashes']} hashes recomputed: {levels['error']} errors, {levels['warning']} warnings."
    )
    if counts["without data"]:
        print(f"  {counts['without data']} runs could not be checked for staleness: their data set is missing.")
    return levels["error"]


def main(profile: str) -> int:
    """Check one folder of `figures/`, or all that are kept; return 1 if there is an error."""
    folders = [profile] if profile else kept_folders()
    if not folders:
        raise ParameterError(f"There are no results in {jobs.short(paths.figures())}: run `make figures` first")
    return 1 if sum([show(folder, *verify(folder)) for folder in folders]) else 0
