"""The house style and shared plots: bands over seeds, tiles, pictures, reproducible bytes."""

import io

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib import pyplot as plt
from PIL import Image

from lib import plots

pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def table(seeds):
    """Two arms over four epochs: arm b exceeds arm a by 1, and seed s exceeds seed 0 by s."""
    return pd.DataFrame(
        [
            {"arm": arm, "seed": seed, "epoch": epoch, "loss": epoch**2 + seed + (arm == "b")}
            for seed in range(seeds)
            for arm in "ab"
            for epoch in range(4)
        ]
    )


def test_mean_and_spread_over_seeds():
    found = plots.mean_and_spread(table(3), ["arm", "epoch"], "loss")
    assert list(found.columns) == ["arm", "epoch", "mean", "std", "count"]
    assert found["mean"].tolist() == [1, 2, 5, 10, 2, 3, 6, 11]
    assert found["std"].tolist() == pytest.approx([1] * 8)  # n - 1
    assert set(found["count"]) == {3}


def test_one_seed_has_no_spread():
    assert plots.mean_and_spread(table(1), ["arm", "epoch"], "loss")["std"].tolist() == [0] * 8


@pytest.mark.parametrize(("seeds", "bands"), [(1, 0), (2, 2), (3, 2)])
def test_curves_have_a_band_only_with_several_seeds(seeds, bands):
    _, axes = plots.subplots()
    plots.curves(axes, table(seeds), "epoch", "loss", "arm")
    assert len(axes.lines) == 2
    assert len(axes.collections) == bands


def test_a_curve_is_the_mean_and_its_band_one_standard_deviation_wide():
    _, axes = plots.subplots()
    plots.curves(axes, table(3), "epoch", "loss", "arm")
    assert axes.lines[0].get_xdata().tolist() == [0, 1, 2, 3]
    assert axes.lines[0].get_ydata().tolist() == [1, 2, 5, 10]
    corners = axes.collections[0].get_paths()[0].vertices
    assert sorted(set(corners[corners[:, 0] == 2][:, 1])) == pytest.approx([4, 6])


def test_curves_differ_by_colour_and_marker_and_keep_the_colour_that_was_chosen():
    _, axes = plots.subplots()
    plots.curves(axes, table(1), "epoch", "loss", "arm", colours={"b": "#123456"})
    first, second = axes.lines
    assert [line.get_label() for line in axes.lines] == ["a", "b"]
    assert first.get_color() != second.get_color() == "#123456"
    assert first.get_marker() != second.get_marker()


def test_a_label_with_a_chosen_colour_has_one_style_in_all_panels():
    _, (left, right) = plots.subplots(1, 2)
    chosen, both = {"a": "#111111", "b": "#222222"}, table(1)
    plots.curves(left, both, "epoch", "loss", "arm", colours=chosen)
    plots.curves(right, both[both.arm == "b"], "epoch", "loss", "arm", colours=chosen)
    assert left.lines[1].get_marker() == right.lines[0].get_marker()


def test_dots_lie_in_the_rows_of_their_arms_the_first_at_the_top():
    _, axes = plots.subplots()
    frame = pd.DataFrame({"arm": ["x", "y", "y"], "score": [1.0, 2.0, np.nan], "kind": ["one", "one", "one"]})
    plots.dots(axes, frame, "score", ["x", "y"], "kind", {"one": ("#111111", "o", 0.1)})
    (found,) = axes.collections
    assert found.get_offsets().tolist() == [[1.0, 0.1], [2.0, 1.1]]
    assert axes.yaxis_inverted() and [label.get_text() for label in axes.get_yticklabels()] == ["x", "y"]


def test_more_curves_than_colours_are_still_told_apart():
    _, axes = plots.subplots()
    rows = [
        {"arm": arm, "epoch": epoch, "loss": arm} for arm in range(2 * len(plots.COLOURS) + 1) for epoch in range(2)
    ]
    plots.curves(axes, pd.DataFrame(rows), "epoch", "loss", "arm")
    looks = [(line.get_color(), line.get_marker(), line.get_linestyle()) for line in axes.lines]
    assert len(set(looks)) == len(looks)


