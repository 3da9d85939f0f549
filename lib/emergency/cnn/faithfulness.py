"""Evaluation of explanations: flipping, randomised networks, and shares on cells with known ground truth."""

import copy
import math

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from scipy.stats import bootstrap, spearmanr
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from lib.emergency.cnn.relevance import explain
from lib.training import predict

TILE = (10, 20)  # mel bands and frames that are flipped together


def flipping(
    model: nn.Module, mel: Tensor, relevance: Tensor, targets: Tensor, *, order: str = "most", steps: int = 20,
    batch_size: int = 64,
) -> Tensor:  # fmt: skip
    """Return the probability of `targets` while tiles are removed in the order of their relevance: (N, steps + 1).

    Region flipping (Samek et al. 2017). In column k, k/steps of the tiles are flipped, none in the first, all in the
    last: each band of a tile gets its lowest value in the clip, as if nothing sounded there. Uses evaluation mode.

    Args:
        mel, relevance: (N, 1, mels, frames).
        order: "most" relevant first, or "least" relevant first.
    """
    # Zeros pad the relevance to whole tiles; they hardly change the order of the means.
    below, right = (-size % part for size, part in zip(mel.shape[2:], TILE, strict=True))
    tiles = F.avg_pool2d(F.pad(relevance.float(), (0, right, 0, below)), TILE)
    # Rank of each tile in the flipping order; the sort is stable, as many tiles may have zero relevance.
    place = tiles.flatten(1).argsort(dim=1, descending=order == "most", stable=True).argsort(1).view(tiles.shape)
    place = place.repeat_interleave(TILE[0], 2).repeat_interleave(TILE[1], 3)[..., : mel.shape[2], : mel.shape[3]]
    device = next(model.parameters()).device
    columns = []
    for step in range(steps + 1):
        gone = place < round(step / steps * tiles[0].numel())
        parts = zip(mel.split(batch_size), gone.split(batch_size), strict=True)
        flipped = (torch.where(hidden, part.float().amin(3, keepdim=True), part.float()) for part, hidden in parts)
        logits = predict(model, (part.to(device) for part in flipped))
        columns.append(logits.softmax(1).cpu().gather(1, targets[:, None])[:, 0])
    return torch.stack(columns, 1)


def randomised(
    model: nn.Sequential, mel: Tensor, targets: Tensor, method: str = "LRP", *, seed: int = 0
) -> pd.DataFrame:
    """Correlate the explanation with that of networks whose layers are re-initialised from the top down.

    Cascading randomisation (Adebayo et al. 2018, Sanity Checks for Saliency Maps), on absolute relevance: the logit of
    a random network is as often negative as positive, and the sign of all relevance changes with it.

    Columns: layers (number of random layers), correlation (Spearman's, mean over clips; NaN if the relevance in the
    random network is zero everywhere).
    """
    first = explain(model, mel, targets, method).abs()
    changed = copy.deepcopy(model)
    learned = [layer for layer in changed.modules() if any(True for _ in layer.parameters(recurse=False))]
    rows = [{"layers": 0, "correlation": 1.0}]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for layer in reversed(learned):
            layer.reset_parameters()
            if isinstance(layer, nn.BatchNorm2d):
                continue  # counts as one layer with the convolution before it
            other = explain(changed, mel, targets, method).abs()
            pairs = zip(first.flatten(1).numpy(), other.flatten(1).numpy(), strict=True)
            each = [spearmanr(a, b).statistic for a, b in pairs if np.ptp(a) and np.ptp(b)]
            rows.append({"layers": len(rows), "correlation": float(np.mean(each)) if each else np.nan})
    return pd.DataFrame(rows)


