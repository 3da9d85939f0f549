"""Runs with a time limit (benchmarks/gpu.sh): what the limit stops is recorded, and results are packed in parts."""

import json
import os
import subprocess
import sys
import tarfile
import time
import tomllib
from pathlib import Path

import gpu
import missing
import psutil
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
    (out / "part-9.tar.gz").touch()  # from an earlier run
    gpu.pack([*files[:2], output / "figures" / "vanished", *files[2:]], out)
    parts = sorted(out.glob("part-*.tar.gz"))
    assert len(parts) == 3 and all(part.stat().st_size < 3400 for part in parts)
    for part in parts:
        with tarfile.open(part) as archive:
            archive.extractall(output / "again")
    assert {file.read_bytes() for file in files} == {file.read_bytes() for file in (output / "again").rglob("*.bin")}


def test_a_file_that_vanishes_between_two_looks_is_left_out(output, monkeypatch):
    kept, gone = output / "kept.bin", output / "gone.bin"
    for file in (kept, gone):
        file.touch()
    real = tarfile.TarFile.add
    monkeypatch.setattr(tarfile.TarFile, "add", lambda self, *args: (gone.unlink(missing_ok=True), real(self, *args)))
    gpu.pack([gone, kept], output)
    with tarfile.open(output / "part-0.tar.gz") as archive:
        assert archive.getnames() == ["kept.bin"]


@pytest.mark.parametrize(("most", "told"), [((2, 4000), "3 parts, more than 2"), ((3, 1000), "part-0.tar.gz has"),
                                            ((3, 4000), "")])  # fmt: skip
def test_more_or_larger_parts_than_agreed_are_told(output, monkeypatch, capsys, most, told):
    monkeypatch.setattr(gpu, "PART", 1500)
    monkeypatch.setattr(gpu, "MOST", most)
    files = [output / f"{number}.bin" for number in range(3)]
    for file in files:
        file.write_bytes(os.urandom(1200))
    gpu.pack(files, output)
    said = capsys.readouterr().out
    assert told in said and bool(told) == bool(said)


def test_a_stopped_run_is_recorded_and_told_as_stopped(output):
    job = "smoke/seed-0/01_laplacian_gan"
    folder = paths.figures() / "smoke" / "seed-0"
    folder.mkdir(parents=True)
    about = {"notebook": "01_laplacian_gan", "inputs": "0" * 16, "parameters": {}, "data": []}

    def save(name: str, made: str) -> None:
        (folder / f"{name}.csv").write_text("arm\n")
        side = {"id": name, "kind": "table", "provenance": about | {"made": made, "files": {f"{name}.csv": "f" * 64}}}
        (folder / f"{name}.json").write_text(json.dumps(side))

    save("tab11_fid_lpips", "2026-01-01T23:59:59+00:00")  # from an earlier run
    gpu.record_stopped(job, 12, since="2026-01-02T00:00:00+00:00")
    assert not jobs.record(job).exists(), "nothing was saved, so there is nothing to record"
    save("tab12_controls", "2026-01-02T00:00:00+00:00")
    gpu.record_stopped(job, 12, since="2026-01-02T00:00:00+00:00")
    record = json.loads(jobs.record(job).read_text())
    assert record["outputs"] == {"tab12_controls": {"kind": "table", "files": {"tab12_controls.csv": "f" * 64}}}
    assert "after 12 s" in record["stopped"]
    assert any("was stopped at the time limit" in str(finding) for finding in verify.verify("smoke")[0])


@pytest.mark.skipif(os.name != "posix", reason="the stand-in for a notebook is a shell script")
@pytest.mark.parametrize("fails", ["", "05_emergency_cnn"])
def test_a_notebook_starts_after_those_that_it_reads(output, monkeypatch, capsys, fails):
    """For profile trained, with a script instead of the notebooks."""
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


@pytest.mark.skipif(os.name != "posix", reason="halting processes needs signals")
def test_the_clock_stops_a_run_and_whatever_it_started(output, monkeypatch):
    """Stand-ins: a notebook's process, its kernel in a session of its own, and the kernel's training process."""
    sleep = "import time; time.sleep(600)"
    kernel = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {sleep!r}]); {sleep}"
    begin = f"subprocess.Popen([sys.executable, '-c', {kernel!r}], start_new_session=True)"
    run = f"import subprocess, sys; {begin}; {sleep}"
    found = []

    def start(command, **options):
        process = real([sys.executable, "-c", run], **options)
        while len(found[1:]) < 2:
            found[:] = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
            time.sleep(0.05)
        return process

    real = subprocess.Popen
    monkeypatch.setattr(gpu.subprocess, "Popen", start)
    (job,) = jobs.select("smoke", only="01_laplacian_gan")
    gpu.run([job], time.monotonic() + 1, output)
    assert len(found) == 3 and not [one for one in found if gpu._alive(one)]


