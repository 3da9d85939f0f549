"""One training loop for all studies, built on Accelerate: device, precision, progress, checkpoint, resume.

`fit` repeats a study's step, averages its loss terms into one history row per epoch, and saves a checkpoint after each
epoch. On a CPU, resuming is bit-exact: batches depend on (seed, epoch) alone and checkpoints hold all random states.

    accelerator = start(device="cpu")
    model, optimizer, scheduler = prepare(accelerator, model, optimizer, scheduler)
    step = gradient_step(accelerator, model, optimizer, scheduler, losses)
    history = fit(accelerator, step, batches, epochs=10, checkpoint=folder, key={"lr": 1e-3})
"""

import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState
from filelock import FileLock, Timeout
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from tqdm.auto import tqdm

from lib.paths import atomic
from lib.sources import source_hash

Terms = dict[str, Tensor]
Step = Callable[[Any], Terms]


STEPS_BETWEEN_CHECKS = 20  # reading a loss makes the CPU wait for the GPU


class TrainingError(RuntimeError):
    """Training cannot continue; the message says what to do."""


def start(device: str = "auto", precision: str = "no") -> Accelerator:
    """Return a new Accelerator. device: "auto" (CUDA or else the CPU), "cpu", "cuda"; precision: "no" or "bf16"."""
    if device not in ("auto", "cpu", "cuda"):
        raise TrainingError(f"device {device!r} is unknown; choose 'auto', 'cpu' or 'cuda'")
    if device == "cuda" and not torch.cuda.is_available():
        raise TrainingError("device 'cuda' was asked for, but torch sees no GPU; use device='cpu' or 'auto'")
    cpu = device == "cpu" or (device == "auto" and torch.backends.mps.is_available())  # Apple's GPUs lack float64
    if precision not in ("no", "bf16"):
        raise TrainingError(f"precision {precision!r} is unknown; choose 'no' or 'bf16'")
    # A notebook trains many models in turn, perhaps one on the CPU and the next on "auto".
    AcceleratorState._reset_state(reset_partial_state=cpu or PartialState._shared_state.get("_cpu", False))
    return Accelerator(cpu=cpu, mixed_precision=precision)


def prepare(accelerator: Accelerator, *parts: Any, channels_last: bool = True) -> tuple:
    """Call `accelerator.prepare`, with image networks in channels_last, which is faster on CPUs and tensor cores."""
    if channels_last:
        for part in parts:
            if isinstance(part, nn.Module):
                part.to(memory_format=torch.channels_last)
    prepared = accelerator.prepare(*parts)
    return prepared if len(parts) > 1 else (prepared,)


def gradient_step(
    accelerator: Accelerator,
    model: nn.Module,
    optimizer: Any,
    scheduler: Any | None,
    losses: Callable[[nn.Module, Any], Terms],
    *,
    capture: bool = False,
) -> Step:
    """Return the usual training step: sum the named loss terms, backpropagate, update.

    optimizer, scheduler: one each, or sequences if parts of the network have different ones.
    losses: losses(model, batch) returns scalar terms, already weighted; their sum is minimised.
    capture: run the step as a `Captured` one; `losses` must then meet its conditions.
    """
    optimizers, schedulers = (
        () if part is None else part if isinstance(part, Sequence) else (part,) for part in (optimizer, scheduler)
    )

    def update(batch: Any) -> Terms:
        for one in optimizers:
            one.zero_grad(set_to_none=True)
        with accelerator.autocast():
            terms = losses(model, batch)
        accelerator.backward(sum(terms.values()))
        for one in optimizers:
            one.step()
        return terms

    if capture:
        update = Captured(accelerator, update, optimizers)

    def step(batch: Any) -> Terms:
        terms = update(batch)
        for one in schedulers:
            one.step()
        return terms

    return step


class MovingAverage(AveragedModel):
    """Exponential moving average of a network's weights; buffers are copied from the network.

    ramp: limit the decay to (1 + n)/(10 + n) after n updates, for short training runs. Unlike its base class, it never
    synchronises with the device, so that a CUDA graph can contain it.
    """

    def __init__(self, network: nn.Module, decay: float, *, ramp: bool = False):
        super().__init__(network)
        self.decay, self.ramp = decay, ramp

    @torch.no_grad()
    def update_parameters(self, network: nn.Module) -> None:
        weight = torch.full((), 1 - self.decay, device=self.n_averaged.device)
        if self.ramp:
            weight = torch.maximum(weight, 9 / (10 + self.n_averaged))
        means = list(self.module.parameters())
        change = torch._foreach_sub([value.detach() for value in network.parameters()], means)
        torch._foreach_mul_(change, weight)
        torch._foreach_add_(means, change)
        for mine, other in zip(self.module.buffers(), network.buffers(), strict=True):
            mine.copy_(other)
        self.n_averaged += 1


