"""`make site`: write the results of one profile as static pages in `build/site/`, to read in a browser.

`index.html` shows every figure and table of the profile, over all seeds and for each seed, with its provenance. Each
notebook has its own page, as executed here or else with the stored figures and tables inserted. The folder is
self-contained, which a content security policy enforces: styles and scripts are inlined, formulas are MathML.
"""

import base64
import html
import re
import shutil
import tempfile
from itertools import zip_longest
from pathlib import Path
from typing import Any

import jinja2
import nbformat
import pandas as pd
from latex2mathml.converter import convert as to_mathml
from markupsafe import Markup
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from pygments.formatters import HtmlFormatter
from traitlets.config import Config

from lib import paths
from lib.press import gallery, jobs
from lib.press.parameters import ParameterError
from lib.press.verify import Scope, numbered, scopes, stored

TEMPLATES = Path(__file__).parent / "templates"
# Sections in page order, keyed by the first digit of an id such as fig34_loss_curves, which is the study's.
SECTIONS = {  # title, and label in the bar at the top
    "7": ("Claims: reported and reproduced", "Claims"),
    "1": ("Laplacian-pyramid GAN", "Pyramid GAN"),
    "2": ("Categorical similarity learning", "Categories"),
    "3": ("Corregularization", "Filters"),
    "4": ("Emergency recognition at home with Whisper", "Emergencies"),
    "0": ("Gallery", "Gallery"),
    "": ("Other results", "Others"),
}
# Matches the ids in the calls that save results.
SAVED = re.compile(r"(?:save_figure|save_table|Result)\(\s*\"(\w+)\"")
# Output types that a page without scripts can show, best first.
SHOWN_TYPES = ["text/html", "text/markdown", "image/svg+xml", "text/latex", "image/png", "image/jpeg", "text/plain"]


def write(profile: str) -> Path:
    """Write the pages of a profile's results and return the path of `index.html`.

    The folder appears complete or not at all. ParameterError if the profile has no results.
    """
    target = paths.build() / "site"
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".site-", dir=target.parent) as temporary:
        folder = Path(temporary, "site")
        folder.mkdir()
        pages = [page for scope in scopes(profile) for page in _notebooks(scope, folder)]
        results: dict[str, list[dict]] = {}
        for scope, identity, sidecar in stored(profile):
            results.setdefault(identity, []).append(_version(scope, identity, sidecar, pages, folder))
        if not results:
            raise ParameterError(f"{profile} has no results: run `make figures PROFILE={profile}` first")
        (folder / "index.html").write_text(_index(profile, results, pages), encoding="utf-8")
        shutil.rmtree(target, ignore_errors=True)
        folder.replace(target)
    return target / "index.html"


def _version(scope: Scope, identity: str, sidecar: dict, pages: list[dict], folder: Path) -> dict[str, Any]:
    """Return what is shown of a figure or table in one scope (a seed, or all seeds); copy its files to `folder`."""
    origin, place = sidecar["provenance"], f"figures/{scope.name}/{identity}"
    (folder / place).parent.mkdir(parents=True, exist_ok=True)
    files = [ending for ending in ("png", "csv", "json") if (scope.folder / f"{identity}.{ending}").exists()]
    for ending in files:
        shutil.copyfile(scope.folder / f"{identity}.{ending}", folder / f"{place}.{ending}")
    into = "" if origin["seconds"] is None else f", {origin['seconds']:.0f} s into the run"  # unknown for a stopped run
    page = next((page for page in pages if (page["scope"], page["name"]) == (scope.name, origin["notebook"])), None)
    data = [
        f"{data['name']}, {data['count']:,} {data['split']} {data.get('unit', 'images')}" for data in origin["data"]
    ]
    version = {
        "label": scope.label,
        "place": place,  # path of the files, relative to the page, without suffixes
        "sidecar": sidecar,
        "origin": {"commit": "unknown"} | origin,
        "files": files,
        "alt": f"{sidecar['caption']} ({scope.label})",
        "data": list(dict.fromkeys(data)) or ["none"],
        "seeds": origin["seed"] if isinstance(origin["seed"], list) else [origin["seed"]],
        "time": f"{origin['made'][:16].replace('T', ' ')} UTC{into}",
        "notebook": page and page["address"] + page["anchors"].get(identity, ""),
    }
    if sidecar["kind"] == "table":
        columns = list(zip(*sidecar["data"], strict=True)) or [()] * len(sidecar["columns"])
        numeric = [all(type(value) in (int, float) for value in column if value is not None) for column in columns]
        return version | {"numeric": numeric}
    if "png" not in files:
        raise ParameterError(f"{scope.name}/{identity}.png is missing; `make verify` tells what else is")
    return version | {"size": gallery.opened(scope.folder / f"{identity}.png").size}


