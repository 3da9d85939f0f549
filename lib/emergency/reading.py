"""Reading before listening: what a Whisper from scratch learns from spoken lines, before it hears any emergency.

    learn(model, spoken(4000, seed=0), noise, ReadingSettings(epochs=4), seed=0)

The source's Whisper had heard 680,000 hours of speech (Radford et al. 2023) when its training began. One that meets
words for the first time in clips of emergencies learns their hundred lines by heart and reads no other. So it is
given lines that must be heard: alone at first, then in more and more noise.

Its decoder learns beside a second reader that needs no decoder, CTC over letters (Graves et al. 2006) on the same
hidden states, which soon tells the encoder which sound is which letter (Watanabe et al. 2017) and is dropped at the
end.
"""

import hashlib
import unicodedata
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.emergency.moments import Settings, one_cycles, optimizers, text_loss
from lib.emergency.spoken import Spoken, mixed
from lib.emergency.whisper import EmergencyWhisper
from lib.fingerprint import source_hash
from lib.training import epoch_batches, fit, gradient_step, prepare, start

LOUDEST, LOWEST = 40.0, 0.0  # dB over the noise: of the first lines, and of the last's least loud
NOISY_AFTER = 2 / 3  # of the training, the lines are as low as they get


@dataclass(frozen=True)
class ReadingSettings:
    """epochs: over all lines. learning_rate: of Muon and AdamW as in `moments.Settings`. letters: CTC's share of the
    loss, the decoder has the rest."""

    epochs: int = 4
    batch_size: int = 16
    learning_rate: float = 3e-3
    letters: float = 0.3
    precision: str = "no"
    device: str = "auto"


def learn(
    model: EmergencyWhisper, lines: Spoken, noise: Tensor, settings: ReadingSettings, *, seed: int,
    checkpoint: Path | None = None,
) -> pd.DataFrame:  # fmt: skip
    """Teach `model` to read `lines`, said somewhere in clips of `noise` (N, mels, frames) without words.

    Returns the history: per epoch text_loss and letter_loss (weighted).
    """
    accelerator = start(settings.device, settings.precision)
    key = {"model": model.digest(), "settings": asdict(settings), "seed": seed, "lines": lines.checksum,
           "noise": hashlib.sha256(noise.numpy().tobytes()).hexdigest(), "code": source_hash(__name__)}  # fmt: skip
    letters, counts, alphabet = _letters(lines.texts)
    batch_size = min(settings.batch_size, len(lines))
    steps = len(lines) // batch_size * settings.epochs
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        reader = _Reader(model, alphabet, settings.letters)
    how = Settings(learning_rate=settings.learning_rate, optimizer="muon")
    made = optimizers(model, how)
    made[0].add_param_group({"params": list(reader.alphabet.parameters())})
    network, *others = prepare(accelerator, reader, *made, *one_cycles(made, steps))
    device = accelerator.device
    here, noise, tokens = lines.to(device), noise.to(device), model.tokens_of(lines.texts).to(device)
    torch.manual_seed(seed + 1)
    model.train()

    def batches(epoch: int) -> list[tuple[float, Tensor]]:
        found = epoch_batches(len(lines), batch_size, seed=seed, epoch=epoch,
                              process=accelerator.process_index, processes=accelerator.num_processes)  # fmt: skip
        return [((epoch - 1 + k / len(found)) / settings.epochs, index) for k, index in enumerate(found)]

    def losses(network: nn.Module, batch: tuple[float, Tensor]) -> dict[str, Tensor]:
        done, index = batch
        least = LOUDEST + (LOWEST - LOUDEST) * min(done / NOISY_AFTER, 1.0)
        decibels = least + (LOUDEST - least) * torch.rand(len(index), device=device)
        around = noise[torch.randint(len(noise), (len(index),), device=device)]
        mel, _ = mixed(around, here, index.to(device), decibels)
        return network(mel, tokens[index], letters[index].to(device), counts[index])

    history = fit(
        accelerator, gradient_step(accelerator, network, others[: len(made)], others[len(made) :], losses), batches,
        epochs=settings.epochs, checkpoint=checkpoint, key=key, name="reading",
    )  # fmt: skip
    model.eval().cpu()
    return history


def _letters(texts: Sequence[str]) -> tuple[Tensor, Tensor, int]:
    """Without spaces: letters (N, longest) int64 from 1 on, how many there are (N,), and how many kinds with 0."""
    spelled = [unicodedata.normalize("NFD", text.replace(" ", "")) for text in texts]
    number = {letter: k for k, letter in enumerate(sorted(set("".join(spelled))), 1)}
    rows = [torch.tensor([number[letter] for letter in text]) for text in spelled]
    counts = torch.tensor([len(row) for row in rows])
    return nn.utils.rnn.pad_sequence(rows, batch_first=True), counts, len(number) + 1


class _Reader(nn.Module):
    """Both losses in one forward; the layer that CTC reads from is not the model's."""

    def __init__(self, model: EmergencyWhisper, alphabet: int, share: float):
        super().__init__()
        self.model, self.share = model, share
        self.alphabet = nn.Linear(model.whisper.config.d_model, alphabet)

    def forward(self, mel: Tensor, tokens: Tensor, letters: Tensor, counts: Tensor) -> dict[str, Tensor]:
        model = self.model
        hidden = model.encode(mel)
        found = self.alphabet(hidden).float().log_softmax(2).transpose(0, 1)  # (positions, B, letters)
        lengths = torch.full((len(mel),), len(found))
        # A line spoken too fast for its letters has no alignment; it teaches the decoder alone.
        ctc = F.ctc_loss(found, letters, lengths, counts, zero_infinity=True)
        return {"text_loss": (1 - self.share) * text_loss(model, hidden, tokens), "letter_loss": self.share * ctc}
