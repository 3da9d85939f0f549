"""What a run depends on, by content.

A run is stale when its own cells, its parameters, a `lib` module that it imports (at any
depth, through the import graph), the lock file or its data changed. Code is compared
without comments and docstrings, so that explaining something never costs an hour of
training; times of files never matter.
"""

import ast
import hashlib
import json
import sys
from collections.abc import Collection
from functools import cache
from typing import Any

import grimp

from lib import parameters, paths
from lib.data import catalog


def source_hash(*modules: str) -> str:
    """One hash over the given `lib` modules and everything in `lib` that they import, but not this module.

    What is kept under such a hash (a checkpoint, a measurement) is not made by the code that hashes.
    """
    return digest({name: module_hash(name) for name in closure(*modules, without={__name__})})


def module_hashes(*modules: str) -> dict[str, str]:
    """One hash for each module of the transitive import closure, packages' `__init__` included."""
    return {name: module_hash(name) for name in closure(*modules)}


def closure(*modules: str, without: Collection[str] = ()) -> list[str]:
    """The modules and all of `lib` that importing them executes, `without` some and what only they import."""
    graph = _graph()
    found: set[str] = set(without)
    waiting = list(modules)
    while waiting:
        module = waiting.pop()
        if module in found:
            continue
        if module not in graph.modules:
            raise ImportError(f"No module named '{module}' in lib")
        found.add(module)
        waiting += graph.find_modules_directly_imported_by(module)
        waiting += [".".join(module.split(".")[:n]) for n in range(1, module.count(".") + 1)]
    return sorted(found - set(without))


@cache
def module_hash(module: str) -> str:
    """The hash of one module's code without comments and docstrings."""
    base = paths.ROOT.joinpath(*module.split("."))
    path = base / "__init__.py" if base.is_dir() else base.with_suffix(".py")
    return _sha256(normalised(path.read_text(encoding="utf-8")))


def normalised(source: str) -> str:
    """The code without comments, docstrings and layout; the text itself where it is not Python."""
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return source
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(getattr(first.value, "value", None), str):
                del node.body[0]
    return ast.dump(tree)


def notebook_hash(notebook: str) -> str:
    """The hash of what the cells say; outputs, counts, metadata and the layout of code are no part of it."""
    parts = []
    for cell in _cells(notebook):
        source = "".join(cell["source"])
        code = cell["cell_type"] == "code"
        parts.append([cell["cell_type"], normalised(source) if code else source.strip()])
    return _sha256(json.dumps(parts))


def imported_modules(notebook: str) -> list[str]:
    """The `lib` modules that the notebook's code names in its imports."""
    known = _graph().modules
    found = set()
    for cell in _cells(notebook):
        if cell["cell_type"] != "code":
            continue
        for node in _imports("".join(cell["source"])):
            if isinstance(node, ast.Import):
                found.update(alias.name for alias in node.names if alias.name.split(".")[0] == "lib")
            elif node.module and node.module.split(".")[0] == "lib":
                found.add(node.module)
                inside = {f"{node.module}.{alias.name}" for alias in node.names}
                found.update(inside & known)
    return sorted(found)


def inputs(
    notebook: str,
    profile: str,
    overrides: dict[str, Any] | None = None,
    seed: int | None = None,
    seeds: list[int] | None = None,
) -> dict[str, str]:
    """Everything that one run depends on, named so that a change can be told in words."""
    values = run_parameters(notebook, profile, overrides, seed, seeds)
    return parts_of(notebook, values)


def run_parameters(notebook, profile, overrides=None, seed=None, seeds=None) -> dict[str, Any]:
    """The resolved parameters with the seed, or for a notebook over all seeds the seeds, of one run."""
    values = parameters.resolve(notebook, profile, overrides)
    if seed is not None and "seed" in values:
        values["seed"] = seed
    if seeds is not None and "seeds" in values:
        values["seeds"] = list(seeds)
    return values


def parts_of(notebook: str, values: dict[str, Any]) -> dict[str, str]:
    """As `inputs`, for parameters that are already resolved."""
    parts = {"notebook": notebook_hash(notebook)}
    parts |= {f"parameter {name}": repr(value) for name, value in sorted(values.items())}
    modules = imported_modules(notebook)
    parts |= {f"module {name}": value for name, value in module_hashes(*modules).items()}
    if "module lib.claims" in parts:  # which reads them
        parts["the source's claims"] = _sha256(paths.CLAIMS.read_text(encoding="utf-8"))
    parts["lock file"] = _sha256(paths.LOCK.read_text(encoding="utf-8"))
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


def digest(parts: dict[str, str]) -> str:
    """One hash over all parts."""
    return _sha256(json.dumps(parts, sort_keys=True))


@cache
def _graph() -> grimp.ImportGraph:
    # No cache on disk: building takes some milliseconds, a stale cache would cost results.
    return grimp.build_graph("lib", cache_dir=None, exclude_type_checking_imports=True)


def _cells(notebook: str) -> list[dict]:
    parameters.check_notebook(notebook)
    path = paths.NOTEBOOKS / f"{notebook}.ipynb"
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


def _imports(source: str) -> list[ast.Import | ast.ImportFrom]:
    """Import statements anywhere in a cell; a cell with `%magic` or `!shell` lines is read without those."""
    lines = ["pass" if line.lstrip().startswith(("%", "!")) else line for line in source.splitlines()]
    try:
        tree = ast.parse("\n".join(lines))
    except SyntaxError:
        return []
    return [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