def _index(profile: str, results: dict[str, list[dict]], pages: list[dict]) -> str:
    entries = []
    for identity, versions in results.items():
        kind, (study, number) = versions[0]["sidecar"]["kind"], numbered(identity)
        name = f"{kind.capitalize()} {study}.{number}" if study else identity
        section = study if study in SECTIONS else ""
        order = (kind, number, identity)
        entries.append(
            {"id": identity, "kind": kind, "number": name, "section": section, "order": order, "versions": versions}
        )
    entries.sort(key=lambda entry: entry["order"])
    sections = [
        {"key": key or "other", "title": title, "short": short, "entries": found}
        for key, (title, short) in SECTIONS.items()
        if (found := [entry for entry in entries if entry["section"] == key])
    ]
    versions = [version for entry in entries for version in entry["versions"]]
    return _render(
        "index.html",
        root="",
        profile=profile,
        sections=sections,
        pages=pages,
        seeds=sorted({seed for version in versions for seed in version["seeds"]}),
        count={kind: sum(entry["kind"] == kind for entry in entries) for kind in ("figure", "table")},
        data=[line for line in dict.fromkeys(line for one in versions for line in one["data"]) if line != "none"],
    )


def _render(template: str, **values: Any) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = number
    environment.globals["inlined"] = lambda name: Markup((TEMPLATES / name).read_text(encoding="utf-8"))
    return environment.get_template(template).render(values)


def number(value: Any) -> str:
    """Format a table's field: five significant digits, enough for the source's numbers; a dash if it is missing."""
    if value is None:
        return "–"
    if type(value) not in (int, float):  # JSON types; a boolean is not a number
        return str(value)
    if isinstance(value, float) and not value.is_integer():
        text = f"{value:.5g}"
    else:
        text = f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.0f}"
    return text.replace("-", "−")


# -- formulas --------------------------------------------------------------------------------


def formula(source: str, display: str) -> str:
    """Convert TeX to MathML (`display`: "inline" or "block"), or to its source as code if it cannot be parsed."""
    try:
        return to_mathml(source.strip(), display=display)
    except Exception:  # the converter raises errors of many types
        return f"<code>{html.escape(source)}</code>"


class _Renderer(IPythonRenderer):
    """Markdown renderer that writes formulas as MathML, as TeX would need an external script."""

    def block_math(self, body: str) -> str:
        return formula(body, "block")

    def inline_math(self, body: str) -> str:
        return formula(body, "inline")

    def latex_environment(self, name: str, body: str) -> str:
        return formula(rf"\begin{{{name}}}{body}\end{{{name}}}", "block")


# -- notebooks -------------------------------------------------------------------------------


