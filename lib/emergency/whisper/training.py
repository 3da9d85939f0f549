"""Clips with frame labels and texts, and the training of a Whisper on both."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
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

UNKNOWN = -100  # label of frames that losses and scores ignore
MUON_SHARE = 5.0  # ratio of Muon's learning rate to AdamW's; at equal rates their updates are equally large
SMOOTHED = 0.72  # seconds over which probabilities are averaged; 0.5 to 1 score about the same on validation clips
_KNOTS = 6  # of a random equaliser, equally spaced in mel
_POSITION = RATE // POSITIONS_PER_SECOND  # samples, 20 ms


@dataclass(frozen=True)
class Clips:
    """Spectrograms with labels of clips and of frames, and texts.

    mel: (N, mels, frames) float16. labels: (N,) int64, the classes of whole clips. classes: names of the classes.
    moments: (N, frames / 2) int64, the class at each position of Whisper's encoder (20 ms), or `UNKNOWN`.
    texts: the words spoken in each clip, "" for none; None if the data set has no transcripts.
    name: of the underlying sounds. checksum: of these sounds, their spans and their texts.
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
        """Return the clips selected by a boolean mask; `name` distinguishes the checksums of different parts."""
        texts = self.texts and tuple(text for text, one in zip(self.texts, chosen.tolist(), strict=True) if one)
        return replace(self, mel=self.mel[chosen], labels=self.labels[chosen], moments=self.moments[chosen],
                       texts=texts, checksum=f"{self.checksum}/{name}")  # fmt: skip

    def first(self, count: int) -> "Clips":
        """Return the first `count` clips; 0 for all."""
        if not 0 < count < len(self):
            return self
        return self.part(torch.arange(len(self)) < count, f"first {count}")

    def targets(self, stack: int) -> Tensor:
        """Return the class at the middle of every `stack` positions, (N, moments) int64."""
        return _middles(self.moments, stack)


