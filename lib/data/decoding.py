"""Recordings of any common format, rate and channel count as 16 kHz mono.

    samples = decode("barking.m4a")  # (n,) int16
    samples = decode("night.wav", seconds=4)  # of hours, the first 4 s are read
    for part in decode_in_parts("night.wav"): …  # of hours, all of it, in the memory of seconds

The content decides on the format, not the file's extension: libsndfile reads it (wav, flac, ogg, mp3, aiff, au, ...),
and what libsndfile cannot, PyAV does (m4a, aac, wma, amr, the sound track of mp4, webm and mkv, ...).
"""

import contextlib
import io
import itertools
import math
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import soundfile
import soxr

from lib.data.catalog import DataError

RATE = 16_000  # Hz
SHORTEST = 0.1  # seconds; there is nothing to hear in less
REASONS = (
    "missing",  # there is no such file
    "no access",  # the file may not be read
    "not a file",  # a folder, a device
    "empty",  # 0 bytes
    "not audio",  # of no known format
    "no sound",  # without a sound track, or with one that holds no sample
    "truncated",  # begins like a recording, but breaks off or is damaged before anything is decoded
    "too short",  # less than SHORTEST, cut off or not
    "not finite",  # NaN or infinite samples
    "bad rate",  # a sampling rate outside of RATES
)
RATES = (1_000, 1_000_000)  # Hz; any other is a damaged header
OPPOSITE = -0.5  # correlation below which channels cancel each other

_BLOCK = 2**16  # samples decoded at a time, all channels together
_MARGIN = 0.1  # seconds read beyond the asked, so that the filter does not fade out at the cut
_UNRECOGNISED = 1  # libsndfile's error code of an unknown format

Blocks = Iterator[tuple[int, np.ndarray]]  # sampling rate in Hz, (n, channels) float32 in -1 to 1


class Unreadable(DataError):
    """A recording that cannot be used. `reason` is one of REASONS; the message names the file and what to do."""

    def __init__(self, message: str, reason: str):
        super().__init__(message, reason)  # both, so that the error can be pickled
        self.reason = reason

    def __str__(self) -> str:
        return self.args[0]


def decode(path: str | os.PathLike, *, seconds: float | None = None) -> np.ndarray:
    """The sound of a file: (n,) int16 at 16 kHz.

    Channels are averaged; but if the loudest is opposite in phase to the others' mean (correlation below -0.5), so
    that they would cancel, it stands alone. Other rates go through soxr's HQ filter: flat up to 7.4 kHz, nothing from
    above 8 kHz. Sound beyond full scale (float files, lossy formats, the filter's overshoot) is scaled down as a whole
    instead of clipped. An offset stays: to subtract the mean would turn digital silence into a step, and 16 kHz 16-bit
    mono comes out bit for bit as it is in the file.

    Of a file that breaks off or is damaged further on, all that comes before is returned, if that is 0.1 s or more.
    Memory is bounded by a small multiple of the result, however long the file and whatever its rate and channels.

    Args:
        path: the file.
        seconds: read only so much of the beginning, 0.1 or more. The result is shorter if the file is. Channels and
            scale are then decided on this part.

    Raises:
        Unreadable: the file is missing, no recording, or without 0.1 s of finite sound.
    """
    name = printable(path)
    with _opened(path, name) as file:
        return decode_stream(file, name, seconds=seconds)


@contextlib.contextmanager
def _opened(path: str | os.PathLike, name: str) -> Iterator[BinaryIO]:
    try:
        if not stat.S_ISREG(Path(path).stat().st_mode):  # opening a pipe would wait for ever
            raise Unreadable(f"{name} is not a file. Give the path of a recording.", "not a file")
        with Path(path).open("rb") as file:
            yield file
    except FileNotFoundError as error:
        raise Unreadable(f"{name} does not exist. Check the path.", "missing") from error
    except OSError as error:
        raise Unreadable(f"{name} cannot be read ({error.strerror}). Check its permissions.", "no access") from error


def decode_stream(file: BinaryIO, name: str, *, seconds: float | None = None) -> np.ndarray:
    """As `decode`, of an open file that can seek; `name` is for messages."""
    if seconds is not None and not SHORTEST <= seconds < math.inf:
        raise ValueError(f"seconds={seconds} is not possible. Expected {SHORTEST} or more, or None for all.")
    return _by_either(file, name, lambda read: _decoded(read, name, seconds))


