"""Notebook output besides results: interactive figures, and sentences about a run."""

import os
from collections.abc import Callable, Sequence

import ipywidgets
import matplotlib.pyplot as plt
from IPython.display import Markdown, display
from matplotlib.figure import Figure


def explore(draw: Callable[..., Figure], **controls: ipywidgets.ValueWidget) -> ipywidgets.VBox:
    """Show `draw(**values)` with the values of `controls`, and redraw it whenever one of them changes.

    The figure is an ordinary output, so it is shown even where widgets are not; `make figures` omits the controls.

    Returns:
        The controls, which are displayed already (except under `make figures`).
    """

    def drawn() -> Figure:
        figure = draw(**{name: control.value for name, control in controls.items()})
        plt.close(figure)  # otherwise the figure would appear twice
        return figure

    shown = display(drawn(), display_id=True)
    for name, control in controls.items():
        control.description = control.description or name
        control.observe(lambda change: shown.update(drawn()), "value")
    panel = ipywidgets.VBox([*controls.values()])
    if "RUN_FOLDER" not in os.environ:  # set by `make figures`, whose copies are not interactive
        display(panel)
    return panel


def say(sentences: Sequence[str]) -> None:
    """Show sentences (e.g. findings looked up in a run's tables) as a Markdown list."""
    display(Markdown("\n".join(f"* {sentence}" for sentence in sentences)))
