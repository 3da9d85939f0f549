"""Training of a head on a frozen encoder, whose hidden states are computed once and cached on disk.

The head is trained before the encoder is fine-tuned: gradients through a randomly initialised head would distort the
pretrained features, and the model would generalise worse under distribution shift (Kumar et al. 2022, Fine-Tuning can
Distort Pretrained Features and Underperform Out-of-Distribution). With cached states this takes minutes.
"""

import hashlib
import inspect
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn
from tqdm.auto import tqdm

from lib.data import cache
from lib.data.catalog import DataError
from lib.emergency.whisper.model import EmergencyWhisper, encode
from lib.emergency.whisper.training import Clips, Settings, _cross_entropy, fit_model
from lib.metrics.classification import percent
from lib.sources import normalised, source_hash
from lib.training import start

LAYERS_RATE = 10  # learning rate of the head's layer weights, as a multiple of that of its MLP


def hidden_states(model: EmergencyWhisper, clips: Clips, *, precision: str = "no", device: str = "auto") -> np.ndarray:
    """Return the hidden states from `encode` of every clip: (N, layers, frames / 2, d_model) float16, memory-mapped.

    They are cached in `build/cache/hidden`, keyed by the encoder's weights, the clips, the precision and the code of
    `encode`.

    Raises:
        DataError: there is not enough space left on the disk.
    """
    encoder = model.whisper.model.encoder
    digest = hashlib.sha256(f"{clips.checksum} {precision} {normalised(inspect.getsource(encode))}".encode())
    for value in encoder.state_dict().values():
        digest.update(value.cpu().contiguous().numpy().data)
    path = cache.folder("hidden") / f"{digest.hexdigest()[:32]}.npy"
    if not path.exists():
        shape = (len(clips), len(encoder.layers), -(-clips.mel.shape[2] // 2), encoder.config.d_model)
        path.parent.mkdir(parents=True, exist_ok=True)
        size, free = 2 * np.prod(shape) / 1e9, shutil.disk_usage(path.parent).free / 1e9
        if size > free:
            raise DataError(
                f"The hidden states of {len(clips):,} clips take {size:.1f} GB, and {path.parent} has {free:.1f} GB "
                "left. Free some, set OUTPUT_ROOT to a folder that has it, or take fewer clips (train_count)."
            )
        accelerator = start(device, precision)
        encoder = accelerator.prepare_model(encoder.eval(), evaluation_mode=True)
        with cache.atomic(path) as temporary:
            found = np.lib.format.open_memmap(temporary, "w+", np.float16, shape)
            batches = tqdm(range(0, len(clips), 16), desc=f"hidden states, {size:.1f} GB", leave=False)
            with torch.inference_mode(), accelerator.autocast():
                for begin in batches:
                    mel = clips.mel[begin : begin + 16].to(accelerator.device).float()
                    found[begin : begin + 16] = torch.stack(encode(encoder, mel), 1).half().cpu().numpy()
            found.flush()
            del found
        model.cpu()
    return np.load(path, mmap_mode="r")


def train_head(
    model: EmergencyWhisper, clips: Clips, settings: Settings, *, seed: int, checkpoint: Path | None = None,
    chosen: Tensor | None = None,
) -> pd.DataFrame:  # fmt: skip
    """Train the head alone, without augmentation, and return the history: label_loss per epoch.

    chosen: mask of the clips to train on, (N,) bool, None for all. The hidden states of all clips are cached.
    """
    states = hidden_states(model, clips, precision=settings.precision, device=settings.device)
    accelerator, places = start(settings.device, settings.precision), torch.arange(len(clips))
    if chosen is not None:
        clips, places = clips.part(chosen, hashlib.sha256(chosen.numpy().data).hexdigest()[:16]), places[chosen]
    targets = clips.targets(model.head.stack)
    mlp = [weight for name, weight in model.head.named_parameters() if name != "layer_logits"]
    groups: list[dict] = [{"params": mlp, "weight_decay": settings.weight_decay}]
    if model.head.layer_logits is not None:  # at the MLP's rate, Adam could not move them far in so few steps
        groups.append(
            {"params": [model.head.layer_logits], "lr": LAYERS_RATE * settings.learning_rate, "weight_decay": 0}
        )
    optimizer = torch.optim.AdamW(groups, settings.learning_rate)

    def losses(network: nn.Module, index: Tensor) -> dict[str, Tensor]:
        index = index.cpu().sort().values
        batch = torch.from_numpy(states[places[index].numpy()]).to(accelerator.device).float()
        logits = network(model.head.mix(batch.unbind(1)))
        return {"label_loss": _cross_entropy(logits, targets[index].to(accelerator.device))}

    network = nn.Sequential(model.head)  # so that `prepare` adds autocast to this forward, not to the head's own
    return fit_model(accelerator, model, network, [optimizer], losses, clips, settings, seed=seed, draws=seed,
                     checkpoint=checkpoint, name="head", code=source_hash(__name__))  # fmt: skip


def pooled(states: np.ndarray) -> np.ndarray:
    """Return mean and standard deviation over time of `hidden_states`: (N, layers, 2 d_model) float32."""
    parts = (torch.from_numpy(states[k : k + 64].astype(np.float32)) for k in range(0, len(states), 64))
    return torch.cat([torch.cat([part.mean(2), part.std(2)], 2) for part in parts]).numpy()


def linear_probe(strength: float = 0.01) -> Pipeline:
    """Return a logistic regression on standardised features; `strength` is the inverse of its L2 penalty."""
    return make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=1000))


def layer_table(model: EmergencyWhisper, clips: Clips, test: Clips, *, seed: int, **where: str) -> pd.DataFrame:
    """Return fig418: accuracy of a linear probe on each layer, from the mean and standard deviation over time.

    Columns: layer (1 is the first; the last is the encoder's output), weight (%, of the layer in the head), seed,
    clips, accuracy (%, of clips) with low and high (Wilson, 95 %).
    """
    features = [pooled(hidden_states(model, some, **where)) for some in (clips, test)]
    rows, weights = [], model.head.layer_weights(features[0].shape[1])
    for layer, weight in enumerate(weights.tolist()):
        probe = linear_probe().fit(features[0][:, layer], clips.labels.numpy())
        right = probe.predict(features[1][:, layer]) == test.labels.numpy()
        shares = zip(("accuracy", "low", "high"), percent(int(right.sum()), len(right)), strict=True)
        rows.append({"layer": layer + 1, "weight": 100 * weight, "seed": seed, "clips": len(right), **dict(shares)})
    return pd.DataFrame(rows)
