"""Network input from stored pixels: ranges, and that augmentation only moves whole pixels."""

import numpy as np
import pytest
import torch

from lib.data.augment import as_float, flip_and_shift


def numbered(size=5, channels=3):
    """Return an image (1, C, S, S) in which no value occurs twice and none is zero (the padding)."""
    values = torch.arange(1, channels * size * size + 1)
    return values.view(1, channels, size, size).to(torch.uint8)


def crops(image, shift):
    """Return every possible view of `image` (C, H, W) by (top, left, mirrored), cut with slices."""
    _, height, width = image.shape
    padded = np.pad(image.numpy(), [(0, 0), (shift, shift), (shift, shift)])
    found = {}
    for top in range(2 * shift + 1):
        for left in range(2 * shift + 1):
            view = padded[:, top : top + height, left : left + width]
            found[top, left, False] = view
            found[top, left, True] = view[:, :, ::-1]
    return {key: view.tobytes() for key, view in found.items()}


def test_pixels_span_minus_one_to_one():
    values = as_float(torch.arange(256, dtype=torch.uint8))
    assert values.dtype == torch.float32
    assert values[0] == -1
    assert values[255] == 1
    torch.testing.assert_close(values.diff(), torch.full((255,), 1 / 127.5), rtol=1e-4, atol=0)


def test_the_pixels_themselves_stay_as_they_are():
    pixels = torch.full((2, 3, 4, 4), 7, dtype=torch.uint8)
    as_float(pixels)
    flip_and_shift(pixels)
    assert (pixels == 7).all()


def test_floats_are_refused_as_they_would_be_scaled_twice():
    with pytest.raises(TypeError, match=r"uint8, 0 to 255; these are torch\.float32"):
        as_float(torch.zeros(3))


@pytest.mark.parametrize("shift", [0, 1, 2])
def test_each_image_comes_out_as_one_of_its_possible_crops_and_every_crop_occurs(shift):
    image = numbered()
    torch.manual_seed(0)
    moved = flip_and_shift(image.expand(1500, -1, -1, -1), shift=shift)
    possible = {view: key for key, view in crops(image[0], shift).items()}
    seen = [possible[view.contiguous().numpy().tobytes()] for view in moved]  # KeyError: a blurred or mixed image
    assert set(seen) == set(possible.values())
    mirrored = np.mean([key[2] for key in seen])
    assert abs(mirrored - 0.5) < 4 * 0.5 / 1500**0.5


def test_each_image_has_its_own_draw_and_channels_move_together():
    torch.manual_seed(0)
    moved = flip_and_shift(numbered(channels=1).expand(50, 3, -1, -1))
    assert len({view.contiguous().numpy().tobytes() for view in moved}) > 25
    assert torch.equal(moved[:, 0], moved[:, 1])
    assert torch.equal(moved[:, 0], moved[:, 2])


def test_images_never_mix():
    images = torch.arange(1, 21, dtype=torch.uint8).view(20, 1, 1, 1).expand(20, 3, 6, 6)
    moved = flip_and_shift(images)
    for number, image in enumerate(moved, 1):
        assert set(image.unique().tolist()) <= {0, number}


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.float32])
@pytest.mark.parametrize("shape", [(4, 3, 8, 8), (2, 1, 5, 9), (1, 3, 7, 4)])
def test_shape_and_type_are_kept(shape, dtype):
    moved = flip_and_shift(torch.ones(shape).to(dtype))
    assert moved.shape == shape
    assert moved.dtype == dtype


def test_the_same_seed_gives_the_same_draws_and_another_seed_others():
    images = numbered().expand(16, -1, -1, -1)
    views = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        views.append(flip_and_shift(images))
    assert torch.equal(views[0], views[1])
    assert not torch.equal(views[0], views[2])
