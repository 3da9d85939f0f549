"""The overview of stored results: what is found, in which order, and what it says if something is missing."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from toy import point_at

from lib.press import gallery
from lib.press.run import Run

FRAME = pd.DataFrame({"x": [0.0, 1.0]})


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Results of one seed and over all seeds, as notebooks write them."""
    root = tmp_path_factory.mktemp("made")
    one, every = 'profile = "quick"\nseed = 0\ndevice = "cpu"', 'profile = "quick"\nseeds = [0]'
    with pytest.MonkeyPatch.context() as patch:
        point_at(root, patch, {"01_study": one, "07_page": every, "00_overview": every})
        save(Run("01_study", {"profile": "quick", "seed": 0, "device": "cpu"}), "fig110_b", "fig13_a", "fig21_c")
        save(Run("07_page", {"profile": "quick", "seeds": [0]}), "fig13_a")
        save(Run("00_overview", {"profile": "quick", "seeds": [0]}), "fig01_gallery")
        yield root


def save(run: Run, *names: str) -> None:
    for name in names:
        figure = Figure(figsize=(1.5, 1))
        figure.add_subplot().plot([0, 1])
        run.save_figure(name, figure, FRAME, caption=f"The caption of {name}.")
    run.save_table(f"tab{run.notebook[1]}1_all", FRAME, caption="All.")
    run.finish()


def test_figures_come_in_the_papers_order_over_all_seeds_where_there_is_one_without_its_own(made):
    found = gallery.figures("quick")
    assert list(found) == ["id", "notebook", "file", "caption"] and found.attrs["data"] == []
    assert found.id.tolist() == ["fig13_a", "fig110_b", "fig21_c"]
    assert found.notebook.tolist() == ["07_page", "01_study", "01_study"]
    assert found.caption[2] == "The caption of fig21_c. no data set; seed 0; profile quick."
    assert found.file[0] == "figures/quick/fig13_a.png"


def test_runs_are_counted_with_what_they_made(made):
    rows = gallery.runs("quick").set_index("notebook")
    assert rows.loc["01_study", ["seed", "figures", "tables"]].tolist() == ["0", 3, 1]
    assert rows.loc["07_page", ["seed", "figures", "tables"]].tolist() == ["all", 1, 1]
    assert (rows.minutes >= 0).all() and rows.commit.str.fullmatch(r"[0-9a-f]{7}( \+ changes)?|unknown").all()


def test_the_sheet_shows_every_picture_once(made):
    found = gallery.figures("quick")
    sheet = gallery.sheet(found, columns=2)
    assert [axes.get_title() for axes in sheet.axes] == ["fig13_a", "fig110_b", "fig21_c", ""]
    assert [len(axes.images) for axes in sheet.axes] == [1, 1, 1, 0]
    assert np.asarray(sheet.axes[0].images[0].get_array()).min() < 200  # something is drawn
    assert len(gallery.sheet(found[:0]).axes) == 5


def test_showing_a_figure_and_one_that_has_not_been_made(made, capsys):
    found = gallery.figures("quick")
    gallery.show(found, "fig13_a")
    assert "Image" in capsys.readouterr().out
    gallery.show(found, "fig99_none")
    assert "Markdown" in capsys.readouterr().out
