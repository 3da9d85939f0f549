"""A toy repository: the real workflow on notebooks and modules that run instantly."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

ROOT = Path(__file__).resolve().parent.parent


def share_speech(output: Path) -> None:
    """Link the soundscapes' speech into the cache of `output`; it is synthesised once for all tests (20 seconds)."""
    from filelock import FileLock

    from lib import paths
    from lib.emergency.synthesis.speech import speech_bank

    cache = paths.build() / "cache"
    with FileLock(cache / "speech.lock"):
        for split in ("test", "validation", "train"):
            if not any((cache / "speech").glob(f"{split}-*.npz")):  # if outdated, it is made again when read
                speech_bank(split)
    (output / "build" / "cache").mkdir(parents=True)
    (output / "build" / "cache" / "speech").symlink_to(cache / "speech")


# The files that the toys share with the repository: all that decide what is stale, in which order it runs, and run it.
WORKFLOW = [
    *("Makefile", "Snakefile", "pyproject.toml", "requirements.lock", ".ci/environment"),
    *(f"lib/{name}.py" for name in ("__init__", "paths", "sources", "data/__init__", "data/catalog", "press/__init__")),
    *(f"lib/press/{name}.py" for name in ("environment", "parameters", "fingerprint", "jobs")),
    *(f"lib/press/{name}.py" for name in ("staleness", "execution", "workflow")),
]

