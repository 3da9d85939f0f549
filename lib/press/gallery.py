"""Overview of a profile's stored results, as shown by notebook 00.

Each figure is the one over all seeds from notebook 07 if there is one, else that of the first seed.
"""

import re
from pathlib import Path

import numpy as np
import pandas as pd
from IPython.display import Image, Markdown, display
from matplotlib.figure import Figure
from PIL import Image as Picture

from lib import paths, plots
from lib.press import jobs
from lib.press.parameters import ParameterError
from lib.press.verify import Scope, numbered, scopes, stored

THUMBNAIL = 420  # pixels, the longer side
WIDTH = 760  # pixels, a figure's width in the notebook
OWN = "00_overview"  # the notebook that shows them; its own figures are left out


def figures(profile: str) -> pd.DataFrame:
    """Return all figures in `figures/<profile>`, in the paper's order, with `.attrs` as from `Run.read`.

    Columns: id, notebook, file (relative to the output folder), caption (including what the figure was made from).
    ParameterError if there are no results.
    """
    found: dict[str, tuple] = {}
    for scope, name, sidecar in stored(profile):  # results over all seeds come first
        picture, origin = scope.folder / f"{name}.png", sidecar["provenance"]
        if sidecar["kind"] == "figure" and picture.exists() and origin["notebook"] != OWN:
            file = picture.relative_to(paths.output_root()).as_posix()
            caption = f"{sidecar['caption']} {sidecar['origin']}"
            found.setdefault(name, (name, origin["notebook"], file, caption, origin["data"]))
    rows = sorted(found.values(), key=lambda row: (numbered(row[0])[0] or "9", *numbered(row[0]), row[0]))
    frame = pd.DataFrame(rows, columns=["id", "notebook", "file", "caption", "data"])
    data = sum(frame.pop("data"), [])
    once = [used for place, used in enumerate(data) if used not in data[:place]]
    frame.attrs |= {"note": "each figure names its own sizes", "data": once}
    return frame


def run_row(scope: Scope, notebook: str) -> dict[str, object]:
    """Return a summary of a finished run: its outputs, data sets, machine, minutes and commit."""
    record = scope.records[notebook]
    made = [scope.sidecars[name] for name in record["outputs"] if name in scope.sidecars]
    origins = [sidecar["provenance"] for sidecar in made]
    threads = [f"{one['device']}, {one['threads']} thread{'s' * (one['threads'] > 1)}" for one in origins]
    seconds = [one["seconds"] for one in origins if one["seconds"] is not None]
    commits = [re.sub(r"^([0-9a-f]{7})[0-9a-f]{33}", r"\1", one.get("commit") or "unknown") for one in origins]
    return {
        "notebook": notebook,
        "seed": "all" if scope.seed is None else str(scope.seed),
        **{f"{kind}s": sum(sidecar["kind"] == kind for sidecar in made) for kind in ("figure", "table")},
        "data": "; ".join(dict.fromkeys(data["name"] for data in record["data"])),
        "machine": threads[-1] if threads else "",
        "minutes": max(seconds) / 60 if seconds else None,
        "commit": "; ".join(dict.fromkeys(commits)),  # such as `8424344` or `8424344 + changes`
    }


def runs(profile: str) -> pd.DataFrame:
    """Return one row per finished run: notebook, seed, figures, tables, data sets, minutes and commit."""
    rows = [run_row(scope, notebook) for scope in scopes(profile) for notebook in scope.records]
    columns = ["notebook", "seed", "figures", "tables", "data", "minutes", "commit"]
    return pd.DataFrame(rows, columns=columns).sort_values(["notebook", "seed"], ignore_index=True)


def show(found: pd.DataFrame, name: str) -> None:
    """Display one of `figures` with its caption, or what to do if it has not been made."""
    if name not in set(found.id):
        display(Markdown(f"`{name}` is not among these results; `make plan` tells which notebooks are still to run."))
        return
    shown = found.set_index("id").loc[name]
    display(Image(filename=paths.output_root() / shown.file, width=WIDTH), Markdown(f"*{shown.caption}*"))


def sheet(found: pd.DataFrame, columns: int = 5) -> Figure:
    """Return a sheet of all `figures` as thumbnails below their ids."""
    rows = max(1, -(-len(found) // columns))
    figure, axes = plots.subplots(rows, columns, height=1.15 * rows + 0.1, squeeze=False)
    for cell in axes.flat:
        cell.set_axis_off()
    for cell, shown in zip(axes.flat, found.itertuples(), strict=False):
        small = opened(paths.output_root() / shown.file).convert("RGB")
        small.thumbnail((THUMBNAIL, THUMBNAIL))
        cell.imshow(np.asarray(small), interpolation="antialiased")
        cell.set_title(shown.id, fontsize=5, pad=2)
    return figure


def opened(path: Path) -> Picture.Image:
    """Return a stored picture; ParameterError if it is damaged."""
    try:
        with Picture.open(path) as picture:
            picture.load()
            return picture
    except Exception as error:  # Pillow does not specify what decoders raise on damaged files
        raise ParameterError(f"{jobs.short(path)} is not a readable PNG file ({error}); run `make verify`") from error
