"""Figures and tables of single runs, made again over all seeds: what notebook 07 does, from a list of results."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import pandas as pd
from IPython.display import display
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from lib.press.run import Run


@dataclass(frozen=True)
class Result:
    """One figure or table over seeds."""

    id: str
    # From the frames of `reads`, each with a `seed` column, to a table, a figure, or a figure and the data it shows.
    # No figure: this data shows nothing of what it is for, and it is left out.
    make: Callable[..., pd.DataFrame | Figure | tuple[Figure | None, pd.DataFrame]]
    caption: str
    reads: tuple[str, ...] = ()  # ids; default: its own. A figure shows the first, and note and data sets are its
    needs: str = ""  # id of a result without which this one is left out, as for data sets without words
    digits: int = 4  # of a table in LaTeX


def over_seeds(run: Run, results: Iterable[Result]) -> None:
    """Make, save and display each result.

    Raises:
        RunError: the data of a seed is missing or cannot be read.
    """
    for result in results:
        if result.needs and not run.has(result.needs):
            continue
        frames = [run.read(name) for name in result.reads or (result.id,)]
        made, how = result.make(*frames), {"caption": result.caption, "like": frames[0]}
        if isinstance(made, pd.DataFrame):
            display(run.save_table(result.id, made, digits=result.digits, **how))
        else:
            figure, data = made if isinstance(made, tuple) else (made, frames[0])
            if figure is None:
                print(f"{result.id} is left out: with this data and these seeds it would show nothing.")
                continue
            run.save_figure(result.id, figure, data, **how)
            display(figure)
            plt.close(figure)
