"""`make figures` where the disk is full, read-only or gone: one error that says what to do, and no part of a result."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from toy import Repository

from lib.press import jobs
from lib.press.parameters import ParameterError

RECORD, COPY = "figures/quick/seed-0/02_beta.json", "build/executed/quick/seed-0/02_beta.ipynb"
FILL = "subprocess.run('cat /dev/zero > filler', shell=True, cwd=ROOT, stderr=subprocess.DEVNULL)"


@pytest.fixture
def output(fresh_toy, tmp_path) -> Path:
    """Where the toy writes."""
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
    """A small one, in memory, on which the output lies."""
    output.mkdir()
    mount("-t", "tmpfs", "-o", "size=8m", "tmpfs", output)
    yield output
    subprocess.run(["umount", "-l", output], capture_output=True)


def meanwhile(toy: Repository, code: str) -> None:
    """Let notebook 02 do this before it saves."""
    toy.replace("notebooks/02_beta.ipynb", "time.sleep(wait)", "import lib.trouble")
    toy.write("lib/trouble.py", f"import os, shutil, subprocess\nROOT = os.environ['OUTPUT_ROOT']\n{code}\n")


def fails(toy: Repository, output: Path, what: str, todo: str = "OUTPUT_ROOT") -> None:
    """With one error, which says what is wrong and what to do, and without a result."""
    told = toy.make("figures", "ONLY=02_beta", status=1)
    assert what in told and todo in told, told
    assert "Traceback" not in told and ".py" not in told, told
    assert not (output / RECORD).exists() and not (output / COPY).exists()


def succeeds(toy: Repository, output: Path) -> None:
    toy.write("lib/trouble.py", "")
    told = toy.make("figures", "ONLY=02_beta")
    assert "Done: " in told and (output / RECORD).exists() and (output / COPY).exists()
    assert (output / "figures/quick/seed-0/fig_beta.csv").read_text() == "20,0"


def test_a_disk_that_is_full(fresh_toy, disk):
    subprocess.run(["sh", "-c", "cat /dev/zero > filler"], cwd=disk, stderr=subprocess.DEVNULL)
    fails(fresh_toy, disk, f"Error: {disk}/build cannot be written to (No space left on device). Free some space")
    (disk / "filler").unlink()
    succeeds(fresh_toy, disk)


def test_a_disk_with_little_left(disk, monkeypatch):
    mount("-o", "remount,size=512k", disk)
    monkeypatch.setenv("OUTPUT_ROOT", str(disk))
    with pytest.raises(ParameterError, match=r"build cannot be written to \(No space left on device\)"):
        jobs.ready(disk / "build")
    assert list((disk / "build").iterdir()) == []


def test_a_disk_that_fills_up(fresh_toy, disk):
    meanwhile(fresh_toy, FILL)
    fails(fresh_toy, disk, "No space left on device")
    (disk / "filler").unlink()
    succeeds(fresh_toy, disk)


def test_a_result_that_does_not_fit(fresh_toy, disk):
    """There is space again when the run has failed."""
    meanwhile(fresh_toy, "import lib.beta\nlib.beta.value = lambda epochs: '1' * 20_000_000")
    fails(fresh_toy, disk, "No space left on device")
    succeeds(fresh_toy, disk)


def test_a_disk_that_is_read_only(fresh_toy, disk):
    mount("-o", "remount,ro", disk)
    fails(fresh_toy, disk, f"Error: {disk}/build cannot be written to (Read-only file system)")
    mount("-o", "remount,rw", disk)
    succeeds(fresh_toy, disk)


def test_results_that_become_read_only(fresh_toy, disk):
    meanwhile(fresh_toy, "subprocess.run(['mount', '-t', 'tmpfs', '-o', 'ro', 'tmpfs', ROOT + '/figures'], check=True)")
    try:
        fails(fresh_toy, disk, "Read-only file system")
    finally:
        subprocess.run(["umount", "-l", disk / "figures"])
    succeeds(fresh_toy, disk)


def test_an_output_that_is_unmounted(fresh_toy, disk):
    meanwhile(fresh_toy, "subprocess.run(['umount', '-l', ROOT], check=True)")
    fails(fresh_toy, disk, f"The output folder {disk} disappeared")


def test_an_output_that_is_removed(fresh_toy, output):
    meanwhile(fresh_toy, "shutil.rmtree(ROOT)")
    fails(fresh_toy, output, f"The output folder {output} disappeared")
    succeeds(fresh_toy, output)


def test_data_that_are_removed(fresh_toy, output, tmp_path):
    """Before they are looked at for what the results were made from."""
    fresh_toy.environment["DATA_ROOT"] = str(tmp_path)
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").touch()
    fresh_toy.replace("notebooks/02_beta.ipynb", "wait = 0.0", 'dataset = \\"folder:pictures\\"')
    meanwhile(fresh_toy, "shutil.rmtree(os.environ['DATA_ROOT'] + '/pictures')")
    fails(fresh_toy, output, "data folder:pictures: no longer there", "DATA_ROOT")
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").touch()
    succeeds(fresh_toy, output)
