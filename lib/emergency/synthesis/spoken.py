"""Korean lines to read, and mixing them into clips: for a Whisper that has never heard a word.

    lines = spoken(4000, seed=0)
    mel, onsets = mixed(clips, lines, index, decibels)

They cannot be guessed and must be heard: words in any order, and syllables that are no words. Like all that is built
in they are machine speech (see `speech`), and say nothing of how well real Korean is read.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain

import numpy as np
import torch
from torch import Tensor

from lib.emergency.features import DECADES, FRAMES_PER_SECOND, SMALLEST, log_mel, scaled
from lib.emergency.synthesis.events import RATE, Draw
from lib.emergency.synthesis.lines import LINES, lines
from lib.emergency.synthesis.soundscapes import draw_room, heard, microphone
from lib.emergency.synthesis.speech import Utterance, speak, speech_bank
from lib.forking import side_by_side
from lib.sources import source_hash

WORDS = 3  # of a line, at most
LONGEST = 2.4  # seconds
_KNOWN = 0.6  # of the words are words
_AT_ONCE = 400  # utterances that one process takes at a time
POSITIONS_PER_SECOND = FRAMES_PER_SECOND // 2
_TAIL = 0.15  # seconds that a room may go on sounding after a line
_HEARD = 0.001  # a line is heard while its power is above this share of its maximum


@dataclass(frozen=True)
class Spoken:
    """Lines, each spoken alone.

    rows: (all frames, mels) float16, log-mel of one line after the other, each of an even number of frames. starts,
    frames: (N,) int64, where in `rows` each begins and how many of its rows there are. texts: what is said.
    phonemes: (all frames / 2,) int64, of each position of Whisper's encoder (20 ms) the number of the phoneme that is
    said, 0 for none. progress: (all frames / 2,) float32, how much of its line's phonemes has been said then, 0 to 1,
    or -1. kinds: how many numbers there are. checksum: of all of it.
    """

    rows: Tensor
    starts: Tensor
    frames: Tensor
    texts: tuple[str, ...]
    phonemes: Tensor
    progress: Tensor
    kinds: int
    checksum: str

    def __len__(self) -> int:
        return len(self.texts)

    def to(self, device: torch.device) -> "Spoken":
        moved = ("rows", "starts", "frames", "phonemes", "progress")
        return replace(self, **{name: getattr(self, name).to(device) for name in moved})

    def at(self, index: Tensor, onsets: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """(places, said), both (B, count): where in `phonemes` each of `count` positions of a clip is found, and
        whether the line at `index` (B,), said from `onsets` (B,) in frames as `mixed` has it, is said then."""
        places = torch.arange(count, device=index.device) - (onsets[:, None] + 1) // 2
        said = (places >= 0) & (places < self.frames[index, None] // 2)
        return torch.where(said, self.starts[index, None] // 2 + places, 0), said


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
    """`count` lines to read, by many voices, and those of the training by its own: half of them dry, half in rooms and
    by microphones of the soundscapes.

    kind: of the `speech_bank`.
    """
    bank = speech_bank("train", kind)
    to_read = speak(lines_to_read(count, seed=seed), bank.kind)
    both = to_read.utterances + bank.utterances
    parts = [range(start, min(start + _AT_ONCE, len(both))) for start in range(0, len(both), _AT_ONCE)]
    found = side_by_side([partial(_heard, [both[place] for place in part], part, seed, mels) for part in parts], "cpu")
    rows = chain.from_iterable(found)
    return _of(both, rows, mels, f"{to_read.digest} {bank.digest} {seed} {source_hash(__name__)}")


def read_aloud(split: str, *, mels: int = 80, kind: str | None = None) -> Spoken:
    """Every line of `split` by every voice of it, dry."""
    bank = speech_bank(split, kind)
    return _of(bank.utterances, (_rows(one.samples, mels) for one in bank.utterances), mels, bank.digest)


def _heard(utterances: Sequence[Utterance], places: Iterable[int], seed: int, mels: int) -> list[Tensor]:
    """`_rows` of each, somewhere; `places` among all utterances say by which numbers it is drawn where."""
    return [_rows(_somewhere(one.samples, Draw(seed, (place,))), mels)
            for one, place in zip(utterances, places, strict=True)]  # fmt: skip


def _rows(wave: np.ndarray, mels: int) -> Tensor:
    """(frames, mels) float16, log-mel of (n,) int16."""
    return log_mel(scaled(torch.from_numpy(wave)[None]), mels)[0].mT.half()


def _of(utterances: Sequence[Utterance], heard: Iterable[Tensor], mels: int, source: str) -> Spoken:
    """Lines of up to `LONGEST` seconds; `heard`: the utterances' `_rows`."""
    pairs = zip(utterances, heard, strict=True)
    pairs = [(one, row[: len(row) // 2 * 2]) for one, row in pairs if len(row) <= LONGEST * FRAMES_PER_SECOND]
    kept, rows = zip(*pairs, strict=True)
    number = {name: k for k, name in enumerate(sorted({name for one in kept for _, name in one.phonemes}), 1)}
    timed = [_when(one, number, len(row) // 2) for one, row in pairs]
    phonemes, progress = (torch.from_numpy(np.concatenate(part)) for part in zip(*timed, strict=True))
    frames = torch.tensor([len(one) for one in rows])
    texts = tuple(one.text for one in kept)
    known = hashlib.sha256(repr((source, texts, mels)).encode()).hexdigest()
    return Spoken(torch.cat(rows), frames.cumsum(0) - frames, frames, texts, phonemes, progress, len(number) + 1, known)


def _when(one: Utterance, number: Mapping[str, int], count: int) -> tuple[np.ndarray, np.ndarray]:
    """(phonemes, progress) at the middles of `count` positions of 20 ms, as in `Spoken`."""
    edges = np.array([onset for onset, _ in one.phonemes] + [len(one.samples) / RATE])
    times = (np.arange(count) + 0.5) / POSITIONS_PER_SECOND
    place = np.searchsorted(edges, times, side="right") - 1
    said = (place >= 0) & (place < len(one.phonemes))
    place = place.clip(0, len(one.phonemes) - 1)
    numbers = np.array([number[name] for _, name in one.phonemes])[place]
    share = (place + (times - edges[place]) / (edges[place + 1] - edges[place]).clip(1e-6)) / len(one.phonemes)
    return np.where(said, numbers, 0), np.where(said, share, -1.0).astype(np.float32)


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