def shares(relevance: Tensor, energy: np.ndarray) -> dict[str, np.ndarray]:
    """Return shares of relevance, energy, log-energy and area in the cells dominated by each stem, (N, stems) each.

    Log-energy is measured from Whisper's floor, 80 dB below the clip's loudest cell.

    Args:
        relevance: (N, 1, mels, frames); negative relevance counts as zero. If the number of bands differs from that of
            the energy, bands are divided among those of the energy by their overlap on the mel axis.
        energy: (N, stems, bands, cells) power of each stem, as `Soundscapes.energy`. A stem dominates a cell if it has
            more power than all others together; cells that no stem dominates belong to none.
    """
    count, stems, bands, cells = energy.shape
    mels, frames = relevance.shape[2:]
    per_cell = -(-frames // cells)  # the last cell may be cut off
    positive = F.pad(relevance.clamp(min=0).double(), (0, per_cell * cells - frames)).numpy()
    parts = math.lcm(mels, bands)
    positive = positive.repeat(parts // mels, 2) / (parts // mels)
    positive = positive.reshape(count, bands, parts // bands, cells, per_cell).sum((2, 4))
    total = energy.sum(1, keepdims=True)
    dominant = energy > total / 2
    whole = total[:, 0].astype(np.float64)
    loudest = np.maximum(whole.max((1, 2), keepdims=True), 1e-30)

    def share(of: np.ndarray) -> np.ndarray:
        everything = of.sum((1, 2))[:, None]
        part = (of[:, None] * dominant).sum((2, 3))
        return np.divide(part, everything, out=np.zeros_like(part), where=everything > 0)

    return {
        "relevance": share(positive),
        "energy": share(whole),
        "log-energy": share(np.maximum(np.log10(np.maximum(whole / loudest, 1e-30)) + 8, 0)),
        "area": dominant.mean((2, 3)),
    }


def redrawn(model: nn.Module, seed: int) -> nn.Module:
    """Return a copy re-initialised from `seed`: what its explanations share with the model's was not learned."""
    changed = copy.deepcopy(model)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for layer in changed.modules():
            # EmergencyWhisper itself resets the position embeddings of its encoder.
            if hasattr(layer, "reset_parameters") and not isinstance(layer, nn.Embedding):
                layer.reset_parameters()
    return changed


def with_cue(mel: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Plant a shortcut, a faint high tone at a random time in each clip, and return (mel, mask of its cells).

    mel: (N, 1, mels, frames); the boolean mask has the same shape. The tone lies in the upper fifth of the bands, at a
    level halfway between the clip's mean and its loudest cell. It lasts 0.5 s, or half of a clip shorter than 1 s.
    """
    generator = torch.Generator().manual_seed(seed)
    count, _, mels, frames = mel.shape
    low, length = round(0.85 * mels), min(50, frames // 2)
    start = torch.randint(0, frames - length, (count, 1, 1, 1), generator=generator)
    times, bands = torch.arange(frames), torch.arange(mels)[:, None]
    mask = (times >= start) & (times < start + length) & (bands >= low) & (bands < low + 3)
    whole = mel.float()
    level = (whole.mean((2, 3), keepdim=True) + whole.amax((2, 3), keepdim=True)) / 2
    return torch.where(mask, torch.maximum(whole, level), whole).to(mel.dtype), mask


def localisation(relevance: Tensor, mask: Tensor) -> np.ndarray:
    """Return how well relevance locates the cells of `mask`: area under the ROC curve per clip, (N,); 0.5 is chance."""
    pairs = zip(mask.flatten(1).numpy(), relevance.flatten(1).numpy(), strict=True)
    return np.array([roc_auc_score(wanted, found) for wanted, found in pairs])


def interval(values: np.ndarray, *, seed: int = 0) -> tuple[float, float, float]:
    """Return (mean, low, high), a 95 % bootstrap interval (percentile); its ends are NaN for fewer than two values."""
    values = np.asarray(values, np.float64)
    if len(values) < 2:
        return (float(values.mean()) if len(values) else np.nan), np.nan, np.nan
    found = bootstrap((values,), np.mean, n_resamples=2000, method="percentile", rng=np.random.default_rng(seed),
                      batch=200).confidence_interval  # fmt: skip
    return float(values.mean()), float(found.low), float(found.high)
