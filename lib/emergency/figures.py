"""Figures of study 4 shared by notebooks 04 and 05, drawn from saved data only."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.ndimage import uniform_filter
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

from lib import plots

Arrays = Mapping[str, np.ndarray]

MOST_NUMBERED = 25  # classes up to which the counts of a confusion matrix are legible
EVENT, SPEECH = plots.COLOURS[1], plots.COLOURS[0]


def layer_table(network: nn.Module, *inputs: Tensor, what: str) -> pd.DataFrame:
    """Return the layers of `network` in the order in which `inputs` pass through them (fig419, fig420).

    Columns: layer, shape (of its output for one clip, channels first), parameters. Layers that neither have weights nor
    change the shape are omitted, as are batch norms. what: description of the inputs, for the first row."""
    rows = [(what, inputs[0].shape[1:], 0)]

    def passed(layer: nn.Module, given: tuple[Tensor, ...], found: Tensor) -> None:
        if any(True for _ in layer.children()):
            return
        size = sum(weight.numel() for weight in layer.parameters())
        if not isinstance(layer, nn.BatchNorm2d) and (size or found.shape != given[0].shape):
            rows.append((_named(layer), found.shape[1:], size))

    with torch.inference_mode(), register_module_forward_hook(passed):
        network(*inputs)
    return pd.DataFrame([{"layer": name, "shape": " x ".join(map(str, shape)), "parameters": size}
                         for name, shape, size in rows])  # fmt: skip


def _named(layer: nn.Module) -> str:
    kind = type(layer).__name__
    if isinstance(layer, nn.Linear):
        return f"{kind} {layer.in_features} → {layer.out_features}"
    if isinstance(layer, nn.Conv2d):
        kernel, stride = layer.kernel_size, "" if max(layer.stride) == 1 else f", stride {layer.stride[0]}"
        return f"{kind} {kernel[0]} x {kernel[1]}{stride}, {layer.in_channels} → {layer.out_channels}"
    return kind


def layers(table: pd.DataFrame) -> Figure:
    """Draw the rows of `layer_table` from top to bottom: layer, shape of its output, number of weights."""
    figure, axes = plots.subplots(height=0.27 * len(table) + 0.4, width=4.4)
    axes.set(xlim=(0, 10), ylim=(len(table) - 0.4, -0.6))
    axes.set_axis_off()
    fills = ["#DCE9F5" if size else "#F2F2F2" for size in table.parameters]
    axes.barh(range(len(table)), 5.2, 0.6, left=0.4, color=fills, edgecolor="0.3", linewidth=0.7)
    for place, row in enumerate(table.itertuples()):
        axes.text(3.0, place, row.layer, ha="center", va="center", fontsize=6)
        axes.text(5.9, place, row.shape, va="center", fontsize=6)
        axes.text(9.8, place, f"{row.parameters:,} weights" if row.parameters else "", ha="right", va="center",
                  fontsize=6, color="0.35")  # fmt: skip
    return figure


def variants(curves: pd.DataFrame, table: pd.DataFrame) -> Figure:
    """Draw fig41: accuracy over epochs, and final accuracy with its interval and that of the source's 666 clips."""
    figure, (left, right) = plots.subplots(1, 2, height=2.6, width_ratios=[1.25, 1])
    plots.curves(left, curves, "epoch", "accuracy", "variant")
    left.set(xlabel="epoch", ylabel="out-of-fold accuracy (%)")
    labels = list(table.variant.unique())
    for place, label in enumerate(labels):
        rows, colour = table[table.variant == label], plots.COLOURS[place % len(plots.COLOURS)]
        mean = rows[["accuracy", "low", "high", "low_666", "high_666"]].mean()
        right.plot([mean.low_666, mean.high_666], [place] * 2, color="0.75", linewidth=5, solid_capstyle="butt")
        right.plot([mean.low, mean.high], [place] * 2, color=colour, linewidth=1.6)
        right.plot(rows.accuracy, [place] * len(rows), plots.MARKERS[place % len(plots.MARKERS)], color=colour)
    right.plot([], [], color="0.3", label=f"95 %, {table.clips.iloc[0]:,} clips")
    right.plot([], [], color="0.75", linewidth=5, label="95 %, 666 clips (the source's)")
    right.set(yticks=range(len(labels)), yticklabels=labels, xlabel="out-of-fold accuracy (%)", ylim=(len(labels), -1))
    right.grid(axis="y", visible=False)
    plots.legend_below(figure, left)
    right.legend(loc="lower center", bbox_to_anchor=(0.4, 1.0), fontsize=6, ncols=1)
    return figure


