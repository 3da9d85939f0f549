"""Every figure of the study, drawn from saved data alone."""

from collections.abc import Mapping

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from lib import plots

Arrays = Mapping[str, np.ndarray]

ARM_COLOURS = {
    "categorical": plots.COLOURS[1],
    "categorical, queue": plots.COLOURS[5],
    "NT-Xent": plots.COLOURS[0],
    "MoCo": plots.COLOURS[4],
    "IMSVD form": plots.COLOURS[2],
    "CARP form": plots.COLOURS[3],
    "SCAN form": plots.COLOURS[6],
}
NAMES = ("$x_i$", "$x_i'$", "$x_j$")


def _picture(image: np.ndarray) -> np.ndarray:
    """Convert uint8 (3, h, w) to (h, w, 3) in [0, 1]."""
    return image.transpose(1, 2, 0) / 255


def similarity(arrays: Arrays) -> Figure:
    """Draw fig21: soft codes, and their agreement with x_i at each position. arrays: `pictures.pair_and_other`."""
    figure, axes = plots.subplots(3, 3, height=3.6, width_ratios=[0.55, 1.6, 1.6])
    soft = arrays["soft"]  # (3, L, K)
    positions = np.arange(1, soft.shape[1] + 1)
    for row, cells in enumerate(axes):
        plots.show_picture(cells[0], _picture(arrays["images"][row]), NAMES[row])
        heat = cells[1].imshow(soft[row].T, cmap="Blues", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
        cells[1].grid(False)
        cells[1].set(ylabel="category", xlabel="position" if row == 2 else "", yticks=[], xticks=[])
        each = (soft[0] * soft[row]).sum(-1)
        cells[2].bar(positions, each, color=plots.COLOURS[1] if row else "0.7", width=0.8)
        cells[2].axhline(each.mean(), color=plots.COLOURS[6], linewidth=1)
        cells[2].set(ylim=(0, 1.05), ylabel="agreement", xlabel="position" if row == 2 else "")
        cells[2].set_title(f"s({NAMES[0]}, {NAMES[row]}) = {each.mean():.2f}", fontsize=7)
    axes[0, 1].set_title("soft code", fontsize=7)
    figure.colorbar(heat, ax=axes[:, 1], label="probability", shrink=0.6)
    return figure


def moco(facts: pd.DataFrame) -> Figure:
    """Draw fig22: Momentum Contrast with codes in place of embeddings. facts: `experiments.queue_facts`."""
    value = dict(zip(facts.name, facts.value, strict=True))
    figure, axes = plots.subplots(height=2.6)
    blue, orange = "#CFE3F3", "#FBE0CC"
    boxes = [  # left, bottom, width, text, colour
        (0.0, 1.5, 1.4, "view $x$", "white"),
        (0.0, 0.0, 1.4, "view $x'$", "white"),
        (2.0, 1.5, 1.9, "encoder and head\nlearned by gradient", blue),
        (2.0, 0.0, 1.9, f"momentum encoder\nmomentum {value['momentum']:g}", orange),
        (4.6, 1.5, 1.4, f"code $p$\n{value['positions']:.0f} × {value['categories']:.0f}", blue),
        (4.6, 0.0, 1.4, "code $q$", orange),
        (6.6, 0.0, 1.4, f"queue of\n{value['queue']:,.0f} codes", orange),
        (6.6, 1.5, 1.4, "InfoNCE on\nagreement $s(p, q)$", "0.92"),
    ]
    tall, style = 0.8, "round,pad=0.02,rounding_size=0.08"
    for x, y, width, text, colour in boxes:
        axes.add_patch(FancyBboxPatch((x, y), width, tall, boxstyle=style, facecolor=colour, edgecolor="0.2"))
        axes.text(x + width / 2, y + tall / 2, text, ha="center", va="center", fontsize=7)

    across = [((start, y), (end, y)) for y in (1.9, 0.4) for start, end in ((1.42, 1.98), (3.92, 4.58), (6.02, 6.58))]
    upwards = [((5.3, 0.82), (6.7, 1.48)), ((7.3, 0.82), (7.3, 1.48))]
    down = ((2.95, 1.48), (2.95, 0.82))
    for start, end in [*across, *upwards, down]:
        dashes = "--" if (start, end) == down else "-"
        style = {"arrowstyle": "-|>", "mutation_scale": 8, "color": "0.2", "linestyle": dashes, "linewidth": 1}
        axes.add_patch(FancyArrowPatch(start, end, **style))
    axes.text(3.03, 1.14, "moving average", fontsize=6, va="center")
    axes.text(7.38, 1.14, "negatives", fontsize=6, va="center")
    axes.set(xlim=(-0.15, 8.4), ylim=(-0.2, 2.5))
    axes.set_axis_off()
    return figure


def categorical_similarity(arrays: Arrays, shown: int = 16) -> Figure:
    """Draw fig23: x_i, x_i′, x_j and hard codes, as in the source's figure 3. arrays: `pictures.pair_and_other`.

    A position is coloured if it has the same category as in x_i.
    """
    figure, axes = plots.subplots(3, 2, height=2.6, width_ratios=[0.16, 1])
    equal = (arrays["hard"] == arrays["hard"][:1]).mean(1)
    for row, (cell, strip) in enumerate(axes):
        plots.show_picture(cell, _picture(arrays["images"][row]), NAMES[row])
        for place, category in enumerate(arrays["hard"][row][:shown]):
            colour = plots.COLOURS[4] if row else "0.85"
            face = colour if category == arrays["hard"][0][place] else "white"
            strip.add_patch(mpl.patches.Rectangle((place, 0), 0.94, 0.94, facecolor=face, edgecolor="0.5"))
            strip.text(place + 0.47, 0.47, f"{category}", ha="center", va="center", fontsize=7)
        if arrays["hard"].shape[1] > shown:
            strip.text(shown + 0.1, 0.47, "…", va="center")
        strip.set(xlim=(-0.05, shown + 0.6), ylim=(-0.05, 1))
        strip.set_axis_off()
        expected = arrays["agreement"][0, row]
        title = f"{NAMES[row]}: {100 * equal[row]:.0f} % of positions agree, expected agreement {expected:.2f}"
        strip.set_title(title, fontsize=7, loc="left")
    return figure


def clusters(arrays: Arrays) -> Figure:
    """Draw fig24: one row per cluster, images from its centre (left) to its edge. arrays: `pictures.cluster_sheet`."""
    sheets = arrays["images"]
    count, columns = sheets.shape[:2]
    figure, axes = plots.subplots(height=0.36 * count + 0.5)
    pictures = [_picture(image) for row in sheets for image in row]
    sheet = plots.tile(pictures, columns)
    axes.imshow(sheet, interpolation="nearest", aspect="auto", extent=(0, columns, count - 0.5, -0.5))
    labels = [
        f"{100 * size:.0f} % of images; {100 * pure:.0f} % {name}"
        for size, pure, name in zip(arrays["sizes"], arrays["purity"], arrays["names"], strict=True)
    ]
    axes.set_yticks(range(count), labels, fontsize=6)
    axes.set_xticks([0.5, columns - 0.5], ["centre of the cluster", "edge"])
    axes.grid(False)
    return figure


def code_map(arrays: Arrays) -> Figure:
    """Draw fig25: a map of the codes by class, and their agreement sorted by cluster. arrays: `pictures.code_map`."""
    figure, axes = plots.subplots(1, 2, height=3.1, width_ratios=[1.25, 1])
    colours = plt.style.library["petroff10"]["axes.prop_cycle"].by_key()["color"]  # ten accessible colours
    for number, name in enumerate(arrays["classes"]):
        chosen = arrays["labels"] == number
        style = {"color": colours[number % len(colours)], "marker": plots.MARKERS[number % len(plots.MARKERS)]}
        axes[0].scatter(*arrays["map"][chosen].T, s=9, label=str(name).strip("_"), linewidth=0, **style)
    axes[0].set(title="t-SNE of the codes (qualitative)", xticks=[], yticks=[])
    axes[0].legend(fontsize=5, ncols=2, markerscale=1.3, loc="best", handletextpad=0.2, columnspacing=0.6)
    heat = axes[1].imshow(arrays["matrix"], cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    axes[1].set(title="expected agreement, images sorted by cluster", xticks=[], yticks=[])
    axes[1].grid(False)
    figure.colorbar(heat, ax=axes[1], shrink=0.7)
    return figure


def curves(frame: pd.DataFrame) -> Figure:
    """Draw fig26: measures that are comparable across losses, over images seen. frame: `experiments.histories`."""
    figure, axes = plots.subplots(1, 3, height=2.5)
    frame = frame.assign(thousands=frame.images / 1000)
    panels = (
        ("knn", "kNN accuracy on features (%)"),
        ("knn_output", "kNN on codes or embedding (%)"),
        ("used", "category perplexity (% of K)"),
    )
    for cell, (column, label) in zip(axes, panels, strict=True):
        plots.curves(cell, frame.dropna(subset=[column]), "thousands", column, "arm", colours=ARM_COLOURS)
        cell.set(xlabel="training images seen (thousands)", ylabel=label)
    plots.legend_below(figure, axes[0])
    return figure


def health(frame: pd.DataFrame) -> Figure:
    """Draw fig27: agreement of two views of an image and of different images, and categories used at each position.

    frame: `evaluation.agreement_histograms`.
    """
    figure, axes = plots.subplots(1, 3, height=2.5)
    panels = (
        ("positives", "two views of an image", "expected agreement", "share of pairs"),
        ("negatives", "two different images", "expected agreement", "share of pairs"),
        ("perplexity", "usage of the positions", "position, sorted", "perplexity"),
    )
    for cell, (panel, title, x, y) in zip(axes, panels, strict=True):
        part = frame[frame.panel == panel]
        plots.curves(cell, part, "x", "value", "arm", colours=ARM_COLOURS)
        cell.set(title=title, xlabel=x, ylabel=y)
        cell.set_ylim(bottom=0)
    plots.legend_below(figure, axes[0])
    return figure


def positions(frame: pd.DataFrame) -> Figure:
    """Draw fig28: accuracy against L for each K; a cross marks collapsed codes. frame: `experiments.ablation_table`."""
    figure, axes = plots.subplots(1, 3, height=2.5)
    frame = frame.assign(K=[f"K = {k}" for k in frame.categories])
    panels = (
        ("soft", "k-means on soft codes (%)"),
        ("hard", "k-modes on hard codes (%)"),
        ("knn", "Hamming kNN (%)"),
    )
    for cell, (column, label) in zip(axes, panels, strict=True):
        plots.curves(cell, frame, "positions", column, "K")
        lost = frame[frame.collapsed]
        if len(lost):
            style = {"marker": "x", "s": 45, "color": "0.2", "zorder": 3}
            cell.scatter(lost.positions, lost[column], label="collapsed: one code", **style)
        cell.set_xscale("log", base=2)
        cell.set_xticks(sorted(frame.positions.unique()), [str(p) for p in sorted(frame.positions.unique())])
        cell.minorticks_off()
        cell.set(xlabel="positions L", ylabel=label)
    plots.legend_below(figure, axes[0])
    return figure


def retrieval(arrays: Arrays) -> Figure:
    """Draw fig29: queries and their nearest training images by Hamming distance. arrays: `pictures.retrieval`.

    Above each neighbour: the share of positions that agree, and a tick if the class is the same, a cross if not.
    """
    rows, columns = arrays["agreement"].shape
    figure, axes = plots.subplots(rows, columns + 1, height=0.72 * rows + 0.2, squeeze=False)
    for row in range(rows):
        plots.show_picture(axes[row, 0], _picture(arrays["queries"][row]), "query" if row == 0 else "")
        for column in range(columns):
            mark = "✓" if arrays["same"][row, column] else "✗"
            title = f"{100 * arrays['agreement'][row, column]:.0f} % {mark}"
            plots.show_picture(axes[row, column + 1], _picture(arrays["nearest"][row, column]), title)
    return figure


def meanings(frame: pd.DataFrame) -> Figure:
    """Draw fig210: what each position encodes, as NMI with known factors. frame: `pictures.meanings`."""
    wide = frame.pivot_table(index="factor", columns="position", values="nmi", sort=False)
    figure, axes = plots.subplots(height=0.28 * len(wide) + 1.0)
    limit = max(0.05, float(wide.to_numpy().max()))
    seaborn.heatmap(wide, cmap="Blues", vmin=0, vmax=limit, cbar_kws={"label": "NMI"}, ax=axes)
    axes.set_ylabel("")
    axes.tick_params(axis="y", rotation=0)
    axes.grid(False)
    return figure


READOUTS = {
    "k-means on soft codes": (plots.COLOURS[1], "o", 0.0),
    "k-modes on hard codes": (plots.COLOURS[0], "s", 0.0),
    "connected codes": (plots.COLOURS[2], "^", 0.0),
    "one position": (plots.COLOURS[3], "v", 0.0),
    "k-means on embedding": (plots.COLOURS[5], "D", 0.0),
    "k-means on features": (plots.COLOURS[7], "P", 0.0),
    "k-means on pixels": (plots.COLOURS[6], "X", 0.0),
}


def scores(table: pd.DataFrame) -> Figure:
    """Draw fig211: clustering accuracy by arm and readout, one mark per seed. table: tab21 for one cluster count."""
    arms = list(dict.fromkeys(table.arm))
    figure, axes = plots.subplots(height=0.3 * len(arms) + 1.0)
    plots.dots(axes, table, "accuracy", arms, "readout", READOUTS)
    axes.set_xlabel("Hungarian accuracy on test images (%)")
    axes.set_xlim(left=0)
    plots.legend_below(figure, axes)
    return figure


SEARCH_COLOURS = {
    "PQ": plots.COLOURS[0],
    "OPQ": plots.COLOURS[4],
    "ITQ": plots.COLOURS[2],
    "LSH": plots.COLOURS[7],
    "categorical": plots.COLOURS[1],
    "categorical, soft query": plots.COLOURS[5],
}


def search(table: pd.DataFrame) -> Figure:
    """Draw fig212: mean average precision against bytes per stored image, one panel per embedding. table: tab26."""
    names = list(table.embedding.unique())
    figure, axes = plots.subplots(1, len(names), height=2.7, squeeze=False)
    for cell, name in zip(axes[0], names, strict=True):
        part = table[table.embedding == name]
        coded = part[part.method != "exact search"]
        plots.curves(cell, coded, "bytes", "map", "method", colours=SEARCH_COLOURS)
        exact = part[part.method == "exact search"]["map"].mean()
        cell.axhline(exact, color="0.2", linestyle="--", linewidth=1, label="exact search")
        cell.set_xscale("log", base=2)
        cell.set_xticks(sorted(coded.bytes.unique()), [f"{size:g}" for size in sorted(coded.bytes.unique())])
        cell.minorticks_off()
        cell.set(title=name, xlabel="bytes per stored image", ylabel="mean average precision (%)")
        cell.set_ylim(bottom=0)
    plots.legend_below(figure, axes[0, 0])
    return figure
