"""One recording of any common kind as 16 kHz mono.

    samples = decode("knock.m4a")             # int16
    first = decode("evening.wav", seconds=4)  # reads no further than it has to

libsndfile (soundfile) reads WAV, FLAC, Ogg, MP3, AIFF and AU; what it does not know goes to FFmpeg (PyAV):
AAC in MP4, AMR, WMA, the sound of videos. soxr resamples. The content decides, not the name.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile
import soxr

from lib.data.catalog import DataError

RATE = 16_000  # Hz
SHORTEST = 0.1  # seconds; less is no recording
REASONS = ("missing", "not readable", "empty", "not audio", "no sound", "not finite", "too short")

_BLOCK = 1.0  # seconds that are read at once, and lost where a file breaks off
_OPPOSITE = -0.5  # correlation below which the mean of two channels would cancel them


class Unreadable(DataError):
    """A recording that cannot be used. `reason` is one of `REASONS`, `path` the file."""

    def __init__(self, path: Path, reason: str, what: str):
        super().__init__(f"The recording {path} {what}")
        self.path = path
        self.reason = reason


def decode(path: Path | str, *, seconds: float | None = None) -> np.ndarray:
    """A recording, or its first `seconds`, as (n,) int16 at 16 kHz.

    Channels are averaged; two of opposite phase would cancel, and the louder is taken then. The mean is
    removed. Samples beyond full scale (in float files) scale the whole down to it. A file that breaks off
    gives what is there. A block of a second is held at a time besides the result.

    Raises:
        Unreadable: the file is missing, not readable, empty, not audio, holds no sound or less than 0.1 s of
            it, or samples that are no numbers.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            if not file.read(1):
                raise Unreadable(path, "empty", "is empty (0 bytes). Replace or delete it.")
            file.seek(0)
            wave = _joined(path, _blocks(path, file), seconds)
    except FileNotFoundError as error:
        raise Unreadable(path, "missing", "does not exist.") from error
    except OSError as error:
        raise Unreadable(path, "not readable", f"cannot be read ({error}). Check its permissions.") from error
    if len(wave) < SHORTEST * RATE:
        reason = "too short" if len(wave) else "no sound"
        raise Unreadable(path, reason, f"holds {len(wave) / RATE * 1000:.1f} ms of sound, and at least "
                         f"{SHORTEST * 1000:.0f} ms are needed. Replace or delete it.")  # fmt: skip
    wave -= wave.mean(dtype=np.float64).astype(np.float32)
    peak = max(np.abs(wave).max(), 1.0)
    wave *= 32767 / peak
    return np.rint(wave, out=wave).astype(np.int16)


def _joined(path: Path, blocks: Iterator[tuple[int, np.ndarray]], seconds: float | None) -> np.ndarray:
    """Blocks (rate, (n, channels)) as one float32 wave at 16 kHz."""
    most = None if seconds is None else round(seconds * RATE)
    parts: list[np.ndarray] = []
    have, stream, choice = 0, None, None
    for rate, block in blocks:
        if not np.isfinite(block).all():
            raise Unreadable(path, "not finite", "holds samples that are no numbers (NaN or infinity). Export it again.")
        if choice is None and block.any():
            choice = _louder(block)
        mono = block.mean(1) if choice is None else block[:, choice]
        if rate != RATE:
            stream = stream or soxr.ResampleStream(rate, RATE, 1, dtype="float32", quality="HQ")
            mono = stream.resample_chunk(np.ascontiguousarray(mono))
        parts.append(mono)
        have += len(mono)
        if most is not None and have >= most:
            break
    else:
        if stream is not None:
            parts.append(stream.resample_chunk(np.zeros(0, np.float32), last=True))
    return np.concatenate(parts)[:most] if parts else np.zeros(0, np.float32)


def _louder(block: np.ndarray) -> int | None:
    """The louder of two channels that cancel each other; None where the mean will do."""
    if block.shape[1] != 2:
        return None
    power = np.square(block, dtype=np.float64).sum(0)
    product = (block[:, 0].astype(np.float64) * block[:, 1]).sum()
    return int(power.argmax()) if product < _OPPOSITE * np.sqrt(power.prod()) else None


def _blocks(path: Path, file: BinaryIO) -> Iterator[tuple[int, np.ndarray]]:
    try:
        opened = soundfile.SoundFile(file)
    except soundfile.LibsndfileError:
        file.seek(0)
        yield from _with_ffmpeg(path, file)
        return
    with opened:
        while True:
            try:
                block = opened.read(round(_BLOCK * opened.samplerate), dtype="float32", always_2d=True)
            except soundfile.LibsndfileError:  # damaged from here on
                return
            if not len(block):
                return
            yield opened.samplerate, block


def _with_ffmpeg(path: Path, file: BinaryIO) -> Iterator[tuple[int, np.ndarray]]:
    import av  # here: few recordings need it

    try:
        container = av.open(file)
    except (av.FFmpegError, ValueError) as error:
        raise Unreadable(path, "not audio", "is not audio, or damaged from its start: neither libsndfile nor FFmpeg "
                         "knows it. Convert it to WAV or FLAC, or delete it.") from error  # fmt: skip
    with container:
        if not container.streams.audio:
            raise Unreadable(path, "no sound", "has no sound track. Delete it.")
        plain = av.AudioResampler(format="fltp")
        held: list[np.ndarray] = []
        rate = 0
        try:
            for frame in container.decode(audio=0):
                rate = frame.sample_rate
                held += [part.to_ndarray().T for part in plain.resample(frame)]
                if sum(map(len, held)) >= _BLOCK * rate:
                    yield rate, np.concatenate(held)
                    held = []
        except (av.FFmpegError, ValueError):  # damaged from here on
            pass
        if held:
            yield rate, np.concatenate(held)
