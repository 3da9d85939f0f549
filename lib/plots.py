"""The house style, and plots shared by the studies.

Figures are drawn at their printed width, so a font of 8 pt is 8 pt on paper.
Colours are Okabe and Ito's (2008), which readers with any colour vision can distinguish.
"""

import io
import logging
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

TEXT_WIDTH = 6.5  # inches, one column of A4 or letter paper
COLUMN = 3.2
LARGEST_PNG = 400_000  # bytes, to keep the repository small

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000", "#999999")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")

STYLE = {
    "figure.constrained_layout.use": True,
    "figure.dpi": 110,
    "font.family": ["DejaVu Sans", "NanumGothic"],  # both from packages: the same glyphs everywhere, Hangul included
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "legend.fontsize": 7,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.5,
    "lines.linewidth": 1.4,
    "lines.markersize": 3.5,
    "legend.frameon": False,
    "axes.prop_cycle": mpl.cycler(color=COLOURS),
    "pdf.fonttype": 42,  # editable text in the PDF
    "svg.hashsalt": "four-studies",
}


logging.getLogger("fontTools").setLevel(logging.ERROR)  # no warning for each table of NanumGothic missing in a PDF

# Importing the package would change the style of the whole session; only its font is needed.
font_manager.fontManager.addfont(Path(find_spec("koreanize_matplotlib").origin).parent / "fonts" / "NanumGothic.ttf")


def use_style() -> None:
    """Apply the house style to everything drawn from now on."""
    mpl.rcParams.update(STYLE)


def subplots(rows: int = 1, columns: int = 1, *, width: float = TEXT_WIDTH, height: float = 2.4, **options):
    """Call `plt.subplots` in the house style; width and height are in inches."""
    use_style()
    return plt.subplots(rows, columns, figsize=(width, height), **options)


def mean_and_spread(frame: pd.DataFrame, by: Sequence[str], value: str) -> pd.DataFrame:
    """Return mean, std (n - 1; 0 for one seed) and count of `value` over seeds, one row per group of `by`."""
    found = frame.groupby(list(by), sort=False, observed=True)[value].agg(["mean", "std", "count"])
    return found.fillna({"std": 0.0}).reset_index()


