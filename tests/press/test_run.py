"""What a run saves: complete files with their provenance, the same bytes for the same inputs."""

import errno
import hashlib
import json
import math
import os
import random
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from toy import ROOT, point_at

from lib import paths, plots
from lib.press import run as module
from lib.press.over_seeds import Result, over_seeds
from lib.press.parameters import ParameterError
from lib.press.run import Run, RunError

NAME = "05_study"
CELL = 'profile = "quick"\nseed = 0\ndevice = "cpu"\nepochs = 2\nrate = 0.1\ngroups = [1, 2]\nlabel = "한글"'
FRAME = pd.DataFrame({"epoch": [0, 1, 2], "loss": [1 / 3, 0.1 + 0.2, math.nan], "arm": ["None", "NA", "Gram"]})
ARRAYS = {"conv1": np.arange(6, dtype=np.float32).reshape(2, 3), "epoch 0": np.eye(2)}


PUBLISHED = plots.STYLE["pdf.fonttype"]


@dataclass(frozen=True)
class Data:
    """The attributes of a data set that `use` reads."""

    name: str = "toys"
    split: str = "train"
    count: int = 1200
    checksum: str = "ab12"
    unit: str = "images"

    def __len__(self):
        return self.count


@pytest.fixture(autouse=True)
def repository(tmp_path, monkeypatch):
    """A repository of one study and one notebook over all seeds; global state is restored afterwards."""
    point_at(tmp_path, monkeypatch, {NAME: CELL, "07_page": 'profile = "quick"\nseeds = [0, 1]'})
    for profile in ("quick", "public"):
        epochs = {"quick": 2, "public": 50}[profile]
        (tmp_path / "profiles" / f"{profile}.yaml").write_text(
            f"notebooks: {{{NAME}: {{parameters: {{epochs: {epochs}}}}}}}"
        )
    deterministic, warn = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    filled = torch.utils.deterministic.fill_uninitialized_memory
    with mpl.rc_context():
        yield tmp_path
    torch.use_deterministic_algorithms(deterministic, warn_only=warn)
    torch.utils.deterministic.fill_uninitialized_memory = filled


def values(**changes) -> dict:
    found = {"profile": "quick", "seed": 0, "device": "cpu", "epochs": 2, "rate": 0.1, "groups": [1, 2]}
    return found | {"label": "한글", "Run": Run} | changes


def study(*data: Data, **changes) -> Run:
    run = Run(NAME, values(**changes))
    for one in data:
        run.use(one)
    return run


def page(**changes) -> Run:
    return Run("07_page", {"profile": "quick", "seeds": [0, 1]} | changes)


def drawing(top: float = 2.0) -> Figure:
    figure = Figure(figsize=(2, 1.5))
    figure.subplots().plot([0, 1, top], label="arm")
    figure.axes[0].legend()
    return figure


def save_all(run: Run) -> dict[str, bytes]:
    """Save two figures and a table; return the bytes of all files but the sidecars, which hold times."""
    run.save_figure("fig1_curves", drawing(), FRAME, caption="Curves.")
    run.save_figure("fig2_filters", drawing(3), ARRAYS, caption="Filters.")
    run.save_table("tab1_accuracy", FRAME, caption="Accuracy.")
    run.finish()
    sidecars = {"fig1_curves.json", "fig2_filters.json", "tab1_accuracy.json"}
    return {path.name: path.read_bytes() for path in run.folder.iterdir() if path.name not in sidecars}


def sidecar(run: Run, name: str) -> dict:
    return json.loads((run.folder / f"{name}.json").read_text(encoding="utf-8"), parse_constant=refuse_constant)


def refuse_constant(name: str):
    raise AssertionError(f"{name} is no JSON: Typst could not read it")


def names(run: Run) -> set[str]:
    """All files, hidden ones too."""
    return {path.name for path in run.folder.iterdir()} if run.folder.exists() else set()


# -- what is saved -------------------------------------------------------------------------


