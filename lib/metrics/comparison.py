"""Arms compared over seeds: mean, spread, and the difference from a baseline with the same seeds."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats

ROUNDING = 1e-4  # differences that vary less than this share of their mean are equal: the measure is too coarse to test
MARGIN = 1.0  # percentage points of accuracy: two arms that certainly differ by less are called equivalent


def paired_table(
    rows: pd.DataFrame,
    *,
    baseline: str,
    by: Sequence[str] = (),
    value: str = "accuracy",
    lower_is_better: bool = False,
    means: Sequence[str] = (),
    margin: float | None = None,
) -> pd.DataFrame:
    """Over seeds: mean ± sd of each arm, and its paired difference from `baseline` with the same seeds.

    Where the seeds share their test samples, the tests are of other trainings judged on the same ones; on other samples
    a difference could move further (two networks at odds on 15 % of 10,000 images: by ±0.8 points of accuracy).

    Columns: *by, arm, seeds, mean, sd, difference, ci_low, ci_high (95 %, t distribution, of this arm alone), p
    (two-sided paired t test; 1 where no seed differs, NaN where all differ by the same), p_holm (corrected for all arms
    of the table), verdict (at p_holm < 0.05), and the mean over seeds of each column in `means`. One seed gives no sd,
    interval or p.

    With a `margin`, in the units of `value`, arms without a difference shown are tested for none: p_equivalent is that
    of `equivalence`, corrected likewise, and the verdict says "equivalent within ±margin" below 0.05.
    """
    by, found = list(by), []
    for keys, part in rows.groupby(by, sort=False) if by else [((), rows)]:
        wide = part.pivot(index="seed", columns="arm", values=value)
        if baseline not in wide:
            raise ValueError(f"no arm is called {baseline!r}; arms: {', '.join(wide.columns)}")
        for arm in part.arm.unique():
            change = (wide[arm] - wide[baseline]).dropna()
            row = dict(zip(by, keys if isinstance(keys, tuple) else (keys,), strict=True))
            row |= {"arm": arm, "seeds": len(change), "mean": wide[arm].mean(), "sd": wide[arm].std()}
            row |= _paired(change, lower_is_better, is_baseline=arm == baseline)
            found.append(row | ({} if margin is None else {"p_equivalent": equivalence(change, margin)}))
    table = pd.DataFrame(found)
    table.insert(table.columns.get_loc("p") + 1, "p_holm", holm(table.p))
    table.loc[table.p_holm >= 0.05, "verdict"] = "no difference shown"
    if margin is not None:
        table["p_equivalent"] = holm(table.p_equivalent.mask(table.verdict == "baseline"))
        alike = (table.verdict == "no difference shown") & (table.p_equivalent < 0.05)
        table.loc[alike, "verdict"] = f"equivalent within ±{margin:g}"
    if means:
        table = table.merge(rows.groupby([*by, "arm"], sort=False)[list(means)].mean().reset_index())
    return table


def holm(p: pd.Series) -> pd.Series:
    """p values corrected for their number (Holm 1979, A Simple Sequentially Rejective Multiple Test Procedure).

    The k-th smallest of m is multiplied by m - k + 1, and never comes out below a smaller one; NaN, no test, stays.
    """
    ordered = p.dropna().sort_values()
    factors = np.arange(len(ordered), 0, -1)
    return (ordered * factors).cummax().clip(upper=1).reindex(p.index)


def equivalence(change: pd.Series, margin: float) -> float:
    """p of two one-sided t tests (Schuirmann 1987) that the mean paired difference lies within ±margin; NaN where there
    is no test: for one seed, and where all differ by the same."""
    if len(change) < 2 or _all_equal(change):
        return np.nan
    above = stats.ttest_1samp(change, -margin, alternative="greater").pvalue
    return float(max(above, stats.ttest_1samp(change, margin, alternative="less").pvalue))


def _paired(change: pd.Series, lower_is_better: bool, *, is_baseline: bool) -> dict[str, object]:
    n = len(change)
    if is_baseline:
        return {"difference": np.nan, "ci_low": np.nan, "ci_high": np.nan, "p": np.nan, "verdict": "baseline"}
    row = {"difference": change.mean(), "ci_low": np.nan, "ci_high": np.nan, "p": np.nan}
    if n < 2:
        return row | {"verdict": "one seed: no test" if n else "no seed in common: no test"}
    if _all_equal(change):
        none = not change.any()
        return row | {"p": 1.0 if none else np.nan, "verdict": "no difference shown" if none else "no spread: no test"}
    half = stats.t.ppf(0.975, n - 1) * change.std() / np.sqrt(n)
    p = stats.ttest_1samp(change, 0).pvalue
    verdict = "better" if (change.mean() < 0) == lower_is_better else "worse"  # unless p, corrected, is too high
    return row | {"ci_low": change.mean() - half, "ci_high": change.mean() + half, "p": p, "verdict": verdict}


def _all_equal(change: pd.Series) -> bool:
    """Whether the differences are one number but for rounding: their spread says nothing of other seeds."""
    return bool(change.std() <= ROUNDING * abs(change.mean()))


def mean_and_sd(rows: pd.DataFrame, by: Sequence[str], measures: Sequence[str]) -> pd.DataFrame:
    """Over seeds: *by, seeds, and each measure with its standard deviation beside it (`<measure>_sd`)."""
    groups = rows.groupby(list(by), sort=False)
    table = groups.seed.nunique().rename("seeds").to_frame()
    for measure in measures:
        table[measure], table[f"{measure}_sd"] = groups[measure].mean(), groups[measure].std()
    return table.reset_index()


def mean_and_interval(
    rows: pd.DataFrame, by: Sequence[str], measures: Sequence[str], bounds: tuple[float, float] = (-np.inf, np.inf)
) -> pd.DataFrame:
    """`mean_and_sd`, with a 95 % interval of the mean beside each measure whose interval over clips is in `rows`.

    Of a measure these columns are `<measure>_low` and `<measure>_high`, of "value" `low` and `high`. The interval is
    over seeds and clips, and within `bounds`. Where every seed has synthetic test clips of its own (by the checksums in
    `rows.attrs["data"]`), the spread over seeds holds that of the clips, and the interval is that of t. Where seeds
    share clips, or draw them from one pool, it does not: that of the clips, as the mean over seeds, is added in
    quadrature on each side. One seed has that of its clips.
    """
    table, tests = mean_and_sd(rows, by, measures), defaultdict(set)
    for data in rows.attrs.get("data", []):
        if data["split"] in ("test", "all"):
            tests[data["name"]].add(data["checksum"] if "(synthetic)" in data["name"] else "")
    fewest = min(map(len, tests.values()), default=0)
    for measure in measures:
        low, high = ("low", "high") if measure == "value" else (f"{measure}_low", f"{measure}_high")
        if not {low, high} <= set(rows):
            continue
        sides = rows.assign(below=rows[measure] - rows[low], above=rows[high] - rows[measure])
        sides = sides.groupby(list(by), sort=False)[["below", "above"]].mean().reset_index()
        several = table.seeds > 1
        seeds = (stats.t.ppf(0.975, table.seeds - 1) * table[f"{measure}_sd"] / np.sqrt(table.seeds)).where(several, 0)
        clips = 1.0 - (several & (fewest >= table.seeds)).astype(float)
        table[low] = (table[measure] - np.hypot(seeds, clips * sides.below)).clip(lower=bounds[0])
        table[high] = (table[measure] + np.hypot(seeds, clips * sides.above)).clip(upper=bounds[1])
    return table
