import os
import unicodedata

import av
import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lib.data import decoding
from lib.data.catalog import DataError
from lib.data.decoding import RATE, REASONS, Unreadable, decode


def tone(hertz=440.0, seconds=0.5, rate=RATE, level=0.3):
    return level * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)


def write(path, wave, rate=RATE, **options):
    soundfile.write(path, wave, rate, **options)
    return path


def level(samples):
    """Root mean square, full scale 1."""
    return float(np.sqrt(np.mean((samples / 32767.0) ** 2)))


def with_ffmpeg(path, codec, rate=48_000, seconds=1.0):
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.layout = "stereo"
        wave = tone(rate=rate, seconds=seconds).astype(np.float32)
        frame = av.AudioFrame.from_ndarray(np.stack([wave, wave]), format="fltp", layout="stereo")
        frame.rate = rate
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    return path


# -- Kinds of files ------------------------------------------------------------------------------


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW"])
def test_wav_of_every_coding(tmp_path, subtype):
    samples = decode(write(tmp_path / "a.wav", tone(), subtype=subtype))
    assert samples.dtype == np.int16 and samples.shape == (8000,)
    noise = {"PCM_U8": 0.005, "ULAW": 0.01, "ALAW": 0.01}.get(subtype, 1e-4)
    assert np.abs(samples / 32767 - tone()).max() < noise


@pytest.mark.parametrize("ending", ["flac", "ogg", "mp3", "aiff", "au", "caf", "w64"])
def test_what_libsndfile_reads(tmp_path, ending):
    samples = decode(write(tmp_path / f"a.{ending}", tone(seconds=1.0, rate=44_100), 44_100))
    assert len(samples) == pytest.approx(RATE, abs=0.08 * RATE)  # MP3 pads
    assert level(samples) == pytest.approx(0.3 / 2**0.5, rel=0.05)


@pytest.mark.parametrize("name, codec", [("a.m4a", "aac"), ("a.mp4", "aac"), ("a.webm", "libopus"), ("a.mka", "aac")])
def test_what_ffmpeg_reads(tmp_path, name, codec):
    samples = decode(with_ffmpeg(tmp_path / name, codec))
    assert len(samples) == pytest.approx(RATE, abs=0.08 * RATE)
    assert level(samples) == pytest.approx(0.3 / 2**0.5, rel=0.08)


def test_the_content_decides_and_not_the_name(tmp_path):
    path = write(tmp_path / "a.flac", tone())
    assert np.array_equal(decode(path.rename(tmp_path / "a.wav")), decode(write(tmp_path / "b.flac", tone())))
    moved = with_ffmpeg(tmp_path / "c.m4a", "aac").rename(tmp_path / "c.wav")
    assert level(decode(moved)) == pytest.approx(0.3 / 2**0.5, rel=0.08)


@pytest.mark.parametrize("name", ["살려주세요.wav", unicodedata.normalize("NFD", "살려주세요.wav"), "a b'\"&.wav"])
def test_names_of_any_kind(tmp_path, name):
    write(tmp_path / "plain.wav", tone()).rename(tmp_path / name)
    assert len(decode(tmp_path / name)) == 8000


def test_a_name_that_is_not_utf8(tmp_path):
    raw = os.fsencode(tmp_path) + "/화재.wav".encode("cp949")
    os.rename(write(tmp_path / "plain.wav", tone()), raw)
    assert len(decode(os.fsdecode(raw))) == 8000


# -- Rates, channels, levels ---------------------------------------------------------------------


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 48_000, 96_000])
def test_any_rate_keeps_a_tone(tmp_path, rate):
    samples = decode(write(tmp_path / "a.wav", tone(seconds=2.0, rate=rate), rate)) / 32767
    assert len(samples) == pytest.approx(2 * RATE, abs=2)
    inner = slice(1000, 31_000)
    assert np.abs(samples[inner] - tone(seconds=2.0)[: len(samples)][inner]).max() < 2e-3


def test_what_16_khz_cannot_hold_is_filtered_and_not_folded_back(tmp_path):
    loud = decode(write(tmp_path / "in.wav", tone(7_000, 1.0, 44_100), 44_100))
    gone = decode(write(tmp_path / "out.wav", tone(9_000, 1.0, 44_100), 44_100))
    assert 20 * np.log10(level(loud[1000:-1000]) / 0.3 * 2**0.5) == pytest.approx(0, abs=0.1)
    assert 20 * np.log10(max(level(gone[1000:-1000]), 1e-9)) < -60


@pytest.mark.parametrize("channels", range(1, 9))
def test_channels_are_averaged(tmp_path, channels):
    wave = tone()[:, None] * np.linspace(0.5, 1.0, channels)
    samples = decode(write(tmp_path / "a.wav", wave))
    assert np.abs(samples / 32767 - wave.mean(1)).max() < 1e-4


def test_opposite_phase_does_not_cancel(tmp_path):
    wave = np.stack([tone(), -0.8 * tone()], axis=1)
    assert np.abs(decode(write(tmp_path / "a.wav", wave)) / 32767 - tone()).max() < 1e-4


def test_unrelated_channels_are_averaged(tmp_path):
    wave = np.stack([tone(300), tone(470)], axis=1)
    assert np.abs(decode(write(tmp_path / "a.wav", wave)) / 32767 - wave.mean(1)).max() < 1e-3


def test_an_offset_is_removed_and_silence_stays_silence(tmp_path):
    assert not decode(write(tmp_path / "a.wav", np.full(8000, 0.25))).any()
    assert not decode(write(tmp_path / "b.wav", np.zeros(8000))).any()


