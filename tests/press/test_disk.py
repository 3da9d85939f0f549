"""`make figures` on a full disk: an error that says so, and no partial result."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from toy import Repository

RECORD, COPY = "figures/quick/seed-0/02_beta.json", "build/executed/quick/seed-0/02_beta.ipynb"
FILL = "subprocess.run('cat /dev/zero > filler', shell=True, cwd=ROOT, stderr=subprocess.DEVNULL)"


@pytest.fixture
def output(fresh_toy, tmp_path) -> Path:
    """The output folder of the toy repository."""
    fresh_toy.environment["OUTPUT_ROOT"] = str(tmp_path / "output")
    return tmp_path / "output"


def mount(*words: str | Path) -> None:
    if sys.platform != "linux" or os.getuid():
        pytest.skip("only root on Linux may mount a file system")
    done = subprocess.run(["mount", *words], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no file system may be mounted here: {done.stderr.strip()}")


@pytest.fixture
def disk(output):
    """A small disk in memory, mounted as the output folder."""
    output.mkdir()
    mount("-t", "tmpfs", "-o", "size=8m", "tmpfs", output)
    yield output
    subprocess.run(["umount", "-l", output], capture_output=True)


def meanwhile(toy: Repository, code: str) -> None:
    """Let notebook 02 run this code before it saves."""
    toy.replace("notebooks/02_beta.ipynb", "time.sleep(wait)", "import lib.trouble")
    toy.write("lib/trouble.py", f"import os, shutil, subprocess\nROOT = os.environ['OUTPUT_ROOT']\n{code}\n")


def fails(toy: Repository, output: Path, what: str) -> None:
    """The run fails with an error that says what is wrong, and leaves no result."""
    told = toy.make("figures", "ONLY=02_beta", status=1)
    assert what in told, told
    assert not (output / RECORD).exists() and not (output / COPY).exists()


def succeeds(toy: Repository, output: Path) -> None:
    toy.write("lib/trouble.py", "")
    told = toy.make("figures", "ONLY=02_beta")
    assert "Done: " in told and (output / RECORD).exists() and (output / COPY).exists()
    assert (output / "figures/quick/seed-0/fig_beta.csv").read_text() == "20,0"


def test_a_disk_that_fills_up(fresh_toy, disk):
    meanwhile(fresh_toy, FILL)
    fails(fresh_toy, disk, "No space left on device")
    (disk / "filler").unlink()
    succeeds(fresh_toy, disk)


def test_a_result_that_does_not_fit(fresh_toy, disk):
    """Nothing has to be deleted: the space is free again after the failed run."""
    meanwhile(fresh_toy, "import lib.beta\nlib.beta.value = lambda epochs: '1' * 20_000_000")
    fails(fresh_toy, disk, "No space left on device")
    succeeds(fresh_toy, disk)