def confusion(arrays: Arrays) -> Figure:
    """Draw fig42 or fig47 from `experiments.matrices`: confusion of classes, and of alarm or none; reliability."""
    counts, names = arrays["counts"], [str(name) for name in arrays["names"]]
    plots.use_style()
    if len(names) <= MOST_NUMBERED:
        beside = {"figsize": (plots.TEXT_WIDTH, 4.8), "width_ratios": [2.6, 1]}
        figure, axes = plt.subplot_mosaic([["all", "binary"], ["all", "reliability"]], **beside)
    else:  # at full width, for legible names
        below = {"figsize": (plots.TEXT_WIDTH, 8.6), "height_ratios": [3.4, 1]}
        figure, axes = plt.subplot_mosaic([["all", "all"], ["binary", "reliability"]], **below)
    _matrix(axes["all"], counts, names, size=5)
    if len(arrays["binary"]):
        _matrix(axes["binary"], arrays["binary"], ["emergency", "none"], size=7)
        shares = 100 * arrays["binary"] / max(arrays["binary"].sum(), 1)
        constant = max(zip(shares.sum(1), ("always", "never"), strict=True))
        title = f"emergency or not: {np.trace(shares):.1f} % correct,\n{constant[1]} alarming: {constant[0]:.1f} %"
        axes["binary"].set_title(title, fontsize=6)
        axes["binary"].set_ylabel("")
    else:
        axes["binary"].set_axis_off()
        axes["binary"].text(0.5, 0.5, "no class of this set\nis an emergency", ha="center", va="center", fontsize=7)
    below = axes["reliability"]
    below.plot([0, 1], [0, 1], color="0.6", linewidth=0.8)
    for place, (name, label) in enumerate((("trained", "uncalibrated"), ("calibrated", "temperature-scaled"))):
        confidence, accuracy, count = arrays[f"reliability_{name}"].T
        filled = count > 0
        below.plot(confidence[filled], accuracy[filled], plots.MARKERS[place], linestyle="-", label=label)
        edges = np.linspace(0, 1, len(count) + 1)
        below.stairs(0.25 * count / max(count.max(), 1), edges, color=plots.COLOURS[place], alpha=0.3, fill=True)
    below.set(xlabel="confidence (bars: clips, scaled)", ylabel="accuracy", xlim=(0, 1),
              ylim=(0, 1))  # fmt: skip
    below.xaxis.label.set_fontsize(6)
    below.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False, fontsize=6)  # above the curves
    return figure


def _matrix(axes: Axes, counts: np.ndarray, names: list[str], *, size: float) -> None:
    """Draw row percentages as colours, and counts as numbers if there is room for them."""
    share = 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)
    words = np.char.mod("%d", counts)
    if len(names) == 2:
        words = np.char.add(words, np.char.mod("\n%.1f %%", share))
    numbered = {"annot": np.where(counts > 0, words, ""), "fmt": "", "annot_kws": {"fontsize": size}}
    seaborn.heatmap(share, vmin=0, vmax=100, cmap="Blues", square=True, cbar=False, ax=axes, xticklabels=names,
                    yticklabels=names, **(numbered if len(names) <= MOST_NUMBERED else {}))  # fmt: skip
    axes.grid(False)
    axes.tick_params(labelsize=size + 0.5, length=0)
    axes.tick_params(axis="x", rotation=90), axes.tick_params(axis="y", rotation=0)
    axes.set(xlabel="predicted class", ylabel="true class")


