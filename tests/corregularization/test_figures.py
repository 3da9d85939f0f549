"""Every figure, from made-up data of one and of three seeds: no warnings, labelled axes, reproducible bytes."""

import io

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib import pyplot as plt

from lib import plots
from lib.corregularization import figures
from lib.corregularization.analysis import coherence, similar_pairs
from lib.corregularization.experiments import judged
from lib.metrics.comparison import paired_table

pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


ARMS = ("plain", "Gram", "random g = 2")


def histories(seeds):
    """Return data like `experiments.histories`: epoch 0 has no training loss."""
    return pd.DataFrame(
        [
            {
                "arm": arm,
                "seed": seed,
                "epoch": epoch,
                "task": 2 / epoch + 0.1 * seed + number if epoch else np.nan,
                "test_loss": 2.3 / (1 + epoch) + 0.1 * seed + number,
                "test_accuracy": 0.1 + 0.2 * epoch - 0.01 * seed,
            }
            for seed in range(seeds)
            for number, arm in enumerate(ARMS)
            for epoch in range(4)
        ]
    )


def correlations(seeds):
    sizes = {"conv1": (32, 27), "conv2": (64, 288)}
    return pd.DataFrame(
        [
            {"arm": arm, "seed": seed, "epoch": epoch, "layer": layer, "n": n, "d": d, "rms": 0.3 / (1 + epoch + seed)}
            | {"mean": 0.1, "max": 0.9, "welch": max(n - d, 0) / n}
            for seed in range(seeds)
            for arm in ARMS
            for epoch in range(3)
            for layer, (n, d) in sizes.items()
        ]
    )


def groups(seeds):
    return pd.DataFrame(
        [
            {"arm": arm, "seed": seed, "groups": 2, "within": 0.1 + 0.01 * seed, "across": 0.2, "first_largest": 0.5}
            for seed in range(seeds)
            for arm in ARMS
        ]
    )


def packing(seeds):
    arms = [
        ("random start", "whole"),
        *((loss, groups) for loss in ("p = 2", "p = 4") for groups in ("whole", "random")),
    ]
    return pd.DataFrame(
        [
            {"loss": loss, "groups": groups, "ratio": ratio, "n": 8 * ratio, "d": 8, "start": seed}
            | {"rms": 0.3 + 0.1 * seed, "max": 0.9, "welch": 0.1 * ratio}
            for seed in range(seeds)
            for loss, groups in [*arms, ("p = 2", "noise")]
            for ratio in (0.5, 1, 2, 8)
        ]
    )


def pruning(seeds):
    return pd.DataFrame(
        [
            {"arm": arm, "seed": seed, "removed": removed, "share": share, "accuracy": 80 - slope * share - seed}
            for seed in range(seeds)
            for arm in ARMS
            for removed, slope in (("most similar", 50), ("random", 70))
            for share in (0, 0.25, 0.5)
        ]
    )


def compared(seeds, by=()):
    rows = pruning(seeds).query("share == 0 and removed == 'random'")
    rows = rows.assign(accuracy=rows.accuracy + (rows.arm == "Gram") * (2 + 0.1 * rows.seed))
    conditions = [rows.assign(condition=name) for name in ("all images", "few images")] if by else [rows]
    return paired_table(pd.concat(conditions), baseline="plain", by=by)


def kernels():
    return {
        layer: {arm: draw(*shape, seed=number) for number, arm in enumerate(ARMS)}
        for layer, shape in {"conv1": (12, 3, 3, 3), "conv4": (16, 8, 3, 3)}.items()
    }


