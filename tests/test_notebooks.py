"""The notebooks: their form, and that each runs with the `smoke` profile and prints what is stored in it."""

import ast
import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import pytest
from toy import ROOT, jupyter_lab, notebook, share_speech

from lib.press import jobs, parameters

NAMES = parameters.notebooks()
CHECKED = "nbval-check-output"
MOST_CODE_LINES = 160
MOST_BYTES = 200_000
LONGEST_FUNCTION = 5  # lines


def cells(name: str, kind: str = "code") -> list[dict]:
    content = json.loads((ROOT / "notebooks" / f"{name}.ipynb").read_text(encoding="utf-8"))
    return [cell for cell in content["cells"] if cell["cell_type"] == kind]


def source(cell: dict) -> str:
    return "".join(cell["source"])


def tags(cell: dict) -> list[str]:
    return cell["metadata"].get("tags", [])


def is_checked(cell: dict) -> bool:
    return CHECKED in tags(cell) or "NBVAL_CHECK_OUTPUT" in source(cell)


# -- form ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
class TestForm:
    def test_every_profile_fits(self, name):
        for profile in parameters.profiles():
            assert parameters.resolve(name, profile)

    def test_kernel_is_python3(self, name):
        content = json.loads((ROOT / "notebooks" / f"{name}.ipynb").read_text(encoding="utf-8"))
        assert content["metadata"]["kernelspec"]["name"] == "python3"

    def test_nothing_of_papermill_is_left(self, name):
        text = (ROOT / "notebooks" / f"{name}.ipynb").read_text(encoding="utf-8")
        assert '"papermill"' not in text and "injected-parameters" not in text

    def test_no_absolute_path(self, name):
        text = (ROOT / "notebooks" / f"{name}.ipynb").read_text(encoding="utf-8")
        found = re.findall(r"(?<![\w.:/<])/(?:home|root|Users|tmp|work|mnt|opt|var|usr|content)/[^\s\"']*", text)
        found += re.findall(r"\b[A-Z]:\\\\[^\s\"']*", text)
        assert found == []

    def test_small(self, name):
        size = (ROOT / "notebooks" / f"{name}.ipynb").stat().st_size
        assert size < MOST_BYTES

    def test_thin(self, name):
        own = [cell for cell in cells(name) if "colab" not in tags(cell)]  # that cell is the same in all
        lines = [line for cell in own for line in source(cell).splitlines()]
        lines = [line for line in lines if line.strip() and not line.strip().startswith("#")]
        assert len(lines) <= MOST_CODE_LINES

    def test_what_it_takes_from_lib_is_there(self, name):
        """Also in cells that run only with certain data."""
        trees = [ast.parse(source(cell)) for cell in cells(name) if "colab" not in tags(cell)]
        modules = {}
        for node in (node for tree in trees for node in ast.walk(tree)):
            if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "lib":
                for alias in node.names:
                    try:
                        modules[alias.asname or alias.name] = import_module(f"{node.module}.{alias.name}")
                    except ModuleNotFoundError:
                        assert hasattr(import_module(node.module), alias.name), alias.name
        for node in (node for tree in trees for node in ast.walk(tree)):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules:
                assert hasattr(modules[node.value.id], node.attr), f"{node.value.id}.{node.attr}"

    def test_functions_live_in_lib(self, name):
        for cell in cells(name):
            for node in ast.walk(ast.parse(source(cell))):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                    assert node.end_lineno - node.lineno < LONGEST_FUNCTION, node.name

    def test_no_variable_is_named_like_a_default(self, name):
        """In an open notebook it would be mistaken for a parameter set in the wrong place."""
        trees = [ast.parse(source(cell)) for cell in cells(name) if "parameters" not in tags(cell)]
        names = {node.id for tree in trees for node in ast.walk(tree)
                 if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}  # fmt: skip
        assert not names & parameters.defaults(name).keys()

    def test_no_stored_error(self, name):
        kinds = [output["output_type"] for cell in cells(name) for output in cell["outputs"]]
        assert "error" not in kinds

    def test_some_output_is_checked(self, name):
        assert any(is_checked(cell) for cell in cells(name))

    def test_checked_cells_are_stored_with_their_counts(self, name):
        """nbval passes a checked cell without a count, whatever it prints. `make outputs` stores them."""
        for cell in filter(is_checked, cells(name)):
            assert cell["outputs"] and cell["execution_count"], source(cell)
            assert {CHECKED, "keep_output"} <= set(tags(cell)), "nbstripout would strip it"

    def test_other_cells_are_stripped(self, name):
        for cell in cells(name):
            if not is_checked(cell):
                assert not cell["outputs"] and cell["execution_count"] is None, source(cell)

    def test_cells_have_ids(self, name):
        ids = [cell["id"] for kind in ("code", "markdown") for cell in cells(name, kind)]
        assert len(set(ids)) == len(ids)


