"""Whisper with an MLP head on the encoder that classifies every frame; the decoder transcribes the speech.

    model = build(lines, classes, WhisperSize())              # from scratch, or
    model = from_checkpoint("openai/whisper-small", classes)  # from a pretrained checkpoint
    last, mixed = model.hidden(mel)                           # one encoder pass for both:
    logits, texts = model.head(mixed), model.transcribe(last)

Whisper (Radford et al. 2023) takes windows of 30 s; padding a window of 4 s with silence would take about ten times the
computation. Here the encoder runs on the unpadded window, with the first rows of its position embeddings.
A model pretrained on 30 s must be fine-tuned on such short windows before its decoder is useful.
"""

import hashlib
import json
import shutil
import unicodedata
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import Tensor, nn
from transformers import WhisperConfig, WhisperForConditionalGeneration, WhisperTokenizer
from transformers.cache_utils import DynamicCache, EncoderDecoderCache
from transformers.models.whisper.modeling_whisper import sinusoids
from transformers.utils import logging

from lib.data.catalog import DataError, data_root, written_by
from lib.emergency.features import FRAMES_PER_SECOND

POSITIONS_PER_SECOND = FRAMES_PER_SECOND // 2  # the encoder's second convolution has stride 2
SHORTEST = 0.2  # seconds: a clip in which no class lasts this long is classified as silence
PROMPT = ("<|startoftranscript|>", "<|ko|>", "<|transcribe|>", "<|notimestamps|>")
_END = "<|endoftext|>"
NO_SPEECH = ("<|nospeech|>", "<|nocaptions|>")  # a pretrained Whisper's token for no speech: newer, older name
REPETITIVE = 2.4  # zlib compression ratio above which a text counts as repetitive (Radford et al. 2023)
ADAPTERS_ALONE = ("it holds adapters of a model, not the model: merge them by peft's merge_and_unload, and save the "
                  "result and its tokenizer by save_pretrained")  # fmt: skip
_PREFIX = "<|startofprev|>"  # required by Whisper's tokenizer; no prompt here contains previous text

logging.disable_progress_bar()  # loading is fast, and the bars would stay in the notebooks


@dataclass(frozen=True)
class WhisperSize:
    """Dimensions of a Whisper trained from scratch; the defaults suit a laptop. Whisper-small has 768, 12, 12, 12."""

    d_model: int = 96
    encoder_layers: int = 3
    decoder_layers: int = 1
    heads: int = 4
    tokens: int = 326  # largest vocabulary of the byte-level BPE: about the 256 bytes and one token for each jamo


class FrameClassifier(nn.Sequential):
    """MLP on `stack` concatenated hidden states: 4 x 768 = 3072 -> 512 -> 20 in the source.

    layers: 0 takes the encoder's output, as in the source. Otherwise, the number of encoder layers: the input is their
    learned weighted mean, each layer-normalised (SUPERB, Yang et al. 2021), as a pretrained Whisper represents sounds
    best in its lower half; and the mean over the window is appended to each frame's states, since the rest of the
    window helps to classify its quiet frames (Whisper-AT, Gong et al. 2023, attends over time instead).
    """

    def __init__(self, d_model: int, classes: int, stack: int = 4, hidden: int = 512, layers: int = 0):
        inputs = (stack + bool(layers)) * d_model
        super().__init__(nn.Linear(inputs, hidden), nn.GELU(), nn.Linear(hidden, classes))
        self.stack = stack
        self.layer_logits = nn.Parameter(torch.zeros(layers)) if layers else None

    def reset_parameters(self) -> None:
        """Reset to equal layer weights; the linear layers have their own `reset_parameters`."""
        if self.layer_logits is not None:
            nn.init.zeros_(self.layer_logits)

    def layer_weights(self, layers: int = 0) -> Tensor:
        """Return the weight of each layer, (layers,), summing to 1; `layers` is needed if only the last one is used."""
        if self.layer_logits is None:
            return F.one_hot(torch.tensor(layers - 1), layers).float()
        return self.layer_logits.softmax(0)

    def mix(self, states: Sequence[Tensor]) -> Tensor:
        """Mix the hidden states of all layers, each (B, n, d_model), the encoder's output last, to the head's input."""
        if self.layer_logits is None:
            return states[-1]
        pairs = zip(self.layer_weights(), states, strict=True)
        return sum(weight * F.layer_norm(one, one.shape[-1:]) for weight, one in pairs)

    def forward(self, hidden: Tensor) -> Tensor:
        """Classify (B, n, d_model) -> (B, n // stack, classes); positions beyond a multiple of `stack` are dropped."""
        count = hidden.shape[1] // self.stack
        frames = hidden[:, : count * self.stack].reshape(len(hidden), count, -1)
        if self.layer_logits is not None:
            frames = torch.cat([frames, hidden.mean(1, keepdim=True).expand(-1, count, -1)], 2)
        return super().forward(frames)