def _middles(moments: Tensor, stack: int) -> Tensor:
    count = moments.shape[1] // stack
    return moments[:, : count * stack].view(len(moments), count, stack)[:, :, stack // 2]


def label_frames(sounds: Sounds, mels: int = 80) -> Clips:
    """Compute spectrograms of `sounds` with `mels` bands, each clip scaled to the same peak, and label their frames.

    If the data set has onsets and offsets (`spans`), all frames outside them are of class 0, silence. If not, all
    frames have the class of the clip, except digital silence, which is `UNKNOWN`.
    """
    count = sounds.samples.shape[1] // _POSITION  # a position spans two frames; an odd last frame is dropped
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
    """Return the clips, cyclically shifted in time so that the first sound of a class begins at `second` in each.

    Silent clips are not shifted.
    """
    heard = clips.moments > 0
    by = torch.where(heard.any(1), round(second * POSITIONS_PER_SECOND) - heard.int().argmax(1), 0)
    mel, moments = rolled(clips.mel, 2 * by[:, None, None]), rolled(clips.moments, by[:, None])
    return replace(clips, mel=mel, moments=moments, checksum=f"{clips.checksum}/starting at {second:g} s")


# --- Training -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Settings:
    """Settings of a training.

    ratio: weight of the text loss, 1 - ratio being that of the frames: 0 trains a classifier, 1 a transcriber.
    optimizer: "adamw", for a pretrained Whisper, or "muon" (Jordan et al. 2024), which halves the steps from scratch:
        orthogonalised momentum for matrices at `MUON_SHARE` times the learning rate, and AdamW for all other weights.
    shift: whether clips are rolled in time, so that sounds begin anywhere; those with a text are cut only in silence.
    head_rate, trained_rate: learning rates of the head and of the weights from a checkpoint, as shares of
        `learning_rate`. layer_decay: factor of the latter from each encoder layer to the one below (Howard & Ruder
        2018).
    adapters: rank of low-rank adapters (Hu et al. 2022) that are trained instead of a checkpoint's weights (`adapted`),
        at the full `learning_rate`; 0: no adapters.
    equaliser: standard deviation in dB of a random equaliser (`equalised`): other microphones, rooms and distances.
    time_mask, frequency_mask: SpecAugment (Park et al. 2019): largest share of frames and of bands in one mask. Short
        trainings from scratch do better without.
    """

    ratio: float = 0.5
    epochs: int = 10
    batch_size: int = 16
    learning_rate: float = 1e-3  # peak of a one-cycle schedule (Smith & Topin 2018)
    weight_decay: float = 1e-2
    optimizer: str = "adamw"
    head_rate: float = 1.0
    trained_rate: float = 1.0
    layer_decay: float = 1.0
    adapters: int = 0
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
    """Logits of frames, `moments` (N, moments, classes), `smoothed`; logits of clips (N, classes); and transcripts."""

    moments: Tensor = field(repr=False)
    clips: Tensor = field(repr=False)
    texts: tuple[str, ...]


def augment(mel: Tensor, moments: Tensor, said: Tensor, settings: Settings) -> tuple[Tensor, Tensor]:
    """Roll, equalise and mask: mel (B, mels, frames), moments (B, frames / 2) -> the same shapes.

    said: (B,) bool, clips with words: they are cut only where the class is 0, all others anywhere.
    """
    if settings.shift:
        possible = (moments == 0) | ~said[:, None]
        possible[:, 0] |= ~possible.any(1)  # nowhere to cut: not rolled
        cut = torch.multinomial(possible.float(), 1)[:, 0]
        mel, moments = rolled(mel, -2 * cut[:, None, None]), rolled(moments, -cut[:, None])
    if settings.equaliser:
        mel = equalised(mel, settings.equaliser)
    return masked(mel[:, None], settings.time_mask, settings.frequency_mask)[:, 0], moments


def equalised(mel: Tensor, decibels: float) -> Tensor:
    """Return log-mels (B, mels, frames), each clip as if recorded by another microphone.

    The added curve over the bands is linear between `_KNOTS` normally distributed levels with a standard deviation of
    `decibels`. Cells that are then too far below the loudest are clamped, as in `log_mel`.
    """
    levels = torch.randn(len(mel), 1, _KNOTS, device=mel.device) * (decibels / 10 / 4)  # 10 dB: a decade, or 1/4
    mel = mel + F.interpolate(levels, size=mel.shape[1], mode="linear", align_corners=True).mT
    return torch.maximum(mel, mel.amax((1, 2), keepdim=True) - DECADES / 4)


def train(
    model: EmergencyWhisper, clips: Clips, settings: Settings, *, seed: int, checkpoint: Path | None = None,
    name: str = "Whisper",
) -> pd.DataFrame:  # fmt: skip
    """Train `model` jointly on frame labels and texts, resuming from `checkpoint`.

    The loss is (1 - ratio) x cross-entropy of frames + ratio x cross-entropy of text tokens. For clips without words,
    the target is an empty text or no speech (`text_loss`), to avoid hallucinations. At ratio 0 the decoder is not run.

    Returns the history: label_loss and text_loss (weighted) per epoch.

    Raises:
        ValueError: the ratio is above 0, and the clips have no texts.
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

    model.train().whisper.model.encoder.requires_grad_(True)  # with its position embeddings, frozen by transformers
    # The tokens of a pretrained Whisper are tied to its output: training on a few lines would unlearn all others.
    model.whisper.model.decoder.embed_tokens.requires_grad_(model.no_speech is None)
    with adapted(model, settings.adapters, seed=seed):
        return fit_model(
            accelerator, model, _Losses(model, settings.ratio), optimizers(model, settings), losses, clips, settings,
            seed=seed, draws=seed + 1, checkpoint=checkpoint, name=name, code=source_hash(__name__),
        )  # fmt: skip


@contextmanager
def adapted(model: EmergencyWhisper, rank: int, *, seed: int) -> Iterator[None]:
    """Freeze the Whisper of `model` except for adapters of `rank`, which are merged into its weights at the end.

    They adapt the query and value projections of all attention layers, including cross-attention (Hu et al. 2022,
    section 4.2), with scale 2; until trained, they change no output. The head stays trainable. rank 0: no adapters.
    """
    if not rank:
        yield
        return
    from peft import LoraConfig, LoraModel  # imported here, as it takes a second

    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=["q_proj", "v_proj"])
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        adapters = LoraModel(model.whisper, config, "default")
    try:
        yield
    finally:
        adapters.merge_and_unload()
        model.requires_grad_(True)


def fit_model(
    accelerator: Accelerator, model: EmergencyWhisper, network: nn.Module, made: Sequence[torch.optim.Optimizer],
    losses: Callable[[nn.Module, Tensor], dict[str, Tensor]], clips: Clips, settings: Settings, *, seed: int,
    draws: int, checkpoint: Path | None, name: str, code: str,
) -> pd.DataFrame:  # fmt: skip
    """Train `network`, which shares weights with `model`, on shuffled batches of `clips` with one-cycle schedules.

    made: the optimizers. seed: of the batches. draws: seed of dropout and augmentation.
    """
    settings = replace(settings, batch_size=min(settings.batch_size, len(clips)))  # a set may be smaller than a batch
    key = {"model": model.digest(), "settings": asdict(settings), "seed": seed, "train": clips.checksum, "code": code}
    schedules = [one_cycle(one, step_count(len(clips), settings)) for one in made]
    network, *others = prepare(accelerator, network, *made, *schedules)
    torch.manual_seed(draws)  # only now, as `prepare` also draws random numbers
    history = fit(
        accelerator,
        gradient_step(accelerator, network, others[: len(made)], others[len(made) :], losses),
        shuffled(accelerator, len(clips), settings.batch_size, seed),
        epochs=settings.epochs, checkpoint=checkpoint, name=name, key=key,
    )  # fmt: skip
    model.eval().cpu()
    return history


def optimizers(model: EmergencyWhisper, settings: Settings) -> list[torch.optim.Optimizer]:
    """Return AdamW, and for "muon" also Muon, for the matrices between hidden states."""
    learned = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    matrices = {}
    if settings.optimizer == "muon":
        # Muon gets neither embeddings, whose rows are learned independently, nor the last layer of the head.
        last = f"head.{len(model.head) - 1}."
        matrices = {name: weight for name, weight in learned.items()
                    if weight.ndim == 2 and "embed" not in name and not name.startswith(last)}  # fmt: skip
    # Norms and biases are not decayed, as decay would not regularise them.
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
    """Return the share of the learning rate for the weight `name`: `head_rate` for the head, 1 for adapters,
    `trained_rate` for the decoder, and for the encoder `trained_rate` with `layer_decay` from the top of its `layers`
    down to the convolutions."""
    if name.startswith("head.") or ".lora_" in name:
        return settings.head_rate if name.startswith("head.") else 1.0
    parts = name.split(".")
    if "encoder" not in parts or parts[-2] == "layer_norm":
        return settings.trained_rate
    above = layers - 1 - int(parts[parts.index("layers") + 1]) if "layers" in parts else layers
    return settings.trained_rate * settings.layer_decay**above


class _Losses(nn.Module):
    """Both losses in one forward pass, as training on several GPUs requires."""

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
    """Return the mean cross-entropy of `tokens` (from `tokens_of`) after the prompt, up to the first end of text.

    After its first token, a pretrained Whisper predicts the language or no speech; this is trained, too. No speech is
    the only target of clips without words: empty texts in half of the clips would teach it to write nothing.
    """
    tokens = tokens[:, : int((tokens != model.end).sum(1).max()) + 1]  # without the padding that all rows share
    skipped = len(model.prompt) - 1  # the prompt is given, not predicted
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
    """Return the mean over known targets, 0 without any. logits: (B, n, classes). wanted: (B, n)."""
    summed = F.cross_entropy(logits.flatten(0, 1).float(), wanted.flatten(), ignore_index=UNKNOWN, reduction="sum")
    return summed / (wanted != UNKNOWN).sum().clamp_min(1)


@torch.inference_mode()
def predict_frames(model: EmergencyWhisper, mel: Tensor, *, words: bool = True, batch_size: int = 16) -> FrameOutputs:
    """Predict frame logits, clip logits and texts for `mel` (N, mels, frames); each clip is encoded once.

    words: whether to also transcribe the clips for which a class other than silence is predicted.
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
    """Smooth logits (N, moments, classes) of frames of `seconds` each: log of the mean probabilities around each.

    The window is `SMOOTHED`, truncated at the ends. Sounds persist, so predictions that flicker from frame to frame are
    mostly wrong, and split an event into fragments (Cances et al. 2019, Evaluation of post-processing algorithms for
    polyphonic sound event detection, compare smoothing with other methods).
    """
    beside = int(SMOOTHED / seconds / 2 + 1e-6)
    likely = logits.float().softmax(-1).mT
    likely = F.avg_pool1d(likely, 2 * beside + 1, 1, beside, count_include_pad=False)
    return likely.mT.clamp_min(1e-12).log()
