"""The paired comparison over seeds."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from lib.metrics.comparison import equivalence, holm, mean_and_interval, mean_and_sd, paired_table


def results(**accuracies):
    """Return rows like those of `summary`, for arms with one value per seed."""
    return pd.DataFrame(
        [
            {"arm": arm.replace("_", " "), "seed": seed, "accuracy": value}
            for arm, values in accuracies.items()
            for seed, value in enumerate(values)
        ]
    )


PLAIN = [80.0, 81.5, 79.2, 80.4, 80.9]
BETTER = [81.1, 82.4, 80.6, 81.2, 82.3]
WORSE = [70.3, 72.0, 69.9, 69.1, 71.5]
SIMILAR = [80.3, 81.1, 79.5, 80.0, 81.2]


def test_the_paired_comparison_is_that_of_scipy():
    table = paired_table(results(plain=PLAIN, other=BETTER, worse=WORSE, similar=SIMILAR), baseline="plain")
    assert list(table.arm) == ["plain", "other", "worse", "similar"]
    for arm, values in {"other": BETTER, "worse": WORSE, "similar": SIMILAR}.items():
        row = table.set_index("arm").loc[arm]
        test = stats.ttest_rel(values, PLAIN)
        interval = test.confidence_interval(0.95)
        assert row.seeds == 5
        assert row["mean"] == pytest.approx(np.mean(values))
        assert row.sd == pytest.approx(np.std(values, ddof=1))
        assert row.difference == pytest.approx(np.mean(values) - np.mean(PLAIN))
        assert row.p == pytest.approx(test.pvalue)
        assert (row.ci_low, row.ci_high) == pytest.approx((interval.low, interval.high))
    assert list(table.verdict) == ["baseline", "better", "worse", "no difference shown"]


class TestPooledSpread:
    THREE = {"plain": PLAIN[:3], "other": BETTER[:3], "worse": WORSE[:3], "similar": SIMILAR[:3]}

    def test_it_is_least_squares_on_arms_and_seeds(self):
        """Against an explicit regression with an indicator per arm and seed, whose residual gives the error of the
        difference between two arms."""
        table = paired_table(results(**self.THREE), baseline="plain", pooled=True).set_index("arm")
        y = np.concatenate(list(self.THREE.values()))
        arm, seed = np.repeat(np.arange(4), 3), np.tile(np.arange(3), 4)
        design = np.column_stack([arm == k for k in range(4)] + [seed == k for k in (1, 2)]).astype(float)
        weights, (squares,), _, _ = np.linalg.lstsq(design, y)
        freedom = len(y) - design.shape[1]
        covariance = squares / freedom * np.linalg.inv(design.T @ design)
        for k, name in enumerate(self.THREE):
            if k:
                contrast = np.zeros(6)
                contrast[[k, 0]] = 1, -1
                error = np.sqrt(contrast @ covariance @ contrast)
                t = contrast @ weights / error
                row = table.loc[name]
                assert row.difference == pytest.approx(contrast @ weights)
                assert row.p == pytest.approx(2 * stats.t.sf(abs(t), freedom))
                assert row.ci_high - row.difference == pytest.approx(stats.t.ppf(0.975, freedom) * error)
        assert table.p_holm["worse"] < 1e-4  # not with two degrees of freedom

    def test_of_two_arms_it_is_the_paired_test(self):
        rows = results(plain=PLAIN, other=BETTER)
        pd.testing.assert_frame_equal(
            paired_table(rows, baseline="plain", margin=1, pooled=True), paired_table(rows, baseline="plain", margin=1)
        )

    def test_it_keeps_its_level(self):
        """With equal means and variances, one difference in twenty has p < 0.05 before correction."""
        rng = np.random.default_rng(0)
        p = []
        for _ in range(200):
            draw = {f"a{k}": rng.normal(80, 1, 3) for k in range(5)}
            p += paired_table(results(**draw), baseline="a0", pooled=True).p.dropna().tolist()
        assert 0.03 < np.mean(np.array(p) < 0.05) < 0.07

    def test_seeds_that_lack_an_arm_do_not_count_in_it(self):
        rows = results(**self.THREE)
        more = pd.concat([rows, pd.DataFrame([{"arm": "plain", "seed": 3, "accuracy": 10.0}])])
        a, b = (paired_table(some, baseline="plain", pooled=True) for some in (rows, more))
        assert a.p.tolist()[1:] == b.p.tolist()[1:]

    def test_one_seed_has_no_residual(self):
        row = paired_table(results(plain=[80.0], other=[81.0]), baseline="plain", margin=1, pooled=True).iloc[1]
        assert row.verdict == "one seed: no test" and pd.isna(row.p_equivalent)


def test_the_pairing_counts_and_not_the_order_of_rows():
    rows = results(plain=PLAIN, other=BETTER)
    mixed = rows.sample(frac=1, random_state=1)
    table = paired_table(rows, baseline="plain").set_index("arm")
    pd.testing.assert_frame_equal(paired_table(mixed, baseline="plain").set_index("arm").loc[table.index], table)
    assert table.p["other"] < stats.ttest_ind(BETTER, PLAIN).pvalue


def test_the_baseline_is_not_compared_with_itself():
    row = paired_table(results(plain=PLAIN, other=BETTER), baseline="plain").iloc[0]
    assert row.verdict == "baseline"
    assert row[["difference", "ci_low", "ci_high", "p"]].isna().all()
    assert row["mean"] == pytest.approx(np.mean(PLAIN))


def test_one_seed_gives_a_difference_and_no_test():
    table = paired_table(results(plain=[80.0], other=[81.0]), baseline="plain").set_index("arm")
    row = table.loc["other"]
    assert row.difference == pytest.approx(1)
    assert row[["sd", "ci_low", "ci_high", "p"]].isna().all()
    assert row.verdict == "one seed: no test"


@pytest.mark.filterwarnings("error")  # SciPy would warn of lost precision
def test_identical_values_show_no_difference():
    row = paired_table(results(plain=PLAIN, other=PLAIN), baseline="plain").set_index("arm").loc["other"]
    assert row.difference == 0
    assert row.p == 1  # a planned test, so Holm's correction counts it
    assert row.verdict == "no difference shown"


@pytest.mark.filterwarnings("error")
def test_equal_differences_are_too_coarse_to_test():
    """Accuracies are multiples of 1/n: two or three differences may be equal by chance, and a t test gives p = 0."""
    shifted = (np.array([70.2, 70.4, 71.2], np.float32), np.array([70.4, 70.6, 71.4], np.float32))
    table = paired_table(results(plain=shifted[0], other=shifted[1], third=PLAIN[:3]), baseline="plain", margin=1)
    row = table.set_index("arm").loc["other"]
    assert row.verdict == "no spread: no test" and row[["p", "p_holm", "p_equivalent", "ci_low"]].isna().all()
    assert table.p_holm[2] == table.p[2]


def test_each_condition_is_compared_with_its_own_baseline():
    few = results(plain=PLAIN, other=BETTER).assign(condition="few images", classes=2)
    all_images = results(plain=BETTER, other=WORSE).assign(condition="all images", classes=3)
    table = paired_table(pd.concat([few, all_images]), baseline="plain", by=["condition", "classes"])
    assert list(table.columns[:3]) == ["condition", "classes", "arm"]
    assert list(table.condition) == ["few images"] * 2 + ["all images"] * 2  # in the order of the rows
    assert list(table.verdict) == ["baseline", "better", "baseline", "worse"]
    one = paired_table(pd.concat([few, all_images]), baseline="plain", by=["condition"])
    assert one.difference.tolist()[1::2] == pytest.approx(table.difference.tolist()[1::2])


def test_seeds_that_only_one_arm_has_are_left_out_of_the_difference():
    rows = results(plain=PLAIN, other=BETTER[:3])
    row = paired_table(rows, baseline="plain").set_index("arm").loc["other"]
    assert row.seeds == 3
    assert row.p == pytest.approx(stats.ttest_rel(BETTER[:3], PLAIN[:3]).pvalue)


def test_other_columns_can_be_compared():
    rows = results(plain=PLAIN, other=BETTER).rename(columns={"accuracy": "rms"})
    assert paired_table(rows, baseline="plain", value="rms").difference[1] == pytest.approx(
        np.mean(BETTER) - np.mean(PLAIN)
    )


def test_a_missing_baseline_is_named_with_the_arms_there_are():
    with pytest.raises(ValueError, match="no arm is called 'none'; arms: other, plain"):
        paired_table(results(plain=PLAIN, other=BETTER), baseline="none")


def test_where_lower_is_better():
    table = paired_table(results(plain=PLAIN, other=BETTER, worse=WORSE), baseline="plain", lower_is_better=True)
    assert list(table.verdict) == ["baseline", "worse", "better"]


def test_mean_and_sd_have_one_row_per_group_in_the_order_of_the_rows():
    rows = pd.DataFrame({"arm": ["b", "a", "b", "a"], "seed": [0, 0, 1, 1], "score": [1.0, 5.0, 3.0, 5.0]})
    table = mean_and_sd(rows, ["arm"], ["score"])
    assert list(table.columns) == ["arm", "seeds", "score", "score_sd"]
    assert table.arm.tolist() == ["b", "a"] and table.seeds.tolist() == [2, 2]
    assert table.score.tolist() == [2, 5] and table.score_sd.tolist() == pytest.approx([2**0.5, 0])


def test_one_seed_has_no_sd():
    assert (
        mean_and_sd(pd.DataFrame({"arm": ["a"], "seed": [0], "score": [1.0]}), ["arm"], ["score"]).score_sd.isna().all()
    )


def test_means_of_further_columns_stand_beside_each_arm():
    rows = results(a=[1.0, 3.0], b=[2.0, 5.0]).assign(bytes=[1, 3, 2, 2])
    table = paired_table(rows, baseline="a", means=["bytes"])
    assert table.arm.tolist() == ["a", "b"] and table.bytes.tolist() == [2, 2]
    pd.testing.assert_frame_equal(table.drop(columns="bytes"), paired_table(rows, baseline="a"))


def test_holm_is_the_step_down_procedure_by_hand():
    p = pd.Series([0.01, np.nan, 0.04, 0.03, 0.005])
    np.testing.assert_allclose(holm(p), [0.03, np.nan, 0.06, 0.06, 0.02])
    assert holm(pd.Series([0.6, 0.7])).tolist() == [1.0, 1.0]


def test_a_difference_among_many_arms_needs_more_than_one_alone():
    one = paired_table(results(plain=[80.0, 81.5, 79.2], other=[81.0, 82.9, 80.1]), baseline="plain")
    assert one.verdict[1] == "better" and one.p_holm[1] == one.p[1] < 0.05
    noise = {f"arm{i}": np.random.default_rng(i).normal(80, 1, 3).tolist() for i in range(20)}
    many = paired_table(results(plain=[80.0, 81.5, 79.2], other=[81.0, 82.9, 80.1], **noise), baseline="plain")
    assert many.p[1] == one.p[1] and many.verdict[1] == "no difference shown"


def test_two_one_sided_tests_agree_with_the_interval_of_90_per_cent_and_with_a_closed_form():
    """With two values the t distribution is Cauchy's: P(T > t) = 1/2 - arctan(t)/π."""
    assert equivalence(pd.Series([0.1, 0.3]), 1.0) == pytest.approx(0.5 - np.arctan((1 - 0.2) / 0.1) / np.pi)
    assert equivalence(pd.Series([-0.1, -0.3]), 1.0) == pytest.approx(equivalence(pd.Series([0.1, 0.3]), 1.0))
    change = pd.Series([0.4, -0.2, 0.5, 0.1])
    interval = stats.ttest_1samp(change, 0).confidence_interval(0.9)
    assert equivalence(change, interval.high) == pytest.approx(0.05)  # the farther end of the interval
    assert np.isnan([equivalence(pd.Series([0.1]), 1.0), equivalence(pd.Series([0.5, 0.5]), 0.6)]).all()


