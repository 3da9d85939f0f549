"""The table of differences in distance: its pairs, and the correction over all of its rows."""

import numpy as np
import pandas as pd

from lib.laplacian_gan import tables
from lib.metrics.comparison import holm, paired_table


def test_differences_in_distance_are_from_dcgan_and_then_from_zeros_each_pair_once():
    fids = {("DCGAN", "none"): [90, 92, 91], ("pyramid GAN", "training"): [70, 75, 71],
            ("pyramid GAN", "held-out"): [89, 93, 90], ("null: zeros", "none"): [80, 83, 82]}  # fmt: skip
    rows = pd.DataFrame([{"dataset": "d", "arm": arm, "sources": sources, "seed": seed, "fid": float(fid)}
                         for (arm, sources), found in fids.items() for seed, fid in enumerate(found)])  # fmt: skip
    table = tables.fid_differences(rows)
    pairs = table.dropna(subset="difference")
    arms = ["pyramid GAN, training pyramids", "pyramid GAN, held-out pyramids"]
    wanted = [(arm, "DCGAN") for arm in [*arms, "null: zeros"]] + [(arm, "null: zeros") for arm in arms]
    assert list(zip(pairs.arm, pairs.baseline, strict=True)) == wanted
    np.testing.assert_allclose(table.p_holm, holm(table.p))
    alone = paired_table(
        tables.labelled(rows), baseline="null: zeros", value="fid", by=["dataset"], lower_is_better=True
    )
    assert pairs.p.iloc[-1] == alone.set_index("arm").p[arms[1]] < pairs.p_holm.iloc[-1]
    assert set(table.verdict[table.p_holm >= 0.05]) == {"no difference shown"}
