"""Strict parameters: what is valid, what is not, and what the message says."""

import shlex
import subprocess
import sys

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from toy import notebook

from lib import paths
from lib.press import parameters
from lib.press.parameters import ParameterError, defaults, parse_assignments, resolve

CELL = """
'''What to run.'''
seed = 0
profile = "quick"
epochs = 2  # passes over the data
rate = 0.1
augment = True
dataset = "shapes"
groups = [1, 2]
weights = [0, 0.5]
limit = None
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Two notebooks and an empty profile; returns a function that writes the profile."""
    monkeypatch.setattr(paths, "NOTEBOOKS", tmp_path)
    monkeypatch.setattr(paths, "PROFILES", tmp_path)
    monkeypatch.setattr(parameters, "_load_profile", parameters._load_profile.__wrapped__)
    (tmp_path / "03_study.ipynb").write_text(notebook([CELL, "double = 2 * epochs"]))
    (tmp_path / "07_results.ipynb").write_text(notebook(["seeds = [0]"]))

    def write(content):
        (tmp_path / "public.yaml").write_text(
            content if isinstance(content, str) else yaml.safe_dump(content), errors="surrogateescape"
        )

    write("")
    return write


def profile(**values) -> dict:
    return {"notebooks": {"03_study": {"parameters": values}}}


def test_defaults_are_the_literals_of_the_tagged_cell(folder):
    values = defaults("03_study")
    assert list(values)[:3] == ["seed", "profile", "epochs"]
    assert values["weights"] == [0, 0.5] and values["limit"] is None and "double" not in values


def test_the_profile_goes_over_the_cell_and_the_command_line_over_both(folder):
    folder(profile(epochs=5, rate=1, dataset="cifar10"))
    values = resolve("03_study", "public", {"epochs": 7})
    assert (values["epochs"], values["dataset"], values["profile"]) == (7, "cifar10", "public")
    assert values["rate"] == 1.0 and isinstance(values["rate"], float)


def test_what_a_notebook_reads_is_said_once_in_the_profile_quick(folder, tmp_path):
    (tmp_path / "quick.yaml").write_text("notebooks: {07_results: {reads: [03_study]}}")
    for content, reads in (("", ["03_study"]), ("notebooks: {07_results: {parameters: {}}}", ["03_study"]),
                           ("notebooks: {07_results: {reads: []}}", []),
                           ("notebooks: {03_study: {skip: no time}}", [])):  # fmt: skip
        folder(content)
        assert parameters.profile_entry("07_results", "public").reads == reads
    assert parameters.profile_entry("03_study", "public").reads == []


def test_a_seed_that_is_named_twice_counts_once(folder):
    folder("seeds: [0, 1, 1]")
    assert parameters.load_profile("public").seeds == [0, 1]


def test_a_notebook_without_the_parameter_profile_is_given_none(folder):
    assert resolve("07_results", "public") == {"seeds": [0]}


