"""Images of any data set as one uint8 tensor with labels.

    train = load_images("cifar10", "train")
    few = load_images("shapes", "train", size=64, count=500, seed=1)
    own = load_images("folder:~/birds", "test", size=64)

Where a set is looked for is written in `catalog`.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import PIL
import torch
from PIL import Image
from torch import Tensor

from lib.data import cache, catalog, folders
from lib.data.catalog import DataError, Source
from lib.data.shapes import CLASSES as SHAPES_CLASSES
from lib.data.shapes import SIZES as SHAPES_SIZES
from lib.data.shapes import draw_shapes

__all__ = ["DataError", "Images", "as_float", "load_images"]

SHAPES_COUNT = {"train": 4000, "test": 1000}  # drawn when no count is asked for
CELEBA_SIZE = 64  # when none is asked for: at its own size the set has 15 GB
LARGEST = 4096  # pixels; a larger `size` is a slip
_FORMAT = "1"  # of the cache; raise it when decoding changes


@dataclass(frozen=True)
class Images:
    """Images of one split, in memory.

    Attributes:
        pixels: (N, 3, H, W) uint8.
        labels: (N,) int64, an index into `classes`.
        classes: names.
        name: of the data set, for captions; it says which copy was read.
        checksum: sha256 of the pixels and labels as loaded.
        split: "train" or "test".
    """

    pixels: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    name: str
    checksum: str
    split: str
    unit = "images"  # what one of it is called in captions

    def __len__(self) -> int:
        return len(self.pixels)

    def subset(self, indices: Tensor | np.ndarray | Sequence[int] | slice) -> "Images":
        """The images at `indices` (or of a boolean mask), with a checksum of their own."""
        if not isinstance(indices, slice):
            indices = torch.as_tensor(indices)
            if not len(indices):
                indices = indices.long()
            indices = indices.to(self.pixels.device)
        pixels, labels = self.pixels[indices], self.labels[indices]
        digest = cache.checksum(pixels.cpu().numpy(), labels.cpu().numpy())
        return replace(self, pixels=pixels, labels=labels, checksum=digest)

    def to(self, device: torch.device | str) -> "Images":
        return replace(self, pixels=self.pixels.to(device), labels=self.labels.to(device))


def as_float(pixels: Tensor) -> Tensor:
    """uint8 0..255 -> float32 in [-1, 1], same shape and device."""
    if pixels.dtype != torch.uint8:
        raise TypeError(f"as_float got {pixels.dtype}, expected torch.uint8 (0..255).")
    return pixels.float().div_(127.5).sub_(1)


def load_images(
    dataset: str,
    split: Literal["train", "test"],
    *,
    size: int | None = None,
    count: int | None = None,
    seed: int = 0,
    root: str = "",
) -> Images:
    """Load one split of a data set.

    Args:
        dataset: "shapes", "shapes-plain" (upright on flat backgrounds), "cifar10", "celeba" or "folder:<path>".
        split: "train" or "test".
        size: height and width in pixels. None: 32 for shapes, 64 for celeba, else as the files are.
            Other images are cut to their central square (178 x 178 of celeba) and resized with
            antialiasing.
        count: load only so many images, the classes as equal in number as they allow. A smaller
            subset of the same seed lies within a larger one. For shapes: how many are drawn
            (default 4,000 train and 1,000 test).
        seed: of the subset and of the drawn shapes. It never moves an image between the splits.
        root: data root, see `catalog.data_root`.

    Raises:
        DataError: the data is missing, damaged, not as expected, or the arguments ask for what it
            cannot give. The message says what to do.
    """
    _check(dataset, split, size, count, seed)
    if dataset in catalog.BUILT_IN:
        return _shapes(split, size or 32, count or SHAPES_COUNT[split], seed, plain=dataset == "shapes-plain")
    source = _find(dataset, root)
    if dataset == "cifar10" and source.kind != "folder":
        return _cifar10(source, split, size, count, seed)
    if dataset == "celeba":
        size = size or CELEBA_SIZE
    listing, name = _celeba(source, split) if dataset == "celeba" else _folder(dataset, source, split)
    return _decoded(listing, name, split, size, count, seed)


def _check(dataset: str, split: str, size: int | None, count: int | None, seed: int) -> None:
    if dataset not in catalog.IMAGE_SETS and not dataset.startswith("folder:"):
        raise DataError(
            f"There is no image data set {dataset!r}. Expected one of {', '.join(catalog.IMAGE_SETS)} or "
            f"folder:<path>; did you mean {catalog.nearest(dataset)!r}?"
        )
    if dataset.removeprefix("folder:").strip() == "":
        raise DataError("The data set 'folder:' lacks its path. Write folder:<path>, as in folder:birds.")
    if split not in ("train", "test"):
        raise DataError(f"There is no split {split!r}. Expected 'train' or 'test'.")
    sizes = SHAPES_SIZES if dataset in catalog.BUILT_IN else range(1, LARGEST + 1)
    if size is not None and size not in sizes:
        raise DataError(f"size={size} is not possible for {dataset}. Expected {sizes[0]} to {sizes[-1]} pixels.")
    if count is not None and count < 1:
        raise DataError(f"count={count} is not possible. Expected 1 or more images, or None for all.")
    if seed < 0:
        raise DataError(f"seed={seed} is not possible. Expected 0 or more.")


def _find(dataset: str, root: str) -> Source:
    source = catalog.locate(dataset, root)
    if source is None and dataset.startswith("folder:"):
        raise DataError(
            f"The folder {catalog.folder_path(dataset, root)} does not exist. Expected an image folder; a "
            f"relative path starts at the data root ({catalog.data_root(root)}, environment variable "
            f"DATA_ROOT) or at the repository."
        )
    if source is None:
        from lib.data.official import download  # here: torchvision takes a second to import

        download(dataset, root)
        source = catalog.locate(dataset, root)
        if source is None:
            raise DataError(f"{dataset} was downloaded to {catalog.data_root(root)} but is not there. Start again.")
    return source


# --- The sets -----------------------------------------------------------------------------------


def _shapes(split: str, size: int, count: int, seed: int, *, plain: bool) -> Images:
    pixels, labels, _ = draw_shapes(count, size=size, seed=seed, split=split, plain=plain)
    name = "plain shapes (synthetic)" if plain else "shapes (synthetic)"
    return _images(pixels.numpy(), labels.numpy(), SHAPES_CLASSES, name, split)


def _cifar10(source: Source, split: str, size: int | None, count: int | None, seed: int) -> Images:
    from lib.data.official import read_cifar10

    pixels, labels, classes = read_cifar10(source, split)
    if count is not None:
        chosen = balanced(labels, count, seed)
        pixels, labels = pixels[chosen], labels[chosen]
    if size not in (None, pixels.shape[-1]):
        upright = (Image.fromarray(image) for image in pixels.transpose(0, 2, 3, 1))
        resized = np.stack([np.asarray(folders.square(image, size)) for image in upright])
        pixels = np.ascontiguousarray(resized.transpose(0, 3, 1, 2))
    return _images(pixels, labels, classes, "CIFAR-10", split)


def _celeba(source: Source, split: str) -> tuple[folders.Listing, str]:
    """CelebA has no classes: all labels are 0, "face"."""
    if source.kind == "folder":
        listing = folders.list_folder(source.path, split)
        faces = replace(listing, labels=np.zeros_like(listing.labels), classes=("face",))
        return faces, "CelebA (image folder)"
    from lib.data.official import list_celeba

    folder, names = list_celeba(source, split)
    files = {file.name: file for file in catalog.scan(folder)}
    missing = [name for name in names if name not in files]
    if missing:
        raise DataError(
            f"{len(missing)} of the {len(names)} images of CelebA's {split} split are missing in {folder}, "
            f"the first is {missing[0]}. Unpack {catalog.CELEBA_IMAGES}.zip there again."
        )
    labels = np.zeros(len(names), np.int64)
    return folders.Listing(folder, tuple(files[name] for name in names), labels, ("face",)), "CelebA"


def _folder(dataset: str, source: Source, split: str) -> tuple[folders.Listing, str]:
    listing = folders.list_folder(source.path, split)
    if dataset == "cifar10":
        lossy = any(file.name.lower().endswith((".jpg", ".jpeg")) for file in listing.files)
        return listing, "CIFAR-10 (JPEG copy)" if lossy else "CIFAR-10 (image folder)"
    return listing, f"folder {catalog.readable(source.path.name)}"


# --- Shared -------------------------------------------------------------------------------------


def _decoded(listing: folders.Listing, name: str, split: str, size: int | None, count: int | None, seed: int) -> Images:
    """Decode a listing or a subset of it, through the cache."""
    chosen = np.arange(len(listing.labels)) if count is None else balanced(listing.labels, count, seed)
    files = [listing.files[index] for index in chosen]
    labels = listing.labels[chosen]
    state = [f"{_FORMAT} {PIL.__version__} {size} {listing.folder}"]
    state += [f"{file.name}\0{file.size} {file.modified}" for file in files]
    key = hashlib.sha256("\n".join(state).encode("utf-8", "surrogateescape"))
    pixels, digest = cache.cached(
        key.hexdigest()[:32],
        labels,
        lambda: folders.decode(listing.folder, [file.name for file in files], size),
    )
    return Images(torch.from_numpy(pixels), torch.from_numpy(labels), listing.classes, name, digest, split)


def _images(pixels: np.ndarray, labels: np.ndarray, classes: tuple[str, ...], name: str, split: str) -> Images:
    digest = cache.checksum(pixels, labels)
    return Images(torch.from_numpy(pixels), torch.from_numpy(labels), classes, name, digest, split)


def balanced(labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Indices (count,) in ascending order: a seeded choice with classes as equal as possible.

    A class that is too small gives all it has and the others make up for it. The choice grows with
    `count`: nothing that a smaller one holds is dropped.
    """
    if count > len(labels):
        raise DataError(f"count={count} asks for more images than the {len(labels)} there are. Lower it.")
    random = np.random.Generator(np.random.PCG64(seed))
    # Deal the images out in rounds, one of each class a round, in an order that the seed draws.
    shuffled = random.permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    sorted_labels = labels[by_class]
    turn = np.arange(len(labels)) - np.searchsorted(sorted_labels, sorted_labels)
    seat = random.permutation(int(labels.max()) + 1)[sorted_labels]
    return np.sort(by_class[np.lexsort((seat, turn))[:count]])
