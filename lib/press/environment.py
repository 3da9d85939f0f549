"""Are the requirements of pyproject.toml met by the Python that runs this file?

    python lib/press/environment.py        lists what is missing and exits with 1; silent and 0 if all is there

Runs before anything is installed, hence on the standard library and, once installed, `packaging` alone.
"""

import sys
import tomllib
from importlib import metadata
from pathlib import Path

PYPROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"


def _project() -> dict:
    return tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]


def requirements() -> list[str]:
    """The project's own and its development requirements, as written."""
    return [*_project().get("dependencies", []), *_project().get("optional-dependencies", {}).get("dev", [])]


def unmet() -> list[str]:
    """One sentence for each requirement that is not installed in a fitting version."""
    try:
        from packaging.requirements import Requirement
    except ImportError:
        return ["packaging is not installed"]
    found = []
    for requirement in map(Requirement, requirements()):
        if requirement.marker and not requirement.marker.evaluate():
            continue
        version = _version(requirement.name)
        if version is None:
            found.append(f"{requirement.name} is not installed")
        elif not requirement.specifier.contains(version, prereleases=True):
            found.append(f"{requirement.name} {version} is installed; needed: {requirement.specifier}")
    return found if _version(name := _project()["name"]) else [*found, f"{name} itself is not installed"]


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


if __name__ == "__main__":
    missing = unmet()
    print(*missing, sep="\n", end="\n" if missing else "")
    sys.exit(bool(missing))
