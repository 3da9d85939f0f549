"""The import contract would detect violations; that there are none is checked by `make lint`."""

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


STUDIES = ("laplacian_gan", "corregularization", "categorical", "emergency")
ROOMS = ("synthesis", "data", "cnn", "whisper", "recogniser")
PACKAGES = [
    "lib/__init__",
    *(f"lib/{name}/__init__" for name in (*STUDIES, "press")),
    *(f"lib/emergency/{name}/__init__" for name in ROOMS),
]


@pytest.fixture
def rooms(tmp_path):
    """The rooms, empty but for a study that imports what is shared."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for name in (*PACKAGES, "lib/training", "lib/emergency/classes", "lib/emergency/figures"):
        (tmp_path / f"{name}.py").parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / f"{name}.py").touch()
    (tmp_path / "lib/emergency/features.py").write_text("import lib.training\nfrom lib import emergency\n")
    return tmp_path


def test_a_study_may_import_shared_modules(rooms):
    result = lint(rooms)
    assert result.returncode == 0 and "3 kept, 0 broken" in result.stdout, result.stdout


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("lib/laplacian_gan/models.py", "from lib.emergency.features import x"),
        ("lib/laplacian_gan/models.py", "def late():\n    from lib.emergency import cnn"),
        ("lib/training.py", "import lib.emergency"),
        ("lib/unlisted.py", ""),
        ("lib/press/run.py", "import lib.emergency"),
        ("lib/training.py", "import lib.press"),
        ("lib/categorical/losses.py", "import lib.press"),
        ("lib/emergency/cnn/network.py", "import lib.emergency.whisper"),
        ("lib/emergency/unlisted.py", ""),
    ],
    ids=[
        "study to study",
        "inside a function",
        "shared to study",
        "a module of no room",
        "press to study",
        "shared to press",
        "study to press",
        "upwards within study 4",
        "a module of no room in study 4",
    ],
)
def test_breaches_are_found(rooms, module, source):
    (rooms / module).write_text(source)
    result = lint(rooms)
    assert result.returncode == 1 and "BROKEN" in result.stdout, result.stdout
