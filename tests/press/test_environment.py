"""pyproject.toml, requirements.lock, environment.yml and the installed packages agree."""

import re
import sys
import tomllib
from collections import Counter
from importlib import metadata

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from toy import ROOT

from lib.press import environment, fingerprint

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
REQUIREMENTS = [Requirement(text) for text in [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]]]
TEXT = (ROOT / "requirements.lock").read_text(encoding="utf-8")
LOCK_LINES = [line.partition("#")[0].strip() for line in TEXT.splitlines() if line.partition("#")[0].strip()]
LOCK = [Requirement(line) for line in LOCK_LINES]
CONDA = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))

# Every Python version and system that the project supports.
PLACES = [
    {"python_full_version": f"{version}.7", "python_version": version, **system}
    for version in ("3.11", "3.12", "3.13", "3.14")
    for system in (
        {
            "sys_platform": "linux",
            "platform_system": "Linux",
            "os_name": "posix",
            "platform_machine": "x86_64",
        },
        {
            "sys_platform": "darwin",
            "platform_system": "Darwin",
            "os_name": "posix",
            "platform_machine": "arm64",
        },
        {"sys_platform": "win32", "platform_system": "Windows", "os_name": "nt", "platform_machine": "AMD64"},
    )
]
FIXED = "jupyterlab papermill torch torchvision transformers torchaudio matplotlib seaborn lpips captum"


def pins(name: str, place: dict[str, str]) -> list[str]:
    """The versions of a package in the lock file for one Python and system."""
    return [
        next(iter(line.specifier)).version
        for line in LOCK
        if canonicalize_name(line.name) == canonicalize_name(name)
        and (line.marker is None or line.marker.evaluate(place))
    ]


def test_the_packages_that_the_project_is_built_on_are_required():
    names = {requirement.name for requirement in map(Requirement, PROJECT["dependencies"])}
    assert set(FIXED.split()) <= names


@pytest.mark.parametrize("requirement", REQUIREMENTS, ids=lambda requirement: requirement.name)
def test_every_requirement_is_pinned_once_and_fits(requirement):
    for place in PLACES:
        if requirement.marker is None or requirement.marker.evaluate(place):
            found = pins(requirement.name, place)
            assert len(found) == 1, f"{requirement.name}: {found} on {place}"
            assert requirement.specifier.contains(found[0])


@pytest.mark.parametrize("line", LOCK_LINES, ids=lambda line: line.split("=")[0])
def test_the_lock_holds_versions_alone(line):
    requirement = Requirement(line)
    assert requirement.url is None and "//" not in line and "@" not in line and not line.startswith("-")
    assert [specifier.operator for specifier in requirement.specifier] == ["=="]
    assert "*" not in next(iter(requirement.specifier)).version


def test_the_lock_pins_no_package_twice_for_one_place():
    for place in PLACES:
        here = Counter(
            canonicalize_name(line.name) for line in LOCK if line.marker is None or line.marker.evaluate(place)
        )
        assert [name for name, times in here.items() if times > 1] == [], place


def test_the_lock_tells_what_each_package_needs():
    """Its comments, which fingerprints use, name at least the requirements in the installed packages' metadata."""
    compared = 0
    for name in sorted({canonicalize_name(line.name) for line in LOCK}):
        try:
            needs = [Requirement(text) for text in metadata.requires(name) or []]
        except metadata.PackageNotFoundError:
            continue  # for another system
        here = {canonicalize_name(need.name) for need in needs if need.marker is None or need.marker.evaluate()}
        assert here <= set(fingerprint.locked([name])), name
        compared += len(here)
    assert compared > 200


def test_conda_makes_the_same_environment():
    plain = {
        name: rest for name, _, rest in (item.partition(" ") for item in CONDA["dependencies"] if isinstance(item, str))
    }
    assert set(plain) == {"python", "pip", "make"}
    assert SpecifierSet(plain["python"]) == SpecifierSet(PROJECT["requires-python"])
    [pip] = [item["pip"] for item in CONDA["dependencies"] if isinstance(item, dict)]
    assert pip == ["-r requirements.lock", "-e ."]
    assert CONDA["name"] == PROJECT["name"] and CONDA["channels"][0] == "conda-forge"


def test_the_scripts_accept_the_pythons_of_pyproject():
    """.ci/environment runs before any Python is found, so it repeats the range of versions."""
    text = (ROOT / ".ci/environment").read_text(encoding="utf-8")
    [(low, high)] = re.findall(r"\((\d+, \d+)\) <= sys.version_info\[:2\] < \((\d+, \d+)\)", text)
    said = f">={low.replace(', ', '.')},<{high.replace(', ', '.')}"
    assert SpecifierSet(said) == SpecifierSet(PROJECT["requires-python"])
    assert SpecifierSet(PROJECT["requires-python"]).contains("{}.{}.{}".format(*sys.version_info[:3]))


def test_what_is_installed_meets_the_requirements():
    assert environment.unmet() == []


def test_unmet_requirements_are_told(monkeypatch, tmp_path):
    wanted = ["numpy>=999", "no-such-package>=1", "grimp>=1", "x>1; sys_platform == 'nowhere'"]
    (tmp_path / "pyproject.toml").write_text(
        f'[project]\nname = "numpy"\ndependencies = {wanted}\noptional-dependencies = {{dev = ["pytest>999"]}}'
    )
    monkeypatch.setattr(environment, "PYPROJECT", tmp_path / "pyproject.toml")
    assert environment.unmet() == ["numpy>=999", "no-such-package>=1", "pytest>999"]


def test_no_file_names_a_package_index():
    for name in (
        "pyproject.toml",
        "requirements.lock",
        "environment.yml",
        "Makefile",
        ".ci/environment",
        ".ci/run",
    ):
        text = (ROOT / name).read_text(encoding="utf-8")
        text = re.sub(r"^Repository = .*$", "", text, flags=re.MULTILINE)  # this one's own address
        assert not re.search(r"index-url|find-links|https?://", text), name