def decode_in_parts(path: str | os.PathLike) -> Iterator[np.ndarray]:
    """What `decode` returns, part by part, (n,) int16 each: of a recording of hours in the memory of seconds.

    The file is read through once before the first part, as its loudest sample decides on the scale.

    Raises:
        Unreadable: as `decode`, before the first part.
    """
    name = printable(path)
    with _opened(path, name) as file:
        read, scale = _by_either(file, name, lambda read: (read, _measured(read, name)))
        for part in _resampled(*_mono(lambda: _checked(read(), name, None))):
            yield _as_int16(part, scale)


def _by_either(file: BinaryIO, name: str, use: Callable[[Callable[[], Blocks]], Any]) -> Any:
    """What `use` makes of a function that starts to read the file anew: by libsndfile, or by FFmpeg."""
    if not file.seek(0, io.SEEK_END):
        raise Unreadable(f"{name} is empty (0 bytes). Copy it again or delete it.", "empty")
    source = _Nameless(file)
    try:
        return use(lambda: _libsndfile(source))
    except soundfile.LibsndfileError as error:
        failure = _unknown(name) if error.code == _UNRECOGNISED else _broken(name)
    except Unreadable as error:
        if error.reason != "no sound":  # a length of 0 in the header may only say that a recorder was interrupted
            raise
        failure = error
    return use(lambda: _ffmpeg(source, name, failure))


def versions() -> str:
    """Of the libraries that decode, for cache keys."""
    return f"libsndfile {soundfile.__libsndfile_version__} soxr {soxr.__version__} av {metadata.version('av')}"


# --- From blocks to samples ---------------------------------------------------------------------


def _decoded(read: Callable[[], Blocks], name: str, seconds: float | None) -> np.ndarray:
    """(n,) int16 of the blocks that `read` starts to give anew with each call."""
    mono = _mono(lambda: _checked(read(), name, seconds))
    left = None if seconds is None else round(seconds * RATE)
    parts = []
    for part in _resampled(*mono):
        parts.append(part[:left])
        if left is not None:
            left -= len(parts[-1])
    scale = _scale(parts, name)
    samples = np.empty(sum(map(len, parts)), np.int16)
    start = 0
    for part in parts:  # joined parts would take twice
        samples[start : start + len(part)] = _as_int16(part, scale)
        start += len(part)
    return samples


def _measured(read: Callable[[], Blocks], name: str) -> float:
    """The scale of what `read` gives, nothing of which is kept."""
    return _scale(_resampled(*_mono(lambda: _checked(read(), name, None))), name)


def _scale(parts: Iterable[np.ndarray], name: str) -> float:
    """By what samples are multiplied to become int16; refuses what is no sound."""
    count, peak = 0, 0.0
    for part in parts:
        count += len(part)
        peak = max(peak, float(np.abs(part).max(initial=0)))
    if not count:
        raise Unreadable(f"{name} holds no sound, only a header. Replace or delete it.", "no sound")
    if count < SHORTEST * RATE:
        raise Unreadable(
            f"{name} holds {count / RATE:.4f} s of sound, and {SHORTEST} s is the least. It may have been cut off: "
            f"replace or delete it.",
            "too short",
        )
    return 32_767 / peak if peak > 1 else 32_768


def _as_int16(part: np.ndarray, scale: float) -> np.ndarray:
    return np.minimum(np.rint(part * np.float32(scale)), 32_767).astype(np.int16)


def _checked(blocks: Blocks, name: str, seconds: float | None) -> Blocks:
    """The first `seconds` and a margin, refused if they are no sound."""
    left = math.inf
    for rate, block in blocks:
        if not RATES[0] <= rate <= RATES[1]:
            raise Unreadable(
                f"{name} says it has {rate} samples a second, expected {RATES[0]} to {RATES[1]}: its header is "
                f"damaged. Replace or delete it.",
                "bad rate",
            )
        if seconds is not None and left == math.inf:
            left = math.ceil((seconds + _MARGIN) * rate)
        block = block[: None if left == math.inf else left]
        left -= len(block)
        if not np.isfinite(block).all():
            raise Unreadable(
                f"{name} holds samples that are not finite (NaN or infinity). Export it again or delete it.",
                "not finite",
            )
        yield rate, block
        if left <= 0:
            return


