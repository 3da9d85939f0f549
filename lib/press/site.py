"""`make site`: the results of one profile as a folder of static pages, `build/site/`, to read in a browser.

`index.html` shows every figure and table of the profile, over all seeds and of each, with its provenance; the executed
notebooks are pages beside it. The folder is self-contained, which a content security policy enforces: styles and
scripts are inlined, formulas are MathML.
"""

import argparse
import html
import re
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jinja2
import nbformat
from fontTools import subset
from fontTools.ttLib import TTFont
from latex2mathml.converter import convert as to_mathml
from markupsafe import Markup
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from PIL import Image
from pygments.formatters import HtmlFormatter

from lib import paths
from lib.press import jobs
from lib.press.parameters import ParameterError
from lib.press.verify import Scope, not_in_git, scopes

TEMPLATES = Path(__file__).parent / "templates"
# The first digit in an id, such as fig34_loss_curves, is the study's. The page follows this order.
SECTIONS = {  # title, and in the bar at the top
    "0": ("Overview", "Overview"),
    "7": ("Claims: reported and reproduced", "Claims"),
    "1": ("Laplacian-pyramid GAN", "Pyramid GAN"),
    "2": ("Categorical similarity learning", "Categories"),
    "3": ("Corregularization", "Filters"),
    "4": ("Emergency recognition at home with Whisper", "Emergencies"),
    "": ("Other results", "Others"),
}
# What the source reports is shown as it stands there; these columns come first in the table of claims.
REPORTED = ("source", "reported_fid", "reported_lpips")
CLAIMS, FIRST = "tab71_claims", ("statement", "source", "ours", "sd", "unit", "status")
# Hangul for readers whose machine has none; without importing the package, which changes matplotlib.
FONT = Path(find_spec("koreanize_matplotlib").origin).parent / "fonts" / "NanumGothic.ttf"
UNREADABLE = ("TSI0", "TSI1", "TSI2", "TSI3", "TSI5")  # left in it by an editor; browsers then refuse the font
HANGUL = re.compile("[\u1100-\u11ff\u3130-\u318f\uac00-\ud7af]")
# Ids as they stand in a notebook's calls.
SAVED = re.compile(r"(?:save_figure|save_table|Result)\(\s*\"(\w+)\"")
SHOWN_TYPES = ("image/png", "image/jpeg", "image/svg+xml", "text/html", "text/markdown", "text/latex", "text/plain")


@dataclass(frozen=True)
class Version:
    """A figure or table as one seed's run, or the run over all seeds, made it."""

    label: str  # "seed 0" or "all seeds"
    place: str  # where its files are, relative to the page, without their endings
    sidecar: dict[str, Any]
    files: tuple[str, ...]  # endings of the files that can be had
    size: tuple[int, int]  # pixels, of a figure
    notebook: str | None  # address of the executed notebook's page

    @property
    def origin(self) -> dict[str, Any]:
        return self.sidecar["provenance"]

    @property
    def columns(self) -> list[tuple[str, int, bool, bool]]:
        """Of each column of a table, as shown: name, place in a row, whether all are numbers, whether to the digit."""
        names = self.sidecar["columns"]
        first = FIRST if self.place.endswith(CLAIMS) else ()
        order = sorted(range(len(names)), key=lambda at: first.index(names[at]) if names[at] in first else len(first))
        values = {at: [row[at] for row in self.sidecar["data"] if row[at] is not None] for at in order}
        return [(names[at], at, all(map(_is_number, values[at])), names[at] in REPORTED) for at in order]

    @property
    def alt(self) -> str:
        return f"{self.sidecar['caption']} ({self.label})"

    @property
    def data(self) -> list[str]:
        """Such as "CIFAR-10, 50,000 train images", one line for each data set."""
        lines = [f"{data['name']}, {data['count']:,} {data['split']} {data.get('unit', 'images')}"
                 for data in self.origin["data"]]  # fmt: skip
        return list(dict.fromkeys(lines)) or ["none"]

    @property
    def seeds(self) -> list[int]:
        seed = self.origin["seed"]
        return seed if isinstance(seed, list) else [seed]

    @property
    def time(self) -> str:
        """When it was made, and how long after its run had started."""
        return f"{self.origin['made'][:16].replace('T', ' ')} UTC, {self.origin['seconds']:.0f} s into the run"


@dataclass(frozen=True)
class Entry:
    """A figure or table with all its versions; the first is shown large."""

    id: str
    versions: tuple[Version, ...]

    @property
    def kind(self) -> str:
        return self.versions[0].sidecar["kind"]

    @property
    def number(self) -> str:
        """`Figure 3.4` for fig34_loss_curves; the id where it holds no number."""
        found = re.match(r"(?:fig|tab)(\d)(\d+)_", self.id)
        return f"{self.kind.capitalize()} {found[1]}.{found[2]}" if found else self.id

    @property
    def order(self) -> tuple:
        found = re.match(r"\D+\d(\d+)", self.id)
        return self.kind, int(found[1]) if found else 0, self.id

    @property
    def section(self) -> str:
        found = re.match(r"(?:fig|tab)(\d)\d", self.id)
        return found[1] if found and found[1] in SECTIONS else ""