class EmergencyWhisper(nn.Module):
    """A Whisper with its tokenizer and a head that classifies moments, i.e. frames of `stack` encoder positions.

    classes: of the head. If the first is "silence", it is the class of frames without any of the others.
    """

    def __init__(
        self, whisper: WhisperForConditionalGeneration, tokenizer: WhisperTokenizer, classes: Sequence[str],
        *, stack: int = 4, hidden: int = 512, all_layers: bool = False,
    ):  # fmt: skip
        super().__init__()
        self.whisper, self.tokenizer, self.classes = whisper, tokenizer, tuple(classes)
        self.mels: int = whisper.config.num_mel_bins
        # Whether Hangul is spelled in letters (자모, NFD) and not in syllables as in OpenAI's models: a few thousand
        # lines are enough to learn 67 letters, but not 11,172 syllables.
        self.jamo: bool = getattr(whisper.config, "jamo", False)
        self.seconds_per_moment = stack / POSITIONS_PER_SECOND
        layers = whisper.config.encoder_layers if all_layers else 0
        self.head = FrameClassifier(whisper.config.d_model, len(self.classes), stack, hidden, layers)
        self.prompt: list[int] = tokenizer.convert_tokens_to_ids(list(PROMPT))
        self.end: int = tokenizer.convert_tokens_to_ids(_END)
        known = tokenizer.get_vocab()
        self.no_speech: int | None = next((known[token] for token in NO_SPEECH if token in known), None)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Reset the encoder's position embeddings; its layers and the head have their own `reset_parameters`."""
        positions = self.whisper.model.encoder.embed_positions.weight
        positions.copy_(sinusoids(*positions.shape))

    def hidden(self, mel: Tensor) -> tuple[Tensor, Tensor]:
        """Return the encoder's output (B, frames / 2, d_model) for log-mels (B, mels, frames), 100 frames a second, up
        to 30 s, and the head's input of the same shape: that output again, or a weighted mean of all layers.

        In this mean, the encoder's output, i.e. the last layer after the final layer norm, stands for the last layer.
        """
        states = encode(self.whisper.model.encoder, mel)
        return states[-1], self.head.mix(states)

    def forward(self, mel: Tensor) -> Tensor:
        """Classify log-mels (B, mels, frames) -> logits of the head's frames (B, frames / 2 // stack, classes)."""
        return self.head(self.hidden(mel)[1])

    def clip_logits(self, moments: Tensor) -> Tensor:
        """Return the logits of whole clips (B, classes) from those of frames, `moments` (B, moments, classes).

        The logit of a class is the logarithm of its expected duration in seconds, summed over frames. Silence, where
        it is a class, gets the logarithm of `SHORTEST`: a clip is silent if no class lasts that long.
        """
        seconds = moments.float().softmax(-1).sum(1) * self.seconds_per_moment
        if self.classes[0] == "silence":
            seconds = torch.cat([torch.full_like(seconds[:, :1], SHORTEST), seconds[:, 1:]], 1)
        return seconds.clamp_min(1e-6).log()

    def text_logits(self, hidden: Tensor, tokens: Tensor) -> Tensor:
        """Return next-token logits (B, length, vocabulary) for given `tokens` (B, length), as in teacher forcing."""
        states = self.whisper.model.decoder(input_ids=tokens, encoder_hidden_states=hidden, use_cache=False)
        return self.whisper.proj_out(states.last_hidden_state)

    def tokens_of(self, texts: Iterable[str]) -> Tensor:
        """Encode texts as (B, length) int64: prompt, text, end of text; shorter rows are padded with end of text.

        Raises:
            ValueError: a text has more tokens than the decoder has positions.
        """
        spelled = [unicodedata.normalize("NFD" if self.jamo else "NFC", text) for text in texts]
        rows = [[*self.prompt, *self.tokenizer.encode(text, add_special_tokens=False), self.end] for text in spelled]
        longest, most = max(map(len, rows)), self.whisper.config.max_target_positions
        if longest > most:
            text = next(text for text, row in zip(spelled, rows, strict=True) if len(row) == longest)
            raise ValueError(f"a text takes {longest} tokens, and the decoder has {most} positions; shorten it, or "
                             f"start from a pretrained checkpoint, which has more: {text}")  # fmt: skip
        return torch.tensor([row + [self.end] * (longest - len(row)) for row in rows])

    @torch.no_grad()
    def transcribe(self, hidden: Tensor, most: int = 48) -> list[str]:
        """Transcribe by greedy decoding: hidden states (B, n, d_model) -> B texts of up to `most` tokens.

        A text is empty if a pretrained Whisper rates no speech more likely than Korean, or if it is repetitive
        (`REPETITIVE`) and does not end. Keys and values of the hidden states are computed once per clip, those of the
        text once per token.
        """
        most = min(most, self.whisper.config.max_target_positions - len(self.prompt))
        cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        tokens = torch.tensor(self.prompt, device=hidden.device).expand(len(hidden), -1)
        written, ended = [], torch.zeros(len(hidden), dtype=torch.bool, device=hidden.device)
        for _ in range(most):
            states = self.whisper.model.decoder(
                input_ids=tokens, encoder_hidden_states=hidden, past_key_values=cache, use_cache=True
            )
            if self.no_speech is not None and not written:
                first = self.whisper.proj_out(states.last_hidden_state[:, 0])
                ended |= first[:, self.no_speech] > first[:, self.prompt[1]]
            tokens = self.whisper.proj_out(states.last_hidden_state[:, -1:]).argmax(-1)
            ended |= tokens[:, 0] == self.end
            if ended.all():
                break
            written.append(tokens[:, 0].masked_fill(ended, self.end))
        rows = torch.stack(written, 1).tolist() if written else [[]] * len(hidden)
        texts = [unicodedata.normalize("NFC", self.tokenizer.decode(row, skip_special_tokens=True)) for row in rows]
        # A decoder stuck in a loop reaches no end of text; a transcript of "살려주세요", called five times, does.
        return ["" if _repetitive(text) and not over else text.strip()
                for text, over in zip(texts, ended.tolist(), strict=True)]  # fmt: skip

    def save(self, folder: Path) -> None:
        """Write the Whisper in Hugging Face format and the head beside it; `folder` is written whole or not at all."""
        partial = folder.with_name(f"{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        about = {"classes": self.classes, "stack": self.head.stack, "hidden": self.head[0].out_features,
                 "all_layers": self.head.layer_logits is not None}  # fmt: skip
        partial.mkdir(parents=True)
        self.whisper.save_pretrained(partial)
        self.tokenizer.save_pretrained(partial)
        save_file(self.head.state_dict(), partial / "head.safetensors")
        (partial / "head.json").write_text(json.dumps(about, ensure_ascii=False, indent=1), encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)

    def digest(self) -> str:
        """Return the SHA-256 of all weights with their names and shapes; class names and tokenizer are not included."""
        digest = hashlib.sha256()
        for name, value in self.state_dict().items():
            digest.update(f"{name} {tuple(value.shape)}".encode())
            digest.update(value.cpu().contiguous().numpy().data)
        return digest.hexdigest()