def _mono(read: Callable[[], Blocks]) -> tuple[int, Iterator[np.ndarray]]:
    """The sampling rate, and blocks (n,) float32 of all channels together."""
    blocks = read()
    first = next(blocks, None)
    if first is None:
        return RATE, iter(())
    rate, block = first
    whole = itertools.chain([first], blocks)
    if block.shape[1] == 1:
        return rate, (block[:, 0] for _, block in whole)
    weights = _weights(block for _, block in whole)
    return rate, (block @ weights for _, block in read())


def _weights(blocks: Iterator[np.ndarray]) -> np.ndarray:
    """What each channel counts: (channels,) float32, equal or the loudest alone."""
    count, total, products = 0, 0.0, 0.0
    for block in blocks:
        exact = block.astype(np.float64)
        count += len(exact)
        total = total + exact.sum(0)
        products = products + exact.T @ exact
    covariance = products / count - np.outer(total, total) / count**2  # an offset is no sound
    loudest = int(covariance.diagonal().argmax())
    own, row = covariance[loudest, loudest], covariance[loudest].sum()
    others = covariance.sum() - 2 * row + own  # variance of the other channels' sum
    channels = len(covariance)
    if own > 0 and others > 0 and row - own < OPPOSITE * math.sqrt(own * others):
        return np.eye(channels, dtype=np.float32)[loudest]
    return np.full(channels, 1 / channels, np.float32)


def _resampled(rate: int, blocks: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    if rate == RATE:
        yield from blocks
        return
    stream = soxr.ResampleStream(rate, RATE, 1, dtype="float32", quality="HQ")
    for block in blocks:
        yield stream.resample_chunk(block)
    yield stream.resample_chunk(np.empty(0, np.float32), last=True)


# --- Reading ------------------------------------------------------------------------------------


class _Nameless:
    """An open file without its name: only the content tells the format, and no path meets a decoder's encoding."""

    def __init__(self, file: BinaryIO):
        self.read, self.readinto, self.tell = file.read, file.readinto, file.tell
        self._seek = file.seek

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        try:
            return self._seek(offset, whence)
        except (OSError, ValueError):  # damaged files lead libsndfile to before the beginning
            return -1


def _libsndfile(file: _Nameless) -> Blocks:
    """Raises LibsndfileError at the start or anywhere later."""
    file.seek(0)
    with soundfile.SoundFile(file) as sound:
        frames = max(_BLOCK // sound.channels, 1)
        while len(block := sound.read(frames, dtype="float32", always_2d=True)):
            yield sound.samplerate, block


def _ffmpeg(file: _Nameless, name: str, failure: Unreadable) -> Blocks:
    """Ends where the file is damaged; raises `failure` if that is before the first sample."""
    import av  # here: few recordings need it

    file.seek(0)
    started = False
    try:
        # A playlist may name other files and addresses; none of them is opened.
        with av.open(file, options={"protocol_whitelist": "none"}) as container:
            if not container.streams.audio:
                raise Unreadable(f"{name} has no sound track. Replace or delete it.", "no sound")
            track = container.streams.audio[0]
            convert = av.AudioResampler("flt")  # packed float32; layout and rate as they are
            for frame in itertools.chain(container.decode(track), [None]):
                for plain in convert.resample(frame) if frame is not None or started else ():
                    started = True
                    yield plain.sample_rate, plain.to_ndarray().reshape(-1, plain.layout.nb_channels)
    except (av.FFmpegError, ValueError) as error:  # ValueError: rate or channels change on the way
        if started:
            return
        raise failure from error


def _unknown(name: str) -> Unreadable:
    return Unreadable(
        f"{name} is not a recording of a known format (WAV, FLAC, MP3, OGG, M4A, ...). Convert or delete it.",
        "not audio",
    )


def _broken(name: str) -> Unreadable:
    return Unreadable(f"{name} is cut off or damaged: nothing of it can be decoded. Replace or delete it.", "truncated")


def printable(path: str | os.PathLike) -> str:
    """A path as text that can be printed, whatever bytes its name holds."""
    text = os.fspath(path)
    with contextlib.suppress(UnicodeEncodeError):
        text.encode()
        return text
    return os.fsencode(text).decode("utf-8", "backslashreplace")
