"""The minimum of data for each notebook, checked when data are loaded, before anything is trained."""

from typing import Any

from lib.data.catalog import DataError

# Per notebook: the minimum of training images or clips, of test ones and of classes in each split, and the reason.
# What depends on parameters (batch_size, folds, clusters) is checked where they are used.
NEEDS = {
    "01_laplacian_gan": (200, 200, 1, "half of each split is compared with the other, by distances of 100 images"),
    "02_categorical_similarity": (50, 50, 2, "linear probes and up to 50 clusters tell classes apart"),
    "03_corregularization": (50, 20, 2, "a classifier is trained, and its strengths tuned on held-out images"),
    "04_emergency_whisper": (30, 10, 2, "a classifier is trained, and judged with intervals"),
    "05_emergency_cnn": (30, 10, 2, "a classifier is trained, and judged with intervals"),
}


def batch(size: int, images: int, why: str) -> None:
    """Raise DataError if `images`, given by the parameter that `why` names, do not fill a batch of `size`."""
    if images < size:
        raise DataError(f"{images:,} images do not fill a batch of {size} ({why}). Raise it or lower batch_size.")


def check(notebook: str, data: Any) -> None:
    """Check that `data` (labelled images or sounds of one split) are enough for the notebook.

    Raises:
        DataError: they are not; the message says how many there are and how many are needed.
    """
    if notebook not in NEEDS or data.split not in ("train", "test", "all"):
        return
    train, test, classes, why = NEEDS[notebook]
    count = test if data.split == "test" else train
    split = {"train": "training ", "test": "test ", "all": ""}[data.split]
    occurring = len(data.labels.unique())
    if len(data) < count or occurring < classes:
        remedy = f"Add {data.unit}, raise train_count and test_count, or make train and test folders of your own."
        remedy = f"Make one folder for each class of {data.unit}." if occurring < classes else remedy
        raise DataError(
            f"Notebook {notebook} needs {count:,} {split}{data.unit} of {classes} or more classes at the least "
            f"({why}), and {data.name} has {len(data):,} of {occurring}. {remedy}"
        )
