"""Tuning: every arm at the same budget, scored on images that it was not trained on."""

from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import pandas as pd
import pytest

from lib.categorical import experiments
from lib.categorical.arms import TWINS, main_arms, published_arms
from lib.categorical.training import Settings
from lib.data.catalog import DataError
from lib.data.images import load_images
from lib.press import parameters


def test_every_arm_is_tuned_on_images_apart_from_its_training(monkeypatch):
    images = load_images("shapes-plain", "train", size=16, count=60)
    parts = []

    def see(trained, fitted, held):
        parts.extend((fitted, held))
        return experiments_see(trained, fitted, held)

    experiments_see = experiments.see
    monkeypatch.setattr(experiments, "see", see)
    arms = [replace(arm, queue=min(arm.queue, 20)) for arm in main_arms(4, 3, 20)] + published_arms(4, 3)
    settings = Settings(epochs=1, batch_size=20, learning_rate=0.1, width=4, device="cpu")
    tuned, table = experiments.tune(arms, images, settings, {True: [0.1, 1.0], False: [0.2, 0.5]})
    fitted, held = ({pixels.numpy().tobytes() for pixels in part.pixels} for part in parts[:2])
    assert len(fitted) == 48 and len(held) == 12 and not fitted & held
    assert len(arms) == 7 and set(table.arm) == {arm.label for arm in arms} - TWINS.keys()
    best = table[table.chosen].set_index("arm").temperature
    for before, after in zip(arms, tuned, strict=True):  # arms with a momentum encoder take that of their twin
        assert after == experiments.at(before, best[TWINS.get(before.label, before.label)])
    for arm, found in table.groupby("arm"):
        assert found.knn[found.chosen].item() == found.knn.max()
        low, high = (0.1, 1.0) if arm != "NT-Xent" else (0.2, 0.5)
        first = found.knn.iloc[0] >= found.knn.iloc[1]
        beyond = low * low / high if first else high * high / low
        assert found.temperature.tolist() == [low, high, pytest.approx(beyond, rel=0.05)]  # two values are both edges


def test_runs_with_other_seeds_share_one_tuning(monkeypatch, tmp_path):
    """A second run asks for the same networks and seed; a grid whose best value is not at an edge is not extended."""
    asked, images = [], load_images("shapes-plain", "train", size=16, count=60)

    def table(seen, *_, **__):
        knn = [2.0 if "0.3" in label else 1.0 for label in seen]
        return pd.DataFrame({"arm": list(seen), "representation": "soft codes", "knn": knn})

    monkeypatch.setattr(
        experiments, "train_arms", lambda arms, *_, **how: asked.append(how) or {a.label: a for a in arms}
    )
    monkeypatch.setattr(experiments, "see", lambda trained, *_: trained)
    monkeypatch.setattr(experiments, "representation_table", table)
    grids = {True: [0.1, 0.3, 1.0], False: []}
    found = [
        experiments.tune(main_arms(4, 3, 20), images, Settings(), grids, checkpoints=tmp_path)[0] for _ in range(2)
    ]
    assert found[0] == found[1] and asked[0] == asked[1] and len(asked) == 2
    assert asked[0] == {"seed": experiments.TUNING_SEED, "checkpoints": tmp_path}
    assert [arm.code_temperature for arm in found[0] if arm.makes_codes] == [0.3, 0.3]


def test_no_run_has_the_seed_of_the_tuning():
    assert not any(experiments.TUNING_SEED in parameters.load_profile(name).seeds for name in parameters.profiles())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, ""),
        ({"ablation_epochs": 0, "ablation_count": 19}, ""),
        ({"code_temperatures": [0.3], "tuning_count": 24}, ""),  # nothing is tuned
        ({"ablation_count": 19}, r"19 images do not fill a batch of 20 \(ablation_count=19\)"),
        ({"tuning_count": 23}, r"19 images .* \(tuning_count=23; for tuning\)"),
        ({"other_counts": [5, 61]}, r"other_counts=\[5, 61\] asks for 61 clusters of 60 images"),
        ({"other_counts": [5, 41], "fit_count": 40}, "asks for 41 clusters of 40 images"),
    ],
)
def test_what_would_stop_the_notebook_later_is_told_at_its_start(changes, message):
    train = load_images("shapes-plain", "train", size=16, count=60)
    defaults = {"ablation_epochs": 1, "tuning_count": 0, "ablation_count": 20, "other_counts": [], "fit_count": 0,
                "code_temperatures": [0.1, 0.3], "embedding_temperatures": []}  # fmt: skip
    design = SimpleNamespace(**defaults | changes)
    asked = (train, train.subset(slice(design.ablation_count)), Settings(epochs=1, batch_size=20), design)
    with pytest.raises(DataError, match=message) if message else nullcontext():
        experiments.check(*asked)


@pytest.mark.parametrize("profile", parameters.profiles())
def test_no_profile_stops_there(profile):
    values = parameters.resolve("02_categorical_similarity", profile)
    train = range(values["train_count"] or 5000)
    small = train[: values["ablation_count"] or None]
    settings = Settings(values["epochs"], values["batch_size"])
    experiments.check(train, small, settings, SimpleNamespace(**values))


@pytest.mark.parametrize(("embeddings", "found"), [([], {0.5, 0.1}), ([0.2], {0.2})])
def test_a_single_temperature_is_taken_without_training_except_by_published_losses(monkeypatch, embeddings, found):
    monkeypatch.setattr(experiments, "train_arms", None)
    images = load_images("shapes", "train", count=20)
    ours, theirs = main_arms(4, 3, 20), published_arms(4, 3)
    tuned, table = experiments.tune(ours + theirs, images, Settings(), {True: [0.7], False: embeddings})
    assert table is None and tuned[4:] == theirs
    assert {arm.code_temperature for arm in tuned[:4] if arm.makes_codes} == {0.7}
    assert {arm.temperature for arm in tuned[:4] if not arm.makes_codes} == found
