import hashlib

import numpy as np
import pytest
import torch

from lib.data import outlines, shapes
from lib.data.shapes import BACKGROUNDS, CLASSES, draw_shapes

# If this fails on a new machine, results are not comparable with the published ones; if it fails
# after an edit, every stored result on `shapes` is out of date.
CHECKSUMS = {
    (32, 0, "train"): "97b2fd12a699deda96dd674ca470f935ecdd66ec0c64e7cb1f5071593199b1c0",
    (64, 3, "test"): "cf0b65d20a8fcd702fefb402e0d80ed2adf20098382fe5111832c6e60b95f017",
    (21, 1, "train"): "42aef1477bc2052e5427097d57dd9986381488fcf13758b6ce9930f45013aa81",
}


def sha256(pixels, labels):
    return hashlib.sha256(pixels.numpy().tobytes() + labels.numpy().astype("<i8").tobytes()).hexdigest()


@pytest.mark.parametrize(("size", "seed", "split"), CHECKSUMS)
def test_same_bytes_on_every_machine(size, seed, split):
    pixels, labels, _ = draw_shapes(150, size=size, seed=seed, split=split)
    assert sha256(pixels, labels) == CHECKSUMS[size, seed, split]


def test_plain_shapes_that_move_have_the_factors_of_the_stream():
    pixels, labels, factors = draw_shapes(60, plain=True, still=False)
    streamed = draw_shapes(60)[2]
    assert all((values == streamed[name]).all() for name, values in factors.items())
    bright = pixels.float().amax(1) > 100  # on dark backgrounds
    rows, columns = torch.meshgrid(torch.arange(32) + 0.5, torch.arange(32) + 0.5, indexing="ij")
    for axis, grid in (("x", columns), ("y", rows)):
        centre = (bright * grid).sum((1, 2)) / bright.sum((1, 2)) * 32
        assert np.corrcoef(centre.numpy(), factors[axis])[0, 1] > 0.95


def test_plain_shapes_are_upright_in_the_middle_of_dark_flat_backgrounds():
    pixels, labels, factors = draw_shapes(60, plain=True)
    _, same_labels, textured = draw_shapes(60)
    assert torch.equal(labels, same_labels) and np.array_equal(factors["hue"], textured["hue"])
    assert not factors["orientation"].any() and {*factors["x"], *factors["y"]} == {512}
    border = torch.cat([pixels[:, :, [0, -1]].flatten(2), pixels[..., [0, -1]].flatten(2)], dim=2)
    assert (border == border[:, :, :1]).all() and border.max() < 64
    row = pixels[labels == CLASSES.index("disk"), :, 16, 16].float()
    assert row.max(1).values.min() > 128
    mirrored = pixels[labels == CLASSES.index("triangle")]
    assert (mirrored.int() - mirrored.flip(-1).int()).abs().max() <= 8  # rounding at the edge
    assert sha256(pixels, labels) == "45daa04ba3975a9c32a684a585a61bc7c9b5e6447971b9b3792ff725576e1dac"


def test_form_of_the_result():
    pixels, labels, factors = draw_shapes(23, size=40)
    assert pixels.shape == (23, 3, 40, 40) and pixels.dtype == torch.uint8 and pixels.is_contiguous()
    assert labels.shape == (23,) and labels.dtype == torch.int64
    assert set(factors) == {"class", "hue", "orientation", "x", "y", "scale", "background"}
    assert all(value.shape == (23,) and value.dtype == np.int64 for value in factors.values())
    assert np.array_equal(factors["class"], labels.numpy())


@pytest.mark.parametrize("count", [1, 7, 10, 200])
def test_a_smaller_count_is_the_beginning_of_a_larger_one(count):
    pixels, labels, factors = draw_shapes(400, seed=5)
    few, few_labels, few_factors = draw_shapes(count, seed=5)
    assert torch.equal(few, pixels[:count]) and torch.equal(few_labels, labels[:count])
    for name, value in few_factors.items():
        assert np.array_equal(value, factors[name][:count]), name


def test_splits_and_seeds_share_no_image():
    drawn = [draw_shapes(300, seed=s, split=split)[0] for s in (0, 1) for split in ("train", "test")]
    seen = {image.numpy().tobytes() for pixels in drawn for image in pixels}
    assert len(seen) == 1200


def test_every_round_holds_each_class_once():
    _, labels, _ = draw_shapes(200)
    rounds = labels.view(-1, 10)
    assert torch.equal(rounds.sort(1).values, torch.arange(10).expand(20, 10))
    assert len({tuple(row.tolist()) for row in rounds}) > 15, "the order within a round must vary"


def test_sizes_show_the_same_scene():
    small, labels, factors = draw_shapes(100, size=32)
    large, large_labels, large_factors = draw_shapes(100, size=64)
    assert torch.equal(labels, large_labels)
    assert all(np.array_equal(factors[name], large_factors[name]) for name in factors)
    reduced = torch.nn.functional.avg_pool2d(large.float(), 2)
    assert (reduced - small.float()).abs().mean() < 10  # the difference is grain, with a mean of up to 8


@pytest.mark.parametrize("size", [8, 33, 512])
def test_any_size(size):
    pixels, _, _ = draw_shapes(3, size=size)
    assert pixels.shape == (3, 3, size, size)
    assert pixels.float().std() > 10


