"""Comparison of arms over seeds: mean, standard deviation, and paired difference from a baseline."""

from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from scipy import stats

ROUNDING = 1e-4  # differences with an sd below this share of their mean count as equal: too coarse a metric to test
MARGIN = 1.0  # percentage points of accuracy: arms shown to differ by less are called equivalent


def paired_table(
    rows: pd.DataFrame,
    *,
    baseline: str,
    by: Sequence[str] = (),
    value: str = "accuracy",
    lower_is_better: bool = False,
    means: Sequence[str] = (),
    margin: float | None = None,
    tested: Callable[[pd.DataFrame], pd.Series] | None = None,
    pooled: bool = False,
) -> pd.DataFrame:
    """Return mean and sd of each arm over seeds, and its paired difference from `baseline` with the same seeds.

    If the seeds share test samples, the tests generalise to other training runs evaluated on these; on others, a
    difference may vary more (by ±0.8 points of accuracy for two networks that disagree on 15 % of 10,000 images).

    Columns: *by, arm, seeds, mean, sd, difference, ci_low, ci_high (95 %, t distribution, not corrected), p (two-sided
    paired t test; 1 if no seed differs, NaN if the differences have no spread), p_holm (corrected for all arms of the
    table), verdict (at p_holm < 0.05), and the mean over seeds of each column in `means`. One seed gives no sd,
    interval or p.

    pooled: estimate one spread of differences from all arms of a group instead of each arm's own: the residual of a
    randomised complete block design (seeds are blocks; `pooled_sd`). With three seeds an arm's own spread has two
    degrees of freedom, which leaves no test any power after correction. Assumes the same variance in all arms.

    tested: which rows of the table form the family of tests (bool); others have no p, and the verdict "not tested".

    With a `margin`, in the units of `value`, arms with no difference shown are tested for equivalence: p_equivalent is
    the p of `equivalence`, Holm-corrected, and below 0.05 the verdict is "equivalent within ±margin".
    """
    by, found = list(by), []
    for keys, part in rows.groupby(by, sort=False) if by else [((), rows)]:
        wide = part.pivot(index="seed", columns="arm", values=value)
        if baseline not in wide:
            raise ValueError(f"no arm is called {baseline!r}; arms: {', '.join(wide.columns)}")
        common = pooled_sd(wide) if pooled else None
        for arm in part.arm.unique():
            change = (wide[arm] - wide[baseline]).dropna()
            spread = common or (change.std(), len(change) - 1)
            row = dict(zip(by, keys if isinstance(keys, tuple) else (keys,), strict=True))
            row |= {"arm": arm, "seeds": len(change), "mean": wide[arm].mean(), "sd": wide[arm].std()}
            row |= _paired(change, spread, lower_is_better, is_baseline=arm == baseline)
            found.append(row | ({} if margin is None else {"p_equivalent": equivalence(change, margin, spread)}))
    table = pd.DataFrame(found)
    if tested is not None:
        others = ~tested(table) & (table.verdict != "baseline")
        table.loc[others, "p"], table.loc[others, "verdict"] = np.nan, "not tested"
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
    """Correct p values for multiple tests (Holm 1979, A Simple Sequentially Rejective Multiple Test Procedure).

    The k-th smallest of m is multiplied by m - k + 1, keeping the order and at most 1; NaN (no test) stays NaN.
    """
    ordered = p.dropna().sort_values()
    factors = np.arange(len(ordered), 0, -1)
    return (ordered * factors).cummax().clip(upper=1).reindex(p.index)


def pooled_sd(wide: pd.DataFrame) -> tuple[float, int] | None:
    """Return the sd of the difference of two arms within a seed, and its degrees of freedom, (arms - 1) (seeds - 1).

    wide: a row per seed, a column per arm; seeds that lack an arm are left out. The sd is √2 times that of residuals
    from the means of arms and seeds (Montgomery, Design and Analysis of Experiments, section 4.1). None with a single
    arm or seed.
    """
    values = wide.dropna().to_numpy()
    freedom = (values.shape[0] - 1) * (values.shape[1] - 1)
    if freedom < 1:
        return None
    rest = values - values.mean(0) - values.mean(1, keepdims=True) + values.mean()
    return float(np.sqrt(2 * (rest**2).sum() / freedom)), freedom


