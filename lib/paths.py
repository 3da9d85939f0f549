"""The folders, and atomic writing. `OUTPUT_ROOT` (environment) moves everything that is written."""

import contextlib
import os
import uuid
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = ROOT / "notebooks"
PROFILES = ROOT / "profiles"
LOCK = ROOT / "requirements.lock"
CLAIMS = ROOT / "paper" / "claims.yaml"


def output_root() -> Path:
    """A relative OUTPUT_ROOT, or DATA_ROOT, starts at the repository: a notebook's working directory is another."""
    return (ROOT / Path(os.environ.get("OUTPUT_ROOT", "")).expanduser()).resolve()


def figures() -> Path:
    """Results: figures, tables and their records. What the paper reads."""
    return output_root() / "figures"


def build() -> Path:
    """Everything that can be made again: executed notebooks, checkpoints, caches. Not in git."""
    return output_root() / "build"


def data_root() -> Path:
    """Where data sets are looked for."""
    return (ROOT / Path(os.environ.get("DATA_ROOT") or "data").expanduser()).resolve()


def folder_name(profile: str, custom: bool) -> str:
    """The folder of a profile's results below `figures/` and `build/`.

    Custom runs have their own, and so have, by `RUN_FOLDER` of the workflow, the notebooks that read their results.
    """
    if os.environ.get("RUN_FOLDER"):
        return os.environ["RUN_FOLDER"]
    return f"{profile}-custom" if custom else profile


@contextlib.contextmanager
def atomic(path: Path):
    """A temporary name beside `path` that becomes `path` at the end, or nothing at all on an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
