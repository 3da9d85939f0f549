"""Spoken Korean for the built-in clips: espeak-ng, or vowel babble where it cannot be loaded.

A bank holds `SENTENCES` of every class, each said by one of the split's voices, the same bytes on every run:
each shard of it is spoken by a fresh process (`espeak`) in a fixed order from a fixed random seed, and kept on
disk with its SHA-256. It is a test signal with words in it, not Korean as people speak it
(espeak-ng lacks nasal assimilation): what a recogniser scores on it says nothing about real speech.
"""

import hashlib
import importlib.util
import io
import json
import os
import struct
import subprocess
import sys
import unicodedata
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from scipy import signal

from lib import paths
from lib.data.cache import atomic
from lib.emergency.synthesis.lines import CORES, sentences

RATE = 16_000
# Training and validation, test. Variants of espeak-ng's Korean voice: male, female.
VOICES = (("m1", "m2", "m4", "m5", "m7", "f1", "f3", "f4"), ("m3", "m6", "f2", "f5"))

# More of the training: a network that is to understand other voices has to hear many.
MORE_VOICES = (
    "Alex", "Alicia", "Andrea", "Andy", "Annie", "Denis", "Diogo", "Gene", "Gene2", "Henrique", "Hugo", "Jacky", "Lee",
    "Mario", "Michael", "Mike", "Nguyen", "Reed", "Storm", "adam", "anika", "announcer", "antonio", "aunty",
    "belinda", "benjamin", "boris", "caleb", "david", "ed", "edward", "grandma", "grandpa", "gustave", "ian", "iven",
    "john", "linda", "m8", "max", "michel", "miguel", "norbert", "pablo", "paul", "pedro", "quincy", "rob", "robert",
    "sandro", "shelby", "steph", "travis", "victor", "zac",
)  # fmt: skip

# What espeakng-loader 0.2.4 (espeak-ng 1.52) says: other bytes are other data than the published results'.
DIGESTS = {
    "train": "2c83a3344d4af7b014db7850ce63ea47ab86a0f3e250249edf265cdc16015c8c",
    "test": "7ce4f70dfe4352866ff3446a80babc644c66426773f7c5ebb5d859ea86311209",
}

SENTENCES = (200, 50)  # of each class in a bank: training and validation, test
_SHARD = 256  # lines a process speaks


@dataclass(frozen=True)
class Utterance:
    """samples: (n,) int16 at 16 kHz, peak about 0.5, without silence around. number: the class of the line."""

    number: int
    text: str
    voice: str
    samples: np.ndarray


@dataclass(frozen=True)
class Bank:
    """kind: "espeak" or "babble". digest: SHA-256 of all samples in order."""

    kind: str
    digest: str
    utterances: tuple[Utterance, ...]

    def of(self, number: int) -> list[Utterance]:
        """The utterances of class `number`, in a fixed order."""
        return [one for one in self.utterances if one.number == number]


def voices(split: str, kind: str = "espeak") -> tuple[str, ...]:
    if split == "test":
        return VOICES[1]
    return VOICES[0] + (MORE_VOICES if kind == "espeak" else ())


def available() -> bool:
    """Whether the wheel with espeak-ng is installed. Whether it runs shows when it speaks."""
    return importlib.util.find_spec("espeakng_loader") is not None


def speech_bank(split: str, kind: str | None = None) -> Bank:
    """The sentences of `split`, said by its voices in turn.

    kind: "espeak", "babble", or None for the first that works here (a warning says if it is babble).

    Raises:
        ValueError: unknown split or kind.
        OSError: espeak-ng was asked for by name and does not run.
    """
    if split not in ("train", "validation", "test"):
        raise ValueError(f"split is {split!r}, expected 'train', 'validation' or 'test'.")
    if kind not in (None, "espeak", "babble"):
        raise ValueError(f"kind is {kind!r}, expected 'espeak', 'babble' or None.")
    return _bank("test" if split == "test" else "train", kind, str(paths.build()))


