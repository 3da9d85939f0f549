"""Clips with a class for every frame and their text, and the training of a Whisper on both."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import pandas as pd
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor, nn

from lib.data.audio import Sounds
from lib.emergency.features import DECADES, RATE, log_mel, masked, rolled, scaled
from lib.emergency.whisper.model import POSITIONS_PER_SECOND, EmergencyWhisper
from lib.muon import Muon
from lib.sources import source_hash
from lib.training import fit, gradient_step, one_cycle, prepare, shuffled, start, step_count

UNKNOWN = -100  # of a moment: not learned from and not counted
MUON_SHARE = 5.0  # of AdamW's learning rate, with updates as large as AdamW's
SMOOTHED = 0.72  # seconds over which probabilities are averaged; validation clips give about the same from 0.5 to 1
_KNOTS = 6  # of a random equaliser, at equal distances in mel
_POSITION = RATE // POSITIONS_PER_SECOND  # samples, 20 ms


@dataclass(frozen=True)
class Clips:
    """Spectrograms with labels of clips and of frames, and what is said.

    mel: (N, mels, frames) float16. labels: (N,) int64, the classes of whole clips. classes: their names.
    moments: (N, frames / 2) int64, the class at each position of Whisper's encoder (20 ms), or `UNKNOWN`.
    texts: what is said in each clip, "" for nothing; None where the data set does not know.
    name, checksum: of the sounds behind them, of their times and of their words.
    """

    mel: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    moments: Tensor
    texts: tuple[str, ...] | None
    name: str
    checksum: str

    def __len__(self) -> int:
        return len(self.labels)

    def part(self, chosen: Tensor, name: str) -> "Clips":
        """The clips at a boolean mask; `name` tells this part from others of the same sounds."""
        texts = self.texts and tuple(text for text, one in zip(self.texts, chosen.tolist(), strict=True) if one)
        return replace(self, mel=self.mel[chosen], labels=self.labels[chosen], moments=self.moments[chosen],
                       texts=texts, checksum=f"{self.checksum}/{name}")  # fmt: skip

    def first(self, count: int) -> "Clips":
        """The first `count` clips; all of them for 0."""
        if not 0 < count < len(self):
            return self
        return self.part(torch.arange(len(self)) < count, f"first {count}")

    def targets(self, stack: int) -> Tensor:
        """(N, moments) int64: of each `stack` positions the class in their middle."""
        return _middles(self.moments, stack)


def _middles(moments: Tensor, stack: int) -> Tensor:
    count = moments.shape[1] // stack
    return moments[:, : count * stack].view(len(moments), count, stack)[:, :, stack // 2]


def label_frames(sounds: Sounds, mels: int = 80) -> Clips:
    """Spectrograms of `sounds` in so many bands, each scaled to the same peak, and their moments.

    Where the data set has the times of its classes (`spans`), all other frames are of class 0, silence. Where it
    does not, every moment is of the clip's class but digital silence, which is `UNKNOWN`.
    """
    count = sounds.samples.shape[1] // _POSITION  # two frames make a position; a last odd frame makes none
    mel = torch.empty(len(sounds), mels, 2 * count, dtype=torch.float16)
    for place, batch in zip(mel.split(16), sounds.samples.split(16), strict=True):
        place.copy_(log_mel(scaled(batch), mels)[:, :, : 2 * count])
    if sounds.spans is None:
        loud = sounds.samples[:, : count * _POSITION].view(len(sounds), count, _POSITION).bool().any(2)
        moments = torch.where(loud, sounds.labels[:, None], UNKNOWN)
    else:
        moments = torch.zeros(len(sounds), count, dtype=torch.long)
        for row, label, spans in zip(moments, sounds.labels.tolist(), sounds.spans, strict=True):
            for onset, offset in spans:
                row[round(onset * POSITIONS_PER_SECOND) : round(offset * POSITIONS_PER_SECOND)] = label
    known = hashlib.sha256(repr((sounds.spans, sounds.texts)).encode()).hexdigest()
    return Clips(mel, sounds.labels, sounds.classes, moments, sounds.texts, sounds.name, f"{sounds.checksum}/{known}")


def starting_at(clips: Clips, second: float) -> Clips:
    """The same clips turned round in time, so that in each the first sound of a class begins at `second`.

    Silent clips stay as they are.
    """
    heard = (clips.moments != 0) & (clips.moments != UNKNOWN)
    first = torch.where(heard.any(1), heard.int().argmax(1), 0)
    by = torch.where(heard.any(1), round(second * POSITIONS_PER_SECOND) - first, 0)
    mel, moments = rolled(clips.mel, 2 * by[:, None, None]), rolled(clips.moments, by[:, None])
    return replace(clips, mel=mel, moments=moments, checksum=f"{clips.checksum}/starting at {second:g} s")


# --- Training -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Settings:
    """ratio: of the text's loss; the moments' loss gets the rest. 0 is a classifier, 1 a transcriber.

    optimizer: "adamw", for a trained Whisper, or "muon" (Jordan et al. 2024), which takes a fresh one as far in half
        the steps: matrices are updated by their orthogonalised momentum, at `MUON_SHARE` times the learning rate, and
        all else by AdamW.
    shift: clips are rolled in time, cut in silence, so that sounds begin anywhere.
    trained_rate, layer_decay: learning rate of weights that a checkpoint brought, as a share of that of new ones, and
        by how much it falls from each layer of the encoder to the one below (Howard & Ruder 2018).
    equaliser: dB, the standard deviation of a random equaliser (`equalised`): other microphones, rooms and distances.
    time_mask, frequency_mask: SpecAugment (Park et al. 2019), the largest share of frames and of bands that one mask
        hides. A short training from scratch does better without.
    """

    ratio: float = 0.5
    epochs: int = 10
    batch_size: int = 16
    learning_rate: float = 1e-3  # peak of a one-cycle schedule (Smith & Topin 2018)
    weight_decay: float = 1e-2
    optimizer: str = "adamw"
    trained_rate: float = 1.0
    layer_decay: float = 1.0
    shift: bool = True
    equaliser: float = 0.0
    time_mask: float = 0.1
    frequency_mask: float = 0.2
    precision: str = "no"
    device: str = "auto"

    def __post_init__(self):
        if not 0 <= self.ratio <= 1:
            raise ValueError(f"ratio is {self.ratio}, expected 0 (moments alone) to 1 (text alone)")


@dataclass(frozen=True)
class FrameOutputs:
    """Logits of frames (N, moments, classes), `smoothed`; of clips (N, classes); and text."""

    moments: Tensor = field(repr=False)
    clips: Tensor = field(repr=False)
    texts: tuple[str, ...]


def augment(mel: Tensor, moments: Tensor, said: Tensor, settings: Settings) -> tuple[Tensor, Tensor]:
    """Turn, equalise and mask: mel (B, mels, frames), moments (B, frames / 2) -> the same shapes.

    said: (B,) bool, clips with words, which are cut only where class 0 is; others are cut anywhere.
    """
    if settings.shift:
        possible = (moments == 0) | ~said[:, None]
        possible[:, 0] |= ~possible.any(1)  # nowhere to cut: stays
        cut = torch.multinomial(possible.float(), 1)[:, 0]
        mel, moments = rolled(mel, -2 * cut[:, None, None]), rolled(moments, -cut[:, None])
    if settings.equaliser:
        mel = equalised(mel, settings.equaliser)
    return masked(mel[:, None], settings.time_mask, settings.frequency_mask)[:, 0], moments


def equalised(mel: Tensor, decibels: float) -> Tensor:
    """Log-mels (B, mels, frames), each as if recorded by another microphone.

    A curve over the bands is added, straight between `_KNOTS` normal random levels of that standard deviation, and what
    is then too far below the loudest cell is clamped, as `log_mel` does.
    """
    levels = torch.randn(len(mel), 1, _KNOTS, device=mel.device) * (decibels / 10 / 4)  # 10 dB are a decade, 1/4
    mel = mel + F.interpolate(levels, size=mel.shape[1], mode="linear", align_corners=True).mT
    return torch.maximum(mel, mel.amax((1, 2), keepdim=True) - DECADES / 4)


def train(
    model: EmergencyWhisper, clips: Clips, settings: Settings, *, seed: int, checkpoint: Path | None = None,
    name: str = "Whisper",
) -> pd.DataFrame:  # fmt: skip
    """Train `model` on classes of frames and words together; it goes on from `checkpoint`.

    The loss is (1 - ratio) x cross-entropy of frames + ratio x cross-entropy of the text's tokens. Clips without
    words count as those with an empty text, so that the decoder invents none. At ratio 0 the decoder is not run.

    Returns the history: per epoch label_loss and text_loss (weighted).

    Raises:
        ValueError: the ratio asks for texts, and the clips have none.
    """
    if settings.ratio and clips.texts is None:
        raise ValueError(f"{clips.name} has no texts: nothing can be learned from them; set the ratio to 0")
    accelerator = start(settings.device, settings.precision)
    mel, moments = clips.mel.to(accelerator.device), clips.moments.to(accelerator.device)
    texts = clips.texts if settings.ratio else ("",) * len(clips)
    tokens = model.tokens_of(texts).to(accelerator.device)
    said = torch.tensor([bool(text) for text in texts], device=accelerator.device)

    def losses(network: nn.Module, index: Tensor) -> dict[str, Tensor]:
        inputs, wanted = augment(mel[index].float(), moments[index], said[index], settings)
        return network(inputs, wanted, tokens[index])

    model.train().whisper.model.encoder.requires_grad_(True)  # its positions as well, which transformers freezes
    return fit_model(
        accelerator, model, _Losses(model, settings.ratio), optimizers(model, settings), losses, clips, settings,
        seed=seed, draws=seed + 1, checkpoint=checkpoint, name=name, code=source_hash(__name__),
    )  # fmt: skip


def fit_model(
    accelerator: Accelerator, model: EmergencyWhisper, network: nn.Module, made: Sequence[torch.optim.Optimizer],
    losses: Callable[[nn.Module, Tensor], dict[str, Tensor]], clips: Clips, settings: Settings, *, seed: int,
    draws: int, checkpoint: Path | None, name: str, code: str,
) -> pd.DataFrame:  # fmt: skip
    """`fit` the `network` within `model` on shuffled batches of `clips`, each optimizer with a one-cycle schedule.

    seed: of the batches. draws: of dropout and augmentation.
    """
    settings = replace(settings, batch_size=min(settings.batch_size, len(clips)))  # somebody's first few recordings
    key = {"model": model.digest(), "settings": asdict(settings), "seed": seed, "train": clips.checksum, "code": code}
    schedules = [one_cycle(one, step_count(len(clips), settings)) for one in made]
    network, *others = prepare(accelerator, network, *made, *schedules)
    torch.manual_seed(draws)  # here: to prepare a network draws, too
    history = fit(
        accelerator,
        gradient_step(accelerator, network, others[: len(made)], others[len(made) :], losses),
        shuffled(accelerator, len(clips), settings.batch_size, seed),
        epochs=settings.epochs, checkpoint=checkpoint, name=name, key=key,
    )  # fmt: skip
    model.eval().cpu()
    return history


def optimizers(model: EmergencyWhisper, settings: Settings) -> list[torch.optim.Optimizer]:
    """AdamW, and with "muon" that for the matrices between hidden states as well."""
    learned = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    matrices = {}
    if settings.optimizer == "muon":
        # Not the tables of tokens and positions, whose rows are learned one by one, nor the last layer of the head.
        last = f"head.{len(model.head) - 1}."
        matrices = {name: weight for name, weight in learned.items()
                    if weight.ndim == 2 and "embed" not in name and not name.startswith(last)}  # fmt: skip
    # Norms, biases and tables of positions are not decayed: decay says nothing about them.
    groups: dict[tuple[float, float], list[Tensor]] = {}
    layers = model.whisper.config.encoder_layers
    for name, weight in learned.items():
        if name not in matrices:
            rate, decay = rate_share(name, layers, settings), settings.weight_decay if weight.ndim > 1 else 0.0
            groups.setdefault((settings.learning_rate * rate, decay), []).append(weight)
    found: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(
            [{"params": weights, "lr": rate, "weight_decay": decay} for (rate, decay), weights in groups.items()],
            betas=(0.9, 0.98), fused=True,
        )
    ]  # fmt: skip
    if matrices:
        found.append(Muon(list(matrices.values()), MUON_SHARE * settings.learning_rate,
                          weight_decay=settings.weight_decay))  # fmt: skip
    return found


def rate_share(name: str, layers: int, settings: Settings) -> float:
    """Of the learning rate, for the weight `name`: all for the head, `trained_rate` for the decoder, and down to the
    spectrogram less and less for the encoder's `layers`."""
    if name.startswith("head."):
        return 1.0
    parts = name.split(".")
    if "encoder" not in parts or parts[-2] == "layer_norm":
        return settings.trained_rate
    above = layers - 1 - int(parts[parts.index("layers") + 1]) if "layers" in parts else layers
    return settings.trained_rate * settings.layer_decay**above


