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


def search(table: pd.DataFrame) -> list[str]:
    """Of tab26: at each size that the codes have, their mean average precision and recall beside the best rival's."""
    said = []
    for name, part in table.groupby("embedding", sort=False):
        exact = entry(part, "map", method="exact search")
        for row in part[part.method == OURS].itertuples():
            rivals = part[part.method.isin(["PQ", "OPQ", "ITQ", "LSH"]) & (part.bytes == row.bytes)]
            if rivals.empty:
                continue
            best = rivals.loc[rivals["map"].idxmax()]
            text = (
                f"{name}, {row.bytes:g} bytes: the mean average precision of the {OURS} codes is {row.map:.1f} %, "
                f"{relation(row.map, best['map'])} that of {best.method} ({best['map']:.1f} %), the best rival, "
                f"and {relation(row.map, exact)} that of exact search ({exact:.1f} %)"
            )
            if row.recall_10 == row.recall_10:
                near = rivals.loc[rivals.recall_10.idxmax()]
                text += (
                    f"; recall@10 is {row.recall_10:.1f} %, {relation(row.recall_10, near.recall_10)} that of "
                    f"{near.method} ({near.recall_10:.1f} %)"
                )
            said.append(f"{text}.")
    return said


def frozen_clusters(table: pd.DataFrame) -> list[str]:
    """Of tab28: the accuracy of every method beside k-means on the same features."""
    base = entry(table, "accuracy", method="k-means on features")
    return [
        f"{row.features}: {row.method} has a clustering accuracy of {row.accuracy:.1f} %, "
        f"{relation(row.accuracy, base)} that of k-means on the features ({base:.1f} %)."
        for row in table[table.method != "k-means on features"].itertuples()
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