def equivalence(change: pd.Series, margin: float, spread: tuple[float, int] | None = None) -> float:
    """Return p of two one-sided t tests (Schuirmann 1987) that the mean paired difference is within ±margin; NaN if
    no test is possible: with one seed, or if the differences have no spread.

    spread: sd of the differences and its degrees of freedom; default: those of `change`."""
    sd, freedom = spread or (change.std(), len(change) - 1)
    if len(change) < 2 or _all_equal(change, sd):
        return np.nan
    return float(stats.t.sf((margin - abs(change.mean())) * np.sqrt(len(change)) / sd, freedom))


def _paired(
    change: pd.Series, spread: tuple[float, int], lower_is_better: bool, *, is_baseline: bool
) -> dict[str, object]:
    n, (sd, freedom) = len(change), spread
    if is_baseline:
        return {"difference": np.nan, "ci_low": np.nan, "ci_high": np.nan, "p": np.nan, "verdict": "baseline"}
    row = {"difference": change.mean(), "ci_low": np.nan, "ci_high": np.nan, "p": np.nan}
    if n < 2:
        return row | {"verdict": "one seed: no test" if n else "no seed in common: no test"}
    if _all_equal(change, sd):
        none = not change.any()
        return row | {"p": 1.0 if none else np.nan, "verdict": "no difference shown" if none else "no spread: no test"}
    half = stats.t.ppf(0.975, freedom) * sd / np.sqrt(n)
    p = 2 * stats.t.sf(abs(change.mean()) * np.sqrt(n) / sd, freedom)
    verdict = "better" if (change.mean() < 0) == lower_is_better else "worse"  # replaced if the corrected p is too high
    return row | {"ci_low": change.mean() - half, "ci_high": change.mean() + half, "p": p, "verdict": verdict}


def _all_equal(change: pd.Series, sd: float) -> bool:
    """Return whether the differences are equal up to rounding, so that their spread says nothing about other seeds."""
    return bool(sd <= ROUNDING * abs(change.mean()))


def mean_and_sd(rows: pd.DataFrame, by: Sequence[str], measures: Sequence[str]) -> pd.DataFrame:
    """Return *by, seeds, and the mean over seeds of each measure with its standard deviation (`<measure>_sd`).

    seeds: number of those with a row; mean and sd ignore missing values."""
    groups = rows.groupby(list(by), sort=False)
    table = groups.seed.nunique().rename("seeds").to_frame()
    for measure in measures:
        table[measure], table[f"{measure}_sd"] = groups[measure].mean(), groups[measure].std()
    return table.reset_index()


def mean_and_interval(
    rows: pd.DataFrame, by: Sequence[str], measures: Sequence[str], bounds: tuple[float, float] = (-np.inf, np.inf)
) -> pd.DataFrame:
    """Return `mean_and_sd` with a 95 % interval of the mean for each measure whose interval over clips is in `rows`.

    The interval's columns are `<measure>_low` and `<measure>_high` (`low` and `high` for "value"). It covers seeds and
    clips and is clipped to `bounds`. If every seed has its own synthetic test clips (by the checksums in
    `rows.attrs["data"]`), the spread over seeds includes that over clips, and the t interval suffices. If seeds share
    clips or draw them from one pool, it does not, and the half-width over clips, averaged over seeds, is added in
    quadrature on each side. A single seed has the interval of its clips.
    """
    table, tests = mean_and_sd(rows, by, measures), defaultdict(set)
    counts = rows.groupby(list(by), sort=False)[list(measures)].count().reset_index()  # without missing values
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
        n = counts[measure]
        several = n > 1
        seeds = (stats.t.ppf(0.975, n - 1) * table[f"{measure}_sd"] / np.sqrt(n)).where(several, 0)
        clips = 1.0 - (several & (fewest >= n)).astype(float)
        table[low] = (table[measure] - np.hypot(seeds, clips * sides.below)).clip(lower=bounds[0])
        table[high] = (table[measure] + np.hypot(seeds, clips * sides.above)).clip(upper=bounds[1])
    return table
