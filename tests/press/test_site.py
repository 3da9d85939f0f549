"""The pages of `make site`: whole, self-contained, and usable in a real browser."""

import base64
import html.parser
import json
import re
import shutil
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from toy import notebook, point_at

from lib.press import gallery, site, workflow
from lib.press import run as module
from lib.press.run import Run

CELL = 'profile = "quick"\nseed = 0\ndevice = "cpu"'
PAGE = 'profile = "quick"\nseeds = [0, 1]'
VALUES = [3.0, -1.5, np.nan, 10.0, 2.0]
TABLE = pd.DataFrame({"arm": ["a10", "a9", "b", "c", "<d>"], "loss": VALUES, "epoch": [1, 2, 3, 4, 5]}).assign(
    **{f"a_wide_column_{number}": "a rather long text that wants its place" for number in range(6)}
)
CAPTION = "Loss <b>of</b> each arm & its bound $x_i^2$."
IDS = ["fig31_line", "fig310_last", "fig39_first", "tab31_all"]

# -- a site ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """A repository with results of two seeds and over both, with executed notebooks, and its site."""
    root = tmp_path_factory.mktemp("site")
    with pytest.MonkeyPatch.context() as patch:
        point_at(root, patch, {"03_study": CELL, "07_page": PAGE})
        (root / "profiles" / "quick.yaml").write_text("seeds: [0, 1]")
        patch.setattr(module, "_commit", lambda: "0123456789abcdef")
        for seed in (0, 1):
            save(Run("03_study", {"profile": "quick", "device": "cpu", "seed": seed}), IDS)
            executed(root / "build" / "executed" / "quick" / f"seed-{seed}" / "03_study.ipynb")
        save(Run("07_page", {"profile": "quick", "seeds": [0, 1]}), ["fig31_line", "tab31_all", "tab71_claims"])
        site.write("quick")
    return root


def save(run: Run, identities: list[str], table: pd.DataFrame = TABLE) -> None:
    for identity in identities:
        if identity.startswith("fig"):
            figure = Figure(figsize=(6, 2))
            figure.add_subplot().plot([0, 1], [0, run.seed])
            run.save_figure(identity, figure, TABLE, caption=CAPTION)
        else:
            run.save_table(identity, table, caption=CAPTION)
    run.finish()


def executed(path: Path) -> None:
    """An executed notebook, with everything that could access the network or exceed the width of a phone's screen."""
    figure = Figure(figsize=(3, 2))
    picture = path.with_suffix(".png")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture)
    output = nbformat.v4.new_output
    wide = r"$$ \sum_{i=1}^n " + " + ".join(f"x_{{{i}}}^2" for i in range(60)) + r"\, , \quad \mathbf u_i^\top $$"
    cells = [
        nbformat.v4.new_markdown_cell(
            f"# 3 · A study: 한글\n\n**Question.** Do *all* filters differ?\n\nInline $c_{{ij}} * d * e$ and\n\n{wide}"
        ),
        nbformat.v4.new_code_cell(
            f'run.save_figure("fig31_line", draw(), frame, caption="…")  # {"long " * 60}',
            outputs=[
                output(
                    "display_data",
                    {"image/png": base64.b64encode(picture.read_bytes()).decode(), "text/plain": "<Figure>"},
                ),
                output("display_data", {"application/vnd.jupyter.widget-view+json": {"model_id": "1"}}),
                output("display_data", {"application/javascript": "fetch('https://example.org')"}),
                output("execute_result", {"text/html": TABLE.to_html(), "text/plain": "table"}, execution_count=1),
                output("stream", name="stdout", text="word" * 200),
            ],
            execution_count=1,
        ),
    ]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    picture.unlink()


@pytest.fixture
def own(root, tmp_path, monkeypatch) -> Path:
    """A copy of the repository that a test may change."""
    shutil.copytree(root, tmp_path / "own")
    point_at(tmp_path / "own", monkeypatch)
    return tmp_path / "own"


class Page(html.parser.HTMLParser):
    """The references of a page, and the ids in it that references can lead to."""

    def __init__(self, path: Path):
        super().__init__()
        self.references, self.ids, self.tags = [], set(), []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.append((tag, attributes))
        self.ids |= {attributes["id"]} if "id" in attributes else set()
        self.references += [attributes[name] for name in ("src", "href", "data-src", "srcset") if name in attributes]


# -- without a browser -----------------------------------------------------------------------


