"""Tuning: every arm, by the same budget, on images that it was not fitted on."""

from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import pytest

from lib.categorical import experiments
from lib.categorical.arms import main_arms, published_arms
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
    tuned, table = experiments.tune(arms, images, settings, {True: [0.1, 1.0], False: [0.2, 0.5]}, count=40, seed=0)
    fitted, held = ({pixels.numpy().tobytes() for pixels in part.pixels} for part in parts)
    assert len(fitted) == 40 and len(held) == 20 and not fitted & held
    assert table.groupby("arm").size().to_dict() == {arm.label: 2 for arm in arms} and len(arms) == 7
    for before, after in zip(arms, tuned, strict=True):
        rows = table[table.arm == before.label]
        (best,) = rows.temperature[rows.chosen]
        assert rows.knn[rows.chosen].item() == rows.knn.max()
        assert set(rows.temperature) == ({0.1, 1.0} if before.makes_codes else {0.2, 0.5})
        assert after == replace(before, **{"code_temperature" if before.makes_codes else "temperature": best})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, ""),
        ({"ablation_epochs": 0, "tuning_epochs": 0, "ablation_count": 19}, ""),
        ({"ablation_epochs": 0, "code_temperatures": [0.3], "ablation_count": 19}, ""),  # nothing is tuned
        ({"ablation_count": 19}, r"19 images do not fill a batch of 20 \(ablation_count=19\)"),
        ({"ablation_epochs": 0, "ablation_count": 19}, r"19 images .* \(ablation_count=19; for tuning\)"),
        ({"other_counts": [5, 61]}, r"other_counts=\[5, 61\] asks for 61 clusters of 60 images"),
        ({"other_counts": [5, 41], "fit_count": 40}, "asks for 41 clusters of 40 images"),
    ],
)
def test_what_would_stop_the_notebook_later_is_told_at_its_start(changes, message):
    train = load_images("shapes-plain", "train", size=16, count=60)
    defaults = {"ablation_epochs": 1, "tuning_epochs": 1, "ablation_count": 20, "other_counts": [], "fit_count": 0,
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
def test_a_single_temperature_is_taken_by_all_arms_without_training(monkeypatch, embeddings, found):
    monkeypatch.setattr(experiments, "train_arms", None)
    images = load_images("shapes", "train", count=20)
    settings = Settings(epochs=1, batch_size=20, learning_rate=0.1, width=4, device="cpu")
    arms = main_arms(4, 3, 20) + published_arms(4, 3)
    tuned, table = experiments.tune(arms, images, settings, {True: [0.7], False: embeddings}, count=0, seed=0)
    assert table is None and {arm.code_temperature for arm in tuned if arm.makes_codes} == {0.7}
    assert {arm.temperature for arm in tuned if not arm.makes_codes} == found
    same = [replace(after, code_temperature=arm.code_temperature) for arm, after in zip(arms, tuned, strict=True)]
    assert [arm for arm in same if arm.makes_codes] == [arm for arm in arms if arm.makes_codes]
