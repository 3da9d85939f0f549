"""Run one job with papermill in a private kernel; only a completed copy is moved to `build/executed/`."""

import json
import os
import re
import sys
import tempfile
import time
from pathlib import Path

from filelock import Timeout

from lib import paths
from lib.press import fingerprint, jobs, parameters, staleness

# Without these, libraries start as many threads as the machine has cores.
THREAD_VARIABLES = tuple(f"{name}_NUM_THREADS" for name in ("OMP", "MKL", "OPENBLAS", "NUMEXPR"))
THREAD_VARIABLES += ("VECLIB_MAXIMUM_THREADS",)
LONGEST_SOCKET_PATH = 100  # the limit is 103 bytes on macOS, 107 on Linux
SAY_WHAT_TO_DO = {"DataError", "MetricError", "ParameterError", "RunError", "TrainingError"}  # our own errors
LONGEST_START = 300  # seconds; kernels start slowly on a busy machine

# If this package is importable, nbformat takes a second longer to import, for a URI grammar that no notebook needs.
sys.modules.setdefault("rfc3987_syntax", None)


def run(name: str, threads: int) -> int:
    """Run one job as described by its inputs file and return the exit status. Called by Snakemake."""
    from nbclient.exceptions import DeadKernelError  # imported here, like papermill below, as both take seconds

    job, title = json.loads(jobs.inputs_file(name).read_text(encoding="utf-8")), jobs.title(name)
    failed, begin = jobs.failed(name), time.monotonic()
    try:
        with jobs.lock(name):
            print(f"start   {title}, {threads} thread{'s' if threads > 1 else ''}", flush=True)
            _run(job, name, threads)
    except Timeout:
        print(f"{title} is already running in another process; not started again.", flush=True)
        return 1
    except Exception as error:  # whatever was raised, report the reason
        died = "; usually for lack of memory: try JOBS=1, smaller batches or a smaller profile"
        what = f"{type(error).__name__}: {error}{died if isinstance(error, DeadKernelError) else ''}"
        if getattr(error, "ename", "") in SAY_WHAT_TO_DO:  # raised by a cell; the traceback is in the copy
            what = f"{error.ename}: {error.evalue}"
        copy = f"\nThe notebook up to here: {jobs.short(failed)}" if failed.exists() else ""
        print(f"FAILED  {title} after {time.monotonic() - begin:.0f} s\n{what}{copy}", flush=True)
        return 1
    print(f"done    {title} in {time.monotonic() - begin:.0f} s{_peak()}", flush=True)
    for warning in _warnings(jobs.executed(name)):
        print(f"warning {title}: {warning}", flush=True)
    return 0


def _warnings(copy: Path) -> list[str]:
    """Return the warnings of our own code in an executed notebook, such as files left out of a data set."""
    ours = re.compile(rf"^{re.escape(str(paths.ROOT / 'lib'))}.*: UserWarning: (.*)", re.MULTILINE)
    cells = json.loads(copy.read_text(encoding="utf-8"))["cells"]
    texts = ["".join(output.get("text", "")) for cell in cells for output in cell.get("outputs", [])]
    return list(dict.fromkeys(found for text in texts for found in ours.findall(text)))


def _peak() -> str:
    """Return the peak memory of the kernel or the largest process it started; "" on systems that do not report it."""
    if not sys.platform.startswith("linux"):  # elsewhere unavailable, or in another unit
        return ""
    from resource import RUSAGE_CHILDREN, getrusage

    return f", {getrusage(RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e9:.1f} GB of memory"