def test_every_figure_and_table_of_every_seed_is_there_in_order(root):
    folder = root / "build" / "site"
    page = Page(folder / "index.html")
    entries = [attributes["id"] for tag, attributes in page.tags if tag == "article"]
    assert entries == ["tab71_claims", "fig31_line", "fig39_first", "fig310_last", "tab31_all"]
    for scope, count in (("quick", 1), ("quick/seed-0", 3), ("quick/seed-1", 3)):
        shown = [a["src"] for tag, a in page.tags if tag == "img" and a["src"].startswith(f"figures/{scope}/fig")]
        assert len(shown) == count
    assert sum(tag == "table" for tag, _ in page.tags) == 3 + 1


def test_references_stay_in_the_folder_and_lead_somewhere(root):
    folder = root / "build" / "site"
    pages = {path: Page(path) for path in folder.rglob("*.html")}
    assert len(pages) == 4  # two seeds of a notebook, one over both
    for path, page in pages.items():
        for reference in page.references:
            address = urlsplit(reference)
            if address.scheme == "data":
                continue
            assert not address.scheme and not address.netloc, f"{reference} in {path}"
            target = (path.parent / unquote(address.path)).resolve() if address.path else path
            assert target.is_relative_to(folder.resolve()) and target.is_file(), f"{reference} in {path}"
            if address.fragment:
                assert unquote(address.fragment) in pages[target].ids, f"{reference} in {path}"


def test_pictures_have_their_captions_as_alternative_texts(root):
    for path in (root / "build" / "site").rglob("*.html"):
        if path.stem == "07_page":  # which saves nothing
            continue
        pictures = [attributes for tag, attributes in Page(path).tags if tag == "img"]
        shown = [picture for picture in pictures if picture["src"] != "data:,"]
        assert shown and all(picture["alt"].startswith(CAPTION) for picture in shown)


def test_captions_are_text(root):
    text = (root / "build" / "site" / "index.html").read_text(encoding="utf-8")
    assert "Loss &lt;b&gt;of&lt;/b&gt; each arm &amp; its bound" in text and "<b>of" not in text


def test_provenance_says_where_each_result_comes_from(root):
    text = (root / "build" / "site" / "index.html").read_text(encoding="utf-8")
    sidecar = json.loads((root / "figures/quick/seed-1/fig39_first.json").read_text())
    assert sidecar["provenance"]["made"][:16].replace("T", " ") in text
    assert "0123456789abcdef" in text and 'href="notebooks/quick/seed-1/03_study.html#cell-id=' in text


def test_a_study_begins_with_its_question_and_leads_to_its_notebook(root):
    text = (root / "build" / "site" / "index.html").read_text(encoding="utf-8")
    begin = text.split('<section id="study-3"')[1].split("<article")[0]
    assert begin.count("<p>Do <em>all</em> filters differ?</p>") == 1 and "3 · A study: 한글</a> (seed 0" in begin
    assert re.findall(r'href="([^"]+)"', begin) == [f"notebooks/quick/seed-{seed}/03_study.html" for seed in (0, 1)]


def test_notebook_pages_hold_mathml_and_no_script(root):
    text = (root / "build/site/notebooks/quick/seed-0/03_study.html").read_text(encoding="utf-8")
    assert "<script" not in text and "example.org" not in text and "widget-view" not in text
    assert text.count("<math") == 2 and "$" not in text.split("<main")[1].split("save_figure")[0]


def test_the_same_results_give_the_same_bytes(own):
    folder = own / "build" / "site"
    before = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    shutil.rmtree(folder)
    site.write("quick")
    assert {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_a_seed_s_picture_may_be_left_out_where_there_is_one_over_all_seeds(own):
    (own / "figures/quick/seed-1/fig31_line.png").unlink()
    site.write("quick")
    assert (own / "build/site/figures/quick/fig31_line.png").exists()
    assert "seed-1/fig31_line" not in (own / "build/site/index.html").read_text(encoding="utf-8")


def test_a_site_that_cannot_be_written_leaves_the_last_one(own, capsys):
    (own / "figures/quick/seed-1/fig39_first.png").unlink()
    before = (own / "build/site/index.html").read_bytes()
    assert workflow.main(["site", "--profile", "quick"]) == 2
    assert "make verify" in capsys.readouterr().err
    assert (own / "build/site/index.html").read_bytes() == before
    assert [path.name for path in (own / "build").iterdir() if path.name.startswith(".site")] == []


def test_a_notebook_that_was_not_executed_here_has_its_stored_results_in_their_places(own):
    shutil.rmtree(own / "build")
    saved = ['run.save_figure("fig31_line", 1)', 'run.save_table("tab31_all", 2)', 'run.save_figure("fig99_gone", 3)']
    (own / "notebooks" / "03_study.ipynb").write_text(notebook([CELL, *saved]))
    index = site.write("quick")
    page = (index.parent / "notebooks/quick/seed-1/03_study.html").read_text(encoding="utf-8")
    picture = base64.b64encode((own / "figures/quick/seed-1/fig31_line.png").read_bytes()).decode()
    assert page.count("<img") == 1 and picture in page and "a_wide_column_5" in page and "&lt;d&gt;" in page
    assert "with the stored figures" in page and 'href="notebooks/quick/seed-1/03_study.html' in index.read_text()


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, "–"), (77.71666, "77.717"), (-0.000123456, "−0.00012346"), (1e-9, "1e−09"), (50000, "50,000"),
     (2400, "2400"), (10.0, "10"), (True, "True"), ("a-b", "a-b"), ("inf", "inf")],
)  # fmt: skip
def test_numbers_are_short_and_words_untouched(value, shown):
    assert site.number(value) == shown


