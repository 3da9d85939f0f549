"""Spoken Korean for the built-in clips, by espeak-ng.

A bank holds `SENTENCES` of every class, each spoken by one of the split's voices, with the same bytes on every run:
lines are spoken in batches of 256, each by a fresh process (`espeak`) in a fixed order with a fixed random seed.
Validation has the lines and voices of training, but every line in another voice, at another speed and pitch: what was
heard in training is spoken anew. The speech is a test signal with words, not natural Korean (espeak-ng lacks nasal
assimilation): a recogniser's score on it says nothing about real speech.
"""

import hashlib
import json
import os
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

import numpy as np
from scipy import signal

from lib.data import cache
from lib.data.catalog import DataError
from lib.emergency.synthesis.generators import RATE
from lib.emergency.synthesis.lines import CORES, sentences

# (Training and validation, test). Variants of espeak-ng's Korean voice; m1 to m7 are male and f1 to f5 female. A
# network needs many of them to generalise to others.
VOICES = tuple(tuple(names.split()) for names in ("""
m1 m2 m4 m5 m7 f1 f3 f4
Alex Alicia Andrea Andy Annie Denis Diogo Gene Gene2 Henrique Hugo Jacky Lee Mario Michael Mike Nguyen Reed Storm adam
anika announcer antonio aunty belinda benjamin boris caleb david ed edward grandma grandpa gustave ian iven john linda
m8 max michel miguel norbert pablo paul pedro quincy rob robert sandro shelby steph travis victor zac
""", "m3 m6 f2 f5"))  # fmt: skip

# Speech of espeakng-loader 0.2.4 (espeak-ng 1.52); other digests mean other data than in the published results.
DIGESTS = {
    "train": "2c83a3344d4af7b014db7850ce63ea47ab86a0f3e250249edf265cdc16015c8c",
    "validation": "0b717edb3e947de61f5e9b0a38126c2f0049fb15fd7c1dac8e6d0e0a86859ea2",
    "test": "7f1cbaf01127bab47b385fc154f94b59b70d2df6a6146a095e548bc8efd90866",
}

SENTENCES = (200, 50)  # per class in a bank: (training and validation, test)
_SHARD = 256  # lines per process
_SHIFT = {"validation": 31}  # by how many places its voices, speeds and pitches are ahead of those of training


@dataclass(frozen=True)
class Utterance:
    """A spoken line. samples: (n,) int16 at 16 kHz, peak about 0.5, without silence at its ends."""

    text: str
    voice: str
    samples: np.ndarray


@dataclass(frozen=True)
class Bank:
    """Speech of a split. digest: SHA-256 of lengths and samples. utterances: by class number, in a fixed order."""

    digest: str
    utterances: dict[int, list[Utterance]]


def speech_bank(split: str) -> Bank:
    """Return the sentences of `split`, spoken by its voices in turn.

    Raises:
        DataError: espeak-ng does not run here.
    """
    return _bank(split, cache.folder("speech"))


@lru_cache(maxsize=1)  # a quarter of a gigabyte
def _bank(split: str, folder: Path) -> Bank:
    """Return the sentences of `split`, spoken once and then read from `folder`."""
    speakers, count = VOICES[split == "test"], SENTENCES[split == "test"]
    lines = [(number, text) for number in CORES for text in sentences(number, split)[:count]]
    # Words per minute and pitch cycle through their ranges so that every class covers them.
    jobs = [(text, speakers[k % len(speakers)], 150 + 37 * k % 71, 20 + 29 * k % 61)
            for k, (_, text) in enumerate(lines, _SHIFT.get(split, 0))]  # fmt: skip
    sources = [Path(__file__).with_name(name).read_text(encoding="utf-8") for name in ("speech.py", "espeak.py")]
    sources.append(version("espeakng-loader"))
    key = hashlib.sha256(json.dumps([jobs, sources]).encode()).hexdigest()[:16]
    path = folder / f"{split}-{key}.npz"
    if kept := cache.read(path):
        samples, lengths = kept["samples"], kept["lengths"]
    else:
        try:
            with ThreadPoolExecutor(os.cpu_count()) as pool:  # each thread waits for one process
                shards = pool.map(_speak, (jobs[start : start + _SHARD] for start in range(0, len(jobs), _SHARD)))
                said = [wave for shard in shards for wave in shard]
        except OSError as error:
            raise DataError(
                f"espeak-ng, which speaks in the built-in clips, does not run here ({error}). Install the package "
                "espeakng-loader anew, or take sounds of your own: dataset=folder:<path>."
            ) from error
        samples, lengths = np.concatenate(said), np.array([len(wave) for wave in said])
        cache.keep(path, samples=samples, lengths=lengths)
    digest = hashlib.sha256(repr(lengths.tolist()).encode())
    digest.update(np.ascontiguousarray(samples, "<i2").data)
    if digest.hexdigest() != DIGESTS[split]:
        warnings.warn("This espeak-ng speaks differently from the one of the published results (espeakng-loader "
                      "0.2.4): results on the built-in clips are comparable among themselves only.",
                      stacklevel=4)  # fmt: skip
    utterances = {number: [] for number in CORES}
    waves = np.split(samples, np.cumsum(lengths)[:-1])
    for (number, _), (text, voice, *_), wave in zip(lines, jobs, waves, strict=True):
        utterances[number].append(Utterance(text, voice, wave))
    return Bank(digest.hexdigest(), utterances)


def _speak(jobs: list[tuple[str, str, int, int]]) -> list[np.ndarray]:
    """Return (n,) int16 per (text, voice, words per minute, pitch). Raises OSError if espeak-ng does not run."""
    worker = [sys.executable, "-P", str(Path(__file__).with_name("espeak.py"))]
    done = subprocess.run(worker, input=json.dumps(jobs).encode(), capture_output=True)
    if done.returncode:
        reason = done.stderr.decode(errors="replace").strip().splitlines() or [f"exit code {done.returncode}"]
        raise OSError(reason[-1])
    header, samples = done.stdout.split(b"\n", 1)
    rate, lengths = json.loads(header)
    waves = np.split(np.frombuffer(samples, "<i2").astype(np.float64), np.cumsum(lengths)[:-1])
    step = np.gcd(rate, RATE)
    return [_finish(signal.resample_poly(wave, RATE // step, rate // step)) for wave in waves]


def _finish(wave: np.ndarray) -> np.ndarray:
    """Return `wave` as int16, with ends below -40 dB of its peak trimmed, and scaled to half of full scale."""
    loud = np.flatnonzero(np.abs(wave) > 0.01 * np.abs(wave).max(initial=0))
    if not len(loud):
        raise OSError("espeak-ng returned silence")
    wave = wave[loud[0] : loud[-1] + 1]
    return np.rint(wave * (16_000 / np.abs(wave).max())).astype(np.int16)