@pytest.mark.parametrize(
    "value",
    [{"groups": [4]}, {"groups": []}, {"weights": [1, 2]}, {"limit": 3}, {"limit": "x"}, {"augment": False}],
    ids=str,
)
def test_values_of_the_same_type_are_taken(folder, value):
    assert resolve("03_study", "public", value) | value == resolve("03_study", "public", value)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("epochs", True, "to True; expected one such as 2: Input should be a valid integer"),
        ("epochs", 3.0, "valid integer"),
        ("epochs", "3", "valid integer"),
        ("epochs", None, "valid integer"),
        (
            "rate",
            "1e-3",
            "to '1e-3'; expected one such as 0.1: Input should be a valid number; YAML reads 1e-3 as",
        ),
        ("rate", True, "valid number"),
        ("augment", 1, "to 1; expected one such as True: Input should be a valid boolean"),
        ("dataset", 3, "expected one such as 'shapes'"),
        ("dataset", False, "Input should be a valid string; YAML reads yes and no as true and false: quote them"),
        ("groups", 3, "expected one such as [1, 2]: Input should be a valid list"),
        ("groups", [1, 2.5], "valid integer"),
        ("groups", [True], "valid integer"),
        ("weights", ["a"], "valid number"),
        ("epochs", -1, "to -1; expected one such as 2: Input should be greater than or equal to 0"),
        ("rate", float("nan"), "finite number"),
        ("groups", [4, -2], "greater than or equal to 0"),
    ],
)
def test_a_wrong_type_is_an_error(folder, name, value, expected):
    folder(profile(**{name: value}))
    with pytest.raises(ParameterError) as error:
        resolve("03_study", "public")
    assert f"Profile 'public' sets '{name}' of 03_study to" in str(error.value)
    assert expected in str(error.value)
    folder("")
    with pytest.raises(ParameterError, match=f"The command line sets '{name}'"):
        resolve("03_study", "public", {name: value})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (profile(epoch=1), "sets 'epoch' of 03_study, which has no such parameter; did you mean 'epochs'"),
        (profile(seed=1), "SEEDS sets it"),
        ({"notebooks": {"03_studdy": {}}}, "Unknown notebook '03_studdy' in profile 'public'; did you mean '03_study'"),
        ({"notebook": {}}, "notebook: Extra inputs are not permitted"),
        (
            {"notebooks": {"03_study": {"parameter": {}}}},
            "03_study.parameter: Extra inputs are not permitted",
        ),
        ({"notebooks": {"07_results": {"reads": ["03"]}}}, "Unknown notebook '03' in profile 'public'"),
        ({"notebooks": {"07_results": {"reads": "03_study"}}}, "reads: Input should be a valid list"),
        (
            {"notebooks": {"03_study": {"skip": "no time"}, "07_results": {"reads": ["03_study"]}}},
            "07_results reads 03_study in profile 'public', which skips it: take it out of `reads`",
        ),
        ({"seeds": 3}, "seeds: Input should be a valid list"),
        ({"seeds": [True]}, "seeds.0: Input should be a valid integer"),
        ("a: [", "is not valid: while parsing"),
        ("- a", "valid dictionary"),
        (profile(rate=float("inf")), "finite number"),
        (profile() | {"seeds": [2**32]}, "seeds.0: Input should be less than"),
        ({"notebooks": {"07_results": {"reads": [["03_study"]]}}}, "reads.0: Input should be a valid string"),
        ({"notebooks": {"03_study": {"parameters": {1: 2}}}}, "Input should be a valid string"),
        ("notebooks: {03_study: {parameters: {dataset: 2026-13-01}}}", "is not valid: month must be in 1..12"),
        ("notebooks:\n  03_study: {parameters: {epochs: 3}}\n  03_study: {}", "'03_study' twice"),
        ("# caf\udce9", "is not valid: "),
    ],
)
def test_a_wrong_profile_is_an_error(folder, content, message):
    folder(content)
    with pytest.raises(ParameterError) as error:
        resolve("03_study", "public")
    assert message in str(error.value)


def test_backslashes_are_themselves_and_names_stand_once():
    assert parse_assignments(r"dataset=folder:C:\new")["dataset"] == r"folder:C:\new"
    with pytest.raises(ParameterError, match="sets 'epochs' twice"):
        parse_assignments("epochs=3 epochs=4")


def test_an_empty_profile_changes_nothing(folder):
    folder("# nothing yet\n")
    assert resolve("03_study", "public")["epochs"] == 2


def test_unknown_names_are_told_with_the_nearest(folder):
    with pytest.raises(ParameterError, match="'03_stdy'; did you mean '03_study'"):
        resolve("03_stdy", "public")
    with pytest.raises(ParameterError, match="'publc'; did you mean 'public'"):
        resolve("03_study", "publc")
    with pytest.raises(ParameterError, match="valid: public"):
        resolve("03_study", "xyz")


@pytest.mark.parametrize(
    "line", ["double = 2 * epochs", "epochs = width = 3", "import torch", "print(3)", "a.b = 3", "size: int"]
)
def test_the_cell_may_only_hold_literals(folder, line):
    (paths.NOTEBOOKS / "03_study.ipynb").write_text(notebook([f"epochs = 2\n{line}"]))
    with pytest.raises(ParameterError, match="may only hold `name = literal`"):
        defaults("03_study")