# name → (function from the number of seeds to the figure, labels with units that must appear)
FIGURES = {
    "filters": (lambda seeds: figures.filters(kernels()["conv1"]), set()),
    "similar_filters": (
        lambda seeds: figures.similar_filters({epoch: draw(12, 3, 3, 3, seed=epoch) for epoch in range(9)}),
        {"epoch", "|cosine| of the pair", "pair of filters (numbers)"},
    ),
    "gram_matrix": (lambda seeds: figures.gram_matrix(kernels()), {"filter", "cosine (diagonal left out)"}),
    "loss_curves": (
        lambda seeds: figures.loss_curves(histories(seeds)),
        {
            "epoch",
            "training loss (nats)",
            "test loss (nats)",
            "test accuracy (%)",
            "difference from plain",
            "difference from plain (points)",
        },
    ),
    "correlation": (
        lambda seeds: figures.correlation(correlations(seeds)),
        {"epoch", "RMS |cosine|", "largest |cosine|"},
    ),
    "grouped_loss_curves": (
        lambda seeds: figures.grouped_loss_curves(histories(seeds), groups(seeds)),
        {"epoch", "difference from plain (nats)", "RMS |cosine|, mean of layers", "largest |cosine|, first layer"},
    ),
    "packing": (
        lambda seeds: figures.packing(packing(seeds)),
        {"filters per dimension, n/d", "RMS |cosine|", "largest |cosine|"},
    ),
    "norm_and_angle": (
        lambda seeds: figures.norm_and_angle(kernels()),
        {"filter norm", "angle between filters (degrees)", "cumulative share of filters", "cumulative share of pairs"},
    ),
    "pruning": (
        lambda seeds: figures.pruning(pruning(seeds)),
        {"filters removed per layer (%)", "test accuracy (%)"},
    ),
    "trained_networks": (
        lambda seeds: figures.trained_networks(networks()),
        {"convolution", "RMS cosine", "largest |cosine|"},
    ),
    "trained_pruning": (
        lambda seeds: figures.trained_pruning(probed()),
        {"filters removed per layer (%)", "probe's test accuracy (%)"},
    ),
    "traversals": (
        lambda seeds: figures.traversals({name: draw(5, 7, 16, 16, 3).sigmoid().numpy() for name in ("VAE", "Gram")}),
        {"value of the latent", "latent, by KL divergence"},
    ),
    "differences": (
        lambda seeds: figures.differences(compared(seeds)),
        {"test accuracy minus that without penalty (percentage points)"},
    ),
    "differences by condition": (
        lambda seeds: figures.differences(compared(seeds, by=["condition"])),
        {"test accuracy minus that without penalty (percentage points)"},
    ),
}


def networks():
    """Return data like `imagenet.similarity_table`, for networks with 5 and 13 layers."""
    return pd.DataFrame(
        [
            {"network": name, "layer": layer, "filters": filters, "seed": 0, "welch": 0.1 / layer, "rms": value / layer}
            | {"max": value}
            for name, layers in (("AlexNet", 5), ("VGG16", 13))
            for layer in range(1, layers + 1)
            for filters, value in (("trained", 0.9), ("random", 0.4), ("orthogonal", 0.1))
        ]
    )


def probed():
    """Return data like `imagenet.pruning_table`."""
    rows = [
        (name, share, 50 - 40 * share) for name in ("most similar", "shortest", "random") for share in (0, 0.1, 0.3)
    ]
    table = pd.DataFrame(rows, columns=["removed", "share", "accuracy"])
    return table.assign(low=table.accuracy - 3, high=table.accuracy + 3)


def png(figure):
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=50)
    return file.getvalue()


def unnamed(figure):
    """Return the axes with numbers but no label, neither their own nor that of an axis they share."""
    found = []
    for number, axes in enumerate(figure.axes):
        for side, shared in (("x", axes.get_shared_x_axes()), ("y", axes.get_shared_y_axes())):
            labels = [getattr(one, f"get_{side}label")() for one in [axes, *shared.get_siblings(axes)]]
            ticks = [tick.get_text() for tick in getattr(axes, f"get_{side}ticklabels")()]
            words = any(any(c.isalpha() for c in tick) for tick in ticks)
            bar = axes.get_label() == "<colorbar>" and side == "x"
            if axes.axison and not (any(labels) or words or bar):
                found.append(f"{side} axis of panel {number}")
    return found


OF_ONE_MODEL = (
    "filters",
    "similar_filters",
    "gram_matrix",
    "norm_and_angle",
    "trained_networks",
    "trained_pruning",
    "traversals",
)  # their data have no seeds
DRAWN = [
    (name, seeds)
    for name in FIGURES
    for seeds in (1, 3)
    if not (name in OF_ONE_MODEL and seeds == 3 or "differences" in name and seeds == 1)
]


@pytest.mark.parametrize(("name", "seeds"), DRAWN)
def test_figure_is_drawn_without_warnings_with_named_axes_and_the_same_bytes_twice(name, seeds):
    make, wanted = FIGURES[name]
    figure = make(seeds)
    first = png(figure)
    assert not unnamed(figure)
    labels = {text for axes in figure.axes for text in (axes.get_xlabel(), axes.get_ylabel())}
    assert wanted <= labels
    plt.close(figure)
    assert png(make(seeds)) == first


