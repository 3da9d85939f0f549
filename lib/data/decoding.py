"""Decode recordings of any common format, rate and channel count to 16 kHz mono.

    samples = decode("barking.m4a")  # (n,) int16
    samples = decode("night.wav", seconds=4)  # reads only the first 4 s, however long the file

The format is detected from the content, not the file's extension: libsndfile reads wav, flac, ogg, mp3, aiff, au, ...,
and PyAV what libsndfile cannot (m4a, aac, wma, amr, the sound track of mp4, webm and mkv, ...).
"""

import contextlib
import math
import os
import warnings
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import BinaryIO

import av
import numpy as np
import soundfile
import soxr

from lib.data.catalog import DataError, readable

RATE = 16_000  # Hz
SHORTEST = 0.1  # seconds; anything shorter is refused
RATES = (1_000, 1_000_000)  # Hz; any other rate means a damaged header
WILD = 4.0  # times full scale; samples beyond may be faults of the file rather than sound
# Minimum share of the channels' mean power in their average; uncorrelated channels keep 1 / channels.
CANCELLED = 0.05

_BLOCK = 2**16  # samples decoded at a time, over all channels


class Unreadable(DataError):
    """A recording that cannot be used; the message names the file and says what to do.

    reason: "missing", "no access", "empty", "not audio" (unknown format, no sound track, or damaged before anything is
    decoded), "too short" (less than `SHORTEST`) or "not finite".
    """

    def __init__(self, message: str, reason: str = ""):  # pickle calls it without `reason`, which it then restores
        super().__init__(message)
        self.reason = reason


def decode(path: str | os.PathLike, *, seconds: float | None = None) -> np.ndarray:
    """Return the sound of a file as (n,) int16 at 16 kHz.

    Channels are averaged, with a warning if they cancel each other. Other sample rates are converted by soxr's HQ
    filter: flat up to 7.4 kHz, nothing above 8 kHz. Sound beyond full scale (float files, lossy formats, the filter's
    overshoot) is scaled down as a whole instead of clipped, with a warning if it is far beyond. A DC offset is kept:
    subtracting the mean would turn digital silence into a step, and 16 kHz 16-bit mono is returned bit for bit.

    If a file ends early or is damaged further on, everything before that is returned, if it is 0.1 s or more.

    Args:
        path: the file.
        seconds: read only this much of the beginning, 0.1 or more (else ValueError). The result is shorter if the file
            is. The scaling then depends on this part alone.

    Raises:
        Unreadable: the file is missing, is not a recording, has less than 0.1 s of sound, or non-finite samples.
    """
    if seconds is not None and not SHORTEST <= seconds < math.inf:
        raise ValueError(f"seconds={seconds} is not possible. Expected {SHORTEST} or more, or None for all.")
    name = readable(os.fspath(path))
    if Path(path).exists() and not Path(path).is_file():  # opening a pipe would block
        raise Unreadable(f"{name} is not a file. Give the path of a recording.", "no access")
    try:
        with Path(path).open("rb", buffering=0) as file:  # libsndfile reads from the position of the descriptor
            return _scaled(file, name, seconds)
    except FileNotFoundError as error:
        raise Unreadable(f"{name} does not exist. Check the path.", "missing") from error
    except OSError as error:
        raise Unreadable(f"{name} cannot be read ({error.strerror}). Check its permissions.", "no access") from error


def versions() -> str:
    """Return the versions of the decoding libraries, for cache keys."""
    return f"libsndfile {soundfile.__libsndfile_version__} soxr {soxr.__version__} av {metadata.version('av')}"