def test_every_notebook_begins_alike_on_colab():
    """The first code cell is the same in all; the parameters cell follows it."""
    first = [cells(name)[0] for name in NAMES]
    assert all(tags(cell) == ["colab"] for cell in first) and len({source(cell) for cell in first}) == 1
    assert all("parameters" in tags(cells(name)[1]) for name in NAMES)


def test_notebook_names_keep_the_order():
    assert all(re.fullmatch(r"\d\d_[a-z0-9_]+", name) for name in NAMES)


# -- execution -----------------------------------------------------------------------------


@pytest.fixture(scope="session")
def output(tmp_path_factory) -> Path:
    """One output folder for all notebooks, so that each finds the results that it reads."""
    folder = tmp_path_factory.mktemp("smoke")
    share_speech(folder)
    return folder


@pytest.fixture(scope="session")
def environment(output) -> dict[str, str]:
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    unset = {name: value for name, value in os.environ.items() if name not in ("RUN_FOLDER", "PARAMS")}
    return (
        unset
        | threads
        | {
            "OUTPUT_ROOT": str(output),
            "PYTHONPATH": str(ROOT),  # nbval runs a notebook in the folder of the prepared copy
            "PYTHONHASHSEED": "0",
            "JUPYTER_PREFER_ENV_PATH": "1",
        }
    )


def run_nbval(name: str, values: dict, output: Path, environment: dict) -> dict[str, int]:
    """Prepare the notebook with `values`, run it under nbval, and count its cells by outcome."""
    import papermill

    copy, report = output / f"{name}.ipynb", output / f"{name}.xml"
    papermill.execute_notebook(ROOT / "notebooks" / f"{name}.ipynb", copy, values, prepare_only=True)
    command = [
        sys.executable,
        "-m",
        "pytest",
        copy,
        "--nbval-lax",
        "--nbval-current-env",
        "-p",
        "no:cacheprovider",
    ]
    command += ["--nbval-cell-timeout", "300", "--rootdir", output, "-c", os.devnull, "--junit-xml", report]
    command += ["-q", "-W", "ignore"]
    result = subprocess.run(
        [str(word) for word in command], cwd=output, env=environment, capture_output=True, text=True
    )
    assert report.exists(), result.stdout + result.stderr
    suite = ElementTree.parse(report).getroot().find("testsuite")
    counts = {key: int(suite.get(key)) for key in ("tests", "failures", "errors", "skipped")}
    assert result.returncode == 0, result.stdout[-6000:]
    return counts


def smoke_jobs() -> list[jobs.Job]:
    """Return one run of each notebook, ordered after those that it reads."""
    return jobs.select("smoke", seeds="0") if "smoke" in parameters.profiles() else []


@pytest.mark.parametrize("job", smoke_jobs(), ids=lambda job: job.notebook)
def test_notebook_runs_and_prints_what_is_stored(job, output, environment):
    counts = run_nbval(job.notebook, parameters.for_cell(job.notebook, job.values), output, environment)
    assert counts["tests"] == len([cell for cell in cells(job.notebook) if source(cell).strip()]) + 1  # injected
    assert counts["failures"] == counts["errors"] == counts["skipped"] == 0
    assert (output / "figures" / f"{job.name}.json").exists()


# The fastest notebook; the tests of each study check that its training is reproducible, and `make release-check` makes
# all figures again and compares their data with what is stored.
TWICE = [job for job in smoke_jobs() if job.notebook == "05_emergency_cnn"]


@pytest.mark.parametrize("job", TWICE, ids=lambda job: job.notebook)
def test_a_second_run_from_nothing_gives_the_same_bytes(job, output, environment, tmp_path):
    first = json.loads((output / "figures" / f"{job.name}.json").read_text(encoding="utf-8"))
    share_speech(tmp_path)  # tests/emergency/synthesis synthesises speech again
    values = parameters.for_cell(job.notebook, job.values)
    run_nbval(job.notebook, values, tmp_path, environment | {"OUTPUT_ROOT": str(tmp_path)})
    second = json.loads((tmp_path / "figures" / f"{job.name}.json").read_text(encoding="utf-8"))
    assert second == first  # holds the sha256 of every PNG, PDF, CSV, NPZ and LaTeX file
    assert first["outputs"]


def test_every_notebook_is_in_the_smoke_profile():
    assert {job.notebook for job in smoke_jobs()} == set(NAMES)


def test_a_changed_output_would_be_noticed(output, environment, monkeypatch, tmp_path):
    """nbval can pass without comparing in several ways; this proves that it does compare."""
    content = json.loads(notebook(["epochs = 2", "print('loss', epochs)"]))
    printed = {"output_type": "stream", "name": "stdout", "text": ["loss 3\n"]}
    content["cells"][1] |= {"outputs": [printed], "execution_count": 2}
    content["cells"][1]["metadata"]["tags"] = [CHECKED]
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "toy.ipynb").write_text(json.dumps(content))
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    assert run_nbval("toy", {"epochs": 3}, tmp_path, environment)["tests"] == 3
    with pytest.raises(AssertionError, match="loss 4"):
        run_nbval("toy", {"epochs": 4}, tmp_path, environment)


