"""Defaults of each notebook's parameters, and strict validation of overrides.

A notebook's one cell tagged `parameters` holds literals: names, types and *quick* values. Profiles
(`profiles/<name>.yaml`) and the command line (`PARAMS="epochs=3"`) override them. papermill only logs an unknown name;
here it is an error before a kernel starts.
"""

import ast
import contextlib
import difflib
import json
import math
import re
import shlex
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from lib import paths

TAG = "parameters"
MORE = "more"  # the parameter that holds those of a `defaults` module
SET_BY_THE_WORKFLOW = {"seed": "SEEDS", "seeds": "SEEDS", "profile": "PROFILE"}
# Where a run happens and which of several equal runs it is; all other parameters are settings.
NOT_SETTINGS = (*SET_BY_THE_WORKFLOW, "device")
SEEDS_BELOW = 2**32  # as NumPy's are
PROFILE_KEYS = ("notebooks", "seeds")
ENTRY_KEYS = ("parameters", "reads", "threads", "resources", "skip")
# What a notebook asks of a cluster, unless its profile's entry says otherwise.
RESOURCES = {"memory_gb": 4, "hours": 4, "gpus": 0}


class ParameterError(ValueError):
    """A name or value that no notebook takes; the message says what would be valid."""


def notebooks() -> list[str]:
    """Names of all notebooks, in reading order."""
    return sorted(path.stem for path in paths.NOTEBOOKS.glob("*.ipynb"))


def profiles() -> list[str]:
    return sorted(path.stem for path in paths.PROFILES.glob("*.yaml"))


def defaults(notebook: str) -> dict[str, Any]:
    """The literals of the notebook's `parameters` cell and of the `defaults` module that it imports, by name.

    Profiles and the command line set either; in an open notebook the cell's `more` sets those of the module.
    """
    # Not papermill.inspect_notebook: importing it takes seconds, and it misses quoted and dotted annotations.
    cell, further = _of_cell(notebook), _further(notebook)
    if twice := sorted(cell.keys() & further.keys()):
        raise ParameterError(f"{notebook}.ipynb has {twice} both in its '{TAG}' cell and among its defaults in lib")
    return {name: value for name, value in cell.items() if name != MORE} | further


def for_cell(notebook: str, values: dict[str, Any]) -> dict[str, Any]:
    """Resolved values as papermill puts them below the `parameters` cell: those of `defaults` modules are in `more`."""
    further = _further(notebook)
    own = {name: value for name, value in values.items() if name not in further}
    return own | ({MORE: {name: values[name] for name in further}} if further else {})


def of_globals(notebook: str, namespace: Mapping[str, Any]) -> dict[str, Any]:
    """The values in an open notebook: those of its cell, and its `more` over the defaults in lib."""
    known, further = defaults(notebook), _further(notebook)
    if missing := [name for name in known if name not in namespace and name not in further]:
        raise ParameterError(f"{notebook} has the parameters {missing} but no values for them; run its parameters cell")
    own = {
        name: _checked(name, namespace[name], namespace, "The parameters cell", notebook)
        for name in known.keys() - further.keys()
    }
    values = own | further
    given = namespace.get(MORE, {}) if further else {}
    if not isinstance(given, dict):
        raise ParameterError(f"`{MORE}` of {notebook} is {given!r}; expected a dictionary such as {{'epochs': 3}}")
    for name, value in given.items():
        values[name] = _checked(name, value, further, f"`{MORE}`", notebook)
    return {name: values[name] for name in known}


def profile_entry(notebook: str, profile: str) -> dict[str, Any]:
    """The profile's entry for this notebook: `parameters`, `reads`, `threads`; empty if it has none."""
    return dict((load_profile(profile).get("notebooks") or {}).get(notebook) or {})


def load_profile(profile: str) -> dict[str, Any]:
    """The profile as a mapping; its structure and all notebook names in it are checked."""
    if profile not in profiles():
        raise ParameterError(f"Unknown profile '{profile}'{_nearest(profile, profiles())}")
    return _load_profile(paths.PROFILES / f"{profile}.yaml")


def resolve(notebook: str, profile: str, overrides: dict[str, Any] | None = None) -> dict[str, Any]:
    """All values that the notebook will run with: its own, the profile's over them, `overrides` last."""
    values = defaults(notebook)
    given = profile_entry(notebook, profile).get("parameters") or {}
    for name, value in given.items():
        if name in SET_BY_THE_WORKFLOW:
            raise ParameterError(
                f"Profile '{profile}' sets '{name}' of {notebook}, but {SET_BY_THE_WORKFLOW[name]} sets it"
                " (seeds of a profile stand at its top level: `seeds: [0, 1]`)"
            )
        values[name] = _checked(name, value, values, f"Profile '{profile}'", notebook)
    for name, value in (overrides or {}).items():
        values[name] = _checked(name, value, values, "The command line", notebook)
    if "profile" in values:
        values["profile"] = profile
    return values


