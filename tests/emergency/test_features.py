"""The log-mel spectrogram: equality with transformers, gradients, and which samples affect a frame."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import WhisperFeatureExtractor

from lib.emergency import features
from lib.emergency.features import (
    DECADES,
    FRAMES_PER_SECOND,
    HOP,
    PEAK,
    RATE,
    SILENCE,
    WINDOW,
    log_mel,
    scaled,
)


def clips(count, length, seed=0):
    """Chirps in noise, of very different levels."""
    generator = torch.Generator().manual_seed(seed)
    time = torch.arange(length) / RATE
    pitch = 100 + 3000 * torch.rand(count, 1, generator=generator)
    tones = (2 * torch.pi * pitch * (1 + time) * time).sin() * torch.rand(count, 1, generator=generator)
    return tones * (time % 0.5 < 0.3) + 10 ** -torch.linspace(1, 5, count)[:, None] * torch.randn(
        count, length, generator=generator
    )


def theirs(samples, mels=80, padding="do_not_pad"):
    extractor = WhisperFeatureExtractor(feature_size=mels)
    features = [extractor(row.numpy(), sampling_rate=RATE, padding=padding).input_features[0] for row in samples]
    return torch.from_numpy(np.stack(features))


@pytest.mark.parametrize("mels", [80, 128])
@pytest.mark.parametrize("length", [RATE, 4 * RATE, 4 * RATE + 77])
def test_it_equals_transformers(length, mels):
    samples = clips(3, length)
    features = log_mel(samples, mels)
    assert features.shape == (3, mels, length // HOP) and features.dtype == torch.float32
    torch.testing.assert_close(features, theirs(samples, mels), atol=1e-5, rtol=0)


def test_it_equals_transformers_on_clips_padded_to_thirty_seconds():
    samples = clips(2, 4 * RATE)
    padded = F.pad(samples, (0, 26 * RATE))
    assert log_mel(padded).shape == (2, 80, 30 * FRAMES_PER_SECOND)
    torch.testing.assert_close(log_mel(padded), theirs(samples, padding="max_length"), atol=1e-5, rtol=0)


def test_silence_is_a_constant():
    assert SILENCE == -1.5
    assert torch.equal(log_mel(torch.zeros(2, RATE)), torch.full((2, 80, 100), SILENCE))


def test_only_the_last_frames_notice_what_follows():
    short = clips(2, RATE)
    quiet = 1e-3 * clips(2, RATE, seed=1)  # below the loudest cell, so the clamp stays where it is
    longer = log_mel(torch.cat([short, quiet], 1))[..., :100]
    torch.testing.assert_close(longer[..., :98], log_mel(short)[..., :98], atol=1e-5, rtol=0)
    assert (longer[..., 99] - log_mel(short)[..., 99]).abs().max() > 1e-3


def test_shifting_by_hops_shifts_frames():
    samples = clips(2, RATE + 10 * HOP)
    whole, part = log_mel(samples), log_mel(samples[:, 10 * HOP :])
    highest = torch.maximum(whole.amax((1, 2)), part.amax((1, 2)))[:, None, None]
    floor = highest - DECADES / 4  # above it, neither is clamped
    a, b = whole[..., 12:-2].maximum(floor), part[..., 2:-2].maximum(floor)
    torch.testing.assert_close(a, b, atol=1e-5, rtol=0)


def test_twenty_decibels_are_half_a_unit():
    samples = clips(2, RATE)[:1]
    torch.testing.assert_close(log_mel(samples / 10), log_mel(samples) - 0.5, atol=1e-4, rtol=0)


def test_gradients_against_finite_differences():
    samples = clips(1, 800)
    direction = torch.randn(1, 800, generator=torch.Generator().manual_seed(3))
    weights = torch.randn(1, 80, 5, generator=torch.Generator().manual_seed(4))
    samples.requires_grad_(True)
    (gradient,) = torch.autograd.grad((weights * log_mel(samples)).sum(), samples)
    step = 1e-3 * samples.detach().abs().max()
    with torch.no_grad():
        ahead, behind = ((weights * log_mel(samples + sign * step * direction)).double().sum() for sign in (1, -1))
    slope = (ahead - behind) / (2 * step)
    assert slope.item() == pytest.approx((gradient * direction).sum().item(), rel=0.02)


def test_gradients_of_silence_are_finite():
    samples = torch.zeros(1, RATE, requires_grad=True)
    log_mel(samples).sum().backward()
    assert torch.equal(samples.grad, torch.zeros_like(samples))


@settings(max_examples=25, deadline=None)
@given(st.integers(WINDOW // 2 + 1, 1000))
def test_short_clips(length):
    samples = clips(1, length)
    features = log_mel(samples)
    assert features.shape == (1, 80, length // HOP) and features.isfinite().all()
    reference = WhisperFeatureExtractor()._np_extract_fbank_features(samples.numpy(), "cpu")
    np.testing.assert_allclose(features, reference, atol=2e-5)


def test_autocast_and_inference_mode_change_nothing():
    samples = clips(1, RATE)
    expected = log_mel(samples)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(log_mel(samples), expected)
    with torch.inference_mode():
        log_mel(samples, 40)
    log_mel(samples.requires_grad_(True), 40).sum().backward()  # the constants were cached in inference mode
    assert samples.grad.isfinite().all()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_same():
    samples = clips(3, 4 * RATE)
    torch.testing.assert_close(log_mel(samples.cuda()).cpu(), log_mel(samples), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    "samples",
    [
        torch.zeros(1, 800, dtype=torch.int16),
        torch.zeros(1, 800, dtype=torch.float64),
        torch.zeros(800),
        torch.zeros(1, 200),
    ],
)
def test_other_samples_are_refused(samples):
    with pytest.raises(RuntimeError):  # raised by torch
        log_mel(samples)


def test_clips_are_scaled_to_the_same_peak_and_silence_is_not():
    samples = torch.randint(-3000, 3000, (3, 16_000), dtype=torch.int16)
    torch.testing.assert_close(scaled(samples).abs().amax(1), torch.full((3,), PEAK))
    faint = torch.full((1, 100), 1e-4)
    assert scaled(faint).equal(faint)
    softer = samples.float() / 32768 * 0.1
    torch.testing.assert_close(scaled(softer), scaled(samples))


def test_the_floor_is_that_of_each_clip_however_many_are_taken_at_once():
    """A GPU processes whole batches, a CPU one clip at a time."""
    loud_and_soft = clips(3, RATE) * torch.tensor([1.0, 1e-2, 1e-4])[:, None]
    window, filters = features._constants(80, torch.device("cpu"))
    torch.testing.assert_close(features._log_mel(loud_and_soft, window, filters), log_mel(loud_and_soft))