# -- in JupyterLab, as a reader opens them ------------------------------------------------------


@pytest.fixture(scope="module")
def lab(browser, output, environment, tmp_path_factory):
    """A function that runs a notebook (its own cells or a study's, with `smoke` values) in JupyterLab: the page."""
    import papermill

    folder = tmp_path_factory.mktemp("lab")
    # The user's own JupyterLab is left alone. Cells out of view are rendered too, and no news is fetched.
    how = {"notebook-extension/tracker": {"windowingMode": "none"}}
    how |= {"apputils-extension/notification": {"fetchNews": "false"}}
    for name, settings in how.items():
        file = folder / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps(settings))
    folders = {"JUPYTER_CONFIG": "config", "JUPYTERLAB_SETTINGS": "settings", "JUPYTERLAB_WORKSPACES": "workspaces"}
    variables = environment | {f"{name}_DIR": str(folder / place) for name, place in folders.items()}
    command = [sys.executable, "-m", "jupyterlab", f"--ServerApp.root_dir={folder}"]
    pages = []

    def run_all(name: str, own: Sequence[str] = ()):
        file = f"{name}.ipynb"
        if own:
            (folder / file).write_text(notebook(own))
        else:
            values = next(parameters.for_cell(name, job.values) for job in smoke_jobs() if job.notebook == name)
            papermill.execute_notebook(ROOT / "notebooks" / file, folder / file, values, prepare_only=True)
        page = browser.new_page(viewport={"width": 1300, "height": 1000})
        pages.append(page)
        page.set_default_timeout(120_000)
        page.goto(f"http://127.0.0.1:{port}/lab/tree/{file}?token=t&reset")
        page.get_by_text("Python 3 (ipykernel) | Idle").first.wait_for()
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.get_by_text("Run All Cells", exact=True).click()
        # All cells get a star at once, and lose it when they are done or an earlier one has failed.
        prompts = page.locator(".jp-Notebook .jp-CodeCell .jp-InputPrompt")
        page.wait_for_function(
            """() => {
                const all = [...document.querySelectorAll(".jp-Notebook .jp-CodeCell .jp-InputPrompt")];
                return /\\d/.test(all[0].textContent) && !all.some(prompt => prompt.textContent.includes("*"));
            }"""
        )
        printed = page.locator(".jp-OutputArea-output").all_inner_texts()
        assert re.search(r"\d", prompts.last.inner_text()), printed[-1][-3000:]
        return page

    with jupyter_lab(*command, log=folder / "lab.log", env=variables) as port:
        yield run_all
        for page in pages:
            page.close()


def test_the_overview_shows_its_figures(lab):
    page = lab("00_overview")
    widths = page.locator(".jp-RenderedImage img").evaluate_all("images => images.map(image => image.naturalWidth)")
    assert len(widths) > 3 and min(widths) > 100


def test_a_slider_draws_the_figure_anew(lab):
    from playwright.sync_api import expect

    page = lab("slider", [
        "height = 1",
        "import ipywidgets\nfrom lib import plots\nfrom lib.interactive import explore",
        "def bar(height):\n    figure, axes = plots.subplots()\n    axes.bar([0], [height])\n    return figure",
        "explore(bar, height=ipywidgets.IntSlider(value=0, max=9));",
    ])  # fmt: skip
    handle = page.locator(".noUi-handle").first
    cell = page.locator(".jp-CodeCell", has=handle)
    picture = cell.locator(".jp-RenderedImage img")
    before = picture.get_attribute("src")
    handle.focus()
    page.keyboard.press("ArrowRight")
    expect(picture).not_to_have_attribute("src", before, timeout=60_000)
    assert cell.locator(".widget-readout").inner_text() == "1"


def test_a_recording_that_is_dropped_in_is_listened_to(lab, output, tmp_path):
    """With the recogniser saved by notebook 06, through the code of its cell."""
    import numpy as np
    import soundfile

    time_ = np.arange(3 * 16_000) / 16_000
    soundfile.write(tmp_path / "비명 (1).wav", 0.3 * np.sin(2 * np.pi * (700 + 50 * np.sin(6 * time_)) * time_), 16_000)
    (tmp_path / "letter.wav").write_text("no sound")
    (cell,) = (source(cell) for cell in cells("06_emergency_ensemble") if source(cell).startswith("drop_in("))
    page = lab("drop_in", [
        "location = ''",
        "from lib.emergency.recogniser.drop_in import drop_in\n"
        "from lib.emergency.recogniser.recogniser import Recogniser",
        f"recogniser = Recogniser.load({str(output / 'build/models/smoke/seed-0')!r})",
        cell,
    ])  # fmt: skip
    button, below = page.get_by_role("button", name="Recording"), page.locator(".widget-output").last
    for file, said in {"비명 (1).wav": "2 of 3", "letter.wav": "letter.wav"}.items():
        with page.expect_file_chooser() as chooser:
            button.click()
        chooser.value.set_files(tmp_path / file)
        below.get_by_text(said).first.wait_for()
    assert below.locator("img").count() == 0  # the second result replaced the first
