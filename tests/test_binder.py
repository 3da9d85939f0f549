"""The files for Binder, Colab and Docker, executed in a fresh environment.

It has the packages of the current one: both come from the same lock file.
"""

import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import urllib.request
from pathlib import Path

import pytest
from toy import ROOT, clean_environment, jupyter_lab
from toy import run_command as run

ADDRESS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"]["Repository"]
NAME = ADDRESS.rsplit("/", 1)[-1]


def clone(folder: Path) -> Path:
    """Copy what a clone of this working tree would contain, with the results of the quick profile."""
    kept = subprocess.run(["git", "-C", ROOT, "ls-files"], capture_output=True, text=True).stdout.splitlines()
    if not kept:  # an unpacked archive
        kept = [path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*")]
    left_out = ("figures/public", "figures/smoke", ".venv", ".git/", "build/", "data/")
    for name in kept:
        if (ROOT / name).is_file() and not name.startswith(left_out):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    return folder


def fresh_environment(folder: Path) -> dict[str, str]:
    """Make a virtual environment with the current packages except this one; return the variables that activate it."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)}))
    links = site / "packages"
    links.mkdir()
    for path in Path(sysconfig.get_path("purelib")).iterdir():
        if not re.match(r"(__editable__|four_studies|distutils-precedence)", path.name):
            (links / path.name).symlink_to(path)
    (site / "packages.pth").write_text(str(links))
    return clean_environment() | {
        "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(folder),
        "VIRTUAL_ENV": str(folder),
        "JUPYTER_PREFER_ENV_PATH": "1",
        "JUPYTER_PATH": str(Path(sys.prefix) / "share" / "jupyter"),  # kernels are not packages
        "PIP_NO_INDEX": "1",
        "PIP_NO_BUILD_ISOLATION": "0",  # pip reads 0 as "no isolation"
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }


@pytest.fixture(scope="module")
def binder(tmp_path_factory):
    """A clone and its environment, as built by Binder."""
    root = tmp_path_factory.mktemp("binder")
    copy, variables = clone(root / NAME), fresh_environment(root / "environment")
    run(copy / "binder" / "postBuild", cwd=copy, env=variables)
    return copy, variables


# -- Binder ----------------------------------------------------------------------------------


def test_binder_asks_for_the_python_and_the_packages_that_are_tested():
    assert re.fullmatch(r"python-3\.1[1-4]", (ROOT / "binder" / "runtime.txt").read_text().strip())
    includes = re.findall(r"^-r (.+)$", (ROOT / "binder" / "requirements.txt").read_text(), re.MULTILINE)
    assert [(ROOT / "binder" / name).resolve() for name in includes] == [ROOT / "requirements.lock"]
    assert all(os.access(ROOT / "binder" / name, os.X_OK) for name in ("postBuild", "start"))


def test_binder_installs_the_clone_itself(binder):
    copy, variables = binder
    where = run("python", "-c", "import lib; print(lib.__path__[0])", cwd=copy.parent, env=variables)
    assert Path(where.strip()) == copy / "lib"


@pytest.mark.parametrize(("limit", "threads"), [("2", "2"), ("1.5", "1"), ("0.5", "1"), (None, "2")])
def test_binder_starts_with_as_many_threads_as_cores_are_allowed(binder, limit, threads):
    copy, variables = binder
    asked = {} if limit is None else {"CPU_LIMIT": limit}
    command = [copy / "binder" / "start", "python", "-c", "import os; print(os.environ['OMP_NUM_THREADS'])"]
    assert run(*command, cwd=copy, env=variables | asked).strip() == threads


def test_binder_serves_the_overview_and_its_kernel(binder):
    copy, variables = binder
    command = [copy / "binder" / "start", "python", "-m", "jupyterlab"]

    def ask(path: str, body: dict | None = None) -> dict:
        headers = {"Authorization": "token t", "Content-Type": "application/json"}
        request = urllib.request.Request(f"http://127.0.0.1:{port}/api/{path}", headers=headers)
        request.data = None if body is None else json.dumps(body).encode()
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30) as answer:
            return json.load(answer)

    with jupyter_lab(*command, log=copy.parent / "server.log", cwd=copy, env=variables) as port:
        notebook = ask("contents/notebooks/00_overview.ipynb")
        assert notebook["type"] == "notebook"
        name = notebook["content"]["metadata"]["kernelspec"]["name"]
        session = {"path": "notebooks/00_overview.ipynb", "type": "notebook", "name": "", "kernel": {"name": name}}
        assert ask("sessions", session)["kernel"]["name"] == "python3"


# Runs python with the given arguments; prints the peak memory of its processes in GB.
MEASURE = """
import resource, subprocess, sys
subprocess.run([sys.executable, *sys.argv[1:]], check=True)
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
print(peak / (1e9 if sys.platform == "darwin" else 1e6))
"""


def test_the_overview_runs_there_in_the_memory_there_is(binder):
    copy, variables = binder
    command = ["-m", "nbconvert", "--to", "notebook", "--execute", "--output", "executed", "00_overview.ipynb"]
    peak = float(run("python", "-c", MEASURE, *command, cwd=copy / "notebooks", env=variables))
    assert peak < 1.6  # of Binder's 2 GB, some of which the server needs
    content = json.loads((copy / "notebooks" / "executed.ipynb").read_text(encoding="utf-8"))
    printed = json.dumps([cell.get("outputs") for cell in content["cells"]])
    assert "the pyramid adds up: True" in printed and "has not been made" not in printed


# -- Colab -----------------------------------------------------------------------------------

PLAY = """
import json, sys, types
for name in ("google", "google.colab"):
    sys.modules.setdefault(name, types.ModuleType(name))
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
for cell in json.load(open(sys.argv[1]))["cells"][:8]:
    if cell["cell_type"] == "code" and "parameters" not in cell["metadata"].get("tags", []):
        shell.run_cell("".join(cell["source"])).raise_error()
        break
shell.run_cell("import lib; print('lib in', lib.__path__[0])").raise_error()
shell.run_cell(first := "".join(cell["source"])).raise_error()  # once more: nothing happens
"""


def test_colab_fetches_the_repository_and_what_is_missing(tmp_path):
    """As on Colab: only a notebook, and a module `google.colab`. The repository's address leads to this tree."""
    here = clone(tmp_path / "upstream")
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["add", "-A"], [*who, "commit", "-q", "-m", "all"]):
        run("git", *command, cwd=here)
    variables = fresh_environment(tmp_path / "environment")
    settings = {"protocol.file.allow": "always", f"url.{here.as_uri()}.insteadOf": ADDRESS}
    variables["GIT_CONFIG_COUNT"] = str(len(settings))
    for number, (key, value) in enumerate(settings.items()):
        variables |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
    (tmp_path / "content").mkdir()
    shutil.copy(ROOT / "notebooks" / "00_overview.ipynb", tmp_path / "content")
    (tmp_path / "play.py").write_text(PLAY)
    out = run("python", tmp_path / "play.py", "00_overview.ipynb", cwd=tmp_path / "content", env=variables)
    assert f"lib in {tmp_path / 'content' / 'four-studies' / 'lib'}" in out
    listed = run("python", "-m", "pip", "list", "--format=json", cwd=tmp_path, env=variables)
    assert any(entry["name"] == "four-studies" for entry in json.loads(listed))


