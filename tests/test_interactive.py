"""Figures to turn: what is drawn, when, and what is said when drawing fails."""

import ipywidgets
import matplotlib.pyplot as plt
import pytest
from IPython.core import display_functions
from IPython.display import Image
from matplotlib.figure import Figure

from lib import interactive


@pytest.fixture
def shown(monkeypatch):
    """What reaches the reader, in order: ("new" or "again", object)."""
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
    plt.close("all")  # what other tests have left open
    height, width = ipywidgets.FloatSlider(value=1.0, max=5), ipywidgets.IntSlider(value=1, min=1, max=3)
    panel = interactive.explore(bar, height=height, width=width)
    assert [kind for kind, _ in shown] == ["new", "new"] and isinstance(shown[0][1], Image) and shown[1][1] is panel
    assert [control.description for control in panel.children[:2]] == ["height", "width"]
    height.value = 2.0
    width.value = 2
    pictures = [content.data for _, content in shown if isinstance(content, Image)]
    assert [kind for kind, _ in shown[2:]] == ["again", "again"] and len(set(pictures)) == 3
    assert all(picture.startswith(b"\x89PNG") for picture in pictures)
    height.value = 1.0
    width.value = 1
    assert shown[-1][1].data == pictures[0]
    assert plt.get_fignums() == []


def test_an_error_is_told_and_the_next_choice_takes_it_back(shown):
    height = ipywidgets.FloatSlider(value=1.0, max=5)
    panel = interactive.explore(bar, height=height)
    height.value = 4.0
    assert panel.children[-1].value == "ValueError: too high" and len(shown) == 2
    height.value = 2.0
    assert panel.children[-1].value == "" and len(shown) == 3


def test_an_executed_copy_has_the_picture_alone(shown, monkeypatch):
    monkeypatch.setenv("RUN_FOLDER", "quick")
    interactive.explore(bar, height=ipywidgets.FloatSlider(value=1.0))
    assert [type(content) for _, content in shown] == [Image]


def test_a_picture_that_cannot_be_drawn_at_all_is_an_error_of_the_cell(shown):
    with pytest.raises(ValueError, match="too high"):
        interactive.explore(bar, height=ipywidgets.FloatSlider(value=4.0, max=5))


def test_without_a_front_end_it_is_shown_as_an_ordinary_output(capsys):
    assert interactive.display is display_functions.display
    interactive.explore(bar, height=ipywidgets.FloatSlider(value=1.0))
    assert "Image" in capsys.readouterr().out
