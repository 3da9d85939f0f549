"""Run independent training functions in parallel, each in a process of its own.

    models = side_by_side([partial(train, one), partial(train, other)])

Processes are forked, since the imports of a new one take three seconds and half a gigabyte. Forking is safe on Linux
without an accelerator, with one thread per process; elsewhere joblib starts new processes.
"""

import ctypes
import os
import pickle
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import active_children, get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cloudpickle
import torch
from joblib import Parallel, delayed
from joblib.externals.loky.process_executor import TerminatedWorkerError
from threadpoolctl import threadpool_limits

from lib.training import TrainingError

KILLED = (
    "a training's process ended, as a rule for want of memory. Use a smaller batch or network, or one "
    "thread (CORES=1), which trains one at a time. What was finished is kept: run again to go on."
)
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG of prctl(2)
_work: Sequence[Callable[[], Any]] = ()  # inherited by forked processes without pickling


def side_by_side(trainings: Sequence[Callable[[], Any]]) -> list[Any]:
    """Return the results of independent training functions (without arguments), in order.

    They run in single-threaded processes, as many at a time as torch may use threads: operations of small networks are
    too short to split over threads, and a GPU waits for the one thread that launches them. With one thread, in a worker
    or in a distributed run, they run here in turn. The processes end with this one, even if it is killed.

    Raises:
        TrainingError: a process was killed or ran out of GPU memory. Other exceptions of a training function propagate.
    """
    workers = min(len(trainings), torch.get_num_threads())
    if workers < 2 or _work or int(os.environ.get("WORLD_SIZE", 1)) > 1:
        return [one() for one in trainings]
    # Once autograd has used its threads for an accelerator, forked processes cannot run backward passes.
    forks = sys.platform.startswith("linux") and not torch.accelerator.is_available()
    try:
        return (_forked if forks else _anew)(trainings, workers)
    except (BrokenProcessPool, TerminatedWorkerError, torch.OutOfMemoryError) as error:
        raise TrainingError(KILLED) from error


def give_back() -> None:
    """Return freed memory to the operating system; glibc would keep it (250 MB after loading the sounds)."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform.startswith("linux") else None
    if trim is not None:  # other C libraries neither have nor need it
        trim(0)


def _forked(trainings: Sequence[Callable[[], Any]], workers: int) -> list[Any]:
    global _work
    _work, before = trainings, set(active_children())
    give_back()  # otherwise every fork copies free pages as it writes to them
    sys.stdout.flush(), sys.stderr.flush()  # otherwise every process would write the buffered output
    pool = ProcessPoolExecutor(workers, get_context("fork"), initializer=_end_with, initargs=(os.getpid(),))
    try:
        return [pickle.loads(found) for found in pool.map(_call, range(len(trainings)))]
    except BaseException:  # including KeyboardInterrupt: the remaining results are not needed
        for process in set(active_children()) - before:
            process.terminate()
        raise
    finally:
        _work = ()
        pool.shutdown(cancel_futures=True)


def _end_with(parent: int) -> None:
    ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
    if os.getppid() != parent:  # the parent was killed before prctl took effect
        os._exit(1)
    threadpool_limits(1)  # for NumPy's matrix products, whose threads otherwise wait for each other on busy cores


def _call(place: int) -> bytes:
    return _alone(_work[place])


def _alone(training: Callable[[], Any]) -> bytes:
    torch.set_num_threads(1)
    os.environ["TQDM_DISABLE"] = "1"  # progress bars of workers would clutter the parent's notebook
    # Pickled here: tensors sent directly would stay in the shared memory of this process, which ends with it.
    return pickle.dumps(training())


def _anew(trainings: Sequence[Callable[[], Any]], workers: int) -> list[Any]:
    """Run in new processes, which share one memory-mapped file of their inputs."""
    settings = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    # Some systems cannot delete a mapped file; cleaning up is then left to them.
    with TemporaryDirectory(prefix="trainings-", ignore_cleanup_errors=True) as folder:
        file = Path(folder) / "all.pt"
        torch.save(list(trainings), file, pickle_module=cloudpickle)  # which can pickle nested functions
        pool = Parallel(workers, backend="loky", inner_max_num_threads=1)
        found = pool(delayed(_read_and_call)(file, place, settings) for place in range(len(trainings)))
        return [pickle.loads(one) for one in found]


def _read_and_call(file: Path, place: int, settings: tuple[bool, bool]) -> bytes:
    torch.use_deterministic_algorithms(settings[0], warn_only=True)
    torch.backends.cudnn.benchmark = settings[1]
    return _alone(torch.load(file, mmap=True, weights_only=False)[place])  # trusted: written by this program


def train_each(
    train: Callable[..., Any], arms: Iterable[Any], /, *inputs: Any, checkpoints: Path | None = None, **options: Any
) -> dict[str, Any]:
    """Return the results of `train(arm, *inputs, checkpoint=folder, **options)` by arm label, trained in parallel.

    Each arm has a folder below `checkpoints`, named after its label. ValueError if two labels give the same folder.
    """
    arms = list(arms)
    folders = ["".join(c if c.isalnum() else "-" for c in arm.label.lower()).strip("-") for arm in arms]
    if len(set(folders)) < len(arms):
        raise ValueError(f"arms need labels that differ in letters or digits, as they name folders: {folders}")
    trainings = [
        partial(train, arm, *inputs, checkpoint=checkpoints and checkpoints / folder, **options)
        for arm, folder in zip(arms, folders, strict=True)
    ]
    return dict(zip([arm.label for arm in arms], side_by_side(trainings), strict=True))
