import torch

from lib.categorical.augment import Views
from lib.data.shapes import draw_shapes

PIXELS = draw_shapes(12, size=24)[0]


def views(pixels=PIXELS, seed=0, **options):
    torch.manual_seed(seed)
    return Views(pixels.shape[-2:], **options)(pixels)


def test_two_views_in_range_and_of_the_same_shape():
    first, second = views()
    for view in (first, second):
        assert view.shape == PIXELS.shape and view.dtype == torch.float32
        assert view.min() >= -1 and view.max() <= 1
    assert not torch.equal(first, second)


def test_views_are_decided_by_the_seed():
    assert all(torch.equal(a, b) for a, b in zip(views(), views(), strict=True))
    assert not torch.equal(views()[0], views(seed=1)[0])


def test_every_image_of_a_batch_gets_its_own_draw():
    first, _ = views(PIXELS[:1].expand(12, -1, -1, -1))
    assert len(torch.unique(first.flatten(1), dim=0)) == 12


def test_the_input_is_left_as_it_is():
    before = PIXELS.clone()
    views()
    assert torch.equal(PIXELS, before)


def test_half_of_the_views_are_mirrored():
    ramp = torch.linspace(0, 255, 24).to(torch.uint8).expand(40, 3, 24, 24)
    first, _ = views(ramp, smallest_crop=0.9)
    right, left = first[..., 16:20].mean((1, 2, 3)), first[..., 4:8].mean((1, 2, 3))
    assert 8 < (right < left).sum() < 32


def test_hue_turns_all_colours_where_it_may():
    red = torch.zeros(60, 3, 16, 16, dtype=torch.uint8)
    red[:, 0] = 200
    little, any_hue = (views(red, hue=hue)[0].mean((2, 3)).argmax(1) for hue in (0.02, 0.5))
    assert (little == 0).float().mean() > 0.9 and len(any_hue.unique()) == 3