class Captured:
    """A training step run as one CUDA graph, since a small network spends most of its time on launching operations.

    step(batch) must take batches of one shape, must not synchronise, and must draw random numbers from the device's
    generator alone. It is captured after `WARM_UP` calls, once ready() is true, and then replayed; on a CPU or with
    several processes it is called as is. The returned terms are valid until the next call.

    optimizers: those that `step` uses, fused or capturable. Their learning rates become tensors on the GPU; advance
    their schedulers outside of `step`.
    """

    WARM_UP = 3

    def __init__(
        self,
        accelerator: Accelerator,
        step: Callable[[Tensor], Terms],
        optimizers: Sequence[Any],
        ready: Callable[[], bool] = lambda: True,
    ):
        self.step, self.optimizers, self.ready, self.calls, self.graph = step, optimizers, ready, 0, None
        self.usable = accelerator.device.type == "cuda" and accelerator.num_processes == 1

    def __call__(self, batch: Tensor) -> Terms:
        if not self.usable:
            return self.step(batch)
        if self.graph is None:
            if self.calls == 0:  # not in __init__: a checkpoint may be loaded in between
                for group in (group for optimizer in self.optimizers for group in optimizer.param_groups):
                    group["lr"] = torch.as_tensor(group["lr"], dtype=torch.float32).to(batch.device)
            self.calls += 1
            if self.calls <= self.WARM_UP or not self.ready():
                return self._aside(batch)
            self.batch = batch.clone()
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph):
                self.terms = self.step(self.batch)
        self.batch.copy_(batch)
        self.graph.replay()
        return self.terms

    def _aside(self, batch: Tensor) -> Terms:
        """Run the step on a side stream, whose allocations are kept apart from the graph's."""
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            terms = self.step(batch)
        torch.cuda.current_stream().wait_stream(aside)
        return terms


def shuffled(accelerator: Accelerator, count: int, batch_size: int, seed: int) -> Callable[[int], list[Tensor]]:
    """Return `batches` for `fit`: this process's share of `epoch_batches`, moved to the device once per epoch."""
    where = {"process": accelerator.process_index, "processes": accelerator.num_processes}
    return lambda epoch: epoch_batches(count, batch_size, seed=seed, epoch=epoch, device=accelerator.device, **where)


