"""Study 4: time log-mels against those of transformers, and clips read from the cache.

One thread throughout; log-mels of 16 clips of 4 seconds. transformers is timed on clips padded to 30 seconds, as its
extractor pads them when called, and on the 4 seconds alone.
"""

import numpy as np
import pandas as pd
import torch
from transformers import WhisperFeatureExtractor

from lib.emergency.features import RATE, log_mel
from lib.emergency.synthesis.soundscapes import draw_soundscapes
from lib.timing import interleave, ratio

CLIPS, SECONDS, CACHED = 16, 4, 100
MELS_FASTER, CACHE_RATE = 10.0, 100.0


def mel_tasks() -> dict:
    samples = torch.randn(CLIPS, SECONDS * RATE, generator=torch.Generator().manual_seed(0)) * 0.1
    extractor, arrays = WhisperFeatureExtractor(), [row.numpy() for row in samples]

    padded = [np.pad(row, (0, 30 * RATE - len(row))) for row in arrays]

    def numpy(rows: list) -> list:
        return [extractor._np_extract_fbank_features(row[None], "cpu") for row in rows]

    names = ("log-mel", "transformers' NumPy", "transformers' NumPy, not padded")
    return dict(zip(names, (lambda: log_mel(samples), lambda: numpy(padded), lambda: numpy(arrays)), strict=True))


def cache_tasks() -> dict:
    draw_soundscapes(CACHED)  # fills the cache
    return {"soundscapes from the cache": lambda: draw_soundscapes(CACHED)}


def measure(rounds: int = 12) -> pd.DataFrame:
    """Return task, clips, rounds, milliseconds (median, per clip), relative (to the first task of the group)."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    rows = []
    try:
        for tasks, clips in ((mel_tasks(), CLIPS), (cache_tasks(), CACHED)):
            seconds = interleave(tasks, rounds=rounds)
            first = next(iter(tasks))
            rows += [
                {
                    "task": name,
                    "clips": clips,
                    "rounds": rounds,
                    "milliseconds": 1000 * seconds[name].median() / clips,
                    "relative": ratio(seconds, name, first),
                }
                for name in tasks
            ]
    finally:
        torch.set_num_threads(threads)
    return pd.DataFrame(rows)


def check(table: pd.DataFrame) -> pd.DataFrame:
    """Return target, measured, at_most; a rate is given as a time, a speed-up as a share."""
    rows = table.set_index("task")
    found = [
        ("log-mel / transformers' NumPy, time", 1 / rows.relative["transformers' NumPy"], 1 / MELS_FASTER),
        ("a clip from the cache, ms", rows.milliseconds["soundscapes from the cache"], 1000 / CACHE_RATE),
    ]
    return pd.DataFrame(found, columns=["target", "measured", "at_most"])
