"""What `make verify` finds in results with one known defect."""

import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from toy import notebook, point_at

from lib import paths
from lib.press import fingerprint, gallery, verify, workflow
from lib.press import run as module
from lib.press.parameters import ParameterError
from lib.press.run import Run

CELL = 'profile = "quick"\nseed = 0\ndevice = "cpu"\nepochs = 2'
PAGE = 'profile = "quick"\nseeds = [0, 1]'
TABLE = pd.DataFrame({"arm": ["None", "NA"], "n": [1, 2], "loss": [1 / 3, np.nan], "top": [np.inf, 1e-9]})
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass(frozen=True)
class Results:
    """A folder with results of `quick`: two seeds and a notebook over both."""

    root: Path

    def __call__(self, name: str) -> Path:
        return self.root / "figures" / "quick" / name

    def edit(self, name: str, change: Callable[[dict], object]) -> None:
        content = json.loads(self(name).read_text(encoding="utf-8"))
        change(content)
        self(name).write_text(json.dumps(content), encoding="utf-8")


def committed_at(root: Path, patch: pytest.MonkeyPatch, cells: dict[str, str] | None = None) -> None:
    point_at(root, patch, cells)
    patch.setattr(module, "_commit", lambda: COMMIT)
    patch.setattr(verify, "history", lambda root: frozenset({COMMIT}))


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """Results as notebooks write them; tests must not change them."""
    root = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        committed_at(root, patch, {"03_study": CELL, "07_page": PAGE})
        (root / "profiles" / "quick.yaml").write_text("seeds: [0, 1]\nnotebooks: {07_page: {reads: [03_study]}}")
        (root / "profiles" / "smoke.yaml").write_text("notebooks: {03_study: {parameters: {epochs: 1}}}")
        values = {"profile": "quick", "device": "cpu", "epochs": 2}
        for seed in (0, 1):
            write(Run("03_study", values | {"seed": seed}))
        write(Run("07_page", {"profile": "quick", "seeds": [0, 1]}))
    return root


def write(run: Run, table: pd.DataFrame = TABLE) -> None:
    figure = Figure(figsize=(1.5, 1))
    figure.add_subplot().plot([0, 1], [0, run.seed])
    run.save_figure("fig31_line", figure, TABLE, caption="A line.")
    run.save_table("tab31_all", table, caption="All.")
    run.finish()


@pytest.fixture
def results(made, tmp_path, monkeypatch) -> Results:
    """A copy of the results that a test may change."""
    shutil.copytree(made, tmp_path / "own")
    committed_at(tmp_path / "own", monkeypatch)
    return Results(tmp_path / "own")


def found(level: str) -> list[str]:
    return [str(finding) for finding in verify.verify("quick")[0] if finding.level == level]


def only_error(*words: str) -> None:
    """Check that there is one error, which contains all these words and says what to do."""
    errors = found("error")
    assert len(errors) == 1, errors
    assert all(word in errors[0] for word in words), errors[0]
    assert any(word in errors[0] for word in ("run `make", "Run `make", "Remove", "Restore", "Add")), errors[0]
    assert workflow.main(["verify"]) == 1


def test_whole_results_have_no_finding(results, capsys):
    assert verify.verify("quick")[0] == []
    assert workflow.main(["verify", "--profile", "quick"]) == 0
    # Three runs; each with a figure (PNG, PDF, CSV) and a table (CSV, LaTeX).
    assert "quick: 3 runs, 2 seeds, 6 figures and tables, 15 hashes" in capsys.readouterr().out


def test_a_changed_file_is_an_error(results):
    path = results("seed-1/tab31_all.csv")
    path.write_bytes(path.read_bytes().replace(b"None", b"none"))
    errors = found("error")
    assert len(errors) == 2  # the table in the sidecar is not that of the file either
    assert "quick/seed-1/tab31_all.csv" in errors[0] and 'ONLY=03_study SEEDS="1"' in errors[0]


def test_a_number_changed_in_a_sidecar_is_an_error_though_it_has_no_hash(results):
    results.edit("tab31_all.json", lambda sidecar: sidecar["data"][0].__setitem__(1, 3))
    only_error("quick/tab31_all.json", "CSV")


@pytest.mark.parametrize("name", ["fig31_line.png", "seed-0/fig31_line.json", "tab31_all.tex"])
def test_a_missing_file_is_an_error(results, name):
    results(name).unlink()
    only_error(f"quick/{name}", "is missing")


def test_files_that_git_leaves_out_are_not_missed_but_checked_where_they_are(results):
    for path in results("").rglob("*.pdf"):
        path.unlink()
    results("seed-0/fig31_line.png").unlink()  # there is one over all seeds
    assert workflow.main(["verify"]) == 0
    results("fig31_line.pdf").write_bytes(b"another")
    only_error("fig31_line.pdf", "remove it if git does not keep it")


