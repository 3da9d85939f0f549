"""Fingerprints of what a run depends on: code, parameters, data, and `lib` modules and packages imported at any depth.

Code is compared without comments and docstrings, a notebook without its Markdown. From the lock file, only the packages
that this code needs are included. File times never matter.
"""

import ast
import hashlib
import json
import re
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from lib import paths, sources
from lib.data import catalog
from lib.press import parameters

# Modules whose package has another name, and packages that cannot affect results (display, checks, locks).
PACKAGES = {"PIL": "pillow", "faiss": "faiss-cpu", "sklearn": "scikit-learn", "yaml": "pyyaml"}
NO_RESULTS = {"anywidget", "filelock", "grimp", "ipython", "ipywidgets", "pydantic", "tqdm"}
# Modules that affect results only through parameter values, which are fingerprinted themselves, or not at all.
NO_RESULTS_OF_OURS = {"lib.press.fingerprint", "lib.press.parameters", "lib.sources"}
UNCOUNTED = {parameters.TAG, "colab"}  # cell tags; the latter installs packages on Colab and does nothing elsewhere


def notebook_hash(notebook: str) -> str:
    """Return the hash of the code cells without `UNCOUNTED` tags; parameter values are fingerprinted separately."""
    return sources.sha256(json.dumps([sources.normalised(source) for source in _code(notebook)]))


def imports(notebook: str) -> set[str]:
    """Return the modules and packages that the notebook imports directly."""
    found = set()
    for node in (node for source in _code(notebook) for node in ast.walk(_parsed(source))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inside = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {node.module} | (inside & sources.import_graph().modules)
    return found


def package_of(module: str) -> str:
    """Return the name in the lock file of an imported module's package."""
    module = module.split(".")[0]
    return PACKAGES.get(module, module.lower().replace("_", "-"))


def locked(packages: Iterable[str]) -> dict[str, str]:
    """Return the lock file's lines for these packages and all their dependencies, read from its `# via` comments.

    Several lines for one package (for other systems or Python versions) are joined by " or "; names that the lock file
    lacks, such as standard library modules, are left out.
    """
    lines: dict[str, list[str]] = {}
    needs: dict[str, set[str]] = {}
    for line in paths.LOCK.read_text(encoding="utf-8").splitlines():
        pin, _, users = (part.strip() for part in line.partition("# via"))
        if pin and not pin.startswith("#"):
            name = re.split("[=<>;~! ]", pin)[0].lower()
            lines.setdefault(name, []).append(pin)
            for user in filter(None, users.split(", ")):
                needs.setdefault(user, set()).add(name)
    found: dict[str, str] = {}
    waiting = list(packages)
    while waiting:
        name = waiting.pop()
        if name in lines and name not in found:
            found[name] = " or ".join(lines[name])
            waiting += needs.get(name, ())
    return dict(sorted(found.items()))


def parts_of(notebook: str, values: dict[str, Any]) -> dict[str, str]:
    """Return everything that a run with these resolved parameters depends on, keyed by names used in messages."""
    parts = {"notebook": notebook_hash(notebook)}
    parts |= {f"parameter {name}": repr(value) for name, value in sorted(values.items())}
    direct = imports(notebook)
    modules = sorted(name for name in direct if name.split(".")[0] == "lib")
    # The values in `defaults` modules are parameters, which are included above.
    hashes = sources.module_hashes(*modules, without=NO_RESULTS_OF_OURS)
    parts |= {f"module {name}": value for name, value in hashes.items() if not name.endswith(".defaults")}
    if "module lib.press.claims" in parts:  # the module that reads them
        parts["the source's claims"] = sources.sha256(paths.CLAIMS.read_text(encoding="utf-8"))
    packages = {package_of(name) for name in direct | sources.imported_packages(*modules)} - NO_RESULTS
    parts |= {f"package {name}": pins for name, pins in locked(packages).items()}
    # The lock file pins some packages per Python version, so the version is included.
    parts["Python version"] = "{}.{}".format(*sys.version_info)
    return parts | data_parts(values)


def data_parts(values: dict[str, Any]) -> dict[str, str]:
    """Return the state of the parameters' data set, and of any further data that the run uses, if present."""
    if not isinstance(values.get("dataset"), str):
        return {}
    more = values.get("more_datasets")
    others = [*(more if isinstance(more, list) else []), values.get("transfer")]
    others += [f"folder:{values['checkpoint']}"] if values.get("checkpoint") else []
    others += ["esc50"] if values.get("recorded_count") else []  # notebook 06 is tested on its recordings
    others += ["aihub-controls"] if values["dataset"].startswith("aihub") else []
    found = {f"data {name}": _signature(name) for name in others if name and isinstance(name, str)}
    found = {part: state for part, state in found.items() if state not in ("absent", "built-in")}
    if path := recording(values):
        found["data recording"] = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "absent"
    return found | {f"data {values['dataset']}": _signature(values["dataset"])}


def recording(values: dict[str, Any]) -> Path | None:
    """Return the path of the recording given to notebook 06; None if none was given."""
    return paths.ROOT / Path(values["recording"]).expanduser() if values.get("recording") else None


@cache  # scanning a large folder takes seconds, and every seed needs it
def _signature(dataset: str) -> str:
    return catalog.signature("esc50" if dataset == "soundscapes-recorded" else dataset)


def _code(notebook: str) -> list[str]:
    """Return the sources of the code cells that count."""
    code = [cell for cell in parameters.cells(notebook) if cell["cell_type"] == "code"]
    return ["".join(cell["source"]) for cell in code if not UNCOUNTED & set(cell.get("metadata", {}).get("tags", []))]


def _parsed(source: str) -> ast.AST:
    """Return the syntax tree of a cell without `%magic` and `!shell` lines; empty if it is not valid Python."""
    lines = ["pass" if line.lstrip().startswith(("%", "!")) else line for line in source.splitlines()]
    try:
        return ast.parse("\n".join(lines))
    except SyntaxError:
        return ast.Module([], [])
