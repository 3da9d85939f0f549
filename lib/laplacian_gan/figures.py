"""Every figure of the study, drawn from saved data alone: lines for one seed, bands or dots for several."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from lib import plots
from lib.laplacian_gan.arms import NO_SOURCE
from lib.metrics.classification import wilson

Arrays = Mapping[str, np.ndarray]
FOLLOWS = 0.2  # samples follow their sources if correlations with sources and with other images differ by more

# An arm has the same colour in all figures.
ARM_COLOURS = {
    "real images": plots.COLOURS[6],
    "DCGAN": plots.COLOURS[0],
    "pyramid GAN": plots.COLOURS[1],
    "null: zeros": plots.COLOURS[7],
    "LAPGAN chain": plots.COLOURS[2],
}
# Colour, marker and vertical offset (so that markers do not overlap) by origin of the sources.
SPLITS = {
    NO_SOURCE: (plots.COLOURS[6], "D", 0.0),
    "training": (plots.COLOURS[1], "o", 0.14),
    "held-out": (plots.COLOURS[0], "s", -0.14),
}


def _tiled(images: np.ndarray, columns: int, gap: int = 1) -> np.ndarray:
    """Tile uint8 images (n, 3, h, w) into one picture in [0, 1]."""
    return plots.tile(list(images.transpose(0, 2, 3, 1) / 255), columns, gap)


def _show_images(axes: Axes, images: np.ndarray, columns: int, title: str = "", gap: int = 1) -> None:
    plots.show_picture(axes, _tiled(images, columns, gap))
    axes.set_title(title, fontsize=7)


def pyramid(arrays: Arrays) -> Figure:
    """Draw fig11: images, the bands of their pyramids and the collapsed bands. arrays: `pictures.pyramid_bands`."""
    bands = [name for name in arrays if name.endswith("px")]
    count = len(arrays["images"])
    figure, axes = plots.subplots(count, len(bands) + 2, height=1.15 * count + 0.3, squeeze=False)
    error = np.abs(arrays["collapsed"] - arrays["images"]).max()
    for row, cells in enumerate(axes):
        first = row == 0
        plots.show_picture(cells[0], _unit(arrays["images"][row]), "image x" if first else "")
        for cell, name in zip(cells[1:-1], bands, strict=True):
            residual = name == bands[-1]
            band = arrays[name][row]
            picture = _unit(band if residual else band / max(2 * np.abs(arrays[name]).max(), 1e-6) * 2)
            title = f"{name}, low-pass" if residual else f"{name}, sd {arrays[name].std():.2f}"
            plots.show_picture(cell, picture, title if first else "")
        plots.show_picture(cells[-1], _unit(arrays["collapsed"][row]), f"sum; error ≤ {error:.0e}" if first else "")
    return figure


def _unit(image: np.ndarray) -> np.ndarray:
    """Convert an image (3, h, w) in [-1, 1] to a picture (h, w, 3) in [0, 1]."""
    return np.clip(image.transpose(1, 2, 0) / 2 + 0.5, 0, 1)


def generator(shapes: pd.DataFrame) -> Figure:
    """Draw fig12: the architecture of the generator. shapes: `models.shapes`.

    A layer that takes more channels than the previous one outputs also receives a pyramid level.
    """
    figure, axes = plots.subplots(height=2.4)
    sides, given = [shapes.side[0], *shapes.side_after], [shapes.channels[0], *shapes.channels_after]
    taken = [*shapes.channels, given[-1]]
    gap, place = 0.55, 0.0
    arrow = {"arrowstyle": "-|>", "mutation_scale": 7, "shrinkA": 1, "shrinkB": 1}
    for number, (side, channels, joined) in enumerate(zip(sides, given, taken, strict=True), start=1):
        tall, wide = (0.35 + 0.42 * np.log2(side) if side > 1 else 0.3), 0.12 + 0.055 * np.sqrt(channels)
        axes.add_patch(Rectangle((place, -tall / 2), wide, tall, facecolor="#CFE3F3", edgecolor="0.2"))
        label = f"{channels}\n{side}×{side}" if side > 1 else f"z\n{channels}"
        axes.text(place + wide / 2, -tall / 2 - 0.08, label, ha="center", va="top", fontsize=7)
        place += wide
        if number < len(sides):
            axes.annotate("", (place + gap, 0), (place, 0), arrowprops=arrow | {"color": "0.2"})
        if joined > channels:
            middle = place + gap / 2
            axes.annotate("", (middle, 0.05), (middle, 1.85), arrowprops=arrow | {"color": plots.COLOURS[1]})
            text = f"Lap_pyr\n{joined - channels}×{side}×{side}"
            axes.text(middle, 1.9, text, ha="center", va="bottom", fontsize=7, color=plots.COLOURS[1])
        place += gap
    axes.set(xlim=(-0.2, place - gap + 0.2), ylim=(-1.9, 2.6))
    axes.set_axis_off()
    return figure


def samples(arrays: Arrays, columns: int = 8) -> Figure:
    """Draw fig13 or fig14: generated images; with sources, one panel per split, each source above its sample."""
    if "samples" in arrays:
        figure, axes = plots.subplots(height=2.2)
        _show_images(axes, arrays["samples"], 2 * columns)
        return figure
    splits = [name for name in arrays if f"{name} sources" in arrays]
    figure, axes = plots.subplots(1, len(splits), height=3.6, squeeze=False)
    for cell, name in zip(axes[0], splits, strict=True):
        sources, made = arrays[f"{name} sources"], arrays[name]
        rows = []
        for begin in range(0, len(made), columns):
            rows += [*sources[begin : begin + columns], *made[begin : begin + columns]]
        _show_images(cell, np.stack(rows), columns, f"pyramids of {name} images:\nrows alternate: source, generated")
    return figure


def training_curves(frame: pd.DataFrame) -> Figure:
    """Draw fig15: Fréchet distance, losses and mean outputs of D over images seen. frame: `evaluation.histories`."""
    figure, axes = plots.subplots(1, 3, height=2.5)
    frame = frame.assign(thousands=frame.images / 1000)
    scored = frame.dropna(subset=["fid"]) if "fid" in frame else frame.iloc[:0]
    plots.curves(axes[0], scored, "thousands", "fid", "arm", colours=ARM_COLOURS, each=True)
    axes[0].set(ylabel="Fréchet distance", yscale="log")
    plots.plain_ticks(axes[0].yaxis)
    if frame.seed.nunique() > 1:
        axes[0].set_title("thick: mean, thin: seeds")
    panels = (
        ({"d_loss": "D", "g_loss": "G"}, "loss (nats)"),
        ({"d_real": "real", "d_fake": "generated"}, "mean of sigmoid(D)"),
    )
    for cell, (names, label) in zip(axes[1:], panels, strict=True):
        terms = frame.rename(columns=names).melt(["arm", "thousands"], list(names.values()), "term", label)
        lines = {"hue": "arm", "style": "term", "palette": ARM_COLOURS, "errorbar": "sd", "legend": False}
        seaborn.lineplot(terms, x="thousands", y=label, ax=cell, **lines)
        cell.set_title("solid: {}, dashed: {}".format(*names.values()))
    for cell in axes:
        cell.set_xlabel("training images seen (thousands)")
    plots.legend_below(figure, axes[0])
    return figure


def levels(arrays: Arrays, frame: pd.DataFrame) -> Figure:
    """Draw fig16: what each level reveals. arrays: `pictures.level_samples`; frame: rows of tab12 for these arms."""
    labels = list(arrays)
    count = len(arrays["sources"])
    figure, axes = plots.subplots(1, 4, height=0.36 * len(labels) + 0.9, width_ratios=[1.5, 1, 1, 1])
    sheet = _tiled(np.concatenate([arrays[label] for label in labels]), count)
    axes[0].imshow(sheet, interpolation="nearest", aspect="auto", extent=(0, count, len(labels) - 0.5, -0.5))
    axes[0].set_yticks(range(len(labels)), labels)
    axes[0].set_xticks([])
    axes[0].grid(False)
    axes[0].set_title("held-out sources and samples")
    _dot_panels(axes[1:], frame, labels, LEVEL_PANELS)
    axes[1].tick_params(labelleft=False)
    return figure


def level_values(frame: pd.DataFrame) -> Figure:
    """Draw the right half of fig16, one dot per seed, as a mean over copies and negatives is meaningless."""
    labels = list(frame.arm.unique())
    figure, axes = plots.subplots(1, 3, height=0.3 * len(labels) + 0.9)
    _dot_panels(axes, frame, labels, LEVEL_PANELS)
    return figure


LEVEL_PANELS = (
    ("fid", "Fréchet distance", (0, None)),
    ("retrieval", "own source is nearest", (-0.05, 1.05)),
    ("source_correlation", "correlation with source", (-1.05, 1.05)),
)


def _dot_panels(axes, frame: pd.DataFrame, arms: Sequence[str], panels) -> None:
    """Draw one panel per entry of `panels` (column, title, limits): values of every arm by origin of its sources."""
    for cell, (column, title, limits) in zip(axes, panels, strict=True):
        plots.dots(cell, frame, column, arms, "sources", SPLITS)
        cell.set_title(title)
        if limits:
            cell.set_xlim(limits)
    for cell in axes[1:]:
        cell.tick_params(labelleft=False)
    plots.legend_below(axes[0].figure, axes[0], title="images that the generator is conditioned on")


def nearest(arrays: Arrays) -> Figure:
    """Draw fig17: generated images above their nearest training images. arrays: `pictures.nearest`."""
    figure, axes = plots.subplots(len(arrays), 1, height=1.35 * len(arrays), width=4.6, squeeze=False)
    for cell, (label, pair) in zip(axes[:, 0], arrays.items(), strict=True):
        title = f"{label}: generated, and the nearest training image"
        _show_images(cell, np.concatenate(pair), pair.shape[1], title)
    return figure


def spectrum(frame: pd.DataFrame) -> Figure:
    """Draw fig18: radial power spectra, and their ratio to that of real images. frame: `evaluation.spectra`."""
    figure, axes = plots.subplots(1, 2, height=2.6)
    frame = frame[frame.frequency > 0]
    plots.curves(axes[0], frame, "frequency", "power", "arm", colours=ARM_COLOURS)
    axes[0].set(xlabel="frequency (cycles per pixel)", ylabel="power", yscale="log")
    real = frame[frame.arm == "real images"].set_index(["seed", "frequency"]).power
    others = frame[frame.arm != "real images"].set_index(["seed", "frequency"])
    others = others.assign(ratio=others.power / real.reindex(others.index)).reset_index()
    plots.curves(axes[1], others, "frequency", "ratio", "arm", colours=ARM_COLOURS)
    axes[1].axhline(1, color="0.4", linewidth=1, linestyle=":")
    axes[1].set(xlabel="frequency (cycles per pixel)", ylabel="power, generated / real", yscale="log")
    plots.legend_below(figure, axes[0])
    return figure


def interpolation(arrays: Arrays) -> Figure:
    """Draw fig19: swapped levels, and walks in z and between pyramids. arrays: `pictures.interpolations`."""
    walks = [name for name in arrays if name not in ("sources", "swaps")]
    plots.use_style()
    mosaic = [["swaps", name] for name in walks]
    figure, axes = plt.subplot_mosaic(mosaic, figsize=(plots.TEXT_WIDTH, 2.9), width_ratios=[1, 1.35])
    swaps, sources = arrays["swaps"], arrays["sources"]
    rows = [np.full_like(sources[:1], 255), sources]
    for source, row in zip(sources, swaps, strict=True):
        rows += [source[None], row]
    title = "pyramid GAN: coarse levels from the left,\nfine levels from the top, one z"
    _show_images(axes["swaps"], np.concatenate(rows), len(sources) + 1, title, gap=2)
    for name in walks:
        _show_images(axes[name], arrays[name], len(arrays[name]), name)
    return figure


def controls(frame: pd.DataFrame) -> Figure:
    """Draw fig110: Fréchet distance of every arm, one dot per seed, on training and held-out pyramids. frame: tab12."""
    arms = list(frame.arm.unique())
    figure, axes = plots.subplots(1, 2, height=0.27 * len(arms) + 0.9, width_ratios=[1.4, 1])
    correlation = ("source_correlation", "correlation with the source", (-1.05, 1.05))
    _dot_panels(axes, frame, arms, (("fid", "Fréchet distance to held-out images", None), correlation))
    axes[0].set_xscale("log")
    plots.plain_ticks(axes[0].xaxis)
    axes[1].axvline(0, color="0.7", linewidth=0.8)
    return figure


def extractors(frame: pd.DataFrame) -> Figure:
    """Draw fig112: every arm's Fréchet distance in the features of two extractors. frame: tab12 with `fid_second`.

    The title gives Spearman's rank correlation over all rows except exact copies and those with training sources.
    """
    figure, axes = plots.subplots(1, 1, width=4.0, height=3.2)
    for split, (_, marker, _) in SPLITS.items():
        part = frame[frame.sources == split]
        axes.scatter(part.fid, part.fid_second, color="0.75", marker=marker, s=16, label=f"sources: {split}")
        for arm, colour in ARM_COLOURS.items():
            named = part[part.arm == arm]
            axes.scatter(named.fid, named.fid_second, color=colour, marker=marker, s=22)
    for arm in frame.arm[frame.arm.isin(list(ARM_COLOURS))].unique():
        axes.plot([], [], color=ARM_COLOURS[arm], linewidth=4, label=arm)
    names = (frame[name].iloc[0].split()[0] for name in ("extractor", "second_extractor"))
    first, second = (f"Fréchet distance, {name} features" for name in names)
    once = frame[(frame.sources != "training") & (frame.arm != "copy of held-out images")]
    rank = once.fid.corr(once.fid_second, method="spearman")
    axes.set(xscale="log", yscale="log", xlabel=first, ylabel=second,
             title=f"Spearman's rank correlation of {len(once)} rows: {rank:.2f}")  # fmt: skip
    for axis in (axes.xaxis, axes.yaxis):
        plots.plain_ticks(axis)
    plots.legend_below(figure, axes, columns=3)
    return figure


def mixtures(frame: pd.DataFrame) -> Figure:
    """Draw fig111: distance against copying by the number of images that supply bands. frame: `tables.mixtures`.

    A line joins the points of each seed, as a mean over copies and negatives is meaningless. Arms without sources are
    horizontal lines, as they have nothing to copy. The vertical line is the mean correlation with other images.
    """
    figure, axes = plots.subplots(1, 2, height=2.7, sharey=True)
    frame = frame[frame.sources.isin(["held-out", NO_SOURCE])]
    given = frame[frame.images > 0]
    references = frame[frame.images == 0].groupby("arm", sort=False).fid.mean()
    panels = (("retrieval", "nearest image is a source (share)"), ("source_correlation", "correlation with a source"))
    for cell, (column, label) in zip(axes, panels, strict=True):
        for _, run in given.sort_values("images").groupby("seed"):
            cell.plot(run[column], run.fid, color="0.7", linewidth=0.8, zorder=1)
        for number, (count, part) in enumerate(given.groupby("images")):
            style = {"color": plots.COLOURS[number], "marker": plots.MARKERS[number], "s": 22, "zorder": 2}
            cell.scatter(part[column], part.fid, label=f"{count} image{'s' if count > 1 else ''}", **style)
        for (arm, distance), style in zip(references.items(), ("--", ":", "-."), strict=True):
            cell.axhline(distance, color="0.3", linestyle=style, linewidth=1, label=arm)
        cell.set(xlabel=label, yscale="log")
    plots.plain_ticks(axes[0].yaxis)
    axes[1].axvline(given.chance_correlation.mean(), color="0.3", linewidth=0.6)
    axes[0].set(ylabel="Fréchet distance", xlim=(-0.05, 1.05))
    axes[1].set(xlim=(-1.05, 1.05), xticks=[-1, -0.5, 0, 0.5, 1])
    plots.legend_below(figure, axes[0], columns=3)
    return figure


def signs(frame: pd.DataFrame) -> Figure:
    """Draw fig113: correlation with the source over training, one panel per arm. frame: `evaluation.signs`.

    There is one line per run (`seed`, `training`); the dotted line is the mean correlation with other images. Titles
    count the runs that end with copies and with negatives (see `FOLLOWS`) and give Wilson's 95 % interval for the
    share of copies among these.
    """
    arms = list(frame.arm.unique())
    figure, axes = plots.subplots(1, len(arms), height=2.4, sharey=True, squeeze=False)
    for cell, arm in zip(axes[0], arms, strict=True):
        part = frame[frame.arm == arm]
        for _, run in part.groupby(["seed", "training"]):
            negative = run.source_correlation.iloc[-1] < run.chance_correlation.iloc[-1]
            style = {"color": plots.COLOURS[1], "linestyle": "--"} if negative else {"color": plots.COLOURS[0]}
            cell.plot(run.images / 1000, run.source_correlation, linewidth=1, **style)
        cell.axhline(part.chance_correlation.mean(), color="0.3", linestyle=":", linewidth=1)
        last = part.groupby(["seed", "training"]).last()
        beyond = last.source_correlation - last.chance_correlation
        copies, negatives = int((beyond > FOLLOWS).sum()), int((beyond < -FOLLOWS).sum())
        low, high = wilson(copies, copies + negatives)
        counts = f"copies {copies} of {len(last)} ({low:.0%} to {high:.0%}), negatives {negatives}"
        cell.set(xlabel="images seen (thousands)", ylim=(-1.05, 1.05), title=f"{arm}\n{counts}")
    axes[0, 0].set_ylabel("correlation with the source")
    return figure
