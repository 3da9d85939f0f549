"""Augmentations: identity at zero strength, separate draws per image, gradients, and parts that stay unchanged."""

import pytest
import torch

from lib.laplacian_gan import augment, pyramid
from lib.laplacian_gan.augment import AUGMENTATIONS, pyramid_augment

IMAGES = torch.rand(6, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1


def handed_on(monkeypatch, images, **options):
    """Return the bands that `pyramid_augment` passes to `pyramid.collapse`."""
    shown, collapse = [], pyramid.collapse
    monkeypatch.setattr(pyramid, "collapse", lambda bands: shown.append(bands) or collapse(bands))
    pyramid_augment(images, **options)
    return shown[0]


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_size_gradient_and_seed(name):
    change = AUGMENTATIONS[name]
    torch.manual_seed(1)
    images = IMAGES.clone().requires_grad_(True)
    changed = change(images)
    assert changed.shape == IMAGES.shape and torch.isfinite(changed).all()
    (gradient,) = torch.autograd.grad(changed.square().sum(), images)
    assert (gradient.flatten(1).abs().sum(1) > 0).all()
    torch.manual_seed(1)
    assert torch.equal(change(IMAGES), changed)
    if name != "none":
        assert not torch.equal(change(IMAGES), changed)


@pytest.mark.parametrize("name", ["diffaugment", "pyramid"])
def test_images_of_a_batch_get_draws_of_their_own(name):
    torch.manual_seed(0)
    same = IMAGES[:1].expand(6, -1, -1, -1)
    changed = AUGMENTATIONS[name](same)
    assert len({image.numpy().tobytes() for image in changed}) == 6


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_constant_images_stay_finite(name):
    assert torch.isfinite(AUGMENTATIONS[name](torch.zeros(4, 3, 16, 16))).all()


def test_colour_is_that_of_the_paper(monkeypatch):
    draws = iter([torch.full((6, 1, 1, 1), value) for value in (0.5, 0.5, 0.5)])
    monkeypatch.setattr(augment, "_draw", lambda images: next(draws))
    torch.testing.assert_close(augment._colour(IMAGES), IMAGES)  # the centre of each range changes nothing
    draws = iter([torch.full((6, 1, 1, 1), value) for value in (0.75, 0.0, 0.0)])
    grey = augment._colour(IMAGES)
    expected = IMAGES.mean(1, keepdim=True).expand_as(IMAGES) + 0.25
    level = expected.mean((1, 2, 3), keepdim=True)
    torch.testing.assert_close(grey, level + (expected - level) * 0.5)


def test_translation_moves_whole_images_by_up_to_an_eighth():
    torch.manual_seed(0)
    ones = torch.ones(200, 3, 32, 32)
    moved = augment._translation(ones)
    empty_rows = (moved[:, 0] == 0).all(2).sum(1)
    empty_columns = (moved[:, 0] == 0).all(1).sum(1)
    assert empty_rows.max() == 4 and empty_columns.max() == 4 and empty_rows.min() == 0
    kept = (32 - empty_rows) * (32 - empty_columns)
    assert torch.equal(moved[:, 0].sum((1, 2)), kept.float())
    image = IMAGES[:1]
    found = augment._translation(image)[0]
    shifts = [torch.roll(image[0], (y, x), (1, 2)) for y in range(-4, 5) for x in range(-4, 5)]
    assert any(torch.equal(shift[:, 4:-4, 4:-4], found[:, 4:-4, 4:-4]) for shift in shifts)


def test_cutout_is_one_square_of_half_the_side():
    torch.manual_seed(0)
    cut = augment._cutout(torch.ones(300, 3, 32, 32))[:, 0] == 0
    rows, columns = cut.any(2).sum(1), cut.any(1).sum(1)
    assert torch.equal(cut.sum((1, 2)), rows * columns)  # a rectangle, cropped at the borders
    assert rows.max() == 16 and columns.max() == 16 and rows.min() >= 8 and columns.min() >= 8


def test_pyramid_augmentation_of_no_strength_is_the_identity():
    torch.testing.assert_close(pyramid_augment(IMAGES, scale=0, swap=0, jitter=0), IMAGES, atol=1e-6, rtol=0)


def test_pyramid_augmentation_keeps_the_low_pass(monkeypatch):
    bands = handed_on(monkeypatch, IMAGES, scale=1.0, swap=0.5, jitter=0.5)
    assert torch.equal(bands[-1], pyramid.build(IMAGES, 4)[-1])


def test_scaling_multiplies_each_band_of_each_image(monkeypatch):
    torch.manual_seed(0)
    bands = handed_on(monkeypatch, IMAGES, scale=0.4, swap=0, jitter=0)
    for before, after in zip(pyramid.build(IMAGES, 4)[:-1], bands[:-1], strict=True):
        gains = (after / before).flatten(1)
        torch.testing.assert_close(gains, gains[:, :1].expand_as(gains), rtol=1e-3, atol=1e-3)
        assert gains[:, 0].std() > 0.05 and (gains > 0).all()
    assert torch.equal(pyramid.build(IMAGES, 4)[-1], bands[-1])


def test_swapping_exchanges_bands_and_makes_none_up():
    torch.manual_seed(0)
    changed = pyramid_augment(IMAGES, depth=2, scale=0, swap=0.5, jitter=0)
    before, after = pyramid.build(IMAGES, 2)[0], changed - pyramid.up(pyramid.build(IMAGES, 2)[1], (32, 32))
    equal = (after[:, None] - before[None]).abs().amax((2, 3, 4)) < 1e-5
    assert (equal.sum(1) == 1).all() and not equal.diagonal().all() and equal.diagonal().any()


def test_jitter_has_the_strength_of_the_band():
    torch.manual_seed(0)
    flat = torch.zeros(6, 3, 32, 32)
    assert torch.equal(pyramid_augment(flat, scale=0, swap=0, jitter=0.5), flat)
    changed = pyramid_augment(IMAGES, depth=2, scale=0, swap=0, jitter=0.5)
    noise, band = changed - IMAGES, pyramid.build(IMAGES, 2)[0]
    assert (noise.std() / band.std()).item() == pytest.approx(0.5, rel=0.05)


# -- distributions ---------------------------------------------------------------------------


def test_diff_augment_changes_colour_then_place_then_cuts(monkeypatch):
    order = []
    for name in ("_colour", "_translation", "_cutout"):
        monkeypatch.setattr(augment, name, lambda images, name=name: order.append(name) or images)
    augment.diff_augment(IMAGES)
    assert order == ["_colour", "_translation", "_cutout"]


def test_brightness_is_uniform():
    torch.manual_seed(0)
    shift = augment._colour(torch.zeros(4000, 3, 1, 1))[:, 0, 0, 0]  # in a constant grey image, nothing else changes
    assert shift.min() >= -0.5 and shift.max() <= 0.5
    assert shift.mean().item() == pytest.approx(0, abs=0.02)
    assert shift.std().item() == pytest.approx(12**-0.5, abs=0.01)


def test_all_shifts_are_equally_likely():
    torch.manual_seed(0)
    points = torch.zeros(4500, 3, 16, 16)
    points[:, :, 8, 8] = 1
    place = augment._translation(points)[:, 0].flatten(1).argmax(1)
    for shifted in (place // 16, place % 16):
        share = torch.bincount(shifted, minlength=16) / len(place)
        assert share[6:11].sum() == 1  # shifts of -2 ... 2 of 16 pixels
        torch.testing.assert_close(share[6:11], torch.full((5,), 0.2), atol=0.03, rtol=0)


def test_cutout_may_stick_out_of_the_image():
    torch.manual_seed(0)
    cut = augment._cutout(torch.ones(3000, 1, 32, 32)) == 0
    seen = [min(32, centre + 8) - max(0, centre - 8) for centre in range(33)]
    assert cut.float().mean().item() == pytest.approx((sum(seen) / len(seen) / 32) ** 2, abs=0.005)


def test_gains_are_log_normal_in_base_two(monkeypatch):
    torch.manual_seed(0)
    images = torch.randn(3000, 3, 8, 8)
    after = handed_on(monkeypatch, images, depth=3, scale=0.4, swap=0, jitter=0)
    gains = [
        (b.flatten(1).norm(dim=1) / a.flatten(1).norm(dim=1)).log2()
        for a, b in zip(pyramid.build(images, 3)[:-1], after[:-1], strict=True)
    ]
    for gain in gains:
        assert gain.mean().item() == pytest.approx(0, abs=0.03)
        assert gain.std().item() == pytest.approx(0.4, abs=0.02)
    assert abs(torch.corrcoef(torch.stack(gains))[0, 1].item()) < 0.06  # bands are scaled independently


def test_bands_are_swapped_whole_with_the_probability_asked_for(monkeypatch):
    torch.manual_seed(0)
    images = torch.randn(3000, 3, 8, 8)
    after = handed_on(monkeypatch, images, depth=3, scale=0, swap=0.2, jitter=0)
    for a, b in zip(pyramid.build(images, 3)[:-1], after[:-1], strict=True):
        differs = (a != b).flatten(1).float().mean(1)
        assert ((differs == 0) | (differs > 0.9)).all()
        assert (differs > 0).float().mean().item() == pytest.approx(0.2, abs=0.03)


def test_jitter_follows_each_image(monkeypatch):
    torch.manual_seed(0)
    loudness = torch.tensor([1.0, 10.0, 0.1, 0.0]).view(4, 1, 1, 1)
    images = torch.randn(4, 3, 32, 32) * loudness
    after = handed_on(monkeypatch, images, depth=2, scale=0, swap=0, jitter=0.5)
    before = pyramid.build(images, 2)
    noise = (after[0] - before[0]).flatten(1).std(1)
    torch.testing.assert_close(noise, 0.5 * before[0].flatten(1).std(1), rtol=0.06, atol=0)


def test_gradients_follow_swapped_bands_and_stay_at_home_otherwise():
    torch.manual_seed(2)
    images = IMAGES.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(pyramid_augment(images, swap=0)[0].square().sum(), images)
    assert gradient[0].any() and not gradient[1:].any()
    changed = pyramid_augment(images, depth=2, scale=0, swap=1.0, jitter=0)
    finest = changed - pyramid.up(pyramid.build(images, 2)[1], (32, 32))
    taken = (finest[:, None] - pyramid.build(images, 2)[0][None]).detach().abs().amax((2, 3, 4)).argmin(1)
    image = next(i for i in range(6) if taken[i] != i)
    (gradient,) = torch.autograd.grad(changed[image].square().sum(), images)
    assert sorted(gradient.flatten(1).any(1).nonzero().flatten().tolist()) == sorted([image, taken[image].item()])


def test_negatives_are_the_image_or_its_negative_and_both_are_seen():
    torch.manual_seed(0)
    images = IMAGES[:1].expand(200, -1, -1, -1)
    changed = augment.negate(images)
    turned = (changed == -images).flatten(1).all(1)
    assert (turned | (changed == images).flatten(1).all(1)).all()
    assert 70 < turned.sum() < 130  # expected 100, sd 7