def test_a_figure_is_saved_as_png_pdf_its_data_and_a_sidecar():
    run = study()
    run.save_figure("fig1_curves", drawing(), FRAME, caption="Curves.")
    run.save_figure("fig2_filters", drawing(), ARRAYS, caption="Filters.")
    assert names(run) == {f"fig1_curves.{kind}" for kind in ("png", "pdf", "csv", "json")} | {
        f"fig2_filters.{kind}" for kind in ("png", "pdf", "npz", "json")
    }
    assert Image.open(run.folder / "fig1_curves.png").size > (200, 150)
    assert (run.folder / "fig1_curves.pdf").read_bytes().startswith(b"%PDF")
    saved = np.load(run.folder / "fig2_filters.npz")
    assert set(saved) == set(ARRAYS)
    for name, array in ARRAYS.items():
        assert saved[name].dtype == array.dtype and np.array_equal(saved[name], array)


def test_the_sidecar_of_a_figure_has_all_provenance():
    run = study(Data(), Data(split="test", count=300, checksum="cd34"), seed=3)
    run.save_figure("fig1_curves", drawing(), FRAME, caption="Curves.", note="2 epochs")
    found = sidecar(run, "fig1_curves")
    provenance = found.pop("provenance")
    assert found == {
        "id": "fig1_curves",
        "kind": "figure",
        "caption": "Curves.",
        "origin": "toys, 1,200 train + 300 test images; 2 epochs; seed 3; profile quick.",
        "note": "2 epochs",
    }
    assert provenance["notebook"] == NAME and provenance["profile"] == "quick" and provenance["seed"] == 3
    assert provenance["parameters"] == {name: value for name, value in values(seed=3).items() if name != "Run"}
    assert provenance["data"] == [
        {"name": "toys", "split": "train", "count": 1200, "unit": "images", "checksum": "ab12"},
        {"name": "toys", "split": "test", "count": 300, "unit": "images", "checksum": "cd34"},
    ]
    assert provenance["versions"]["torch"].partition("+")[0] == torch.__version__.partition("+")[0]
    assert {"python", "torch", "torchvision", "accelerate", "numpy", "pandas", "matplotlib"} <= set(
        provenance["versions"]
    )
    assert re.match(r"[0-9a-f]{40}|unknown", provenance["commit"])
    assert provenance["device"] == f"CPU ({os.cpu_count()} cores)" and provenance["threads"] >= 1
    assert provenance["seconds"] >= 0 and provenance["made"].endswith("+00:00")
    assert provenance["inputs"] == run.inputs
    assert provenance["files"] == {
        f"fig1_curves.{kind}": hashlib.sha256((run.folder / f"fig1_curves.{kind}").read_bytes()).hexdigest()
        for kind in ("png", "pdf", "csv")
    }


def test_a_run_over_seeds_names_them_all():
    run = page()
    run.save_table("tab1_accuracy", FRAME, caption="Accuracy.")
    assert run.folder == paths.figures() / "quick"
    assert sidecar(run, "tab1_accuracy")["provenance"]["seed"] == [0, 1]
    assert run.origin() == "no data set; seeds 0, 1; profile quick."


def test_a_figure_that_shows_no_data_set_names_none():
    run = study(Data())
    run.save_figure("fig1_curves", drawing(), FRAME, caption="Curves.", without_data=True)
    found = sidecar(run, "fig1_curves")
    assert found["origin"].startswith("no data set;") and found["provenance"]["data"] == []


def test_origin_names_data_counts_note_seed_and_profile():
    run = study(Data(), Data(), Data(name="others", count=7), seed=4)  # a set used twice is named once
    assert (
        run.origin("3 epochs") == "toys, 1,200 train images; others, 7 train images; 3 epochs; seed 4; profile quick."
    )
    assert study(seed=4, epochs=9).origin() == "no data set; seed 4; profile quick with other settings."


def test_the_figure_itself_says_its_origin_and_is_left_as_it_was():
    run, figure = study(Data()), drawing()
    run.save_figure("fig1_curves", figure, FRAME, caption="Curves.")
    run.save_figure("fig2_curves", figure, FRAME, caption="Curves.", note="a note\nof two lines")
    assert figure.texts == []
    one, two = (Image.open(run.folder / f"fig{number}_curves.png").height for number in (1, 2))
    assert two > one  # the stamp is part of the picture


