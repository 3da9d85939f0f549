"""Defaults of each notebook's parameters, and strict validation of overrides.

The single cell tagged `parameters` in a notebook holds literals, which define names, types and *quick* values. Profiles
(`profiles/<name>.yaml`) and the command line (`PARAMS="epochs=3"`) override them. papermill only logs unknown names;
here they are an error before a kernel starts.
"""

import ast
import difflib
import json
import re
import shlex
from collections.abc import Mapping
from functools import cache, reduce
from operator import or_
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, Field, NonNegativeInt, TypeAdapter, ValidationError

from lib import paths

TAG = "parameters"
MORE = "more"  # the parameter that holds overrides of a `defaults` module
USUAL = "quick"  # the profile whose `reads` apply in every profile that gives none
SET_BY_THE_WORKFLOW = {"seed": "SEEDS", "seeds": "SEEDS", "profile": "PROFILE"}
# These only say where a run happens and which of several equal runs it is; all others are settings.
NOT_SETTINGS = (*SET_BY_THE_WORKFLOW, "device")
SEEDS_BELOW = 2**32  # NumPy's limit
NUMBERS = {int: NonNegativeInt, float: Annotated[float, Field(ge=0, allow_inf_nan=False)]}


class ParameterError(ValueError):
    """An invalid parameter name or value; the message says what would be valid."""


class _Strict(BaseModel, extra="forbid", strict=True):
    """A model that rejects unknown names and values of another type."""


class Resources(_Strict):
    """Resources that a notebook requests on a cluster."""

    memory_gb: NonNegativeInt = 4
    hours: NonNegativeInt = 4
    gpus: NonNegativeInt = 0


class Entry(_Strict):
    """A profile's settings for one notebook."""

    parameters: dict[str, Any] = {}
    reads: list[str] = []  # notebooks whose results it uses; for the default see `profile_entry`
    resources: Resources = Resources()
    skip: str = ""  # why the profile omits it


class Profile(_Strict):
    """The content of `profiles/<name>.yaml`."""

    seeds: list[Annotated[int, Field(ge=0, lt=SEEDS_BELOW)]] = Field([0], min_length=1)
    notebooks: dict[str, Entry] = {}


def notebooks() -> list[str]:
    """Return the names of all notebooks, in reading order."""
    return sorted(path.stem for path in paths.NOTEBOOKS.glob("*.ipynb"))


def profiles() -> list[str]:
    return sorted(path.stem for path in paths.PROFILES.glob("*.yaml"))


def defaults(notebook: str) -> dict[str, Any]:
    """Return the literals in the notebook's `parameters` cell and in the `defaults` module that it imports, by name.

    Profiles and the command line can set both; in an open notebook, the cell's `more` sets those of the module.
    """
    # Not papermill.inspect_notebook: importing it takes seconds, and it misses quoted and dotted annotations.
    cell, further = _of_cell(notebook), _further(notebook)
    if twice := sorted(cell.keys() & further.keys()):
        raise ParameterError(f"{notebook}.ipynb has {twice} both in its '{TAG}' cell and among its defaults in lib")
    return {name: value for name, value in cell.items() if name != MORE} | further


def for_cell(notebook: str, values: dict[str, Any]) -> dict[str, Any]:
    """Return resolved values as papermill injects them: those of the `defaults` module are collected in `more`."""
    further = _further(notebook)
    own = {name: value for name, value in values.items() if name not in further}
    return own | ({MORE: {name: values[name] for name in further}} if further else {})


