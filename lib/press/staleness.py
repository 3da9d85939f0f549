"""Which jobs are stale, and why, by content alone."""

import json
import os

from lib.press import jobs
from lib.press.jobs import Job, read_json, sha256, title, write_atomically


def plan(selected: list[Job]) -> dict[str, list[str]]:
    """For each job the reasons to run it, in words; none where it is up to date."""
    why: dict[str, list[str]] = {}
    for job in selected:
        why[job.name] = reasons(job)
        if not why[job.name]:
            why[job.name] = [f"after {title(name)}" for name in job.reads if why[name]]
    return why


def reasons(job: Job) -> list[str]:
    """Why this job by itself is stale, whatever happens to those that it reads."""
    before = read_json(jobs.made_from(job.name))
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
    """What is missing from, or altered in, the files that a finished job left."""
    content = read_json(jobs.record(job))
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
    """All files that a record speaks for, with their hashes; None for sidecars, which hold times."""
    files: dict[str, str | None] = {}
    for identity, output in content["outputs"].items():
        files |= {f"{identity}.json": None, **output["files"]}
    return files


def records_of(names) -> dict[str, str]:
    """The hash of each job's record, empty where there is none."""
    return {job: sha256(jobs.record(job)) if jobs.record(job).exists() else "" for job in names}


def _differences(before: dict[str, str], now: dict[str, str]) -> list[str]:
    found = []
    for part in now | before:
        old, new = before.get(part, "nothing"), now.get(part, "nothing")
        if old != new:
            told = part.startswith(("parameter ", "Python ", "package "))  # of others there are only hashes
            found.append(f"{part}: {old} → {new}" if told else f"{part.removeprefix('module ')} changed")
    return found


def prepare(job: Job) -> None:
    """Make Snakemake, which compares files' times, agree with `reasons`.

    A stale job loses its executed copy; the results of an up-to-date one are made as new as what it was made from.
    """
    stale = bool(reasons(job))
    if stale:
        jobs.executed(job.name).unlink(missing_ok=True)
    content = json.dumps(job.description(), indent=1) + "\n"
    path = jobs.inputs_file(job.name)
    if not path.exists() or path.read_text(encoding="utf-8") != content:
        write_atomically(path, content)
    if not stale:
        newest = max(file.stat().st_mtime_ns for file in (path, *map(jobs.record, job.reads)))
        for made in (jobs.executed(job.name), jobs.record(job.name)):
            if made.stat().st_mtime_ns < newest:
                os.utime(made, ns=(newest, newest))
