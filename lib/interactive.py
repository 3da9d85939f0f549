"""What a notebook displays beside results: interactive figures, and sentences about a run."""

import io
import os
from collections.abc import Callable, Sequence

import ipywidgets
import matplotlib.pyplot as plt
from IPython.display import Image, Markdown, display
from matplotlib.figure import Figure

DPI = 110


def explore(draw: Callable[..., Figure], **controls: ipywidgets.ValueWidget) -> ipywidgets.VBox:
    """Show `draw(**values)` with the values of `controls`, and draw it anew whenever one of them changes.

    The picture is an ordinary output, which remains where there are no widgets; under `make figures` it is all that is
    shown. An error of `draw` appears below the controls.

    Returns:
        The controls, displayed already, with a last line for errors.
    """
    message = ipywidgets.HTML()

    def picture() -> Image:
        before, buffer = set(plt.get_fignums()), io.BytesIO()
        try:
            figure = draw(**{name: control.value for name, control in controls.items()})
            figure.savefig(buffer, format="png", dpi=DPI, bbox_inches="tight")
        finally:  # one that is left half drawn would appear under the next cell
            for number in set(plt.get_fignums()) - before:
                plt.close(number)
        return Image(buffer.getvalue())

    shown = display(picture(), display_id=True)

    def again(change: dict) -> None:
        try:
            shown.update(picture())
            message.value = ""
        except Exception as error:  # whatever a reader's choice has led to: the next one may be fine
            message.value = f"{type(error).__name__}: {error}"

    for name, control in controls.items():
        control.description = control.description or name
        control.observe(again, "value")
    panel = ipywidgets.VBox([*controls.values(), message])
    if "RUN_FOLDER" not in os.environ:  # set by `make figures`, whose copies nobody interacts with
        display(panel)
    return panel


def say(sentences: Sequence[str]) -> None:
    """Show sentences as a list in Markdown: what a study's `findings` look up in the tables of a run."""
    display(Markdown("\n".join(f"* {sentence}" for sentence in sentences)))