def test_tile_puts_pictures_in_rows_with_white_between_and_where_one_is_missing():
    pictures = [np.full((2, 3, 3), value) for value in (0.1, 0.2, 0.3)]
    sheet = plots.tile(pictures, columns=2, gap=1)
    o, a, b, c = 1.0, 0.1, 0.2, 0.3
    top, bottom = [a, a, a, o, b, b, b], [c, c, c, o, o, o, o]
    expected = np.array([top, top, [o] * 7, bottom, bottom])
    assert sheet.shape == (5, 7, 3)
    np.testing.assert_array_equal(sheet, expected[..., None].repeat(3, axis=2))


def test_one_picture_tiles_to_itself():
    picture = np.random.default_rng(0).random((4, 5, 3))
    np.testing.assert_array_equal(plots.tile([picture], columns=1, gap=3), picture)


def test_a_filter_is_shown_with_grey_for_zero_and_its_largest_weight_at_the_limit():
    kernel = torch.zeros(3, 2, 2)
    kernel[0, 0, 1], kernel[2, 1, 0] = 0.5, -0.25
    picture = plots.filter_picture(kernel)
    assert picture.shape == (2, 2, 3)
    assert picture[0, 1].tolist() == [1, 0.5, 0.5]
    assert picture[1, 0].tolist() == [0.5, 0.5, 0.25]
    np.testing.assert_array_equal(plots.filter_picture(10 * kernel), picture)
    assert (plots.filter_picture(torch.zeros(3, 2, 2)) == 0.5).all()


def test_a_picture_has_no_axes():
    _, axes = plots.subplots()
    plots.show_picture(axes, np.zeros((3, 3, 3)), "black")
    assert not axes.axison
    assert axes.get_title() == "black"


def test_one_legend_below_names_every_line_once():
    figure, (left, right) = plots.subplots(1, 2)
    for axes in (left, right):
        plots.curves(axes, table(2), "epoch", "loss", "arm")
    plots.legend_below(figure, left)
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["a", "b"]


def test_an_arranged_figure_stays_as_it_is_when_something_is_added():
    figure, (left, right) = plots.subplots(1, 2)
    plots.curves(left, table(2), "epoch", "loss", "arm")
    plots.legend_below(figure, left)
    plots.arrange(figure)
    (legend,) = figure.legends
    before = [left.get_position().bounds, right.get_position().bounds, legend.get_window_extent().bounds]
    right.set_title("a title\nof two lines")
    figure.text(0, -0.2, "source")
    figure.savefig(io.BytesIO(), format="png", bbox_inches="tight")
    after = [left.get_position().bounds, right.get_position().bounds, legend.get_window_extent().bounds]
    np.testing.assert_allclose(after, before, atol=1e-6)


def test_figures_have_the_size_and_font_of_the_printed_page():
    figure, _ = plots.subplots(height=2.0)
    assert figure.get_size_inches().tolist() == [plots.TEXT_WIDTH, 2.0]
    assert mpl.rcParams["font.size"] == 8


def test_the_style_has_as_many_markers_as_colours_and_none_twice():
    assert len(set(plots.COLOURS)) == len(set(plots.MARKERS)) == len(plots.COLOURS) == len(plots.MARKERS)


def test_drawing_twice_gives_the_same_bytes():
    def drawn():
        figure, axes = plots.subplots(1, 2)
        plots.curves(axes[0], table(3), "epoch", "loss", "arm")
        axes[1].imshow(np.eye(3))
        plots.legend_below(figure, axes[0])
        file = io.BytesIO()
        figure.savefig(file, format="png")
        return file.getvalue()

    assert drawn() == drawn()


def saved(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png", dpi=(200, 200))
    return buffer.getvalue()


def test_a_small_png_is_exact_up_to_256_colours_and_close_beyond():
    random = np.random.default_rng(0)
    across, down = np.meshgrid(np.linspace(0, 255, 300), np.linspace(0, 255, 200))
    few = random.integers(0, 2, (40, 60, 3)) * 255
    photograph = np.stack([across, down, 255 - across], axis=-1)
    noise = random.integers(0, 256, (500, 500, 3))  # far too large in full colour
    for pixels, furthest in ((few, 0), (photograph, 8), (noise, 64)):
        small = plots.small_png(saved(pixels.astype(np.uint8)), Inputs="abc")
        picture = Image.open(io.BytesIO(small))
        assert np.abs(np.asarray(picture.convert("RGB"), int) - pixels.astype(np.uint8)).max() <= furthest
        assert picture.text == {"Inputs": "abc"} and round(picture.info["dpi"][0]) == 200
        assert len(small) <= plots.LARGEST_PNG
        assert small == plots.small_png(saved(pixels.astype(np.uint8)), Inputs="abc")