def write(profile: str) -> Path:
    """Write the pages of a profile's results; returns the address of the first.

    The folder appears whole or not at all. ParameterError where the profile has no results.
    """
    places = scopes(profile)
    if not any(scope.sidecars for scope in places):
        raise ParameterError(f"{profile} has no results: run `make figures PROFILE={profile}` first")
    if unreadable := [f"{scope.name}/{name}.json" for scope in places for name in scope.unreadable]:
        raise ParameterError(f"{unreadable[0]} cannot be read as JSON; `make verify` tells what else is wrong")
    target = paths.build() / "site"
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=".site-", dir=target.parent))
    try:
        folder.chmod(0o755)  # a temporary folder is its owner's alone; pages are for a web server, too
        notebooks = {scope.name: _notebooks(scope, folder) for scope in places}
        entries: dict[str, list[Version]] = {}
        for scope in places:
            for identity, sidecar in scope.sidecars.items():
                picture = scope.folder / f"{identity}.png"
                if sidecar["kind"] == "figure" and not picture.exists() and not_in_git(picture):
                    continue  # drawn over all seeds
                entries.setdefault(identity, []).append(_version(scope, identity, notebooks[scope.name], folder))
        _index(profile, [Entry(identity, tuple(found)) for identity, found in entries.items()], notebooks, folder)
        _font(folder)
        shutil.rmtree(target, ignore_errors=True)
        folder.replace(target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return target / "index.html"


def _version(scope: Scope, identity: str, notebooks: dict[str, dict], folder: Path) -> Version:
    """One version, its files copied into `folder`."""
    sidecar, files, size = scope.sidecars[identity], [], (0, 0)
    place = f"figures/{scope.name}/{identity}"
    (folder / place).parent.mkdir(parents=True, exist_ok=True)
    for ending in ("png", "csv", "json"):
        source = scope.folder / f"{identity}.{ending}"
        if source.exists():
            shutil.copyfile(source, folder / f"{place}.{ending}")
            files.append(ending)
    if sidecar["kind"] == "figure":
        if "png" not in files:
            raise ParameterError(
                f"{scope.name}/{identity}.png is missing; `make verify` tells what else is, and what to do"
            )
        with Image.open(folder / f"{place}.png") as picture:
            size = picture.size
    page = notebooks.get(sidecar["provenance"]["notebook"])
    address = page and page["address"] + (f"#{page['anchors'][identity]}" if identity in page["anchors"] else "")
    return Version(scope.folder.name.replace("-", " ") if scope.seed is not None else "all seeds", place, sidecar,
                   tuple(files), size, address)  # fmt: skip


def _index(profile: str, entries: list[Entry], notebooks: dict[str, dict[str, dict]], folder: Path) -> None:
    sections = []
    for key, (title, short) in SECTIONS.items():
        mine = sorted((entry for entry in entries if entry.section == key), key=lambda entry: entry.order)
        if mine:
            sections.append({"key": key or "other", "title": title, "short": short, "entries": mine})
    pages = [
        {"scope": scope, "name": name, **page} for scope, found in notebooks.items() for name, page in found.items()
    ]
    seeds = sorted({seed for entry in entries for version in entry.versions for seed in version.seeds})
    data = list(dict.fromkeys(line for entry in entries for version in entry.versions for line in version.data))
    count = {kind: sum(entry.kind == kind for entry in entries) for kind in ("figure", "table")}
    content = _render(
        "index.html", root="", profile=profile, sections=sections, pages=pages, seeds=seeds, count=count,
        data=[line for line in data if line != "none"],
    )  # fmt: skip
    (folder / "index.html").write_text(content, encoding="utf-8")


def _font(folder: Path) -> None:
    """Write the Hangul that the pages use as a font of some kilobytes."""
    used = {character for page in folder.rglob("*.html") for character in HANGUL.findall(page.read_text("utf-8"))}
    options = subset.Options(hinting=False, drop_tables=[*subset.Options().drop_tables, *UNREADABLE])
    subsetter = subset.Subsetter(options)
    subsetter.populate(text="".join(sorted(used)))
    with TTFont(FONT, recalcTimestamp=False) as font:
        subsetter.subset(font)
        font.save(folder / "hangul.ttf")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _render(template: str, **values: Any) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "mathematics": mathematics}
    environment.globals["inlined"] = lambda name: Markup((TEMPLATES / name).read_text(encoding="utf-8"))
    return environment.get_template(template).render(values)


def number(value: Any, exact: bool = False) -> str:
    """A table's field for reading: four significant digits unless `exact`, a dash where it is missing."""
    if value is None:
        return "–"
    if not _is_number(value):
        return str(value)
    if isinstance(value, float) and not value.is_integer():
        text = f"{value:.{12 if exact else 4}g}"
    else:
        text = f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.0f}"
    return text.replace("-", "−")


# -- formulas --------------------------------------------------------------------------------


def formula(source: str, display: str) -> str:
    """TeX as MathML, `display` "inline" or "block"; the source as code where it cannot be read."""
    try:
        return to_mathml(source.strip(), display=display)
    except Exception:  # the converter raises whatever its parser met
        return f"<code>{html.escape(source)}</code>"


