"""A small training run with everything that a checkpoint must contain, and processes to run it in.

The processes come from a fork server that has already imported torch, so they start at once.
"""

import multiprocessing
import os
import random
import resource
import signal
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from lib import training

BATCHES = 5  # per epoch
PATIENCE = 60  # seconds that a process may take on a busy machine
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["torch", "accelerate", "pandas", "torchvision"])  # installed everywhere


class Log:
    """A custom state, registered for checkpointing."""

    def __init__(self):
        self.steps = 0

    def state_dict(self):
        return {"steps": self.steps}

    def load_state_dict(self, state):
        self.steps = state["steps"]


def train(
    checkpoint: Path | None,
    epochs: int = 3,
    *,
    on_step: Callable[[int, int], None] = lambda epoch, step: None,
    spoil: Callable[[int, int], float] = lambda epoch, step: 0.0,
    precision: str = "no",
    **key,
) -> SimpleNamespace:
    """Train a network with dropout on images perturbed by torch's, NumPy's and Python's global random state.

    on_step(epoch, step) is called before each step; spoil(epoch, step) is added to the penalty.
    """
    accelerator = training.start("cpu", precision)
    torch.manual_seed(1), np.random.seed(1), random.seed(1)
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout(0.3), nn.Flatten(), nn.Linear(96, 4)
    )
    optimizer = torch.optim.AdamW(model.parameters(), 0.01)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 4, 0.9)
    network, optimizer, scheduler = training.prepare(accelerator, model, optimizer, scheduler)
    log = Log()
    accelerator.register_for_checkpointing(log)
    fixed = torch.Generator().manual_seed(0)
    images, labels = torch.randn(22, 3, 6, 6, generator=fixed), torch.randint(4, (22,), generator=fixed)
    now = {}

    def batches(epoch):
        now["epoch"], now["step"] = epoch, 0
        return training.epoch_batches(22, 4, seed=0, epoch=epoch)

    def losses(network, index):
        now["step"] += 1
        on_step(now["epoch"], now["step"])
        log.steps += 1
        moved = images[index] + 0.1 * torch.randn(4, 3, 6, 6) + 0.1 * np.random.rand() + 0.1 * random.random()
        penalty = 0.01 * model[0].weight.square().sum() + spoil(now["epoch"], now["step"])
        return {"task": F.cross_entropy(network(moved), labels[index]), "penalty": penalty}

    def evaluate(epoch):
        return {"test_loss": F.cross_entropy(training.predict(network, [images]), labels).item()}

    history = training.fit(
        accelerator,
        training.gradient_step(accelerator, network, optimizer, scheduler, losses),
        batches,
        epochs=epochs,
        evaluate=evaluate,
        checkpoint=checkpoint,
        key=key,
        name="toy",
    )
    return SimpleNamespace(
        history=history,
        weights={name: value.detach().clone() for name, value in model.state_dict().items()},
        optimizer=optimizer.state_dict()["state"],
        rate=scheduler.get_last_lr(),
        draws=(torch.rand(3).tolist(), np.random.rand(), random.random()),
        steps=log.steps,
    )


# -- what processes do ---------------------------------------------------------------------


def kill_oneself(*_ignored) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def train_and_be_killed(checkpoint: Path, where: str) -> None:
    """Train, and SIGKILL oneself in the second epoch: within it (where="epoch") or while its checkpoint is written."""

    def kill_at(epoch, step):
        if epoch == 2 and where == "epoch" and step == 3:
            kill_oneself()
        if epoch == 2 and where == "a file half written":
            torch.save = lambda content, path, *_: (Path(path).write_bytes(b"half"), kill_oneself())
        if epoch == 2 and where == "before the rename":
            Path.rename = kill_oneself
        if epoch == 2 and where == "before the old one is removed":
            training._complete = kill_oneself

    torch.set_num_threads(1)
    train(checkpoint, on_step=kill_at)


def train_and_wait(checkpoint: Path, started) -> None:
    def wait(epoch, step):
        if epoch == 2:
            started.set()
            signal.pause()

    torch.set_num_threads(1)
    train(checkpoint, on_step=wait)


def train_with_small_files(checkpoint: Path, bytes_: int, answer) -> None:
    """Train with files limited to `bytes_` from the second epoch on, so that write(2) really fails."""

    def limit(epoch, step):
        if epoch == 2:
            resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_, resource.RLIM_INFINITY))

    torch.set_num_threads(1)
    try:
        train(checkpoint, on_step=limit)
        answer.put(("none", ""))
    except Exception as error:
        answer.put((type(error).__name__, str(error)))