def _notebooks(scope: Scope, folder: Path) -> list[dict[str, Any]]:
    """Write a page for each notebook of a scope; return its address, its title and the anchors of all ids."""
    to_html = MarkdownWithMath(_Renderer(escape=False, exclude_anchor_links=True)).render
    exporter = HTMLExporter(
        Config(NbConvertBase={"display_data_priority": SHOWN_TYPES}),
        template_name="basic",
        filters={"markdown2html": to_html},
    )
    styles = [HtmlFormatter(style=style).get_style_defs(".highlight") for style in ("default", "github-dark")]
    pygments = Markup("{}\n@media screen and (prefers-color-scheme: dark) {{\n{}\n}}").format(*map(Markup, styles))
    pages = []
    for name in scope.records:
        path = jobs.executed(f"{scope.name}/{name}")
        if path.exists():
            content, how = _read(path), "as it was executed"
        elif (paths.NOTEBOOKS / f"{name}.ipynb").exists():
            content, how = _filled(name, scope), "with the stored figures and tables; printed output is omitted"
        else:
            continue
        anchors = _prepare(content, scope)
        address = f"notebooks/{scope.name}/{name}.html"
        text = "\n".join(cell.source for cell in content.cells if cell.cell_type == "markdown")
        heading, question = (re.search(rf"^{mark} +(.+)$", text, re.M) for mark in ("#", r"\*\*Question\.\*\*"))
        page = {"scope": scope.name, "name": name, "title": heading[1] if heading else name, "address": address,
                "anchors": anchors, "how": how, "where": scope.label,
                "question": Markup(to_html(question[1])) if question else ""}  # fmt: skip
        body = Markup(exporter.from_notebook_node(content)[0])
        (folder / address).parent.mkdir(parents=True, exist_ok=True)
        root = "../" * address.count("/")
        shown = _render("notebook.html", **page, body=body, root=root, pygments=pygments)
        (folder / address).write_text(shown, encoding="utf-8")
        pages.append(page)
    return pages


def _read(path: Path) -> nbformat.NotebookNode:
    try:
        return nbformat.read(path, as_version=4)
    except Exception as error:  # raised by JSON, nbformat or its converters
        raise ParameterError(f"{jobs.short(path)} is not a valid notebook; restore or delete it, and run it") from error


def _filled(name: str, scope: Scope) -> nbformat.NotebookNode:
    """Return the notebook from the repository, with a scope's figures and tables below the cells that save them.

    Used in a fresh clone, which contains results but no executed notebooks.
    """
    content = _read(paths.NOTEBOOKS / f"{name}.ipynb")
    for cell in (cell for cell in content.cells if cell.cell_type == "code"):
        cell.outputs = []
        for identity in SAVED.findall(cell.source):
            sidecar, picture = scope.sidecars.get(identity), scope.folder / f"{identity}.png"
            if sidecar and sidecar["kind"] == "table":
                rows = [[number(value) for value in row] for row in sidecar["data"]]
                data = {"text/html": pd.DataFrame(rows, columns=sidecar["columns"]).to_html(index=False)}
            elif picture.exists():
                data = {"image/png": base64.b64encode(picture.read_bytes()).decode()}
            else:
                continue
            cell.outputs.append(nbformat.v4.new_output("display_data", data))
    return content


def _prepare(content: nbformat.NotebookNode, scope: Scope) -> dict[str, str]:
    """Remove scripts and widgets, set captions as the pictures' alt texts; return the anchors of cells by id."""
    anchors = {}
    for cell in content.cells:
        if cell.cell_type != "code":
            continue
        cell.outputs = [one for one in cell.outputs if "data" not in one or one.data.keys() & set(SHOWN_TYPES)]
        saved = SAVED.findall(cell.source)
        anchors |= dict.fromkeys(saved, f"#cell-id={cell.id}")
        shown = [name for name in saved if (scope.folder / f"{name}.png").exists()]
        captions = [scope.sidecars[name]["caption"] for name in shown if name in scope.sidecars]
        pictures = [output for output in cell.outputs if "image/png" in output.get("data", {})]
        for output, caption in zip_longest(pictures, captions[: len(pictures)]):
            output.metadata["image/png"] = {"alt": caption or "Output of the cell above"}
    return anchors


def main(profile: str) -> int:
    page = write(profile)
    size = sum(path.stat().st_size for path in page.parent.rglob("*") if path.is_file()) / 1e6
    print(f"{jobs.short(page)}: open it in a browser, or put its folder ({size:.0f} MB) on any web server")
    return 0
