"""The source's numbers beside ours: what may be called reproduced, and that no result is typed by hand."""

import ast
import json
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from lib import paths
from lib.press import claims
from lib.press.claims import Claim, Found, Ours, find, load, status, table

PAPER = paths.ROOT / "paper"
SETTINGS = {0.05, 95.0}  # the level of the tests and of the intervals
NO_RESULTS = {
    "README.md": {1.5, 2.3, 3.11},  # GB of memory; Python
    "CHANGELOG.md": {0.1, 0.2, 0.5},  # temperatures
    "5-data.md": {0.2},  # seconds
    "01_laplacian_gan.ipynb": {0.1, 0.999},  # betas of AdamW
    "02_categorical_similarity.ipynb": {0.2, 2.3979, 3.5835},  # worked examples of the agreement and the loss
    "03_corregularization.ipynb": {30.0},  # share of filters that are pruned
    "04_emergency_whisper.ipynb": {0.2, 0.72, 10.0, 100.0},  # seconds; ranks of accuracy; the error of an empty page
    # Chance; the source's vote if its three voters erred independently.
    "06_emergency_ensemble.ipynb": {50.0, 99.98},
    "filters.typ": {0.9},  # the absolute cosine from which two filters are near-duplicates
    "emergencies.typ": {0.2, 0.72, 92.0},  # seconds, twice; 46 of ESC-50's 50 classes, which are no emergencies
}
CLAIM = Claim("a", "accuracy", 90.0, "%", "higher", "AI Hub", "slide 1", Ours("tab1", "accuracy", {"arm": "CNN"}))


def results(folder, values, data="AI Hub", **columns):
    for seed, value in enumerate(values):
        (folder / f"seed-{seed}").mkdir(parents=True)
        rows = [{"arm": "CNN", "accuracy": value, **columns}, {"arm": "other", "accuracy": 0, **columns}]
        pd.DataFrame(rows).to_csv(folder / f"seed-{seed}" / "tab1.csv", index=False)
        (folder / f"seed-{seed}" / "tab1.json").write_text(json.dumps({"provenance": {"data": [{"name": data}]}}))
    return folder


def test_values_over_seeds_are_those_of_the_selected_row(tmp_path):
    shown = table([CLAIM], results(tmp_path, [89, 90, 94]), range(3)).iloc[0]
    assert (shown.ours, shown.sd, shown.seeds) == (91, np.std([89, 90, 94], ddof=1), 3)
    assert shown.status == "reproduced"


@pytest.mark.parametrize("inside", [True, False])
def test_reproduced_is_the_prediction_interval(inside):
    values = (80.0, 81.0, 82.0)  # t(0.975, 2) = 4.302653, sd = 1: half = 4.968275
    claim = replace(CLAIM, value=81 + 4.968275 + (-1e-4 if inside else 1e-4))
    assert (status(claim, Found(values, "AI Hub")) == "reproduced") == inside


@pytest.mark.parametrize(
    ("claim", "found"),
    [
        (CLAIM, Found((90.0,) * 3, "ESC-50")),
        (replace(CLAIM, data=None), Found((90.0,) * 3, "AI Hub")),
        (CLAIM, Found((90.0,) * 3, "AI Hub", unmet="extractor: domain")),
        (CLAIM, Found((90.0,) * 2, "AI Hub")),
    ],
)
def test_equal_values_are_not_reproduced_on_other_data_features_or_few_seeds(claim, found):
    assert status(claim, found).startswith("not run at this scale: ")


def test_needs_are_read_from_the_rows(tmp_path):
    needing = replace(CLAIM, ours=replace(CLAIM.ours, needs={"extractor": "inception"}))
    found = find(needing, results(tmp_path, [90] * 3, extractor="domain (shapes)"), range(3))
    assert status(needing, found) == "not run at this scale: extractor: domain (shapes)"


def test_another_column_counts_where_the_first_has_no_value(tmp_path):
    folder = results(tmp_path, [np.nan, 90], validation=80.0)
    assert find(replace(CLAIM, ours=replace(CLAIM.ours, otherwise="validation")), folder, range(2)).values == (80, 90)