@pytest.mark.parametrize("content", ["", "<<<<<<< HEAD\n{}", "[]", "{}", "\udcff"])
def test_a_damaged_notebook_is_named(folder, content):
    (paths.NOTEBOOKS / "03_study.ipynb").write_text(content, errors="surrogateescape")
    with pytest.raises(ParameterError, match=r"03_study\.ipynb is not a valid notebook"):
        defaults("03_study")


def test_a_cell_that_python_cannot_read_is_named(folder):
    (paths.NOTEBOOKS / "03_study.ipynb").write_text(notebook(["a = = 3"]))
    with pytest.raises(ParameterError, match=r"cell of 03_study\.ipynb may only hold.*invalid syntax"):
        defaults("03_study")


def test_there_is_exactly_one_parameters_cell(folder):
    content = notebook(["a = 1", "b = 2"])
    (paths.NOTEBOOKS / "03_study.ipynb").write_text(
        content.replace('"metadata": {},', '"metadata": {"tags": ["parameters"]},')
    )
    with pytest.raises(ParameterError, match="has 2 cells tagged 'parameters'"):
        defaults("03_study")
    (paths.NOTEBOOKS / "03_study.ipynb").write_text(content.replace('"parameters"', '"other"'))
    with pytest.raises(ParameterError, match="has 0 cells"):
        defaults("03_study")


def test_assignments_are_literals_or_strings():
    text = "epochs=3 dataset=folder:/x/y groups=[1,2] rate=1e-3 augment=false"
    text += """ name='a b' digits="'3'" none=None"""
    assert parse_assignments(text) == {
        "epochs": 3,
        "dataset": "folder:/x/y",
        "groups": [1, 2],
        "rate": 0.001,
        "augment": False,
        "name": "a b",
        "digits": "3",
        "none": None,
    }
    assert isinstance(parse_assignments("rate=1e-3")["rate"], float)
    assert parse_assignments("  ") == {}
    assert parse_assignments("path=a=b") == {"path": "a=b"}
    words = {"shown": ["fire", "gas accident", 3, True]}
    assert parse_assignments("shown=[fire,'gas accident',3,true]") == words
    assert parse_assignments("""shown="['fire', 'gas accident', 3, True]" """) == words
    assert parse_assignments("shown=['fire']") == {"shown": ["fire"]}
    assert parse_assignments("shown={[]:1}") == {"shown": "{[]:1}"}
    for nested in ("[1,[2,x]]", "[" * 3000 + "]" * 3000):
        assert parse_assignments(f"shown={nested}") == {"shown": nested}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epochs", "which is not of the form name=value"),
        ("epochs=1, rate=2", "hold 'epochs=1,': spaces separate them, without commas"),
        ("epochs=3 =4", "not of the form"),
        ("groups=[1, 2]", "write lists without spaces"),
        ("name='a", "No closing quotation"),
        ("seed=3", "use SEEDS=3"),
        ("profile=x", "use PROFILE=x"),
    ],
)
def test_unreadable_assignments_are_errors(text, message):
    with pytest.raises(ParameterError) as error:
        parse_assignments(text)
    assert message in str(error.value)


def test_text_for_a_string_is_taken_as_it_is():
    known = {"dataset": "shapes", "epochs": 2}
    assert parse_assignments("dataset=3 epochs=3", known) == {"dataset": "3", "epochs": 3}
    assert parse_assignments("""dataset="folder:/it's #1" """, known)["dataset"] == "folder:/it's #1"


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
def test_any_text_arrives_as_it_is(text):
    assert parse_assignments(f"dataset={shlex.quote(text)} epochs=3", {"dataset": ""}) == {"dataset": text, "epochs": 3}


@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))))
def test_any_list_of_words_arrives_as_it_is(words):
    assert parse_assignments(f"shown={shlex.quote(repr(words))}", {"shown": []}) == {"shown": words}


def test_importing_is_quick():
    """`make figures` with nothing to do imports this; torch alone would take seconds."""
    code = "import sys, lib.press.workflow; print({'torch', 'numpy', 'papermill'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], cwd=paths.ROOT, text=True).strip() == "set()"