def is_custom(notebook: str, profile: str, values: Mapping[str, Any]) -> bool:
    """Whether a setting differs from the profile's, so that the results are not the profile's."""
    usual = resolve(notebook, profile)
    return any(usual[name] != values[name] for name in usual if name not in NOT_SETTINGS)


def parse_assignments(text: str, known: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """`epochs=3 dataset=folder:/x groups=[1,2]` as a dictionary.

    Quotes group, as in a shell: `dataset='folder:/my birds'`; backslashes are literal. Values are Python literals where
    they parse (`true` and `false` too), else strings, also in lists; those of strings in `known` are never parsed.
    """
    lexer = shlex.shlex(text, posix=True, punctuation_chars=False)
    lexer.whitespace_split, lexer.commenters, lexer.escape = True, "", ""
    try:
        words = list(lexer)
    except ValueError:
        raise ParameterError(
            f"The command line's parameters have a quote that is not closed: {text}\n"
            "Put a value that holds one into quotes of the other kind: "
            """PARAMS='dataset="folder:/home/me/it's mine"'"""
        ) from None
    values = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name.isidentifier():
            raise ParameterError(
                f"The command line's parameters hold '{word}', which is not of the form name=value"
                " (write lists without spaces: groups=[1,2])"
            )
        if name in SET_BY_THE_WORKFLOW:
            raise ParameterError(f"'{name}' is not set through PARAMS; use {SET_BY_THE_WORKFLOW[name]}={value}")
        if name in values:
            raise ParameterError(f"The command line sets '{name}' twice")
        values[name] = value if isinstance((known or {}).get(name), str) else _literal(value)
    return values


def check_names(names, known_by: dict[str, dict[str, Any]]) -> None:
    """Every name must belong to at least one of the given notebooks."""
    known = sorted({name for values in known_by.values() for name in values} - set(SET_BY_THE_WORKFLOW))
    for name in names:
        if name not in known:
            where = ", ".join(known_by) or "no notebook"
            raise ParameterError(
                f"The command line sets '{name}', which no notebook of this run has"
                f"{_nearest(name, known)} (notebooks: {where})"
            )


def check_notebook(name: str) -> None:
    if name not in notebooks():
        raise ParameterError(f"Unknown notebook '{name}'{_nearest(name, notebooks())}")


def cells(notebook: str) -> list[dict[str, Any]]:
    """The notebook's cells, as they stand in its file."""
    check_notebook(notebook)
    path = paths.NOTEBOOKS / f"{notebook}.ipynb"
    return _cells(path, path.stat().st_mtime_ns)


@cache
def _cells(path: Path, _changed: int) -> list[dict[str, Any]]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["cells"]
        whole = all(isinstance(cell["source"], str | list) and cell["metadata"].get("tags", []) is not None
                    and "cell_type" in cell for cell in found)  # fmt: skip
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        whole = False
    if not whole:
        raise ParameterError(f"{path} is not a valid notebook (incomplete or damaged JSON); `git restore` or delete it")
    return found


def _of_cell(notebook: str) -> dict[str, Any]:
    tagged = [cell for cell in cells(notebook) if TAG in cell.get("metadata", {}).get("tags", [])]
    if len(tagged) != 1:
        raise ParameterError(f"{notebook}.ipynb has {len(tagged)} cells tagged '{TAG}'; it needs exactly one")
    return _literals("".join(tagged[0]["source"]), f"The '{TAG}' cell of {notebook}.ipynb")


def _further(notebook: str) -> dict[str, Any]:
    """The literals of the module `defaults` that the notebook imports from a package of lib; empty if none."""
    if MORE not in _of_cell(notebook):
        return {}
    code = "\n".join("".join(cell["source"]) for cell in cells(notebook) if cell["cell_type"] == "code")
    package = re.search(r"^from (lib\.[\w.]+) import (?:\w+, )*defaults\b", code, re.MULTILINE)
    if not package:
        raise ParameterError(f"{notebook}.ipynb has `{MORE}`, but no line `from lib.<study> import defaults`")
    module = paths.ROOT.joinpath(*package[1].split("."), "defaults.py")
    return _literals(module.read_text(encoding="utf-8"), str(module.relative_to(paths.ROOT)))


def _literals(source: str, where: str) -> dict[str, Any]:
    """The values of a source of nothing but `name = literal`."""
    values: dict[str, Any] = {}
    try:
        statements = ast.parse(source).body
    except (SyntaxError, ValueError, RecursionError) as error:
        raise ParameterError(f"{where} is not Python: {error}") from None
    for number, statement in enumerate(statements):
        try:
            match statement:
                case ast.Expr(value=ast.Constant()) if number == 0:
                    pass  # a docstring
                case ast.Assign(targets=[ast.Name(id=name)], value=value):
                    values[name] = ast.literal_eval(value)
                case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                    values[name] = ast.literal_eval(value)
                case _:
                    raise ValueError
        except (ValueError, TypeError):
            raise ParameterError(
                f"{where} may only hold `name = literal`, but has: {ast.unparse(statement)}\n"
                "Derive values in the next cell: papermill's values come after this one."
            ) from None
    return values


class _Loader(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        names = [key.value for key, _ in node.value]
        if twice := [name for name in names if names.count(name) > 1]:  # YAML itself would drop the first
            raise yaml.constructor.ConstructorError(problem=f"{twice[0]!r} twice", problem_mark=node.start_mark)
        return super().construct_mapping(node, deep)


@cache
def _load_profile(path: Path) -> dict[str, Any]:
    profile = path.stem
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _Loader) or {}
    except Exception as error:  # YAML's own, or whatever Python raises of a date or number that there cannot be
        raise ParameterError(f"Profile '{profile}' is not valid YAML: {error}") from None
    _check_keys(content, PROFILE_KEYS, f"Profile '{profile}'")
    seeds = content.get("seeds", [0])
    if not isinstance(seeds, list) or not seeds or not all(_is_whole(one) and one < SEEDS_BELOW for one in seeds):
        raise ParameterError(f"Profile '{profile}': seeds must be a list like [0, 1, 2], not {seeds!r}")
    entries = content.get("notebooks") or {}
    _check_keys(entries, notebooks(), f"Profile '{profile}', notebooks")
    for notebook, entry in entries.items():
        where, entry = f"Profile '{profile}', {notebook}", entry or {}
        _check_keys(entry, ENTRY_KEYS, where)
        _check_keys(entry.get("parameters") or {}, None, f"{where}, parameters")
        reads, resources = entry.get("reads") or [], entry.get("resources") or {}
        if not isinstance(reads, list) or not all(isinstance(name, str) for name in reads):
            raise ParameterError(f"{where}: reads must be a list of notebooks, not {reads!r}")
        _check_keys(dict.fromkeys(reads), notebooks(), f"{where}, reads")
        if not isinstance(entry.get("skip", ""), str):
            raise ParameterError(f"{where}: skip is {entry['skip']!r}, expected text: why the profile omits it")
        if not _is_whole(threads := entry.get("threads", 1), least=1):
            raise ParameterError(f"{where}: threads must be a positive integer, not {threads!r}")
        _check_keys(resources, RESOURCES, f"{where}, resources")
        if not all(map(_is_whole, resources.values())):
            raise ParameterError(f"{where}: resources are whole numbers, not {resources!r}")
    return content


def _is_whole(value: Any, least: int = 0) -> bool:
    return type(value) is int and value >= least


def _check_keys(mapping, known, where: str) -> None:
    if not isinstance(mapping, dict):
        raise ParameterError(f"{where}: expected `name: value` entries, found {mapping!r}")
    for key in mapping:
        if known is not None and key not in known:
            raise ParameterError(f"{where}: unknown name '{key}'{_nearest(key, known)}")


def _checked(name: str, value, values: dict[str, Any], who: str, notebook: str):
    """The value, made a float where an integer was given for one; otherwise of the very same type."""
    if name not in values:
        known = sorted(set(values) - set(SET_BY_THE_WORKFLOW))
        raise ParameterError(f"{who} sets '{name}' of {notebook}, which has no such parameter{_nearest(name, known)}")
    like = values[name]
    try:
        value = _cast(value, like)
    except TypeError:
        raise ParameterError(
            f"{who} sets '{name}' of {notebook} to {value!r} ({type(value).__name__}); expected {_type_name(like)}"
        ) from None
    if any(
        type(item) in (int, float) and not 0 <= item < math.inf
        for item in (value if isinstance(value, list) else [value])
    ):
        raise ParameterError(f"{who} sets '{name}' of {notebook} to {value!r}; expected numbers of 0 or more")
    return value


def _cast(value, like):
    """`value` as the type of `like`, or TypeError. bool is no int, None takes all, items are as any of the list's."""
    if like is None:
        return value
    if isinstance(like, float) and type(value) is int:
        return float(value)
    if isinstance(like, list | tuple) and isinstance(value, list | tuple):
        return type(like)(_cast_element(item, like) for item in value) if like else type(like)(value)
    if type(value) is not type(like):
        raise TypeError
    return value


def _cast_element(item, models):
    for model in sorted(models, key=lambda element: not isinstance(element, float)):  # [0, 0.5] is floats
        with contextlib.suppress(TypeError):
            return _cast(item, model)
    raise TypeError


def _type_name(like) -> str:
    if isinstance(like, list | tuple) and like:
        names = {type(item).__name__ for item in like}
        names.discard("int" if "float" in names else "")
        return f"a {type(like).__name__} of {' or '.join(sorted(names))}, such as {like!r}"
    return f"{type(like).__name__}, such as {like!r}"


def _literal(text: str):
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        return ast.literal_eval(text)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        if re.fullmatch(r"\[[^][]*\]", text):  # bare words, or words whose quotes the shell's rules took
            return [_literal(item.strip()) for item in text[1:-1].split(",")]
        return text


def _nearest(name, known) -> str:
    known = [str(item) for item in known]
    close = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
    if close:
        return f"; did you mean '{close[0]}'?"
    return f"; valid: {', '.join(known)}" if known else "; there is none"
