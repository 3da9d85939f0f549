"""Decide which jobs are stale, and why, by content alone."""

import json
import os

from lib.press import jobs
from lib.press.jobs import Job, read_json, sha256, title, write_atomically


def plan(selected: list[Job]) -> dict[str, list[str]]:
    """Return for each job the reasons to run it, in words; empty if it is up to date."""
    why: dict[str, list[str]] = {}
    for job in selected:
        why[job.name] = reasons(job)
        if not why[job.name]:
            why[job.name] = [f"after {title(name)}" for name in job.reads if why[name]]
    return why


def reasons(job: Job) -> list[str]:
    """Return why this job itself is stale, regardless of whether the jobs that it reads are."""
    before = read_json(jobs.made_from(job.name), "inputs", "reads")
    if not jobs.executed(job.name).exists():
        if jobs.failed(job.name).exists():
            return ["failed last time"]
        if before is None:
            return ["not run yet"]
    if before is None:
        return ["nothing is known about its last run"]
    found, reads = _differences(before["inputs"], job.parts), records_of(job.reads)
    found += [f"the results of {title(name)} changed" for name in reads if reads[name] != before["reads"].get(name)]
    found += [f"no longer reads {title(name)}" for name in before["reads"] if name not in reads]
    if read_json(jobs.executed(job.name)) is None:
        return found or ["its last run did not finish"]
    return found + damage(job.name)


def damage(job: str) -> list[str]:
    """Return which files of a finished job are missing or altered."""
    content = read_json(jobs.record(job), "outputs")
    if content is None:
        return ["its record is missing"]
    found = []
    for name, expected in files_of(content).items():
        path = jobs.record(job).parent / name
        if not path.exists():
            found.append(f"{name} is missing")
        elif expected and sha256(path) != expected:
            found.append(f"{name} was altered")
    return found


def files_of(content: dict) -> dict[str, str | None]:
    """Return all files listed in a record, with their hashes; None for sidecars, which contain times."""
    files: dict[str, str | None] = {}
    for identity, output in content["outputs"].items():
        files |= {f"{identity}.json": None, **output["files"]}
    return files


def records_of(names) -> dict[str, str]:
    """Return the hash of each job's record, empty if there is none."""
    return {job: sha256(jobs.record(job)) if jobs.record(job).exists() else "" for job in names}


def _differences(before: dict[str, str], now: dict[str, str]) -> list[str]:
    found = []
    for part in now | before:
        old, new = before.get(part, "nothing"), now.get(part, "nothing")
        if old != new:
            told = part.startswith(("parameter ", "Python ", "package "))  # for others only hashes are known
            found.append(f"{part}: {old} → {new}" if told else f"{part.removeprefix('module ')} changed")
    return found


def prepare(job: Job) -> None:
    """Make Snakemake, which compares file times, agree with `reasons`.

    The executed copy of a stale job is removed; results of an up-to-date job get times no older than its inputs.
    """
    stale = bool(reasons(job))
    if stale:
        jobs.executed(job.name).unlink(missing_ok=True)
    # All that running the job needs. Snakemake runs it again when this file changes.
    needed = {"notebook": job.notebook, "folder": job.folder, "parameters": job.values, "reads": job.reads}
    content = json.dumps(needed | {"parts": job.parts}, indent=1) + "\n"
    path = jobs.inputs_file(job.name)
    if not path.exists() or path.read_text(encoding="utf-8") != content:
        write_atomically(path, content)
    if not stale:
        newest = max(file.stat().st_mtime_ns for file in (path, *map(jobs.record, job.reads)))
        for made in (jobs.executed(job.name), jobs.record(job.name)):
            if made.stat().st_mtime_ns < newest:
                try:
                    os.utime(made, ns=(newest, newest))
                except PermissionError:  # another user's file: its group can only set the current time
                    os.utime(made)
