"""Reading before listening: what a Whisper from scratch learns from spoken lines, before it hears any emergency.

    learn(model, spoken(4000, seed=0), noise, ReadingSettings(epochs=4), seed=0)

The source's Whisper had heard 680,000 hours of speech (Radford et al. 2023) when its training began. One that meets
words for the first time in clips of emergencies learns their hundred lines by heart and reads no other. So it is
given lines that must be heard: alone at first, then in more and more noise.

The text alone teaches slowly, as nothing says which sound is which letter. Machine speech knows: which phoneme is
said when. So the encoder learns beside the decoder to name the phoneme at every position, by a layer that is dropped
at the end, and the decoder's attention is guided (`guide_loss`) to where the next letter is said.
"""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.emergency.features import FRAMES_PER_SECOND
from lib.emergency.synthesis.spoken import LONGEST, Spoken, mixed
from lib.emergency.whisper.model import EmergencyWhisper
from lib.emergency.whisper.training import Settings, one_cycles, optimizers, text_loss
from lib.sources import source_hash
from lib.training import epoch_batches, fit, gradient_step, prepare, start

LOUDEST, LOWEST = 40.0, 10.0  # dB over the noise: of the first lines, and of the last's least loud
NOISY_AFTER = 2 / 3  # of the training, the lines are as low as they get
WIDTH = 0.08  # of a line, the standard deviation of where attention may go
_WINDOW = round(LONGEST * FRAMES_PER_SECOND)  # frames


@dataclass(frozen=True)
class ReadingSettings:
    """epochs: over all lines. learning_rate: of Muon and AdamW as in `moments.Settings`. phonemes, guide: weights of
    the two losses beside the text's."""

    epochs: int = 4
    batch_size: int = 16
    learning_rate: float = 2e-3
    phonemes: float = 1.0
    guide: float = 1.0
    precision: str = "no"
    device: str = "auto"


