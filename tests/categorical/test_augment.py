import pytest
import torch

from lib.categorical.augment import KINDS, Views
from lib.data.shapes import draw_shapes

PIXELS = draw_shapes(12, size=24)[0]


def views(kind="crops", pixels=PIXELS, seed=0, **options):
    torch.manual_seed(seed)
    return Views(kind, pixels.shape[-2:], **options)(pixels)


@pytest.mark.parametrize("kind", KINDS)
def test_two_views_in_range_and_of_the_same_shape(kind):
    first, second = views(kind)
    for view in (first, second):
        assert view.shape == PIXELS.shape and view.dtype == torch.float32
        assert view.min() >= -1 and view.max() <= 1
    assert not torch.equal(first, second)


@pytest.mark.parametrize("kind", KINDS)
def test_views_are_decided_by_the_seed(kind):
    assert all(torch.equal(a, b) for a, b in zip(views(kind), views(kind), strict=True))
    assert not torch.equal(views(kind)[0], views(kind, seed=1)[0])


@pytest.mark.parametrize("kind", KINDS)
def test_every_image_of_a_batch_gets_its_own_draw(kind):
    first, _ = views(kind, PIXELS[:1].expand(12, -1, -1, -1))
    assert len(torch.unique(first.flatten(1), dim=0)) == 12


def test_the_input_is_left_as_it_is():
    before = PIXELS.clone()
    views()
    assert torch.equal(PIXELS, before)


def test_digits_are_not_mirrored_and_keep_their_grey():
    """A ramp from dark to bright stays one, whatever small turn it takes."""
    ramp = torch.linspace(0, 255, 24).to(torch.uint8).expand(40, 3, 24, 24)
    first, _ = views("affine", ramp)
    assert (first[:, :, 6:18, 16:20].mean((1, 2, 3)) > first[:, :, 6:18, 4:8].mean((1, 2, 3))).all()
    mirrored, _ = views("crops", ramp, smallest_crop=0.9)
    right, left = mirrored[..., 16:20].mean((1, 2, 3)), mirrored[..., 4:8].mean((1, 2, 3))
    assert 8 < (right < left).sum() < 32


def test_hue_turns_all_colours_where_it_may():
    red = torch.zeros(60, 3, 16, 16, dtype=torch.uint8)
    red[:, 0] = 200
    little, any_hue = (views("crops", red, hue=hue)[0].mean((2, 3)).argmax(1) for hue in (0.02, 0.5))
    assert (little == 0).float().mean() > 0.9 and len(any_hue.unique()) == 3


def test_an_unknown_kind_is_an_error():
    with pytest.raises(ValueError, match="'crop' is unknown; choose one of crops, affine"):
        Views("crop", (32, 32))