@pytest.mark.parametrize("note", ["$x^{broken", "50 % of $a_b$ & $c", "\\frac"])
def test_no_note_breaks_a_figure_or_a_table(note):
    run = study(Data(name="folder:~/a_b$c$"))
    run.save_figure("fig1_curves", drawing(), FRAME, caption=note, note=note)
    run.save_table("tab1_accuracy", FRAME, caption=note, note=note)
    assert sidecar(run, "fig1_curves")["note"] == note


# -- the same inputs, the same bytes -------------------------------------------------------


def test_the_same_inputs_give_the_same_bytes_whatever_commit_and_time(repository, monkeypatch):
    monkeypatch.setitem(plots.STYLE, "pdf.fonttype", PUBLISHED)
    first = save_all(study(Data()))
    assert set(first) == {f"{NAME}.json"} | {
        *("fig1_curves.png", "fig1_curves.pdf", "fig1_curves.csv", "tab1_accuracy.csv", "tab1_accuracy.tex"),
        *("fig2_filters.png", "fig2_filters.pdf", "fig2_filters.npz"),
    }
    now = time.time()
    monkeypatch.setattr(module, "_commit", lambda: "f" * 40)
    monkeypatch.setattr(time, "time", lambda: now + 4e7)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1000000000")
    monkeypatch.setenv("OUTPUT_ROOT", str(repository / "elsewhere"))
    run = study(Data())
    assert save_all(run) == first
    assert sidecar(run, "fig1_curves")["provenance"]["commit"] == "f" * 40


def test_another_process_gives_the_same_bytes(repository, monkeypatch):
    monkeypatch.setitem(plots.STYLE, "pdf.fonttype", PUBLISHED)
    first = save_all(study(Data()))
    script = f"""
        import sys
        sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / "tests")!r}, {str(ROOT / "tests" / "press")!r}]
        from pathlib import Path
        from lib import paths
        import test_run
        root = Path({str(repository)!r})
        paths.NOTEBOOKS, paths.PROFILES = root / "notebooks", root / "profiles"
        test_run.save_all(test_run.study(test_run.Data()))
    """
    environment = os.environ | {"OUTPUT_ROOT": str(repository / "other"), "PYTHONHASHSEED": "77", "TZ": "Asia/Seoul"}
    subprocess.run([sys.executable, "-c", dedent(script)], check=True, cwd=repository, env=environment, timeout=120)
    folder = repository / "other" / "figures" / "quick" / "seed-0"
    assert {name: (folder / name).read_bytes() for name in first} == first


def test_the_inputs_are_inside_png_and_pdf():
    run = study(Data())
    run.save_figure("fig1_curves", drawing(), FRAME, caption="Curves.")
    assert re.fullmatch("[0-9a-f]{16}", run.inputs)
    assert Image.open(run.folder / "fig1_curves.png").text == {"Inputs": run.inputs}
    assert f"/Keywords ({run.inputs})".encode() in (run.folder / "fig1_curves.pdf").read_bytes()
    assert b"/CreationDate" not in (run.folder / "fig1_curves.pdf").read_bytes()


def test_the_inputs_change_with_parameters_seed_data_and_cells(repository):
    path = repository / "notebooks" / f"{NAME}.ipynb"
    before = study(Data()).inputs
    others = [
        study(Data(), rate=0.2).inputs,
        study(Data(), seed=1).inputs,
        study(Data(checksum="ff")).inputs,
        study(Data(), Data(split="test")).inputs,
        study().inputs,
    ]
    path.write_text(path.read_text(encoding="utf-8").replace("import Run", "import Run, RunError"), encoding="utf-8")
    others.append(study(Data()).inputs)
    assert len({before, *others}) == 7
    path.write_text(path.read_text(encoding="utf-8").replace("import Run, RunError", "import Run"), encoding="utf-8")
    assert study(Data()).inputs == before


# -- tables --------------------------------------------------------------------------------

ODD = pd.DataFrame(
    {
        "이름 & #": ["50 % of a_b", "한글 & ±1 #2", "x^2 ~ {y} \\z $5", None],
        "mean ± sd": [0.123456789, math.nan, 1e-15, math.inf],
        "n": [1, 2, 3, 4],
        "kept": [True, False, True, False],
    }
)


