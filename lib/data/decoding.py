"""Recordings of any common format, rate and channel count as 16 kHz mono.

    samples = decode("barking.m4a")  # (n,) int16
    samples = decode("night.wav", seconds=4)  # of hours, the first 4 s are read
    for part in decode_in_parts("night.wav"): …  # of hours, all of it, in the memory of seconds

The content decides on the format, not the file's extension: libsndfile reads it (wav, flac, ogg, mp3, aiff, au, ...),
and what libsndfile cannot, PyAV does (m4a, aac, wma, amr, the sound track of mp4, webm and mkv, ...). PyAV also reads
what holds more than its header says: FLAC, MP3 and OGG put one behind another, WAV with too small a size.
"""

import contextlib
import io
import itertools
import math
import os
import stat
import warnings
from collections.abc import Callable, Iterator
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
WILD = 4.0  # times full scale: beyond, samples may be faults of the file and no sound

_BLOCK = 2**16  # samples decoded at a time, all channels together
_MARGIN = 0.1  # seconds read beyond the asked, so that the filter does not fade out at the cut
_UNRECOGNISED = 1  # libsndfile's error code of an unknown format
_FAR = 2.0**11  # 66 dB: what is so far below the loudest is hardly heard beside it
_LARGEST = 1e30  # times full scale: twice that is finite in float32, and so is what a filter makes of it
_CHUNKS = {"WAV": "little", "WAVEX": "little", "AIFF": "big"}  # formats of chunks with a length each: its byte order
_STREAMS = ("FLAC", "OGG", "MP3", "AU")  # formats in which what follows is heard as well
_SLACK = 0.5, 4096  # seconds, bytes that may follow the end that a header names: padding, tags

Blocks = Iterator[tuple[int, np.ndarray]]  # sampling rate in Hz, (n, channels) float32 in -1 to 1


class _Longer(Exception):
    """There is more in the file than libsndfile has read."""


class Unreadable(DataError):
    """A recording that cannot be used. `reason` is one of REASONS; the message names the file and what to do."""

    def __init__(self, message: str, reason: str):
        super().__init__(message, reason)  # both, so that the error can be pickled
        self.reason = reason

    def __str__(self) -> str:
        return self.args[0]