def _scaled(file: BinaryIO, name: str, seconds: float | None) -> np.ndarray:
    if not os.stat(file.fileno()).st_size:
        raise Unreadable(f"{name} is empty (0 bytes). Copy it again or delete it.", "empty")
    parts = list(_resampled(file, name, seconds))
    lengths = [len(part) for part in parts]
    if sum(lengths) < SHORTEST * RATE:
        raise Unreadable(f"{name} holds {sum(lengths) / RATE:.7g} s of sound, and {SHORTEST} s is the least. It may "
                         "have been cut off: replace or delete it.", "too short")  # fmt: skip
    peak = np.max([np.abs(part).max(initial=0) for part in parts])  # NaN if any sample is
    if not np.isfinite(peak):
        raise Unreadable(f"{name} holds samples that are not finite (NaN or infinity). Export it again or delete it.",
                         "not finite")  # fmt: skip
    if peak > WILD:
        warnings.warn(f"{name} peaks {20 * math.log10(peak):.0f} dB above full scale, so the whole recording is scaled "
                      "down by that much. If its loudest samples are faults, export it again.")  # fmt: skip
    scale = np.float32(32_767 / peak if peak > 1 else 32_768)
    samples = np.empty(sum(lengths), np.int16)
    for place, part in zip(np.split(samples, np.cumsum(lengths)[:-1]), parts, strict=True):
        place[:] = np.minimum(np.rint(part * scale), 32_767)
    return samples


def _resampled(file: BinaryIO, name: str, seconds: float | None) -> Iterator[np.ndarray]:
    """Yield the first `seconds` in parts, (n,) float32 at 16 kHz, averaged over channels."""
    left = None if seconds is None else round(seconds * RATE)
    stream, kept, whole = None, 0.0, 0.0
    for rate, block in _blocks(file, name):
        stream = stream or soxr.ResampleStream(rate, RATE, 1, dtype="float32", quality="HQ")
        mono = block.mean(1)
        kept, whole = kept + np.square(mono).sum(), whole + np.square(block).mean(1).sum()
        part = stream.resample_chunk(mono)[:left]  # samples at 16 kHz pass unchanged
        yield part
        left = left and left - len(part)
        if left == 0:
            break
    else:
        yield stream.resample_chunk(np.empty(0, np.float32), last=True)[:left]
    if kept < CANCELLED * whole:
        warnings.warn(f"The channels of {name} cancel each other out, so their average is almost silent. Export a "
                      "single channel.")  # fmt: skip


def _blocks(file: BinaryIO, name: str) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the sampling rate in Hz and (n, channels) float32 in -1 to 1, up to where the file is damaged."""
    begun = False
    for read in (_libsndfile, _ffmpeg):
        file.seek(0)
        # ValueError: rate or channels change midway. IndexError: there is no sound track, or one appears midway.
        with contextlib.suppress(soundfile.LibsndfileError, av.FFmpegError, OSError, ValueError, IndexError):
            for rate, block in read(file):
                if RATES[0] <= rate <= RATES[1]:
                    begun = True
                    yield rate, block
        if begun:
            return
    raise Unreadable(
        f"{name} is not a recording of a known format (WAV, FLAC, MP3, OGG, M4A, ...), or it is damaged or holds no "
        "sound. Convert, replace or delete it; raw samples need a header, as by: "
        "ffmpeg -f s16le -ar 16000 -ac 1 -i raw.wav whole.wav",
        "not audio",
    )


def _libsndfile(file: BinaryIO) -> Iterator[tuple[int, np.ndarray]]:
    with soundfile.SoundFile(file.fileno(), closefd=False) as sound:
        for block in sound.blocks(max(_BLOCK // sound.channels, 1), dtype="float32", always_2d=True):
            yield sound.samplerate, block


def _ffmpeg(file: BinaryIO) -> Iterator[tuple[int, np.ndarray]]:
    # Files and addresses named in a playlist are not opened. The length in the header of a WAV file is ignored.
    with av.open(file, options={"protocol_whitelist": "none", "ignore_length": "1"}) as container:
        convert = av.AudioResampler("flt")  # packed float32; layout and rate unchanged
        for frame in container.decode(audio=0):
            for plain in convert.resample(frame):
                yield plain.sample_rate, plain.to_ndarray().reshape(-1, plain.layout.nb_channels)