@lru_cache(maxsize=1)  # a quarter of a gigabyte
def _bank(split: str, kind: str | None, _build: str) -> Bank:
    if kind != "babble":
        try:
            return _banked(split, "espeak")
        except OSError as error:
            if kind == "espeak":
                raise
            warnings.warn(f"espeak-ng does not run here ({error}): the clips babble vowels instead of Korean, and "
                          f"results are not comparable. Install the package espeakng-loader.",
                          stacklevel=4)  # fmt: skip
    return _banked(split, "babble")


def _jobs(split: str, kind: str) -> list[tuple[int, str, str, int, int]]:
    """(class, text, voice, words per minute, pitch) in the order they are spoken."""
    speakers, count = voices(split, kind), SENTENCES[split == "test"]
    jobs = [(number, text) for number in CORES for text in sentences(number, split)[:count]]
    return [(*job, speakers[k % len(speakers)], *_rate_and_pitch(k)) for k, job in enumerate(jobs)]


def _rate_and_pitch(k: int) -> tuple[int, int]:
    """Of job `k`: strides through their ranges, so that every class has all of them."""
    return 150 + 37 * k % 71, 20 + 29 * k % 61


def _banked(split: str, kind: str) -> Bank:
    bank = _bank_of(split, _jobs(split, kind), kind)
    if kind == "espeak" and bank.digest != DIGESTS[split]:
        warnings.warn("This espeak-ng speaks differently from the one of the published results (espeakng-loader "
                      "0.2.4): results on the built-in clips are comparable among themselves only.",
                      stacklevel=5)  # fmt: skip
    return bank


def _bank_of(name: str, jobs: list[tuple[int, str, str, int, int]], kind: str) -> Bank:
    """What `jobs` say, spoken once and then read from `build/cache`."""
    key = hashlib.sha256(json.dumps([kind, jobs, _source(kind)]).encode()).hexdigest()[:16]
    path = paths.build() / "cache" / "speech" / f"{kind}-{name}-{key}.npz"
    said, digest = _read(path, len(jobs)) or (None, None)
    if said is None:
        said = _speak(jobs) if kind == "espeak" else [_babble(job[1], job[2], *job[3:]) for job in jobs]
        digest = _digest(said)
        try:
            with atomic(path) as temporary, temporary.open("wb") as file:
                lengths = np.array([len(wave) for wave in said], np.int64)
                np.savez(file, samples=np.concatenate(said), lengths=lengths, digest=np.array(digest))
        except OSError as error:
            warnings.warn(f"The spoken lines could not be kept in {path} ({error}): they are spoken again next time.")
    return Bank(kind, digest, tuple(Utterance(*job[:3], wave) for job, wave in zip(jobs, said, strict=True)))


def _source(kind: str) -> str:
    """What the waves depend on beside the jobs: this file, and the worker with its library."""
    digest = hashlib.sha256(Path(__file__).read_bytes())
    if kind == "espeak" and available():
        digest.update(Path(__file__).with_name("espeak.py").read_bytes())
        folder = Path(importlib.util.find_spec("espeakng_loader").origin).parent
        digest.update(str(sorted((p.name, p.stat().st_size) for p in folder.glob("*espeak*"))).encode())
    return digest.hexdigest()


def _digest(waves: list[np.ndarray]) -> str:
    digest = hashlib.sha256(repr([len(wave) for wave in waves]).encode())
    for wave in waves:
        digest.update(np.ascontiguousarray(wave, "<i2").data)
    return digest.hexdigest()


def _read(path: Path, count: int) -> tuple[list[np.ndarray], str] | None:
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
            waves = np.split(file["samples"], np.cumsum(file["lengths"])[:-1])
            digest = str(file["digest"])
        if len(waves) == count and _digest(waves) == digest:
            return waves, digest
    except FileNotFoundError:
        return None
    except Exception:  # a damaged archive raises whatever its damaged part causes
        pass
    warnings.warn(f"The cache file {path} is damaged: it is made again.", stacklevel=5)
    return None


# --- espeak-ng ----------------------------------------------------------------------------------


