"""`make paper`: typeset the PDF with Typst from the results in `figures/`.

Typst reads one folder, `build/paper/<profile>/`: copies of the sources in `paper/` and of the pictures, and
`results.json` with captions, tables and provenance, from which the sources take all numbers. A result that the profile
lacks is taken from `trained`, `quick` or `gpu`, and its caption says so; one that exists nowhere is replaced by the
command that makes it. The same results give a byte-identical PDF.
"""

import json
import shutil
import time
import tomllib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import typst

from lib import paths, sources
from lib.paths import atomic
from lib.press import gallery, jobs, parameters
from lib.press.parameters import ParameterError
from lib.press.verify import scopes, stored

SOURCES = paths.ROOT / "paper"
PROJECT = paths.ROOT / "pyproject.toml"
FALLBACKS = ("trained", "quick", "gpu")  # searched in this order for results that a profile lacks
HANGUL = Path(find_spec("koreanize_matplotlib").origin).parent / "fonts"  # not imported: that would change matplotlib
WHITE = 250  # of 255; darker pixels are ink


def write(profile: str) -> Path:
    """Typeset the paper from `figures/<profile>` and return the PDF's path, `build/paper/paper-<profile>.pdf`.

    ParameterError for a profile without results, a damaged result, or sources that Typst rejects.
    """
    scopes(profile)  # raises for an unknown folder before anything is removed
    folder = paths.build() / "paper" / profile
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(SOURCES, folder)
    results = collect(profile, folder)
    (folder / "results.json").write_text(json.dumps(results, ensure_ascii=False), encoding="utf-8")
    try:
        content = typst.compile(
            str(folder / "paper.typ"), root=str(folder), font_paths=[str(HANGUL)], ignore_system_fonts=True, timestamp=0
        )
    except typst.TypstError as error:
        raise ParameterError(f"Typst could not set the paper: {error}. Sources and data are in {folder}") from error
    target = folder.parent / f"paper-{profile}.pdf"
    with atomic(target) as partial:
        partial.write_bytes(content)
    return target


def collect(profile: str, folder: Path) -> dict[str, Any]:
    """Return the contents of `results.json`, and copy the pictures into `folder`.

    figures, tables: by id, and by `<profile>:<id>` for one specific profile; over all seeds if notebook 07 made them,
    else of the first seed. runs: one row per finished run with its parameters and hashes of its inputs and outputs.
    data: the data sets used, with checksums. versions: of the packages. repository: its URL. notebooks: their names.
    lock: a hash of the lock file.
    """
    found: dict[str, Any] = {"profile": profile, "figures": {}, "tables": {}, "versions": {}, "runs": [], "data": []}
    found["notebooks"] = parameters.notebooks()
    found["repository"] = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]["urls"]["Repository"]
    found["lock"] = jobs.sha256(paths.LOCK)[:8]
    for name in dict.fromkeys((profile, *FALLBACKS)):
        if name == profile or (paths.figures() / name).is_dir():
            _collect_profile(name, folder, found)
    if not found["figures"] and not found["tables"]:
        raise ParameterError(f"{profile} has no results: run `make figures PROFILE={profile}` first")
    return found


def _collect_profile(name: str, folder: Path, found: dict[str, Any]) -> None:
    """Add this profile's results; under their plain ids only those that no earlier profile has."""
    for scope, identity, sidecar in stored(name):
        origin, group = sidecar["provenance"], found[f"{sidecar['kind']}s"]
        if name == found["profile"]:
            found["versions"] |= origin["versions"]
        exact = f"{name}:{identity}"  # refers to this profile's result, not to the first one found
        if exact in group or origin["notebook"] == gallery.OWN:
            continue
        group[exact] = {key: (sidecar | origin).get(key) for key in ("caption", "origin", "notebook", "commit")}
        if sidecar["kind"] == "figure":
            group[exact] |= _picture(scope.folder / f"{identity}.png", folder)
        else:
            group[exact] |= {"columns": sidecar["columns"], "data": sidecar["data"]}
        group.setdefault(identity, group[exact])
    runs = []
    for scope in scopes(name):
        for notebook, record in scope.records.items():
            for used in record["data"]:
                entry = {key: used.get(key, "images") for key in ("name", "split", "count", "unit", "checksum")}
                found["data"] += [entry] if entry not in found["data"] else []
            facts = {
                "profile": name,
                "parameters": record["parameters"],
                "inputs": record["inputs"][:8],
                "outputs": sources.digest({name: output["files"] for name, output in record["outputs"].items()})[:8],
            }
            runs += [gallery.run_row(scope, notebook) | facts] if notebook != gallery.OWN else []
    found["runs"] += sorted(runs, key=lambda run: (run["notebook"], run["seed"]))


def _picture(path: Path, folder: Path) -> dict[str, Any]:
    """Copy a figure's picture; return its file name, aspect ratio, and the upper share of it that is the drawing."""
    target = folder / "figures" / path.parent.relative_to(paths.figures()) / path.name
    target.parent.mkdir(parents=True, exist_ok=True)
    picture = gallery.opened(path)
    inked = (np.asarray(picture.convert("L")) < WHITE).any(1)  # (rows,)
    proportion = picture.width / picture.height
    shutil.copyfile(path, target)
    return {"file": target.relative_to(folder).as_posix(), "proportion": proportion, "shown": _drawing(inked)}


def _drawing(inked: np.ndarray) -> float:
    """Return the share of rows above the provenance line, which `Run.save_figure` puts below a gap of 12 white rows."""
    used = np.flatnonzero(inked)
    ends = used[:-1][np.diff(used) > 9]  # the lines of that text are closer together
    return float(ends[-1] + 5) / len(inked) if len(ends) else 1.0


def main(profile: str) -> int:
    started = time.monotonic()
    path = write(profile)
    print(f"{jobs.short(path)}: {path.stat().st_size / 1e6:.1f} MB, in {time.monotonic() - started:.1f} s")
    return 0