class _Losses(nn.Module):
    """Both losses in one forward, as several GPUs need it."""

    def __init__(self, model: EmergencyWhisper, ratio: float):
        super().__init__()
        self.model, self.ratio = model, ratio

    def forward(self, mel: Tensor, moments: Tensor, tokens: Tensor) -> dict[str, Tensor]:
        model, terms = self.model, {}
        hidden, mixed = model.hidden(mel)
        if self.ratio < 1:
            logits = model.head(mixed)
            terms["label_loss"] = (1 - self.ratio) * _cross_entropy(logits, _middles(moments, model.head.stack))
        if self.ratio > 0:
            terms["text_loss"] = self.ratio * text_loss(model, hidden, tokens)
        return terms


def text_loss(model: EmergencyWhisper, hidden: Tensor, tokens: Tensor) -> Tensor:
    """Mean cross-entropy of the tokens that follow the prompt, up to the first end of text; tokens as `tokens_of`'s.

    A trained Whisper says after its first token which language is spoken, or that none is. There clips without words
    are learned from, and nowhere else: an empty text for half of the clips would teach it to write nothing.
    """
    tokens = tokens[:, : int((tokens != model.end).sum(1).max()) + 1]  # what all rows end in is not computed
    skipped = len(model.prompt) - 1  # the prompt is given, not learned
    wanted = tokens[:, 1:].clone()
    wanted[tokens[:, :-1] == model.end] = UNKNOWN  # one end of text is enough
    first = skipped
    if model.no_speech is not None:
        wordless = tokens[:, skipped + 1] == model.end
        wanted[:, 1:skipped] = UNKNOWN
        wanted[wordless] = UNKNOWN
        wanted[wordless, 0] = model.no_speech
        first = 0
    logits = model.text_logits(hidden, tokens[:, :-1])[:, first:]
    return _cross_entropy(logits, wanted[:, first:])


