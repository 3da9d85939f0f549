"""List what a machine lacks to run notebooks, one requirement per line, for gpu.sh and pip; exits with 1 if any."""

import re
import sys
import tomllib
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BARE = {"accelerate", "matplotlib", "torch", "torchvision", "transformers"}  # present, with all their dependencies
UNUSED = {"jupyterlab", "latex2mathml", "snakemake", "typst"}  # not used by notebooks, which need only a kernel


def missing(lock: str, named: set[str], there: Callable[[str], bool]) -> list[str]:
    """Return the requirements in `lock` of packages `named` and of their dependencies (taken from its comments), except
    those that are `there`, BARE ones and what only these need."""
    from packaging.requirements import Requirement  # installed with transformers

    lines = []  # requirement, packages that need it; some have one line per Python version
    for line in re.findall(r"^[\w.-]+==.*", lock, re.MULTILINE):
        requirement, _, parents = line.partition("# via ")
        lines.append((Requirement(requirement), set(parents.split(", "))))
    wanted, new = set(), named - UNUSED | {"ipykernel"}
    while new:
        wanted |= new
        new = {one.name for one, parents in lines if parents & (wanted - BARE)} - wanted
    return [str(one) for one, _ in lines if one.name in wanted - BARE and not there(one.name)
            and (one.marker is None or one.marker.evaluate())]  # fmt: skip


def installed(name: str) -> bool:
    try:
        return bool(metadata.version(name))
    except metadata.PackageNotFoundError:
        return False


def main() -> int:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = {re.match(r"[\w.-]+", line)[0] for line in project["dependencies"]}
    found = missing((ROOT / "requirements.lock").read_text(encoding="utf-8"), named, installed)
    print("\n".join(found))
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