def test_factors_have_their_ranges_and_do_not_depend_on_the_class():
    _, labels, factors = draw_shapes(4000)
    assert factors["orientation"].min() >= 0 and factors["orientation"].max() == 359
    assert factors["hue"].min() >= 0 and factors["hue"].max() == 359
    assert set(factors["background"]) == set(range(len(BACKGROUNDS)))
    margin = factors["scale"] * 5 // 4
    for axis in ("x", "y"):
        assert (factors[axis] >= margin).all() and (factors[axis] <= 1024 - margin).all()
        assert factors[axis].std() > 120, "the position must vary from image to image"
    for name in ("hue", "orientation", "x", "y", "scale", "background"):
        values = factors[name]
        means = np.array([values[labels.numpy() == k].mean() for k in range(10)])
        assert np.abs(means - values.mean()).max() < 4 * values.std() / 20, name


def test_shapes_have_equal_area_and_are_centred():
    """If classes differed in coverage, a colour histogram would reveal them."""
    tables = outlines.templates()
    grid = np.arange(outlines.CELLS) - (outlines.CELLS - 1) / 2
    for name, table in zip(CLASSES, tables, strict=True):
        inside = table > 0
        assert inside.sum() == pytest.approx(np.pi * outlines.UNIT**2, rel=0.02), name
        assert abs((inside * grid).sum() / inside.sum()) < 1 and abs((inside.T * grid).sum() / inside.sum()) < 1
        assert not (inside[[0, -1]].any() or inside[:, [0, -1]].any()), f"{name} does not fit into its table"


def test_templates_hold_the_distance():
    axis = (np.arange(outlines.CELLS) - (outlines.CELLS - 1) / 2) / outlines.UNIT
    radius = np.hypot(axis[None], axis[:, None])
    disk = outlines.templates()[CLASSES.index("disk")] / 1024
    assert np.abs(disk - (1 - radius).clip(-2, 2)).max() < 0.01
    half = np.sqrt(np.pi) / 2  # half the side of the square, in disk radii
    square = outlines.templates()[CLASSES.index("square")] / 1024
    chessboard = np.maximum(np.abs(axis[None]), np.abs(axis[:, None]))
    assert np.abs(square - (half - chessboard))[chessboard < half].max() < 0.01


def test_shape_stands_out_from_its_background():
    """The lightness of the shape differs from that around it by more than the grain."""
    pixels, labels, factors = draw_shapes(2000, size=64)
    disks = (labels == CLASSES.index("disk")).numpy()
    pixels, factors = pixels[disks], {name: values[disks] for name, values in factors.items()}
    luma = (pixels.float() * torch.tensor([0.30, 0.59, 0.11]).view(3, 1, 1)).sum(1).numpy()
    grid = np.arange(64) * 16 + 8
    contrast = []
    for k in range(200):
        radius = np.hypot(grid[None] - factors["x"][k], grid[:, None] - factors["y"][k]) / factors["scale"][k]
        contrast.append(abs(luma[k][radius < 0.8].mean() - luma[k][(radius > 1.2) & (radius < 1.8)].mean()))
    assert np.quantile(contrast, 0.02) > 15 and np.median(contrast) > 35


def colour_features(pixels):
    """Return mean colour and a histogram over 4 x 4 x 4 colours, (N, 3 + 64), standardised."""
    values = pixels.flatten(2).long()  # (N, 3, S * S)
    bins = (values[:, 0] // 64 * 16 + values[:, 1] // 64 * 4 + values[:, 2] // 64).clamp(0, 63)
    histogram = torch.zeros(len(pixels), 64).scatter_add_(1, bins, torch.ones_like(bins, dtype=torch.float32))
    features = torch.cat([values.float().mean(2), histogram], 1)
    return (features - features.mean(0)) / (features.std(0) + 1e-6)


def test_colour_alone_does_not_tell_the_class():
    pixels, labels, _ = draw_shapes(4000)
    features = colour_features(pixels)
    train, test = slice(0, 3000), slice(3000, 4000)
    targets = torch.nn.functional.one_hot(labels, 10).float()
    ridge = features[train].T @ features[train] + 30 * torch.eye(features.shape[1])
    linear = features[test] @ torch.linalg.solve(ridge, features[train].T @ targets[train])
    nearest = torch.cdist(features[test], features[train]).topk(15, largest=False).indices
    neighbours = targets[train][nearest].sum(1)
    for name, scores in (("linear", linear), ("neighbours", neighbours)):
        accuracy = (scores.argmax(1) == labels[test]).float().mean().item()
        assert accuracy < 0.1 + 4 * 0.0095, f"{name}: {accuracy:.3f}, chance is 0.1 with sd 0.0095"


def test_a_size_at_which_products_overflow_is_refused():
    with pytest.raises(ValueError, match="8 to 512"):
        draw_shapes(10, size=513)


def test_rendering_in_parts_changes_nothing(monkeypatch):
    whole = draw_shapes(50)[0]
    monkeypatch.setattr(shapes, "_CHUNK", 3 * 32 * 32)
    assert torch.equal(draw_shapes(50)[0], whole)