def test_a_file_that_no_record_names_is_an_orphan(results):
    shutil.copy(results("fig31_line.png"), results("fig32_old.png"))
    only_error("quick/fig32_old", "remove ")


def test_a_figure_left_by_an_older_run_is_an_orphan(results):
    for kind in ("png", "csv", "json"):
        shutil.copy(results(f"fig31_line.{kind}"), results(f"fig30_renamed.{kind}"))
    only_error("quick/fig30_renamed", "no record of a finished run names it", "fig30_renamed.*")


def test_a_run_without_record_did_not_finish(results):
    results("seed-0/03_study.json").unlink()
    errors = found("error")
    assert len(errors) == 2 and all("no record of a finished run" in e and "ONLY=03_study" in e for e in errors)
    assert not any("never run" in warning for warning in found("warning"))


def test_results_of_another_profile_are_an_error(results):
    """Smoke results copied into the paper's folder have only correct hashes."""
    for seed in (0, 1):
        for name in ("fig31_line", "tab31_all"):
            results.edit(f"seed-{seed}/{name}.json", lambda sidecar: sidecar["provenance"].update(profile="smoke"))
    errors = found("error")
    assert len(errors) == 2 and all("2 figures and tables of profile smoke" in error for error in errors)


def test_results_of_another_seed_are_an_error(results):
    shutil.rmtree(results("seed-1"))
    shutil.copytree(results("seed-0"), results("seed-1"))
    only_error("quick/seed-1/03_study", "of seed 0 in the folder of seed 1")


@pytest.mark.parametrize("commit", ["unknown", "", None])
def test_a_sidecar_without_commit_is_an_error(results, commit):
    results.edit("fig31_line.json", lambda sidecar: sidecar["provenance"].update(commit=commit))
    only_error("quick/07_page", "without the commit")


def test_outside_of_git_fresh_results_are_no_errors(results, monkeypatch):
    results.edit("fig31_line.json", lambda sidecar: sidecar["provenance"].update(commit="unknown"))
    monkeypatch.setattr(verify, "history", lambda root: None)
    assert not found("error") and ["without the commit" in warning for warning in found("warning")] == [True]


def test_uncommitted_code_is_a_warning(results):
    results.edit("fig31_line.json", lambda sidecar: sidecar["provenance"].update(commit=f"{COMMIT} + changes"))
    assert not found("error") and ["0123456 with changes" in warning for warning in found("warning")] == [True]


@pytest.mark.parametrize("commits", [frozenset(), None])
def test_a_commit_that_the_history_lacks_is_a_warning_where_that_can_be_told(results, monkeypatch, commits):
    monkeypatch.setattr(verify, "history", lambda root: commits)
    warnings = found("warning")
    assert len(warnings) == (0 if commits is None else 3) and not found("error")  # a line for each run
    assert all("2 figures and tables name commit 0123456, which is not in" in warning for warning in warnings)
    assert all("remove" in warning and "`make figures PROFILE=quick ONLY=" in warning for warning in warnings)