def test_clipped_recordings_are_taken_as_they_are(tmp_path):
    samples = decode(write(tmp_path / "a.wav", np.clip(5 * tone(), -1, 1)))
    assert np.abs(samples).max() == 32767 and (np.abs(samples) > 32000).mean() > 0.5


def test_samples_beyond_full_scale_are_scaled_and_not_clipped(tmp_path):
    samples = decode(write(tmp_path / "a.wav", 10 * tone(), subtype="FLOAT"))
    assert np.abs(samples / 32767 - tone() / 0.3).max() < 1e-3


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(n=st.integers(1600, 9000), seed=st.integers(0, 99))
def test_16_khz_goes_through_bit_for_bit(tmp_path, n, seed):
    wave = np.random.default_rng(seed).integers(-9000, 9000, n)
    wave[-1] = 0
    wave[: n // 2 * 2 : 2] = -wave[1 : n // 2 * 2 : 2]  # no mean
    wave[n // 2 * 2 :] = 0
    path = write(tmp_path / "a.wav", wave.astype(np.int16))
    assert np.abs(decode(path).astype(int) - wave).max() <= 1  # 32767 of 32768


# -- Length --------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_the_first_seconds_are_those_of_the_whole(tmp_path, rate):
    path = write(tmp_path / "a.wav", tone(seconds=25.0, rate=rate), rate)
    whole, first = decode(path), decode(path, seconds=12.5)
    assert len(first) == 200_000
    assert np.abs(first[:-200].astype(int) - whole[: len(first) - 200]).max() <= 2


def test_hours_are_read_block_by_block_and_no_further_than_asked(tmp_path, monkeypatch):
    path = write(tmp_path / "a.flac", np.zeros(RATE * 600, np.int16))
    blocks = []
    read = soundfile.SoundFile.read

    def watch(self, frames=-1, **options):
        blocks.append(frames)
        return read(self, frames, **options)

    monkeypatch.setattr(soundfile.SoundFile, "read", watch)
    assert len(decode(path, seconds=4)) == 4 * RATE
    assert blocks == [RATE] * 4
    blocks.clear()
    assert len(decode(path)) == 600 * RATE
    assert set(blocks) == {RATE} and len(blocks) == 601


def test_less_than_asked_for_is_given_as_it_is(tmp_path):
    assert len(decode(write(tmp_path / "a.wav", tone()), seconds=4)) == 8000


# -- What is refused -----------------------------------------------------------------------------


def refused(path):
    with pytest.raises(Unreadable) as caught:
        decode(path)
    assert isinstance(caught.value, DataError) and str(path) in str(caught.value)
    assert caught.value.reason in REASONS and caught.value.path == path
    return caught.value.reason


def test_an_empty_file(tmp_path):
    (tmp_path / "a.wav").write_bytes(b"")
    assert refused(tmp_path / "a.wav") == "empty"


def test_a_header_and_nothing_else(tmp_path):
    header = write(tmp_path / "whole.wav", tone()).read_bytes()[:44]
    (tmp_path / "a.wav").write_bytes(header)
    assert refused(tmp_path / "a.wav") == "no sound"


@pytest.mark.parametrize("samples", [1, 100, 1599])
def test_too_short(tmp_path, samples):
    assert refused(write(tmp_path / "a.wav", tone()[:samples])) == "too short"


@pytest.mark.parametrize("content", [b"RIFF", b"hello, world\n" * 100, bytes(range(256)) * 20, b"\0" * 5000])
def test_what_is_not_audio(tmp_path, content):
    (tmp_path / "a.wav").write_bytes(content)
    assert refused(tmp_path / "a.wav") == "not audio"


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_samples_that_are_no_numbers(tmp_path, bad):
    wave = tone()
    wave[4000] = bad
    assert refused(write(tmp_path / "a.wav", wave, subtype="FLOAT")) == "not finite"


def test_missing_and_folders(tmp_path):
    assert refused(tmp_path / "nothing.wav") == "missing"
    assert refused(tmp_path) == "not readable"


def test_a_video_without_sound(tmp_path):
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 32
        for _ in range(5):
            frame = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8))
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert refused(tmp_path / "a.mp4") == "no sound"


@pytest.mark.parametrize("ending", ["wav", "flac", "ogg"])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.1, 0.5, 0.9])
def test_a_file_that_breaks_off_gives_what_is_there_or_is_refused(tmp_path, ending, share):
    path = write(tmp_path / f"a.{ending}", tone(seconds=20.0), RATE)
    whole = decode(path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    try:
        part = decode(path)
    except Unreadable as error:
        assert error.reason in ("empty", "not audio", "no sound", "too short") and share <= 0.1
    else:
        assert 0 < len(part) < len(whole)
        assert level(part) == pytest.approx(level(whole), rel=0.05)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1, exclude_max=True), value=st.integers(0, 255), ending=st.sampled_from(["wav", "flac", "ogg"]))
def test_a_changed_byte_never_crashes(tmp_path, place, value, ending):
    content = bytearray(write(tmp_path / f"a.{ending}", tone()).read_bytes())
    content[int(place * min(len(content), 200))] = value
    (tmp_path / f"a.{ending}").write_bytes(content)
    try:
        assert decode(tmp_path / f"a.{ending}").dtype == np.int16
    except Unreadable as error:
        assert error.reason in REASONS


def test_the_module_names_what_it_reads():
    for word in ("WAV", "FLAC", "MP3", "AAC"):
        assert word in decoding.__doc__