def test_no_difference_is_a_verdict_only_where_a_margin_is_stated_and_the_test_passes():
    rows = results(plain=PLAIN, similar=SIMILAR, better=BETTER, loose=[79.0, 83.1, 78.0, 82.5, 79.9])
    assert not paired_table(rows, baseline="plain").verdict.str.startswith("equivalent").any()
    table = paired_table(rows, baseline="plain", margin=1).set_index("arm")
    assert list(table.verdict) == ["baseline", "equivalent within ±1", "better", "no difference shown"]
    assert np.isnan(table.p_equivalent["plain"]) and table.p_equivalent["loose"] > 0.05
    single = equivalence(pd.Series(SIMILAR) - pd.Series(PLAIN), 1)
    assert table.p_equivalent["similar"] == pytest.approx(3 * single)  # the smallest of three
    assert paired_table(rows[rows.seed == 0], baseline="plain", margin=1).verdict[1] == "one seed: no test"


def sets_of(checksums, name="scenes (synthetic)"):
    return [{"name": name, "split": "test", "checksum": one} for one in checksums]


def measured(values, half, data=(), **options):
    rows = pd.DataFrame({"voter": "CNN", "seed": range(len(values)), "accuracy": values})
    rows = rows.assign(accuracy_low=rows.accuracy - half, accuracy_high=rows.accuracy + 2 * half)
    rows.attrs["data"] = [{"name": "scenes (synthetic)", "split": "train", "checksum": "t"}, *data]
    (found,) = mean_and_interval(rows, ["voter"], ["accuracy"], **options).to_dict("records")
    return found["accuracy_low"], found["accuracy_high"]