def epoch_batches(
    count: int,
    batch_size: int,
    *,
    seed: int,
    epoch: int,
    process: int = 0,
    processes: int = 1,
    device: torch.device | str = "cpu",
) -> list[Tensor]:
    """Return the sample indices of one epoch's batches, which depend on (seed, epoch) alone.

    An incomplete last batch is dropped, as batch norm and contrastive losses are not defined
    for a single sample. Each of `processes` gets every `processes`-th batch, and all get the same number.
    """
    if not 1 <= batch_size * processes <= count:
        raise TrainingError(
            f"{count} samples do not fill one batch of {batch_size} for each of {processes} processes; "
            "use a smaller batch_size or more samples"
        )
    mixed = int(np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0] >> 1)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(mixed)).to(device)
    batches = order[: count // batch_size * batch_size].view(-1, batch_size)
    return list(batches[: len(batches) // processes * processes][process::processes])


def fit(
    accelerator: Accelerator,
    step: Step,
    batches: Callable[[int], Sequence[Any]],
    *,
    epochs: int,
    evaluate: Callable[[int], dict[str, float]] | None = None,
    checkpoint: Path | None = None,
    key: dict[str, Any] | None = None,
    name: str = "training",
) -> pd.DataFrame:
    """Run `step` over `batches(epoch)` for epochs 1…`epochs`; return the history with one row per epoch.

    A row holds `epoch`, the mean of every term of `step` and the values of `evaluate(epoch)`; `evaluate(0)` scores the
    untrained model. With `checkpoint` (a folder), everything prepared by or registered with the accelerator is saved
    atomically after each epoch, and a call with the same `key` (settings, data, code) resumes from there.
    """
    with nullcontext() if checkpoint is None or not accelerator.is_main_process else _lock(checkpoint, name):
        done, rows = (0, []) if checkpoint is None else _resume(accelerator, checkpoint, key or {}, epochs)
        if evaluate is not None and not rows:
            rows.append({"epoch": 0, **evaluate(0)})
        bar = tqdm(
            range(done + 1, epochs + 1),
            desc=name,
            unit="epoch",
            leave=False,
            # None hides the bar if output goes to a file. tqdm reads its own variable only if `disable` is not given.
            disable=True if os.environ.get("TQDM_DISABLE") or not accelerator.is_main_process else None,
        )
        for epoch in bar:
            means = _one_epoch(step, batches(epoch), epoch, name)
            _check_finite(means, accelerator, epoch, name)
            rows.append({"epoch": epoch, **means, **(evaluate(epoch) if evaluate is not None else {})})
            bar.set_postfix({k: f"{v:.3g}" for k, v in rows[-1].items() if k != "epoch"})
            if checkpoint is not None:
                _save(accelerator, checkpoint, epoch, rows)
    return pd.DataFrame(rows)


def step_count(count: int, settings: Any) -> int:
    """Return the number of steps of a training run on `count` samples, from `settings.batch_size` and `.epochs`."""
    return len(epoch_batches(count, settings.batch_size, seed=0, epoch=0)) * settings.epochs


def one_cycle(optimizer: torch.optim.Optimizer, steps: int) -> torch.optim.lr_scheduler.OneCycleLR:
    """Return the one-cycle schedule (Smith & Topin 2018) that peaks at the learning rates of the optimizer."""
    peaks = [group["lr"] for group in optimizer.param_groups]
    warm_up = 0.25 if steps != 4 else 0.375  # OneCycleLR divides by zero if the warm-up is exactly one step
    return torch.optim.lr_scheduler.OneCycleLR(
        optimizer, peaks, total_steps=steps, pct_start=warm_up, cycle_momentum=False
    )


def scored(
    count: int, settings: Any, score: Callable[[], Mapping[str, float]] | None
) -> Callable[[int], dict[str, float]]:
    """Return `evaluate` for `fit`: the number of images seen so far (of `count` per epoch), and `score()` every
    `settings.score_every` epochs (0: never) and after the last; scoring preserves the random state."""

    def evaluate(epoch: int) -> dict[str, float]:
        row = {"images": float(epoch * (count // settings.batch_size) * settings.batch_size)}
        wanted = settings.score_every and epoch % settings.score_every == 0
        if score is not None and (wanted or epoch == settings.epochs):
            with torch.random.fork_rng():
                row |= score()
        return row

    return evaluate


def fit_arm(
    accelerator: Accelerator,
    step: Step,
    arm: Any,
    train: Any,
    settings: Any,
    *,
    seed: int,
    code: str,
    evaluate: Callable[[int], dict[str, float]],
    checkpoint: Path | None,
    batches: Callable[[int], Sequence[Any]] | None = None,
    **facts: Any,
) -> pd.DataFrame:
    """Train one arm of a study with `fit`, on shuffled batches of `train` unless `batches` is given.

    arm, settings: dataclasses that enter the checkpoint's key, except for the arm's label. train: has a checksum and,
    without `batches`, a length. code: the module whose source, including its imports, the checkpoint depends on.
    facts: anything else that it depends on.
    """
    key = {"arm": asdict(replace(arm, label="")), "settings": asdict(settings), "seed": seed, "train": train.checksum}
    return fit(
        accelerator,
        step,
        batches or shuffled(accelerator, len(train), settings.batch_size, seed),
        epochs=settings.epochs,
        evaluate=evaluate,
        checkpoint=checkpoint,
        key=key | {"code": source_hash(code)} | facts,
        name=arm.label,
    )


def _lock(checkpoint: Path, name: str) -> AbstractContextManager:
    """Lock a checkpoint for one process; the operating system releases the lock however the process ends."""
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    try:
        return FileLock(f"{checkpoint}.lock", timeout=0).acquire()
    except Timeout:
        raise TrainingError(
            f"{name} is being trained by another process, which writes to {checkpoint}. "
            "Wait for it, or stop it (a notebook left open keeps its kernel), and run again."
        ) from None


def _one_epoch(step: Step, batches: Sequence[Any], epoch: int, name: str) -> dict[str, float]:
    if not batches:
        raise TrainingError(f"{name}: epoch {epoch} has no batches")
    values = []
    for number, batch in enumerate(batches, start=1):
        terms = step(batch)
        values.append(torch.stack([value.detach().float() for value in terms.values()]))  # (terms,)
        if number % STEPS_BETWEEN_CHECKS == 0 and not values[-1].isfinite().all():
            break  # an epoch may take an hour, and its means will not be finite in any case
    # Summed in groups of twenty, as in the stored histories.
    total = sum(part.double().sum(0) for part in torch.stack(values).split(20))
    return dict(zip(terms, (total / len(batches)).tolist(), strict=True))


def _check_finite(means: dict[str, float], accelerator: Accelerator, epoch: int, name: str) -> None:
    """Raise if a loss or weight is not finite, to keep the good checkpoint. The last step may break weights alone."""
    weights = (item for model in accelerator._models for item in model.state_dict().items())
    bad = [key for key, value in [*means.items(), *weights] if not torch.as_tensor(value).isfinite().all()]
    if bad:
        raise TrainingError(
            f"{name}: not finite in epoch {epoch}: {', '.join(map(repr, bad[:3]))}. The checkpoint of the epoch before "
            "is kept. Usual causes: a learning rate or penalty weight that is too high, half precision, a root or a "
            "norm of zero, or NaN in the data."
        )


# Checkpoints: <folder>/key.json describes what was trained, <folder>/epoch-0003/ holds the state after that epoch.


def _save(accelerator: Accelerator, folder: Path, epoch: int, rows: list[dict]) -> None:
    partial = folder / "partial"
    if accelerator.is_main_process:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    accelerator.wait_for_everyone()
    accelerator.save_state(str(partial))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        (partial / "history.json").write_text(json.dumps(rows, default=float))
        partial.rename(folder / f"epoch-{epoch:04d}")  # renaming a folder is atomic
        for old in _complete(folder)[:-1]:
            shutil.rmtree(old)
    accelerator.wait_for_everyone()


def _complete(folder: Path) -> list[Path]:
    found = [path for path in folder.glob("epoch-*") if path.name[6:].isdecimal()]  # not "epoch-0001 copy"
    return sorted(found, key=lambda path: int(path.name[6:]))


def _resume(accelerator: Accelerator, folder: Path, key: dict, epochs: int) -> tuple[int, list[dict]]:
    """Load the newest checkpoint of `folder` if it was made with the same key; return (epochs done, history)."""
    made_by = {"torch": torch.__version__, "device": accelerator.device.type}  # also named in the results' records
    wanted = json.loads(json.dumps(key | made_by, sort_keys=True, default=str))
    note = folder / "key.json"
    same = note.exists() and json.loads(note.read_text()) == wanted
    saved = _complete(folder) if same else []
    if saved and int(saved[-1].name[6:]) > epochs:
        raise TrainingError(f"{folder} holds {int(saved[-1].name[6:])} epochs, more than the {epochs} that are asked "
                            "for. Delete it, or have `epochs` in the key.")  # fmt: skip
    if not saved:
        if accelerator.is_main_process:
            if folder.exists():
                shutil.rmtree(folder)  # leftovers would be mistaken for checkpoints of this run
            with atomic(note) as temporary:
                temporary.write_text(json.dumps(wanted, indent=1))
        accelerator.wait_for_everyone()
        return 0, []
    newest = saved[-1]
    try:
        rows = json.loads((newest / "history.json").read_text())
        accelerator.load_state(str(newest))
        # Accelerate only logs a failure to restore random states.
        random_states = newest / f"random_states_{accelerator.process_index}.pkl"
        saved_state = torch.load(random_states, weights_only=False)["torch_manual_seed"]
        if not torch.equal(saved_state, torch.get_rng_state()):
            raise ValueError(f"{random_states.name} could not be restored")
    except Exception as error:  # whichever of the readers fails, the remedy is the same
        raise TrainingError(
            f"the checkpoint {newest} cannot be read ({type(error).__name__}: {error}). "
            f"Delete the folder {folder} and run again to train from the start."
        ) from error
    return int(newest.name[6:]), rows


@torch.no_grad()
def predict(model: nn.Module, inputs: Iterable[Tensor]) -> Tensor:
    """Return the model's outputs over `inputs` (already on the device) in evaluation mode, as float32."""
    modes = {part: part.training for part in model.modules()}  # some modules may be kept in evaluation mode
    model.eval()
    try:
        return torch.cat([model(batch).float() for batch in inputs])
    finally:
        for part, mode in modes.items():
            part.training = mode
