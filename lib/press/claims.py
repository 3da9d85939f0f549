"""The source's numbers (`paper/claims.yaml`) beside ours, with a status by rule.

A claim is compared if our values are of the source's data set, meet all that it `needs` and come from three seeds or
more. It is *reproduced* if the source's value lies in the 95 % prediction interval of one more run,
mean ± t(0.975, n - 1) sd sqrt(1 + 1/n), and its order to the claim named by `than` is the same; else it *differs*.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from scipy import stats

from lib import paths

FEWEST_SEEDS = 3


@dataclass(frozen=True)
class Ours:
    """Where our value stands: of `rows` (column: value) the `column`, one row per seed or, with "max", the largest."""

    table: str
    column: str
    rows: dict[str, object]
    needs: dict[str, str] = field(default_factory=dict)  # column: how it begins at the source's scale
    take: str = "only"


@dataclass(frozen=True)
class Claim:
    """One number of the source; `data` is how its data set's name begins, None where the source does not say."""

    id: str
    statement: str
    value: float
    unit: str
    direction: str
    data: str | None
    where: str
    ours: Ours | None
    reason: str = ""  # why `ours` is None
    than: str | None = None


@dataclass(frozen=True)
class Found:
    """Our values, one per seed, with the data set that they were measured on and what of `needs` does not hold."""

    values: tuple[float, ...]
    data: str
    unmet: str = ""


def load(path: Path = paths.CLAIMS) -> list[Claim]:
    """All claims. That their entries are consistent, `tests/press/test_claims.py` checks."""
    entries = yaml.safe_load(path.read_text(encoding="utf-8"))["claims"]
    return [Claim(**entry | {"ours": Ours(**entry["ours"]) if entry.get("ours") else None}) for entry in entries]


def find(claim: Claim, folder: Path, seeds: Iterable[int]) -> Found | None:
    """Our values below `folder` (`figures/<profile>`) over `seeds`; None where none of them has the table and the row.

    KeyError for a column that the table lacks, ValueError for more rows than one of a seed.
    """
    if claim.ours is None:
        return None
    values, data, unmet = [], set(), set()
    for path in (folder / f"seed-{seed}" / f"{claim.ours.table}.csv" for seed in seeds):
        if not path.exists():
            continue
        rows = pd.read_csv(path, keep_default_na=False, na_values=[""])
        for column, wanted in claim.ours.rows.items():
            rows = rows[rows[column] == wanted]
        if rows.empty:  # a data set without words has no character errors
            continue
        ours = rows[claim.ours.column]
        values.append(float(ours.max() if claim.ours.take == "max" else ours.item()))
        sidecar = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        data |= {used["name"] for used in sidecar["provenance"]["data"]}
        for column, start in claim.ours.needs.items():
            unmet |= {f"{column}: {text}" for text in rows[column].astype(str) if not text.startswith(start)}
    return Found(tuple(values), "; ".join(sorted(data)), "; ".join(sorted(unmet))) if values else None


def status(claim: Claim, found: Found | None, other: tuple[Claim, Found | None] | None = None) -> str:
    """The claim's status in words, by the rule above; `other` is the claim named by `than`, with our values."""
    if found is None:
        return f"not run: {claim.reason or 'no results of this table in this profile'}"
    obstacle = _obstacle(claim, found)
    if obstacle:
        return f"not run at this scale: {obstacle}"
    n, mean = len(found.values), float(np.mean(found.values))
    half = stats.t.ppf(0.975, n - 1) * np.std(found.values, ddof=1) * np.sqrt(1 + 1 / n)
    if claim.direction == "count":
        half = 0.0
    if abs(claim.value - mean) > half:
        return f"differs by {mean - claim.value:+.4g} {claim.unit}"
    if other and other[1] and (mean > np.mean(other[1].values)) != (claim.value > other[0].value):
        return f"differs in its order to {other[0].id}"
    return "reproduced"


def _obstacle(claim: Claim, found: Found) -> str:
    if claim.data is None:
        return f"the source does not say on which data; ours is {found.data}"
    if not all(name.startswith(claim.data) for name in found.data.split("; ")):
        return f"{found.data} instead of {claim.data}"
    if found.unmet:
        return found.unmet
    if len(found.values) < FEWEST_SEEDS:
        return f"{len(found.values)} of at least {FEWEST_SEEDS} seeds"
    return ""


def table(claims: Iterable[Claim], folder: Path, seeds: Sequence[int]) -> pd.DataFrame:
    """One row per claim: id, statement, where, source, unit, ours (mean), sd, seeds, data, status."""
    found = {claim.id: (claim, find(claim, folder, seeds)) for claim in claims}
    rows = []
    for claim, ours in found.values():
        values = ours.values if ours else ()
        rows.append({
            "id": claim.id, "statement": claim.statement, "where": claim.where, "source": claim.value,
            "unit": claim.unit, "ours": np.mean(values) if values else np.nan,
            "sd": np.std(values, ddof=1) if len(values) > 1 else np.nan, "seeds": len(values),
            "data": ours.data if ours else "", "status": status(claim, ours, found.get(claim.than)),
        })  # fmt: skip
    return pd.DataFrame(rows)
