"""Parameters outside the parameters cell are found, checked and passed on like those in it."""

import json

import pytest
from toy import notebook

from lib import paths
from lib.press import parameters
from lib.press.parameters import ParameterError, defaults, for_cell, of_globals, resolve

MOST_IN_A_CELL = 15


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A notebook with two parameters in its cell and two in lib, and a profile that sets one of each."""
    for name in ("ROOT", "NOTEBOOKS", "PROFILES"):
        monkeypatch.setattr(paths, name, tmp_path)
    monkeypatch.setattr(parameters, "_load_profile", parameters._load_profile.__wrapped__)
    cells = ["seed = 0\nepochs = 2\nmore = {}", "from lib.study import defaults, losses"]
    (tmp_path / "03_study.ipynb").write_text(notebook(cells))
    (tmp_path / "lib" / "study").mkdir(parents=True)
    (tmp_path / "lib" / "study" / "defaults.py").write_text(
        '"""Defaults."""\n\nrate = 0.1  # of learning\nsizes = [1]\n'
    )
    (tmp_path / "public.yaml").write_text("notebooks: {03_study: {parameters: {epochs: 5, rate: 1}}}")
    return tmp_path


def test_cell_and_lib_are_one_set_of_names(repository):
    assert defaults("03_study") == {"seed": 0, "epochs": 2, "rate": 0.1, "sizes": [1]}
    assert resolve("03_study", "public", {"sizes": [3]}) == {"seed": 0, "epochs": 5, "rate": 1.0, "sizes": [3]}


def test_papermill_gets_them_as_one_parameter_and_the_run_reads_them_back(repository):
    values = resolve("03_study", "public")
    injected = for_cell("03_study", values)
    assert injected == {"seed": 0, "epochs": 5, "more": {"rate": 1.0, "sizes": [1]}}
    assert of_globals("03_study", injected | {"unrelated": 1}) == values


def test_in_an_opened_notebook_more_goes_over_the_defaults(repository):
    assert of_globals("03_study", {"seed": 1, "epochs": 2, "more": {"rate": 2}})["rate"] == 2.0
    assert of_globals("03_study", {"seed": 1, "epochs": 2, "more": {}})["rate"] == 0.1
    with pytest.raises(ParameterError, match="The parameters cell sets 'epochs' of 03_study to -2"):
        of_globals("03_study", {"seed": 1, "epochs": -2, "more": {}})


@pytest.mark.parametrize(
    ("namespace", "message"),
    [
        ({"seed": 0, "epochs": 2, "more": {"raet": 1}}, "'raet'.*did you mean 'rate'"),
        ({"seed": 0, "epochs": 2, "more": {"epochs": 1}}, "'epochs' of 03_study, which has no such parameter"),
        ({"seed": 0, "epochs": 2, "more": {"rate": "fast"}}, "'rate' of 03_study to 'fast'.*valid number"),
        ({"seed": 0, "more": {}}, r"\['epochs'\] but no values"),
        ({"seed": 0, "epochs": 2, "rate": 3.0}, r"03_study takes rate from .* `more` alone: more = \{'rate': 3.0\}"),
    ],
)
def test_what_is_not_known_is_an_error(repository, namespace, message):
    with pytest.raises(ParameterError, match=message):
        of_globals("03_study", namespace)


def test_a_name_in_both_places_is_an_error(repository):
    (repository / "lib" / "study" / "defaults.py").write_text("epochs = 3\n")
    with pytest.raises(ParameterError, match=r"\['epochs'\] both in"):
        defaults("03_study")


def test_more_without_a_module_is_an_error(repository):
    (repository / "03_study.ipynb").write_text(notebook(["seed = 0\nmore = {}", "import numpy"]))
    with pytest.raises(ParameterError, match="no line `from lib"):
        defaults("03_study")


@pytest.mark.parametrize("name", parameters.notebooks())
def test_a_reader_finds_few_parameters_in_a_cell_and_an_explanation_for_every_other(name):
    cells = json.loads((paths.NOTEBOOKS / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]
    (cell,) = ("".join(cell["source"]) for cell in cells if "parameters" in cell["metadata"].get("tags", []))
    own = [line for line in cell.splitlines() if " = " in line.split("#")[0]]
    assert len(own) <= MOST_IN_A_CELL
    for path in {
        path for path in (paths.ROOT / "lib").rglob("defaults.py") if str(path.relative_to(paths.ROOT)) in cell
    }:
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if " = " in line.split("#")[0]]
        assert lines and all("  # " in line for line in lines)
