import contextlib
import io
import itertools
import os
import pickle
import tempfile
import tracemalloc
import unicodedata
import warnings
import wave
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lib.data import decoding
from lib.data.catalog import DataError, readable
from lib.data.decoding import RATE, Unreadable, decode


def tone(frequency, rate=RATE, seconds=1.0, level=0.5):
    return level * np.sin(2 * np.pi * frequency * np.arange(round(rate * seconds)) / rate)


def noise(count, seed=0, level=0.1):
    return level * np.random.default_rng(seed).standard_normal(count).clip(-4, 4)


def sound_file(samples, rate=RATE, kind="WAV", subtype=None):
    """Return the bytes of a file written by libsndfile."""
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=kind, subtype=subtype)
    return buffer.getvalue()


def av_file(samples, container, codec, rate=RATE, *, picture=False):
    """Return the bytes of a file written by FFmpeg: one sound track, mono or (n, 2), and with `picture` a video."""
    samples = np.asarray(samples, np.float32).reshape(len(samples), -1)
    buffer = io.BytesIO()
    layout = "mono" if samples.shape[1] == 1 else "stereo"
    with av.open(buffer, "w", format=container) as output:
        film = output.add_stream("mpeg4", rate=25, width=64, height=64) if picture else None
        track = output.add_stream(codec, rate=rate, layout=layout, bit_rate=128_000)
        if film:
            for number in range(5):
                still = av.VideoFrame(64, 64, "yuv420p")
                still.pts, still.time_base = number, Fraction(1, 25)
                output.mux(film.encode(still))
            output.mux(film.encode())
        frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1), format="flt", layout=layout)
        frame.sample_rate = rate
        for plain in av.AudioResampler(track.format, layout, rate, track.frame_size or None).resample(frame):
            output.mux(track.encode(plain))
        output.mux(track.encode())
    return buffer.getvalue()


def decoded(content, **options):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "the file")
        path.write_bytes(content)
        return decode(path, **options)


def reason(content, **options):
    with pytest.raises(Unreadable, match="the file") as caught:
        decoded(content, **options)
    assert isinstance(caught.value, DataError)
    return caught.value.reason


