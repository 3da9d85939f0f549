"""Which jobs a command selects, and which resources they request."""

import nbformat
import pytest

from lib import paths
from lib.press import execution, jobs, parameters, workflow
from lib.press.run import Run

VOTE = "06_emergency_ensemble"


def test_commas_separate_notebooks_as_they_separate_seeds():
    found = jobs.select("smoke", seeds="0,1", only="03_corregularization,05_emergency_cnn")
    assert [job.name.removeprefix("smoke/") for job in found] == [
        f"seed-{seed}/{name}" for name in ("03_corregularization", "05_emergency_cnn") for seed in (0, 1)
    ]


def test_notebooks_that_read_each_other_are_told(tmp_path, monkeypatch):
    (tmp_path / "mine.yaml").write_text("notebooks: {03_corregularization: {reads: [07_results]}, "
                                        "07_results: {reads: [03_corregularization]}}")  # fmt: skip
    monkeypatch.setattr(paths, "PROFILES", tmp_path)
    with pytest.raises(parameters.ParameterError, match="'mine' has notebooks that read each other: .* reads "):
        jobs.select("mine")


def test_a_recording_of_one_s_own_trains_nothing_again(monkeypatch, tmp_path):
    """The recording is a setting of notebook 06 alone, which uses the models of the profile's notebooks 04 and 05."""
    monkeypatch.setenv("OUTPUT_ROOT", str(tmp_path))
    (tmp_path / "cry.wav").touch()
    heard = f"recording={tmp_path}/cry.wav"
    for params, folder in ((heard, "smoke"), (f"seconds=3.0 {heard}", "smoke-custom")):
        *read, vote = jobs.select("smoke", only=VOTE, params=params)
        assert vote.name == f"smoke-custom/seed-0/{VOTE}"
        assert list(vote.reads) == [job.name for job in read] and {job.folder for job in read} == {folder}
        run = Run(VOTE, parameters.for_cell(VOTE, vote.values))
        assert run.models == tmp_path / "build/models/smoke-custom/seed-0"
        assert run.given_models == tmp_path / f"build/models/{folder}/seed-0"


def test_notebooks_over_all_seeds_show_one_folder(tmp_path):
    (tmp_path / "cry.wav").touch()
    assert {job.folder for job in jobs.select("smoke", params=f"recording={tmp_path}/cry.wav")} == {"smoke-custom"}


def test_another_recording_of_the_same_name_makes_its_results_stale(tmp_path):
    file = tmp_path / "cry.wav"
    heard = []
    for content in (b"one", b"two", b"one"):
        file.write_bytes(content)
        heard.append(jobs.select("smoke", only=VOTE, params=f"recording={file}")[-1].parts)
    assert heard[0] == heard[2] and {key for key in heard[0] if heard[0][key] != heard[1][key]} == {"data recording"}


def test_a_recording_that_is_not_there_is_told_before_anything_is_trained():
    with pytest.raises(parameters.ParameterError, match="There is no recording .*/cry.wav. A relative path starts at"):
        jobs.select("smoke", only=VOTE, params="recording=cry.wav")


def test_output_of_another_user_is_told_with_a_remedy(monkeypatch, capsys):
    def refused(*_):
        raise PermissionError(13, "Permission denied", "/shared/build/locks/a.lock")

    monkeypatch.setattr(workflow, "make_figures", refused)
    assert workflow.main(["figures", "--profile", "smoke", "--only", "03_corregularization"]) == 2
    told = capsys.readouterr().err
    assert "Permission denied: '/shared/build/locks/a.lock'. Set OUTPUT_ROOT to a folder that you may write" in told


def test_what_was_left_out_of_the_data_is_told_in_the_terminal(tmp_path):
    text = f"{paths.ROOT / 'lib' / 'data' / 'folders.py'}:88: UserWarning: 3 files are left out.\n  files = of_kind()\n"
    cell = nbformat.v4.new_code_cell(outputs=[
        nbformat.v4.new_output("stream", name="stderr", text=text + text),
        nbformat.v4.new_output("stream", name="stderr", text="/env/lib/other.py:1: UserWarning: not ours\n"),
    ])  # fmt: skip
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "copy.ipynb")
    assert execution._warnings(tmp_path / "copy.ipynb") == ["3 files are left out."]


@pytest.mark.parametrize("command", [
    lambda: workflow.main(["figures", "--profile", "smoke", "--only", "03_corregularization"]),
    lambda: workflow.main(["paper", "--profile", "quick"]), lambda: workflow.main(["site", "--profile", "quick"]),
])  # fmt: skip
def test_output_that_cannot_be_written_is_one_sentence(tmp_path, monkeypatch, capsys, command):
    output = tmp_path / "out"
    output.write_text("in the way")
    monkeypatch.setenv("OUTPUT_ROOT", str(output))
    assert command() == 2
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1 and told[0].startswith("Error: ") and str(output) in told[0]