def learn(
    model: EmergencyWhisper, lines: Spoken, noise: Tensor, settings: ReadingSettings, *, seed: int,
    checkpoint: Path | None = None,
) -> pd.DataFrame:  # fmt: skip
    """Teach `model` to read `lines`, said somewhere in pieces of `LONGEST` seconds, from anywhere in clips of `noise`
    (N, mels, frames) without words.

    Returns the history: per epoch text_loss, phoneme_loss and guide_loss (weighted).
    """
    accelerator = start(settings.device, settings.precision)
    key = {"model": model.digest(), "settings": asdict(settings), "seed": seed, "lines": lines.checksum,
           "noise": hashlib.sha256(noise.contiguous().numpy().data).hexdigest(),
           "code": source_hash(__name__)}  # fmt: skip
    batch_size = min(settings.batch_size, len(lines))
    steps = len(lines) // batch_size * settings.epochs
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        reader = _Reader(model, lines.kinds, settings)
    how = Settings(learning_rate=settings.learning_rate, optimizer="muon")
    made = optimizers(model, how)
    made[0].add_param_group({"params": list(reader.namer.parameters())})
    network, *others = prepare(accelerator, reader, *made, *one_cycles(made, steps))
    device = accelerator.device
    here, noise, tokens = lines.to(device), noise.to(device), model.tokens_of(lines.texts).to(device)
    length = min(_WINDOW, noise.shape[2])
    torch.manual_seed(seed + 1)
    model.train()

    def batches(epoch: int) -> list[tuple[float, Tensor]]:
        found = epoch_batches(len(lines), batch_size, seed=seed, epoch=epoch,
                              process=accelerator.process_index, processes=accelerator.num_processes)  # fmt: skip
        return [((epoch - 1 + k / len(found)) / settings.epochs, index) for k, index in enumerate(found)]

    def losses(network: nn.Module, batch: tuple[float, Tensor]) -> dict[str, Tensor]:
        done, index = batch
        index = index.to(device)
        least = LOUDEST + (LOWEST - LOUDEST) * min(done / NOISY_AFTER, 1.0)
        decibels = least + (LOUDEST - least) * torch.rand(len(index), device=device)
        first = int(torch.randint((noise.shape[2] - length) // 2 + 1, ()))  # in positions
        around = noise[torch.randint(len(noise), (len(index),), device=device)][:, :, 2 * first : 2 * first + length]
        mel, onsets = mixed(around, here, index, decibels)
        places, said = here.at(index, onsets, length // 2)
        phonemes = torch.where(said, here.phonemes[places], 0)
        progress = torch.where(said, here.progress[places], -1.0)
        return network(mel, first, tokens[index], phonemes, progress)

    history = fit(
        accelerator, gradient_step(accelerator, network, others[: len(made)], others[len(made) :], losses), batches,
        epochs=settings.epochs, checkpoint=checkpoint, key=key, name="reading",
    )  # fmt: skip
    model.eval().cpu()
    return history


class _Reader(nn.Module):
    """The losses in one forward; the layer that names phonemes is not the model's."""

    def __init__(self, model: EmergencyWhisper, kinds: int, settings: ReadingSettings):
        super().__init__()
        self.model, self.settings = model, settings
        self.namer = nn.Linear(model.whisper.config.d_model, kinds)
        self.register_buffer("lengths", token_lengths(model), persistent=False)

    def forward(self, mel: Tensor, first: int, tokens: Tensor, phonemes: Tensor, progress: Tensor) -> dict[str, Tensor]:
        hidden = self.model.encode(mel, first)
        with _attended(self.model) as attention:
            text = text_loss(self.model, hidden, tokens)
        named = F.cross_entropy(self.namer(hidden).flatten(0, 1).float(), phonemes.flatten())
        guide = guide_loss(attention, self.lengths[tokens], progress)
        return {"text_loss": text, "phoneme_loss": self.settings.phonemes * named,
                "guide_loss": self.settings.guide * guide}  # fmt: skip


# --- Guided attention ---------------------------------------------------------------------------


def guide_loss(attention: Sequence[Tensor], lengths: Tensor, progress: Tensor) -> Tensor:
    """How much of the decoder's attention to what is heard goes where a letter is not said, 0 to 1.

    Guided attention (Tachibana et al. 2018), with the times known: a letter half-way through its text is looked for
    where half of the line's phonemes have been said, give or take `WIDTH` of the line. The first layer of several
    looks where the token that it is given is said, the last where the one is that it is asked for: to find the place
    by what was heard there, and from it the next. Layers between them are free.

    attention: per layer (B, heads, tokens, positions), rows that add up to 1. lengths: (B, tokens or more) of the
    tokens in letters, 0 for those that say nothing. progress: (B, positions) as in `Spoken`.
    """
    centres = (lengths.cumsum(1) - lengths / 2) / lengths.sum(1, keepdim=True).clamp_min(1)
    count = attention[0].shape[2]
    given = centres[:, :count], lengths[:, :count] > 0
    asked = centres[:, 1 : count + 1], lengths[:, 1 : count + 1] > 0
    pairs = [(attention[-1], *asked)] + ([(attention[0], *given)] if len(attention) > 1 else [])
    losses = []
    for weights, centre, counts in pairs:
        weights = weights[:, :, : centre.shape[1]]
        far = 1 - torch.exp(-((progress[:, None] - centre[:, :, None]) ** 2) / (2 * WIDTH**2))
        far = torch.where(progress[:, None] < 0, 1.0, far)
        each = (weights * far[:, None]).sum(3).mean(1)  # (B, length)
        losses.append((each * counts).sum() / counts.sum().clamp_min(1))
    return torch.stack(losses).mean()


def token_lengths(model: EmergencyWhisper) -> Tensor:
    """(vocabulary,) float32: how long each token is, in bytes; 0 for the prompt and the end of text."""
    special = set(model.tokenizer.added_tokens_decoder)
    written = model.tokenizer.convert_ids_to_tokens(list(range(len(model.tokenizer))))
    return torch.tensor([0.0 if k in special else float(len(token)) for k, token in enumerate(written)])


@contextmanager
def _attended(model: EmergencyWhisper) -> Iterator[list[Tensor]]:
    """Collects, per layer of the decoder, its attention to the encoder's positions: (B, heads, tokens, positions).

    Computed again from the queries and keys, as the fused attention of torch keeps no weights.
    """
    found: list[Tensor] = []
    queries: list[Tensor] = []
    heads = model.whisper.config.decoder_attention_heads

    def split(values: Tensor) -> Tensor:
        return values.unflatten(2, (heads, -1)).transpose(1, 2).float()

    def asked(_module, _inputs, output: Tensor) -> None:
        queries.append(split(output))

    def answered(_module, _inputs, output: Tensor) -> None:
        query, key = queries.pop(), split(output)
        found.append((query @ key.mT * query.shape[3] ** -0.5).softmax(3))

    hooks = []
    for layer in model.whisper.model.decoder.layers:
        hooks.append(layer.encoder_attn.q_proj.register_forward_hook(asked))
        hooks.append(layer.encoder_attn.k_proj.register_forward_hook(answered))
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()