@pytest.mark.skipif(os.name != "posix", reason="the stand-in for a notebook is a shell script")
def test_the_clock_tells_when_each_epoch_was_saved(output, monkeypatch):
    (job,) = jobs.select("smoke", only="01_laplacian_gan")
    arm = paths.build() / "checkpoints" / job.name / "dcgan"
    (arm / "epoch-0001").mkdir(parents=True)  # from an earlier run
    script = output / "python"
    script.write_text(f'#!/bin/sh\nmkdir "{arm}/epoch-0002" "{arm}/partial"\nsleep 1\nmkdir "{arm}/epoch-0003"\n')
    script.chmod(0o755)
    monkeypatch.setattr(gpu.sys, "executable", str(script))
    clock = gpu.run([job], time.monotonic() + 60, output)
    assert list(clock) == [f"seed-0/01_laplacian_gan/dcgan/epoch-000{number}" for number in (2, 3)]
    assert 0 <= clock[list(clock)[0]] <= clock[list(clock)[1]]


@pytest.mark.parametrize(("asked", "notebooks"), [
    (["--rehearse"], 8), (["--rehearse", "--only", "03_corregularization"], 1), ([], 2),
    (["--only", "06_emergency_ensemble"], 3),
])  # fmt: skip
def test_a_rehearsal_is_of_all_notebooks_and_a_run_of_two_unless_others_are_named(
    output, monkeypatch, asked, notebooks
):
    monkeypatch.setattr(gpu.torch.cuda, "is_available", lambda: "--rehearse" not in asked)
    monkeypatch.setattr(gpu.torch.cuda, "get_device_name", lambda: "a card")
    monkeypatch.setattr(gpu, "steps", lambda *_: [])
    selected = []
    monkeypatch.setattr(gpu, "run", lambda some, *_: selected.extend(some) or {})
    assert gpu.main([*asked, "--seeds", "3"]) == 1, "nothing was run"
    assert len(selected) == notebooks and {job.seed for job in selected} <= {3, None}


def test_what_a_bare_machine_lacks_is_told_from_the_lock():
    project = tomllib.loads((paths.ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = {line.partition(">")[0] for line in project["dependencies"]}
    lock = paths.LOCK.read_text(encoding="utf-8")
    found = [line.partition("==")[0] for line in missing.missing(lock, named, lambda name: name == "pandas")]
    assert {"papermill", "tenacity", "ipykernel", "scipy", "kornia-rs"} <= set(found) and len(set(found)) == len(found)
    assert not {"pandas", "torch", "triton", "transformers", "matplotlib", "ruff", "snakemake"} & set(found)
    assert not missing.missing(lock, named, missing.installed)


@pytest.mark.skipif(os.name != "posix", reason="it is a shell script")
def test_a_rehearsal_runs_and_packs(tmp_path):
    """For study 2 only, with seed 1; all notebooks would take minutes."""
    name = "02_categorical_similarity"
    environment = os.environ | {"OUTPUT_ROOT": str(tmp_path / "output")}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = ["sh", "benchmarks/gpu.sh", "--rehearse", "--seconds", "3600", "--seeds", "1", "--only", name]
    result = subprocess.run([*command, "--out", tmp_path / "parts"], cwd=paths.ROOT, env=environment,
                            capture_output=True, text=True)  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    parts = sorted((tmp_path / "parts").iterdir())
    assert 1 <= len(parts) <= gpu.MOST[0] and all(part.stat().st_size <= gpu.MOST[1] for part in parts)
    for part in parts:
        with tarfile.open(part) as archive:
            archive.extractall(tmp_path / "unpacked")
    figures, build = tmp_path / "unpacked" / "figures" / "smoke" / "seed-1", tmp_path / "unpacked" / "build"
    record = json.loads((figures / f"{name}.json").read_text())
    assert record["outputs"] and "stopped" not in record
    assert all((figures / file).exists() for output in record["outputs"].values() for file in output["files"])
    assert (build / "executed" / "smoke" / "seed-1" / f"{name}.ipynb").exists()
    assert (build / "gpu" / f"smoke-seed-1-{name}.log").read_text().startswith("start")
    steps = json.loads((build / "gpu" / "steps.json").read_text())["steps"]
    assert len(steps) == 5 and all(row["milliseconds"] > 0 for row in steps)
    clock = json.loads((build / "gpu" / "clock.json").read_text())
    assert {epoch.split("/")[0] for epoch in clock} == {"seed-1", "tuning 02"}  # all seeds share the tuning
    assert all(epoch.split("/")[1] == name for epoch in clock if epoch.startswith("seed-1/"))
    assert list((build / "checkpoints").rglob("history.json"))
