"""The minimum of data for each notebook."""

import pytest
import torch
import yaml

from lib import paths
from lib.data.catalog import DataError
from lib.data.needs import NEEDS, batch, check


class Data:
    unit, name = "images", "folder birds"

    def __init__(self, count, classes, split="train"):
        self.labels, self.split = torch.arange(count) % classes, split

    def __len__(self):
        return len(self.labels)


@pytest.mark.parametrize("notebook", NEEDS)
def test_enough_is_enough_and_one_less_is_not(notebook):
    train, test, classes, _ = NEEDS[notebook]
    for split, count in (("train", train), ("test", test)):
        check(notebook, Data(count, classes, split))
        with pytest.raises(DataError, match=rf"{notebook} needs {count} .* birds has {count - 1} of"):
            check(notebook, Data(count - 1, classes, split))
        if classes > 1:
            with pytest.raises(
                DataError, match=rf"of {classes} or more classes .* of 1\. .*Make one folder for each class"
            ):
                check(notebook, Data(count, 1, split))


def test_a_batch_is_filled_or_the_parameter_named():
    batch(50, 50, "small_count=50")
    with pytest.raises(DataError, match=r"49 images do not fill a batch of 50 \(small_count=49\)"):
        batch(50, 49, "small_count=49")


def test_others_need_nothing():
    check("07_results", Data(1, 1)), check("04_emergency_whisper", Data(1, 1, "validation"))


def test_the_smallest_profile_has_as_much():
    smoke = yaml.safe_load((paths.ROOT / "profiles/smoke.yaml").read_text(encoding="utf-8"))["notebooks"]
    for notebook, (train, test, *_) in NEEDS.items():
        counts = smoke[notebook]["parameters"]
        assert counts["train_count"] >= train and counts["test_count"] >= test
