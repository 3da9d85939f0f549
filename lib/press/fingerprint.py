"""What a run depends on, by content: its code, parameters, `lib` modules (imported at any depth), lock file and data.

Code is compared without comments and docstrings, a notebook without its text. Times of files never matter.
"""

import ast
import json
import sys
from functools import cache
from typing import Any

from lib import paths, sources
from lib.data import catalog
from lib.press import parameters

UNCOUNTED = {parameters.TAG, "colab"}  # tags of cells; on Colab the latter installs, elsewhere it does nothing


def notebook_hash(notebook: str) -> str:
    """The hash of the cells of code but for the tagged ones: the values of parameters count by themselves."""
    return sources.sha256(json.dumps([sources.normalised(source) for source in _code(notebook)]))


def imported_modules(notebook: str) -> list[str]:
    """The `lib` modules that the notebook's code names in its imports."""
    found = set()
    for node in (node for source in _code(notebook) for node in ast.walk(_parsed(source))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inside = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {node.module} | (inside & sources.import_graph().modules)
    return sorted(name for name in found if name.split(".")[0] == "lib")


def parts_of(notebook: str, values: dict[str, Any]) -> dict[str, str]:
    """Everything that a run with these resolved parameters depends on, by names for messages."""
    parts = {"notebook": notebook_hash(notebook)}
    parts |= {f"parameter {name}": repr(value) for name, value in sorted(values.items())}
    modules = imported_modules(notebook)
    # What a module `defaults` holds are parameters, and named as such above.
    hashes = sources.module_hashes(*modules)
    parts |= {f"module {name}": value for name, value in hashes.items() if not name.endswith(".defaults")}
    if "module lib.press.claims" in parts:  # which reads them
        parts["the source's claims"] = sources.sha256(paths.CLAIMS.read_text(encoding="utf-8"))
    parts["lock file"] = sources.sha256(paths.LOCK.read_text(encoding="utf-8"))
    # The lock pins some packages per Python version, so the version belongs to it.
    parts["Python version"] = "{}.{}".format(*sys.version_info)
    return parts | data_parts(values)


def data_parts(values: dict[str, Any]) -> dict[str, str]:
    """The state of the data set that the parameters name, if they name one."""
    if not isinstance(values.get("dataset"), str):
        return {}
    dataset, root = values["dataset"], values.get("data_root") or ""
    return {f"data {dataset}": _signature(dataset, root)}


@cache  # scanning a large folder takes seconds, and every seed asks
def _signature(dataset: str, root: str) -> str:
    return catalog.signature(dataset, root)


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
