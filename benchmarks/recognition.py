"""Study 4: time from a 4 s file to the vote, against transformers' audio classification, and per hop of a stream.

One thread, a Whisper of base size (6 + 6 layers of 512) with random weights, which take the same time as trained ones.
The baseline is transformers' pipeline for audio classification with an encoder of the same size: it pads to 30 s and
returns one class; the recogniser returns a class per frame and the CNN's vote as well. Decoding has its own row, as it
runs only if the encoder predicts a sound.

The stream runs in its own process, in which all voters finally judge an alarm. The memory target is for what the
process then holds itself and cannot release. Memory mapped from files (code of libraries, weights as they are on disk)
can be reclaimed by the system when memory is short; another row has the peak of both. A third row has what
`import torch` alone holds: a quarter of a gigabyte if PyTorch is built for GPUs, otherwise half of that.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile
import torch

from lib.data.decoding import RATE, decode
from lib.emergency.classes import EMERGENCY, NAMES
from lib.emergency.cnn.network import build_cnn, save_cnn, variants
from lib.emergency.recogniser.listener import Alarm
from lib.emergency.recogniser.recogniser import Recogniser
from lib.emergency.synthesis.lines import CORES
from lib.emergency.whisper.model import WhisperSize, build
from lib.emergency.whisper.text import fit_text
from lib.timing import interleave, ratio

SECONDS, TOKENS, HOPS = 4, 20, 60
SIZE = WhisperSize(512, 6, 6, 8)
FASTER, LATENCY, MEMORY = 10.0, 0.1, 600.0
PEER = "transformers' pipeline"


def recogniser(folder: Path) -> Recogniser:
    """Return an untrained recogniser, assembled from models that are first saved in `folder`."""
    pairs = [(line, number) for number in CORES for line in CORES[number][0]]
    lines, numbers = zip(*pairs, strict=True)
    build(lines, NAMES, SIZE, hidden=512).eval().save(folder / "whisper")
    variant = variants(16)[0]
    save_cnn(build_cnn(variant, len(NAMES)).eval(), variant, NAMES, folder / "cnn.safetensors")
    fit_text(lines, torch.tensor(numbers), len(NAMES)).save(folder / "text.json")
    return Recogniser.assemble(folder, EMERGENCY)


def tasks(made: Recogniser, path: Path) -> dict:
    # Imported here, as the process of the stream does not need them.
    from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperForAudioClassification, pipeline

    config = WhisperConfig(d_model=SIZE.d_model, encoder_layers=SIZE.encoder_layers, num_labels=len(NAMES),
                           encoder_attention_heads=SIZE.heads, encoder_ffn_dim=4 * SIZE.d_model)  # fmt: skip
    peer = pipeline("audio-classification", model=WhisperForAudioClassification(config).eval(),
                    feature_extractor=WhisperFeatureExtractor())  # fmt: skip
    hidden = torch.randn(1, 50 * SECONDS, SIZE.d_model)

    def samples() -> torch.Tensor:
        return torch.from_numpy(decode(path))[None]

    return {
        "file to vote": lambda: made.predict(samples(), words=False),
        PEER: lambda: peer({"raw": decode(path).astype(np.float32) / 32768, "sampling_rate": RATE}),
        f"{TOKENS} tokens of text": lambda: made.whisper.transcribe(hidden, TOKENS),
    }


# Megabytes: the process's own memory now, and the peak with everything that is mapped.
_MEMORY = """
status = dict(row.split(":", 1) for row in open("/proc/self/status"))
print(*(int(status[name].split()[0]) / 1024 for name in ("RssAnon", "VmHWM")))
"""


def stream(folder: Path) -> None:
    """Print the seconds of each hop of a stream of 1 s chunks, and the megabytes of this process, own and peak."""
    torch.set_num_threads(1)
    made, draw = Recogniser.load(folder), np.random.default_rng(0)
    chunks = ((3000 * draw.normal(size=RATE)).clip(-32768, 32767).astype(np.int16) for _ in range(SECONDS + HOPS))
    heard = made.listen(chunks, "kitchen", 0.0)
    next(heard)  # the first window takes more than one chunk
    for _ in range(HOPS):
        begin = time.perf_counter()
        samples = next(heard).samples
        print(time.perf_counter() - begin)
    made.judge(Alarm(0.0, SECONDS), samples, "kitchen", 0.0)
    hidden = torch.randn(1, 50 * SECONDS, made.whisper.whisper.config.d_model)
    made.whisper.transcribe(hidden, TOKENS)  # the voters decode only if the encoder predicts a sound
    exec(_MEMORY, {})


def _printed(*arguments: str) -> list[float]:
    done = subprocess.run([sys.executable, *arguments], stdout=subprocess.PIPE, text=True, check=True)
    return [float(word) for word in done.stdout.split()]


def measure(rounds: int = 12) -> pd.DataFrame:
    """Return task, rounds, milliseconds (median; p95 for the stream), relative (to the pipeline) and megabytes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            made = recogniser(folder)
            made.save(folder)
            *hops, own, mapped = _printed(__file__, name)
            torch_alone, _ = _printed("-c", f"import torch; {_MEMORY}")
            path = folder / "clip.wav"
            soundfile.write(path, 0.1 * np.random.default_rng(0).normal(size=SECONDS * RATE), RATE)
            timed = tasks(made, path)
            seconds = interleave(timed, rounds=rounds)
    finally:
        torch.set_num_threads(threads)
    rows = [{"task": name, "rounds": rounds, "milliseconds": 1000 * seconds[name].median(),
             "relative": ratio(seconds, name, PEER)} for name in timed]  # fmt: skip
    late = 1000 * np.quantile(hops, 0.95)
    rows.append({"task": "hop of a stream, p95", "rounds": len(hops), "milliseconds": late})
    rows.append({"task": "stream, memory of its own", "rounds": 1, "megabytes": own})
    rows.append({"task": "stream, with files mapped, at most", "rounds": 1, "megabytes": mapped})
    rows.append({"task": "of that, by import torch", "rounds": 1, "megabytes": torch_alone})
    return pd.DataFrame(rows)


def check(table: pd.DataFrame) -> pd.DataFrame:
    """Return target, measured, at_most; a speed-up is given as a share."""
    rows = table.set_index("task")
    found = [
        (f"file to vote / {PEER}, time", rows.relative["file to vote"], 1 / FASTER),
        ("hop of a stream, p95, s", rows.milliseconds["hop of a stream, p95"] / 1000, LATENCY),
        ("stream, memory of its own, MB", rows.megabytes["stream, memory of its own"], MEMORY),
    ]
    return pd.DataFrame(found, columns=["target", "measured", "at_most"])


if __name__ == "__main__":
    stream(Path(sys.argv[1]))
