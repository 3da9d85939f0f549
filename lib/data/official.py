"""The official archives of CIFAR-10 and CelebA, read and downloaded by torchvision.

The data root may be read-only: packed archives are unpacked into `build/cache`. Only a download
writes into it, and whole: a download that breaks off leaves nothing behind.
"""

import hashlib
import os
import shutil
import socket
import tempfile
import urllib.request
from pathlib import Path

import numpy as np
from torchvision.datasets import CIFAR10, CelebA
from torchvision.datasets.utils import check_integrity, extract_archive

from lib import paths
from lib.data import catalog
from lib.data.catalog import DataError, Source

WHERE = {
    "cifar10": f"{catalog.CIFAR10_ARCHIVE} (or the folder {catalog.CIFAR10_BATCHES}/ unpacked from it, "
    "or an image folder cifar10/{train,test}/<class>/)",
    "celeba": f"celeba/{catalog.CELEBA_IMAGES}.zip (or the folder unpacked from it) beside "
    + ", ".join(catalog.CELEBA_LISTS)
    + " (or a folder celeba/ with images alone)",
}
_SERVERS = {"cifar10": "www.cs.toronto.edu", "celeba": "drive.google.com"}
_PATIENCE = 5  # seconds to wait for a connection, so that being offline is noticed quickly


def read_cifar10(source: Source, split: str) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """All images of one split: (N, 3, 32, 32) uint8, (N,) int64 labels, the class names.

    Raises:
        DataError: a file is missing or damaged.
    """
    folder = source.path
    if source.kind == "archive":
        folder = _unpack(source.path, CIFAR10.tgz_md5) / catalog.CIFAR10_BATCHES
    expected = [*CIFAR10.train_list, *CIFAR10.test_list, (CIFAR10.meta["filename"], CIFAR10.meta["md5"])]
    _check(folder, expected, "cifar10")
    data = CIFAR10(folder.parent, train=split == "train")
    pixels = np.ascontiguousarray(data.data.transpose(0, 3, 1, 2))
    return pixels, np.array(data.targets, np.int64), tuple(data.classes)


def list_celeba(source: Source, split: str) -> tuple[Path, list[str]]:
    """The image folder and the file names of one split of the official partition.

    Raises:
        DataError: a list or the archive is missing or damaged.
    """
    folder = source.path
    files = {name: md5 for _, md5, name in CelebA.file_list}
    if source.kind == "archive":
        folder = _unpack(source.path, files[source.path.name], beside=catalog.CELEBA_LISTS) / "celeba"
    _check(folder, [(name, files[name]) for name in catalog.CELEBA_LISTS], "celeba")
    data = CelebA(folder.parent, split=split, target_type=[])
    return folder / catalog.CELEBA_IMAGES, list(data.filename)


def _check(folder: Path, expected: list, dataset: str) -> None:
    for name, md5 in expected:
        if not check_integrity(folder / name, md5):
            state = "is damaged (its MD5 sum differs)" if (folder / name).exists() else "is missing"
            raise DataError(
                f"The official file {folder / name} {state}. Put the official one in its place, or "
                f"anew in the data root: {WHERE[dataset]}."
            )


def _unpack(archive: Path, md5: str, beside: tuple[str, ...] = ()) -> Path:
    """Unpack `archive` into build/cache once; `beside` are files next to it that belong to it."""
    state = archive.stat()
    identity = f"{archive}\0{state.st_size}\0{state.st_mtime_ns}"
    target = paths.build() / "cache" / "unpacked" / hashlib.sha256(identity.encode()).hexdigest()[:16]
    if target.is_dir():
        return target
    if not check_integrity(archive, md5):
        raise DataError(
            f"The archive {archive} is truncated or damaged: it has {state.st_size:,} bytes and its MD5 sum "
            f"is not the official one ({md5}). Delete it and download it again."
        )
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".part-", dir=target.parent) as part:
            content = Path(part) / "content"
            inner = content / "celeba" if beside else content
            inner.mkdir(parents=True)
            extract_archive(archive, inner)
            for name in beside:
                shutil.copyfile(archive.parent / name, inner / name)
            _move(content, target)
    except OSError as error:
        raise DataError(
            f"{archive} could not be unpacked into {target.parent} ({error}). Free some space, set "
            f"OUTPUT_ROOT to a folder that has it, or unpack the archive beside itself."
        ) from error
    return target


def _move(folder: Path, target: Path) -> None:
    try:
        os.rename(folder, target)
    except OSError:
        if not target.is_dir():  # else another process was first: its copy is as good
            raise


def download(dataset: str, root: str = "") -> None:
    """Download the official archive into the data root through torchvision.

    Raises:
        DataError: no network, or the server or the disk refuses; the message says where to put what.
    """
    base = catalog.data_root(root)
    try:
        # Being offline is found out here: torchvision itself would wait without a limit and try twice.
        if not urllib.request.getproxies():
            socket.create_connection((_SERVERS[dataset], 443), timeout=_PATIENCE).close()
        base.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".download-", dir=base) as temporary:
            if dataset == "cifar10":
                CIFAR10(temporary, download=True)
                name = catalog.CIFAR10_BATCHES
            else:
                CelebA(temporary, split="test", download=True)
                name = "celeba"
            _move(Path(temporary) / name, base / name)
    except Exception as error:  # of sockets, HTTP, archives, the disk or a missing download helper
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(
            f"{dataset} was not found below {base} and could not be downloaded ({reason}). Put there "
            f"{WHERE[dataset]}; or set the environment variable DATA_ROOT to the folder that holds it."
        ) from error
