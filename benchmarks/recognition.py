"""Study 4: from a file of 4 seconds to the vote, beside transformers' audio classification, and a stream.

One thread, a Whisper of base size (6 + 6 layers of 512) with random weights, which take the same time as trained ones.
The peer is transformers' pipeline for audio classification with an encoder of the same size: it pads to 30 seconds and
gives one class; the recogniser gives a class per moment and the CNN's vote as well. Decoding is a row of its own, as it
runs only where something is heard.
"""

import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile
import torch
from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperForAudioClassification, pipeline

from lib.data.decoding import RATE, decode
from lib.emergency.classes import EMERGENCY, NAMES
from lib.emergency.cnn import build_cnn, variants
from lib.emergency.lines import LINES
from lib.emergency.recogniser import Recogniser
from lib.emergency.text import fit_text
from lib.emergency.whisper import WhisperSize, build
from lib.timing import interleave, ratio

SECONDS, TOKENS, HOPS = 4, 20, 40
FASTER, FASTER_HALF, LATENCY, MEMORY = 10.0, 25.0, 0.1, 600.0


def recogniser() -> Recogniser:
    pairs = [(line, number) for number in LINES for line in LINES[number][0]]
    lines, numbers = zip(*pairs, strict=True)
    whisper = build(lines, NAMES, WhisperSize(512, 6, 6, 8), hidden=512).eval()
    cnn = build_cnn(variants(16)[0], len(NAMES)).eval()
    return Recogniser(cnn, whisper, fit_text(lines, torch.tensor(numbers), len(NAMES)), NAMES, EMERGENCY)


def tasks(made: Recogniser, path: Path) -> dict:
    config = WhisperConfig(d_model=512, encoder_layers=6, encoder_attention_heads=8, encoder_ffn_dim=2048,
                           num_labels=len(NAMES))  # fmt: skip
    peer = pipeline("audio-classification", model=WhisperForAudioClassification(config).eval(),
                    feature_extractor=WhisperFeatureExtractor())  # fmt: skip

    def samples() -> torch.Tensor:
        return torch.from_numpy(decode(path))[None]

    def half() -> None:
        with torch.autocast("cpu", torch.bfloat16):
            made.hear(samples(), words=False)

    def theirs() -> None:
        peer({"raw": decode(path).astype(np.float32) / 32768, "sampling_rate": RATE})

    hidden = torch.randn(1, 50 * SECONDS, 512)
    return {
        "file to vote": lambda: made.hear(samples(), words=False),
        "file to vote, bf16": half,
        "transformers' pipeline": theirs,
        f"{TOKENS} tokens of text": lambda: made.whisper.transcribe(hidden, TOKENS),
    }


def hops(made: Recogniser) -> pd.Series:
    """Seconds per hop of a stream of 1 s chunks."""
    listener, draw, found = made.listener(), np.random.default_rng(0), []
    for _ in range(HOPS + SECONDS):
        chunk = (3000 * draw.normal(size=RATE)).clip(-32768, 32767).astype(np.int16)
        begin = time.perf_counter()
        listener.feed(chunk)
        found.append(time.perf_counter() - begin)
    return pd.Series(found[SECONDS:])


def measure(rounds: int = 12) -> pd.DataFrame:
    """task, rounds, milliseconds (median), relative (to the pipeline); for the stream p95, and megabytes of memory."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        made = recogniser()
        stream = hops(made)
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "clip.wav"
            noise = np.random.default_rng(0).normal(size=SECONDS * RATE)
            soundfile.write(path, 0.1 * noise, RATE)
            timed = tasks(made, path)
            seconds = interleave(timed, rounds=rounds)
    finally:
        torch.set_num_threads(threads)
    rows = [{"task": name, "rounds": rounds, "milliseconds": 1000 * seconds[name].median(),
             "relative": ratio(seconds, name, "transformers' pipeline")} for name in timed]  # fmt: skip
    rows.append({"task": "hop of a stream, p95", "rounds": HOPS, "milliseconds": 1000 * stream.quantile(0.95)})
    rows.append({"task": "memory for models and stream", "rounds": 1, "megabytes": grown})
    return pd.DataFrame(rows)


def check(table: pd.DataFrame) -> pd.DataFrame:
    """The targets: what, measured, at_most, met. Speed-ups are turned into shares."""
    rows = table.set_index("task")
    found = [
        ("file to vote / transformers' pipeline, time", rows.relative["file to vote"], 1 / FASTER),
        ("file to vote in bf16 / transformers' pipeline, time", rows.relative["file to vote, bf16"], 1 / FASTER_HALF),
        ("hop of a stream, p95, s", rows.milliseconds["hop of a stream, p95"] / 1000, LATENCY),
        ("memory for models and stream, MB", rows.megabytes["memory for models and stream"], MEMORY),
    ]
    targets = pd.DataFrame(found, columns=["target", "measured", "at_most"])
    targets["met"] = targets["measured"] <= targets["at_most"]
    return targets