def test_the_interval_of_one_seed_is_that_of_its_clips():
    assert measured([70.0], 3.0) == (67.0, 76.0)


def test_the_interval_over_seeds_is_that_of_scipy_and_the_clips_are_added():
    values = [70.0, 72.0, 77.0]
    low, high = stats.t.interval(0.95, 2, loc=np.mean(values), scale=stats.sem(values))
    assert measured(values, 0.0) == pytest.approx((low, high))
    assert measured([70.0, 70.0, 70.0], 3.0) == pytest.approx((67.0, 76.0))
    assert measured(values, 3.0)[0] == pytest.approx(73 - np.hypot(73 - low, 3.0))


def test_a_seed_without_a_value_does_not_narrow_the_interval():
    for own in ([], sets_of("abc")):
        assert measured([70.0, 72.0, np.nan], 3.0, own) == measured([70.0, 72.0], 3.0, own)
    assert measured([70.0, np.nan], 3.0) == (67.0, 76.0)


def test_clips_of_their_own_are_in_the_spread_over_seeds():
    values = [70.0, 72.0, 77.0]
    own = sets_of("abc")
    assert measured(values, 3.0, own) == measured(values, 0.0)
    assert measured(values, 3.0, sets_of("a")) == measured(values, 3.0)
    assert measured(values, 3.0, own + sets_of("z", "others (synthetic)")) == measured(values, 3.0)
    assert measured(values, 3.0, sets_of("abc", "ESC-50")) == measured(values, 3.0)  # drawn from one pool


