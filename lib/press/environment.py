"""Check whether the running Python environment meets the requirements of pyproject.toml.

    python lib/press/environment.py        lists unmet requirements and exits with 1; otherwise silent, exits with 0

It runs before anything is installed, so it imports only the standard library and, if installed, `packaging`.
"""

import sys
import tomllib
from importlib import metadata
from pathlib import Path

PYPROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"


def unmet() -> list[str]:
    """Return those of the project and its requirements (with dev), as written, that no installed version satisfies."""
    try:
        from packaging.requirements import Requirement
    except ImportError:
        return ["packaging"]
    project = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
    found = []
    for text in [project["name"], *project["dependencies"], *project["optional-dependencies"]["dev"]]:
        requirement = Requirement(text)
        if requirement.marker and not requirement.marker.evaluate():
            continue
        try:
            fits = requirement.specifier.contains(metadata.version(requirement.name), prereleases=True)
        except metadata.PackageNotFoundError:
            fits = False
        found += [] if fits else [text]
    return found


if __name__ == "__main__":
    missing = unmet()
    print("".join(f"not installed, or in another version: {text}\n" for text in missing), end="")
    sys.exit(bool(missing))
