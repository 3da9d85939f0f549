"""The one module that knows the folders.

`OUTPUT_ROOT` (environment) moves everything that is written, so that tests and
trial runs never touch the committed results.
"""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = ROOT / "notebooks"
PROFILES = ROOT / "profiles"
LOCK = ROOT / "requirements.lock"
CLAIMS = ROOT / "paper" / "claims.yaml"


def output_root() -> Path:
    return Path(os.environ.get("OUTPUT_ROOT") or ROOT).resolve()


def figures() -> Path:
    """Results: figures, tables and their records. What the paper reads."""
    return output_root() / "figures"


def build() -> Path:
    """Everything that can be made again: executed notebooks, checkpoints, caches. Not in git."""
    return output_root() / "build"


def data_root() -> Path:
    """Where data sets are looked for."""
    return Path(os.environ.get("DATA_ROOT") or ROOT / "data").expanduser().resolve()


def folder_name(profile: str, custom: bool) -> str:
    """The folder of a profile's results below `figures/` and `build/`.

    A run with parameters from the command line has one of its own, so that trying
    something out never overwrites a profile's results. The workflow tells the notebooks
    that it starts (`RUN_FOLDER`): one that reads another's custom results goes with it,
    though its own parameters are the profile's.
    """
    if os.environ.get("RUN_FOLDER"):
        return os.environ["RUN_FOLDER"]
    return f"{profile}-custom" if custom else profile
