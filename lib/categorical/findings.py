"""Sentences about one run: every number and direction in them is looked up in its tables."""

from functools import partial

import pandas as pd

from lib.metrics.comparison import entry, relation

OURS = "categorical"


def clusters(table: pd.DataFrame, classes: int) -> list[str]:
    """Of tab21, as many clusters as classes: soft and hard codes with their bytes beside NT-Xent's embedding."""
    table = table[table.wanted == classes]
    soft, hard, other = (
        partial(entry, table, arm=arm, readout=readout)
        for arm, readout in (
            (OURS, "k-means on soft codes"),
            (OURS, "k-modes on hard codes"),
            ("NT-Xent", "k-means on embedding"),
        )
    )
    return [
        f"Clustering accuracy is {soft('accuracy'):.1f} % from soft codes of {soft('bytes'):,.0f} bytes and "
        f"{hard('accuracy'):.1f} % from hard codes of {hard('bytes'):,.0f}; from NT-Xent's embedding of "
        f"{other('bytes'):,.0f} bytes it is {other('accuracy'):.1f} %, {relation(other('accuracy'), soft('accuracy'))} "
        f"the soft and {relation(other('accuracy'), hard('accuracy'))} the hard codes'.",
    ]


def representation(table: pd.DataFrame) -> list[str]:
    """Of tab22: what hardening costs, and which arms lead in kNN accuracy on features."""
    hard, soft, features = (
        partial(entry, table, arm=OURS, representation=name) for name in ("hard codes", "soft codes", "features")
    )
    rows = table[table.representation == "features"].set_index("arm").knn.sort_values(ascending=False)
    queues = [(OURS, f"{OURS}, queue"), ("NT-Xent", "MoCo")]
    behind = "; ".join(f"{slow} is {relation(rows[slow], rows[batch])} {batch}" for batch, slow in queues)
    order = ", ".join(f"{arm} {knn:.1f} %" for arm, knn in rows.items())
    return [
        f"kNN accuracy of the {OURS} arm is {hard('knn'):.1f} % from hard codes of {hard('bytes'):,.0f} bytes, "
        f"{relation(hard('knn'), soft('knn'))} the soft codes' {soft('knn'):.1f} % ({soft('bytes'):,.0f} bytes), which "
        f"is {relation(soft('knn'), features('knn'))} its features' {features('knn'):.1f} %.",
        f"kNN accuracy on features: {order}. With a queue instead of negatives from the batch: {behind}.",
    ]
