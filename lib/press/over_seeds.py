"""Figures and tables over all seeds, recomputed in notebook 07 from those of single runs and a list of results."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import pandas as pd
from IPython.display import display
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from lib.metrics.comparison import mean_and_interval, paired_table
from lib.press.run import Run

Select = Callable[[pd.DataFrame], pd.DataFrame]


@dataclass(frozen=True)
class Result:
    """One figure or table over seeds."""

    id: str
    # Called with the frames of `reads`, each with a `seed` column; returns None if this data gives nothing to show.
    make: Callable[..., pd.DataFrame | Figure | None]
    caption: str
    reads: tuple[str, ...] = ()  # ids; default: its own. The first is shown and provides note and data sets
    select: Select = lambda frame: frame  # the part of the first that is shown
    digits: int = 4  # significant digits of a table in LaTeX


def over_seeds(run: Run, results: Iterable[Result]) -> None:
    """Make, save and display each result, leaving out those that no seed has data for or that would show nothing.

    Raises:
        RunError: the data of some seeds is missing or cannot be read.
    """
    for result in results:
        names = result.reads or (result.id,)
        if lacking := [name for name in names if not run.has(name)]:
            print(f"{result.id} is left out: no seed has {', '.join(lacking)}.")
            continue
        first, *others = map(run.read, names)
        shown = result.select(first)
        made, how = result.make(shown, *others), {"caption": result.caption, "like": first}
        if isinstance(made, pd.DataFrame):
            display(run.save_table(result.id, made, digits=result.digits, **how))
        elif made is None:
            print(f"{result.id} is left out: with this data and these seeds it would show nothing.")
        else:
            run.save_figure(result.id, made, shown, **how)
            display(made)
            plt.close(made)


def paired(baseline: str, arm: Sequence[str] = ("arm",), kept: Sequence[str] = (), **options) -> Select:
    """Return a function that makes a `paired_table` with `options`, naming arms by the columns `arm` joined with ": ".

    kept: further columns to keep, the same for all seeds.
    """

    def make(rows: pd.DataFrame) -> pd.DataFrame:
        named = rows.assign(arm=rows[list(arm)].agg(": ".join, axis=1))
        table = paired_table(named, baseline=baseline, **options)
        return table.merge(named.drop_duplicates("arm")[["arm", *kept]]) if kept else table

    return make


def spread(by: str, measures: Sequence[str], kept: Sequence[str] = (), **options) -> Select:
    """Return a function that computes `mean_and_interval` of the available `measures` by `by`; kept: as above."""

    def make(rows: pd.DataFrame) -> pd.DataFrame:
        table = mean_and_interval(rows, [by], [name for name in measures if name in rows], **options)
        return table.merge(rows.drop_duplicates(by)[[by, *kept]]) if kept else table

    return make
