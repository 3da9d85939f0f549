"""What a notebook says of its run follows from the tables: other numbers, other sentences."""

import re

import numpy as np
import pandas as pd
import pytest

from lib.emergency import findings as emergency
from lib.metrics.comparison import entry

DIRECTIONS = "lower|higher"


def rows(columns, *facts):
    """A row for each of `facts`, with other numbers in (0, 1) in `columns`."""
    table = pd.DataFrame(facts)
    numbers = np.random.default_rng(0).permutation(len(table) * len(columns)).reshape(len(table), -1)
    return table.join(pd.DataFrame((numbers + 0.5) / numbers.size, columns=columns))


CASES = {
    "onsets": (
        emergency.onsets,
        rows([f"{share}{end}" for share in ("moments", "accuracy") for end in ("", "_low", "_high")],
             *({"training": name, "onset": onset} for name in ("all at 0 s", "anywhere") for onset in (0, 2))).astype(
                 {"onset": int}),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_sentences_follow_their_table(case):
    say, table = CASES[case]
    keys = ["positions", "categories", "position", "wanted", "seed", "images", "reported_fid"]
    measured = table.select_dtypes("float").columns.difference(keys)
    before, after = say(table), say(table.assign(**{name: 1 - table[name] for name in measured}))  # all orders reversed
    assert len(before) == len(after)
    for sentence, other in zip(before, after, strict=True):
        assert sentence != other
        if re.search(DIRECTIONS, sentence):  # and not in its numbers alone
            assert re.sub(r"[\d.]+", "", sentence) != re.sub(r"[\d.]+", "", other)


def test_what_is_looked_up_exists_once():
    table = pd.DataFrame({"arm": ["DCGAN", "pyramid GAN", "pyramid GAN"], "fid": [1.0, 2.0, 3.0]})
    assert entry(table, "fid", arm="DCGAN") == 1
    with pytest.raises(LookupError, match="0 rows of the table have .*WGAN"):
        entry(table, "fid", arm="WGAN")
    with pytest.raises(LookupError, match="2 rows"):
        entry(table, "fid", arm="pyramid GAN")


def relevance_rows(event, speech, without_event=(9, 8, 10), without_speech=(1, 0, 2)):
    """Rows of tab42: (value, low, high) of relevance over every null, and of accuracy lost without the stem."""
    found = {f"relevance - {null}, {stem} (points)": numbers for null in emergency.NULLS
             for stem, numbers in (("event", event), ("speech", speech))}  # fmt: skip
    found |= {"accuracy lost without event (points)": without_event}
    found |= {"accuracy lost without speech (points)": without_speech}
    return pd.DataFrame([(name, *numbers) for name, numbers in found.items()],
                        columns=["measure", "value", "low", "high"])  # fmt: skip


@pytest.mark.parametrize(
    ("table", "event", "agree"),
    [
        (relevance_rows((5, 4, 6), (-3, -4, -2)), "higher than every null", True),
        (relevance_rows((5, 4, 6), (5, 4, 6)), "higher than every null", False),
        (relevance_rows((5, -1, 6), (-3, -4, -2)), "not on one side", False),
        (relevance_rows((-5, -6, -4), (-3, -4, -2)), "lower than every null", False),
        (relevance_rows((5, 4, 6), (-3, -4, -2), without_speech=(8.5, 7, 10)), "higher than every null", False),
    ],
)
def test_relying_on_the_event_takes_relevance_and_silenced_stems(table, event, agree):
    first, _, last = emergency.relevance(table)
    assert event in first and ("stems agree" in last) is agree
    assert emergency.relevance(table.iloc[-2:]) == []  # no known stems


def test_what_overlaps_is_called_no_cost_and_no_gain():
    ends = {"moments": 70.0, "moments_low": 60.0, "moments_high": 80.0}
    table = pd.DataFrame([{"training": name, "onset": onset, **ends, "accuracy": a, "accuracy_low": a - 8,
                           "accuracy_high": a + 8} for name, a in (("all at 0 s", 36.3), ("anywhere", 30.1))
                          for onset in (0.0, 2.0)])  # fmt: skip
    last = emergency.onsets(table)[-1]
    assert "30.1 (22.1 to 38.1), lower than 36.3" in last and "no difference is shown" in last
    assert "apart" in emergency.onsets(table.assign(accuracy_low=table.accuracy, accuracy_high=table.accuracy))[-1]
