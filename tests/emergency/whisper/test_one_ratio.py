"""A ratio trained as a job of its own is the one that the notebook would have trained."""

import os
import subprocess
import sys
from dataclasses import replace

import pytest
from toy import ROOT

from lib.emergency.whisper import experiments as recognition
from lib.emergency.whisper import one_ratio
from lib.press import jobs

RATIO = 0.5


@pytest.fixture
def job(tmp_path, monkeypatch):
    monkeypatch.setenv("OUTPUT_ROOT", str(tmp_path))
    return next(job for job in jobs.select("smoke", "0", one_ratio.NOTEBOOK))


def saved(job) -> dict[str, int]:
    """Files of the checkpoint and when they were written."""
    folder = jobs.checkpoints(job.name) / f"ratio-{RATIO:g}-of-{job.values['ratio_epochs']}"
    return {path.relative_to(folder).as_posix(): path.stat().st_mtime_ns for path in folder.rglob("*.safetensors")}


def test_the_notebook_finds_it_done(job, tmp_path):
    assert RATIO in job.values["ratios"]
    assert one_ratio.main(["--profile", "smoke", "--ratio", str(RATIO)]) == 0
    before = saved(job)
    assert [name.split("/")[0] for name in before] == [f"epoch-{job.values['ratio_epochs']:04d}"]
    found = []
    for folder in (jobs.checkpoints(job.name), tmp_path / "anew"):
        where = {"seed": 0, "checkpoints": folder}
        task = recognition.prepared(recognition.task(job.values), **where)
        sets = task.clips, task.validation
        trial = replace(task.settings, epochs=job.values["ratio_epochs"])
        _, models = recognition.sweep(task.fresh, *sets, trial, [RATIO], **where)
        found.append(models[RATIO].digest())
    found, trained = found
    assert found == trained and saved(job) == before


def test_two_processes_share_one_training(job):
    command = ["-m", "accelerate.commands.launch", "--cpu", "--num_processes=2", "--num_machines=1"]
    command += ["--mixed_precision=no", "--dynamo_backend=no", "--main_process_port=0"]
    command += ["-m", "lib.emergency.whisper.one_ratio", "--profile", "smoke", "--ratio", str(RATIO)]
    variables = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *command], cwd=ROOT, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert [name.split("/")[0] for name in saved(job)] == [f"epoch-{job.values['ratio_epochs']:04d}"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--ratio", "0.123"], "none of the ratios of profile smoke: 0, 0.5"),
        (["--ratio", "0", "--params", "x=1"], "'x'"),
    ],
)
def test_what_cannot_be_is_told(job, capsys, arguments, says):
    assert one_ratio.main(["--profile", "smoke", *arguments]) == 1
    assert says in capsys.readouterr().err
