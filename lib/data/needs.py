"""What each notebook needs of its data at the least, checked as the data are loaded: before anything trains."""

from dataclasses import dataclass
from typing import Any

from lib.data.catalog import DataError


@dataclass(frozen=True)
class Need:
    """count: images or clips of the training and of the test split. classes: that occur in each. why: said in the
    error."""

    train: int
    test: int
    classes: int
    why: str


# What a notebook's parameters ask for beyond that (batch_size, folds, clusters) is checked where it is used.
NEEDS = {
    "01_laplacian_gan": Need(200, 200, 1, "half of each split is compared with the other, by distances of 100 images"),
    "02_categorical_similarity": Need(50, 50, 2, "linear probes and up to 50 clusters tell classes apart"),
    "03_corregularization": Need(50, 20, 2, "a classifier is trained, and its strengths tuned on held-out images"),
    "04_emergency_whisper": Need(30, 10, 2, "a classifier is trained, and judged with intervals"),
    "05_emergency_cnn": Need(30, 10, 2, "a classifier is trained, and judged with intervals"),
}


def check(notebook: str, data: Any) -> None:
    """Whether `data` (images or sounds of one split, which have labels) are enough for the notebook.

    Raises:
        DataError: they are not; it says how many there are, and how many are needed.
    """
    need = NEEDS.get(notebook)
    if need is None or data.split not in ("train", "test", "all"):
        return
    count = need.test if data.split == "test" else need.train
    split = {"train": "training", "test": "test", "all": "all"}[data.split]
    occurring = len(data.labels.unique())
    if len(data) < count or occurring < need.classes:
        raise DataError(
            f"Notebook {notebook} needs {count:,} {split} {data.unit} of {need.classes} or more classes at the least "
            f"({need.why}), and {data.name} has {len(data):,} of {occurring}. Add {data.unit}, raise train_count and "
            "test_count, or make train and test folders of your own."
        )