def test_order_to_the_other_claim_counts():
    other = replace(CLAIM, id="b", value=80.0), Found((91.0,) * 3, "AI Hub")
    assert status(CLAIM, Found((89.0, 90.0, 91.0), "AI Hub"), other) == "differs in its order to b"


def test_a_missing_value_is_not_reproduced(tmp_path):
    found = find(CLAIM, results(tmp_path, [90, float("nan"), 90]), range(3))
    assert status(CLAIM, found) == "not measured: no value in 1 of 3 seeds"
    assert status(replace(CLAIM, direction="count"), found).startswith("not measured: ")
    other = replace(CLAIM, id="b", value=80.0), found  # without our value there is no order to compare
    assert status(CLAIM, Found((89.0, 90.0, 91.0), "AI Hub"), other) == "reproduced"


def test_of_several_data_sets_the_first_is_compared(tmp_path):
    folder = results(tmp_path, [89, 90, 94], dataset="AI Hub")
    for path in folder.glob("*/tab1.csv"):
        rows = pd.read_csv(path)
        pd.concat([rows, rows.assign(dataset="CelebA", accuracy=1.0)]).to_csv(path, index=False)
        about = {"provenance": {"data": [{"name": "AI Hub"}, {"name": "CelebA"}]}}
        path.with_suffix(".json").write_text(json.dumps(about))
    assert find(CLAIM, folder, range(3)) == Found((89, 90, 94), "AI Hub")
    assert status(CLAIM, find(CLAIM, folder, range(3))) == "reproduced"


def test_missing_table_is_not_run(tmp_path):
    assert status(CLAIM, find(CLAIM, tmp_path, [0])).startswith("not run: ")


def test_wrong_column_and_row_are_told(tmp_path):
    folder = results(tmp_path, [90])
    with pytest.raises(KeyError, match="recall"):
        find(replace(CLAIM, ours=Ours("tab1", "recall", {"arm": "CNN"})), folder, [0])
    with pytest.raises(ValueError, match="size 1"):
        find(replace(CLAIM, ours=Ours("tab1", "accuracy", {})), folder, [0])


def test_a_row_that_a_data_set_does_not_give_is_not_run(tmp_path):
    assert find(replace(CLAIM, ours=Ours("tab1", "accuracy", {"arm": "x"})), results(tmp_path, [90]), [0]) is None


def test_of_several_rows_the_largest_may_be_taken(tmp_path):
    several = replace(CLAIM, ours=Ours("tab1", "accuracy", {}, take="max"))
    assert find(several, results(tmp_path, [90]), [0]).values == (90,)


def test_a_count_is_reproduced_by_an_equal_mean_alone():
    count, found = replace(CLAIM, direction="count"), Found((89.0, 90.0, 91.0), "AI Hub")
    assert status(count, found) == "reproduced" and status(replace(count, value=91.0), found) == "differs by -1 %"


def test_the_rows_of_every_claim_are_in_the_committed_tables():
    """Results on the built-in data have all kinds of rows, so a claim that finds none has a mistyped name."""
    folder = paths.ROOT / "figures" / "quick"
    for claim in claims.load():
        if claim.ours:
            assert find(claim, folder, [0]) is not None, claim.id


def test_entries_are_consistent():
    """Entries of `paper/claims.yaml` have no mistyped names or values."""
    every = {claim.id: claim for claim in load()}
    assert len(every) == len(load())
    for claim in every.values():
        assert claim.than is None or claim.than in every, claim.id
        assert claim.direction in ("higher", "lower", "none", "count"), claim.id
        assert type(claim.value) in (int, float), claim.id
        assert (claim.ours is None) == bool(claim.reason), claim.id
        assert claim.ours is None or claim.ours.take in ("only", "max"), claim.id


@pytest.mark.parametrize("profile", ["quick", "public"])
def test_the_sources_claims_fit_the_committed_tables(profile):
    shown = table(load(), paths.ROOT / "figures" / profile, [0, 1, 2])
    assert not shown.status.eq("reproduced").any()  # neither profile runs on the source's data
    assert shown[shown.id.str.startswith("s1-")].seeds.gt(0).all()


