"""What a command needs of the machine."""

import pytest

from lib.press import workflow


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
