"""Load the images of any data set as one uint8 tensor with labels.

    train = load_images("cifar10", "train")
    few = load_images("shapes", "train", size=64, count=500, seed=1)
    own = load_images("folder:~/birds", "test", size=64)

`catalog` lists where data sets are searched for.
"""

import contextlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import PIL
import torch
from PIL import Image, ImageOps
from torch import Tensor

from lib.data import cache, catalog, common, folders, shapes
from lib.data.augment import as_float
from lib.data.catalog import DataError, Source
from lib.data.folders import Listing

__all__ = ["DataError", "Images", "as_float", "load_images"]

SHAPES_COUNT = {"train": 4000, "test": 1000}  # drawn unless `count` is given
CELEBA_SIZE = 64  # unless `size` is given: at its original size the set takes 15 GB
_FORMAT = "1"  # of the cache; raise it when decoding changes
# Pillow registers these formats, but cannot read images from them on its own.
_NOT_IMAGES = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "PDF", "WMF"}


_EXTENSIONS = frozenset(
    end for end, kind in Image.registered_extensions().items() if kind in Image.OPEN and kind not in _NOT_IMAGES
)
IMAGES = folders.Kind("image", _EXTENSIONS, "that Pillow reads (.jpg, .png, .webp, .tif, ...)")


@dataclass(frozen=True)
class Images(common.Labelled):
    """Images of one split, held in memory.

    Attributes:
        pixels: (N, 3, H, W) uint8.
        labels: (N,) int64, an index into `classes`.
        classes: class names.
        name: name of the data set for captions, including which copy was read.
        checksum: sha256 of the pixels and labels as loaded.
        split: "train" or "test".
    """

    pixels: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    name: str
    checksum: str
    split: str
    unit = "images"
    per_item = ("pixels", "labels")


def load_images(
    dataset: str,
    split: Literal["train", "test"],
    *,
    size: int | None = None,
    count: int | None = None,
    seed: int = 0,
) -> Images:
    """Load one split of a data set.

    Args:
        dataset: "shapes", "shapes-plain" (upright on flat backgrounds), "cifar10", "celeba" or "folder:<path>".
        split: "train" or "test".
        size: height and width in pixels. None: 32 for shapes, 64 for celeba, else the size of the files.
            Images of other sizes are cropped to their central square (178 x 178 for celeba) and resized
            with antialiasing.
        count: number of images to load, with classes as balanced as possible. With the same
            seed, a smaller subset is contained in a larger one. For shapes: how many are drawn
            (default 4,000 train and 1,000 test).
        seed: seed of the subset and of the drawn shapes. It never moves an image between splits.

    Raises:
        DataError: the data is missing, damaged or not as expected, or cannot satisfy the arguments.
            The message says what to do.
    """
    common.check(dataset, split, count, known=catalog.IMAGE_SETS, splits=("train", "test"))
    if size is not None and size < 1:
        raise DataError(f"size={size} is not possible. Expected 1 pixel or more, or None for the size of the files.")
    if dataset in catalog.BUILT_IN:
        plain = dataset == "shapes-plain"
        pixels, labels, _ = shapes.draw_shapes(
            count or SHAPES_COUNT[split], size=size or 32, seed=seed, split=split, plain=plain
        )
        name = "plain shapes (synthetic)" if plain else "shapes (synthetic)"
        return _images(pixels.numpy(), labels.numpy(), shapes.CLASSES, name, split)
    source = common.locate(dataset)
    if source is None:
        from lib.data.official import download  # imported here, as torchvision takes a second

        source = download(dataset)
    if dataset == "cifar10" and source.kind != "folder":
        return _cifar10(source, split, size, count, seed)
    if dataset == "celeba":
        size = size or CELEBA_SIZE
    listing, name = _celeba(source, split) if dataset == "celeba" else _folder(dataset, source, split)
    if count is not None:
        listing = listing.take(common.balanced(listing.labels, count, seed))
    key = f"{_FORMAT} {PIL.__version__} {size} {listing.state()}"
    pixels, digest = cache.cached(key, listing.labels, lambda: decode(listing.paths(), size), "images")
    return Images(torch.from_numpy(pixels), torch.from_numpy(listing.labels), listing.classes, name, digest, split)