NOT_INHERITED = {
    *("OUTPUT_ROOT", "DATA_ROOT", "CONDA_PREFIX", "CONDA_DEFAULT_ENV", "PYTHONPATH", "RUN_FOLDER"),
    *("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "PROFILE", "SEEDS", "ONLY", "JOBS", "CORES", "PARAMS"),
    *("EXECUTOR", "PARTITION", "ACCOUNT", "SLURM_CONF"),
}


def clean_environment() -> dict[str, str]:
    """Return this process's environment without settings from the `make test` that may be running these tests."""
    kept = {name: value for name, value in os.environ.items() if name not in NOT_INHERITED}
    return {name: value for name, value in kept.items() if not name.startswith("SNAKEMAKE")}


def run_command(*command, **options) -> str:
    """Run a command that has to succeed; return what it printed."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=300, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


TOY_FILES = {
    "lib/press/run.py": '''
        """A stand-in without torch for the real `lib.press.run`: the same folders and the same kind of record."""

        import hashlib
        import json

        from lib import paths


        class Run:
            def __init__(self, notebook, values):
                scope = f"seed-{values['seed']}" if "seed" in values else ""
                self.folder = paths.figures() / paths.folder_name(values["profile"], False) / scope
                self.notebook, self.outputs = notebook, {}

            def save(self, name, text):
                with paths.atomic(self.folder / f"{name}.csv") as partial:
                    partial.write_text(text)
                (self.folder / f"{name}.json").write_text("{}")
                self.outputs[name] = {"files": {f"{name}.csv": hashlib.sha256(text.encode()).hexdigest()}}

            def finish(self):
                record = {"outputs": self.outputs}
                (self.folder / f"{self.notebook}.json").write_text(json.dumps(record))
    ''',
    "lib/common.py": '''
        """Used by alpha and beta."""

        UNIT = 1
    ''',
    "lib/alpha/__init__.py": "",
    "lib/alpha/model.py": '''
        """Used by 01_alpha alone."""

        from lib.common import UNIT


        def value(epochs):
            """The value."""
            return epochs * UNIT  # a comment
    ''',
    "lib/beta.py": '''
        """Used by 02_beta alone."""

        from lib import common


        def value(epochs):
            return 10 * epochs * common.UNIT
    ''',
    "profiles/quick.yaml": """
        notebooks:
          03_summary: {reads: [01_alpha, 02_beta]}
    """,
    "profiles/smoke.yaml": """
        seeds: [0, 1]
        notebooks:
          01_alpha: {parameters: {epochs: 1}}
          03_summary: {reads: [01_alpha]}
    """,
}

TOY_NOTEBOOKS = {
    "01_alpha": [
        'seed = 0\nprofile = "quick"\nepochs = 2\nrate = 0.1\ngroups = [1, 2]\ndataset = "shapes"',
        "from lib.alpha import model\nfrom lib.press.run import Run\nrun = Run('01_alpha', globals())",
        "run.save('fig_alpha', f'{model.value(epochs)},{seed}')",
        "run.finish()",
    ],
    "02_beta": [
        'seed = 0\nprofile = "quick"\nepochs = 2\nwait = 0.0',
        "import time, packaging\nimport lib.beta\nfrom lib.press.run import Run\nrun = Run('02_beta', globals())",
        "time.sleep(wait)\nrun.save('fig_beta', f'{lib.beta.value(epochs)},{seed}')",
        "run.finish()",
    ],
    "03_summary": [
        'seeds = [0]\nprofile = "quick"',
        "from lib.press.run import Run\nrun = Run('03_summary', globals())",
        "text = '\\n'.join(p.read_text() for p in sorted(run.folder.glob('seed-*/*.csv')))",
        "run.save('tab_all', text)\nrun.finish()",
    ],
}


def notebook(cells: list[str]) -> str:
    """Return a notebook as JSON, with these code cells; the first is tagged `parameters`."""
    content = {
        "cells": [
            {
                "cell_type": "code",
                "execution_count": None,
                "id": f"cell-{number}",
                "metadata": {"tags": ["parameters"]} if number == 0 else {},
                "outputs": [],
                "source": source,
            }
            for number, source in enumerate(cells)
        ],
        "metadata": {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    return json.dumps(content, indent=1)


def point_at(root: Path, patch, cells: dict[str, str] | None = None) -> None:
    """Make `root` this process's repository, with a notebook for each of `cells` (name → parameters cell)."""
    from lib import paths, plots

    for folder in ("notebooks", "profiles"):
        (root / folder).mkdir(exist_ok=True)
        patch.setattr(paths, folder.upper(), root / folder)
    for name, cell in (cells or {}).items():
        text = notebook([cell, "from lib.press.run import Run"])
        (root / "notebooks" / f"{name}.ipynb").write_text(text, encoding="utf-8")
    (root / "profiles" / "quick.yaml").touch()
    patch.setenv("OUTPUT_ROOT", str(root))
    patch.delenv("RUN_FOLDER", raising=False)
    patch.setitem(plots.STYLE, "pdf.fonttype", 3)  # subsetting fonts for type 42 takes most of the time


@contextlib.contextmanager
def jupyter_lab(*command, log: Path, **options) -> Iterator[int]:
    """Start a JupyterLab server by `command`, with the token `t`; yield its port once it listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [*command, "--no-browser", "--allow-root", "--ServerApp.ip=127.0.0.1", f"--ServerApp.port={port}"]
    words = [str(word) for word in (*words, "--IdentityProvider.token=t")]
    with log.open("w") as stream:
        server = subprocess.Popen(words, stdout=stream, stderr=stream, **options)
    try:
        for _ in range(240):  # two minutes: the first start is slow
            assert server.poll() is None, log.read_text()
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            time.sleep(0.5)
        yield port
    finally:
        server.terminate()
        server.wait(30)


class Repository:
    """A folder with the workflow; methods run `make` in it and read or change its files."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.environment = clean_environment() | {"VIRTUAL_ENV": sys.prefix}

    def start(self, *arguments: str) -> subprocess.Popen:
        """Start `make …` in a process group of its own."""
        return subprocess.Popen(
            ["make", *arguments],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def make(self, *arguments: str, status: int = 0) -> str:
        """Run `make …` and return what it printed; assert that it succeeds (status 0) or fails."""
        process = self.start(*arguments)
        try:
            output, _ = process.communicate(timeout=240)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
        assert (process.returncode == 0) == (status == 0), output
        return output

    def read(self, path: str) -> str:
        return (self.folder / path).read_text(encoding="utf-8")

    def write(self, path: str, text: str) -> None:
        (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / path).write_text(text, encoding="utf-8")

    def replace(self, path: str, old: str, new: str) -> None:
        text = self.read(path)
        assert old in text, f"{old!r} is not in {path}"
        self.write(path, text.replace(old, new))

    def exists(self, path: str) -> bool:
        return (self.folder / path).exists()

    def wait_for(self, path: str, process: subprocess.Popen) -> None:
        """Wait until the file exists, for at most five minutes."""
        for _ in range(6000):
            if self.exists(path):
                return
            assert process.poll() is None, process.communicate()[0]
            time.sleep(0.05)
        raise AssertionError(f"{path} never came")


def make_toy(folder: Path) -> Repository:
    for name in WORKFLOW:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    repository = Repository(folder)
    for name, text in TOY_FILES.items():
        repository.write(name, dedent(text).lstrip())
    for name, cells in TOY_NOTEBOOKS.items():
        repository.write(f"notebooks/{name}.ipynb", notebook(cells))
    return repository