def unescaped(cell: str) -> str:
    """The text before it was escaped for LaTeX."""
    cell = cell.replace(r"\textbackslash ", "\\\\").replace(r"\textbackslash{}", "\\\\")
    cell = re.sub(r"\\text(asciitilde|asciicircum)(\{\}| )", lambda m: {"t": "~", "c": "^"}[m[1][5]], cell)
    return re.sub(r"\\([&%$#_{}\\])", r"\1", cell.replace(r"\space ", " ")).strip()


def test_a_table_is_latex_with_booktabs_and_every_special_character_escaped():
    run = study(Data(name="folder:~/a_b^c{d}"))
    run.save_table("tab1_odd", ODD, caption="A 100 % & more_so.", note="λ = 1")
    lines = (run.folder / "tab1_odd.tex").read_text(encoding="utf-8").splitlines()
    rules = [line for line in lines if line in (r"\toprule", r"\midrule", r"\bottomrule")]
    assert rules == [r"\toprule", r"\midrule", r"\bottomrule"]
    assert [line for line in lines if line.startswith((r"\begin", r"\end"))] == [
        r"\begin{table}[htb]",
        r"\begin{tabular}{lrrr}",
        r"\end{tabular}",
        r"\end{table}",
    ]
    rows = [line.removesuffix(r" \\") for line in lines if line.endswith(r" \\")]
    cells = [[unescaped(cell) for cell in re.split(r"(?<!\\)&", row)] for row in rows]
    assert cells == [
        ["이름 & #", "mean ± sd", "n", "kept"],
        ["50 % of a_b", "0.1235", "1", "True"],
        ["한글 & ±1 #2", "–", "2", "False"],
        [r"x^2 ~ {y} \z $5", "1e-15", "3", "True"],
        ["–", "inf", "4", "False"],
    ]
    for row in rows:
        for cell in re.split(r"(?<!\\)&", row):
            bare = re.sub(r"\\(text\w+(\{\})?|space|[&%$#_{}])", "", cell)
            assert not set(bare) & set("&%$#_{}~^\\"), cell
    caption = next(line for line in lines if line.startswith(r"\caption"))
    assert caption == (
        r"\caption{A 100 \% \& more\_so. folder:\textasciitilde{}/a\_b\textasciicircum{}c\{d\}, 1,200 train images; "
        r"λ = 1; seed 0; profile quick.}"
    )
    assert r"\label{tab:tab1_odd}" in lines


def test_a_table_is_json_that_typst_can_read():
    run = study()
    run.save_table("tab1_odd", ODD, caption="Odd.")
    found = sidecar(run, "tab1_odd")  # strict JSON: NaN is refused
    assert found["kind"] == "table" and found["columns"] == list(ODD)
    assert found["data"] == [
        ["50 % of a_b", 0.123456789, 1, True],
        ["한글 & ±1 #2", None, 2, False],
        ["x^2 ~ {y} \\z $5", 1e-15, 3, True],  # not rounded to 0
        [None, "inf", 4, False],
    ]
    typst = pytest.importorskip("typst", reason="the wheel of Typst comes with the paper")
    page = run.folder / "page.typ"
    page.write_text(
        '#let t = json("tab1_odd.json")\n#table(columns: t.columns.len(), ..t.data.flatten().map(c => [#c]))'
    )
    assert typst.compile(str(page)).startswith(b"%PDF")


def test_a_table_is_csv_of_full_precision_and_is_returned():
    run = study()
    table = pd.DataFrame({"value": [0.1 + 0.2, 1 / 3, 5e-324, math.nan]})
    assert run.save_table("tab1_exact", table, caption="Exact.", digits=2) is table
    assert (run.folder / "tab1_exact.csv").read_bytes() == (
        b"value\n0.30000000000000004\n0.3333333333333333\n5e-324\n" + b'""\n'
    )
    assert "0.3 " in (run.folder / "tab1_exact.tex").read_text(encoding="utf-8")


def test_cells_of_numpy_torch_nan_and_paths_are_json():
    run = study()
    cells = [np.int64(3), torch.tensor([0.5, math.nan]), -math.inf, Path("a")]
    run.save_table("tab1_odd", pd.DataFrame({"odd": pd.Series(cells, dtype=object)}), caption="Odd.")
    assert sidecar(run, "tab1_odd")["data"] == [[3], [[0.5, None]], ["-inf"], ["a"]]