def _speak(jobs: list[tuple[int, str, str, int, int]]) -> list[np.ndarray]:
    """(n,) int16 per job. Raises OSError if espeak-ng does not run."""
    if not available():
        raise OSError("the package espeakng-loader is not installed")
    shards = [jobs[start : start + _SHARD] for start in range(0, len(jobs), _SHARD)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # of threads that wait for a process each
        said = [one for shard in pool.map(_speak_shard, shards) for one in shard]
    if len(said) != len(jobs):
        raise OSError(f"espeak-ng spoke {len(said)} of {len(jobs)} lines")
    return said


def _speak_shard(shard: list[tuple[int, str, str, int, int]]) -> list[np.ndarray]:
    order = [[text, f"ko+{voice}", speed, pitch] for _, text, voice, speed, pitch in shard]
    worker = [sys.executable, "-P", str(Path(__file__).with_name("espeak.py"))]
    try:
        done = subprocess.run(worker, input=json.dumps(order).encode(), capture_output=True, timeout=120)
    except subprocess.TimeoutExpired as error:
        raise OSError("espeak-ng did not end within 120 s") from error
    if done.returncode:
        reason = done.stderr.decode(errors="replace").strip().splitlines() or [f"exit code {done.returncode}"]
        raise OSError(reason[-1])
    return _unpack(done.stdout)


def _unpack(stream: bytes) -> list[np.ndarray]:
    (rate,) = struct.unpack_from("<I", stream)
    place, blocks = 4, []
    while place < len(stream):
        (length,) = struct.unpack_from("<I", stream, place)
        blocks.append(stream[place + 4 : place + 4 + length])
        place += 4 + length
    step = np.gcd(rate, RATE)
    waves = (np.frombuffer(block, "<i2").astype(np.float64) for block in blocks)
    return [_finish(signal.resample_poly(wave, RATE // step, rate // step)) for wave in waves]


def _finish(wave: np.ndarray) -> np.ndarray:
    """Trimmed to where it is above -40 dB of its peak, scaled to half of full scale, int16."""
    loud = np.flatnonzero(np.abs(wave) > 0.01 * np.abs(wave).max(initial=0))
    if not len(loud):
        raise OSError("espeak-ng returned silence")
    wave = wave[loud[0] : loud[-1] + 1]
    return np.rint(wave * (16_000 / np.abs(wave).max())).astype(np.int16)


# --- Babble -------------------------------------------------------------------------------------

# First three formants (Hz) of the medial vowels, in the order of the Unicode block:
# ㅏㅐㅑㅒㅓㅔㅕㅖㅗㅘㅙㅚㅛㅜㅝㅞㅟㅠㅡㅢㅣ
_A, _E, _O, _U, _I = (750, 1250, 2600), (550, 1850, 2600), (450, 850, 2500), (350, 800, 2400), (300, 2250, 3000)
_EO, _EU = (600, 1000, 2600), (380, 1400, 2500)
_FORMANTS = (_A, _E, _A, _E, _EO, _E, _EO, _E, _O, _A, _E, _E, _O, _U, _EO, _E, _I, _U, _EU, _I, _I)


def _babble(text: str, voice: str, speed: int, pitch: int) -> np.ndarray:
    """One vowel per Hangul syllable of `text`, a pause per space: (n,) int16."""
    base = (95 if voice[0] == "m" else 180) * (0.85 + 0.06 * int(voice[1])) * (0.85 + pitch / 200)
    length = int(RATE * 28 / speed)
    ramp = np.minimum(1, np.minimum(np.arange(length), np.arange(length)[::-1]) / (0.02 * RATE))
    parts = []
    syllables = [c for c in unicodedata.normalize("NFC", text) if "가" <= c <= "힣" or c == " "]
    for k, syllable in enumerate(syllables):
        if syllable == " ":
            parts.append(np.zeros(length // 3))
            continue
        vowel = (ord(syllable) - ord("가")) // 28 % 21
        fall = base * (1.1 - 0.25 * (k + np.arange(length) / length) / len(syllables))
        phase = np.cumsum(fall / RATE)
        pulses = np.diff(np.floor(phase), prepend=0.0)  # the glottis: one pulse per period
        for formant in _FORMANTS[vowel]:
            radius = np.exp(-np.pi * 90 / RATE)
            pole = [1, -2 * radius * np.cos(2 * np.pi * formant / RATE), radius**2]
            pulses = signal.lfilter([1 - radius], pole, pulses)
        parts.append(pulses / np.abs(pulses).max() * ramp)
    return _finish(np.concatenate(parts))
