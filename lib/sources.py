"""Hashes of `lib` modules and everything they import, ignoring comments and docstrings; and queries to git."""

import ast
import hashlib
import json
import os
import subprocess
from collections.abc import Collection
from functools import cache
from pathlib import Path

import grimp

from lib import paths


def source_hash(*modules: str) -> str:
    """Return one hash over the given `lib` modules and everything in `lib` that they import, except this module."""
    return digest(module_hashes(*modules, without={__name__}))


def module_hashes(*modules: str, without: Collection[str] = ()) -> dict[str, str]:
    """Return one hash for each module of `closure`, including the `__init__` of packages."""
    return {name: module_hash(name) for name in closure(*modules, without=without)}


def closure(*modules: str, without: Collection[str] = ()) -> list[str]:
    """Return the modules and all of `lib` that importing them executes, except `without` and what only those import."""
    graph = import_graph()
    found: set[str] = set(without)
    waiting = list(modules)
    while waiting:
        module = waiting.pop()
        if module in found:
            continue
        if module not in graph.modules:
            raise ImportError(f"No module named '{module}' in lib; does its folder have an __init__.py?")
        found.add(module)
        waiting += [
            name for name in graph.find_modules_directly_imported_by(module) if not graph.is_module_squashed(name)
        ]
        waiting += [".".join(module.split(".")[:n]) for n in range(1, module.count(".") + 1)]
    return sorted(found - set(without))


def imported_packages(*modules: str) -> set[str]:
    """Return the names of packages outside `lib` that the modules import, directly or through modules of `lib`."""
    graph = import_graph()
    found = {name for module in closure(*modules) for name in graph.find_modules_directly_imported_by(module)}
    return {name for name in found if graph.is_module_squashed(name)}


@cache
def module_hash(module: str) -> str:
    """Return the hash of one module's code without comments and docstrings."""
    base = paths.ROOT.joinpath(*module.split("."))
    path = base / "__init__.py" if base.is_dir() else base.with_suffix(".py")
    return sha256(normalised(path.read_text(encoding="utf-8")))


def normalised(source: str) -> str:
    """Return the code's syntax tree without comments and docstrings, as text; `source` itself if not Python."""
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


def digest(parts: dict) -> str:
    """Return one hash over all parts."""
    return sha256(json.dumps(parts, sort_keys=True))


@cache
def import_graph() -> grimp.ImportGraph:
    # No cache on disk: building takes milliseconds, and a stale cache would cost results.
    return grimp.build_graph("lib", cache_dir=None, exclude_type_checking_imports=True, include_external_packages=True)


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def git(root: Path, *words: str) -> str | None:
    """Return git's output for the clone at `root`; None if git fails or `root` is not the top folder of a clone."""
    command, how = ["git", "-C", str(root)], {"text": True, "timeout": 60, "stderr": subprocess.DEVNULL}
    try:
        top = subprocess.check_output([*command, "rev-parse", "--show-toplevel"], **how).strip()
        return subprocess.check_output([*command, *words], **how).strip() if os.path.samefile(top, root) else None
    except (OSError, subprocess.SubprocessError):
        return None
