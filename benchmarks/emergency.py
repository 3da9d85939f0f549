"""Study 4: log-mels beside transformers' own, relevance beside a gradient and zennit, clips from the cache.

One thread throughout, batches of 16 clips of 4 seconds. Of transformers there are two figures: its extractor as it is
called, which pads every clip to 30 seconds, and its arithmetic on the 4 seconds alone. zennit is a dependency of the
tests, and is left out where it is missing.
"""

import copy

import numpy as np
import pandas as pd
import torch
from torch import nn
from transformers import WhisperFeatureExtractor

from lib.emergency.cnn.network import build_cnn, variants
from lib.emergency.cnn.relevance import relevance
from lib.emergency.features import RATE, log_mel
from lib.emergency.synthesis.soundscapes import draw_soundscapes
from lib.timing import interleave, ratio

CLIPS, SECONDS, CACHED = 16, 4, 100
MELS_FASTER, GRADIENT_SHARE, ZENNIT_FASTER, CACHE_RATE = 10.0, 1.2, 1.8, 100.0


def mel_tasks() -> dict:
    samples = torch.randn(CLIPS, SECONDS * RATE, generator=torch.Generator().manual_seed(0)) * 0.1
    extractor, arrays = WhisperFeatureExtractor(), [row.numpy() for row in samples]

    padded = [np.pad(row, (0, 30 * RATE - len(row))) for row in arrays]

    def numpy(rows: list) -> list:
        return [extractor._np_extract_fbank_features(row[None], "cpu") for row in rows]

    names = ("log-mel", "transformers' NumPy", "transformers' NumPy, not padded")
    return dict(zip(names, (lambda: log_mel(samples), lambda: numpy(padded), lambda: numpy(arrays)), strict=True))


def relevance_tasks() -> dict:
    torch.manual_seed(0)
    model = build_cnn(variants(32)[0], 20)
    for layer in model:
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.2)
            layer.running_var.uniform_(0.5, 2)
    model.eval().to(memory_format=torch.channels_last)  # as it comes from training
    mel, targets = torch.randn(CLIPS, 1, 80, 100 * SECONDS), torch.arange(CLIPS) % 20

    def gradient() -> torch.Tensor:
        inputs = mel.clone().requires_grad_()
        chosen = model(inputs).gather(1, targets[:, None]).sum()
        return torch.autograd.grad(chosen, inputs)[0]

    return {"relevance": lambda: relevance(model, mel, targets), "gradient": gradient} | _zennit(model, mel, targets)


def _zennit(model: nn.Module, mel: torch.Tensor, targets: torch.Tensor) -> dict:
    try:
        from zennit.attribution import Gradient
        from zennit.composites import EpsilonPlus
        from zennit.torchvision import SequentialMergeBatchNorm
    except ModuleNotFoundError as error:
        print(f"relevance is not compared with zennit: {error}. Install the dev extra, pip install -e .[dev]")
        return {}
    other = copy.deepcopy(model)

    def task() -> torch.Tensor:
        composite = EpsilonPlus(epsilon=1e-6, canonizers=[SequentialMergeBatchNorm()])
        with Gradient(other, composite) as attributor:
            return attributor(mel.clone(), lambda out: nn.functional.one_hot(targets, 20).to(out) * out)[1]

    return {"relevance, zennit": task}


def cache_tasks() -> dict:
    draw_soundscapes(CACHED)  # once, so that they are there
    return {"soundscapes from the cache": lambda: draw_soundscapes(CACHED)}


def measure(rounds: int = 12) -> pd.DataFrame:
    """task, clips, rounds, milliseconds (median, per clip), relative (to the group's first)."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    rows = []
    try:
        for tasks, clips in ((mel_tasks(), CLIPS), (relevance_tasks(), CLIPS), (cache_tasks(), CACHED)):
            seconds = interleave(tasks, rounds=rounds)
            first = next(iter(tasks))
            rows += [
                {
                    "task": name,
                    "clips": clips,
                    "rounds": rounds,
                    "milliseconds": 1000 * seconds[name].median() / clips,
                    "relative": ratio(seconds, name, first),
                }
                for name in tasks
            ]
    finally:
        torch.set_num_threads(threads)
    return pd.DataFrame(rows)


def check(table: pd.DataFrame) -> pd.DataFrame:
    """The targets: what, measured, at_most. Rates and speed-ups are turned into shares."""
    rows = table.set_index("task")
    found = [
        ("log-mel / transformers' NumPy, time", 1 / rows.relative["transformers' NumPy"], 1 / MELS_FASTER),
        ("relevance / gradient, time", 1 / rows.relative["gradient"], GRADIENT_SHARE),
        ("a clip from the cache, ms", rows.milliseconds["soundscapes from the cache"], 1000 / CACHE_RATE),
    ]
    if "relevance, zennit" in rows.index:
        found.insert(2, ("relevance / zennit, time", 1 / rows.relative["relevance, zennit"], 1 / ZENNIT_FASTER))
    return pd.DataFrame(found, columns=["target", "measured", "at_most"])
