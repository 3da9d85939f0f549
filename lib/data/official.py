"""The official archives of CIFAR-10 and CelebA, read and downloaded by torchvision.

The data root may be read-only: archives are unpacked into `build/cache`. Only a download writes into
the data root, atomically: an interrupted one leaves nothing behind.
"""

import socket
import tempfile
import urllib.request
from pathlib import Path

import numpy as np
from torchvision.datasets import CIFAR10, CelebA
from torchvision.datasets.utils import check_integrity

from lib.data import catalog, common
from lib.data.catalog import DataError, Source
from lib.data.folders import Listing

WHERE = {
    "cifar10": f"{catalog.CIFAR10_ARCHIVE} (or the folder {catalog.CIFAR10_BATCHES}/ unpacked from it, "
    "or an image folder cifar10/{train,test}/<class>/)",
    "celeba": f"celeba/{catalog.CELEBA_IMAGES}.zip (or the folder unpacked from it) beside "
    + catalog.CELEBA_LIST
    + " (or a folder celeba/ with images alone)",
}
_SERVERS = {"cifar10": "www.cs.toronto.edu", "celeba": "drive.google.com"}
_PATIENCE = 5  # seconds to wait for a connection, so that being offline is noticed quickly


def read_cifar10(source: Source, split: str) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Return all images of one split (N, 32, 32, 3) uint8, labels (N,) int64 and the class names.

    Raises:
        DataError: a file is missing or damaged.
    """
    folder = source.path
    if source.kind == "archive":
        folder = common.unpack(source.path, catalog.CIFAR10_BATCHES, WHERE["cifar10"], CIFAR10.tgz_md5)
        folder = folder / catalog.CIFAR10_BATCHES
    try:
        data = CIFAR10(folder.parent, train=split == "train")
    except RuntimeError as error:
        raise DataError(
            f"A file of {folder} is missing or damaged. Put the official files there, or a fresh copy into the data "
            f"root: {WHERE['cifar10']}."
        ) from error
    return data.data, np.array(data.targets, np.int64), tuple(data.classes)


def list_celeba(source: Source, split: str) -> Listing:
    """List the images of one split of the official partition, without labels.

    Raises:
        DataError: the partition list, an image or the archive is missing or damaged.
    """
    folder, md5s = source.path, {name: md5 for _, md5, name in CelebA.file_list}
    images, partition = folder / catalog.CELEBA_IMAGES, catalog.CELEBA_LIST
    if source.kind == "archive":
        folder = source.path.parent
        unpacked = common.unpack(source.path, catalog.CELEBA_IMAGES, WHERE["celeba"], md5s[source.path.name])
        images = unpacked / catalog.CELEBA_IMAGES
    if not check_integrity(folder / partition, md5s[partition]):
        raise DataError(
            f"{folder / partition} is missing or damaged (by its MD5 sum). Put the official one in its place."
        )
    rows = [line.split() for line in (folder / partition).read_text().splitlines()]
    names = [name for name, part in rows if part == {"train": "0", "test": "2"}[split]]
    found = {file.name: file for file in catalog.scan(images)}
    if missing := [name for name in names if name not in found]:
        raise DataError(
            f"{len(missing)} of the {len(names)} images of CelebA's {split} split are missing in {images}, "
            f"the first is {missing[0]}. Unpack {catalog.CELEBA_IMAGES}.zip there again."
        )
    return Listing(images, tuple(found[name] for name in names), np.zeros(len(names), np.int64), ())


def download(dataset: str) -> Source:
    """Download the official archive into the data root through torchvision.

    Raises:
        DataError: there is no network, or the server or the disk refuses; the message says what to put where.
    """
    base = catalog.data_root()
    try:
        # Check the connection first: offline, torchvision would wait without a limit and try twice.
        if not urllib.request.getproxies():
            socket.create_connection((_SERVERS[dataset], 443), timeout=_PATIENCE).close()
        base.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".download-", dir=base) as temporary:
            (CIFAR10 if dataset == "cifar10" else CelebA)(temporary, download=True)
            name = catalog.CIFAR10_BATCHES if dataset == "cifar10" else "celeba"
            common.move(Path(temporary) / name, base / name)
        if (found := catalog.locate(dataset)) is None:
            raise OSError(f"{base / name} is in the way: delete it")
        return found
    except Exception as error:  # from sockets, HTTP, archives, the disk or a missing download helper
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(
            f"{dataset} was not found below {base} and could not be downloaded ({reason}). Put there "
            f"{WHERE[dataset]}; or set the environment variable DATA_ROOT to the folder that holds it."
        ) from error
