"""Korean lines to read, and mixing them into clips: for a Whisper that has never heard a word.

    lines = spoken(4000, seed=0)
    mel, onsets = mixed(clips, lines, index, decibels)

They cannot be guessed and must be heard: words in any order, and syllables that are no words. Like all that is built
in they are machine speech (see `speech`), and say nothing of how well real Korean is read.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from lib.emergency.events import RATE, Draw
from lib.emergency.features import DECADES, FRAMES_PER_SECOND, SMALLEST, log_mel, scaled
from lib.emergency.lines import LINES, lines
from lib.emergency.soundscapes import draw_room, heard, microphone
from lib.emergency.speech import speak, speech_bank
from lib.fingerprint import source_hash

WORDS = 3  # of a line, at most
LONGEST = 2.4  # seconds
_KNOWN = 0.6  # of the words are words
_TAIL = 0.15  # seconds that a room may go on sounding after a line
_HEARD = 0.001  # a line is heard while its power is above this share of its maximum


@dataclass(frozen=True)
class Spoken:
    """Lines, each spoken alone.

    rows: (all frames, mels) float16, log-mel of one line after the other. starts, frames: (N,) int64, where in `rows`
    each begins and how many of its rows there are. texts: what is said. checksum: of all of it.
    """

    rows: Tensor
    starts: Tensor
    frames: Tensor
    texts: tuple[str, ...]
    checksum: str

    def __len__(self) -> int:
        return len(self.texts)

    def to(self, device: torch.device) -> "Spoken":
        return replace(self, rows=self.rows.to(device), starts=self.starts.to(device), frames=self.frames.to(device))


def lines_to_read(count: int, *, seed: int) -> tuple[str, ...]:
    """`count` different lines of one to three words, none of which is said in the test.

    A word is one of the lines of the training, or one to three syllables whose letters are as frequent as there.
    """
    said = [line for number in LINES for line in lines(number, "train")]
    held_out = {line for number in LINES for line in lines(number, "test")}
    words = sorted({word for line in said for word in line.split()})
    syllables = [ord(letter) - ord("가") for line in said for letter in line if "가" <= letter <= "힣"]
    # A syllable's number in Unicode is (initial x 21 + vowel) x 28 + final.
    initials, vowels, finals = np.array([(one // 588, one // 28 % 21, one % 28) for one in syllables]).T
    draw = np.random.default_rng(seed)

    def word() -> str:
        if draw.random() < _KNOWN:
            return words[draw.integers(len(words))]
        parts = [[draw.choice(part) for part in (initials, vowels, finals)] for _ in range(draw.integers(1, 4))]
        return "".join(chr(ord("가") + (one * 21 + two) * 28 + three) for one, two, three in parts)

    found: dict[str, None] = {}
    while len(found) < count:
        line = " ".join(word() for _ in range(draw.integers(1, WORDS + 1)))
        if line not in held_out:
            found[line] = None
    return tuple(found)


def spoken(count: int, *, seed: int, mels: int = 80, kind: str | None = None) -> Spoken:
    """`count` lines to read, and those of the training, by the voices of the training: half of them dry, half in rooms
    and by microphones of the soundscapes.

    kind: of the `speech_bank`.
    """
    bank = speech_bank("train", kind)
    texts = lines_to_read(count, seed=seed)
    waves, digest = speak(texts, bank.kind)
    draws = (Draw(seed, (place,)) for place in range(len(waves) + len(bank.utterances)))
    both = [*zip(texts, waves, strict=True), *((one.text, one.samples) for one in bank.utterances)]
    heard = ((text, _somewhere(wave, draw)) for (text, wave), draw in zip(both, draws, strict=True))
    return _of(heard, mels, f"{digest} {bank.digest} {seed} {source_hash(__name__)}")


def read_aloud(split: str, *, mels: int = 80, kind: str | None = None) -> Spoken:
    """Every line of `split` by every voice of it, dry."""
    bank = speech_bank(split, kind)
    return _of(((one.text, one.samples) for one in bank.utterances), mels, bank.digest)


def _of(lines: Iterable[tuple[str, np.ndarray]], mels: int, source: str) -> Spoken:
    """Lines of up to `LONGEST` seconds."""
    rows, kept = [], []
    for text, wave in lines:
        mel = log_mel(scaled(torch.from_numpy(wave)[None]), mels)[0]
        if mel.shape[1] <= LONGEST * FRAMES_PER_SECOND:
            rows.append(mel.mT.half())
            kept.append(text)
    frames = torch.tensor([len(one) for one in rows])
    known = hashlib.sha256(repr((source, kept, mels)).encode()).hexdigest()
    return Spoken(torch.cat(rows), frames.cumsum(0) - frames, frames, tuple(kept), known)


def _somewhere(wave: np.ndarray, draw: Draw) -> np.ndarray:
    """(n,) int16 and `_TAIL` after it: every other line in a room and by a microphone of the soundscapes."""
    wave = np.pad(wave.astype(np.float64), (0, round(_TAIL * RATE)))
    if draw.chance(0.5):
        return wave.astype(np.int16)
    wet, _ = heard(draw, wave, draw_room(draw))
    wet = wet[: len(wave)]
    return microphone(draw, wet * (16_000 / np.abs(wet).max()), quiet=False)[0]


def mixed(mel: Tensor, lines: Spoken, index: Tensor, decibels: Tensor) -> tuple[Tensor, Tensor]:
    """(mel (B, mels, frames), onsets (B,) in frames): the lines at `index` (B,), said somewhere in clips `mel`.

    decibels: (B,), a line's level while it is heard over the mean of the clip's. Where it is loud, the clip is lowered.
    The powers of independent sounds add up. Draws the onsets from torch's generator.
    """
    batch, _, length = mel.shape
    frames = lines.frames[index].clamp_max(length)
    onsets = (torch.rand(batch, device=mel.device) * (length - frames + 1)).long()
    places = torch.arange(length, device=mel.device) - onsets[:, None]  # (B, length)
    said = (places >= 0) & (places < frames[:, None])
    rows = lines.rows[torch.where(said, lines.starts[index, None] + places, 0)]  # (B, length, mels)
    line = torch.where(said[:, None], _power(rows.mT), 0.0)
    clip = _power(mel)
    loud = line.mean(1)
    heard = loud > _HEARD * loud.amax(1, keepdim=True)
    level = (loud * heard).sum(1) / heard.sum(1)
    share = level / clip.mean((1, 2)) * 10 ** (-decibels / 10)
    levels = (line + share[:, None, None] * clip).clamp_min(SMALLEST).log10()
    floor = levels.amax((1, 2), keepdim=True) - DECADES
    return (torch.maximum(levels, floor) + 4) / 4, onsets


def _power(mel: Tensor) -> Tensor:
    return 10 ** (4 * mel.float() - 4)