def decode(path: str | os.PathLike, *, seconds: float | None = None) -> np.ndarray:
    """The sound of a file: (n,) int16 at 16 kHz.

    Samples far beyond full scale (`WILD`) are faults if all that is as loud lasts less than 0.1 s, or 1 % of a shorter
    sound: they are limited, with a warning, as else all others would be scaled down to silence.

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
    _, scale, parts = _by_either(file, name, lambda read: _measured(read, name, seconds, True), seconds or math.inf)
    samples = np.empty(sum(map(len, parts)), np.int16)
    start = 0
    for part in parts:  # joined parts would take twice
        samples[start : start + len(part)] = _as_int16(part, scale)
        start += len(part)
    return samples


def decode_in_parts(path: str | os.PathLike) -> Iterator[np.ndarray]:
    """What `decode` returns, part by part, (n,) int16 each: of a recording of hours in the memory of seconds.

    The file is read through once before the first part, as its loudest sample decides on the scale.

    Raises:
        Unreadable: as `decode`, before the first part.
    """
    name = printable(path)
    with _opened(path, name) as file:
        read, scale, _ = _by_either(file, name, lambda read: _measured(read, name, None, False))
        for part in _resampled(*_mono(lambda: _checked(read(), name, None))):
            yield _as_int16(part, scale)


def _by_either(file: BinaryIO, name: str, use: Callable[[Callable[[], Blocks]], Any], enough: float = math.inf) -> Any:
    """What `use` makes of a function that starts to read the file anew: by libsndfile, or by FFmpeg.

    enough: seconds that it needs of the beginning.
    """
    if not file.seek(0, io.SEEK_END):
        raise Unreadable(f"{name} is empty (0 bytes). Copy it again or delete it.", "empty")
    source = _Nameless(file)
    try:
        return use(lambda: _libsndfile(source, name, enough))
    except _Longer:
        failure = _broken(name)
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


def _measured(
    read: Callable[[], Blocks], name: str, seconds: float | None, keep: bool
) -> tuple[Callable[[], Blocks], float, list[np.ndarray]]:
    """`read`, limited where it has to be, by what its samples are multiplied, and these samples if they are to be kept.

    read: starts to give the blocks anew with each call.
    """
    left, kept, count, peak = math.inf if seconds is None else round(seconds * RATE), [], 0, 0.0
    for part in _resampled(*_mono(lambda: _checked(read(), name, seconds))):
        part = part[: None if left == math.inf else left]
        left -= len(part)
        count += len(part)
        peak = np.maximum(peak, np.abs(part).max(initial=0))  # not a number if one is: filters overflow
        if keep:
            kept.append(part)
    if not count:
        raise Unreadable(f"{name} holds no sound, only a header. Replace or delete it.", "no sound")
    if count < SHORTEST * RATE:
        raise Unreadable(
            f"{name} holds {count / RATE:.7g} s of sound, and {SHORTEST} s is the least. It may have been cut off: "
            f"replace or delete it.",
            "too short",
        )
    if not peak <= WILD and (limited := _limited(read, name, seconds)):
        return _measured(limited, name, seconds, keep)
    return read, 32_767 / peak if peak > 1 else 32_768, kept


def _limited(read: Callable[[], Blocks], name: str, seconds: float | None) -> Callable[[], Blocks] | None:
    """`read` without samples far beyond all others; None where there are none."""
    counts = np.zeros(256, np.int64)  # of samples that are not 0, by the binary exponent of their magnitude
    rate = RATE
    for rate, block in _checked(read(), name, seconds):  # noqa: B007 (the last one's)
        loudest = np.abs(block).max(1)
        counts += np.bincount(np.frexp(loudest[loudest > 0])[1].clip(-126) + 126, minlength=256)
    louder = counts[::-1].cumsum()[::-1]  # how many have this exponent or a higher one
    few = min(SHORTEST * rate, 0.01 * louder[0])
    level, median = (2.0 ** (int((louder > most).nonzero()[0][-1]) - 126) for most in (few, louder[0] / 2))
    ceiling = WILD * max(level, 1)
    wild = int(louder[round(math.log2(ceiling)) + 127])
    if not wild:
        if level > _FAR * median:
            warnings.warn(f"{name} reaches {20 * math.log10(level):.0f} dB over full scale, and half of it is "
                          "so far below that they are silence beside it. Export it again if that is no sound.",
                          stacklevel=2)  # fmt: skip
        return None
    warnings.warn(f"{name} holds {wild} samples far beyond all others, which are no sound: they are limited. Export it "
                  "again if you can.", stacklevel=2)  # fmt: skip
    ceiling *= 1 - 1e-6  # below the power of two: what is limited is not wild again
    return lambda: ((rate, block.clip(-ceiling, ceiling)) for rate, block in read())


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
        yield rate, block.clip(-_LARGEST, _LARGEST)
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
        self.size = file.seek(0, io.SEEK_END)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        try:
            return self._seek(offset, whence)
        except (OSError, ValueError):  # damaged files lead libsndfile to before the beginning
            return -1


def _libsndfile(file: _Nameless, name: str, enough: float) -> Blocks:
    """Raises LibsndfileError at the start or anywhere later, _Longer at an end before `enough` seconds."""
    file.seek(0)
    with soundfile.SoundFile(file) as sound:
        frames, count = max(_BLOCK // sound.channels, 1), 0
        while len(block := sound.read(frames, dtype="float32", always_2d=True)):
            count += len(block)
            yield sound.samplerate, block
        kind, rate, end = sound.format, sound.samplerate, file.tell()
    if count / rate >= enough:
        return
    if kind in _CHUNKS:
        if _more_than_chunks(file, end, _CHUNKS[kind]):
            heard = "not heard: convert it and try again" if kind == "AIFF" else "heard as sound"
            warnings.warn(f"{name} holds {file.size - end:,} bytes behind the end that its header names; they are "
                          f"{heard}.", stacklevel=2)  # fmt: skip
            raise _Longer
    elif kind in _STREAMS and _lasts_longer(file, count / rate + _SLACK[0], _unknown(name) if kind == "MP3" else None):
        raise _Longer


def _more_than_chunks(file: _Nameless, place: int, order: str) -> bool:
    """Whether from `place` on there is something else than chunks: sound, or a second file."""
    while place < file.size - _SLACK[1]:
        file.seek(place)
        kind, length = file.read(4).lstrip(b"\0"), int.from_bytes(file.read(4), order)
        if kind in (b"RIFF", b"FORM") or not (kind.isascii() and kind.decode().isprintable()):
            return True
        place += 8 + length + length % 2
    return place > file.size + 1


def _lasts_longer(file: _Nameless, seconds: float, failure: Unreadable | None) -> bool:
    """Whether FFmpeg finds more sound than that, whatever the header says.

    failure: raised where it does not know the format. libsndfile knows an MP3 by a few bits, and finds them in raw
    samples as well.
    """
    import av

    try:
        with _container(file) as container:
            packets = container.demux(container.streams.audio[0])
            if sum(float(packet.duration * packet.time_base) for packet in packets if packet.duration) <= seconds:
                return False
    except (av.FFmpegError, ValueError, IndexError) as error:
        if failure:
            raise failure from error
        return False
    found = 0.0  # packets only say about how long they are
    with contextlib.suppress(av.FFmpegError, ValueError, IndexError), _container(file) as container:
        for frame in container.decode(container.streams.audio[0]):
            found += frame.samples / frame.sample_rate
    return found > seconds


def _container(file: _Nameless) -> Any:
    import av  # here: few recordings need it

    file.seek(0)
    # A playlist may name other files and addresses; none of them is opened. A length in a WAV's header is not believed.
    return av.open(file, options={"protocol_whitelist": "none", "ignore_length": "1"})


def _ffmpeg(file: _Nameless, name: str, failure: Unreadable) -> Blocks:
    """Ends where the file is damaged; raises `failure` if that is before the first sample."""
    import av

    started = False
    try:
        with _container(file) as container:
            if not container.streams.audio and not container.streams.video:
                raise failure  # raw samples look like many a format
            if not container.streams.audio:
                raise Unreadable(f"{name} has no sound track. Replace or delete it.", "no sound")
            track = container.streams.audio[0]
            convert = av.AudioResampler("flt")  # packed float32; layout and rate as they are
            for frame in itertools.chain(container.decode(track), [None]):
                for plain in convert.resample(frame) if frame is not None or started else ():
                    started = True
                    yield plain.sample_rate, plain.to_ndarray().reshape(-1, plain.layout.nb_channels)
    # ValueError: rate or channels change on the way. IndexError: a track appears there, of which PyAV does not know.
    except (av.FFmpegError, ValueError, IndexError) as error:
        if started:
            return
        raise failure from error


def _unknown(name: str) -> Unreadable:
    return Unreadable(
        f"{name} is not a recording of a known format (WAV, FLAC, MP3, OGG, M4A, ...). Convert or delete it; "
        f"raw samples need a header, as by: ffmpeg -f s16le -ar 16000 -ac 1 -i raw.wav whole.wav",
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
