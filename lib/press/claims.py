"""The source's numbers (`paper/claims.yaml`) compared with ours, with a status assigned by rule.

A claim is compared if our values are for the source's data set, meet all its `needs` and cover at least three seeds.
It is *reproduced* if the source's value lies in the 95 % prediction interval of one more run (mean ± t(0.975, n - 1)
sd sqrt(1 + 1/n); a count: equals the mean) and its order relative to the claim named by `than` agrees with that of our
values; else it *differs*. If a seed's value is missing (NaN), it is *not measured*.
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
    """Where to find our value: `column` of the row that matches `rows` (column: value) in each seed's table.

    otherwise: the column to use where `column` has no value."""

    table: str
    column: str
    rows: dict[str, object]
    needs: dict[str, str] = field(default_factory=dict)  # column: prefix that its value has at the source's scale
    take: str = "only"  # one row has to match; or "max", over all that do
    otherwise: str | None = None


@dataclass(frozen=True)
class Claim:
    """One number of the source; `data` is the beginning of its data set's name, None if the source does not say."""

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
    """Our values, one per seed, with the data sets that they were measured on and the unmet part of `needs`."""

    values: tuple[float, ...]
    data: str
    unmet: str = ""


def load(path: Path = paths.CLAIMS) -> list[Claim]:
    """Return all claims; `tests/press/test_claims.py` checks that their entries are consistent."""
    entries = yaml.safe_load(path.read_text(encoding="utf-8"))["claims"]
    return [Claim(**entry | {"ours": Ours(**entry["ours"]) if entry.get("ours") else None}) for entry in entries]


def find(claim: Claim, folder: Path, seeds: Iterable[int]) -> Found | None:
    """Return our values in `folder` (`figures/<profile>`) for `seeds`; None if no seed has the table and the row.

    If a table covers several data sets (column `dataset`), only rows of the first, the run's own, are used.

    KeyError if the table lacks a column, ValueError if several rows of a seed match and `take` is not "max".
    """
    if claim.ours is None:
        return None
    values, data, unmet = [], set(), set()
    for path in (folder / f"seed-{seed}" / f"{claim.ours.table}.csv" for seed in seeds):
        if not path.exists():
            continue
        rows = pd.read_csv(path, keep_default_na=False, na_values=[""])
        names = list(rows.dataset[:1]) if "dataset" in rows else []
        rows = rows[rows.dataset.isin(names)] if names else rows
        for column, wanted in claim.ours.rows.items():
            rows = rows[rows[column] == wanted]
        if rows.empty:  # e.g. no character error rate for a data set without words
            continue
        ours = rows[claim.ours.column]
        if claim.ours.otherwise:
            ours = ours.fillna(rows[claim.ours.otherwise])
        values.append(float(ours.max() if claim.ours.take == "max" else ours.item()))
        sidecar = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        data |= set(names) or {used["name"] for used in sidecar["provenance"]["data"]}
        for column, start in claim.ours.needs.items():
            unmet |= {f"{column}: {text}" for text in rows[column].astype(str) if not text.startswith(start)}
    return Found(tuple(values), "; ".join(sorted(data)), "; ".join(sorted(unmet))) if values else None


def status(claim: Claim, found: Found | None, other: tuple[Claim, Found | None] | None = None) -> str:
    """Return the claim's status in words, by the rule above; `other` is the claim named by `than`, with our values."""
    if found is None:
        return f"not run: {claim.reason or 'no results of this table in this profile'}"
    if missing := int(np.isnan(found.values).sum()):
        return f"not measured: no value in {missing} of {len(found.values)} seeds"
    obstacle = _obstacle(claim, found)
    if obstacle:
        return f"not run at this scale: {obstacle}"
    n, mean = len(found.values), float(np.mean(found.values))
    half = stats.t.ppf(0.975, n - 1) * np.std(found.values, ddof=1) * np.sqrt(1 + 1 / n)
    if claim.direction == "count":
        half = 0.0
    if abs(claim.value - mean) > half:
        return f"differs by {mean - claim.value:+.4g} {claim.unit}"
    theirs = np.mean(other[1].values) if other and other[1] else np.nan
    if not np.isnan(theirs) and (mean > theirs) != (claim.value > other[0].value):
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
    """Return one row per claim: id, statement, where, source, unit, ours (mean), sd, seeds, data, status."""
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