def test_counts_of_the_source_agree_with_each_other():
    value = {claim.id: claim.value for claim in claims.load()}
    assert value["s4-training"] + value["s4-validation"] + value["s4-test"] == value["s4-clips"]


def readers_text():
    """Yield the name and text of all that may state findings: documents, notebooks' Markdown and strings, the paper."""
    for path in [paths.ROOT / "README.md", paths.ROOT / "CHANGELOG.md", *sorted((PAPER / "cards").glob("*.md"))]:
        # The README's table of results is looked up: tests/test_readme.py.
        text = re.sub(r"<!-- results.*?<!-- end of results -->", " ", path.read_text("utf-8"), flags=re.DOTALL)
        yield path.name, re.sub(r"^```.*?^```", " ", text, flags=re.DOTALL | re.MULTILINE)
    for path in sorted(paths.NOTEBOOKS.glob("*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        told = {kind: [] for kind in ("markdown", "code")}
        for cell in cells:
            told[cell["cell_type"]].append("".join(cell["source"]))
        yield path.name, "\n\n".join(told["markdown"] + [words for code in told["code"] for words in literals(code)])
    for path in sorted(PAPER.rglob("*.typ")):
        yield path.name, typst_words(path.read_text(encoding="utf-8"))


def literals(code):
    """Captions and notes in a cell: its strings, without the values filled into f-strings."""
    found = [node.value for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Constant)]
    return [text for text in found if isinstance(text, str) and " " in text]


def typst_words(source):
    """Text and captions, without comments, quoted names and lengths."""
    return re.sub(r"//.*|\"[^\"\n]*\"|\b(?:width|inset|size|radius): *[\d.]+(?:%|em|pt)", " ", source)


MEASURES = "FID|KID|LPIPS|NMI|CER|[Aa]ccurac(?:y|ies)|[Ee]rror rate|[Rr]ecall"


def typed_results(text):
    """Decimals, percentages, points and values of measures, outside code, links, formulas, headings and licences."""
    prose = re.sub(
        r"\bCC BY[A-Z-]* \d\.\d|`[^`]*`|\$\$.*?\$\$|\$[^$]*\$|\]\([^)]*\)|^#{1,6} [^\n]*",
        " ",
        text,
        flags=re.DOTALL | re.MULTILINE,
    )
    number = r"(?<![\w.])(\d+(?:\.\d+)?)"
    found = re.findall(rf"{number}(?=\s*(?:%|percent|points?\b))|(?<![\w.])(\d+\.\d+)(?!\w|\.\d)", prose)
    found += re.findall(rf"\b(?:{MEASURES})\b(?: \w+)? (?:of|is|are|was|to|reaches|at) {number}", prose)
    return list(dict.fromkeys("".join(groups) for groups in found))


def test_typed_results_are_found():
    assert typed_results("# 1.1 Heading\n\nFID 3.5\n\n## 1.2 Another\n\nCC BY-NC 3.0, FID 4.5.") == ["3.5", "4.5"]
    assert typed_results("FID is 12.5, accuracy 93 %, `lr=0.1`, $x = 0.5$, [tab](a-1.5.csv), 3 seeds") == ["12.5", "93"]
    assert typed_results("gains 2 points to 61 percent; FID falls to 12, version 0.1.0") == ["2", "61", "12"]
    assert literals('note = f"{3} of 1.5 GB"\nx = "tab13"') == [" of 1.5 GB"]
    assert typed_results(typst_words('#fig("fig1.5", width: 80%)\n#tab("a", caption: [It is 7.5.]) // 8.5')) == ["7.5"]


@pytest.mark.parametrize(("name", "text"), [pytest.param(*found, id=found[0]) for found in readers_text()])
def test_no_result_is_typed_by_hand(name, text):
    allowed = {claim.value for claim in load()} | SETTINGS | NO_RESULTS.get(name, set())
    typed = [number for number in typed_results(text) if float(number) not in allowed]
    assert not typed, (
        f"{name}: {', '.join(typed)} looks like a result. Results come from figures/ and paper/claims.yaml and are not "
        "typed; a setting goes to NO_RESULTS above, with what it is."
    )