@given(st.text())
def test_no_formula_breaks_a_page(source):
    """Any text between dollar signs becomes MathML or escaped code."""
    found = site.formula(source, "inline")
    assert found.startswith(("<math", "<code>")) and "<script" not in found.lower()


# -- in a browser ----------------------------------------------------------------------------


@pytest.fixture
def open_page(browser, root):
    """Opens a page of the site; afterwards there must be no browser messages and no requests outside the site."""
    complaints, asked = [], []
    folder = (root / "build" / "site").as_uri()

    def start(name: str, width: int = 1280):
        # Phones use the dark scheme, so that both schemes are tested.
        scheme = "dark" if width < 1000 else "light"
        page = browser.new_page(viewport={"width": width, "height": 844}, color_scheme=scheme)
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda sent: asked.append(sent.url))
        page.goto(f"{folder}/{name}")
        return page

    yield start
    assert complaints == []
    assert asked and all(url.startswith((folder, "data:")) for url in asked), asked


NOTEBOOK = "notebooks/quick/seed-0/03_study.html"


@pytest.mark.parametrize("name", ["index.html", NOTEBOOK])
@pytest.mark.parametrize("width", [390, 1280])
def test_pages_fit_their_screen(open_page, name, width):
    page = open_page(name, width)
    for summary in page.locator("summary").all():
        summary.click()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    # Wide content scrolls in its own box, and nothing is cut off.
    outside = """() => [...document.querySelectorAll("main *")].filter(element => {
      const right = element.getBoundingClientRect().right;
      for (let box = element; box; box = box.parentElement)
        if (["auto", "scroll"].includes(getComputedStyle(box).overflowX)) return false;
      return right > innerWidth + 1;
    }).map(element => element.outerHTML.slice(0, 80))"""
    assert page.evaluate(outside) == []
    for picture in page.locator("main img").all():
        picture.scroll_into_view_if_needed()
        page.wait_for_function("image => image.complete && image.naturalWidth > 0", arg=picture.element_handle())


def test_pictures_keep_their_place_until_they_are_loaded(open_page):
    page = open_page("index.html")
    pictures = page.locator(".large img")
    before = [pictures.nth(index).bounding_box()["height"] for index in range(pictures.count())]
    assert len(before) == 3 and min(before) > 100
    for index in range(len(before)):
        pictures.nth(index).scroll_into_view_if_needed()
        page.wait_for_function("image => image.complete", arg=pictures.nth(index).element_handle())
    after = [pictures.nth(index).bounding_box()["height"] for index in range(pictures.count())]
    assert after == pytest.approx(before, abs=1)


def test_a_click_enlarges_and_keys_lead_on(open_page):
    page = open_page("index.html")
    dialog, large = page.locator("dialog"), page.locator("dialog img")
    first = page.locator("#fig31_line a.zoom").nth(1)
    assert not dialog.is_visible()
    first.click()
    assert dialog.is_visible() and large.get_attribute("src").endswith("seed-0/fig31_line.png")
    assert large.get_attribute("alt") == f"{CAPTION} (seed 0)"
    assert large.bounding_box()["width"] > first.bounding_box()["width"]
    page.keyboard.press("ArrowRight")
    assert large.get_attribute("src").endswith("seed-1/fig31_line.png")
    page.get_by_label("Previous figure").click()
    assert large.get_attribute("src").endswith("seed-0/fig31_line.png")
    page.keyboard.press("Escape")
    assert not dialog.is_visible()
    assert page.evaluate("document.activeElement.getAttribute('href')").endswith("seed-0/fig31_line.png")