def test_every_figure_of_the_study_is_tested():
    made = {
        name
        for name, value in vars(figures).items()
        if getattr(value, "__annotations__", {}).get("return") in (plt.Figure, plt.Figure | None)
    }
    assert made == {name for name in FIGURES if "by condition" not in name}


def test_filters_shows_all_of_an_arm_and_the_cosines_of_its_most_similar_pairs():
    weights = kernels()["conv1"]
    figure = figures.filters(weights, pairs=3)
    assert len(figure.axes) == 2 * len(weights)
    for number, (arm, weight) in enumerate(weights.items()):
        assert figure.axes[2 * number].get_title() == f"{arm}: 12 filters of the first layer"
        cosines = [f"{value:+.2f}" for value in similar_pairs(weight, 3).cosine]
        assert figure.axes[2 * number + 1].get_title().endswith("\n" + ", ".join(cosines))


@pytest.mark.parametrize("epochs", [1, 2, 9])
def test_similar_filters_follows_the_pairs_of_the_last_epoch(epochs):
    snapshots = {epoch: draw(12, 3, 3, 3, seed=epoch) for epoch in reversed(range(epochs))}
    figure = figures.similar_filters(snapshots, pairs=4)
    pictures, lines = figure.axes
    found = similar_pairs(snapshots[epochs - 1], 4)
    names = [f"{i}, {j}" for i, j in zip(found.i, found.j, strict=True)]
    assert [tick.get_text() for tick in pictures.get_xticklabels()] == names
    rows = [int(tick.get_text()) for tick in pictures.get_yticklabels()]
    assert rows[0] == 0
    assert rows[-1] == epochs - 1
    assert len(rows) == min(6, epochs)
    for line, cosine in zip(lines.lines, found.cosine, strict=True):
        assert line.get_xdata().tolist() == list(range(epochs))
        assert line.get_ydata()[-1] == pytest.approx(abs(cosine))


def test_gram_matrices_leave_out_the_diagonal_and_say_how_similar_the_filters_are():
    weights = kernels()
    figure = figures.gram_matrix(weights)
    panel = figure.axes[0]
    shown = panel.images[0].get_array()
    assert shown.shape == (12, 12)
    assert not shown.diagonal().any()
    found = coherence(weights["conv1"]["plain"])
    assert panel.get_title() == f"conv1, plain\nRMS {found['rms']:.3f}, max {found['max']:.2f}"


def test_measuring_for_a_figure_leaves_the_kernels_alone():
    weights = kernels()
    before = {layer: {arm: kernel.clone() for arm, kernel in arms.items()} for layer, arms in weights.items()}
    figures.gram_matrix(weights)
    figures.norm_and_angle(weights)
    figures.filters(weights["conv1"])
    for layer, arms in weights.items():
        assert all(torch.equal(kernel, before[layer][arm]) for arm, kernel in arms.items())


@pytest.mark.parametrize(("seeds", "bands"), [(1, 0), (3, 3)])
def test_loss_curves_are_means_over_seeds_in_per_cent_with_bands_for_several(seeds, bands):
    figure = figures.loss_curves(histories(seeds))
    for axes in figure.axes:
        assert len(axes.lines) == 3
        assert len(axes.collections) == bands
    training, _, accuracy = figure.axes[:3]
    assert training.lines[0].get_xdata().tolist() == [1, 2, 3]  # nothing was trained in epoch 0
    assert accuracy.lines[0].get_ydata().tolist() == pytest.approx([10 + 20 * e - (seeds - 1) / 2 for e in range(4)])


def test_differences_from_plain_are_paired_by_seed_and_epoch():
    frame = histories(3)
    for panels in (figures.loss_curves(frame).axes[3:5], figures.grouped_loss_curves(frame, groups(3)).axes[:2]):
        for axes in panels:
            for number, line in enumerate(axes.lines):  # arm k is made to differ from plain by k
                assert line.get_ydata().tolist() == pytest.approx([number] * len(line.get_ydata()))
                assert line.get_color() == figures.ARM_COLOURS[ARMS[number]]


def test_an_arm_keeps_its_colour_through_the_figures():
    panels = [
        figures.loss_curves(histories(1)).axes[0],
        figures.correlation(correlations(1)).axes[0],
        figures.grouped_loss_curves(histories(1), groups(1)).axes[1],
        figures.pruning(pruning(1)).axes[0],
    ]
    for arm in ARMS:
        colours = {line.get_color() for axes in panels for line in axes.lines if line.get_label() == arm}
        assert colours == {figures.ARM_COLOURS[arm]}


