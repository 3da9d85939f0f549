"""Sentences about one run of notebooks 04 and 05: every number and direction in them is looked up in its tables."""

import pandas as pd

from lib.metrics.comparison import entry, relation

NULLS = ("random networks", "log-energy", "area")  # how relevance spreads over log-mels where nothing was learned


def relevance(table: pd.DataFrame) -> list[str]:
    """Of tab42 and tab410: has a stem more relevance than under every null, and do silenced stems agree?

    No sentences on data without known stems."""
    rows, sentences, signs = table.set_index("measure"), [], {}
    if f"relevance - {NULLS[0]}, event (points)" not in rows.index:
        return sentences
    for stem in ("event", "speech"):
        beside = {null: rows.loc[f"relevance - {null}, {stem} (points)"] for null in NULLS}
        found = {int(row.low > 0) - int(row.high < 0) for row in beside.values()}
        signs[stem] = found.pop() if len(found) == 1 else 0
        verdict = {1: "higher than every null", -1: "lower than every null", 0: "not on one side of all nulls"}
        numbers = ", ".join(f"{_points(row)} over {null}" for null, row in beside.items())
        sentences.append(f"Relevance on {stem} is {verdict[signs[stem]]}: {numbers}.")
    if "accuracy lost without event (points)" in rows.index:
        event, speech = (rows.loc[f"accuracy lost without {stem} (points)"] for stem in ("event", "speech"))
        agree = signs["event"] > max(signs["speech"], 0) and event.low > speech.high
        sentences.append(
            f"Accuracy lost without the event is {_points(event)}, {relation(event.value, speech.value)} without "
            f"speech, {_points(speech)}. Relevance and silenced stems "
            + ("agree" if agree else "together do not show")
            + " that this network relies on the event rather than on the voice."
        )
    return sentences


def onsets(table: pd.DataFrame) -> list[str]:
    """Of fig46: what a later onset costs either training, and what training with any onset costs at 0 s."""
    fixed, anywhere, latest, sentences = "all at 0 s", "anywhere", table.onset.max(), []

    def at(column: str, training: str, onset: float) -> pd.Series:
        names = {"value": column, "low": f"{column}_low", "high": f"{column}_high"}
        return pd.Series({end: entry(table, name, training=training, onset=onset) for end, name in names.items()})

    for training, words in ((fixed, "all at 0 s"), (anywhere, "at any time")):
        early, late = at("moments", training, 0.0), at("moments", training, latest)
        sentences.append(f"Trained with onsets {words}, the model has a frame accuracy of {_points(late)} at an onset "
                         f"of {latest:g} s, {relation(late.value, early.value)} {_points(early)} at 0 s.")  # fmt: skip
    for column, what in (("moments", "frames"), ("accuracy", "clips")):
        one, other = at(column, anywhere, 0.0), at(column, fixed, 0.0)
        overlap = one.low <= other.high and other.low <= one.high
        apart = "overlap: no difference is shown, and none is ruled out" if overlap else "are apart"
        sentences.append(f"At an onset of 0 s, accuracy of {what} after training with any onset is {_points(one)}, "
                         f"{relation(one.value, other.value)} {_points(other)} after training at 0 s alone; the "
                         f"intervals {apart}.")  # fmt: skip
    return sentences


def _points(row: pd.Series) -> str:
    return f"{row.value:.1f} ({row.low:.1f} to {row.high:.1f})"
