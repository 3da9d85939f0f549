"""All figures of the study, drawn from saved data alone: one seed as lines, several as means with bands."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from lib import plots
from lib.corregularization import analysis
from lib.corregularization.experiments import NOT_JUDGED

# An arm has the same colour in all figures.
ARM_COLOURS = {
    "plain": plots.COLOURS[6],
    "Gram": plots.COLOURS[1],
    "fixed g = 2": "#9ECAE1",
    "fixed g = 4": "#4292C6",
    "fixed g = 8": "#084594",
    "random g = 2": "#FDD0A2",
    "random g = 4": "#FD8D3C",
    "random g = 8": "#A63603",
}


def filters(weights: Mapping[str, Tensor], pairs: int = 6) -> Figure:
    """Plot all filters of the first convolution for each arm, and its most similar pairs side by side.

    weights: arm → (n, 3, k, k).
    """
    figure, axes = plots.subplots(len(weights), 2, height=1.05 * len(weights), width_ratios=[2, 1], squeeze=False)
    for (all_axes, pair_axes), (label, weight) in zip(axes, weights.items(), strict=True):
        pictures = [plots.filter_picture(kernel) for kernel in weight]
        plots.show_picture(all_axes, plots.tile(pictures, columns=16))
        all_axes.set_title(f"{label}: {len(weight)} filters of the first layer", fontsize=8)
        found = analysis.similar_pairs(weight, pairs)
        couples = [plots.tile([pictures[i], pictures[j]], columns=2) for i, j in zip(found.i, found.j, strict=True)]
        plots.show_picture(pair_axes, plots.tile(couples, columns=3, gap=2))
        cosines = ", ".join(f"{value:+.2f}" for value in found.cosine)
        pair_axes.set_title(f"most similar pairs, cosine\n{cosines}", fontsize=7)
    return figure


def similar_filters(snapshots: Mapping[int, Tensor], pairs: int = 6) -> Figure:
    """Plot over epochs the pairs that end up most similar. snapshots: epoch → first-layer filters (n, 3, k, k)."""
    epochs = sorted(snapshots)
    shown = [epochs[i] for i in np.unique(np.linspace(0, len(epochs) - 1, min(6, len(epochs))).round().astype(int))]
    found = analysis.similar_pairs(snapshots[epochs[-1]], pairs)
    grams = {epoch: analysis.gram_matrix(snapshots[epoch]) for epoch in epochs}
    figure, (picture_axes, line_axes) = plots.subplots(1, 2, height=2.7, width_ratios=[1.5, 1])

    numbers = list(zip(found.i, found.j, strict=True))
    pictures = [[plots.filter_picture(kernel) for kernel in snapshots[epoch]] for epoch in shown]
    rows = [plots.tile([picture[i], picture[j]], columns=2) for picture in pictures for i, j in numbers]
    image = plots.tile(rows, columns=len(found), gap=2)
    picture_axes.imshow(image, interpolation="nearest", aspect="auto")
    height, width = image.shape[0] / len(shown), image.shape[1] / len(found)
    picture_axes.set_yticks([height * (row + 0.5) for row in range(len(shown))], [str(epoch) for epoch in shown])
    picture_axes.set_xticks([width * (column + 0.5) for column in range(len(found))], [f"{i}, {j}" for i, j in numbers])
    picture_axes.set(xlabel="pair of filters (numbers)", ylabel="epoch")
    picture_axes.grid(False)
    for number, (i, j) in enumerate(numbers):
        line = [grams[epoch][i, j].abs().item() for epoch in epochs]
        colour, marker = plots.COLOURS[number % 8], plots.MARKERS[number % 8]
        line_axes.plot(epochs, line, color=colour, marker=marker, label=f"{i}, {j}")
    line_axes.set(xlabel="epoch", ylabel="|cosine| of the pair", ylim=(0, 1))
    line_axes.legend(ncols=2, title="pair", title_fontsize=7)
    return figure


def gram_matrix(weights: Mapping[str, Mapping[str, Tensor]]) -> Figure:
    """Plot the cosines between all filters of each layer and arm. weights: layer → arm → kernel."""
    layers = list(weights)
    arms = list(weights[layers[0]])
    figure, axes = plots.subplots(len(layers), len(arms), width=2.3 * len(arms), height=2 * len(layers), squeeze=False)
    for row, layer in zip(axes, layers, strict=True):
        for cell, arm in zip(row, arms, strict=True):
            gram = analysis.gram_matrix(weights[layer][arm])
            found = analysis.coherence(weights[layer][arm])
            gram.fill_diagonal_(0)  # always 1, which would hide the rest
            image = cell.imshow(np.asarray(gram), cmap="RdBu_r", vmin=-0.5, vmax=0.5, interpolation="nearest")
            cell.grid(False)
            cell.set_title(f"{layer}, {arm}\nRMS {found['rms']:.3f}, max {found['max']:.2f}", fontsize=7)
            cell.set(xlabel="filter", ylabel="filter")
    bar = figure.colorbar(image, ax=axes, shrink=0.7, extend="both")
    bar.set_label("cosine (diagonal left out)")
    return figure


def _minus_plain(frame: pd.DataFrame) -> pd.DataFrame:
    """Return losses and accuracy minus those of "plain" at the same seed and epoch; "plain" itself becomes zero."""
    columns, at = ["task", "test_loss", "test_accuracy"], ["seed", "epoch"]
    plain, frame = frame[frame.arm == "plain"].set_index(at)[columns], frame.set_index(at)
    frame[columns] -= plain.loc[frame.index].to_numpy()
    return frame.reset_index()


def loss_curves(frame: pd.DataFrame) -> Figure:
    """Plot losses and test accuracy over epochs, and their difference from "plain". frame: `experiments.histories`."""
    figure, axes = plots.subplots(2, 3, height=3.5, sharex=True)
    frame = frame.assign(test_accuracy=100 * frame.test_accuracy)
    labels = {"task": "training loss (nats)", "test_loss": "test loss (nats)", "test_accuracy": "test accuracy (%)"}
    for (top, bottom), (column, label) in zip(axes.T, labels.items(), strict=True):
        for cell, values in ((top, frame), (bottom, _minus_plain(frame))):
            plots.curves(cell, values.dropna(subset=[column]), "epoch", column, "arm", colours=ARM_COLOURS)
        top.set(ylabel=label)
        bottom.set(xlabel="epoch", ylabel="difference from plain" + (" (points)" if column == "test_accuracy" else ""))
    plots.legend_below(figure, axes[0][0])
    return figure


def correlation(frame: pd.DataFrame) -> Figure:
    """Plot each layer's RMS (correlation value) and largest |cosine| over epochs. frame: `experiments.correlations`."""
    layers = list(frame.layer.unique())
    figure, axes = plots.subplots(2, len(layers), height=3.5, sharex=True, sharey="row", squeeze=False)
    for (top, bottom), layer in zip(axes.T, layers, strict=True):
        part = frame[frame.layer == layer]
        n, d, welch = part.iloc[0][["n", "d", "welch"]]
        for cell, column in ((top, "rms"), (bottom, "max")):
            plots.curves(cell, part, "epoch", column, "arm", colours=ARM_COLOURS)
            cell.axhline(welch, color="0.4", linestyle=":", linewidth=1, label="Welch bound")
        top.axhline(d**-0.5, color="0.6", linestyle="--", linewidth=0.8, label="random filters, 1/√d")
        top.set(title=f"{layer}: n = {n:.0f}, d = {d:.0f}")
        bottom.set(xlabel="epoch")
    axes[0][0].set(ylabel="RMS |cosine|", ylim=(0, None))  # after all layers are drawn, as they share the axis
    axes[1][0].set(ylabel="largest |cosine|", ylim=(0, None))
    plots.legend_below(figure, axes[0][0])
    return figure


