"""benchmarks/kills.py kills runs, and detects partial files and wrong results."""

import hashlib
import json
import os
import re

import kills
import numpy as np
import pytest
from safetensors.numpy import save_file


def test_a_toy_survives_three_kills(fresh_toy, tmp_path, capsys):
    two = ["ONLY=01_alpha 02_beta"]
    victim = kills.Victim(fresh_toy.folder, tmp_path / "output", two, fresh_toy.environment)
    try:
        kills.kill_repeatedly(victim, 3, seed=0)
    finally:
        victim.stop()
    printed = capsys.readouterr().out
    assert len(re.findall(r"^kill \d, \d+ s after a start: .* all ended within", printed, re.MULTILINE)) == 3
    assert "No fault in 3 kills" in printed


@pytest.fixture
def run(tmp_path):
    """The folders of a run and of an undisturbed one, equal except for times: tables, a record and a checkpoint."""
    for name in ("undisturbed", "output"):
        figures, epoch = tmp_path / name / "figures/smoke", tmp_path / name / "build/checkpoints/smoke/arm/epoch-0002"
        figures.mkdir(parents=True)
        (figures / "tab.csv").write_text(f"arm,milliseconds\nDCGAN,{len(name)}\n")
        (figures / "tab.json").write_text("{}")
        (figures / "other.csv").write_text("arm\nDCGAN\n")
        digest = hashlib.sha256((figures / "tab.csv").read_bytes()).hexdigest()
        (figures / "01.json").write_text(json.dumps({"outputs": {"tab": {"files": {"tab.csv": digest}}}}))
        epoch.mkdir(parents=True)
        save_file({"weight": np.ones(3)}, epoch / "model.safetensors")
    return tmp_path / "output", tmp_path / "undisturbed"


def test_a_run_that_differs_in_times_alone_is_the_same(run):
    kills.examine(run[0])
    kills.compare(*run, complete=True)
    assert kills.progress(run[0]) == {"build/checkpoints/smoke/arm": 2}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("figures/smoke/01.json", '{"outputs": {'),
        ("figures/smoke/fig.png", "\x89PNG"),
        ("figures/smoke/tab.csv", "arm,millis"),
        ("build/cache/sounds.npz", "PK"),
        ("build/checkpoints/smoke/arm/epoch-0002/model.safetensors", "wei"),
    ],
)
def test_a_part_of_a_file_is_seen(run, name, content):
    (run[0] / name).parent.mkdir(exist_ok=True)
    (run[0] / name).write_text(content)
    with pytest.raises(kills.Fault, match=re.escape(name)):
        kills.examine(run[0])
    hidden = run[0] / name
    os.rename(hidden, hidden.with_name(f".{hidden.name}.partial"))
    if name.endswith(("png", "npz", "01.json")):
        kills.examine(run[0])


def test_other_results_are_seen(run):
    (run[0] / "figures/smoke/other.csv").write_text("arm\nDCG\n")
    with pytest.raises(kills.Fault, match="other.csv differs from that of"):
        kills.compare(*run)
    (run[0] / "figures/smoke/other.csv").unlink()
    kills.compare(*run)
    with pytest.raises(kills.Fault, match="not in both: figures/smoke/other.csv"):
        kills.compare(*run, complete=True)