def _images(pixels: np.ndarray, labels: np.ndarray, classes: tuple[str, ...], name: str, split: str) -> Images:
    digest = cache.checksum(pixels, labels)
    return Images(torch.from_numpy(pixels), torch.from_numpy(labels), classes, name, digest, split)


# --- The sets -----------------------------------------------------------------------------------


def _cifar10(source: Source, split: str, size: int | None, count: int | None, seed: int) -> Images:
    from lib.data.official import read_cifar10

    pixels, labels, classes = read_cifar10(source, split)  # (N, H, W, 3)
    if count is not None:
        chosen = common.balanced(labels, count, seed)
        pixels, labels = pixels[chosen], labels[chosen]
    if size not in (None, pixels.shape[1]):
        pixels = np.stack([np.asarray(square(Image.fromarray(image), size)) for image in pixels])
    return _images(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)), labels, classes, "CIFAR-10", split)


def _celeba(source: Source, split: str) -> tuple[Listing, str]:
    """List CelebA, which has no classes: all labels are 0, "face"."""
    if source.kind == "folder":
        listing, name = folders.list_folder(source.path, split, IMAGES), "CelebA (image folder)"
    else:
        from lib.data.official import list_celeba

        listing, name = list_celeba(source, split), "CelebA"
    return replace(listing, labels=np.zeros(len(listing.files), np.int64), classes=("face",)), name


def _folder(dataset: str, source: Source, split: str) -> tuple[Listing, str]:
    listing = folders.list_folder(source.path, split, IMAGES)
    if dataset == "cifar10":
        lossy = any(file.name.lower().endswith((".jpg", ".jpeg")) for file in listing.files)
        return listing, "CIFAR-10 (JPEG copy)" if lossy else "CIFAR-10 (image folder)"
    return listing, f"folder {catalog.readable(source.path.name)}"


# --- Decoding -----------------------------------------------------------------------------------


def decode(files: list[Path], size: int | None) -> np.ndarray:
    """Decode images to (N, 3, H, W) uint8.

    With `size`, each is cropped to its central square and resized to (size, size) with antialiasing.
    Otherwise, all must have the size of the first.

    Raises:
        DataError: an image cannot be read, or sizes differ and `size` is not given.
    """

    first = read_image(files[0], size)

    def read(path: Path) -> np.ndarray:
        image = read_image(path, size)
        if image.shape != first.shape:
            (h, w), (height, width) = first.shape[:2], image.shape[:2]
            raise DataError(
                f"The images have unequal sizes: {files[0]} has {w} x {h} pixels, {path} has {width} x {height}. Give "
                "size= to resize and crop all of them."
            )
        return image.transpose(2, 0, 1)

    pixels = np.zeros((len(files), 3, *first.shape[:2]), np.uint8)
    common.fill(pixels, files, read)
    return pixels


def read_image(path: Path, size: int | None) -> np.ndarray:
    """Return the image of one file as (H, W, 3) uint8, upright."""
    try:
        with Image.open(path) as opened:
            opened.load()
            with contextlib.suppress(Exception):  # metadata may be malformed
                ImageOps.exif_transpose(opened, in_place=True)
            image = to_rgb(opened)
    except Image.DecompressionBombError as error:
        raise DataError(f"The image {path} has more pixels than Pillow reads ({error}). Make it smaller.") from error
    except Exception as error:  # decoders may raise anything on a damaged file
        raise DataError(
            f"The image {path} cannot be read: it is corrupt, truncated or of an unusual kind ({error}). Replace it, "
            "save it again, or delete it."
        ) from error
    return np.asarray(square(image, size) if size else image)


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert an image to RGB: 16-bit grey is scaled to 8 bit, transparency composited over white."""
    if image.mode in ("I", "F"):
        raise ValueError("Pillow reads its values as 32-bit integers or floats, whose scale is not known; save it as "
                         "an 8-bit or 16-bit PNG")  # fmt: skip
    if image.mode.startswith("I;16"):
        # Pillow itself would clip 16-bit values at 255.
        return Image.fromarray((np.asarray(image).astype(np.int64) // 257).astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def square(image: Image.Image, size: int) -> Image.Image:
    """Return the central square of an RGB image, resized to (size, size) with antialiasing (Lanczos)."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    box = (left, top, left + side, top + side)
    if side == size:
        return image.crop(box)
    return image.resize((size, size), Image.Resampling.LANCZOS, box=box)
