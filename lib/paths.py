"""Folder locations and atomic writing. The environment variable `OUTPUT_ROOT` moves all output."""

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
    """Return the root of all output.

    A relative OUTPUT_ROOT starts at the repository, as notebooks run in another folder.
    """
    return (ROOT / Path(os.environ.get("OUTPUT_ROOT", "")).expanduser()).resolve()


def figures() -> Path:
    """Return the folder of results (figures, tables and their records), which the paper reads."""
    return output_root() / "figures"


def build() -> Path:
    """Return the folder of what can be regenerated: executed notebooks, checkpoints, caches. Not in git."""
    return output_root() / "build"


def data_root() -> Path:
    """Return the folder that is searched for data sets; a relative DATA_ROOT starts at the repository."""
    return (ROOT / Path(os.environ.get("DATA_ROOT") or "data").expanduser()).resolve()


def folder_name(profile: str, custom: bool) -> str:
    """Return the folder name of a profile's results below `figures/` and `build/`.

    Custom runs have their own folder; for notebooks that read their results, the workflow passes it as `RUN_FOLDER`.
    """
    if os.environ.get("RUN_FOLDER"):
        return os.environ["RUN_FOLDER"]
    return f"{profile}-custom" if custom else profile


@contextlib.contextmanager
def atomic(path: Path):
    """Yield a temporary name beside `path` that is renamed to `path` at the end, or removed on an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