def grouped_loss_curves(frame: pd.DataFrame, groups: pd.DataFrame) -> Figure:
    """Plot the losses of grouped arms minus those of "plain", and the final similarity within and across groups.

    frame: `experiments.histories`; groups: `experiments.group_table`.
    """
    figure, axes = plots.subplots(2, 2, height=4.6)
    for cell, (column, label) in zip(axes[0], (("task", "training loss"), ("test_loss", "test loss")), strict=True):
        plots.curves(cell, _minus_plain(frame).dropna(subset=[column]), "epoch", column, "arm", colours=ARM_COLOURS)
        cell.set(title=label, xlabel="epoch", ylabel="difference from plain (nats)")
    arms = list(groups.arm.unique())
    bars = (
        (axes[1][0], -0.19, "within", plots.COLOURS[4]),
        (axes[1][0], 0.19, "across", plots.COLOURS[3]),
        (axes[1][1], 0, "first_largest", plots.COLOURS[7]),
    )
    for cell, offset, column, colour in bars:
        found = plots.mean_and_spread(groups, ["arm"], column)
        label = f"pairs {column} groups"
        cell.barh(np.arange(len(arms)) + offset, found["mean"], 0.36, xerr=found["std"], color=colour, label=label)
        cell.set_yticks(range(len(arms)), arms)
        cell.set_ylim(len(arms) - 0.5, -0.5)
    axes[1][0].set(xlabel="RMS |cosine|, mean of layers")
    axes[1][1].set(xlabel="largest |cosine|, first layer", xlim=(0, 1))
    axes[1][0].legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)
    plots.legend_below(figure, axes[0][0])
    return figure


