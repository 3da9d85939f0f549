"""How `make bench` judges its targets, the classic DCGAN example that it compares with, and planted defects."""

import itertools
import re
from types import SimpleNamespace

import classic
import faults
import laplacian_gan
import pandas as pd
import pytest
import run
import torch
from toy import ROOT

from lib.data.augment import as_float


def benchmark(values):
    """A benchmark module that measures `values` in turn, with a target of at most 1."""
    left, asked = iter(values), []

    def measure(rounds: int = 12) -> pd.DataFrame:
        asked.append(rounds)
        return pd.DataFrame({"task": ["ours"], "relative": [next(left)]})

    def check(table: pd.DataFrame) -> pd.DataFrame:
        return pd.DataFrame({"target": ["ours / theirs"], "measured": table.relative, "at_most": [1.0]})

    return SimpleNamespace(measure=measure, check=check, asked=asked)


@pytest.mark.parametrize(
    ("values", "met", "median"),
    [((0.5, 0.7, 0.6), "yes", 0.6), ((1.5, 1.2, 1.4), "no", 1.4), ((0.9, 1.1, 0.8, 0.9, 1.2), run.NOISY, 0.9)],
)
def test_a_target_is_met_or_missed_only_where_all_repeats_agree(values, met, median):
    module = benchmark(values)
    table, targets = run.repeated(module, None)
    (row,) = targets.to_dict("records")
    assert row == {"target": "ours / theirs", "measured": pytest.approx(median), "lowest": min(values),
                   "highest": max(values), "at_most": 1.0, "met": met}  # fmt: skip
    assert list(table.relative) == list(values) and list(table.repeat) == list(range(1, len(values) + 1))
    assert module.asked == [4] * len(values)


def test_rounds_in_all_may_be_given():
    module = benchmark([0.1] * 3)
    run.repeated(module, 2)
    assert module.asked == [1, 1, 1]


def test_the_page_has_a_row_per_target_and_keeps_its_text():
    page = run.PAGE.read_text(encoding="utf-8")
    targets = pd.DataFrame([{"target": "ours / theirs", "size": 32, "measured": 1.234, "lowest": 1.1, "highest": 1.3,
                             "at_least": 1.6, "met": "no"}])  # fmt: skip
    once = run.paged(page, {"laplacian_gan": targets}, {"processor": "toy", "accelerator": None})
    row = "| `laplacian_gan` | ours / theirs (32) | ≥ 1.6 | 1.23 | 1.1 | 1.3 | no |"
    assert row in once and "processor toy.\n" in once
    assert once == run.paged(once, {"laplacian_gan": targets}, {"processor": "toy"})
    assert once.split(run.BEGIN)[0] == page.split(run.BEGIN)[0] and once.split(run.END)[1] == page.split(run.END)[1]


def test_the_page_explains_every_benchmark_and_target():
    text, measured = run.PAGE.read_text(encoding="utf-8").split("## Measured")
    rows = [line.split(" | ") for line in measured.splitlines() if line.startswith("| `")]
    assert {row[0].strip("| `") for row in rows} == set(run.BENCHMARKS)
    for name in run.BENCHMARKS:
        assert f"| `{name}` |" in text
    for _, target, *_ in rows:
        what = re.sub(r"( \(\w+\))?(, (time|s|MB))?$", "", target)
        assert f"| {what}" in text, f"{target} is not explained"


def test_a_page_of_some_benchmarks_is_refused(capsys):
    with pytest.raises(SystemExit):
        run.main(["recognition", "--page"])
    assert "all benchmarks" in capsys.readouterr().err


def test_the_classic_loader_gives_the_images_for_ever():
    pixels = torch.randint(0, 256, (7, 3, 8, 8), dtype=torch.uint8)
    batches = list(itertools.islice(classic.loader(pixels, 3, workers=0), 5))
    assert all(batch.shape == (3, 3, 8, 8) for batch in batches)
    known = {image.numpy().tobytes() for image in as_float(pixels)}
    found = {image.numpy().round(6).tobytes() for batch in batches[:2] for image in batch}
    assert len(found) == 6 and len(known) == 7
    closest = torch.cdist(batches[0].flatten(1), as_float(pixels).flatten(1)).min(1).values
    assert closest.max() < 1e-4


def test_both_steps_are_compared_in_one_run():
    table = laplacian_gan.compare_steps(32, width=4, batch_size=4, steps=1, rounds=1, workers=0)
    assert list(table.step) == ["classic example", "ours, float32", "ours, bf16"]
    assert table.relative[0] == 1 and (table.images_per_second > 0).all()


# -- planted defects -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "old", "new", "tests"), [(*fault, faults.tests_of(fault[0]))[:4] for fault in faults.FAULTS]
)
def test_each_defect_can_still_be_planted(module, old, new, tests):
    code = (ROOT / "lib" / f"{module}.py").read_text(encoding="utf-8")
    assert code.count(old) == 1 and old != new and (ROOT / tests).is_file()


@pytest.mark.parametrize(("new", "noticed"), [("1 - 1", True), ("2 - 0", False)])
def test_a_defect_counts_as_caught_where_the_tests_fail(tmp_path, new, noticed):
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "sum.py").write_text("TWO = 1 + 1\n")
    (tmp_path / "test_sum.py").write_text("from lib.sum import TWO\n\n\ndef test_two():\n    assert TWO == 2\n")
    assert faults.caught(tmp_path, "sum", "1 + 1", new, "test_sum.py") == noticed
    assert (tmp_path / "lib" / "sum.py").read_text() == "TWO = 1 + 1\n"


def test_tests_that_fail_in_any_case_catch_nothing(tmp_path, monkeypatch):
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "sum.py").write_text("TWO = 1 + 1\n")
    (tmp_path / "test_sum.py").write_text("def test_two():\n    assert False\n")
    monkeypatch.setattr(faults, "ROOT", tmp_path)
    monkeypatch.setattr(faults, "FAULTS", [("sum", "1 + 1", "1 - 1", "test_sum.py")])
    with pytest.raises(SystemExit, match=r"test_sum.py fails without a defect"):
        faults.main([])
