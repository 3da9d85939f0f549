"""Documents: links that lead somewhere, names that exist, one version everywhere."""

import re
import subprocess
import tomllib

import pytest
import yaml
from toy import ROOT

from lib import plots
from lib.data import catalog
from lib.press import parameters, verify

DOCUMENTS = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/README.md")]
DOCUMENTS += sorted((ROOT / "paper" / "cards").glob("*.md"))
EXAMPLE = "08_label_smoothing"  # what CONTRIBUTING.md's worked example makes


def prose(path) -> str:
    return re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
class TestDocument:
    def test_links_lead_somewhere(self, document):
        links = re.findall(r"\]\(([^)#\s]+)", prose(document))
        missing = [link for link in links if ":" not in link and not (document.parent / link).exists()]
        assert not missing

    def test_files_that_are_named_exist(self, document):
        named = re.findall(r"`((?:lib|tests|profiles|paper|benchmarks|notebooks|binder)/[\w/.-]+)`", prose(document))
        guide = document.name == "CONTRIBUTING.md"  # its worked example creates files
        missing = [name for name in named if not (ROOT / name).exists() and not (guide and re.search("smooth", name))]
        assert not missing

    def test_commands_that_are_named_exist(self, document):
        makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
        named = set(re.findall(r"^make ([a-z-]+)|`make ([a-z-]+)", document.read_text(encoding="utf-8"), re.MULTILINE))
        names = {name for pair in named for name in pair if name}
        assert all(re.search(rf"^{name}:", makefile, re.MULTILINE) for name in names)

    def test_what_commands_are_given_exists(self, document):
        text = document.read_text(encoding="utf-8")
        assert set(re.findall(r"\bONLY=(\w+)", text)) <= {*parameters.notebooks(), EXAMPLE}
        assert set(re.findall(r"\bPROFILE=(\w+)", text)) <= set(parameters.profiles())
        sets = re.findall(r"""\bdataset=["']?([\w-]+)""", text)
        assert set(sets) <= {*catalog.BUILT_IN, *catalog.IMAGE_SETS, *catalog.AUDIO_SETS, "folder"}
        for notebook, given in re.findall(r"ONLY=(\w+) PARAMS=\"([^\"]*)\"", text):
            names = re.findall(r"(\w+)=", given)
            assert set(names) <= parameters.defaults(notebook).keys(), notebook

    def test_parameters_that_are_named_exist(self, document):
        known = {name for notebook in parameters.notebooks() for name in parameters.defaults(notebook)}
        assert set(re.findall(r"`([a-z_]+)=[^`]*`", prose(document))) <= known


def test_every_card_is_linked_from_the_readme():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert all(f"paper/cards/{path.name}" in readme for path in (ROOT / "paper" / "cards").glob("*.md"))


def test_citation_agrees_with_the_package():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()  # what the format requires
    assert citation["cff-version"] == "1.2.0" and citation["type"] == "software"
    assert citation["version"] == project["version"] and citation["license"] == project["license"]
    assert [author["name"] for author in citation["authors"]] == [author["name"] for author in project["authors"]]
    (state,) = re.findall(
        rf"^## {re.escape(project['version'])} \((.*)\)$",
        (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    assert state == str(citation.get("date-released", "unreleased"))
    assert citation["title"] in (ROOT / "README.md").read_text(encoding="utf-8").replace("*", "")


def test_results_in_git_are_small():
    listed = subprocess.run(["git", "-C", ROOT, "ls-files", "-z", "figures"], capture_output=True, text=True).stdout
    kept = [path for name in listed.split("\0") if name and (path := ROOT / name).exists()]
    if not kept:
        pytest.skip("this folder is no git clone")
    assert sum(path.stat().st_size for path in kept) <= 15_000_000
    pictures = [path for path in kept if path.suffix == ".png"]
    assert [path for path in pictures if path.stat().st_size > plots.LARGEST_PNG] == []
    copies = [path for path in pictures if verify.not_in_git(path)]
    assert copies == [], "drawn over all seeds as well: add them to .gitignore and `git rm --cached` them"
