"""The radial power spectrum against waves, noise and Parseval's theorem."""

import math

import pytest
import torch

from lib.data.augment import as_float
from lib.metrics import MetricError
from lib.metrics.features import to_pixels
from lib.metrics.fid import SPECTRUM_CHUNK as CHUNK
from lib.metrics.fid import power_spectrum, radial_power


def noise(count, height, width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, height, width), generator=generator, dtype=torch.uint8)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (17, 24)])
def test_parseval(height, width):
    pixels = noise(5, height, width)
    power = power_spectrum(pixels)
    assert power.shape == (height, width) and power.dtype == torch.float64
    assert power.mean().item() == pytest.approx(as_float(pixels).square().mean().item(), rel=1e-5)


@pytest.mark.parametrize("cycles", [1, 5, 12, 16])
@pytest.mark.parametrize("axis", [0, 1])
def test_a_plane_wave_is_one_ring(cycles, axis):
    wave = torch.cos(2 * math.pi * cycles * torch.arange(32) / 32)
    image = (wave[:, None] if axis == 0 else wave).expand(1, 3, 32, 32)
    frequencies, power = radial_power(to_pixels(image))
    assert power.argmax() == cycles and frequencies[cycles] == cycles / 32
    others = torch.cat([power[:cycles], power[cycles + 1 :]])
    assert others.max() < 1e-3 * power[cycles]  # what rounding to 8 bits leaves


def test_white_noise_is_flat_at_its_variance_at_any_size():
    for size, count in [(16, 400), (33, 100)]:
        frequencies, power = radial_power(noise(count, size, size))
        assert len(frequencies) == size // 2 + 1 and 0.48 < frequencies[-1] <= 0.5
        variance = 256**2 / 12 / 127.5**2
        assert power[1:].numpy() == pytest.approx(variance, rel=0.1)


def test_a_constant_image_has_power_at_zero_only():
    _, power = radial_power(torch.full((2, 3, 16, 16), 255, dtype=torch.uint8))
    assert power[0].item() == pytest.approx(256) and power[1:].max() < 1e-6


def test_many_images_are_taken_in_chunks():
    pixels = noise(CHUNK + 3, 8, 8)
    parts = power_spectrum(pixels[:CHUNK]) * CHUNK + power_spectrum(pixels[CHUNK:]) * 3
    torch.testing.assert_close(power_spectrum(pixels), parts / (CHUNK + 3))


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (torch.zeros(1, 3, 8, 8), "uint8 images .* not torch.float32"),
        (torch.zeros(1, 1, 8, 8, dtype=torch.uint8), r"\(1, 1, 8, 8\)"),
        (torch.zeros(1, 4, 8, 8, dtype=torch.uint8), r"\(1, 4, 8, 8\)"),
        (torch.zeros(0, 3, 8, 8, dtype=torch.uint8), "at least one"),
        (torch.zeros(3, 8, 8, dtype=torch.uint8), r"\(n, 3, h, w\)"),
    ],
)
def test_bad_images_are_refused(pixels, message):
    with pytest.raises(MetricError, match=message):
        radial_power(pixels)