def _run(job: dict, name: str, threads: int) -> None:
    running, executed, failed = jobs.running(name), jobs.executed(name), jobs.failed(name)
    for path in (running, executed, failed):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
    _set_environment(job, threads)
    reads = staleness.records_of(job["reads"])
    parts = fingerprint.parts_of(job["notebook"], job["parameters"])  # again: it may have been queued for hours
    values = parameters.for_cell(job["notebook"], job["parameters"])
    try:
        _execute(paths.NOTEBOOKS / f"{job['notebook']}.ipynb", running, values)
        if not jobs.record(name).exists():
            raise RuntimeError("The notebook ended without `run.finish()`, so there is no record of it.")
    except Exception:
        if running.exists():
            os.replace(running, failed)
        raise
    fingerprint._signature.cache_clear()  # the run may have downloaded the data set
    used = {"inputs": parts | fingerprint.data_parts(job["parameters"]), "reads": reads}
    jobs.write_atomically(jobs.made_from(name), json.dumps(used, indent=1, ensure_ascii=False) + "\n")
    os.replace(running, executed)


def _set_environment(job: dict, threads: int) -> None:
    """Set the environment of the kernel: one thread count for all libraries, a fixed hash seed, the results folder."""
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(threads)))
    os.environ.update(
        PYTHONHASHSEED="0",
        TOKENIZERS_PARALLELISM="false",
        CUBLAS_WORKSPACE_CONFIG=":4096:8",  # cuBLAS is deterministic only with this
        TQDM_DISABLE="1",  # progress bars are noise in a stored copy
        JUPYTER_PREFER_ENV_PATH="1",  # otherwise the user's own `python3` kernel takes precedence
        PYDEVD_DISABLE_FILE_VALIDATION="1",
        RUN_FOLDER=job["folder"],
        MODELS_FOLDER=next((name.split("/")[0] for name in job["reads"]), job["folder"]),
    )
    os.environ.pop("JUPYTER_PATH", None)
    root = str(paths.ROOT)
    before = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path and path != root]
    os.environ["PYTHONPATH"] = os.pathsep.join([root, *before])


def _execute(notebook: Path, copy: Path, values: dict) -> None:
    """Run the notebook with papermill, writing to `copy`, with a kernel whose sockets are in a private folder."""
    import papermill
    from jupyter_client.manager import AsyncKernelManager

    class PrivateKernelManager(AsyncKernelManager):
        """Uses IPC sockets where possible, as kernels that start at the same time would race for ports."""

        def __init__(self, **keywords):
            super().__init__(**keywords)
            self.connection_file = f"{folder}/k.json"
            if os.name == "posix" and len(f"{folder}/k-ipc-5".encode()) <= LONGEST_SOCKET_PATH:
                self.transport, self.ip = "ipc", f"{folder}/k-ipc"

    with tempfile.TemporaryDirectory(prefix="nb-", ignore_cleanup_errors=True) as folder:
        os.environ["JUPYTER_RUNTIME_DIR"] = folder
        papermill.execute_notebook(
            *(str(path).replace("{", "{{").replace("}", "}}") for path in (notebook, copy)),  # they are format strings
            values, kernel_name="python3", progress_bar=False, cwd=str(paths.ROOT), start_timeout=LONGEST_START,
            kernel_manager_class=PrivateKernelManager,
        )  # fmt: skip


def store_outputs(selected: list[jobs.Job]) -> None:
    """`make outputs`: store the outputs of checked cells, and no others, in the notebooks of the repository."""
    import nbformat

    for job in {job.notebook: job for job in reversed(selected)}.values():  # the first seed of each notebook
        notebook = paths.NOTEBOOKS / f"{job.notebook}.ipynb"
        content, copy = (nbformat.read(path, 4) for path in (notebook, jobs.executed(job.name)))
        executed = {cell.id: cell for cell in copy.cells}
        for cell in (cell for cell in content.cells if cell.cell_type == "code"):
            checked = "nbval-check-output" in cell.metadata.get("tags", [])
            cell.outputs = executed[cell.id].outputs if checked else []
            cell.execution_count = executed[cell.id].execution_count if checked else None
        jobs.write_atomically(notebook, nbformat.writes(content) + "\n")