def test_arrays_that_would_need_pickle_are_refused():
    run = study()
    with pytest.raises(ValueError, match="[Oo]bject arrays"):
        run.save_figure("fig1_odd", drawing(), {"odd": np.array([None, "a"])}, caption="Odd.")
    assert names(run) == set()


# -- whole or not at all -------------------------------------------------------------------


def full(*_ignored, **_ignored_too):
    raise OSError(errno.ENOSPC, "No space left on device")


def half(path: Path, content: bytes) -> int:
    with path.open("wb") as file:
        file.write(content[: len(content) // 2])
    full()


def nth(function, call: int, original):
    """`original`, except that its `call`-th call goes to `function`."""
    calls = []

    def replaced(*arguments, **keywords):
        calls.append(1)
        return (function if len(calls) == call else original)(*arguments, **keywords)

    return replaced


@pytest.mark.parametrize("call", [1, 2, 3, 4])
def test_a_full_disk_leaves_the_old_files(monkeypatch, call):
    run = study()
    run.save_figure("fig1_curves", drawing(), FRAME, caption="Old.")
    old = {path.name: path.read_bytes() for path in run.folder.iterdir()}
    run = study()
    monkeypatch.setattr(Path, "write_bytes", nth(half, call, Path.write_bytes))
    with pytest.raises(OSError, match="No space left on device"):
        run.save_figure("fig1_curves", drawing(5), FRAME.iloc[:1], caption="New.")
    assert {path.name: path.read_bytes() for path in run.folder.iterdir()} == old
    run.save_figure("fig1_curves", drawing(5), FRAME.iloc[:1], caption="New.")  # and it can be tried again
    assert sidecar(run, "fig1_curves")["caption"] == "New."


@pytest.mark.parametrize("call", [1, 2])
def test_a_failing_rename_leaves_whole_files_and_no_partial_one(monkeypatch, call):
    run = study()
    run.save_table("tab1_odd", ODD, caption="Old.")
    old = {path.name: path.read_bytes() for path in run.folder.iterdir()}
    run = study()
    monkeypatch.setattr(os, "replace", nth(full, call, os.replace))
    with pytest.raises(OSError, match="No space left"):
        run.save_table("tab1_odd", FRAME, caption="New.")
    assert names(run) == set(old)
    assert sum((run.folder / name).read_bytes() != content for name, content in old.items()) == call - 1


def test_a_record_that_cannot_be_written_is_no_record(monkeypatch):
    run = study()
    run.save_table("tab1_odd", ODD, caption="Odd.")
    monkeypatch.setattr(Path, "write_bytes", half)
    with pytest.raises(OSError, match="No space left"):
        run.finish()
    assert names(run) == {"tab1_odd.csv", "tab1_odd.tex", "tab1_odd.json"}


@pytest.mark.parametrize("moment", ["while writing", "before the rename", "between two renames"])
def test_a_crash_leaves_nothing_that_looks_finished(moment):
    save_all(study())
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:  # pragma: no cover

        def die(*_ignored):
            os.write(writer, b"x")
            os._exit(9)

        try:
            run = study()
            if moment == "while writing":
                Path.write_bytes = lambda path, content: (path.open("wb").write(content[:9]), die())
            else:
                os.replace = nth(die, 1 if moment == "before the rename" else 2, os.replace)
            run.save_table("tab1_accuracy", ODD, caption="New.")
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    os.close(writer)
    assert os.waitstatus_to_exitcode(status) == 9 and os.read(reader, 1) == b"x"
    os.close(reader)
    folder = paths.figures() / "quick" / "seed-0"
    assert not (folder / f"{NAME}.json").exists()  # no record: not finished
    assert any(path.name.startswith(".") for path in folder.iterdir())
    for path in folder.glob("*.json"):
        json.loads(path.read_text(encoding="utf-8"))  # what is there is whole
    run = study()
    save_all(run)
    assert not {name for name in names(run) if name.startswith(".")}


# -- the record ----------------------------------------------------------------------------


def test_clips_are_called_clips_and_all_of_a_set_has_no_split():
    run = study(Data("noises", "all", 40, unit="clips"))
    assert run.origin() == "noises, 40 clips; seed 0; profile quick."


def test_finish_writes_the_record_with_hashes(capsys):
    run = study(Data())
    save_all(run)
    record = json.loads((run.folder / f"{NAME}.json").read_text(encoding="utf-8"))
    assert record["notebook"] == NAME and record["inputs"] == run.inputs
    assert record["parameters"] == run.parameters and record["data"][0]["checksum"] == "ab12"
    files = {file: found for output in record["outputs"].values() for file, found in output["files"].items()}
    assert len(files) == 8
    for file, found in files.items():
        assert hashlib.sha256((run.folder / file).read_bytes()).hexdigest() == found
    assert capsys.readouterr().out == f"3 figures and tables in {Path('figures', 'quick', 'seed-0')}\n"


def test_a_run_that_was_not_finished_has_no_record():
    save_all(study())
    run = study()  # from now on the stored files are not the results of a finished run
    assert f"{NAME}.json" not in names(run)
    run.save_table("tab1_accuracy", FRAME, caption="Accuracy.")
    assert f"{NAME}.json" not in names(run)


@pytest.mark.parametrize("broken", [False, True], ids=["after a finished run", "after an unfinished run"])
def test_finish_removes_what_older_runs_left_and_nothing_else(broken):
    save_all(study())
    if broken:
        study()
    folder = paths.figures() / "quick" / "seed-0"
    (folder / "mine.csv").write_text("")
    (folder / "notes.json").write_text("[1]")
    foreign = {"provenance": {"notebook": "03_other", "files": {"fig9_other.png": ""}}}
    (folder / "fig9_other.json").write_text(json.dumps(foreign))
    (folder / "fig9_other.png").write_text("")
    run = study()
    run.save_figure("fig1_curves", drawing(), ARRAYS, caption="Arrays now, where it was a frame.")
    run.finish()
    assert names(run) == {
        *("fig1_curves.png", "fig1_curves.pdf", "fig1_curves.npz", "fig1_curves.json", f"{NAME}.json"),
        *("mine.csv", "notes.json", "fig9_other.json", "fig9_other.png"),
    }


def test_an_unfinished_run_removes_nothing():
    first = save_all(study())
    study().save_table("tab2_new", FRAME, caption="New.")
    assert set(first) - {f"{NAME}.json"} <= names(study())


def test_an_id_is_used_once():
    run = study()
    run.save_figure("fig1_curves", drawing(), FRAME, caption="Curves.")
    before = (run.folder / "fig1_curves.png").read_bytes()
    with pytest.raises(RunError, match="'fig1_curves' cannot be an id, or is one already"):
        run.save_table("fig1_curves", FRAME, caption="Curves.")
    with pytest.raises(RunError, match="'fig1_curves' cannot be an id, or is one already"):
        run.save_figure("fig1_curves", drawing(9), FRAME, caption="Curves.")
    assert (run.folder / "fig1_curves.png").read_bytes() == before


@pytest.mark.parametrize("name", ["../fig1", "a/b", "", "fig 1", "fig1.png", NAME])
def test_an_id_names_a_file_in_the_run_s_own_folder(name):
    run = study()
    with pytest.raises(RunError, match="cannot be an id"):
        run.save_table(name, FRAME, caption="Odd.")
    assert names(run) == set()


# -- folders and parameters ----------------------------------------------------------------


def test_the_profile_s_settings_go_to_its_folder(repository):
    run = study(profile="public", epochs=50, seed=2)
    assert run.folder == repository / "figures" / "public" / "seed-2"
    assert run.checkpoints == repository / "build" / "checkpoints" / "public" / "seed-2" / NAME


@pytest.mark.parametrize("changes", [{"epochs": 3}, {"groups": [1]}, {"profile": "public"}])
def test_other_settings_go_to_a_folder_of_their_own(repository, changes):
    run = study(**changes)
    profile = changes.get("profile", "quick")
    assert run.folder == repository / "figures" / f"{profile}-custom" / "seed-0"
    assert run.checkpoints.parent == repository / "build" / "checkpoints" / f"{profile}-custom" / "seed-0"
    assert run.origin().endswith(f"profile {profile} with other settings.")


@pytest.mark.parametrize("changes", [{"seed": 8}, {"device": "auto"}])
def test_seed_and_device_are_no_other_settings(repository, changes):
    assert study(**changes).folder.parent == repository / "figures" / "quick"


def test_the_workflow_s_folder_comes_first(repository, monkeypatch):
    monkeypatch.setenv("RUN_FOLDER", "quick-custom")
    assert page().folder == repository / "figures" / "quick-custom"
    assert study().folder == repository / "figures" / "quick-custom" / "seed-0"


def test_parameters_without_values_are_an_error():
    given = values()
    del given["rate"], given["epochs"]
    with pytest.raises(
        ParameterError, match=r"05_study has the parameters \['epochs', 'rate'\] but no values.*run its param"
    ):
        Run(NAME, given)


def test_an_unknown_notebook_or_profile_is_an_error():
    with pytest.raises(ParameterError, match="Unknown notebook '05_stduy'; did you mean '05_study'"):
        Run("05_stduy", values())
    with pytest.raises(ParameterError, match="Unknown profile 'pubic'; did you mean 'public'"):
        study(profile="pubic")


# -- reading over seeds --------------------------------------------------------------------


def test_read_puts_the_seeds_together_as_they_were_saved():
    for seed in (0, 1):
        run = study(Data(checksum=f"of {seed}"), seed=seed)
        run.save_figure("fig1_curves", drawing(), FRAME.assign(seed=seed), caption="Curves.", note="2 epochs")
    run = page()
    found = run.read("fig1_curves")
    expected = pd.concat([FRAME.assign(seed=0), FRAME.assign(seed=1)], ignore_index=True)
    pd.testing.assert_frame_equal(found, expected, check_exact=True)  # "None" and "NA" are words, and every digit
    assert found.attrs["note"] == "2 epochs"
    run.save_table("tab1_all", found, caption="All.")
    checksums = [data["checksum"] for data in sidecar(run, "tab1_all")["provenance"]["data"]]
    assert checksums == ["of 0", "of 1"]
    assert run.origin() == "toys, 1,200 train images; seeds 0, 1; profile quick."


def test_a_figure_drawn_again_shows_and_names_every_seed(capsys):
    for seed in (0, 1):
        run = study(Data(checksum=f"of {seed}"), seed=seed)
        run.save_figure("fig1_curves", drawing(), FRAME.assign(seed=seed), caption="Curves.", note="2 epochs")
    run, shown = page(), []
    over_seeds(run, [
        Result("fig1_curves", lambda frame: shown.append(frame) or drawing(), "Curves over seeds."),
        Result("tab1_last", lambda frame: frame[frame.epoch == 1], "The end.", reads=("fig1_curves",)),
        Result("tab2_none", lambda frame: frame, "Left out."),
        Result("fig3_empty", lambda frame: None, "Shows nothing, and is left out.", reads=("fig1_curves",)),
    ])  # fmt: skip
    assert sorted(run._outputs) == ["fig1_curves", "tab1_last"] and sidecar(run, "tab1_last")["note"] == "2 epochs"
    assert shown[0].seed.unique().tolist() == [0, 1]
    found = sidecar(run, "fig1_curves")
    assert found["caption"] == "Curves over seeds." and found["note"] == "2 epochs"
    assert [data["checksum"] for data in found["provenance"]["data"]] == ["of 0", "of 1"]
    saved = pd.read_csv(run.folder / "fig1_curves.csv", keep_default_na=False, na_values=[""])
    pd.testing.assert_frame_equal(saved, shown[0], check_exact=True)
    assert "tab2_none is left out: no seed has tab2_none." in capsys.readouterr().out
    (run._stored("fig1_curves", 1)).unlink()
    with pytest.raises(RunError, match="fig1_curves of seed 1 is missing"):
        over_seeds(run, [Result("fig2_again", lambda frame: drawing(), "Some.", reads=("fig1_curves",))])


def test_a_result_like_what_was_read_names_its_data_and_no_other():
    run = study(Data(name="toys"))
    run.save_table("tab1_toys", FRAME, caption="Toys.", note="2 epochs")
    run.use(Data(name="games"))
    run.save_table("tab2_both", FRAME, caption="Both.", note="3 epochs")
    run.save_table("tab3_none", FRAME, caption="None.", without_data=True)
    run = page(seeds=[run.seed])
    toys, both, none = (run.read(name) for name in ("tab1_toys", "tab2_both", "tab3_none"))
    run.save_table("tab1_toys", toys.head(1), caption="Toys.", like=toys)
    run.save_table("tab2_both", both, caption="Both.", like=both)
    run.save_table("tab3_none", none, caption="None.", like=none)
    assert sidecar(run, "tab1_toys")["origin"].startswith("toys, 1,200 train images; 2 epochs; seed")
    assert [data["name"] for data in sidecar(run, "tab1_toys")["provenance"]["data"]] == ["toys"]
    assert sidecar(run, "tab2_both")["origin"].startswith("toys, 1,200 train images; games, 1,200 train images; 3 ep")
    assert sidecar(run, "tab3_none")["origin"].startswith("no data set; seed")


def test_has_asks_for_any_seed():
    study(seed=1).save_table("tab1_accuracy", FRAME, caption="Accuracy.")
    assert page(seeds=[0, 1]).has("tab1_accuracy") and not page(seeds=[0, 1]).has("tab2_words")
    with pytest.raises(
        RunError, match=r'no results of these seeds in .*quick\. Run `make figures PROFILE=quick SEEDS="3"'
    ):
        page(seeds=[3]).has("tab1_accuracy")


def test_read_of_a_missing_seed_says_how_to_get_it():
    study(seed=0).save_table("tab1_accuracy", FRAME, caption="Accuracy.")
    with pytest.raises(RunError, match='tab1_accuracy of seed 1 is missing.*make figures PROFILE=quick SEEDS="0 1"'):
        page().read("tab1_accuracy")


@pytest.mark.parametrize("file", ["tab1_accuracy.json", "tab1_accuracy.csv"])
def test_read_of_a_damaged_or_incomplete_result_is_an_error(file):
    run = study(seed=0)
    run.save_table("tab1_accuracy", FRAME, caption="Accuracy.")
    for content in ("", "[]") if file.endswith("json") else ("",):
        (run.folder / file).write_text(content)
        with pytest.raises(RunError, match="tab1_accuracy of seed 0 cannot be read"):
            page(seeds=[0]).read("tab1_accuracy")
    (run.folder / file).unlink()
    with pytest.raises(RunError, match="tab1_accuracy of seed 0 is missing"):
        page(seeds=[0]).read("tab1_accuracy")


def test_the_commit_is_that_of_the_start_and_of_this_repository(repository, monkeypatch):
    def git(*words: str) -> str:
        command = ["git", "-C", repository, "-c", "user.name=a", "-c", "user.email=a@b.c", *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    git("init", "-q"), git("add", "."), git("commit", "-qm", "one")
    monkeypatch.setattr(paths, "ROOT", repository)
    run, first = study(), git("rev-parse", "HEAD")
    git("commit", "-qm", "two", "--allow-empty")
    run.save_table("tab1_accuracy", FRAME, caption="Accuracy.")
    assert sidecar(run, "tab1_accuracy")["provenance"]["commit"] == first != git("rev-parse", "HEAD")
    (repository / "archive").mkdir()  # unpacked inside another repository
    monkeypatch.setattr(paths, "ROOT", repository / "archive")
    assert module._commit() == "unknown"


# -- seeding -------------------------------------------------------------------------------


def test_a_run_seeds_everything():
    def draws(seed):
        study(seed=seed)
        return torch.rand(3).tolist(), np.random.rand(3).tolist(), random.random()

    first = draws(5)
    torch.rand(1), np.random.rand(1), random.random()
    assert draws(5) == first
    assert all(a != b for a, b in zip(draws(6), first, strict=True))
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.utils.deterministic.fill_uninitialized_memory


# -- under papermill -----------------------------------------------------------------------


def test_the_workflow_tells_progress_bars_to_be_quiet(monkeypatch):
    from lib.press import execution

    monkeypatch.setattr(os, "environ", dict(os.environ))
    execution._set_environment({"folder": "quick", "reads": []}, 1)
    assert os.environ["TQDM_DISABLE"] == "1"
