"""The stored results of a profile at a glance: what notebook 00 shows.

A figure is that of notebook 07 over all seeds, if there is one, else that of the first seed.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from IPython.display import Image, Markdown, display
from matplotlib.figure import Figure
from PIL import Image as Picture

from lib import paths, plots
from lib.press import jobs
from lib.press.parameters import ParameterError
from lib.press.verify import numbered, scopes, stored

THUMBNAIL = 420  # pixels, the longer side
WIDTH = 760  # pixels, of a figure in the notebook
OWN = "00_overview"  # whose own figures are not shown in it


@dataclass(frozen=True)
class Shown:
    """A stored figure: its picture, and its caption with what it was made from."""

    id: str
    notebook: str
    caption: str
    picture: Path
    data: tuple[dict, ...]  # the data sets that it was made from


def figures(profile: str) -> dict[str, Shown]:
    """All figures in `figures/<profile>`, by id, in the paper's order.

    ParameterError where nothing has been made there.
    """
    found: dict[str, Shown] = {}
    for scope, name, sidecar in stored(profile):  # what is over all seeds comes first
        picture, origin = scope.folder / f"{name}.png", sidecar["provenance"]
        if sidecar["kind"] == "figure" and picture.exists() and origin["notebook"] != OWN:
            caption = f"{sidecar['caption']} {sidecar['origin']}"
            found.setdefault(name, Shown(name, origin["notebook"], caption, picture, tuple(origin["data"])))
    return dict(sorted(found.items(), key=lambda item: (numbered(item[0])[0] or "9", *numbered(item[0]), item[0])))


def runs(profile: str) -> pd.DataFrame:
    """One row for each finished run: notebook, seed, figures, tables, data sets, minutes and commit."""
    rows = []
    for scope in scopes(profile):
        for notebook, record in scope.records.items():
            made = [scope.sidecars[name] for name in record["outputs"] if name in scope.sidecars]
            origins = [sidecar["provenance"] for sidecar in made]
            rows.append({
                "notebook": notebook,
                "seed": "all" if scope.seed is None else str(scope.seed),
                **{f"{kind}s": sum(sidecar["kind"] == kind for sidecar in made) for kind in ("figure", "table")},
                "data": "; ".join(dict.fromkeys(data["name"] for data in record["data"])),
                "minutes": max((one["seconds"] for one in origins if one["seconds"] is not None), default=np.nan) / 60,
                "commit": "; ".join(dict.fromkeys(short_commit(one.get("commit") or "unknown") for one in origins)),
            })  # fmt: skip
    columns = ["notebook", "seed", "figures", "tables", "data", "minutes", "commit"]
    return pd.DataFrame(rows, columns=columns).sort_values(["notebook", "seed"], ignore_index=True)


def short_commit(commit: str) -> str:
    """`8424344` or `8424344 + changes` of a commit as provenance has it; "unknown" stays."""
    return re.sub(r"^([0-9a-f]{7})[0-9a-f]{33}", r"\1", commit)


def show(found: Mapping[str, Shown], name: str) -> None:
    """Display one figure with its caption, or what to do where it has not been made."""
    if name not in found:
        display(Markdown(f"`{name}` is not among these results; `make plan` tells which notebooks are still to run."))
        return
    display(Image(filename=found[name].picture, width=WIDTH), Markdown(f"*{found[name].caption}*"))


def sheet(found: Mapping[str, Shown], columns: int = 5) -> Figure:
    """All figures as thumbnails under their ids."""
    rows = max(1, -(-len(found) // columns))
    figure, axes = plots.subplots(rows, columns, height=1.15 * rows + 0.1, squeeze=False)
    for cell in axes.flat:
        cell.set_axis_off()
    for cell, shown in zip(axes.flat, found.values(), strict=False):
        small = opened(shown.picture).convert("RGB")
        small.thumbnail((THUMBNAIL, THUMBNAIL))
        cell.imshow(np.asarray(small), interpolation="antialiased")
        cell.set_title(shown.id, fontsize=5, pad=2)
    return figure


def opened(path: Path) -> Picture.Image:
    """A stored picture; ParameterError where it is damaged."""
    try:
        with Picture.open(path) as picture:
            picture.load()
            return picture
    except Exception as error:  # what a decoder raises on a damaged file is not settled by Pillow
        raise ParameterError(f"{jobs.short(path)} is no whole picture ({error}); `make verify` tells more") from error


def listed(found: Mapping[str, Shown]) -> pd.DataFrame:
    """One row for each figure: id, notebook, file relative to the repository, caption; `.attrs` as `Run.read` gives."""
    columns = ["id", "notebook", "file", "caption"]
    root = paths.output_root()
    rows = [(one.id, one.notebook, one.picture.relative_to(root).as_posix(), one.caption) for one in found.values()]
    frame = pd.DataFrame(rows, columns=columns)
    data = [used for shown in found.values() for used in shown.data]
    once = [used for place, used in enumerate(data) if used not in data[:place]]
    frame.attrs |= {"note": "each figure names its own sizes", "data": once}
    return frame
