"""The contract on imports is not only kept (`make lint` sees to that) but would notice a breach."""

import shutil
import subprocess
import sys

import pytest
from toy import ROOT

LINT = [
    sys.executable,
    "-c",
    "from importlinter.cli import lint_imports_command as lint; lint()",
    "--no-cache",
]


def lint(folder) -> subprocess.CompletedProcess:
    return subprocess.run(LINT, cwd=folder, capture_output=True, text=True, env={"PYTHONPATH": str(folder)})


@pytest.fixture
def rooms(tmp_path):
    """Two studies and a shared module."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for name in ("lib/__init__", "lib/emergency/__init__", "lib/laplacian_gan/__init__", "lib/training"):
        (tmp_path / f"{name}.py").parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / f"{name}.py").touch()
    (tmp_path / "lib/emergency/cnn.py").write_text("import lib.training\nfrom lib import emergency\n")
    return tmp_path


def test_a_study_may_import_shared_modules(rooms):
    result = lint(rooms)
    assert result.returncode == 0 and "1 kept, 0 broken" in result.stdout, result.stdout


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("lib/laplacian_gan/models.py", "from lib.emergency.cnn import x"),
        ("lib/laplacian_gan/models.py", "def late():\n    from lib.emergency import cnn"),
        ("lib/training.py", "import lib.emergency"),
        ("lib/unlisted.py", ""),
    ],
    ids=["study to study", "inside a function", "shared to study", "a module of no room"],
)
def test_breaches_are_found(rooms, module, source):
    (rooms / module).write_text(source)
    result = lint(rooms)
    assert result.returncode == 1 and "BROKEN" in result.stdout, result.stdout