def _cross_entropy(logits: Tensor, wanted: Tensor) -> Tensor:
    """Mean over all that is known, 0 if nothing is; logits (B, n, classes), wanted (B, n)."""
    summed = F.cross_entropy(logits.flatten(0, 1).float(), wanted.flatten(), ignore_index=UNKNOWN, reduction="sum")
    return summed / (wanted != UNKNOWN).sum().clamp_min(1)


@torch.inference_mode()
def predict_frames(model: EmergencyWhisper, mel: Tensor, *, words: bool = True, batch_size: int = 16) -> FrameOutputs:
    """Classes of frames and of clips, and text, of `mel` (N, mels, frames); each clip is encoded once.

    words: also what is said, in clips in which any class but silence is predicted.
    """
    model.eval()
    device = next(model.parameters()).device
    moments, clips, texts = [], [], []
    for batch in mel.split(batch_size):
        hidden, mixed = model.hidden(batch.to(device).float())
        logits = model.head(mixed)
        scores = model.clip_logits(logits)
        moments.append(smoothed(logits, model.seconds_per_moment).cpu())
        clips.append(scores.cpu())
        said = [""] * len(batch)
        if words:
            loud = scores.argmax(1) != 0 if model.classes[0] == "silence" else torch.ones(len(batch)).bool()
            places = loud.nonzero()[:, 0].tolist()
            for place, text in zip(places, model.transcribe(hidden[loud]) if places else [], strict=True):
                said[place] = text
        texts += said
    return FrameOutputs(torch.cat(moments), torch.cat(clips), tuple(texts))


def smoothed(logits: Tensor, seconds: float) -> Tensor:
    """Moments (N, moments, classes) of `seconds` each -> the same shape: log of the mean probabilities around each.

    Over `SMOOTHED`, or what there is of it at the ends. Sounds last: an answer that changes from moment to moment is
    mostly wrong, and breaks an event into pieces (Cances et al. 2019, Evaluation of post-processing algorithms for
    polyphonic sound event detection, compare smoothing with other ways).
    """
    beside = int(SMOOTHED / seconds / 2 + 1e-6)
    likely = logits.float().softmax(-1).mT
    likely = F.avg_pool1d(likely, 2 * beside + 1, 1, beside, count_include_pad=False)
    return likely.mT.clamp_min(1e-12).log()
