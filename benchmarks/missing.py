"""What a machine lacks of requirements.lock to run notebooks, a requirement a line: for benchmarks/gpu.sh and pip."""

import re
import sys
import tomllib
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BARE = {"accelerate", "matplotlib", "torch", "torchvision", "transformers"}  # there, with all that they need
UNUSED = {"jupyterlab", "latex2mathml", "snakemake", "typst"}  # by notebooks, which need a kernel


def missing(lock: str, named: set[str], there: Callable[[str], bool]) -> list[str]:
    """The lines of `lock` for packages `named` and all that these need, as its comments tell, but those that are
    `there` and what BARE ones need."""
    from packaging.requirements import Requirement  # of transformers

    lines = []  # requirement, what needs it; of some packages a line for each version of Python
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