def of_globals(notebook: str, namespace: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values in an open notebook: those of its cell, and the defaults in lib overridden by its `more`."""
    known, further = defaults(notebook), _further(notebook)
    given = {name: namespace[name] for name in sorted(further.keys() & namespace.keys())}
    if stray := {name: value for name, value in given.items() if not isinstance(value, ModuleType)}:
        raise ParameterError(f"{notebook} takes {', '.join(stray)} from its parameter `{MORE}` alone: {MORE} = {stray}")
    if missing := [name for name in known if name not in namespace and name not in further]:
        raise ParameterError(f"{notebook} has the parameters {missing} but no values for them; run its parameters cell")
    values = {name: namespace[name] for name in known.keys() - further.keys()}
    values = {name: _checked(name, value, known, "The parameters cell", notebook) for name, value in values.items()}
    given = namespace.get(MORE, {}) if further else {}
    if not isinstance(given, dict):
        raise ParameterError(f"`{MORE}` of {notebook} is {given!r}; expected a dictionary such as {{'epochs': 3}}")
    given = {name: _checked(name, value, further, f"`{MORE}`", notebook) for name, value in given.items()}
    return known | values | given


def profile_entry(notebook: str, profile: str) -> Entry:
    """Return the profile's entry for this notebook, an empty one by default.

    If it does not set `reads`, it gets those of profile quick, without the notebooks that this profile skips.
    """
    entries = load_profile(profile).notebooks
    entry = entries.get(notebook, Entry())
    if "reads" in entry.model_fields_set or USUAL not in profiles():
        return entry
    usual = load_profile(USUAL).notebooks.get(notebook, Entry()).reads
    return entry.model_copy(update={"reads": [name for name in usual if not entries.get(name, Entry()).skip]})


def load_profile(profile: str) -> Profile:
    """Load a profile, validating its structure and all notebook names in it."""
    if profile not in profiles():
        raise ParameterError(f"Unknown profile '{profile}'{_nearest(profile, profiles())}")
    return _load_profile(paths.PROFILES / f"{profile}.yaml")


def resolve(notebook: str, profile: str, overrides: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return all values of a run: the notebook's defaults, overridden by the profile, then by `overrides`."""
    values = defaults(notebook)
    for name, value in profile_entry(notebook, profile).parameters.items():
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


def changed(notebook: str, profile: str, values: Mapping[str, Any]) -> list[str]:
    """Return the settings that differ from the profile's. If there are any, the results are not the profile's."""
    usual = resolve(notebook, profile)
    return [name for name in usual if usual[name] != values[name] and name not in NOT_SETTINGS]


def parse_assignments(text: str, known: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Parse assignments such as `epochs=3 dataset=folder:/x groups=[1,2]` into a dictionary.

    Quotes group as in a shell: `dataset='folder:/my birds'`. Values, also in lists, are Python literals if they parse
    (`true` and `false` too), else strings; values of parameters that are strings in `known` are never parsed.
    """
    lexer = shlex.shlex(text, posix=True, punctuation_chars=False)
    lexer.whitespace_split, lexer.commenters, lexer.escape = True, "", ""  # a backslash is a literal character
    try:
        words = list(lexer)
    except ValueError as error:
        raise ParameterError(f"The command line's parameters cannot be read ({error}): {text}") from None
    values = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name.isidentifier():
            raise ParameterError(
                f"The command line's parameters hold '{word}', which is not of the form name=value"
                " (write lists without spaces: groups=[1,2])"
            )
        if name in values:
            raise ParameterError(f"The command line sets '{name}' twice")
        if name in SET_BY_THE_WORKFLOW:
            raise ParameterError(f"'{name}' is not set through PARAMS; use {SET_BY_THE_WORKFLOW[name]}={value}")
        values[name] = value if isinstance((known or {}).get(name), str) else _literal(value)
        if isinstance(values[name], tuple) and value.endswith(","):  # `3,` is a tuple in Python
            raise ParameterError(f"The command line's parameters hold '{word}': spaces separate them, without commas")
    return values


def check_names(names, known_by: dict[str, dict[str, Any]]) -> None:
    """Raise ParameterError unless every name belongs to at least one of the given notebooks."""
    known = sorted({name for values in known_by.values() for name in values} - set(SET_BY_THE_WORKFLOW))
    for name in names:
        if name not in known:
            raise ParameterError(
                f"The command line sets '{name}', which no notebook of this run has"
                f"{_nearest(name, known)} (notebooks: {', '.join(known_by)})"
            )


def check_notebook(name: str, where: str = "") -> None:
    if name not in notebooks():
        raise ParameterError(f"Unknown notebook '{name}'{where}{_nearest(name, notebooks())}")


def cells(notebook: str) -> list[dict[str, Any]]:
    """Return the notebook's cells as stored in its file."""
    check_notebook(notebook)
    path = paths.NOTEBOOKS / f"{notebook}.ipynb"
    return _cells(path, path.stat().st_mtime_ns)


@cache
def _cells(path: Path, _changed: int) -> list[dict[str, Any]]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))["cells"]
    except (ValueError, LookupError, TypeError):
        raise ParameterError(f"{path} is not a valid notebook (damaged JSON); `git restore` or delete it") from None


def _of_cell(notebook: str) -> dict[str, Any]:
    tagged = [cell for cell in cells(notebook) if TAG in cell.get("metadata", {}).get("tags", [])]
    if len(tagged) != 1:
        raise ParameterError(f"{notebook}.ipynb has {len(tagged)} cells tagged '{TAG}'; it needs exactly one")
    return _literals("".join(tagged[0]["source"]), f"The '{TAG}' cell of {notebook}.ipynb")


