"""What a run depends on, by content: code, parameters, data, and the `lib` modules and packages imported at any depth.

Code is compared without comments and docstrings, a notebook without its text. Of the lock file only the packages that
this code needs count. Times of files never matter.
"""

import ast
import json
import re
import sys
from collections.abc import Iterable
from functools import cache
from typing import Any

from lib import paths, sources
from lib.data import catalog
from lib.press import parameters

# Modules whose package is named otherwise, and packages that show or guard things and compute nothing.
PACKAGES = {"PIL": "pillow", "faiss": "faiss-cpu", "sklearn": "scikit-learn", "yaml": "pyyaml"}
NO_RESULTS = {"anywidget", "filelock", "grimp", "ipython", "ipywidgets", "pydantic", "tqdm"}
# Modules that change a result through the values of parameters alone, which count by themselves, or not at all.
NO_RESULTS_OF_OURS = {"lib.press.fingerprint", "lib.press.parameters", "lib.sources"}
UNCOUNTED = {parameters.TAG, "colab"}  # tags of cells; on Colab the latter installs, elsewhere it does nothing


def notebook_hash(notebook: str) -> str:
    """The hash of the cells of code but for the tagged ones: the values of parameters count by themselves."""
    return sources.sha256(json.dumps([sources.normalised(source) for source in _code(notebook)]))


def imported_modules(notebook: str) -> list[str]:
    """The `lib` modules that the notebook's code names in its imports."""
    return sorted(name for name in _imports(notebook) if name.split(".")[0] == "lib")


def _imports(notebook: str) -> set[str]:
    found = set()
    for node in (node for source in _code(notebook) for node in ast.walk(_parsed(source))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inside = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {node.module} | (inside & sources.import_graph().modules)
    return found


def package_of(module: str) -> str:
    """The name by which the lock file knows the package of an imported module."""
    module = module.split(".")[0]
    return PACKAGES.get(module, module.lower().replace("_", "-"))


def locked(packages: Iterable[str]) -> dict[str, str]:
    """The lines of the lock file of these packages and of all that they need, which its `# via` comments tell.

    Several lines of one package, for other systems or versions of Python, are joined by " or "; what the lock file does
    not name, such as Python's own modules, is left out.
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
    """Everything that a run with these resolved parameters depends on, by names for messages."""
    parts = {"notebook": notebook_hash(notebook)}
    parts |= {f"parameter {name}": repr(value) for name, value in sorted(values.items())}
    modules = imported_modules(notebook)
    # What a module `defaults` holds are parameters, and named as such above.
    hashes = sources.module_hashes(*modules, without=NO_RESULTS_OF_OURS)
    parts |= {f"module {name}": value for name, value in hashes.items() if not name.endswith(".defaults")}
    if "module lib.press.claims" in parts:  # which reads them
        parts["the source's claims"] = sources.sha256(paths.CLAIMS.read_text(encoding="utf-8"))
    imported = {package_of(name) for name in _imports(notebook) | sources.imported_packages(*modules)} - NO_RESULTS
    parts |= {f"package {name}": pins for name, pins in locked(imported).items()}
    # The lock pins some packages per Python version, so the version belongs to it.
    parts["Python version"] = "{}.{}".format(*sys.version_info)
    return parts | data_parts(values)


def data_parts(values: dict[str, Any]) -> dict[str, str]:
    """The state of the data set that the parameters name, and of what else it or they need, where that is here."""
    if not isinstance(values.get("dataset"), str):
        return {}
    more = values.get("more_datasets")
    others = [*(more if isinstance(more, list) else []), values.get("transfer")]
    others += [f"folder:{values['checkpoint']}"] if values.get("checkpoint") else []
    others += ["esc50"] if values.get("recorded_count") else []  # notebook 06 listens to it
    others += ["aihub-controls"] if values["dataset"].startswith("aihub") else []
    found = {f"data {name}": _signature(name) for name in others if name and isinstance(name, str)}
    found = {part: state for part, state in found.items() if state not in ("absent", "built-in")}
    return found | {f"data {values['dataset']}": _signature(values["dataset"])}


@cache  # scanning a large folder takes seconds, and every seed asks
def _signature(dataset: str) -> str:
    return catalog.signature("esc50" if dataset == "soundscapes-recorded" else dataset)


def _code(notebook: str) -> list[str]:
    """The sources of the cells of code that count."""
    code = [cell for cell in parameters.cells(notebook) if cell["cell_type"] == "code"]
    return ["".join(cell["source"]) for cell in code if not UNCOUNTED & set(cell.get("metadata", {}).get("tags", []))]


def _parsed(source: str) -> ast.AST:
    """A cell's code without its lines of `%magic` and `!shell`; empty where it is not Python."""
    lines = ["pass" if line.lstrip().startswith(("%", "!")) else line for line in source.splitlines()]
    try:
        return ast.parse("\n".join(lines))
    except SyntaxError:
        return ast.Module([], [])