def level(samples):
    """Return the RMS of the inner part in dB, relative to a sine at half of full scale."""
    inner = samples[len(samples) // 8 : -len(samples) // 8] / 32_768
    return 10 * np.log10(8 * (inner**2).mean() + 1e-20)


def likeness(samples, reference):
    """Return the largest correlation over small shifts, as lossy formats may delay the sound."""
    reference = reference[1000:-1000]
    starts = range(max(len(samples) - len(reference) + 1, 1))
    starts = [start for start in starts if start < 4000]
    return max(np.corrcoef(samples[start : start + len(reference)], reference)[0, 1] for start in starts)


# --- Formats ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "AIFF"])
def test_sixteen_bits_at_16_khz_come_out_bit_for_bit(kind):
    samples = np.arange(-32_768, 32_768).astype(np.int16)
    result = decoded(sound_file(samples, kind=kind))
    assert result.dtype == np.int16 and np.array_equal(result, samples)


STEPS = {"PCM_U8": 2**-7, "ULAW": 2**-5, "ALAW": 2**-5, "PCM_24": 2**-15, "PCM_32": 2**-15, "FLOAT": 2**-15,
         "DOUBLE": 2**-15}  # fmt: skip


@pytest.mark.parametrize("subtype", STEPS)
def test_every_sample_width(subtype):
    samples = tone(440)
    result = decoded(sound_file(samples, subtype=subtype)) / 32_768
    assert np.abs(result - samples).max() <= STEPS[subtype]


@pytest.mark.parametrize(("kind", "subtype"), [("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", None), ("AU", None),
                                               ("CAF", None), ("W64", None), ("WAV", "IMA_ADPCM")])  # fmt: skip
def test_formats_of_libsndfile(kind, subtype):
    samples = tone(300) * np.linspace(0, 1, RATE)
    assert likeness(decoded(sound_file(samples, kind=kind, subtype=subtype)), samples) > 0.99


@pytest.mark.parametrize(
    ("container", "codec", "picture"),
    [("ipod", "aac", False), ("mp4", "aac", True), ("adts", "aac", False), ("webm", "libopus", False),
     ("matroska", "ac3", True), ("asf", "wmav2", False), ("mov", "pcm_s16be", True), ("3gp", "aac", False)],
)  # fmt: skip
def test_formats_of_ffmpeg(container, codec, picture):
    rate = 48_000
    samples = tone(300, rate) * np.linspace(0, 1, rate)
    content = av_file(np.stack([samples] * 2, 1), container, codec, rate, picture=picture)
    with pytest.raises(soundfile.LibsndfileError):  # otherwise FFmpeg would not be tested
        soundfile.SoundFile(io.BytesIO(content))
    result = decoded(content)
    assert abs(len(result) - RATE) < 2500  # encoders pad to whole frames
    assert likeness(result, tone(300) * np.linspace(0, 1, RATE)) > 0.99
    assert len(decoded(content, seconds=0.25)) == RATE // 4


def test_amr():
    """The speech format of telephones, written by hand: a header and 20 ms frames at the highest bit rate."""
    assert len(decoded(b"#!AMR\n" + (b"\x3c" + bytes(31)) * 50)) == RATE


def test_content_decides_and_not_the_extension(tmp_path):
    samples = np.rint(tone(500) * 32_767).astype(np.int16)
    for name in ("x.raw", "x.mp3", "x.txt", "x", "x.ogg", "x.m3u8"):
        (tmp_path / name).write_bytes(sound_file(samples))
        assert np.array_equal(decode(tmp_path / name), samples), name
    (tmp_path / "x.wav").write_bytes(av_file(tone(500), "ipod", "aac"))
    assert likeness(decode(str(tmp_path / "x.wav")), tone(500)) > 0.99


@pytest.mark.parametrize("name", ["비명 소리.wav", unicodedata.normalize("NFD", "비명 소리.wav"),
                                  os.fsdecode("비명.wav".encode("cp949")), "a\nb %s 'x'.wav"])  # fmt: skip
def test_paths(tmp_path, name):
    path = tmp_path / name
    try:
        path.write_bytes(sound_file(tone(440)))
    except (OSError, UnicodeError):
        pytest.skip("this file system has no such name")
    assert len(decode(path)) == len(decode(os.fspath(path))) == RATE
    path.write_bytes(b"")
    with pytest.raises(Unreadable) as caught:
        decode(path)
    str(caught.value).encode()  # can be printed
    assert readable(name) in str(caught.value)


# --- Rate ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 48_000, 96_000])
def test_rates(rate):
    result = decoded(sound_file(tone(1000, rate), rate, subtype="FLOAT"))
    assert len(result) == RATE
    inner = slice(2000, -2000)  # without the abrupt start and end
    assert np.abs(result[inner] / 32_768 - tone(1000)[inner]).max() < 1e-4


@pytest.mark.parametrize("rate", [22_050, 44_100, 48_000])
def test_nothing_above_8_khz_is_folded_back(rate):
    def heard(frequency):
        return level(decoded(sound_file(tone(frequency, rate), rate, subtype="FLOAT")))

    assert [heard(f) for f in (50, 4000, 7400)] == pytest.approx([0, 0, 0], abs=0.1)
    assert all(heard(f) < -60 for f in (8_050, 9_000, 10_500))


def test_blocks_leave_no_seams(monkeypatch):
    content = sound_file(np.stack([noise(50_000, 1), noise(50_000, 2)], 1), 44_100, subtype="FLOAT")
    whole = decoded(content)
    monkeypatch.setattr(decoding, "_BLOCK", 4_001)
    assert np.abs(decoded(content).astype(int) - whole).max() <= 1


@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_the_first_seconds_are_those_of_the_whole(rate):
    content = sound_file(noise(rate), rate)
    part = decoded(content, seconds=0.4)
    assert len(part) == 6400
    assert np.abs(part.astype(int) - decoded(content)[:6400]).max() <= 1
    assert len(decoded(content, seconds=5)) == RATE


@pytest.mark.parametrize("seconds", [0, -1, 0.05, float("nan"), float("inf")])
def test_impossible_seconds(seconds):
    with pytest.raises(ValueError, match="seconds="):
        decoded(sound_file(tone(440)), seconds=seconds)


@pytest.mark.parametrize("rate", [1, 999, 2_000_000])
def test_a_rate_that_no_recording_has(rate):
    assert reason(sound_file(tone(440), rate)) == "not audio"


# --- Channels -----------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", range(1, 9))
def test_channels_are_averaged(channels):
    parts = np.stack([noise(8000, seed) for seed in range(channels)], 1)
    result = decoded(sound_file(parts, subtype="FLOAT")) / 32_768
    assert np.abs(result - parts.mean(1)).max() < 2**-15


@pytest.mark.parametrize("signs", [(-1, 0.8), (0.8, -1), (0.5, -1, 0.5)])
def test_channels_that_cancel_are_told(signs):
    samples = tone(440, level=0.3)
    with pytest.warns(UserWarning, match="channels of .*the file cancel each other out"):
        result = decoded(sound_file(np.outer(samples, signs), subtype="FLOAT")) / 32_768
    assert np.abs(result - samples * np.mean(signs)).max() < 2**-14


def test_nothing_is_said_of_channels_that_have_little_in_common():
    with warnings.catch_warnings(action="error"):
        decoded(sound_file(np.stack([noise(RATE, seed) for seed in range(6)], 1)))


# --- Levels -------------------------------------------------------------------------------------


@pytest.mark.parametrize("gain", [1, 1.5, 100, 32_768])
def test_beyond_full_scale_is_scaled_down_and_not_clipped(gain):
    samples = tone(440, level=1)
    result = decoded(sound_file(gain * samples, subtype="FLOAT")) / 32_768
    assert np.abs(result - samples).max() < 1e-3 and result.max() > 0.99


def test_clipped_recording():
    samples = np.where(np.arange(44_100) // 50 % 2, 1.0, -1.0)  # full scale throughout: the filter overshoots
    result = decoded(sound_file(samples, 44_100))
    assert np.abs(result.astype(int)).max() == 32_767
    assert np.mean(np.abs(result.astype(int)) >= 32_766) < 0.05, "nothing is clipped a second time"


def test_silence_and_offset_stay():
    assert not decoded(sound_file(np.zeros(RATE))).any()
    assert (decoded(sound_file(np.full(RATE, 0.25))) == 8192).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("channels", [1, 2])
def test_not_finite(value, channels):
    samples = np.zeros((RATE, channels))
    samples[9000, -1] = value
    content = sound_file(samples, subtype="FLOAT")
    assert reason(content) == "not finite"
    assert len(decoded(content, seconds=0.3)) == 4800, "what is not read is not judged"


def test_what_a_loud_sample_drowns_is_told():
    samples = noise(4 * RATE)
    samples[RATE] = 17_600
    with pytest.warns(
        UserWarning, match="the file peaks 85 dB above full scale, so the whole recording is scaled down"
    ):
        result = decoded(sound_file(samples, subtype="FLOAT"))
    assert result.max() == 32_767 and np.abs(result[:RATE]).max() <= 1


# --- Headers -------------------------------------------------------------------------------------


def flac_of(samples, announced):
    """Return FLAC whose header announces `announced` samples."""
    content = bytearray(sound_file(samples, kind="FLAC"))
    content[21], content[22:26] = content[21] & 0xF0, announced.to_bytes(4, "big")
    return bytes(content)


@pytest.mark.parametrize("announced", [0, 2**32 - 1])
def test_a_flac_of_unknown_length_is_heard_to_its_end(announced):
    samples = np.rint(32_768 * noise(3 * RATE)).astype(np.int16)
    assert np.array_equal(decoded(flac_of(samples, announced)), samples)
    assert np.array_equal(decoded(flac_of(samples, announced), seconds=2), samples[: 2 * RATE])


def test_wav_with_chunks_behind_the_sound():
    """Pictures and texts after the samples are not read as sound."""
    samples = np.rint(32_768 * noise(RATE)).astype(np.int16)
    picture = np.random.default_rng(0).bytes(50_001)
    content = sound_file(samples) + b"id3 " + len(picture).to_bytes(4, "little") + picture + b"\0"
    with warnings.catch_warnings(action="error"):
        assert np.array_equal(decoded(content), samples)


# --- Damage -------------------------------------------------------------------------------------

NOISE = noise(48_000)
WHOLE = {"wav": sound_file(NOISE), "flac": sound_file(NOISE, kind="FLAC"), "ogg": sound_file(NOISE, kind="OGG")}


@pytest.mark.parametrize("kind", WHOLE)
def test_truncated(kind):
    """What is left is returned if it is 0.1 s or more; otherwise the file is refused."""
    whole, reference = WHOLE[kind], decoded(WHOLE[kind])
    part = decoded(whole[: len(whole) // 2])
    assert 8_000 < len(part) < 30_000
    assert np.array_equal(part[:8000], reference[:8000])
    for size in (len(whole) // 40, 200, 60, 44, 20):
        assert reason(whole[:size]) in ("not audio", "too short"), size


@pytest.mark.parametrize("announced", [0, 10**6, 2**31 - 1, 2**32 - 1])
def test_wav_with_wrong_chunk_sizes(announced):
    """As left behind by interrupted recorders."""
    content = bytearray(sound_file(noise(RATE)))
    for place in (4, 40):
        content[place : place + 4] = announced.to_bytes(4, "little")
    assert np.array_equal(decoded(bytes(content)), decoded(sound_file(noise(RATE))))


def test_too_little():
    assert reason(b"") == "empty"
    assert reason(sound_file(np.zeros(0))) == "not audio"
    assert len(sound_file(np.zeros(0))) == 44
    assert reason(sound_file(np.zeros(1))) == reason(sound_file(np.zeros(1599))) == "too short"
    assert len(decoded(sound_file(np.zeros(1600)))) == 1600


def picture(kind):
    buffer = io.BytesIO()
    Image.new("RGB", (32, 32)).save(buffer, kind)
    return buffer.getvalue()


NO_RECORDING = {
    "one byte": b"\0",
    "text": b"no recording\n" * 500,
    "random": np.random.default_rng(0).bytes(100_000),
    "zeros": bytes(100_000),
    "mp3 headers": b"\xff\xfb" * 5000,
    "zip": b"PK\3\4" + np.random.default_rng(1).bytes(9000),
    "program": Path(decoding.__file__).read_bytes(),
    "raw samples": np.rint(32_767 * tone(440)).astype("<i2").tobytes(),
    "raw noise": np.rint(32_767 * noise(5 * RATE)).astype("<i2").tobytes(),
    "raw floats": noise(RATE).astype("<f4").tobytes(),
}


@pytest.mark.parametrize("name", NO_RECORDING)
def test_no_recording(name):
    assert reason(NO_RECORDING[name]) == "not audio"
    with pytest.raises(Unreadable, match="raw samples need a header, as by: ffmpeg -f s16le"):
        decoded(NO_RECORDING[name])


@pytest.mark.parametrize("kind", ["png", "jpeg", "gif"])
def test_pictures_have_no_sound(kind):
    assert reason(picture(kind)) == "not audio"


@pytest.mark.parametrize(
    "playlist",
    ["#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{}\n#EXT-X-ENDLIST\n", "ffconcat version 1.0\nfile '{}'\n"],
)
def test_a_playlist_opens_nothing(tmp_path, playlist):
    (tmp_path / "x.aac").write_bytes(av_file(tone(440), "adts", "aac"))
    for address in (tmp_path / "x.aac", f"file:{tmp_path}/x.aac"):
        assert reason(playlist.format(address).encode()) == "not audio"


@pytest.mark.parametrize(("good", "expected"), [(10, None), (0, "not audio")])
def test_a_track_that_appears_on_the_way_is_the_end(monkeypatch, good, expected):
    """As in a damaged FLV: PyAV finds no stream with a packet's number."""
    whole, content = decoding._ffmpeg, av_file(tone(440), "flv", "aac")

    def breaks_off(file):
        yield from itertools.islice(whole(file), good)
        raise IndexError("list index out of range")

    monkeypatch.setattr(decoding, "_ffmpeg", breaks_off)
    if expected:
        assert reason(content) == expected
    else:
        assert 5000 < len(decoded(content)) < RATE


@given(st.sampled_from(sorted(WHOLE)), st.data())
@settings(max_examples=30, deadline=None)
def test_any_damage_gives_a_result_or_a_typed_rejection(kind, data):
    content = bytearray(WHOLE[kind])
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, 200) | st.integers(0, len(content) - 1))
        content[start : start + 4] = data.draw(st.binary(min_size=0, max_size=8))
    with contextlib.suppress(Unreadable):
        result = decoded(bytes(content), seconds=1)
        assert result.dtype == np.int16 and 1600 <= len(result) <= RATE


# --- Files --------------------------------------------------------------------------------------


def test_files_that_are_none(tmp_path, monkeypatch):
    for path, expected in ((tmp_path / "nowhere.wav", "missing"), (tmp_path, "no access")):
        with pytest.raises(Unreadable, match=path.name) as caught:
            decode(path)
        assert caught.value.reason == expected
    (tmp_path / "x.wav").write_bytes(WHOLE["wav"])

    def refuse(*arguments, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(Unreadable, match=r"x\.wav cannot be read \(Permission denied\). Check") as caught:
        decode(tmp_path / "x.wav")
    assert caught.value.reason == "no access"


def test_memory_is_bounded_by_the_result(tmp_path):
    """With ten minutes of four channels at 24 kHz: 115 MB, mostly a hole in a sparse file."""
    rate, seconds = 24_000, 600
    with wave.open(str(tmp_path / "long.wav"), "wb") as file:
        file.setparams((4, 2, rate, seconds * rate, "NONE", ""))
        file.writeframes(b"")
    with (tmp_path / "long.wav").open("r+b") as file:
        size = file.seek(0, io.SEEK_END) + seconds * rate * 8
        file.truncate(size)
        for place, value in ((4, size - 8), (40, size - 44)):
            file.seek(place)
            file.write(value.to_bytes(4, "little"))

    def peak(**options):
        tracemalloc.start()
        try:
            return len(decode(tmp_path / "long.wav", **options)), tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    count, most = peak(seconds=4)
    assert count == 4 * RATE and most < 4e6
    count, most = peak()
    assert count == seconds * RATE and most < 4 * 2 * count


def test_the_error_survives_pickling():
    with pytest.raises(Unreadable) as caught:
        decoded(b"")
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.reason) == (str(caught.value), "empty")


def test_what_is_no_file_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(Unreadable, match="is not a file"):
            decode(path)