def test_random_removal_is_dashed_in_the_colour_of_its_arm():
    lines = {line.get_label(): line for line in figures.pruning(pruning(1)).axes[0].lines}
    assert lines.keys() == {f"{arm}{which}" for arm in ARMS for which in ("", ", random filters")}
    for arm in ARMS:
        similar, random = lines[arm], lines[f"{arm}, random filters"]
        assert similar.get_color() == random.get_color()
        assert (similar.get_linestyle(), random.get_linestyle()) == ("-", "--")
        assert similar.get_ydata().tolist() == [80, 67.5, 55] and random.get_ydata().tolist() == [80, 62.5, 45]


def test_correlation_has_a_panel_per_layer_with_its_bound_and_what_random_filters_have():
    figure = figures.correlation(correlations(1))
    assert [axes.get_title() for axes in figure.axes[:2]] == ["conv1: n = 32, d = 27", "conv2: n = 64, d = 288"]
    assert figure.axes[2].lines[0].get_ydata()[0] == 0.9 and figure.axes[2].get_ylim()[1] > 0.9
    flat = {line.get_label(): line.get_ydata()[0] for line in figure.axes[0].lines}
    assert flat["Welch bound"] == 5 / 32
    assert flat["random filters, 1/√d"] == pytest.approx(27**-0.5)


def test_grouped_bars_show_all_similarities_of_every_arm():
    figure = figures.grouped_loss_curves(histories(3), groups(3))
    bars, largest = figure.axes[2:]
    assert [bar.get_width() for bar in largest.patches] == pytest.approx([0.5] * 3)
    assert [tick.get_text() for tick in bars.get_yticklabels()] == list(ARMS)
    within, across = (container for container in bars.containers if hasattr(container, "patches"))
    assert [bar.get_width() for bar in within] == pytest.approx([0.11] * 3)
    assert [bar.get_width() for bar in across] == pytest.approx([0.2] * 3)


def test_packing_draws_a_column_per_loss_the_bound_and_no_colour_twice():
    axes = figures.packing(packing(1)).axes
    assert [cell.get_title() for cell in axes] == ["p = 2", "p = 4", "", ""]
    lines = {line.get_label(): line for line in axes[0].lines}
    assert list(lines) == ["random start", "whole", "random", "whole, random noise", "Welch bound"]
    assert len({line.get_color() for line in lines.values()}) == len(lines)
    assert lines["Welch bound"].get_xdata().tolist() == [0.5, 1, 2, 8]
    assert lines["Welch bound"].get_ydata().tolist() == pytest.approx([0.05, 0.1, 0.2, 0.8])
    assert axes[0].get_ylim()[0] == 0 and axes[0].get_ylim()[1] > 0.8  # no curve is cut off


def test_differences_show_intervals():
    table = compared(3)
    (axes,) = figures.differences(table).axes
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["Gram", "random g = 2"]  # not the baseline
    gram = table.set_index("arm").loc["Gram"]
    assert gram.verdict == "better"
    interval, point = axes.lines[:2]
    assert interval.get_xdata() == pytest.approx([gram.ci_low, gram.ci_high])
    assert point.get_xdata() == pytest.approx([gram.difference])
    assert point.get_color() == plots.COLOURS[2]


def test_differences_leave_out_what_says_nothing():
    assert figures.differences(compared(1)) is None  # no interval
    table = compared(3, by=["condition"])  # the baseline has 79 % on average
    chance = table.condition.map({"all images": 10.0, "few images": 80.0})
    (axes,) = figures.differences(judged(table.assign(chance=chance))).axes
    assert axes.get_title(loc="left") == "all images"
    assert figures.differences(judged(table.assign(chance=80.0))) is None


def test_differences_have_a_panel_per_condition():
    figure = figures.differences(compared(3, by=["condition"]))
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["all images", "few images"]


def test_filter_arrays_are_named_by_layer_and_arm():
    weights = kernels()
    found = figures.filter_arrays(weights)
    assert list(found) == [f"{layer}/{arm}" for layer in weights for arm in ARMS]
    np.testing.assert_array_equal(found["conv4/Gram"], weights["conv4"]["Gram"].numpy())
