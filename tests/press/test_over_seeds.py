"""Tables over seeds from the rows of single runs: how arms are named, and what is kept beside them."""

import pandas as pd
import pytest

from lib.press.over_seeds import paired, spread

ROWS = pd.DataFrame({
    "arm": ["a", "a", "b", "b"], "readout": ["x", "x", "y", "y"], "seed": [0, 1, 0, 1],
    "accuracy": [70.0, 72.0, 71.0, 73.5], "size": [5, 5, 7, 7],
})  # fmt: skip


def test_arms_are_called_as_the_columns_say():
    table = paired("a: x", ["arm", "readout"])(ROWS)
    assert table.arm.tolist() == ["a: x", "b: y"] and table.difference.iloc[1] == pytest.approx(1.25)
    assert table.verdict.iloc[0] == "baseline"


def test_a_kept_column_is_as_it_was():
    table = paired("a", kept=["size"])(ROWS)
    assert table["size"].tolist() == [5, 7] and table["size"].dtype == ROWS["size"].dtype
    assert list(table.columns)[-1] == "size"


def test_the_spread_is_of_the_measures_that_there_are():
    table = spread("arm", ["accuracy", "nowhere"], kept=["readout"])(ROWS)
    assert list(table.columns) == ["arm", "seeds", "accuracy", "accuracy_sd", "readout"]
    assert table.accuracy.tolist() == [71.0, 72.25] and table.readout.tolist() == ["x", "y"]
