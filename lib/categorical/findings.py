"""Sentences about one run: every number and direction in them is looked up in its tables."""

from functools import partial

import pandas as pd

from lib.metrics.comparison import entry, relation

OURS = "categorical"


def tuning(table: pd.DataFrame) -> list[str]:
    """Of tab27: the chosen code temperatures, and whether the grid brackets them."""
    chosen = table[table.chosen]
    grid = table.code_temperature
    edge = chosen.code_temperature.isin([grid.min(), grid.max()]).sum()
    values = "; ".join(f"{row.arm}: {row.code_temperature:g}" for row in chosen.itertuples())
    return [f"Chosen code temperatures: {values}. On the edge of the grid lie {edge} of {len(chosen)}."]


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


def meanings(table: pd.DataFrame) -> list[str]:
    """Of fig210: which factor the positions follow, and how much of colour they keep."""
    mean, most = table.groupby("factor").nmi.mean().sort_values(ascending=False), table.groupby("factor").nmi.max()
    order = ", ".join(f"{factor} {nmi:.3f}" for factor, nmi in mean.items())
    return [
        f"Mean NMI of the positions with what is known of the images: {order}. The largest of any position with colour "
        f"is {most['colour']:.3f}, {relation(most['colour'], most['class'])} that with the class ({most['class']:.3f})."
    ]


def positions(table: pd.DataFrame) -> list[str]:
    """Of fig28: where accuracy is highest over the number of positions, and which codes have collapsed."""
    sentences = []
    for column, name in (("soft", "clustering of soft codes"), ("hard", "clustering of hard codes"), ("knn", "kNN")):
        best = table.loc[table.groupby("categories")[column].idxmax()]
        where = "; ".join(
            f"at L = {row.positions} with K = {row.categories}"
            + (", the end of the grid" if row.positions == table.positions.max() else "")
            for row in best.itertuples()
        )
        sentences.append(f"The highest accuracy by {name} is {where}.")
    return sentences + collapsed(table)


def ablation(table: pd.DataFrame) -> list[str]:
    """Of tab23: the changes that raise clustering accuracy and kNN, and collapsed codes."""
    base = table[table.arm == OURS].iloc[0]
    sentences = []
    for column, name in (("soft", "clustering accuracy"), ("knn", "Hamming kNN")):
        better = table[table[column] > base[column]]
        listed = ", ".join(f"{arm} ({value:.1f} %)" for arm, value in zip(better.arm, better[column], strict=True))
        own = f"the study's arm ({base[column]:.1f} %)"
        sentences.append(f"Changes with a higher {name} than {own}: {listed or 'none'}.")
    logs = table[table.arm == "similarity: log_agreement"].iloc[0]
    sentences.append(
        f"With the logarithm at every position, codes use {logs.perplexity:.1f} categories per position, "
        f"{relation(logs.perplexity, base.perplexity)} with the mean agreement ({base.perplexity:.1f})."
    )
    return sentences + collapsed(table)


def collapsed(table: pd.DataFrame) -> list[str]:
    """Which rows are at chance in hard readouts, since all images have one hard code."""
    arms = ", ".join(table.arm[table.collapsed])
    return [f"Collapsed (one hard code for all images, so that readouts of it are at chance): {arms}."] if arms else []