def relevance(arrays: Arrays, seconds: float) -> Figure:
    """Draw fig43 or fig410 from `experiments.relevance_pictures`: spectrograms beside relevance, spans below both."""
    mel, found = arrays["mel"], arrays["relevance"]
    count = max(len(mel), 1)
    figure, axes = plots.subplots(count, 2, height=1.75 * count + 0.3, squeeze=False, sharex=True)
    for row, (left, right) in enumerate(axes):
        if row >= len(mel):
            left.set_axis_off(), right.set_axis_off()
            continue
        extent = (0, seconds, 0, mel.shape[1])
        left.imshow(mel[row], cmap="magma", origin="lower", aspect="auto", extent=extent)
        right.imshow(_shown(found[row]), cmap="RdBu_r", vmin=-1, vmax=1, origin="lower", aspect="auto", extent=extent)
        name, taken = arrays["names"][row], arrays["taken_for"][row]
        left.set_title(f"{name}" if name == taken else f"{name} (predicted: {taken})", fontsize=7)
        right.set_title(f"relevance for {name}", fontsize=7)
        left.set_ylabel("mel band")
        for axes_ in (left, right):
            axes_.grid(False)
            for _, kind, *span in arrays["spans"][arrays["spans"][:, 0] == row]:
                colour, height = ((EVENT, -3), (SPEECH, -7))[int(kind)]
                axes_.plot(span, [height] * 2, color=colour, linewidth=3, solid_capstyle="butt", clip_on=False)
            if len(arrays["spans"]):
                axes_.set_ylim(-10, mel.shape[1])
    for one in axes[-1]:
        one.set_xlabel("time (s)")
    if len(arrays["spans"]):
        axes[-1, 0].plot([], [], color=EVENT, linewidth=3, label="event (not speech)")
        axes[-1, 0].plot([], [], color=SPEECH, linewidth=3, label="speech")
        plots.legend_below(figure, axes[-1, 0])
    return figure


def _shown(relevance: np.ndarray) -> np.ndarray:
    """Return relevance (mels, frames) as colours from -1 to 1: smoothed over 2 bands x 4 frames, as it is scattered
    over single cells, and square-rooted to make faint values visible."""
    smooth = uniform_filter(relevance / (np.abs(relevance).max() or 1.0), (2, 4), mode="nearest", origin=-1)
    return np.sign(smooth) * np.sqrt(np.abs(smooth) / max(np.abs(smooth).max(), 1e-12))


def faithfulness(frame: pd.DataFrame) -> Figure:
    """Draw fig44 from `experiments.faithfulness_curves`, averaged over seeds if there are several."""
    figure, (left, right) = plots.subplots(1, 2, height=2.5)
    flipped = frame[frame.panel == "flipping"]
    colours = {"LRP": plots.COLOURS[1], "input x gradient": plots.COLOURS[0], "random": "0.6"}
    for method, colour in colours.items():
        for order, style in (("most", "-"), ("least", "--")):
            some = flipped[(flipped.method == method) & (flipped.order == order)]
            line = plots.mean_and_spread(some, ["x"], "value")
            label = f"{method}, {order} relevant first"
            if method == "random":
                label = "random order" if order == "most" else None
            left.plot(100 * line.x, line["mean"], style, color=colour, label=label)
    left.set(xlabel="tiles flipped (%)", ylabel="probability of the class", ylim=(0, None))
    plots.legend_below(figure, left, columns=3)
    drawn = frame[frame.panel == "randomised"]
    plots.curves(right, drawn, "x", "value", "method", colours=colours)
    right.axhline(0, color="0.6", linewidth=0.8)
    right.set(xlabel="layers re-initialised, from the top", ylabel="rank correlation with original map",
              ylim=(None, 1.05))  # fmt: skip
    right.xaxis.get_major_locator().set_params(integer=True)
    right.legend(fontsize=6)
    return figure
