"""Cost of the Gram-matrix penalty compared with a training step and with other regularisers.

Two networks at batch 128 on 32 px images: the vanilla CNN, where the penalty should be negligible beside the step, and
ResNet-18, whose wide layers make the whole penalty (which does not depend on the batch) expensive. A round on ResNet-18
takes several seconds, so it has fewer of them; all results are medians over rounds.
"""

import pandas as pd
import torch

from lib.corregularization.cost import AUTOGRAD, WHOLE, measure_cost
from lib.corregularization.models import build_model

BATCH = 128
EVERY = {"vanilla": 1, "resnet18": 4}  # the number of rounds is divided by this

# target, network, method, column, at most
TARGETS = [
    ("whole penalty / training step", "vanilla", WHOLE, "share", 0.05),
    ("random regrouping, g = 8 / training step", "resnet18", "Gram, random g = 8", "share", 0.03),
]
CLOSED_FORM = 0.65  # of the time that autograd takes for the same value and gradient, at most


def measure(rounds: int = 20) -> pd.DataFrame:
    """Return `measure_cost` of each network, with the columns network, batch, rounds in front."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tables = []
    for network, every in EVERY.items():
        torch.manual_seed(0)
        model = build_model(network, classes=10).to(device)
        batch = torch.randn(BATCH, 3, 32, 32, device=device), torch.randint(10, (BATCH,), device=device)
        turns = max(1, rounds // every)
        table = measure_cost(model, batch, rounds=turns)
        for at, (column, value) in enumerate([("network", network), ("batch", BATCH), ("rounds", turns)]):
            table.insert(at, column, value)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def check(table: pd.DataFrame) -> pd.DataFrame:
    """Return the study's targets per network with their measured and largest allowed values."""
    values = table.set_index(["network", "method"])
    rows = [
        (what, network, values.loc[(network, method), column], limit)
        for what, network, method, column, limit in TARGETS
    ]
    for network in EVERY:
        speed = 1 / values.loc[(network, AUTOGRAD), "relative"]
        rows.append(("closed-form gradient / autograd", network, speed, CLOSED_FORM))
    return pd.DataFrame(rows, columns=["target", "network", "measured", "at_most"])