def _further(notebook: str) -> dict[str, Any]:
    """Return the literals of the `defaults` module that the notebook imports from lib; empty without `more`."""
    if MORE not in _of_cell(notebook):
        return {}
    code = "\n".join("".join(cell["source"]) for cell in cells(notebook) if cell["cell_type"] == "code")
    package = re.search(r"^from (lib\.[\w.]+) import (?:\w+, )*defaults\b", code, re.MULTILINE)
    if not package:
        raise ParameterError(f"{notebook}.ipynb has `{MORE}`, but no line `from lib.<study> import defaults`")
    module = paths.ROOT.joinpath(*package[1].split("."), "defaults.py")
    return _literals(module.read_text(encoding="utf-8"), str(module.relative_to(paths.ROOT)))


def _literals(source: str, where: str) -> dict[str, Any]:
    """Return the values in a source that consists only of `name = literal`."""
    values: dict[str, Any] = {}
    try:
        for statement in ast.parse(source).body:
            match statement:
                case ast.Expr(value=ast.Constant()):
                    pass  # a docstring
                case ast.Assign(targets=[ast.Name(id=name)], value=value):
                    values[name] = ast.literal_eval(value)
                case _:
                    raise ValueError(ast.unparse(statement))
    except (SyntaxError, ValueError) as error:
        raise ParameterError(
            f"{where} may only hold `name = literal` ({error}). Derive values in the next cell: papermill's values "
            "come after this one."
        ) from None
    return values


class _Loader(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        names = [key.value for key, _ in node.value]
        if twice := [name for name in names if names.count(name) > 1]:  # YAML would silently drop the first
            raise yaml.constructor.ConstructorError(problem=f"{twice[0]!r} twice", problem_mark=node.start_mark)
        return super().construct_mapping(node, deep)


@cache
def _load_profile(path: Path) -> Profile:
    try:
        profile = Profile.model_validate(yaml.load(path.read_text(encoding="utf-8"), _Loader) or {})
    except ValidationError as error:
        told = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        raise ParameterError(f"Profile '{path.stem}' is not valid: {told}") from None
    except (ValueError, yaml.YAMLError) as error:
        raise ParameterError(f"Profile '{path.stem}' is not valid: {error}") from None
    where = f" in profile '{path.stem}'"
    for name, entry in profile.notebooks.items():
        check_notebook(name, where)
        for other in entry.reads:
            check_notebook(other, where)
            if profile.notebooks.get(other, Entry()).skip:
                raise ParameterError(f"{name} reads {other}{where}, which skips it: take it out of `reads`")
    profile.seeds = list(dict.fromkeys(profile.seeds))
    return profile


def _checked(name: str, value: Any, values: dict[str, Any], who: str, notebook: str) -> Any:
    """Return the value, validated to have the default's type; integers given for floats are converted."""
    if name not in values:
        known = sorted(set(values) - set(SET_BY_THE_WORKFLOW))
        raise ParameterError(f"{who} sets '{name}' of {notebook}, which has no such parameter{_nearest(name, known)}")
    try:
        return TypeAdapter(_type_of(values[name])).validate_python(value, strict=True)
    except ValidationError as error:
        hint = "; YAML reads 1e-3 as text, and 1.0e-3 as a number" if re.fullmatch(r"\d+e-?\d+", str(value)) else ""
        hint = "; YAML reads yes and no as true and false: quote them" if isinstance(value, bool) else hint
        raise ParameterError(
            f"{who} sets '{name}' of {notebook} to {value!r}; expected one such as {values[name]!r}: "
            f"{error.errors()[0]['msg']}{hint}"
        ) from None


def _type_of(like: Any) -> Any:
    """Return the type of values that may replace this default: any if it is None, and a list of its items' types."""
    if isinstance(like, list):
        types = [_type_of(item) for item in like]
        types = [kind for kind in types if kind is not NUMBERS[int] or NUMBERS[float] not in types]  # [0, 0.5]: floats
        return list[reduce(or_, types)] if types else list
    return Any if like is None else NUMBERS.get(type(like), type(like))


def _literal(text: str):
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        return ast.literal_eval(text)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        if re.fullmatch(r"\[[^][]*\]", text):  # bare words, or words whose quotes shlex removed
            return [_literal(item.strip()) for item in text[1:-1].split(",")]
        return text


def _nearest(name, known) -> str:
    known = [str(item) for item in known]
    close = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
    if close:
        return f"; did you mean '{close[0]}'?"
    return f"; valid: {', '.join(known)}" if known else "; there is none"