def packing(frame: pd.DataFrame) -> Figure:
    """Plot RMS and largest |cosine| against n/d, a column per loss, a line per grouping. frame: `packing_table`."""
    losses = [loss for loss in frame.loss.unique() if loss != "random start"]
    figure, axes = plots.subplots(2, len(losses), height=3.7, sharex=True, sharey="row", squeeze=False)
    colours = {"random start": "0.6", "whole": plots.COLOURS[0], "fixed": plots.COLOURS[5], "random": plots.COLOURS[1]}
    colours |= {"whole, random noise": plots.COLOURS[2]}
    groups = frame.groups.replace("noise", "whole, random noise").mask(frame.loss == "random start", "random start")
    named = frame.assign(groups=groups)
    bound = frame.drop_duplicates("ratio").sort_values("ratio")
    ticks = bound.ratio[bound.ratio.round() == bound.ratio]
    for row, (column, label) in zip(axes, (("rms", "RMS |cosine|"), ("max", "largest |cosine|")), strict=True):
        for cell, loss in zip(row, losses, strict=True):
            shown = named[named.loss.isin([loss, "random start"])]
            plots.curves(cell, shown, "ratio", column, "groups", colours=colours)
            cell.plot(bound.ratio, bound.welch, color="black", linewidth=3, alpha=0.25, label="Welch bound", zorder=0)
            cell.set(xscale="log")
            cell.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
            cell.minorticks_off()
        row[0].set(ylabel=label, ylim=(0, None))
    for loss, top, bottom in zip(losses, *axes, strict=True):
        top.set_title(loss)
        bottom.set_xlabel("filters per dimension, n/d")
    plots.legend_below(figure, axes[0][0], columns=6)
    return figure


def norm_and_angle(weights: Mapping[str, Mapping[str, Tensor]]) -> Figure:
    """Plot the cumulative distributions of filter norms and angles. weights: layer → arm → kernel."""
    figure, axes = plots.subplots(2, len(weights), width=3.2 * len(weights), height=3.6, sharey=True, squeeze=False)
    for (top, bottom), (layer, arms) in zip(axes.T, weights.items(), strict=True):
        for arm, kernel in arms.items():
            for cell, values in zip((top, bottom), analysis.norms_and_angles(kernel), strict=True):
                cell.ecdf(values.numpy(), linewidth=1.2, label=arm, color=ARM_COLOURS.get(arm))
        bottom.axvline(90, color="0.5", linewidth=0.8, linestyle=":")
        top.set(title=layer, xlabel="filter norm")
        bottom.set(xlabel="angle between filters (degrees)", xlim=(30, 150))
    axes[0][0].set(ylabel="cumulative share of filters")
    axes[1][0].set(ylabel="cumulative share of pairs")
    plots.legend_below(figure, axes[0][0], columns=5)
    return figure


def pruning(frame: pd.DataFrame) -> Figure:
    """Plot the accuracy after removing the most similar filters, or random ones (dashed), against the share removed.

    frame: `experiments.pruning_table`.
    """
    figure, axes = plots.subplots(width=plots.COLUMN, height=2.3)
    shown = frame.assign(share=100 * frame.share)
    for removed, part in shown.groupby("removed", sort=False):
        drawn = len(axes.lines)
        plots.curves(axes, part, "share", "accuracy", "arm", colours=ARM_COLOURS)
        for line in axes.lines[drawn:] if removed == "random" else []:
            line.set(linestyle="--", label=f"{line.get_label()}, random filters")
    axes.set(xlabel="filters removed per layer (%)", ylabel="test accuracy (%)", ylim=(0, None))
    axes.legend()
    return figure