def _repetitive(text: str) -> bool:
    plain = text.encode()
    return len(plain) > REPETITIVE * len(zlib.compress(plain))


def load(folder: Path) -> EmergencyWhisper:
    """Load a model written by `EmergencyWhisper.save`, in evaluation mode.

    Raises:
        DataError: the folder is missing or damaged.
    """
    with written_by("04", folder):
        about = json.loads((folder / "head.json").read_text(encoding="utf-8"))
        model = EmergencyWhisper(*_from_pretrained(folder), **about)
        model.head.load_state_dict(load_file(folder / "head.safetensors"))
        return model.eval()


def encode(encoder: nn.Module, mel: Tensor) -> list[Tensor]:
    """Run transformers' WhisperEncoder on windows (B, mels, frames) of up to 30 s, and return the hidden states
    (B, frames / 2, d_model) after each layer, the last one after the final layer norm.

    The results equal those of its `forward`, which only accepts windows of 30 s.
    """
    hidden = F.gelu(encoder.conv2(F.gelu(encoder.conv1(mel)))).mT
    hidden = hidden + encoder.embed_positions.weight[: hidden.shape[1]]
    hidden = F.dropout(hidden, encoder.dropout, encoder.training)
    states = []
    for layer in encoder.layers:
        hidden = layer(hidden, None)
        states.append(hidden)
    return [*states[:-1], encoder.layer_norm(hidden)]


