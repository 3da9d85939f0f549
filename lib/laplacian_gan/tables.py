"""Tables aggregated over seeds from the tables of single runs."""

from collections.abc import Sequence

import pandas as pd

from lib.laplacian_gan.arms import DCGAN, NO_SOURCE, PYRAMID
from lib.metrics.comparison import holm, mean_and_sd, paired_table


def labelled(rows: pd.DataFrame) -> pd.DataFrame:
    """Append the origin of the pyramids to the names of arms, so that each name has one row per seed."""
    split = rows.sources.map({NO_SOURCE: "", "training": ", training pyramids", "held-out": ", held-out pyramids"})
    copies = rows.arm.str.startswith("copy of ")
    return rows.assign(arm=rows.arm + split.where(~copies, ""))


def mixtures(controls: pd.DataFrame) -> pd.DataFrame:
    """Return tab16 from rows of tab11 and tab12: realism and copying by number of images that supply the bands."""
    shown = controls.arm.isin([DCGAN.label, "null: zeros", PYRAMID.label, "held-out images"])
    shown |= controls.arm.str.startswith("bands of ")
    names = ["arm", "seed", "images", "sources", "fid", "lpips_diversity", "lpips_real"]
    names += ["retrieval", "source_correlation", "chance_correlation", "copy_index"]
    return controls.loc[shown, names].sort_values("images", kind="stable", ignore_index=True)


# Measures that are aggregated over seeds, as mean and standard deviation.
MEASURES = (
    "fid",
    "kid",
    "lpips_diversity",
    "lpips_to_source",
    "lpips_same_pyramid",
    "retrieval",
    "source_correlation",
    "chance_correlation",
    "copy_index",
)


def over_seeds(rows: pd.DataFrame, by: Sequence[str] = ()) -> pd.DataFrame:
    """Return mean and sd over seeds of each measure by arm and sources: *by, arm, sources, seeds, fid, fid_sd, …

    Of other columns (reported values, sample counts, the extractor), the first value is kept.
    """
    keys = [*by, "arm", "sources"]
    table = mean_and_sd(rows, keys, [name for name in MEASURES if name in rows])
    kept = ("images", "lpips_real", "reported_fid", "reported_lpips", "n_fake", "extractor")
    kept = [name for name in kept if name in rows]
    return table.join(rows.groupby(keys)[kept].first(), on=keys)


def fid_differences(rows: pd.DataFrame) -> pd.DataFrame:
    """Return tab15 from tab11: paired differences in Fréchet distance from DCGAN, then from the null control."""
    how = {"by": ["dataset"], "value": "fid", "lower_is_better": True}
    arms, baselines = labelled(rows), (DCGAN.label, "null: zeros")
    parts = [paired_table(arms, baseline=name, **how).assign(baseline=name) for name in baselines]
    table = pd.concat(parts, ignore_index=True)
    table = table[(table.baseline == DCGAN.label) | (table.arm != DCGAN.label)].reset_index(drop=True)  # each pair once
    table["p_holm"] = holm(table.p)  # over all rows of the table
    table.loc[table.p_holm >= 0.05, "verdict"] = "no difference shown"
    return table