def curves(
    axes: Axes,
    frame: pd.DataFrame,
    x: str,
    y: str,
    by: str,
    *,
    colours: dict[str, str] | None = None,
    each: bool = False,
) -> None:
    """Draw one line per value of `by`: the mean over seeds, with a band of one standard deviation.

    A single seed gives a line without a band. `each` draws every seed as a thin line instead of the band, for
    multimodal values, whose mean and deviation describe no actual run. Lines differ by colour, marker and, from the
    ninth on, dashes; labels in `colours` keep their style wherever they are drawn.
    """
    known = list(colours or {})
    for place, label in enumerate(frame[by].unique()):
        number = known.index(label) if label in known else len(known) + place  # the same in all panels
        line = mean_and_spread(frame[frame[by] == label], [x], y).sort_values(x)
        colour = (colours or {}).get(label, COLOURS[number % len(COLOURS)])
        axes.plot(
            line[x],
            line["mean"],
            color=colour,
            marker=MARKERS[number % len(MARKERS)],
            markevery=max(1, len(line) // 8),
            linestyle=("-", "--", ":")[number // len(COLOURS) % 3],
            label=label,
        )
        if line["count"].max() > 1 and each:
            for _, run in frame[frame[by] == label].groupby("seed", sort=False):
                axes.plot(run[x], run[y], color=colour, linewidth=0.7, alpha=0.6)
        elif line["count"].max() > 1:
            low, high = line["mean"] - line["std"], line["mean"] + line["std"]
            axes.fill_between(line[x], low, high, color=colour, alpha=0.18, linewidth=0)


def dots(
    axes: Axes, frame: pd.DataFrame, x: str, arms: Sequence[str], by: str, styles: dict[str, tuple[str, str, float]]
) -> None:
    """Draw one dot per row of `frame` with a value of `x`, in the row of its arm; the first of `arms` is at the top.

    styles: value of column `by` → colour, marker and vertical shift (so that equal values do not hide each other).
    """
    for name, (colour, marker, shift) in styles.items():
        part = frame[(frame[by] == name) & frame[x].notna()]
        if len(part):
            place = part.arm.map(arms.index) + shift
            axes.scatter(part[x], place, s=20, color=colour, marker=marker, label=name, alpha=0.8, linewidth=0)
    axes.set_ylim(len(arms) - 0.5, -0.5)
    axes.set_yticks(range(len(arms)), arms)


def show_picture(axes: Axes, picture: np.ndarray, title: str = "") -> None:
    """Show an RGB picture (H, W, 3) in [0, 1], without axes."""
    axes.imshow(picture, interpolation="nearest")
    axes.set_title(title, fontsize=6, pad=2)
    axes.set_axis_off()


def filter_picture(kernel: Tensor | np.ndarray) -> np.ndarray:
    """Return a filter (3, k, k) as a picture (k, k, 3) in [0, 1], scaled by the largest magnitude; zero is grey."""
    kernel = np.asarray(kernel, dtype=np.float64)
    return np.clip(kernel / (2 * max(np.abs(kernel).max(), 1e-12)) + 0.5, 0, 1).transpose(1, 2, 0)


def tile(pictures: Sequence[np.ndarray], columns: int, gap: int = 1) -> np.ndarray:
    """Arrange pictures (H, W, 3) of one size in a grid, `gap` white pixels apart; missing cells are white."""
    height, width, depth = pictures[0].shape
    rows = -(-len(pictures) // columns)
    sheet = np.ones((rows * (height + gap) - gap, columns * (width + gap) - gap, depth))
    for number, picture in enumerate(pictures):
        top, left = number // columns * (height + gap), number % columns * (width + gap)
        sheet[top : top + height, left : left + width] = picture
    return sheet


def plain_ticks(axis: Axis) -> None:
    """Label 1, 2 and 5 of each decade as plain numbers: a short logarithmic axis may contain no power of ten."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def legend_below(figure: Figure, axes: Axes, columns: int = 4, title: str | None = None) -> None:
    """Add one legend for the whole figure, below it."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(columns, len(labels)), title=title)


def arrange(figure: Figure) -> None:
    """Fix the layout of the figure, so that cropping it or adding text below moves nothing."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for legend in figure.legends:  # otherwise it would slide to the edge of the area that savefig crops to
        place = legend.get_window_extent().transformed(figure.transFigure.inverted())
        legend.borderaxespad = 0
        legend.set_loc("lower left")
        legend.set_bbox_to_anchor((place.x0, place.y0), transform=figure.transFigure)


def small_png(png: bytes, **text: str) -> bytes:
    """Return the PNG file `png` with fewer colours and bytes; `text` becomes its only text metadata.

    Plots get 256 colours (median cut); pictures for which this causes an error of 3 of 255 or more (root mean square)
    keep full colour in steps of 15. Anything still above `LARGEST_PNG` bytes gets 256 colours of maximum coverage.
    Nothing is dithered, as that compresses badly. Deterministic for one version of Pillow.
    """
    with Image.open(io.BytesIO(png)) as file:
        picture, dpi = file.convert("RGB"), file.info.get("dpi", (72, 72))

    def encoded(image: Image.Image) -> bytes:
        info, buffer = PngInfo(), io.BytesIO()
        for key, value in text.items():
            info.add_text(key, value)
        image.save(buffer, "png", optimize=True, dpi=dpi, pnginfo=info)
        return buffer.getvalue()

    few = picture.quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    apart = np.asarray(few.convert("RGB"), np.float32) - np.asarray(picture)  # (H, W, 3)
    stepped = picture.point([15 * round(value / 15) for value in range(256)] * 3)
    small = encoded(few if np.sqrt(np.mean(apart**2)) < 3 else stepped)
    if len(small) <= LARGEST_PNG:
        return small
    return encoded(picture.quantize(256, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE))
