"""CONTRIBUTING.md's worked example, carried out in a copy of the repository."""

import json
import re
import shutil
import sys

import nbformat
import pandas as pd
import pytest
from toy import ROOT, clean_environment, run_command

GUIDE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)
NAME = "08_label_smoothing"


def python_blocks() -> list[tuple[str, str]]:
    """Return (name in the first line, code) of every Python block."""
    found = [code.split("\n", 1) for language, code in BLOCKS if language == "python"]
    return [(first.removeprefix("# "), code) for first, code in found]


@pytest.fixture(scope="module")
def followed(tmp_path_factory):
    """A copy of the repository after steps 1 to 6."""
    copy = tmp_path_factory.mktemp("clone")
    for name in ("lib", "notebooks", "profiles", "paper"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("Snakefile", "pyproject.toml", "requirements.lock", "README.md"):
        shutil.copy(ROOT / name, copy)
    (copy / "tests").mkdir()
    for name in ("conftest.py", "toy.py", "test_notebooks.py"):
        shutil.copy(ROOT / "tests" / name, copy / "tests")
    overview = nbformat.read(ROOT / "notebooks" / "00_overview.ipynb", 4)  # step 4 starts from a copy of it
    cells = [next(cell for cell in overview.cells if cell.cell_type == "code")]
    for name, code in python_blocks():
        if name.startswith("cell"):
            cell = nbformat.v4.new_code_cell(code.strip())
            cell.metadata["tags"] = name.removeprefix("cell").removeprefix(":").split()
            cells.append(cell)
        else:
            path = copy / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(code, encoding="utf-8")
    (copy / "lib" / "smoothing" / "__init__.py").touch()
    content = nbformat.v4.new_notebook(cells=cells, metadata=overview.metadata)
    nbformat.write(content, copy / "notebooks" / f"{NAME}.ipynb")
    (entry,) = [code for language, code in BLOCKS if language == "yaml"]
    profile = copy / "profiles" / "smoke.yaml"
    profile.write_text(profile.read_text(encoding="utf-8").rstrip("\n") + "\n" + entry, encoding="utf-8")
    (studies,) = [code for language, code in BLOCKS if language == "toml"]
    project = copy / "pyproject.toml"
    text, count = re.subn(r"^ *\"\(laplacian_gan\) \|.*\n", studies, project.read_text(encoding="utf-8"), flags=re.M)
    assert count == 1
    project.write_text(text, encoding="utf-8")
    (row,) = [code for language, code in BLOCKS if language == "markdown"]
    readme = copy / "README.md"
    text, count = re.subn(r"^(\| `07_results` \|.*\n)", rf"\1{row}", readme.read_text(encoding="utf-8"), flags=re.M)
    assert count == 1
    readme.write_text(text, encoding="utf-8")
    return copy


def run(copy, *command: str) -> str:
    environment = clean_environment() | {"PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1"}
    return run_command(sys.executable, *command, cwd=copy, env=environment)


def test_the_notebook_leaves_its_figure_and_table(followed):
    run(followed, "-m", "lib.press.workflow", "figures", "--profile", "smoke", "--only", NAME, "--cores", "1")
    folder = followed / "figures" / "smoke" / "seed-0"
    sidecar = json.loads((folder / "fig81_label_smoothing.json").read_text(encoding="utf-8"))
    assert sidecar["origin"].endswith("2 epochs; seed 0; profile smoke.")
    table = pd.read_csv(folder / "tab81_label_smoothing.csv")
    assert table.amount.tolist() == [0.0, 0.1, 0.3] and table.epoch.eq(2).all()


def test_the_notebook_has_the_form_of_all_once_its_outputs_are_stored(followed):
    run(followed, "-m", "lib.press.workflow", "outputs", "--profile", "smoke", "--only", NAME, "--cores", "1")
    form = f"(TestForm and {NAME}) or begins_alike or keep_the_order or in_the_smoke_profile"
    report = run(followed, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_notebooks.py", "-k", form)
    assert int(re.search(r"(\d+) passed", report)[1]) > 10, report  # otherwise -k selected too few


def test_the_readmes_row_fits_its_table(followed):
    rows = re.findall(r"^\| `\d\d_.*$", (followed / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert rows[-1].startswith(f"| `{NAME}` |") and {row.count("|") for row in rows} == {4}


def test_its_own_test_passes(followed):
    assert "1 passed" in run(followed, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/smoothing")


def test_style_and_imports_are_kept(followed):
    written = ("lib/smoothing", "tests/smoothing", f"notebooks/{NAME}.ipynb")
    run(followed, "-m", "ruff", "check", *written)
    run(followed, "-m", "ruff", "format", "--check", *written)
    assert "KEPT" in run(followed, "-c", "from importlinter.cli import lint_imports_command as lint; lint()")
