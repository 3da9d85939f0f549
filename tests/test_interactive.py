"""Interactive figures: what is drawn, and when."""

import ipywidgets
import matplotlib.pyplot as plt
import pytest
from IPython.core import display_functions
from matplotlib.figure import Figure

from lib import interactive


@pytest.fixture
def shown(monkeypatch):
    """What is displayed, in order: ("new" or "again", object)."""
    found = []

    class Handle:
        def update(self, content):
            found.append(("again", content))

    def display(content, display_id=None):
        found.append(("new", content))
        return Handle() if display_id else None

    monkeypatch.setattr(interactive, "display", display)
    monkeypatch.delenv("RUN_FOLDER", raising=False)
    return found


def bar(height: float, width: int = 1) -> Figure:
    if height > 3:
        raise ValueError("too high")
    figure, axes = plt.subplots(figsize=(width, 1))
    axes.bar([0], [height])
    return figure


def test_the_picture_comes_first_and_follows_every_control(shown):
    plt.close("all")  # figures that other tests left open
    height, width = ipywidgets.FloatSlider(value=1.0, max=5), ipywidgets.IntSlider(value=1, min=1, max=3)
    panel = interactive.explore(bar, height=height, width=width)
    assert [kind for kind, _ in shown] == ["new", "new"] and isinstance(shown[0][1], Figure) and shown[1][1] is panel
    assert [control.description for control in panel.children] == ["height", "width"]
    height.value = 2.0
    width.value = 2
    assert [kind for kind, _ in shown[2:]] == ["again", "again"]
    figures = [content for _, content in shown if isinstance(content, Figure)]
    drawn = [(figure.axes[0].patches[0].get_height(), figure.get_figwidth()) for figure in figures]
    assert drawn == [(1, 1), (2, 1), (2, 2)]
    assert plt.get_fignums() == []


def test_an_executed_copy_has_the_picture_alone(shown, monkeypatch):
    monkeypatch.setenv("RUN_FOLDER", "quick")
    interactive.explore(bar, height=ipywidgets.FloatSlider(value=1.0))
    assert [type(content) for _, content in shown] == [Figure]


def test_a_picture_that_cannot_be_drawn_at_all_is_an_error_of_the_cell(shown):
    with pytest.raises(ValueError, match="too high"):
        interactive.explore(bar, height=ipywidgets.FloatSlider(value=4.0, max=5))


def test_without_a_front_end_it_is_shown_as_an_ordinary_output(capsys):
    assert interactive.display is display_functions.display
    interactive.explore(bar, height=ipywidgets.FloatSlider(value=1.0))
    assert "Figure" in capsys.readouterr().out
