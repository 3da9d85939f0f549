"""The paper: complete from the committed results, byte-identical every time, and clear about what is missing."""

import json
import re
import shutil

import numpy as np
import pandas as pd
import pypdf
import pytest
import yaml
from matplotlib.figure import Figure
from PIL import Image
from toy import point_at

from lib import paths
from lib.press import paper, workflow
from lib.press.parameters import ParameterError
from lib.press.run import Run

ADDRESS = "https://github.com/you/four-studies"


def text_of(path) -> str:
    return "\n".join(page.extract_text() for page in pypdf.PdfReader(path).pages)


def links(path) -> set[str]:
    notes = [note.get_object() for page in pypdf.PdfReader(path).pages for note in page.get("/Annots", [])]
    return {note["/A"]["/URI"] for note in notes if "/URI" in note.get("/A", {})}


def plain(text: str) -> str:
    # Hyphen and soft hyphen share a glyph of the font, which the PDF maps to whichever comes first.
    return re.sub(r"\s+", " ", text.replace("\xad", "-"))


# -- sources ---------------------------------------------------------------------------------


def sources() -> str:
    return "\n".join(path.read_text(encoding="utf-8") for path in sorted(paper.SOURCES.rglob("*.typ")))


def test_what_is_cited_is_what_is_listed():
    listed = set(re.findall(r"^@\w+\{(\w+),", (paper.SOURCES / "references.bib").read_text(encoding="utf-8"), re.M))
    cited = set(re.findall(r"(?<![\w\"])@([a-z](?:[\w-]*\w)?)", sources()))
    results = set(re.findall(r"(?:fig|tab)\((?:spoken\()?\"(\w+)\"|named: \"(\w+)\"", sources()))
    results = {name for pair in results for name in pair}
    labels = results | set(re.findall(r"<([\w-]+)>", sources()))
    assert cited - labels == listed


def test_columns_that_are_asked_for_exist():
    """In the table of one seed or the one over all seeds; a column that neither has would silently be left out."""
    asked = re.findall(r"#tab\(\"(?:\w+:)?(\w+)\", \((.*?)\)(?:, \w+:.*)?\)$", sources(), re.MULTILINE)
    assert len(asked) > 10
    for name, columns in asked:
        tables = [path for path in (paths.ROOT / "figures").rglob(f"{name}.csv") if "smoke" not in path.parts]
        known = {column for path in tables for column in pd.read_csv(path, nrows=0).columns}
        assert set(re.findall(r"(\w+): (?:\"|\[)", columns)) <= known, name


def test_every_figure_of_the_source_has_its_counterpart():
    listed = yaml.safe_load(paths.CLAIMS.read_text(encoding="utf-8"))["figures"]
    numbered = {study: [entry["figure"] for entry in listed if entry["study"] == study] for study in (2, 3, 4)}
    assert numbered == {study: [f"그림 {k}" for k in range(1, last + 1)] for study, last in ((2, 5), (3, 6), (4, 13))}
    shown = set(re.findall(r"(?:#(?:fig|tab)\((?:spoken\()?|named: )\"(\w+)\"", sources()))
    assert {entry["ours"] for entry in listed} <= shown


# -- from the committed results ----------------------------------------------------------------


@pytest.fixture(scope="module")
def committed(tmp_path_factory):
    """The paper of profile public, of a repository with a public address."""
    root = tmp_path_factory.mktemp("paper")
    (root / "figures").symlink_to(paths.ROOT / "figures")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OUTPUT_ROOT", str(root))
        patch.setattr(paper, "PROJECT", root / "pyproject.toml")
        paper.PROJECT.write_text(f'[project.urls]\nRepository = "{ADDRESS}"\n')
        yield paper.write("public")


@pytest.fixture(scope="module")
def text(committed):
    return plain(text_of(committed))


def test_nothing_is_missing(text):
    assert "has not been made" not in text and "no tab" not in text and "Missing." not in text


def test_numbers_are_those_of_the_tables(text):
    table = pd.read_csv(paths.ROOT / "figures" / "public" / "tab31_accuracy.csv")
    row = table[(table.condition == "first experiment") & (table.arm == "Gram")].iloc[0]
    assert f"{row['mean']:.3g} ± {row.sd:.2g}" in text


def test_the_source_is_quoted_to_the_digit(text):
    assert all(number in text for number in ("159.12", "0.4803", "99.93", "12,102"))


def test_hangul_is_set_in_a_font_that_has_it(committed):
    reader = pypdf.PdfReader(committed)
    assert "강경헌" in reader.pages[0].extract_text()
    fonts = {str(font.get_object()["/BaseFont"]) for font in reader.pages[0]["/Resources"]["/Font"].values()}
    assert any("NanumGothic" in font for font in fonts) and any("Libertinus" in font for font in fonts)


def test_captions_name_data_profile_notebook_and_commit(text):
    sidecar = json.loads((paths.ROOT / "figures" / "public" / "fig35_correlation.json").read_text(encoding="utf-8"))
    assert plain(sidecar["caption"]) in text and plain(sidecar["origin"]) in text
    assert f"notebooks/07_results.ipynb, commit {sidecar['provenance']['commit'][:7]}" in text


