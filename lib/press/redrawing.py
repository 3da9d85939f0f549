"""A figure of one seed, drawn again over all of them: what most cells of notebook 07 do."""

from collections.abc import Callable

import pandas as pd
from matplotlib.figure import Figure

from lib.press.run import Run


def redraw(run: Run, name: str, draw: Callable[[pd.DataFrame], Figure], caption: str) -> None:
    """Save figure `name` as `draw` shows its saved data of every seed; it names what these came from.

    Raises:
        RunError: the data of a seed is missing or cannot be read.
    """
    frame = run.read(name)
    run.save_figure(name, draw(frame), frame, caption=caption, like=frame)