def build(
    lines: Iterable[str], classes: Sequence[str], size: WhisperSize, *, stack: int = 4, hidden: int = 256, seed: int = 0
) -> EmergencyWhisper:
    """Build a randomly initialised Whisper whose tokenizer is trained on the letters (NFD) of `lines`."""
    tokenizer = train_tokenizer((unicodedata.normalize("NFD", line) for line in lines), size.tokens)
    end, start = tokenizer.convert_tokens_to_ids([_END, PROMPT[0]])
    config = WhisperConfig(
        vocab_size=len(tokenizer), d_model=size.d_model, encoder_layers=size.encoder_layers,
        decoder_layers=size.decoder_layers, encoder_attention_heads=size.heads, decoder_attention_heads=size.heads,
        encoder_ffn_dim=4 * size.d_model, decoder_ffn_dim=4 * size.d_model, max_target_positions=64,
        pad_token_id=end, bos_token_id=end, eos_token_id=end, decoder_start_token_id=start,
        suppress_tokens=None, begin_suppress_tokens=None, jamo=True,
        init_std=size.d_model**-0.5,  # 0.02 suits large models; in a small one, positions would dominate
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        whisper = WhisperForConditionalGeneration(config)
        return EmergencyWhisper(whisper, tokenizer, classes, stack=stack, hidden=hidden)


def from_checkpoint(
    name: str | Path, classes: Sequence[str], *, stack: int = 4, hidden: int = 512, seed: int = 0
) -> EmergencyWhisper:
    """Load a Whisper from the model hub ("openai/whisper-small") or from a folder in its format, with a new head.

    name: a folder, one below $DATA_ROOT, or a name on the hub ("whisper-base" is openai's), tried in this order.

    Raises:
        DataError: it is found in none of these places, or is not a complete multilingual Whisper.
    """
    folder = next((path for path in (Path(name).expanduser(), data_root() / name) if path.is_dir()), None)
    if folder is None and "/" not in str(name):
        name = f"openai/{name}"  # so that one name works both with a folder and with the hub
    try:
        whisper, tokenizer = _from_pretrained(folder or name)
    except Exception as error:  # no network, no such model, a damaged file: each raises a different type
        below = sorted(path.parent.name for path in folder.glob("*/config.json")) if folder else []
        hint = f"It holds the folders of models {', '.join(below)}: name one of them. " if below else ""
        raise DataError(
            f"The Whisper checkpoint {str(name)!r} could not be loaded ({error}). {hint}Give a folder with a "
            "multilingual Whisper and its tokenizer, as save_pretrained writes them, or, where there is a network, a "
            'name ("openai/whisper-small").'
        ) from error
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return EmergencyWhisper(whisper, tokenizer, classes, stack=stack, hidden=hidden, all_layers=True)


def _from_pretrained(name: str | Path) -> tuple[WhisperForConditionalGeneration, WhisperTokenizer]:
    """Load both; reject missing weights, which transformers would draw at random, and missing tokens."""
    if (Path(name) / "adapter_config.json").is_file():
        raise ValueError(ADAPTERS_ALONE)
    whisper, report = WhisperForConditionalGeneration.from_pretrained(
        name, dtype=torch.float32, output_loading_info=True
    )
    if getattr(whisper, "_hf_peft_config_loaded", False):  # adapters on the hub, loaded by transformers
        raise ValueError(ADAPTERS_ALONE)
    missing = sorted(set(report["missing_keys"]) - {"proj_out.weight"})  # tied to the embedding
    if faulty := missing or [str(key) for key in report["mismatched_keys"]]:
        raise ValueError(f"{len(faulty)} weights are missing or of another shape: {faulty[0]}, …")
    tokenizer = WhisperTokenizer.from_pretrained(name)
    if unknown := {_END, *PROMPT} - tokenizer.get_vocab().keys():
        what = ", ".join(sorted(unknown))
        raise ValueError(f"its tokenizer has no {what}: its files are missing, or its model is for English alone (.en)")
    return whisper, tokenizer


def train_tokenizer(lines: Iterable[str], tokens: int) -> WhisperTokenizer:
    """Train a byte-level BPE of up to `tokens` tokens on `lines`, and add Whisper's special tokens."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())  # every byte: any text can be written
    bpe.train_from_iterator(
        sorted(set(lines)), trainers.BpeTrainer(vocab_size=tokens, initial_alphabet=alphabet, show_progress=False)
    )
    learned = json.loads(bpe.to_str())["model"]
    tokenizer = WhisperTokenizer(vocab=learned["vocab"], merges=[tuple(pair) for pair in learned["merges"]])
    tokenizer.add_tokens([_END, *PROMPT, _PREFIX], special_tokens=True)
    return tokenizer
