"""Training of one arm: two views of every image, one loss, and no labels."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed.nn import all_gather

from lib.categorical import baselines, losses
from lib.categorical.arms import Arm
from lib.categorical.augment import Views
from lib.categorical.models import Network, Queue, build_encoder
from lib.forking import train_each
from lib.muon import Muon
from lib.training import Captured, MovingAverage, fit_arm, prepare, scored, start, step_count

if TYPE_CHECKING:  # checkpoints depend on the checksum of the data, not on the code that loads the data
    from lib.data.images import Images

Terms = dict[str, Tensor]


@dataclass(frozen=True)
class Settings:
    """Settings shared by all arms of an experiment."""

    epochs: int = 200
    batch_size: int = 256
    learning_rate: float = 0.06  # peak; warm-up over a twentieth of the steps, then cosine decay to zero
    optimizer: str = "sgd"  # with momentum 0.9; "muon" (`lib.muon`) for all weights except biases and norms
    weight_decay: float = 5e-4
    encoder: str = "small"
    width: int = 32  # filters of the small encoder's stem
    smallest_crop: float = 0.2  # smallest share of the image area in a crop
    hue: float = 0.1  # largest hue shift in turns of the colour circle, 0.5 at most
    score_every: int = 0  # epochs between two points of the training curve; 0: only the last
    precision: str = "no"
    device: str = "auto"


@dataclass(frozen=True)
class Trained:
    """A trained arm."""

    arm: Arm
    network: Network
    history: pd.DataFrame  # per epoch: images seen, terms of the loss, and the values of `score`


def train_arm(
    arm: Arm,
    train: "Images",
    settings: Settings,
    *,
    seed: int,
    score: Callable[[Trained], Mapping[str, float]] | None = None,
    score_key: str = "",
    checkpoint: Path | None = None,
) -> Trained:
    """Train one arm. Arms with the same seed start from the same encoder and see the same images in the same order.

    Only the pixels of `train` are read, never its labels. score(trained) returns the values of the training curve,
    every `score_every` epochs and at the end; `score_key` identifies what they depend on, as checkpoints store them.
    """
    accelerator = start(settings.device, settings.precision)
    torch.manual_seed(seed)
    wrapped, step = make_step(accelerator, arm, train.pixels, settings, steps=step_count(len(train), settings))
    network = accelerator.unwrap_model(wrapped)
    torch.manual_seed(seed + 1)
    now = None if score is None else lambda: score(Trained(arm, network, pd.DataFrame()))
    history = fit_arm(
        accelerator, step, arm, train, settings, seed=seed, code=__name__, score=score_key,
        evaluate=scored(len(train), settings, now), checkpoint=checkpoint,
    )  # fmt: skip
    # Unwrapped from the autocast of `prepare`, so that readouts compute in float32.
    network = accelerator.unwrap_model(wrapped, keep_fp32_wrapper=False)
    return Trained(arm, network.eval().cpu(), history)


def make_step(
    accelerator: Accelerator, arm: Arm, pixels: Tensor, settings: Settings, *, steps: int
) -> tuple[nn.Module, Callable[[Tensor], Terms]]:
    """Build the network of an arm and its step(indices of a batch) -> terms, with all state registered for checkpoints.

    pixels: uint8 (N, 3, H, W); steps: of the whole training, for the schedule. The network is wrapped by Accelerate.
    Of several processes, each computes the loss of all their batches together, so that negatives and mean codes are
    those of one process with all images; batch norm uses each process's own.
    """
    if settings.batch_size < 2:
        raise ValueError("negatives come from other images: batch_size must be 2 or more")
    network = Network(build_encoder(settings.encoder, settings.width), arm.shape)
    slow = None
    if arm.queue or arm.loss == "carp":
        # The key encoder: a moving average of all weights, those of the head included (He et al. 2020, eq. 2). Its
        # batch norm uses the statistics of its own batches, as in MoCo.
        slow = MovingAverage(network, arm.momentum).requires_grad_(False).to(accelerator.device)
    queue = Queue(arm.queue, arm.shape).to(accelerator.device) if arm.queue else None
    for part in (slow, queue):
        if part is not None:
            accelerator.register_for_checkpointing(part)
    found = optimizers(network, settings, on_gpu=accelerator.device.type == "cuda")
    schedules = [torch.optim.lr_scheduler.LambdaLR(one, lambda step: rate_factor(step, steps)) for one in found]
    network, *others = prepare(accelerator, network, *found, *schedules)
    found, schedules = others[: len(found)], others[len(found) :]
    if slow is not None:
        slow.to(memory_format=torch.channels_last).train()
    views = Views(pixels.shape[-2:], settings.smallest_crop, settings.hue)
    pixels = pixels.to(accelerator.device)

    both_ways = arm.loss == "carp"

    def update(both: Tensor) -> Terms:
        for optimizer in found:
            optimizer.zero_grad(set_to_none=True)
        with accelerator.autocast():
            if slow is None:
                outputs, keys = network(both).chunk(2)
            else:
                first, second = both.chunk(2)
                # CARP gives each view to the student in turn (Silva & Ramírez Rivera 2023), MoCo only one.
                outputs, asked = (network(both), torch.cat([second, first])) if both_ways else (network(first), second)
                with torch.no_grad():
                    keys = slow(asked)
            if accelerator.num_processes > 1:
                outputs, keys = (torch.cat(all_gather(part)) for part in (outputs, keys))
            terms, keys = objective(arm, outputs, keys, None if queue is None else queue.filled())
        accelerator.backward(sum(terms.values()))
        for optimizer in found:
            optimizer.step()
        if slow is not None:
            slow.update_parameters(accelerator.unwrap_model(network))
        if queue is not None:
            queue.push(keys)
        return terms

    captured = Captured(accelerator, update, found, ready=lambda: queue is None or queue.full)

    def step(index: Tensor) -> Terms:
        terms = captured(torch.cat(views(pixels[index])))
        for schedule in schedules:
            schedule.step()
        return terms

    return network, step


def optimizers(network: nn.Module, settings: Settings, *, on_gpu: bool) -> list[torch.optim.Optimizer]:
    """Return SGD; for "muon", also Muon for matrices and convolutions, at the same learning rate."""
    if settings.optimizer not in ("sgd", "muon"):
        raise ValueError(f"optimizer {settings.optimizer!r} is unknown; choose 'sgd' or 'muon'")
    weights = list(network.parameters())
    decay = {"weight_decay": settings.weight_decay}
    # Fused SGD reads its learning rate from the device, as a CUDA graph requires.
    sgd = partial(torch.optim.SGD, lr=settings.learning_rate, momentum=0.9, fused=on_gpu)
    if settings.optimizer == "sgd":
        return [sgd(weights, **decay)]
    matrices = [weight for weight in weights if weight.ndim > 1]
    return [sgd([weight for weight in weights if weight.ndim < 2]), Muon(matrices, settings.learning_rate, **decay)]


def rate_factor(step: int, steps: int) -> float:
    """Return the learning rate factor at a step of `steps`: linear warm-up over a twentieth, then cosine decay."""
    rise = max(1, steps // 20)
    if step < rise:
        return (step + 1) / rise
    done = (step - rise) / max(1, steps - rise)
    return 0.5 * (1 + torch.cos(torch.tensor(torch.pi * min(1.0, done))).item())


def objective(arm: Arm, outputs: Tensor, keys: Tensor, queue: Tensor | None) -> tuple[Terms, Tensor]:
    """Return the terms to minimise and the keys to push to the queue, in float32 even under autocast.

    outputs, keys: head outputs for two views of the same images, (B, *arm.shape); queue: (n, *arm.shape).
    """
    if not arm.makes_codes:
        keys = nn.functional.normalize(keys.float(), dim=1)
        if arm.loss == "nt_xent":
            return {"loss": baselines.nt_xent(outputs, keys, temperature=arm.temperature)}, keys
        # At the first step the queue is empty, so the keys of the batch itself serve as negatives.
        queue = queue if len(queue) else keys.detach()
        return {"loss": baselines.moco(outputs, keys.detach(), queue, temperature=arm.temperature)}, keys
    p, q = (losses.discretise(part, arm.code, arm.code_temperature) for part in (outputs, keys))
    if arm.loss != "categorical":
        return {"loss": getattr(baselines, arm.loss)(p, q)}, q
    found = losses.categorical_info_nce(p, q, queue, temperature=arm.temperature, similarity=arm.similarity)
    terms = {"loss": found}
    if arm.entropy:
        terms["entropy"] = -arm.entropy * losses.position_entropy(p)
    return terms, q


# Train several arms: label -> Trained, with one checkpoint folder per arm below `checkpoints`.
train_arms = partial(train_each, train_arm)
