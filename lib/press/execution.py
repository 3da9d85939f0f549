"""Running one job by papermill with a private kernel; only a finished copy is moved to `build/executed/`."""

import json
import os
import sys
import tempfile
import textwrap
import time
from pathlib import Path

from filelock import Timeout

from lib import paths
from lib.press import fingerprint, jobs, parameters, staleness

# Without these, libraries start as many threads as the machine has cores.
THREAD_VARIABLES = tuple(f"{name}_NUM_THREADS" for name in ("OMP", "MKL", "OPENBLAS", "NUMEXPR"))
THREAD_VARIABLES += ("VECLIB_MAXIMUM_THREADS",)
LONGEST_SOCKET_PATH = 100  # the limit is 103 bytes on macOS, 107 on Linux
LONGEST_START = 300  # seconds; a kernel's start takes long where the machine is busy


def run(name: str, threads: int) -> int:
    """Run one job as its inputs file describes it; returns the exit status. Called by Snakemake."""
    try:
        job = json.loads(jobs.inputs_file(name).read_text(encoding="utf-8"))
        with jobs.lock(name, "run"):
            return _run(job, name, jobs.title(name), threads)
    except Timeout:
        _say(f"{jobs.title(name)} is being run already by another process; not started twice.")
        return 1


def _run(job: dict, name: str, title: str, threads: int) -> int:
    running, executed, failed = jobs.running(name), jobs.executed(name), jobs.failed(name)
    for path in (running, executed, failed):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
    _set_environment(job, threads)
    reads = staleness.records_of(job["reads"])
    _say(f"start   {title}, {threads} thread{'s' if threads > 1 else ''}")
    begin = time.monotonic()
    try:
        parts = fingerprint.parts_of(job["notebook"], job["parameters"])  # anew: it may have waited for hours
        values = parameters.for_cell(job["notebook"], job["parameters"])
        _execute(paths.NOTEBOOKS / f"{job['notebook']}.ipynb", running, values)
        if not jobs.record(name).exists():
            raise RuntimeError("The notebook came to its end without `run.finish()`, so there is no record of it.")
        fingerprint._signature.cache_clear()  # the data set anew: a run may have downloaded it
        data = fingerprint.data_parts(job["parameters"])
        used = {"inputs": parts | data, "reads": reads}
        jobs.write_atomically(jobs.made_from(name), json.dumps(used, indent=1, ensure_ascii=False) + "\n")
        os.replace(running, executed)
    except Exception as error:  # whatever it was, the copy must be kept and the reason told
        if jobs.read_json(running):  # else there was no space for it
            os.replace(running, failed)
        _say(f"FAILED  {title} after {time.monotonic() - begin:.0f} s{_explain(error, failed)}")
        return 1
    _say(f"done    {title} in {time.monotonic() - begin:.0f} s{_peak()}")
    return 0


def _peak() -> str:
    """The most memory that the kernel, or a process that it started, had at once; "" on systems that do not tell."""
    if not sys.platform.startswith("linux"):  # elsewhere there is no such number, or in another unit
        return ""
    from resource import RUSAGE_CHILDREN, getrusage

    return f", {getrusage(RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e9:.1f} GB of memory"


def _set_environment(job: dict, threads: int) -> None:
    """What the kernel inherits: one number of threads for all libraries, fixed hashes, the folder."""
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(threads)))
    os.environ.update(
        PYTHONHASHSEED="0",
        TOKENIZERS_PARALLELISM="false",
        CUBLAS_WORKSPACE_CONFIG=":4096:8",  # cuBLAS repeats itself only with this
        TQDM_DISABLE="1",  # a progress bar in a stored copy says nothing
        JUPYTER_PREFER_ENV_PATH="1",  # else a `python3` kernel of the user's takes precedence
        PYDEVD_DISABLE_FILE_VALIDATION="1",
        RUN_FOLDER=job["folder"],
    )
    os.environ.pop("JUPYTER_PATH", None)
    root = str(paths.ROOT)
    before = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path and path != root]
    os.environ["PYTHONPATH"] = os.pathsep.join([root, *before])