def test_the_interval_of_a_share_stays_within_its_bounds():
    assert measured([0.0, 2.0, 4.0], 0.0)[0] < 0
    assert measured([0.0, 2.0, 4.0], 0.0, bounds=(0, 100))[0] == 0
    assert measured([96.0, 98.0, 100.0], 0.0, bounds=(0, 100))[1] == 100


@pytest.mark.parametrize("shared", [True, False])
def test_the_interval_over_seeds_and_clips_covers(shared):
    """Simulated: true rates that vary between seeds, measured on 200 clips, shared or separate."""
    draw, truth, covered = np.random.default_rng(0), 0.7, []
    for _ in range(400):
        rates = truth + 0.02 * draw.standard_normal(5)
        difficulty = draw.uniform(size=200) if shared else draw.uniform(size=(5, 200))
        values = 100 * (difficulty < rates[:, None]).mean(1)
        half = 196 * np.sqrt(truth * (1 - truth) / 200)
        rows = pd.DataFrame({"by": "x", "seed": range(5), "value": values, "low": values - half, "high": values + half})
        rows.attrs["data"] = sets_of("a" if shared else "abcde")
        (found,) = mean_and_interval(rows, ["by"], ["value"]).to_dict("records")
        covered.append(found["low"] <= 100 * truth <= found["high"])
    assert 0.92 < np.mean(covered) < 0.995


def test_measures_without_an_interval_over_clips_get_none():
    rows = pd.DataFrame({"arm": ["a", "a"], "seed": [0, 1], "score": [1.0, 2.0]})
    assert list(mean_and_interval(rows, ["arm"], ["score"])) == ["arm", "seeds", "score", "score_sd"]


def test_rows_outside_the_family_are_shown_without_test_and_do_not_weaken_it():
    rows = pd.DataFrame({"arm": list("aaabbbccc"), "seed": [0, 1, 2] * 3})
    rows["accuracy"] = [1.0, 2.0, 3.0, 2.0, 3.1, 3.9, 5.0, 5.5, 7.0]
    whole = paired_table(rows, baseline="a").set_index("arm")
    table = paired_table(rows, baseline="a", tested=lambda table: table.arm == "b").set_index("arm")
    assert table.p_holm["b"] == whole.p["b"] <= whole.p_holm["b"]
    assert table.verdict["c"] == "not tested" and pd.isna(table.p["c"])
    assert table.difference["c"] == whole.difference["c"] and table.verdict["a"] == "baseline"