def trained_networks(frame: pd.DataFrame) -> Figure:
    """Plot RMS and largest |cosine| of the filters over the layers of networks. frame: `imagenet.similarity_table`."""
    networks = dict(list(frame.groupby("network", sort=False)))
    figure, axes = plots.subplots(2, len(networks), height=3.4, sharex="col", sharey="row", squeeze=False)
    for (top, bottom), (name, part) in zip(axes.T, networks.items(), strict=True):
        bound = part.drop_duplicates("layer")
        top.plot(bound.layer, bound.welch, color="0.5", linestyle="--", label="Welch bound")
        for cell, column in ((top, "rms"), (bottom, "max")):
            plots.curves(cell, part, "layer", column, "filters")
        top.set(title=f"{name}, {len(bound)} layers")
        bottom.set(xlabel="convolution", ylim=(0, 1.02))
        bottom.xaxis.get_major_locator().set_params(integer=True)
    axes[0, 0].set(ylabel="RMS cosine", ylim=(0, 1.05 * frame.rms.max()))
    axes[1, 0].set(ylabel="largest |cosine|")
    plots.legend_below(figure, axes[0, 0])
    return figure


def trained_pruning(frame: pd.DataFrame) -> Figure:
    """Plot probe accuracy (95 % intervals) against the share removed, by criterion. frame: `imagenet.pruning_table`."""
    figure, axes = plots.subplots(width=plots.COLUMN, height=2.3)
    for number, (name, part) in enumerate(frame.groupby("removed", sort=False)):
        axes.errorbar(
            100 * part.share + 0.4 * (number - 1), part.accuracy, [part.accuracy - part.low, part.high - part.accuracy],
            color=plots.COLOURS[number], marker=plots.MARKERS[number], capsize=2, label=name,
        )  # fmt: skip
    axes.set(xlabel="filters removed per layer (%)", ylabel="probe's test accuracy (%)")
    axes.legend(title="removed first")
    return figure


def differences(table: pd.DataFrame) -> Figure | None:
    """Plot accuracy minus that of the arm without penalty, with 95 % intervals. table: `comparison.paired_table`.

    With a `condition` column there is one panel per condition; those that `experiments.judged` does not judge are left
    out. Returns None if nothing is left or no arm has an interval, as with one seed.
    """
    shown = table[~table.verdict.str.startswith(("baseline", NOT_JUDGED))]
    if not shown.ci_low.notna().any():
        return None
    panels = dict(list(shown.groupby("condition", sort=False))) if "condition" in table else {"": shown}
    panels = {name: part.reset_index(drop=True) for name, part in panels.items()}
    sizes = [len(part) for part in panels.values()]
    height = 0.35 + 0.17 * sum(sizes) + 0.22 * len(panels)
    figure, axes = plots.subplots(len(panels), 1, height=height, height_ratios=sizes, sharex=True, squeeze=False)
    colours = {"better": plots.COLOURS[2], "worse": plots.COLOURS[1]}
    for cell, (name, part) in zip(axes[:, 0], panels.items(), strict=True):
        for row, found in part.iterrows():
            colour = colours.get(found.verdict, "0.35")
            cell.plot([found.ci_low, found.ci_high], [row, row], color=colour, linewidth=1.2)
            cell.plot(found.difference, row, marker="o", color=colour)
        cell.axvline(0, color="0.5", linewidth=0.8, linestyle=":")
        cell.set_yticks(range(len(part)), part.arm)
        cell.set_ylim(len(part) - 0.5, -0.5)
        cell.set_title(name, loc="left", fontsize=7, pad=2)
    axes[-1][0].set(xlabel="test accuracy minus that without penalty (percentage points)")
    return figure


def filter_arrays(weights: Mapping[str, Mapping[str, Tensor]]) -> dict[str, np.ndarray]:
    """Flatten layer → arm → kernel to arrays named "layer/arm", to be saved with a figure."""
    return {
        f"{layer}/{arm}": torch.as_tensor(kernel).numpy()
        for layer, arms in weights.items()
        for arm, kernel in arms.items()
    }


def traversals(pictures: Mapping[str, np.ndarray]) -> Figure:
    """Plot latent traversals, one panel per arm. pictures: `disentanglement.traversals`."""
    figure, axes = plots.subplots(1, len(pictures), height=1.9, squeeze=False, sharey=True)
    for cell, (label, rows) in zip(axes[0], pictures.items(), strict=True):
        count, steps, size = rows.shape[:3]
        cell.imshow(plots.tile(list(rows.reshape(-1, *rows.shape[2:])), columns=steps), interpolation="nearest")
        cell.set_title(label)
        cell.set_xticks([size / 2, steps * (size + 1) / 2, (steps - 0.5) * (size + 1)], ["-2", "0", "2"])
        cell.set_yticks([(row + 0.5) * (size + 1) for row in range(count)], range(1, count + 1))
        cell.set(xlabel="value of the latent")
        cell.grid(False)
    axes[0, 0].set(ylabel="latent, by KL divergence")
    return figure
