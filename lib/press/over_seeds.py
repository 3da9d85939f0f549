"""Figures and tables of single runs, made again over all seeds: what notebook 07 does, from a list of results."""

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
    # From the frames of `reads`, each with a `seed` column. No figure: with this data it would show nothing.
    make: Callable[..., pd.DataFrame | Figure | None]
    caption: str
    reads: tuple[str, ...] = ()  # ids; default: its own. A figure shows the first, and note and data sets are its
    select: Select = lambda frame: frame  # what of the first is shown
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
        first, *others = (run.read(name) for name in result.reads or (result.id,))
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
    """A `paired_table` with these `options` of rows whose arms are called as the columns `arm` say, joined by ": ".

    kept: columns that are the same for all seeds.
    """

    def make(rows: pd.DataFrame) -> pd.DataFrame:
        named = rows.assign(arm=rows[list(arm)].agg(": ".join, axis=1))
        table = paired_table(named, baseline=baseline, **options)
        return table.merge(named.drop_duplicates("arm")[["arm", *kept]]) if kept else table

    return make


def spread(by: str, measures: Sequence[str], kept: Sequence[str] = (), **options) -> Select:
    """`mean_and_interval` over seeds of `measures`, as far as there are, by the values of `by`; kept: as above."""

    def make(rows: pd.DataFrame) -> pd.DataFrame:
        table = mean_and_interval(rows, [by], [name for name in measures if name in rows], **options)
        return table.merge(rows.drop_duplicates(by)[[by, *kept]]) if kept else table

    return make
