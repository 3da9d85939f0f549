"""Independent trainings side by side on a CPU, in processes that share the memory of this one.

    models = side_by_side([partial(train, one), partial(train, other)])

A process that is started anew imports PyTorch and transformers anew: three seconds and half a gigabyte each, which
Binder does not have. One that is forked has them already, and the data, too. Forking is safe where the processes keep
to one thread each and no accelerator is in use; everywhere else they are started anew (`lib.training.side_by_side`).
"""

import ctypes
import os
import pickle
import signal
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import active_children, get_context
from typing import Any

import torch
from threadpoolctl import threadpool_limits

from lib import training
from lib.training import TrainingError

_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG of prctl(2)
_work: Sequence[Callable[[], Any]] = ()  # what a forked process finds, without its being sent


def side_by_side(trainings: Sequence[Callable[[], Any]], device: str = "auto") -> list[Any]:
    """What each of these independent trainings, functions without arguments, returns, in order.

    On a CPU they run in processes of one thread each, as many at a time as torch may use threads: a small network's
    operations are too short to be shared by several threads, and two trainings at a time take half the time of one
    after the other. The processes end with this one, even if it is killed. An accelerator is shared by its own
    scheduler, and they run in turn.

    Raises:
        TrainingError: the process of one was killed. Whatever a training raises is raised here.
    """
    global _work
    workers = min(len(trainings), torch.get_num_threads())
    # A process whose gradients were ever computed by an accelerator's threads cannot be forked for more of them.
    if workers < 2 or not sys.platform.startswith("linux") or torch.accelerator.is_available() or _work:
        return training.side_by_side(trainings, device)
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        return [one() for one in trainings]
    _work, before = trainings, set(active_children())
    give_back()  # lest each process write into its own copy of what is free
    sys.stdout.flush(), sys.stderr.flush()  # what waits there would be written once by each
    pool = ProcessPoolExecutor(workers, get_context("fork"), initializer=_alone, initargs=(os.getpid(),))
    try:
        return [pickle.loads(found) for found in pool.map(_call, range(len(trainings)))]
    except BrokenProcessPool as error:
        raise TrainingError(
            "a training's process was killed, as a rule for want of memory. Use a smaller batch or network, or one "
            "thread (CORES=1), which trains one at a time. What was finished is kept: run again to go on."
        ) from error
    except BaseException:  # an interrupt among them: what still runs is of no use
        for process in set(active_children()) - before:
            process.terminate()
        raise
    finally:
        _work = ()
        pool.shutdown(cancel_futures=True)


def give_back() -> None:
    """Return to the system what this process has freed. glibc keeps it: 250 MB after the sounds were loaded."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform.startswith("linux") else None
    if trim is not None:  # other C libraries have none, and need none
        trim(0)


def _alone(parent: int) -> None:
    ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
    if os.getppid() != parent:  # it was killed before it could be said
        os._exit(1)
    torch.set_num_threads(1)
    threadpool_limits(1)  # NumPy's products of matrices, whose threads otherwise wait for each other on busy cores
    os.environ["TQDM_DISABLE"] = "1"  # a bar of its own in somebody else's notebook


def _call(place: int) -> bytes:
    # Pickled here: tensors that are sent as they are stay in this process's memory, which ends with it.
    return pickle.dumps(_work[place]())