def test_everything_works_from_the_keyboard(open_page):
    page = open_page("index.html", 390)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.locator("#fig31_line a.zoom").first.focus()
    page.keyboard.press("Enter")
    assert page.locator("dialog").is_visible()
    assert page.evaluate("document.activeElement.className") == "close"
    page.keyboard.press("Enter")
    assert not page.locator("dialog").is_visible()
    page.locator("#tab31_all th button").first.press("Enter")
    page.wait_for_selector("#tab31_all th[aria-sort]")  # a busy browser sorts a moment later
    assert page.locator("#tab31_all th").first.get_attribute("aria-sort") == "ascending"


def test_words_find_the_entries_that_hold_them_all(open_page):
    page = open_page("index.html")
    box, shown = page.get_by_label("Find"), page.locator(".entry:visible")
    total = shown.count()
    box.fill("FIG39 bound")
    assert shown.count() == 1 and shown.get_attribute("id") == "fig39_first"
    assert page.locator("main section:visible").count() == 1
    assert page.locator("[role=status]").text_content() == f"1 of {total}"
    box.fill("a9 epoch")  # in tables
    assert 0 < shown.count() < total
    box.fill("")
    assert shown.count() == total


def test_claims_quote_the_source_to_the_digit(own):
    claims = pd.DataFrame({"id": ["a"], "statement": ["FID"], "where": ["slide"], "source": [159.12], "ours": [3.6812]})
    save(Run("07_page", {"profile": "quick", "seeds": [0, 1]}), ["tab71_claims"], claims)
    text = site.write("quick").read_text(encoding="utf-8").split('id="tab71_claims"')[1].split("</article>")[0]
    assert re.findall(r">([^<]*)</td>", text) == ["a", "FID", "slide", "159.12", "3.6812"]


def test_an_unreadable_record_is_one_clear_error(own, capsys):
    (own / "figures/quick/seed-1/fig39_first.json").write_text("{")
    assert workflow.main(["site", "--profile", "quick"]) == 2
    assert "quick/seed-1/fig39_first.json cannot be read" in capsys.readouterr().err


def test_a_damaged_picture_or_notebook_is_one_clear_error(own, capsys):
    (own / "figures/quick/seed-1/fig39_first.png").write_bytes(b"\x89PNG")
    assert workflow.main(["site", "--profile", "quick"]) == 2
    assert "fig39_first.png is not a readable PNG file" in capsys.readouterr().err
    executed = next((own / "build/executed").rglob("*.ipynb"))
    executed.write_text("{")
    assert workflow.main(["site", "--profile", "quick"]) == 2
    assert f"{executed.name} is not a valid notebook" in capsys.readouterr().err


def test_a_stopped_run_has_no_time(own):
    path = own / "figures/quick/seed-1/fig39_first.json"
    content = json.loads(path.read_text())
    content["provenance"]["seconds"] = None
    before = site.write("quick").read_text(encoding="utf-8").count("s into the run")
    path.write_text(json.dumps(content))
    assert site.write("quick").read_text(encoding="utf-8").count("s into the run") == before - 1
    assert (gallery.runs("quick").minutes >= 0).all()  # of the run's other results


def test_heads_sort_by_number_or_text_with_missing_values_last(open_page):
    page = open_page("index.html")
    table = page.locator("#tab31_all table").first

    def column(index: int) -> list[str]:
        return table.locator(f"tbody td:nth-child({index})").all_inner_texts()

    heads = table.locator("th button")
    heads.nth(1).click()
    assert column(2) == ["−1.5", "2", "3", "10", "–"] and column(1) == ["a9", "<d>", "a10", "c", "b"]
    assert table.locator("th").nth(1).get_attribute("aria-sort") == "ascending"
    heads.nth(1).click()
    assert column(2) == ["10", "3", "2", "−1.5", "–"]
    assert table.locator("th").nth(1).get_attribute("aria-sort") == "descending"
    heads.nth(0).click()
    assert column(1) == ["<d>", "a9", "a10", "b", "c"]
    assert table.locator("[aria-sort]").count() == 1


def test_formulas_are_drawn(open_page):
    page = open_page(NOTEBOOK)
    assert page.locator("math").count() == 2
    assert all(math.bounding_box()["height"] > 5 for math in page.locator("math").all())