def test_captions_lead_to_the_notebook_and_its_commit(committed):
    sidecar = json.loads((paths.ROOT / "figures" / "public" / "fig35_correlation.json").read_text(encoding="utf-8"))
    commit = sidecar["provenance"]["commit"][:40]
    assert {f"{ADDRESS}/blob/{commit}/notebooks/07_results.ipynb", f"{ADDRESS}/commit/{commit}"} <= links(committed)


def test_nothing_leads_to_a_repository_without_an_address(few, monkeypatch, tmp_path):
    monkeypatch.setattr(paper, "PROJECT", tmp_path / "pyproject.toml")
    paper.PROJECT.write_text('[project.urls]\nRepository = "https://github.com/OWNER/four-studies"\n')
    made = paper.write("quick")
    assert "notebooks/03_corregularization.ipynb, commit" in plain(text_of(made))
    assert not any("github.com" in link for link in links(made))


def test_a_figure_that_a_caption_names_by_its_id_is_named_by_its_number_here(text):
    assert "the three images of figure 21" not in text
    assert re.search(r"the three images of Figure \d+ as vectors", text)


def test_the_data_behind_are_listed_with_their_checksums(text):
    record = json.loads((paths.ROOT / "figures/public/seed-0/05_emergency_cnn.json").read_text(encoding="utf-8"))
    assert record["data"] and all(used["checksum"][:12] in text for used in record["data"])


def test_the_same_results_give_the_same_bytes(committed):
    before = committed.read_bytes()
    paper.write("public")
    assert committed.read_bytes() == before


# -- from few or damaged results ----------------------------------------------------------------


@pytest.fixture
def few(tmp_path, monkeypatch):
    """One figure and one table of one seed."""
    cell = 'profile = "quick"\nseed = 0\ndevice = "cpu"'
    point_at(tmp_path, monkeypatch, dict.fromkeys(("01_laplacian_gan", "03_corregularization"), cell))
    run = Run("03_corregularization", {"profile": "quick", "seed": 0, "device": "cpu"})
    figure = Figure(figsize=(2, 1))
    figure.add_subplot().plot([0, 1])
    frame = pd.DataFrame({"condition": ["first experiment"] * 2, "arm": ["plain", "Gram"], "mean": [1234.5, -0.0625]})
    run.save_figure("fig35_correlation", figure, frame, caption="A line of *its* own, 50 % & <more> $x_i$ @all.")
    run.save_table("tab31_accuracy", frame, caption="Accuracy.")
    run.finish()
    return tmp_path / "figures" / "quick" / "seed-0"


def test_a_picture_is_shown_without_its_line_of_provenance(few):
    """That grey line is below a gap; the rest is the whole drawing."""
    path = few / "fig35_correlation.png"
    found = paper._picture(path, few.parent / "copy")
    with Image.open(path) as picture:
        grey = np.asarray(picture.convert("L"))
        assert found["proportion"] == picture.width / picture.height
    cut = round(found["shown"] * len(grey))
    assert 0.5 < found["shown"] < 1 and (grey[cut - 3 : cut + 3] > paper.WHITE).all()
    assert (grey[:cut] < 60).any() and not (grey[cut:] < 60).any() and (grey[cut:] < 200).any()
    assert paper._drawing(np.array([True] * 20)) == 1


def test_what_is_missing_becomes_a_box_with_the_command(few):
    text = plain(text_of(paper.write("quick")))
    assert 'make figures PROFILE=quick ONLY="01_laplacian_gan"' in text
    assert "fig411_architecture has not been made in this profile" in text
    assert "A line of *its* own, 50 % & <more> $x_i$ @all." in text  # a caption is text, whatever is in it
    assert "1,235" in text and "−0.0625" in text


@pytest.mark.parametrize(("name", "content"), [("fig35_correlation.json", b"{"), ("fig35_correlation.png", b"\x89PNG")])
def test_a_damaged_result_is_one_clear_error(few, capsys, name, content):
    (few / name).write_bytes(content)
    assert workflow.main(["paper", "--profile", "quick"]) == 2
    assert name in capsys.readouterr().err


def test_an_old_paper_survives_a_failed_one(few):
    made = paper.write("quick")
    before = made.read_bytes()
    (few / "fig35_correlation.png").write_bytes(b"")
    with pytest.raises(ParameterError, match="fig35_correlation.png"):
        paper.write("quick")
    assert made.read_bytes() == before


def test_sources_that_typst_refuses(few, monkeypatch, tmp_path):
    shutil.copytree(paper.SOURCES, tmp_path / "sources")
    (tmp_path / "sources" / "paper.typ").write_text("#nothing")
    monkeypatch.setattr(paper, "SOURCES", tmp_path / "sources")
    with pytest.raises(ParameterError, match="unknown variable: nothing"):
        paper.write("quick")


@pytest.mark.parametrize("profile", ["..", "", "{folder}"])
def test_a_path_is_no_profile_and_nothing_is_removed(few, profile):
    before = sorted(few.parents[1].rglob("*"))
    with pytest.raises(ParameterError, match="There is no"):
        paper.write(profile.format(folder=few))
    assert sorted(few.parents[1].rglob("*")) == before


def test_no_results_at_all(few):
    with pytest.raises(ParameterError, match="make figures PROFILE=smoke"):
        paper.write("smoke")