def mathematics(text: str) -> Markup:
    """Plain text as HTML, `$…$` in it as formulas."""
    parts = re.split(r"(?<![\\$])\$([^$]+)\$(?!\$)", text)
    return Markup("").join(
        Markup(formula(part, "inline")) if odd % 2 else Markup.escape(part) for odd, part in enumerate(parts)
    )


class _Renderer(IPythonRenderer):
    """Markdown with its formulas as MathML and not as TeX for a script from elsewhere."""

    def block_math(self, body: str) -> str:
        return formula(body, "block")

    def inline_math(self, body: str) -> str:
        return formula(body, "inline")

    def latex_environment(self, name: str, body: str) -> str:
        return formula(rf"\begin{{{name}}}{body}\end{{{name}}}", "block")


class _Exporter(HTMLExporter):
    """nbconvert's bare page body, without its addresses of scripts."""

    def __init__(self, **options: Any):
        super().__init__(template_name="basic", embed_images=True, exclude_anchor_links=True, **options)

    @jinja2.pass_context
    def markdown2html(self, context, source: str) -> str:
        place = context.get("resources", {}).get("metadata", {}).get("path", "")
        attachments = context.get("cell", {}).get("attachments", {})
        renderer = _Renderer(
            escape=False, attachments=attachments, embed_images=True, path=place, exclude_anchor_links=True
        )
        return MarkdownWithMath(renderer=renderer).render(source)


# -- notebooks -------------------------------------------------------------------------------


def _notebooks(scope: Scope, folder: Path) -> dict[str, dict[str, Any]]:
    """Write a page for each executed notebook of a scope; by name its `address`, `title` and `anchors` of ids.

    A notebook that was not executed here, as in a fresh clone, has no page.
    """
    pages = {}
    exporter = _Exporter()
    for notebook in scope.records:
        path = jobs.executed(f"{scope.name}/{notebook}")
        if not path.exists():
            continue
        content = nbformat.read(path, as_version=4)
        anchors = _prepare(content, lambda identity: scope.sidecars.get(identity, {}).get("caption"))
        body, _ = exporter.from_notebook_node(content, {"metadata": {"path": str(paths.NOTEBOOKS)}})
        address = f"notebooks/{scope.name}/{notebook}.html"
        title = _title(content) or notebook
        where = "all seeds" if scope.seed is None else f"seed {scope.seed}"
        page = _render(
            "notebook.html", title=title, name=notebook, where=where, body=Markup(body),
            root="../" * address.count("/"), pygments=_pygments(),
        )  # fmt: skip
        (folder / address).parent.mkdir(parents=True, exist_ok=True)
        (folder / address).write_text(page, encoding="utf-8")
        pages[notebook] = {"address": address, "title": title, "anchors": anchors}
    return pages


def _prepare(content: nbformat.NotebookNode, caption: Callable[[str], str | None]) -> dict[str, str]:
    """Keep what a static page can show, give pictures their captions as alternative texts; the cells of all ids."""
    anchors = {}
    for cell in content.cells:
        if cell.cell_type != "code":
            continue
        saved = SAVED.findall(cell.source)
        anchors |= {identity: f"cell-id={cell.id}" for identity in saved}
        captions = [caption(identity) for identity in saved if identity.startswith("fig")]
        cell.outputs = [output for output in cell.outputs if _keep_shown(output)]
        pictures = [output for output in cell.outputs if "image/png" in output.get("data", {})]
        for index, output in enumerate(pictures):
            text = captions[index] if index < len(captions) else None
            output.metadata["image/png"] = {"alt": text or "Output of the cell above"}
    return anchors


def _keep_shown(output: nbformat.NotebookNode) -> bool:
    """Remove scripts and widgets from an output; whether anything is left of it."""
    if "data" not in output:
        return True
    output.data = {kind: value for kind, value in output.data.items() if kind in SHOWN_TYPES}
    return bool(output.data)


def _title(content: nbformat.NotebookNode) -> str | None:
    for cell in content.cells:
        if cell.cell_type == "markdown" and (found := re.search(r"^# +(.+)$", cell.source, re.MULTILINE)):
            return found[1]
    return None


def _pygments() -> Markup:
    light, dark = (HtmlFormatter(style=style).get_style_defs(".highlight") for style in ("default", "github-dark"))
    return Markup(f"{light}\n@media screen and (prefers-color-scheme: dark) {{\n{dark}\n}}")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m lib.press.site", description=__doc__.splitlines()[0])
    parser.add_argument("--profile", default="quick", help="a folder of figures/")
    options = parser.parse_args(arguments)
    try:
        jobs.ready(paths.build() / "site")
        page = write(options.profile)
    except ParameterError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    size = sum(path.stat().st_size for path in page.parent.rglob("*") if path.is_file()) / 1e6
    print(f"{jobs.short(page)}: open it in a browser, or put its folder ({size:.0f} MB) on any web server")
    return 0


if __name__ == "__main__":
    sys.exit(main())