def in_processes(count: int, target: Callable, folder: Path, *arguments) -> list:
    """Call target(count, rank, port, folder, *arguments) in `count` processes; return `folder`/<count>-<rank>.pt."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ranks = [PROCESSES.Process(target=target, args=(count, rank, port, folder, *arguments)) for rank in range(count)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(PATIENCE)
        process.kill()
    assert [process.exitcode for process in ranks] == [0] * count
    return [torch.load(folder / f"{count}-{rank}.pt") for rank in range(count)]


def be_one_of(processes: int, process: int, port: int) -> None:
    torch.set_num_threads(1)
    if processes > 1:
        os.environ.update(RANK=str(process), LOCAL_RANK=str(process), WORLD_SIZE=str(processes))
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), ACCELERATE_USE_CPU="true")


def train_codes(processes: int, process: int, port: int, folder: Path, arms: Sequence) -> None:
    """Train arms of study 2, without batch norm or random views, on a share of each batch of 12 images."""
    be_one_of(processes, process, port)
    from lib.categorical import models
    from lib.categorical import training as codes

    def network(encoder, shape):
        found = models.Network(encoder, shape)
        found.head[1] = nn.Identity()
        return found

    encoder = nn.Flatten()
    encoder.features = 27
    codes.build_encoder, codes.Network = lambda *_: encoder, network
    codes.rate_factor = lambda *_: 1.0  # the schedule advances by a step per process
    codes.Views = lambda *_: lambda pixels: (pixels / 255, 1 - pixels.flip(3) / 255)
    pixels = torch.randint(256, (60, 3, 3, 3), generator=torch.Generator().manual_seed(0)).byte()
    found = {}
    for arm in arms:
        accelerator = training.start("cpu")
        assert accelerator.num_processes == processes
        torch.manual_seed(0)
        how = codes.Settings(1, 12 // processes, 0.1, device="cpu")
        wrapped, step = codes.make_step(accelerator, arm, pixels, how, steps=5)
        losses = [sum(step(index.chunk(processes)[process]).values()) for index in torch.arange(60).split(12)]
        weights = accelerator.unwrap_model(wrapped).state_dict()
        found[arm.label] = {"losses": torch.stack(losses).detach(), **weights}
    torch.save(found, folder / f"{processes}-{process}.pt")
    if processes > 1:
        torch.distributed.destroy_process_group()


class NoNorm(nn.Identity):
    """Instead of batch norm: it has the same arguments and can be initialised."""

    weight, bias = torch.zeros(1), torch.zeros(1)


def train_gans(processes: int, process: int, port: int, folder: Path, arms: Sequence, *, normed: bool) -> None:
    """Train arms of study 1, with or without batch norm, on a share of each batch of 8 images."""
    be_one_of(processes, process, port)
    if not normed:
        nn.BatchNorm2d = NoNorm
    from lib.laplacian_gan import training as gans

    images = torch.rand(32, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    found = {}
    for arm in arms:
        accelerator = training.start("cpu")
        assert accelerator.num_processes == processes
        torch.manual_seed(0)
        mean, _, step = gans.make_step(accelerator, arm, 32, 4, 0.9, torch.ones(4), lambda index: images[index])
        torch.manual_seed(1)
        for number, index in enumerate(torch.arange(32).split(8)):
            step((number, index.chunk(processes)[process]))
        found[arm.label] = {name: value.detach() for name, value in mean.named_parameters()}
    torch.save(found, folder / f"{processes}-{process}.pt")
    if processes > 1:
        torch.distributed.destroy_process_group()


def train_linear(processes: int, process: int, port: int, folder: Path, checkpoint: Path | None, epochs: int) -> None:
    """Train a linear model by SGD on one process's share of the batches, each of 8 / `processes`; save the result."""
    be_one_of(processes, process, port)
    fixed = torch.Generator().manual_seed(0)
    inputs, targets = torch.randn(35, 5, generator=fixed), torch.randn(35, 2, generator=fixed)
    accelerator = training.start("cpu")
    assert accelerator.num_processes == processes
    torch.manual_seed(process)  # different weights: the processes have to agree on those of one
    model = nn.Linear(5, 2)
    if process == 0:
        with torch.no_grad():
            model.weight.fill_(0.1), model.bias.fill_(0)
    network, optimizer = training.prepare(accelerator, model, torch.optim.SGD(model.parameters(), 0.1, momentum=0.9))

    def losses(network, index):
        return {"task": F.mse_loss(network(inputs[index]), targets[index])}

    def batches(epoch):
        return training.epoch_batches(35, 8 // processes, seed=0, epoch=epoch, process=process, processes=processes)

    step = training.gradient_step(accelerator, network, optimizer, None, losses)
    history = training.fit(accelerator, step, batches, epochs=epochs, checkpoint=checkpoint)
    torch.save((model.state_dict(), history.task.tolist()), folder / f"{processes}-{process}.pt")
    if processes > 1:
        torch.distributed.destroy_process_group()
