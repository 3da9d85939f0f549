"""Are the requirements of pyproject.toml met by the Python that runs this file?

    python lib/press/environment.py        lists what is missing and exits with 1; silent and 0 if all is there

Runs before anything is installed, hence on the standard library and, once installed, `packaging` alone.
"""

import sys
import tomllib
from importlib import metadata
from pathlib import Path

PYPROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"


def unmet() -> list[str]:
    """The project's own and its development requirements that are not installed in a fitting version; as written."""
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
