"""One run of one notebook: its parameters, and the figures and tables that it saves.

    run = Run("03_corregularization", globals())
    train = run.use(load_images(dataset, "train"))
    run.save_figure("fig34_loss_curves", figure, frame, caption="…")
    run.save_table("tab31_accuracy", frame, caption="…")
    run.finish()

Nothing else writes below `figures/`. Writes are atomic.
"""

import hashlib
import io
import json
import math
import os
import platform
import random
import re
import shlex
import textwrap
import time
from collections.abc import Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from lib import paths, sources
from lib.data import needs
from lib.plots import arrange, small_png, use_style
from lib.press import fingerprint, parameters

PNG_DPI = 160
KINDS = ("png", "pdf", "csv", "npz", "tex", "json")
VERSIONS = ("torch", "torchvision", "accelerate", "numpy", "pandas", "scipy", "matplotlib")


class RunError(RuntimeError):
    """A result could not be saved or read; the message says what to do."""


class Run:
    """The single interface between a notebook and its result files.

    values: the notebook's `globals()`, from which its parameters are read. With the content of code and data they form
    the `inputs` hash of every result. Runs with settings other than their profile's go to `figures/<profile>-custom/`.
    """

    def __init__(self, notebook: str, values: Mapping[str, Any]):
        self.notebook = notebook
        self.parameters = parameters.of_globals(notebook, values)
        self.profile: str = self.parameters.get("profile", "quick")
        self.seed: int = self.parameters.get("seed", 0)
        self.seeds: list[int] | None = self.parameters.get("seeds")
        self._all_seeds = [self.seed] if self.seeds is None else self.seeds
        self.device: str = self.parameters.get("device", "auto")
        changed = parameters.changed(notebook, self.profile, self.parameters)
        self._home = paths.folder_name(self.profile, bool(changed))
        scope = f"seed-{self.seed}" if self.seeds is None else ""
        self.folder = paths.figures() / self._home / scope
        self.checkpoints = paths.build() / "checkpoints" / self._home / (scope or "all") / notebook
        self.models = paths.build() / "models" / self._home / (scope or "all")  # saved by this notebook
        # Models of the notebooks that it reads are the profile's, unless one of their settings is changed.
        others = parameters.profile_entry(notebook, self.profile).reads
        theirs = any(name in parameters.defaults(other) for other in others for name in changed)
        home = os.environ.get("MODELS_FOLDER") or (self._home if theirs else self.profile)
        self.given_models = paths.build() / "models" / home / (scope or "all")
        self._started = time.monotonic()
        self._parts, self._commit = fingerprint.parts_of(notebook, self.parameters), _commit()
        self._read: dict[str, str] = {}  # path below `figures/` -> hash
        self._data: list[dict[str, str | int]] = []
        self._outputs: dict[str, dict] = {}
        # Until `finish` is called, the folder does not count as the result of a finished run.
        self._record.unlink(missing_ok=True)
        use_style()
        seed_everything(self.seed)

    # Inputs

    def design(self, defaults: ModuleType) -> SimpleNamespace:
        """Return the values of the parameters listed in the module `defaults`, not in the parameters cell."""
        return SimpleNamespace(**{name: self.parameters[name] for name in vars(defaults) if name in self.parameters})

    def use(self, data):
        """Register a data set (images or sounds) so that every result names it; return it unchanged.

        Raises:
            DataError: it is too small for this notebook.
        """
        needs.check(self.notebook, data)
        if "absent" in self._parts.values():  # loading has downloaded the data set
            fingerprint._signature.cache_clear()
            self._parts |= fingerprint.data_parts(self.parameters)
        self._data.append(
            {"name": data.name, "split": data.split, "count": len(data), "unit": data.unit, "checksum": data.checksum}
        )
        return data

    def has(self, name: str) -> bool:
        """Return whether any seed of this profile has figure or table `name`; RunError if none has any results."""
        files = [self._stored(name, seed) for seed in self._all_seeds]
        if files and not any(file.parent.is_dir() for file in files):
            raise RunError(f"There are no results of these seeds in {files[0].parent.parent}. {self._advice()}")
        return any(file.exists() for file in files)

    def _advice(self) -> str:
        seeds = " ".join(map(str, self._all_seeds))
        return f'Run `make figures PROFILE={shlex.quote(self.profile)} SEEDS="{seeds}"` first.'

    def _stored(self, name: str, seed: int) -> Path:
        return paths.figures() / self._home / f"seed-{seed}" / f"{name}.csv"

    def read(self, name: str) -> pd.DataFrame:
        """Return the saved data of figure or table `name` from every seed of this profile, with a `seed` column.

        `.attrs` holds what it was made from: "note" (sizes and budget) and "data" (data sets). Figures and tables
        made from this frame name both if they are saved with `like=` this frame. RunError if a seed lacks the data.
        """
        frames, used = [], []
        for seed in self._all_seeds:
            path = self._stored(name, seed)
            try:
                # Only empty fields are missing values: "None" and "NA" are strings.
                frame = pd.read_csv(path, keep_default_na=False, na_values=[""])
                sidecar = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
                note, data = sidecar["note"], list(sidecar["provenance"]["data"])
            except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
                what = "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read ({error})"
                raise RunError(f"{name} of seed {seed} {what} ({path}). {self._advice()}") from error
            frames.append(frame.assign(seed=seed))
            self._read[path.relative_to(paths.figures()).as_posix()] = hashlib.sha256(path.read_bytes()).hexdigest()
            used += [one for one in data if one not in used]
        self._data += [data for data in used if data not in self._data]
        found = pd.concat(frames, ignore_index=True)
        found.attrs |= {"note": note, "data": used}
        return found

    # Outputs

    def save_figure(
        self,
        name: str,
        figure: Figure,
        data: pd.DataFrame | Mapping[str, Any],
        *,
        caption: str,
        note: str = "",
        like: pd.DataFrame | None = None,
        without_data: bool = False,
    ) -> None:
        """Save `figure` as PNG and PDF, the data it shows as CSV (frame) or NPZ (arrays), and its provenance.

        note: sizes and budget behind this figure, if it does not use the whole data sets.
        like: the frame from `read` that it shows; note and data sets are taken from there.
        without_data: the figure does not depend on the data sets in use.
        """
        about = self._about(caption, note, like, without_data)
        # The origin is printed below the drawing, so that the picture alone tells what it was made from.
        arrange(figure)
        drawn = figure.get_tightbbox()  # inches
        right, below = drawn.x1 / figure.get_figwidth(), (drawn.y0 - 0.06) / figure.get_figheight()
        lines = textwrap.fill(about["origin"], max(40, int(26 * (drawn.x1 - drawn.x0))))  # fits below the drawing
        stamp = figure.text(right, below, lines, ha="right", va="top", fontsize=5, color="0.4", parse_math=False)
        crop = figure.get_tightbbox().padded(0.04)  # "tight" would draw the figure twice per format
        pdf = {"CreationDate": None, "Producer": None, "Keywords": self.inputs}
        files = {}
        try:
            for kind, options in {"png": {"dpi": PNG_DPI}, "pdf": {"metadata": pdf}}.items():
                buffer = io.BytesIO()
                figure.savefig(buffer, format=kind, bbox_inches=crop, **options)
                files[f"{name}.{kind}"] = buffer.getvalue()
            files[f"{name}.png"] = small_png(files[f"{name}.png"], Inputs=self.inputs)
        finally:
            stamp.remove()
        files |= {f"{name}.csv": _csv(data)} if isinstance(data, pd.DataFrame) else {f"{name}.npz": _npz(data)}
        self._hand_over(name, files, {"kind": "figure"} | about)

    def save_table(
        self,
        name: str,
        table: pd.DataFrame,
        *,
        caption: str,
        note: str = "",
        digits: int = 4,
        like: pd.DataFrame | None = None,
        without_data: bool = False,
    ) -> pd.DataFrame:
        """Save `table` as CSV (full precision), LaTeX (booktabs, `digits` significant digits) and JSON (for Typst).

        Returns the table, for display as the cell's output.
        """
        about = self._about(caption, note, like, without_data)
        latex = table.to_latex(
            index=False,
            escape=True,
            na_rep="–",
            float_format=lambda value: f"{value:.{digits}g}",
            caption=_latex_text(f"{caption} {about['origin']}"),
            label=f"tab:{name}",
            position="htb",
        )
        files = {f"{name}.csv": _csv(table), f"{name}.tex": latex.encode()}
        body = {"columns": [str(column) for column in table.columns], "data": table.to_numpy(object).tolist()}
        self._hand_over(name, files, {"kind": "table"} | about | body)
        return table

    def finish(self) -> None:
        """Mark the run as complete: write its record, and remove results of older runs that this one did not make."""
        record = {"notebook": self.notebook, "inputs": self.inputs, "parameters": self.parameters, "data": self._data,
                  "outputs": self._outputs} | ({"read": self._read} if self._read else {})  # fmt: skip
        self._remove_leftovers()
        _write({self._record: _json(record)})
        print(f"{len(self._outputs)} figures and tables in {os.path.relpath(self.folder, paths.output_root())}")

    # Provenance

    @property
    def inputs(self) -> str:
        """Hash of all that determines the results: code, packages, parameters, data; not the commit or the time."""
        return sources.digest(self._parts | {"data in use": json.dumps(self._data)})[:16]

    def _about(self, caption: str, note: str, like: pd.DataFrame | None, without_data: bool) -> dict[str, Any]:
        """Return caption, note, data sets and origin of a result."""
        data = [] if without_data else self._data
        if like is not None:
            note, data = note or like.attrs["note"], like.attrs["data"]
        return {"caption": caption, "origin": self.origin(note, data), "note": note, "data sets": data}

    def origin(self, note: str = "", used: list[dict] | None = None) -> str:
        """Return one line for captions: data (by default all in use), sizes, seeds, profile."""
        sizes: dict[tuple[str, str], list[str]] = {}
        for data in self._data if used is None else used:
            size = f"{data['count']:,}" + (f" {data['split']}" if data["split"] != "all" else "")
            # Results from before sounds were supported have no unit.
            counts = sizes.setdefault((str(data["name"]), data.get("unit", "images")), [])
            counts += [size] if size not in counts else []
        parts = [f"{name}, {' + '.join(counts)} {unit}" for (name, unit), counts in sizes.items()]
        seeds = self._all_seeds
        parts += [re.sub(r"\b1 epochs\b", "1 epoch", note)] if note else [] if parts else ["no data set"]
        parts += [f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"]
        parts += [f"profile {self.profile}{' with other settings' if self._home != self.profile else ''}"]
        return "; ".join(parts) + "."

    @property
    def _record(self) -> Path:
        return self.folder / f"{self.notebook}.json"

    def _remove_leftovers(self) -> None:
        """Remove results of older runs of this notebook, finished or not, that this one did not make."""
        for sidecar in self.folder.glob("*.json"):
            try:
                made_by = json.loads(sidecar.read_text(encoding="utf-8"))["provenance"]["notebook"]
            except (ValueError, LookupError, TypeError):
                continue  # a record, or not written by a run
            if made_by == self.notebook and sidecar.stem not in self._outputs:
                for file in self.folder.glob(f"{sidecar.stem}.*"):
                    file.unlink()
        for name in [self.notebook, *self._outputs]:
            for partial in self.folder.glob(f".{name}.*"):  # left by a process that died before renaming
                partial.unlink(missing_ok=True)

    def _hand_over(self, name: str, files: dict[str, bytes], about: dict[str, Any]) -> None:
        """Write the files of a figure or table, and a sidecar with `about` and the provenance."""
        if not re.fullmatch(r"\w+", name) or name in (self.notebook, *self._outputs):
            raise RunError(f"{name!r} cannot be an id, or is one already: it names files (letters, digits and _ alone)")
        hashes = {file: hashlib.sha256(content).hexdigest() for file, content in files.items()}
        used = about.pop("data sets")
        sidecar = {"id": name} | about | {"provenance": self._provenance(used) | {"files": hashes}}
        files = files | {f"{name}.json": _json(sidecar)}
        _write({self.folder / file: content for file, content in files.items()})
        for ending in KINDS:  # the data may have been a frame before and be arrays now
            if f"{name}.{ending}" not in files:
                (self.folder / f"{name}.{ending}").unlink(missing_ok=True)
        self._outputs[name] = {"kind": about["kind"], "files": hashes}

    def _provenance(self, used: list[dict]) -> dict[str, Any]:
        on_gpu = self.device != "cpu" and torch.cuda.is_available()
        return {
            "notebook": self.notebook,
            "profile": self.profile,
            "parameters": self.parameters,
            "seed": self.seed if self.seeds is None else self.seeds,
            "data": used,
            "inputs": self.inputs,
            "commit": self._commit,  # at the start: code committed later was not run
            "versions": {"python": platform.python_version()} | {name: metadata.version(name) for name in VERSIONS},
            "device": torch.cuda.get_device_name() if on_gpu else f"CPU ({os.cpu_count()} cores)",
            "threads": torch.get_num_threads(),
            "seconds": round(time.monotonic() - self._started, 1),
            "made": datetime.now(UTC).isoformat(timespec="seconds"),
        }


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch, and make torch use deterministic kernels where available."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Deterministic mode fills all new tensors with NaN, to reveal reads before writes; that takes 4 to 10 % of a step.
    torch.utils.deterministic.fill_uninitialized_memory = False
    torch.backends.cudnn.benchmark = False


def _commit() -> str:
    """Return the checked-out commit, with "+ changes" if code differs; outside git $COMMIT, or "unknown"."""
    commit = sources.git(paths.ROOT, "rev-parse", "HEAD")
    code = ["lib", "notebooks", "profiles", "requirements.lock", "paper/claims.yaml"]
    changed = commit and sources.git(paths.ROOT, "status", "--porcelain", "--", *code)
    return (commit or os.environ.get("COMMIT", "unknown")) + (" + changes" if changed else "")


def _csv(frame: pd.DataFrame) -> bytes:
    return frame.to_csv(index=False, lineterminator="\n").encode()


def _npz(arrays: Mapping[str, Any]) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def _json(content: Any) -> bytes:
    return (json.dumps(_plain(content), indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _plain(value: Any) -> Any:
    """Convert `value` to JSON types: NaN to null, infinity to a string, NumPy and torch values to numbers."""
    match value:
        case Mapping():
            return {str(key): _plain(item) for key, item in value.items()}
        case list() | tuple():
            return [_plain(item) for item in value]
        case np.ndarray() | np.generic() | torch.Tensor():
            return _plain(value.tolist())
        case float():
            return value if math.isfinite(value) else None if math.isnan(value) else str(value)
        case None | str() | int():
            return value
    return None if value is pd.NA or value is pd.NaT else str(value)


def _latex_text(text: str) -> str:
    special = {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\\": r"\textbackslash{}"}
    return "".join(special.get(c, f"\\{c}" if c in "&%$#_{}" else c) for c in text)


def _write(files: Mapping[Path, bytes]) -> None:
    """Write files atomically: readers see either the old file or the new one.

    All contents are on disk before the first file is replaced, so that a full disk changes nothing.
    """
    with ExitStack() as stack:
        for path, content in files.items():
            stack.enter_context(paths.atomic(path)).write_bytes(content)