# -- the address -----------------------------------------------------------------------------


def test_one_address_everywhere():
    owner = ADDRESS.removeprefix("https://github.com/")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"mybinder.org/v2/gh/{owner}/" in readme and f"colab.research.google.com/github/{owner}/" in readme
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        assert f"git clone -q --depth 1 {ADDRESS}" in path.read_text(encoding="utf-8")


def test_another_address_is_written_everywhere(tmp_path, monkeypatch):
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks")
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, tmp_path)
    module = runpy.run_path(str(ROOT / "binder" / "address.py"))
    change = module["change"]
    monkeypatch.setitem(change.__globals__, "ROOT", tmp_path)
    assert change("https://github.com/someone/studies.git") == 2 + len(list((ROOT / "notebooks").glob("*.ipynb")))
    text = "".join(path.read_text(encoding="utf-8") for path in module["files"]())
    assert ADDRESS.removeprefix("https://github.com") not in text
    assert "mybinder.org/v2/gh/someone/studies/HEAD" in text
    assert change("https://github.com/someone/studies") == 0
    with pytest.raises(ValueError, match="not an address of the form"):
        change("example.org/studies")


# -- containers ------------------------------------------------------------------------------


def test_the_dev_container_is_made_from_the_dockerfile():
    content = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text(encoding="utf-8"))
    dockerfile = (ROOT / ".devcontainer" / content["build"]["dockerfile"]).resolve()
    text = dockerfile.read_text(encoding="utf-8")
    assert dockerfile == ROOT / "Dockerfile" and f"--uid 1000 {content['remoteUser']}" in text
    assert content["workspaceFolder"] in text


def test_what_the_dockerfile_copies_is_not_ignored():
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    assert not {"requirements.lock", "lib/", ".git/", "figures/"} & set(ignored)
    assert {".venv/", "build/", "data/"} <= set(ignored)