def _execute(notebook: Path, copy: Path, values: dict) -> None:
    """Run the notebook by papermill with a kernel whose sockets lie in a private folder, its copy being written on."""
    # jsonschema would build a grammar with it, for a second, to check a format that no notebook has.
    sys.modules.setdefault("rfc3987_syntax", None)
    import papermill  # some seconds, and only a run needs it
    from jupyter_client.manager import AsyncKernelManager

    class PrivateKernelManager(AsyncKernelManager):
        """No port to race for when several kernels start at once."""

        def __init__(self, **keywords):
            super().__init__(**keywords)
            self.connection_file = f"{folder}/k.json"
            if os.name == "posix" and len(f"{folder}/k-ipc-5".encode()) <= LONGEST_SOCKET_PATH:
                self.transport, self.ip = "ipc", f"{folder}/k-ipc"

    with tempfile.TemporaryDirectory(prefix="nb-", ignore_cleanup_errors=True) as folder:
        os.environ["JUPYTER_RUNTIME_DIR"] = folder
        papermill.execute_notebook(
            *(str(path).replace("{", "{{").replace("}", "}}") for path in (notebook, copy)),  # it reads them as formats
            values, kernel_name="python3", progress_bar=False, cwd=str(paths.ROOT), start_timeout=LONGEST_START,
            kernel_manager_class=PrivateKernelManager,
        )  # fmt: skip


def _explain(error: Exception, copy: Path) -> str:
    """What went wrong, in which cell, with the traceback, and where the copy is."""
    from nbclient.exceptions import DeadKernelError
    from nbconvert.filters import strip_ansi
    from papermill.exceptions import PapermillExecutionError

    where = f"\nThe notebook up to here: {jobs.short(copy)}" if copy.exists() else ""
    if isinstance(error, PapermillExecutionError):
        source, problem = error.source, strip_ansi("\n".join(error.traceback))
        problem = problem or f"{error.ename}: {error.evalue}"
    elif isinstance(error, DeadKernelError):
        cells = (jobs.read_json(copy) or {"cells": []})["cells"]
        started = [cell for cell in cells if (cell["metadata"].get("papermill") or {}).get("start_time")]
        source = "".join(started[-1]["source"]) if started else ""
        problem = "The kernel died, probably out of memory. Smaller batches, JOBS=1 or a smaller profile need less."
    else:
        return f"\n{type(error).__name__}: {error}{where}"
    return f" in the cell\n\n{textwrap.indent(source.strip(), '    | ')}\n\n{problem}\n{where}\n"


def _say(text: str) -> None:
    """Print a line in one write: with PYTHONUNBUFFERED, `print` writes its end apart, and lines of two runs mix."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def retell(notebook: Path, copy: Path) -> None:
    """Give an up-to-date executed `copy` the text and comments that `notebook` has now."""
    content = json.loads(copy.read_text(encoding="utf-8"))
    executed = {cell["id"]: cell for cell in content["cells"]}
    injected = next((c for c in content["cells"] if "injected-parameters" in c["metadata"].get("tags", [])), None)
    cells = []
    sources = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    if not all("id" in cell for cell in sources):  # as Colab saves them: which cell is which cannot be told
        return
    for cell in sources:
        known = executed.get(cell["id"], {}) if cell["cell_type"] == "code" else {}
        cells.append(cell | known | {"source": cell["source"]})
        if injected and parameters.TAG in cell["metadata"].get("tags", []):
            cells.append(injected)
    if cells != content["cells"]:
        jobs.write_atomically(copy, json.dumps(content | {"cells": cells}, indent=1, ensure_ascii=False) + "\n")


def store_outputs(notebook: Path, copy: Path) -> bool:
    """Put the outputs of `copy`'s checked cells into `notebook`, strip all others; True if it changed."""
    executed = {cell["id"]: cell for cell in json.loads(copy.read_text(encoding="utf-8"))["cells"]}
    before = notebook.read_text(encoding="utf-8")
    content = json.loads(before)
    for cell in content["cells"]:
        if cell["cell_type"] != "code":
            continue
        checked = "nbval-check-output" in cell["metadata"].get("tags", [])
        source = executed[cell["id"]] if checked else {"outputs": [], "execution_count": None}
        cell["outputs"], cell["execution_count"] = source["outputs"], source["execution_count"]
        cell["metadata"] = {key: value for key, value in cell["metadata"].items() if key == "tags"}
    kept = ("kernelspec", "language_info")
    content["metadata"] = {key: content["metadata"][key] for key in kept if key in content["metadata"]}
    content["metadata"].get("language_info", {}).pop("version", None)
    after = json.dumps(content, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
    if after != before:
        jobs.write_atomically(notebook, after)
    return after != before