def test_the_history_is_of_what_is_checked_out_and_not_told_where_it_is_cut_or_anothers(tmp_path):
    def git(*arguments: str, at: str = "whole") -> str:
        command = ["git", "-C", str(tmp_path / at), "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    (tmp_path / "whole" / "inside").mkdir(parents=True)
    git("init", "-q")
    assert verify.history(tmp_path / "whole") is None  # no commit yet
    for word in ("first", "second"):
        git("commit", "-q", "--allow-empty", "-m", word)
    git("checkout", "-q", "-b", "other")
    git("commit", "-q", "--allow-empty", "-m", "aside")
    git("checkout", "-q", "-")
    assert verify.history(tmp_path / "whole") == {git("rev-parse", "HEAD"), git("rev-parse", "HEAD~1")}
    git("clone", "-q", "--depth", "1", (tmp_path / "whole").as_uri(), str(tmp_path / "shallow"))
    git("worktree", "add", "-q", str(tmp_path / "beside"), "other")
    assert len(verify.history(tmp_path / "beside")) == 3
    assert [verify.history(tmp_path / name) for name in ("shallow", "whole/inside", ".")] == [None] * 3


def test_a_sidecar_of_another_run_than_the_record_is_an_error(results):
    results.edit("fig31_line.json", lambda sidecar: sidecar["provenance"]["files"].popitem())
    only_error("quick/fig31_line.json", "another run")


@pytest.mark.parametrize("content", ["{", "[]", ""])
def test_a_damaged_record_is_an_error(results, content):
    results("07_page.json").write_text(content)
    errors = found("error")
    assert any("07_page.json: is not a complete result in JSON" in error for error in errors)


def places(content, path=()) -> list[tuple]:
    """The paths of keys to every value in `content`, itself included."""
    inner = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    return [path, *(place for key, value in inner for place in places(value, (*path, key)))]


@pytest.mark.parametrize("name", ["07_page.json", "fig31_line.json", "tab31_all.json"])
def test_no_value_of_another_kind_breaks_what_reads_results(results, name, monkeypatch):
    """Verify and the overview survive any value of a record or sidecar being removed or replaced by six others."""
    monkeypatch.setattr(verify.jobs, "select", cache(verify.jobs.select))  # depends on none of them
    whole = results(name).read_text()
    others = [None, True, 1e308, "../x\0", {}, [[1], {"a": None}]]
    for *inner, last in filter(None, places(json.loads(whole))):
        if name.startswith("tab") and "provenance" in inner:  # the same as the figure's
            continue
        for other in [*others, Ellipsis]:
            content = place = json.loads(whole)
            for key in inner:
                place = place[key]
            if other is Ellipsis:
                del place[last]
            else:
                place[last] = other
            results(name).write_text(json.dumps(content))
            errors = found("error")
            try:
                gallery.figures("quick"), gallery.runs("quick")
            except ParameterError:
                assert errors, (inner, last, other)


def test_results_over_seeds_belong_to_those_that_they_were_made_of(results):
    page = Run("07_page", {"profile": "quick", "seeds": [0, 1]})
    page.save_table("tab31_all", page.read("tab31_all"), caption="All.")
    page.finish()
    assert not any("07_page" in finding for finding in found("warning"))
    write(Run("03_study", {"profile": "quick", "device": "cpu", "epochs": 2, "seed": 1}), TABLE.assign(n=[1, 3]))
    assert ["tab31_all.csv has changed" in finding for finding in found("warning") if "07_page" in finding] == [True]


def test_advice_never_makes_results_over_seeds_of_one_seed(results):
    (results.root / "profiles" / "quick.yaml").write_text("seeds: [0, 1, 2]\nnotebooks: {07_page: {reads: [03_study]}}")
    results("seed-1/tab31_all.json").write_text("{")
    told = [finding for finding in found("warning") + found("error") if "make figures" in finding]
    assert any("seed-2" in finding for finding in told) and any("seed-1" in finding for finding in told)
    assert all("ONLY=" in finding for finding in told if "SEEDS=" in finding)


def test_a_changed_setting_makes_a_run_stale_which_is_a_warning(results):
    (results.root / "profiles" / "quick.yaml").write_text(
        "seeds: [0, 1]\nnotebooks: {03_study: {parameters: {epochs: 5}}, 07_page: {reads: [03_study]}}"
    )

    warnings = found("warning")
    assert sum("stale (epochs: 2 → 5)" in warning for warning in warnings) == 2
    assert sum("stale (after 03_study" in warning for warning in warnings) == 1  # the page reads them
    assert workflow.main(["verify"]) == 0


def test_changed_code_makes_a_run_stale(results):
    path = results.root / "notebooks" / "07_page.ipynb"
    path.write_text(notebook([PAGE, "from lib.press.run import Run", "1 + 1"]))
    assert ["quick/07_page: is stale (code" in warning for warning in found("warning")] == [True]


def test_without_its_data_set_a_run_is_not_called_stale(results, capsys, monkeypatch):
    monkeypatch.setattr(fingerprint, "data_parts", lambda values: {"data cifar10": "absent"})
    assert found("warning") == [] and workflow.main(["verify"]) == 0
    assert "3 runs could not be checked for staleness" in capsys.readouterr().out


def test_a_seed_that_the_profile_asks_for_and_nobody_ran_is_a_warning(results):
    shutil.rmtree(results("seed-1"))
    warnings = found("warning")
    assert any("quick/seed-1/03_study: was never run" in warning for warning in warnings)


def test_a_notebook_that_is_gone_leaves_an_error(results):
    (results.root / "notebooks" / "07_page.ipynb").unlink()
    (results.root / "profiles" / "quick.yaml").write_text("seeds: [0, 1]")
    only_error("quick/07_page", "no notebook of this name")


def test_folders_that_are_cleaned_are_checked_only_when_asked_for(results, capsys):
    for name in ("smoke", "quick-custom"):
        shutil.copytree(results(""), results.root / "figures" / name)
    assert workflow.main(["verify"]) == 0 and capsys.readouterr().out.count("hashes recomputed") == 1
    assert workflow.main(["verify", "--profile", "quick-custom"]) == 0  # its settings are no profile's
    assert workflow.main(["verify", "--profile", "smoke"]) == 1


def test_an_unknown_profile_is_one_clear_error(results, capsys):
    assert workflow.main(["verify", "--profile", "nothing"]) == 2
    assert "make figures PROFILE=nothing" in capsys.readouterr().err


@pytest.mark.parametrize("folder", verify.kept_folders())
def test_the_committed_results_are_whole_in_a_clone(folder):
    record = f"figures/{folder}/**/*.json"
    if verify.history(paths.ROOT) and not subprocess.check_output(["git", "-C", paths.ROOT, "ls-files", record]):
        pytest.skip("made here, and perhaps not finished")
    found, counts = verify.verify(folder)
    assert [one for one in found if one.level == "error"] == [] and counts["hashes"]
