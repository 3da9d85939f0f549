"""The Laplacian pyramid: exact reconstruction, linearity, means, and an independent dense reference."""

import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.laplacian_gan.pyramid import build, collapse, down, up

sides = st.integers(2, 40)


def noise(*shape, seed=0, dtype=torch.float32):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype) * 2 - 1


def dense_down(images):
    """Blur by one dense convolution with replicated borders, then keep every second pixel."""
    taps = torch.tensor([1.0, 4, 6, 4, 1], dtype=images.dtype) / 16
    kernel = torch.outer(taps, taps).expand(images.shape[1], 1, 5, 5)
    return F.conv2d(F.pad(images, (2, 2, 2, 2), mode="replicate"), kernel, groups=images.shape[1])[..., ::2, ::2]


def dense_up(images, size):
    """Replicate the coarse image's border, insert zeros between pixels, and blur with four times the kernel."""
    padded = F.pad(images, (1, 1, 1, 1), mode="replicate")
    stuffed = torch.zeros(*images.shape[:2], 2 * padded.shape[2], 2 * padded.shape[3], dtype=images.dtype)
    stuffed[..., ::2, ::2] = padded
    taps = torch.tensor([1.0, 4, 6, 4, 1], dtype=images.dtype) / 8
    kernel = torch.outer(taps, taps).expand(images.shape[1], 1, 5, 5)
    return F.conv2d(stuffed, kernel, padding=2, groups=images.shape[1])[..., 2 : 2 + size[0], 2 : 2 + size[1]]


@settings(max_examples=40, deadline=None)
@given(sides, sides, st.data())
def test_bands_sum_to_the_image(height, width, data):
    images = noise(2, 3, height, width, seed=height * 50 + width)
    depth = data.draw(st.integers(1, 1 + (min(height, width) - 1).bit_length()))  # down to a side of one pixel
    bands = build(images, depth)
    assert len(bands) == depth
    assert [tuple(band.shape[-2:]) for band in bands] == [
        (-(-height // 2**level), -(-width // 2**level)) for level in range(depth)
    ]
    torch.testing.assert_close(collapse(bands), images, atol=1e-6, rtol=0)


@settings(max_examples=30, deadline=None)
@given(sides, sides)
def test_every_band_but_the_last_has_no_mean(height, width):
    images = noise(2, 3, height, width, dtype=torch.float64)
    for band in build(images, 3 if min(height, width) > 2 else 2)[:-1]:
        assert band.mean((2, 3)).abs().max() < 1e-14


@settings(max_examples=30, deadline=None)
@given(sides, sides)
def test_down_and_up_agree_with_a_dense_convolution(height, width):
    images = noise(2, 3, height, width, dtype=torch.float64)
    coarse = down(images)
    torch.testing.assert_close(coarse, dense_down(images))
    torch.testing.assert_close(up(coarse, (height, width)), dense_up(coarse, (height, width)))


def test_it_is_linear():
    a, b = noise(2, 3, 33, 20, dtype=torch.float64), noise(2, 3, 33, 20, seed=1, dtype=torch.float64)
    for x, y, both in zip(build(a, 4), build(b, 4), build(2 * a - 3 * b, 4), strict=True):
        torch.testing.assert_close(both, 2 * x - 3 * y)


def test_a_constant_image_has_empty_bands():
    bands = build(torch.full((1, 3, 13, 9), 0.7, dtype=torch.float64), 3)
    assert all(band.abs().max() < 1e-15 for band in bands[:-1])
    torch.testing.assert_close(bands[-1], torch.full_like(bands[-1], 0.7))


def test_shifting_by_two_pixels_shifts_the_finest_band_inside():
    images = noise(1, 3, 48, 48, dtype=torch.float64)
    shifted = torch.roll(images, 2, dims=-1)
    a, b = build(images, 2)[0], build(shifted, 2)[0]
    inside, moved = a[..., 8:-8, 8:-10], b[..., 8:-8, 10:-8]
    means = (-2, -1)  # border effects shift the mean of a channel
    torch.testing.assert_close(inside - inside.mean(means, keepdim=True), moved - moved.mean(means, keepdim=True))


def test_gradients_against_finite_differences():
    images = noise(1, 2, 7, 6, dtype=torch.float64).requires_grad_(True)
    assert torch.autograd.gradcheck(lambda x: tuple(build(x, 3)), (images,))
    bands = [band.detach().requires_grad_(True) for band in build(images, 3)]
    assert torch.autograd.gradcheck(lambda *x: collapse(x), tuple(bands))


def test_autocast_changes_nothing():
    images = noise(2, 3, 32, 32)
    with torch.autocast("cpu", torch.bfloat16):
        bands = build(images, 4)
    assert all(torch.equal(a, b) for a, b in zip(bands, build(images, 4), strict=True))
