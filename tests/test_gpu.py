"""The run against the clock: what it stops is recorded as stopped, and its results come in parts."""

import json
import os
import subprocess
import sys
import tarfile
import time

import gpu
import pytest

from lib import paths
from lib.press import jobs, verify


@pytest.fixture
def output(tmp_path, monkeypatch):
    monkeypatch.setenv("OUTPUT_ROOT", str(tmp_path))
    return tmp_path


def test_parts_hold_every_file_once_and_none_is_larger_than_allowed(output, monkeypatch):
    monkeypatch.setattr(gpu, "PART", 3000)
    files = [output / "figures" / f"{number}.bin" for number in range(5)]
    files[0].parent.mkdir()
    for file in files:
        file.write_bytes(os.urandom(1200))
    out = output / "out"
    out.mkdir()
    gpu.pack(files, out)
    parts = sorted(out.glob("part-*.tar.gz"))
    assert len(parts) == 3 and all(part.stat().st_size < 3400 for part in parts)
    for part in parts:
        with tarfile.open(part) as archive:
            archive.extractall(output / "again")
    assert {file.read_bytes() for file in files} == {file.read_bytes() for file in (output / "again").rglob("*.bin")}


def test_a_stopped_run_is_recorded_and_told_as_stopped(output):
    job = "smoke/seed-0/01_laplacian_gan"
    folder = paths.figures() / "smoke" / "seed-0"
    folder.mkdir(parents=True)
    gpu.record_stopped(job, 12)
    assert not jobs.record(job).exists(), "nothing was saved, so there is nothing to record"
    (folder / "tab12_controls.csv").write_text("arm\n")
    about = {"notebook": "01_laplacian_gan", "inputs": "0" * 16, "parameters": {}, "data": [], "made": "2026-01-01"}
    side = {"id": "tab12_controls", "kind": "table", "provenance": about | {"files": {"tab12_controls.csv": "f" * 64}}}
    (folder / "tab12_controls.json").write_text(json.dumps(side))
    gpu.record_stopped(job, 12)
    record = json.loads(jobs.record(job).read_text())
    assert record["outputs"] == {"tab12_controls": {"kind": "table", "files": {"tab12_controls.csv": "f" * 64}}}
    assert "after 12 s" in record["stopped"]
    assert any("was stopped by the clock" in str(finding) for finding in verify.verify("smoke")[0])


@pytest.mark.skipif(os.name != "posix", reason="the stand-in for a notebook is a shell script")
@pytest.mark.parametrize("fails", ["", "05_emergency_cnn"])
def test_a_notebook_starts_after_those_that_it_reads(output, monkeypatch, capsys, fails):
    """Of profile trained, with a script in the place of the notebooks."""
    script, log = output / "python", output / "log"
    lines = ["#!/bin/sh", "name=$(basename $4)", f'echo "begin $name" >> "{log}"', f'echo "end $name" >> "{log}"',
             f'test "$name" != "{fails}"']  # fmt: skip
    script.write_text("\n".join(lines))
    script.chmod(0o755)
    monkeypatch.setattr(gpu.sys, "executable", str(script))
    monkeypatch.setattr(gpu.staleness, "prepare", lambda job: None)
    first, second, last = selected = jobs.select("trained", only="06_emergency_ensemble")
    gpu.run(selected, time.monotonic() + 60, output)
    said, order = capsys.readouterr().out, log.read_text().splitlines()
    if fails:
        assert f"{last.name}: not run, as {second.name} failed" in said
        assert sorted(order) == sorted(f"{what} {job.notebook}" for job in (first, second) for what in ("begin", "end"))
    else:
        assert order[-2:] == [f"begin {last.notebook}", f"end {last.notebook}"] and len(order) == 6


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="process groups are looked at in /proc")
def test_the_clock_stops_a_run_and_whatever_it_started(output, monkeypatch):
    sleep = "import time; time.sleep(600)"
    child = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', '{sleep}']); {sleep}"
    started = []

    def start(command, **options):
        started.append(real([sys.executable, "-c", child], **options))
        return started[-1]

    real = subprocess.Popen
    monkeypatch.setattr(gpu.subprocess, "Popen", start)
    (job,) = jobs.select("smoke", only="01_laplacian_gan")
    begin = time.monotonic()
    gpu.run([job], begin + 2, output)
    assert time.monotonic() - begin < 60 and started[0].poll() is not None
    monkeypatch.undo()
    listed = subprocess.check_output(["ps", "-eo", "pgid=,stat="], text=True).splitlines()
    alive = [group for group, state in map(str.split, listed) if not state.startswith("Z")]
    assert str(started[0].pid) not in alive
