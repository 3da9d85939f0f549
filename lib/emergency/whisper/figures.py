"""Figures of notebooks 04 and 06, drawn from saved data alone."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import ScalarFormatter

from lib import plots
from lib.emergency.features import RATE
from lib.emergency.whisper.text import aligned

Arrays = Mapping[str, np.ndarray]
MOST_DRAWN = 4_000_000  # samples of a waveform; more would not be visible

# As in the source: red for emergencies, blue for other sounds, black for silence; red and blue are from the palette.
ALARM, CALM, SILENCE = plots.COLOURS[1], plots.COLOURS[0], "black"


def ratios(table: pd.DataFrame) -> Figure:
    """Draw fig45: accuracy and CER over the ratio.

    Error bars are 95 % intervals for one seed, and standard deviations for several."""
    figure, (accuracy, rate) = plots.subplots(1, 2, height=2.3, sharex=True)
    for place, name in enumerate(("moments", "clips")):
        how = {"color": plots.COLOURS[place], "marker": plots.MARKERS[place]}
        _over(accuracy, table, "ratio", name, label={"moments": "frames"}.get(name, name), **how)
    accuracy.set(xlabel="weight r of the text loss", ylabel="accuracy (%)", xticks=table.ratio.unique())
    _over(rate, table.dropna(subset="cer"), "ratio", "cer", color=plots.COLOURS[2], marker="^")
    rate.set(xlabel="weight r of the text loss", ylabel="character error rate (%)")
    plots.legend_below(figure, accuracy)
    return figure


def _over(axes: Axes, table: pd.DataFrame, x: str, y: str, **style) -> None:
    """Plot `y` over `x` with its 95 % interval over clips for one seed; for several, mean and standard deviation."""
    line = plots.mean_and_spread(table, [x], y).sort_values(x)
    bars = line["std"] if table.seed.nunique() > 1 else _bars(table.sort_values(x), y)
    axes.errorbar(line[x], line["mean"], bars, capsize=2, **style)


def learning_curves(table: pd.DataFrame) -> Figure:
    """Draw fig417: accuracy of frames and of clips over the number of training clips, one curve per initialisation.

    Error bars as in `_over`."""
    sizes = sorted(table["size"].unique())
    figure, panels = _frames_and_clips(table, "size", "training clips", xscale="log")
    for axes in panels:
        axes.set_xticks(sizes, sizes)
        axes.minorticks_off()
    plots.legend_below(figure, panels[0])
    return figure


def onsets(table: pd.DataFrame) -> Figure:
    """Draw fig46: accuracy over the onset of the sound, for both trainings, with error bars as in `_over`, and the
    accuracy of frames that always predicting silence would have."""
    figure, panels = _frames_and_clips(table, "onset", "onset of the sound (s)", ylim=(0, None))
    panels[0].axhline(table.silent.mean(), color="0.6", linewidth=1, linestyle="--", label="always silence")
    plots.legend_below(figure, panels[0])
    return figure


def _frames_and_clips(table: pd.DataFrame, x: str, xlabel: str, **options) -> tuple[Figure, Sequence[Axes]]:
    """Plot both accuracies over `x`, a line per training."""
    figure, panels = plots.subplots(1, 2, height=2.2, sharex=True)
    for axes, y, what in zip(panels, ("moments", "accuracy"), ("frames", "clips"), strict=True):
        for place, (name, rows) in enumerate(table.groupby("training", sort=False)):
            _over(axes, rows, x, y, color=plots.COLOURS[place], marker=plots.MARKERS[place], label=name)
        axes.set(xlabel=xlabel, ylabel=f"accuracy of {what} (%)", **options)
    return figure, panels


def _bars(table: pd.DataFrame, name: str, low: str = "", high: str = "") -> np.ndarray:
    """Return error bars (2, rows): from `name` down to `<name>_low` and up to `<name>_high`."""
    ends = table[[low or f"{name}_low", high or f"{name}_high"]].to_numpy()
    return np.abs(ends - table[[name]].to_numpy()).T


def layers(table: pd.DataFrame) -> Figure:
    """Draw fig418: accuracy of a linear probe on each encoder layer, and the weight of each layer in the head."""
    mean = table.groupby("layer", as_index=False)[["accuracy", "low", "high", "weight"]].mean()
    figure, (probe, head) = plots.subplots(1, 2, height=2.2, sharex=True)
    bars = _bars(mean, "accuracy", "low", "high")
    probe.errorbar(mean.layer, mean.accuracy, bars, capsize=2, marker=plots.MARKERS[0])
    probe.set(xlabel="encoder layer", ylabel="probe accuracy on clips (%)", xticks=mean.layer)
    head.bar(mean.layer, mean.weight, color=plots.COLOURS[1])
    head.axhline(100 / len(mean), color="0.6", linewidth=1, linestyle="--")
    head.set(xlabel="encoder layer (dashed: equal weights)", ylabel="weight in the head (%)")
    return figure


def timelines(arrays: Arrays) -> Figure:
    """Draw fig48: classes over time, ground truth above prediction, then waveform and spectrogram."""
    count = len(arrays["samples"])
    figure, axes = plots.subplots(3, count, height=3.2, squeeze=False, sharex="col", height_ratios=[0.5, 1, 1.4])
    alarming = set(arrays["alarming"].tolist())
    names = [str(name) for name in arrays["names"]]
    for column in range(count):
        above, wave, mel = axes[:, column]
        samples = arrays["samples"][column]
        seconds = len(samples) / RATE
        for height, row, label in ((1, arrays["truth"], "truth"), (0, arrays["found"], "predicted")):
            _spans(above, row[column], height, seconds, alarming, names)
            if column == 0:
                above.text(-0.02 * seconds, height, label, ha="right", va="center", fontsize=6)
        above.set(ylim=(-0.85, 1.3), yticks=[], xlim=(0, seconds))
        above.set_axis_off()
        place = f"percentile {100 * arrays['ranks'][column]:.0f}, {arrays['accuracy'][column]:.0f} % correct"
        above.set_title(place, fontsize=7)
        wave.plot(np.arange(len(samples)) / RATE, samples / 32768, color="0.35", linewidth=0.3, rasterized=True)
        mel.imshow(arrays["mel"][column].astype(np.float32), cmap="magma", origin="lower", aspect="auto",
                   extent=(0, seconds, 0, arrays["mel"].shape[1]))  # fmt: skip
        mel.grid(False)
        mel.set_xlabel("time (s)")
    axes[1, 0].set_ylabel("amplitude")
    axes[2, 0].set_ylabel("mel band")
    colours = {"emergency": ALARM, "no emergency": CALM, "silence": SILENCE}
    handles = [Line2D([], [], color=colour, linewidth=4, label=label) for label, colour in colours.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure


def _spans(axes: Axes, row: np.ndarray, height: float, seconds: float, alarming: set[int], names: list[str]) -> None:
    """Draw the spans of one row, with class names where there is room; the longest span is always named."""
    edges, silence = [0, *(np.flatnonzero(np.diff(row)) + 1).tolist(), len(row)], 0 if names[0] == "silence" else -1
    spans = [(start, stop, int(row[start])) for start, stop in zip(edges[:-1], edges[1:], strict=True)]
    sounding = [span for span in spans if span[2] > silence]
    longest = max(sounding, key=lambda span: span[1] - span[0], default=None)
    step = seconds / len(row)
    for span in spans:
        start, stop, number = span
        colour = SILENCE if span not in sounding else ALARM if number in alarming else CALM
        axes.plot([start * step, stop * step], [height] * 2, color=colour, linewidth=5, solid_capstyle="butt")
        if span is longest or (span in sounding and (stop - start) * step > 0.2 * seconds):
            axes.text((start + stop) * step / 2, height - 0.28, names[number], ha="center", va="top", fontsize=4.5,
                      color=colour)  # fmt: skip


def lines(table: pd.DataFrame) -> Figure:
    """Draw fig49: references with transcripts below, wrong characters in colour, missing ones as dots."""
    kinds = list(table.lines.unique())
    most = int(table.lines.value_counts().max()) if len(table) else 1
    figure, axes = plots.subplots(1, max(len(kinds), 1), height=0.36 * most + 0.6, squeeze=False)
    for one, kind in zip(axes[0], kinds, strict=False):
        for place, row in enumerate(table[table.lines == kind].itertuples()):
            _line(one, row.reference, row.hypothesis if isinstance(row.hypothesis, str) else "", -place)
        one.set(xlim=(0, 16), ylim=(-most + 0.3, 0.8))
        one.set_title(f"{kind} in training", fontsize=7)
        one.set_axis_off()
    signs = (("$A$", "black", "reference"), ("$A$", "0.45", "transcript"), ("$A$", ALARM, "error"),
             (".", ALARM, "deletion"), (".", "0.7", "insertion"), (r"$\_$", "0.7", "space"))  # fmt: skip
    handles = [Line2D([], [], marker=sign, markersize=5, linestyle="none", color=colour, label=label)
               for sign, colour, label in signs]  # fmt: skip
    figure.legend(handles=handles, loc="outside lower center", ncols=6)
    return figure


def _line(axes: Axes, reference: str, hypothesis: str, height: float) -> None:
    """Draw the hypothesis below the reference, aligned by character."""
    column = 0.0
    for kind, said, read in aligned(reference, hypothesis):
        for place in range(max(len(said), len(read))):
            for y, letter, colour in ((height, said[place : place + 1] or "·", "black" if said[place:] else "0.7"),
                                      (height - 0.38, read[place : place + 1] or "·",
                                       "0.45" if kind == "equal" else ALARM)):  # fmt: skip
                blank = letter == " "
                axes.text(column, y, "_" if blank else letter, fontsize=6.5, va="center",
                          color="0.7" if blank and kind == "equal" else colour)  # fmt: skip
            column += 0.75
    if not reference and not hypothesis:
        axes.text(0, height, "(nothing)", fontsize=6)


def alarms(table: pd.DataFrame) -> Figure:
    """Draw fig412: missed emergencies over false alarms per hour by rule, with 95 % intervals at each line's middle."""
    figure, axes = plots.subplots(height=2.8, width=4.4)
    for place, (rule, part) in enumerate(table.groupby("rule", sort=False)):
        colour = plots.COLOURS[place % len(plots.COLOURS)]
        line = part.groupby("threshold", as_index=False)[
            ["alarms_per_hour", "miss_rate", "alarms_low", "alarms_high", "miss_low", "miss_high"]].mean()  # fmt: skip
        axes.plot(line.alarms_per_hour, line.miss_rate, color=colour, marker=plots.MARKERS[place], markersize=2.5,
                  label=f"{rule} frames")  # fmt: skip
        middle = line.iloc[[len(line) // 2]]
        axes.errorbar(middle.alarms_per_hour, middle.miss_rate, _bars(middle, "miss_rate", "miss_low", "miss_high"),
                      _bars(middle, "alarms_per_hour", "alarms_low", "alarms_high"), color=colour, linewidth=0.7,
                      capsize=2)  # fmt: skip
    if table.alarms_per_hour.min() > 0:
        axes.set_xscale("log")
        plots.plain_ticks(axes.xaxis)
    else:
        axes.set_xscale("symlog", linthresh=1)
        axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.set(xlabel="false alarms per hour of clips without emergency", ylabel="missed emergencies (%)", ylim=(0, None))
    axes.legend(fontsize=6)
    return figure


def architecture(rows: pd.DataFrame) -> Figure:
    """Draw fig411, the ensemble, from `voting.parts`: name, inside (its contents), parameters, below (its inputs)."""
    figure, axes = plots.subplots(height=3.4)
    axes.set(xlim=(0, 10), ylim=(0, 10))
    axes.set_axis_off()
    where = {"log-mel": (5, 0.9), "CNN": (1.6, 4.2), "Whisper encoder": (5, 3.2), "frame head": (5, 6.1),
             "Whisper decoder": (8.2, 5.0), "text classifier": (8.2, 7.0), "vote": (5, 9.0)}  # fmt: skip
    for row in rows.itertuples():
        x, y = where[row.name]
        size = f"\n{row.parameters:,} weights" if row.parameters else ""
        box = {"boxstyle": "round", "linewidth": 0.8, "edgecolor": "0.3", "facecolor": "#F2F2F2"}
        axes.text(x, y, f"{row.name}\n{row.inside}{size}", ha="center", va="center", fontsize=5.6, bbox=box)
        for below in str(row.below).split(", "):
            if below in where:
                axes.annotate("", xy=(x, y - 0.7), xytext=(where[below][0], where[below][1] + 0.7),
                              arrowprops={"arrowstyle": "->", "linewidth": 0.8, "color": "0.3"})  # fmt: skip
    return figure


def recording(arrays: Arrays) -> Figure:
    """Draw fig413, a recording processed as a stream: waveform (its samples start at second `at`, by default 0),
    probability of an emergency, and alarms."""
    figure, (wave, line) = plots.subplots(2, 1, height=2.6, sharex=True)
    samples = arrays["samples"]
    step = -(-len(samples) // MOST_DRAWN)
    time = float(arrays.get("at", 0)) + np.arange(0, len(samples), step) / RATE
    end = max(time[-1], arrays["times"][-1])
    wave.plot(time, samples[::step] / 32768, color="0.35", linewidth=0.3, rasterized=True)
    wave.set_ylabel("amplitude")
    for start, stop, emergency in arrays["spans"]:
        wave.axvspan(start, stop, color=ALARM if emergency else CALM, alpha=0.2, linewidth=0)
    line.plot(arrays["times"], arrays["probability"], color="0.2", linewidth=0.9)
    line.axhline(float(arrays["threshold"]), color="0.6", linewidth=0.8, linestyle="--")
    for at, upheld in arrays["alarms"]:
        line.axvline(at, color=ALARM if upheld else "0.6", linewidth=1.4, linestyle="-" if upheld else ":")
        if upheld:
            line.axvspan(at, min(at + float(arrays["refractory"]), end), color="0.85", linewidth=0, zorder=0)
    line.set(xlabel="time (s)", ylabel="probability of\nan emergency", ylim=(0, 1.02))
    handles = [
        Line2D([], [], color=ALARM, linewidth=5, alpha=0.4, label="emergency (ground truth)"),
        Line2D([], [], color=CALM, linewidth=5, alpha=0.4, label="other sound (ground truth)"),
        Line2D([], [], color=ALARM, label="alert"),
        Line2D([], [], color="0.6", linestyle=":", label="alarm rejected by the vote"),
        Line2D([], [], color="0.85", linewidth=5, label="alarms suppressed"),
    ]
    shown = handles if len(arrays["spans"]) else handles[2:]
    figure.legend(handles=shown, loc="outside lower center", ncols=5, fontsize=6)
    return figure


def votes(table: pd.DataFrame) -> Figure:
    """Draw fig414: accuracy (emergency or not) of voters and voting rules, and of the better constant prediction."""
    figure, axes = plots.subplots(height=2.2, width=4.8)
    constant = table[table.voter.str.endswith(" alarming")].groupby("voter").binary_accuracy.mean()
    names: Sequence[str] = [name for name in table.voter.unique() if name not in constant.index]
    for place, name in enumerate(names):
        rows = table[table.voter == name]
        mean = rows[["binary_accuracy", "binary_accuracy_low", "binary_accuracy_high"]].mean()
        axes.plot([mean.binary_accuracy_low, mean.binary_accuracy_high], [place] * 2, color=CALM, linewidth=1.6)
        axes.plot(rows.binary_accuracy, [place] * len(rows), "o", color=CALM)
    axes.axvline(constant.max(), color=ALARM, linestyle="--", label=constant.idxmax())
    axes.plot([], [], "o", color=CALM, label="accuracy, 95 % interval")
    axes.set(
        yticks=range(len(names)), yticklabels=names, ylim=(len(names), -1), xlabel="emergency or not, accuracy (%)"
    )
    axes.grid(axis="y", visible=False)
    plots.legend_below(figure, axes)
    return figure
