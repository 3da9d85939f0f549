"""What a command needs of the machine."""

import getpass
import os

import pytest

from lib import paths
from lib.press import jobs, workflow


@pytest.fixture
def output(tmp_path, monkeypatch):
    for name in ("HOME", "USER", "LOGNAME", "LNAME", "USERNAME"):  # to be put back
        monkeypatch.setenv(name, os.environ.get(name, ""))
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("OUTPUT_ROOT", str(tmp_path / "out"))
    return tmp_path / "out"


def test_a_home_that_can_be_written_to_stays(output, tmp_path):
    jobs.ready(paths.build())
    assert os.environ["HOME"] == str(tmp_path) and paths.build().is_dir() and not (paths.build() / "home").exists()


@pytest.mark.parametrize("home", ["/proc", "/nowhere", None])
def test_without_a_home_and_a_name(output, monkeypatch, home):
    """As a container's user that no line of /etc/passwd names."""
    if home is None:
        monkeypatch.delenv("HOME")
        monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # what it does for such a user
    else:
        monkeypatch.setenv("HOME", home)
    writable = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: path not in ("/proc", "~") and writable(path, mode))
    monkeypatch.setattr("pwd.getpwuid", lambda number: (_ for _ in ()).throw(KeyError("uid not found")))
    jobs.ready(paths.build())
    assert os.environ["HOME"] == str(paths.build() / "home") and os.path.isdir(os.environ["HOME"])
    assert getpass.getuser()


@pytest.mark.parametrize("command", [
    lambda: workflow.main(["figures", "--profile", "smoke", "--only", "03_corregularization"]),
    lambda: workflow.main(["paper", "--profile", "quick"]), lambda: workflow.main(["site", "--profile", "quick"]),
])  # fmt: skip
@pytest.mark.parametrize("fault", ["a file", "no permission"])
def test_output_that_cannot_be_written_is_one_sentence(output, monkeypatch, capsys, command, fault):
    if fault == "a file":
        output.write_text("in the way")
    else:
        monkeypatch.setattr(os, "access", lambda path, mode: not str(path).startswith(str(output)))
    assert command() == 2
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1 and told[0].startswith(f"Error: {output}/build") and "set OUTPUT_ROOT to a folder" in told[0]
