import hashlib
import io
import os
import pickle
import shutil
import socket
import tarfile
import unicodedata
import warnings
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import CIFAR10, CelebA

from lib.data import cache, catalog, images, official
from lib.data.catalog import DataError
from lib.data.common import balanced
from lib.data.images import Images, load_images


@pytest.fixture(autouse=True)
def own_output(tmp_path, monkeypatch):
    monkeypatch.setenv("OUTPUT_ROOT", str(tmp_path / "out"))
    monkeypatch.setenv("DATA_ROOT", str(tmp_path))


@pytest.fixture
def offline(monkeypatch):
    def refuse(*arguments, **options):
        raise socket.gaierror("Name or service not known")

    monkeypatch.setattr(official.urllib.request, "getproxies", dict)
    monkeypatch.setattr(socket, "create_connection", refuse)


def picture(number, size=(8, 8)):
    """Return a lossless random image, seeded by `number`."""
    random = np.random.default_rng(number)
    return Image.fromarray(random.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


def fill(folder, count, *, size=(8, 8), kind="png", first=0):
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(first, first + count):
        picture(number, size).save(folder / f"{number:04}.{kind}")


def split_folder(root, counts, **options):
    for part in ("train", "test"):
        for k, (name, count) in enumerate(counts.items()):
            fill(root / part / name, count, first=1000 * k + 500 * (part == "test"), **options)


def hashes(images):
    return [hashlib.sha256(image.numpy().tobytes()).hexdigest() for image in images.pixels]


# --- Images -------------------------------------------------------------------------------------


@pytest.mark.parametrize("indices", [[3, 1], np.array([3, 1]), torch.tensor([3, 1]), slice(1, 3), []])
def test_subset(indices):
    images = load_images("shapes", "train", count=10)
    part = images.subset(indices)
    plain = indices.tolist() if hasattr(indices, "tolist") else indices
    assert torch.equal(part.labels, images.labels[plain if plain != [] else slice(0)])
    assert part.pixels.shape[1:] == (3, 32, 32) and part.classes == images.classes
    assert part.checksum != images.checksum


def test_subset_by_mask_and_to():
    images = load_images("shapes", "train", count=20)
    assert images.subset(images.labels == 3).labels.tolist() == [3, 3]
    assert images.to("cpu").checksum == images.checksum


def test_checksum_is_of_pixels_and_labels():
    images = load_images("shapes", "train", count=20)
    digest = hashlib.sha256(b"(20, 3, 32, 32)" + images.pixels.numpy().tobytes())
    digest.update(images.labels.numpy().astype("<i8").tobytes())
    assert images.checksum == digest.hexdigest()


# --- shapes -------------------------------------------------------------------------------------


def test_shapes():
    images = load_images("shapes", "test", size=64, count=30, seed=2)
    assert isinstance(images, Images) and len(images) == 30
    assert images.pixels.shape == (30, 3, 64, 64) and images.pixels.dtype == torch.uint8
    assert images.labels.dtype == torch.int64 and images.labels.bincount().tolist() == [3] * 10
    assert (images.name, images.split, len(images.classes)) == ("shapes (synthetic)", "test", 10)
    again = load_images("shapes", "test", size=64, count=30, seed=2)
    assert again.checksum == images.checksum
    assert load_images("shapes", "train", size=64, count=30, seed=2).checksum != images.checksum


# --- Subsets ------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 3, 4, 10, 29, 37])
def test_balanced_is_as_equal_as_possible(count):
    labels = np.repeat([0, 1, 2], [20, 2, 15])
    chosen = balanced(labels, count, seed=0)
    assert len(set(chosen.tolist())) == count and (np.diff(chosen) > 0).all()
    sizes = np.bincount(labels[chosen], minlength=3)
    # A class with at least two fewer than the largest one has contributed all it has.
    for have, own in zip(sizes, (20, 2, 15), strict=True):
        assert have == own or have >= sizes.max() - 1


def test_balanced_grows_and_depends_on_the_seed():
    labels = np.random.default_rng(0).integers(0, 5, 200)
    for count in (1, 12, 90, 199):
        assert set(balanced(labels, count, 3)) <= set(balanced(labels, count + 1, 3))
    assert set(balanced(labels, 50, 0)) != set(balanced(labels, 50, 1))
    assert balanced(labels, 200, 0).tolist() == list(range(200))


def test_more_than_there_are(tmp_path):
    split_folder(tmp_path / "set", {"a": 3, "b": 3})
    with pytest.raises(DataError, match="count=7 asks for more than the 6"):
        load_images("folder:set", "train", count=7)


# --- Folders ------------------------------------------------------------------------------------


def test_split_folder(tmp_path):
    split_folder(tmp_path / "set", {"cat": 4, "ant": 3})
    images = load_images("folder:set", "train")
    assert images.pixels.shape == (7, 3, 8, 8)
    assert (images.name, images.classes, images.split) == ("folder set", ("ant", "cat"), "train")
    expected = {np.asarray(picture(k)).transpose(2, 0, 1).tobytes(): 1 for k in range(4)}
    expected |= {np.asarray(picture(1000 + k)).transpose(2, 0, 1).tobytes(): 0 for k in range(3)}
    assert {
        image.numpy().tobytes(): int(label) for image, label in zip(images.pixels, images.labels, strict=True)
    } == expected
    test = load_images(f"folder:{tmp_path}/set", "test")
    assert not set(hashes(images)) & set(hashes(test))


def test_subset_of_a_folder_is_part_of_it(tmp_path):
    split_folder(tmp_path / "set", {"a": 9, "b": 6})
    whole = load_images("folder:set", "train")
    few = load_images("folder:set", "train", count=8, seed=1)
    assert few.labels.bincount().tolist() == [4, 4] and set(hashes(few)) < set(hashes(whole))
    assert few.checksum == load_images("folder:set", "train", count=8, seed=1).checksum


@pytest.mark.parametrize("layout", ["classes", "flat", "nested"])
def test_folder_without_splits_is_split_80_20(tmp_path, layout):
    inner = {"classes": "set/a", "flat": "set", "nested": "set/a/deep"}[layout]
    fill(tmp_path / inner, 20)
    train, test = (load_images("folder:set", split) for split in ("train", "test"))
    assert (len(train), len(test)) == (16, 4) and len(set(hashes(train) + hashes(test))) == 20
    assert train.classes == test.classes == (("image",) if layout == "flat" else ("a",))
    for seed in (0, 1):  # the seed chooses a subset; it never moves an image into the other split
        part = load_images("folder:set", "train", count=10, seed=seed)
        assert set(hashes(part)) < set(hashes(train))
    # The split depends on names alone, so it is the same wherever the folder lies.
    shutil.move(tmp_path / "set", tmp_path / "elsewhere")
    assert hashes(load_images("folder:elsewhere", "test")) == hashes(test)


def test_any_beginning_of_a_folder_is_a_mixture(tmp_path):
    split_folder(tmp_path / "set", {"a": 40, "b": 40})
    labels = load_images("folder:set", "train").labels
    assert 6 <= labels[:30].sum() <= 24


def test_flat_split_folder_and_other_files(tmp_path):
    fill(tmp_path / "set/train", 3)
    fill(tmp_path / "set/test", 2, first=10)
    (tmp_path / "set/train/readme.txt").write_text("x")
    (tmp_path / "set/train/.hidden.png").write_text("x")
    images = load_images("folder:set", "train")
    assert len(images) == 3 and images.classes == ("image",)


def test_images_beside_class_folders_are_ignored_with_a_warning(tmp_path):
    split_folder(tmp_path / "set", {"a": 2})
    fill(tmp_path / "set/train", 1, first=77)
    with pytest.warns(UserWarning, match="1 images beside the class folders"):
        assert len(load_images("folder:set", "train")) == 2


# --- Formats ------------------------------------------------------------------------------------


def sixteen_bit(values):
    return Image.fromarray((np.array(values) * 257).astype(np.uint16))


GREY = [[0, 10, 20], [30, 128, 255]]


KINDS = ["L.png", "16.png", "16.tif", "P.png", "P.gif", "LA.png", "RGBA.png", "RGB.webp"]
KINDS += ["CMYK.tif"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_mode_gives_the_same_grey_picture(tmp_path, kind):
    grey = Image.fromarray(np.array(GREY, np.uint8))
    mode, ending = kind.split(".")
    image = {
        "16": lambda: sixteen_bit(GREY),
        "P": lambda: grey.convert("RGB").quantize(6),
        "CMYK": lambda: Image.merge("CMYK", [grey.point(lambda v: 255 - v)] * 3 + [grey.point(lambda v: 0)]),
    }.get(mode, lambda: grey.convert(mode))()
    image.save(tmp_path / f"x.{ending}", **({"lossless": True} if ending == "webp" else {}))
    pixels = images.decode([tmp_path / f"x.{ending}"], None)
    assert pixels.shape == (1, 3, 2, 3)
    assert np.array_equal(pixels, np.broadcast_to(np.array(GREY), (1, 3, 2, 3)))


def test_one_bit_image(tmp_path):
    Image.new("1", (4, 4), 1).save(tmp_path / "x.png")
    assert (images.decode([tmp_path / "x.png"], None) == 255).all()


@pytest.mark.parametrize("values", [np.array([[-1, 1000]], np.float32), np.array([[0, 4_000_000]], np.int32)])
def test_values_without_a_scale_are_refused(tmp_path, values):
    """They would become black or white."""
    Image.fromarray(values).save(tmp_path / "x.tif")
    with pytest.raises(
        DataError, match=r"x\.tif cannot be read.*values as 32-bit integers or floats, whose scale is not known"
    ):
        images.decode([tmp_path / "x.tif"], None)


def test_transparency_is_laid_over_white(tmp_path):
    Image.new("RGBA", (2, 2), (200, 0, 0, 0)).save(tmp_path / "clear.png")
    Image.new("RGBA", (2, 2), (200, 0, 0, 255)).save(tmp_path / "solid.png")
    pixels = images.decode([tmp_path / "clear.png", tmp_path / "solid.png"], None)[:, :, 0, 0]
    assert pixels.tolist() == [[255, 255, 255], [200, 0, 0]]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation(tmp_path, orientation):
    """All eight stored orientations of a picture are read as the upright picture."""
    upright = picture(3, (6, 4))
    stored = {
        1: [], 2: [Image.Transpose.FLIP_LEFT_RIGHT], 3: [Image.Transpose.ROTATE_180],
        4: [Image.Transpose.FLIP_TOP_BOTTOM], 5: [Image.Transpose.TRANSPOSE], 6: [Image.Transpose.ROTATE_90],
        7: [Image.Transpose.TRANSVERSE], 8: [Image.Transpose.ROTATE_270],
    }[orientation]  # fmt: skip
    image = upright
    for step in stored:
        image = image.transpose(step)
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(tmp_path / "x.png", exif=exif)
    assert np.array_equal(images.decode([tmp_path / "x.png"], None)[0], np.asarray(upright).transpose(2, 0, 1))


def test_size_cuts_the_centre_and_smooths(tmp_path):
    stripes = np.zeros((64, 96, 3), np.uint8)
    stripes[:, ::2] = 255  # the finest stripes: without antialiasing, all black or white
    stripes[:, :16] = stripes[:, 80:] = (255, 0, 0)
    Image.fromarray(stripes).save(tmp_path / "x.png")
    pixels = images.decode([tmp_path / "x.png"], 16)
    assert pixels.shape == (1, 3, 16, 16)
    assert pixels[..., 2:-2].min() > 110 and pixels[..., 2:-2].max() < 145


def test_size_evens_out_unequal_images(tmp_path):
    fill(tmp_path / "set/a", 2, size=(10, 8))
    fill(tmp_path / "set/a", 2, size=(7, 30), first=2)
    fill(tmp_path / "set/a", 1, size=(3, 3), first=9)
    images = load_images("folder:set", "train", size=5)
    assert images.pixels.shape == (4, 3, 5, 5)


# --- Errors -------------------------------------------------------------------------------------


def broken(root, change):
    split_folder(root / "set", {"a": 3, "b": 3})
    change(root / "set")


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: truncate(s / "train/a/0001.png"), r"train.a.0001\.png cannot be read: it is corrupt"),
        (lambda s: (s / "train/a/0001.png").write_text("no image"), r"0001\.png cannot be read"),
        (lambda s: (s / "train/a/0001.png").write_bytes(b""), r"0001\.png cannot be read"),
        (lambda s: picture(1, (9, 8)).save(s / "train/a/0001.png"), "unequal sizes.*Give size="),
        (lambda s: (s / "test/c").mkdir(), r"class folder .*test.c holds no images"),
        (lambda s: [p.unlink() for p in s.rglob("*.png")], "holds no images: no files found"),
        (lambda s: [p.rename(p.with_suffix(".raw")) for p in s.rglob("*.png")], r"\d+ x file \.raw found"),
        (lambda s: (s / "test/b").rename(s / "test/c"), "only in train: b; only in test: c"),
        (lambda s: shutil.rmtree(s / "test"), "holds train but not both train and test"),
        (lambda s: (s / "test").rename(s / "val"), "holds train, val but not both"),
    ],
)  # fmt: skip
def test_damaged_folder(tmp_path, change, message):
    broken(tmp_path, change)
    with pytest.raises(DataError, match=message):
        load_images("folder:set", "train")


def test_truncated_jpeg(tmp_path):
    fill(tmp_path / "set/a", 5, kind="jpg", size=(32, 32))
    for path in (tmp_path / "set/a").iterdir():
        truncate(path)
    with pytest.raises(DataError, match=r"set.a.000\d\.jpg cannot be read"):
        load_images("folder:set", "train")


def test_all_damaged_images_are_told_at_once(tmp_path):
    split_folder(tmp_path / "set", {"a": 12})
    for number in (3, 5, 7):
        (tmp_path / f"set/train/a/{number:04}.png").write_bytes(b"no image")
    with pytest.raises(
        DataError, match=r"0003\.png cannot be read.* 3 files cannot be used; .*0005\.png, .*0007\.png\."
    ):
        load_images("folder:set", "train")


def test_more_pixels_than_pillow_reads_are_no_damage(tmp_path, monkeypatch):
    split_folder(tmp_path / "set", {"a": 3})
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(DataError, match=r"000.\.png has more pixels than Pillow reads.*Make it smaller"):
        load_images("folder:set", "train")


def test_one_image_cannot_be_split(tmp_path):
    fill(tmp_path / "set/a", 1)
    with pytest.raises(DataError, match="only 1 image"):
        load_images("folder:set", "train")


@pytest.mark.parametrize(
    ("dataset", "options", "message"),
    [
        ("cifar", {}, "There is no data set 'cifar' of this kind. Expected one of .*cifar10"),
        ("folder:", {}, "'folder:' names no folder"),
        ("folder:nowhere", {}, "nowhere does not exist.*DATA_ROOT"),
        (f"folder:{__file__}", {}, "test_images.py is a file; if it is an archive, unpack it"),
        ("shapes", {"split": "valid"}, "no split 'valid'"),
        ("cifar10", {"size": 0}, "size=0 is not possible"),
        ("shapes", {"count": 0}, "count=0 is not possible"),
    ],
)
def test_bad_arguments(dataset, options, message):
    with pytest.raises(DataError, match=message):
        load_images(dataset, **{"split": "train"} | options)


@pytest.mark.parametrize("dataset", ["cifar10", "celeba"])
def test_missing_data_without_network(tmp_path, dataset, offline, monkeypatch):
    root = tmp_path / "data"
    monkeypatch.setenv("DATA_ROOT", str(root))
    with pytest.raises(DataError, match="could not be downloaded.*Put there.*DATA_ROOT") as caught:
        load_images(dataset, "train")
    assert official.WHERE[dataset] in str(caught.value)
    assert not root.exists(), "a failed download leaves nothing behind"


def test_download_lands_whole_in_the_data_root(tmp_path, monkeypatch, offline):
    archive = pack_cifar10(tmp_path / "server", monkeypatch)
    monkeypatch.setattr(socket, "create_connection", lambda *a, **k: io.BytesIO())

    def fetch(url, root, filename=None, md5=None):
        shutil.copy(archive, Path(root) / filename)

    monkeypatch.setattr("torchvision.datasets.utils.download_url", fetch)
    monkeypatch.setenv("DATA_ROOT", str(tmp_path / "data"))
    images = load_images("cifar10", "test")
    assert (len(images), images.name) == (20, "CIFAR-10")
    assert os.listdir(tmp_path / "data") == ["cifar-10-batches-py"]


# --- Cache --------------------------------------------------------------------------------------


@pytest.fixture
def decoded(tmp_path, monkeypatch):
    """A cached folder, a counter of the images decoded since, and a function that loads it."""
    split_folder(tmp_path / "set", {"a": 4, "b": 4})
    first = load_images("folder:set", "train")
    calls = Counter()
    original = images.decode

    def count(files, size):
        calls["images"] += len(files)
        return original(files, size)

    monkeypatch.setattr(images, "decode", count)
    return first, calls, lambda **options: load_images("folder:set", "train", **options)


def cache_file():
    (path,) = [path for path in cache.folder().iterdir()]
    return path


def test_second_time_nothing_is_decoded(decoded):
    first, calls, load = decoded
    again = load()
    assert not calls and again.checksum == first.checksum
    assert torch.equal(again.pixels, first.pixels) and torch.equal(again.labels, first.labels)
    again.pixels.zero_()  # its memory is not shared
    assert load().checksum == first.checksum


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "header", "text", "zip", "list"])
def test_damaged_cache_is_made_again(decoded, damage):
    first, calls, load = decoded
    path = cache_file()
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[-5] ^= 1
    elif damage == "header":
        content[80] ^= 0xFF
    other = {"cut": content[:-7], "empty": b"", "text": b"\xff" * 500, "zip": content[:64] + b"PK\3\4" + bytes(99)}
    other["list"] = content[:74] + b"{[]: 1}".ljust(117) + b"\n" + content[192:]  # instead of NumPy's header
    path.write_bytes(other.get(damage, bytes(content)))
    with pytest.warns(UserWarning, match="damaged: it is made again"):
        assert load().checksum == first.checksum
    assert calls["images"] == 8
    assert load().checksum == first.checksum and calls["images"] == 8


def test_changed_image_is_noticed(decoded, tmp_path):
    first, calls, load = decoded
    path = tmp_path / "set/train/a/0000.png"
    picture(99).save(path)
    os.utime(path, (10, 10))
    assert load().checksum != first.checksum and calls["images"] == 8


def test_cached_values_are_used_only_with_their_labels():
    """Even an intact file may have been made with other labels, or altered and repacked."""
    made = []

    def make():
        made.append(len(made))
        return np.full((3, 1, 2, 2), made[-1], np.uint8)

    def first_value(labels):
        return cache.cached("toy", np.array(labels), make, "images")[0].flat[0]

    assert [first_value([0, 1, 2]), first_value([0, 1, 2]), first_value([0, 2, 1]), first_value([0, 2, 1])] == [
        0,
        0,
        1,
        1,
    ]
    path = next(cache.folder("images").iterdir())
    with np.load(path) as kept:
        cache.keep(path, values=kept["values"] + 1, digest=kept["digest"])
    assert first_value([0, 2, 1]) == 2 and made == [0, 1, 2]


def test_other_arguments_have_another_cache(decoded):
    _, calls, load = decoded
    load(size=4)
    load(count=2)
    load(count=2, seed=1)
    assert calls["images"] == 8 + 2 + 2


def test_full_disk_only_warns(decoded, monkeypatch):
    first, calls, load = decoded
    cache_file().unlink()

    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache.np, "savez", full)
    with pytest.warns(UserWarning, match="No space left"):
        assert load().checksum == first.checksum
    assert not list(cache.folder().iterdir()), "no part of a file is left"


# --- CIFAR-10 -----------------------------------------------------------------------------------

NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def md5(path):
    return hashlib.md5(path.read_bytes()).hexdigest()


class Python2Pickler(pickle._Pickler):
    """Writes bytes as Python 2 wrote its strings, as in the official files."""

    def save_bytes(self, value):
        short = len(value) < 256
        head = b"U" + bytes([len(value)]) if short else b"T" + len(value).to_bytes(4, "little")
        self.write(head + value)
        self.memoize(value)

    dispatch = pickle._Pickler.dispatch | {bytes: save_bytes}


def python2_pickle(value):
    buffer = io.BytesIO()
    Python2Pickler(buffer, protocol=2).dump(value)
    return buffer.getvalue()


def write_cifar10(root, monkeypatch, each=20):
    """Write batches in the official format, with `each` instead of 10,000 images; patch torchvision's MD5 sums."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    lists = {"train_list": [f"data_batch_{k}" for k in range(1, 6)], "test_list": ["test_batch"]}
    for attribute, names in lists.items():
        for name in names:
            random = np.random.default_rng(list(name.encode()))
            batch = {
                b"batch_label": name.encode(),
                b"labels": [k % 10 for k in range(each)],
                b"data": random.integers(0, 256, (each, 3072), dtype=np.uint8),
                b"filenames": [b"%d.png" % k for k in range(each)],
            }
            (folder / name).write_bytes(python2_pickle(batch))
        monkeypatch.setattr(CIFAR10, attribute, [[name, md5(folder / name)] for name in names])
    meta = {b"num_cases_per_batch": each, b"label_names": [name.encode() for name in NAMES], b"num_vis": 3072}
    (folder / "batches.meta").write_bytes(python2_pickle(meta))
    monkeypatch.setattr(CIFAR10, "meta", CIFAR10.meta | {"md5": md5(folder / "batches.meta")})
    return folder


def pack_cifar10(root, monkeypatch):
    folder = write_cifar10(root, monkeypatch)
    archive = root / "cifar-10-python.tar.gz"
    with tarfile.open(archive, "w:gz") as packed:
        packed.add(folder, arcname=folder.name)
    shutil.rmtree(folder)
    monkeypatch.setattr(CIFAR10, "tgz_md5", md5(archive))
    return archive


def test_official_cifar10(tmp_path, monkeypatch):
    folder = write_cifar10(tmp_path, monkeypatch)
    train, test = (load_images("cifar10", split) for split in ("train", "test"))
    assert train.pixels.shape == (100, 3, 32, 32) and test.pixels.shape == (20, 3, 32, 32)
    assert (train.name, train.classes) == ("CIFAR-10", tuple(NAMES))
    batch = pickle.loads((folder / "data_batch_2").read_bytes(), encoding="bytes")
    assert np.array_equal(train.pixels[20:40].flatten(1).numpy(), batch[b"data"])
    assert train.labels[20:40].tolist() == batch[b"labels"]
    few = load_images("cifar10", "train", count=25, size=16, seed=4)
    assert few.pixels.shape == (25, 3, 16, 16) and set(few.labels.bincount().tolist()) == {2, 3}


def test_packed_cifar10_leaves_the_data_root_alone(tmp_path, monkeypatch):
    archive = pack_cifar10(tmp_path / "data", monkeypatch)
    root = str(tmp_path / "data")
    monkeypatch.setenv("DATA_ROOT", root)
    before = catalog.signature("cifar10")
    images = load_images("cifar10", "train")
    assert len(images) == 100 and images.name == "CIFAR-10"
    assert os.listdir(root) == [archive.name] and catalog.signature("cifar10") == before
    assert load_images("cifar10", "train").checksum == images.checksum


def test_truncated_archive(tmp_path, monkeypatch):
    truncate(pack_cifar10(tmp_path, monkeypatch))
    with pytest.raises(DataError, match=r"cifar-10-python\.tar\.gz .*could not be unpacked .*get it again"):
        load_images("cifar10", "train")


@pytest.mark.parametrize("change", [truncate, Path.unlink])
@pytest.mark.parametrize("name", ["data_batch_3", "batches.meta"])
def test_damaged_batch(tmp_path, monkeypatch, change, name):
    change(write_cifar10(tmp_path, monkeypatch) / name)
    with pytest.raises(DataError, match="A file of .*cifar-10-batches-py is missing or damaged"):
        load_images("cifar10", "test")


@pytest.mark.parametrize(("kind", "name"), [("jpg", "CIFAR-10 (JPEG copy)"), ("png", "CIFAR-10 (image folder)")])
def test_cifar10_as_image_folder(tmp_path, kind, name):
    split_folder(tmp_path / "cifar10", {"cat": 2, "dog": 2}, kind=kind)
    assert load_images("cifar10", "train").name == name


def test_real_cifar10(monkeypatch):
    """Skipped without CIFAR-10. A fixture changes DATA_ROOT, so the original is kept in `REAL`."""
    monkeypatch.setenv("DATA_ROOT", REAL)
    if not REAL or catalog.locate("cifar10") is None:
        pytest.skip("set DATA_ROOT to a folder with CIFAR-10")
    images = load_images("cifar10", "test", count=500)
    assert images.pixels.shape == (500, 3, 32, 32) and images.labels.bincount().tolist() == [50] * 10
    assert images.classes == tuple(NAMES) and images.name.startswith("CIFAR-10")
    mean = images.pixels.float().mean((0, 2, 3)) / 255
    assert torch.allclose(mean, torch.tensor([0.491, 0.482, 0.447]), atol=0.03)  # means of the whole set


REAL = os.environ.get("DATA_ROOT", "")


# --- CelebA -------------------------------------------------------------------------------------


def write_celeba(root, monkeypatch, count=10):
    """Write the official files for 10 faces: 6 train, 2 valid, 2 test; patch torchvision's MD5 sums."""
    folder = root / "celeba"
    names = [f"{k + 1:06}.jpg" for k in range(count)]
    fill(folder / "img_align_celeba", 0)
    for k, name in enumerate(names):
        picture(k, (178, 218)).save(folder / "img_align_celeba" / name, quality=95)

    def table(file, header, width, value):
        rows = [str(count), " ".join(f"c{k}" for k in range(width))] if header else []
        rows += [f"{name} " + " ".join(str(value(k)) for _ in range(width)) for k, name in enumerate(names)]
        (folder / file).write_text("\n".join(rows) + "\n")

    table("list_eval_partition.txt", False, 1, lambda k: 0 if k < 6 else 1 if k < 8 else 2)
    table("identity_CelebA.txt", False, 1, lambda k: k)
    table("list_attr_celeba.txt", True, 40, lambda k: 1)
    table("list_bbox_celeba.txt", True, 4, lambda k: 5)
    table("list_landmarks_align_celeba.txt", True, 10, lambda k: 5)
    sums = [(drive, md5(folder / name) if (folder / name).exists() else old, name)
            for drive, old, name in CelebA.file_list]  # fmt: skip
    monkeypatch.setattr(CelebA, "file_list", sums)
    return folder


def test_official_celeba(tmp_path, monkeypatch):
    folder = write_celeba(tmp_path, monkeypatch)
    train, test = (load_images("celeba", split) for split in ("train", "test"))
    assert train.pixels.shape == (6, 3, 64, 64) and len(test) == 2
    assert (train.name, train.classes, train.labels.tolist()) == ("CelebA", ("face",), [0] * 6)
    full = load_images("celeba", "test", size=178)
    first = np.asarray(Image.open(folder / "img_align_celeba/000009.jpg"))
    assert np.array_equal(full.pixels[0].numpy(), first[20:198].transpose(2, 0, 1)), "the central 178 pixels"


def test_packed_celeba(tmp_path, monkeypatch):
    folder = write_celeba(tmp_path, monkeypatch)
    plain = load_images("celeba", "train")
    archive = folder / "img_align_celeba.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        for path in sorted((folder / "img_align_celeba").iterdir()):
            packed.write(path, f"img_align_celeba/{path.name}")
    shutil.rmtree(folder / "img_align_celeba")
    sums = [(drive, md5(archive) if name == archive.name else old, name) for drive, old, name in CelebA.file_list]
    monkeypatch.setattr(CelebA, "file_list", sums)
    assert load_images("celeba", "train").checksum == plain.checksum
    assert not (folder / "img_align_celeba").exists()


def test_celeba_with_a_missing_image(tmp_path, monkeypatch):
    (write_celeba(tmp_path, monkeypatch) / "img_align_celeba/000003.jpg").unlink()
    with pytest.raises(DataError, match=r"1 of the 6 images of CelebA's train split.*000003\.jpg"):
        load_images("celeba", "train")


def test_celeba_images_alone(tmp_path):
    fill(tmp_path / "celeba/img_align_celeba", 10, size=(178, 218), kind="jpg")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        images = load_images("celeba", "train", size=32)
    assert (len(images), images.name, images.classes) == (8, "CelebA (image folder)", ("face",))


def pictures(folder, count=10):
    folder.mkdir(parents=True)
    for number in range(count):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(folder / f"{number}.png")


@pytest.mark.parametrize(
    "names",
    [
        ("Train", "Test"),
        ("TRAIN", "TESTING"),
        ("training", "test"),
        ("train_images", "test-set"),
        ("Trainset", "tst"),
        ("1_train", "2_test"),
        ("images_train", "images_test"),
        ("학습", "평가"),
        ("train2_images", "test2_images"),
    ],
)
def test_splits_in_any_usual_spelling(tmp_path, names):
    for split, count in zip(names, (3, 2), strict=True):
        for kind in ("bird", "ship"):
            pictures(tmp_path / split / kind, count)
    train, test = (load_images(f"folder:{tmp_path}", split) for split in ("train", "test"))
    assert (len(train), len(test)) == (6, 4) and train.classes == test.classes == ("bird", "ship")


@pytest.mark.parametrize(
    "names",
    [
        ("Train", "Val"),
        ("Training", "Validation"),
        ("TEST",),
        ("eval", "holdout"),
        ("train1", "train2", "test"),
        ("Train", "Val", "birds"),
    ],
)
def test_half_a_split_is_no_list_of_classes(tmp_path, names):
    for name in names:
        pictures(tmp_path / name)
    with pytest.raises(DataError, match="but not both train and test"):
        load_images(f"folder:{tmp_path}", "train")


def test_folders_inside_of_classes_may_have_any_single_name(tmp_path):
    pictures(tmp_path / "vehicle" / "train")
    pictures(tmp_path / "exam" / "test")
    assert load_images(f"folder:{tmp_path}", "train").classes == ("exam", "vehicle")


@pytest.mark.parametrize("splits", [("Train", "Test"), ("train", "val")])
def test_splits_inside_of_classes_are_not_mixed(tmp_path, splits):
    for kind in ("bird", "ship"):
        for split in splits:
            pictures(tmp_path / kind / split)
    with pytest.raises(DataError, match="splits .*further down.*train/<class>/"):
        load_images(f"folder:{tmp_path}", "train")


def test_what_is_not_read_beside_the_splits_is_said(tmp_path):
    for name in ("train", "test", "Validation"):
        pictures(tmp_path / name / "bird")
    with pytest.warns(UserWarning, match="only train and test are read, not Validation"):
        load_images(f"folder:{tmp_path}", "train")


def test_a_class_may_be_called_train(tmp_path):
    for kind in ("bus", "train"):
        pictures(tmp_path / kind)
    assert load_images(f"folder:{tmp_path}", "train").classes == ("bus", "train")


@pytest.mark.parametrize("split", ["test", "val"])
def test_a_split_beside_the_classes_is_no_class(tmp_path, split):
    for kind in ("cat", "dog", f"{split}/cat", f"{split}/dog"):
        pictures(tmp_path / kind)
    with pytest.raises(DataError, match=f"holds class folders and, beside them, {split} with folders of the same"):
        load_images(f"folder:{tmp_path}", "train")


def test_names_that_look_the_same_are_the_same(tmp_path):
    """A Mac stores Hangul letter by letter (NFD), other systems by syllable (NFC)."""
    composed, apart = "새", unicodedata.normalize("NFD", "새")
    pictures(tmp_path / apart / "train" / composed)
    pictures(tmp_path / apart / "test" / apart)
    assert load_images(f"folder:{tmp_path / composed}", "test").classes == (composed,)


def test_a_folder_name_in_cp949_can_be_shown(tmp_path):
    pictures(tmp_path / os.fsdecode("화재".encode("cp949")))
    pictures(tmp_path / "b")
    assert load_images(f"folder:{tmp_path}", "train").classes == ("b", "화재")


def test_the_same_split_however_a_disk_spells_the_names(tmp_path):
    """When copied to or from a Mac, no image changes its split or its place in the order."""
    for form in ("NFC", "NFD"):
        for number in range(12):
            kind = tmp_path / form / unicodedata.normalize(form, f"새{number % 2}")
            kind.mkdir(parents=True, exist_ok=True)
            picture(number).save(kind / unicodedata.normalize(form, f"사진{number}.png"))
    for split in ("train", "test"):
        one, two = (load_images("folder:" + form, split) for form in ("NFC", "NFD"))
        assert one.checksum == two.checksum and one.classes == two.classes


def test_an_empty_folder_of_the_same_look_is_no_class_of_its_own(tmp_path):
    pictures(tmp_path / "새")
    (tmp_path / unicodedata.normalize("NFD", "새")).mkdir(exist_ok=True)
    assert load_images(f"folder:{tmp_path}", "train").classes == ("새",)


def test_the_data_root_in_another_normal_form(tmp_path, monkeypatch):
    pictures(tmp_path / unicodedata.normalize("NFD", "자료") / "새" / "b")
    monkeypatch.setenv("DATA_ROOT", str(tmp_path / "자료"))
    assert load_images("folder:새", "train").classes == ("b",)


def left_out(folder):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for split in ("train", "test"):
            load_images(f"folder:{folder}", split)
    return [str(warning.message) for warning in caught]


def test_what_is_left_out_is_counted_once(tmp_path):
    folder = tmp_path / "set"
    pictures(folder / "bird")
    for name in ("a.heic", "b.HEIC", "readme", "list.csv"):
        (folder / "bird" / name).write_bytes(b"x")
    (folder / "bird/gone.png").symlink_to(tmp_path / "nowhere.png")
    (folder / "bird/again").symlink_to(folder / "bird", target_is_directory=True)
    (message,) = left_out(folder)
    for part in ("2 x file .heic", "1 x file without extension", "1 x file .csv", "1 x broken link",
                 "1 x link to a folder that is read already"):  # fmt: skip
        assert part in message


def test_nothing_is_said_of_what_every_desktop_leaves(tmp_path):
    pictures(tmp_path / "set/bird")
    (tmp_path / "set/bird/.DS_Store").write_bytes(b"x")
    (tmp_path / "set/bird/Thumbs.db").write_bytes(b"x")
    assert left_out(tmp_path / "set") == []


def test_broken_links_alone(tmp_path):
    (tmp_path / "set/bird").mkdir(parents=True)
    for number in range(3):
        (tmp_path / f"set/bird/{number}.png").symlink_to(tmp_path / "vanished" / f"{number}.png")
    with pytest.raises(DataError, match="holds no images: 3 x broken link found"):
        load_images(f"folder:{tmp_path / 'set'}", "train")


def exif(tag_type, value):
    """Return an EXIF block with one entry, the orientation, of any type and value (4 bytes)."""
    return (b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12" + tag_type.to_bytes(2, "big") + (1).to_bytes(4, "big")
            + value + b"\0\0\0\0")  # fmt: skip


@pytest.mark.parametrize("entry", [(5, b"\0\0\0\x63"), (2, b"A\0\0\0"), (9, b"\xff\xff\xff\xff"), (12, b"\0" * 4)])
def test_a_malformed_orientation_leaves_the_picture_as_it_is(tmp_path, entry):
    image = Image.new("RGB", (8, 8), (200, 10, 10))
    (tmp_path / "set/a").mkdir(parents=True)
    for name, extra in (("plain", {}), ("odd", {"exif": exif(*entry)})):
        image.save(tmp_path / f"set/a/{name}.jpg", **extra)
    plain, odd = (np.asarray(images.read_image(tmp_path / f"set/a/{name}.jpg", None)) for name in ("plain", "odd"))
    assert np.array_equal(plain, odd)


@pytest.mark.parametrize("names", [("x_train", "x_test"), ("birds-train", "birds-test"), ("trains", "tests"),
                                   ("학습셋", "테스트셋"), ("학습용데이터", "시험용데이터"),
                                   ("trainval", "test")])  # fmt: skip
def test_splits_with_another_word(tmp_path, names):
    for name in names:
        pictures(tmp_path / name / "bird")
    assert load_images(f"folder:{tmp_path}", "train").classes == ("bird",)


def test_a_split_s_word_in_one_class_alone_is_no_split(tmp_path):
    for kind in ("crash test", "race", "train"):
        pictures(tmp_path / kind)
    assert load_images(f"folder:{tmp_path}", "train").classes == ("crash test", "race", "train")


@pytest.mark.parametrize("layout", [("w/data/train/x", "w/data/test/x"), ("w/x_train/a", "w/x_test/a")])
def test_splits_further_down(tmp_path, layout):
    for place in layout:
        pictures(tmp_path / place)
    with pytest.raises(DataError, match="splits .*further down.*train/<class>/"):
        load_images(f"folder:{tmp_path}", "train")


def test_a_link_to_another_class_takes_nothing_from_it(tmp_path):
    for kind in ("a", "b"):
        pictures(tmp_path / "set" / kind)
    (tmp_path / "set/b/al").symlink_to(tmp_path / "set/a", target_is_directory=True)
    with pytest.warns(UserWarning, match="link to a folder that is read already"):
        images = load_images(f"folder:{tmp_path / 'set'}", "train")
    assert images.labels.bincount().tolist() == [8, 8]


def test_a_data_set_named_in_cp949_can_be_captioned(tmp_path):
    folder = tmp_path / os.fsdecode("새".encode("cp949"))
    pictures(folder / "a")
    assert load_images(f"folder:{folder}", "train").name == "folder 새"


def test_a_folder_in_cp949_is_found_by_its_hangul_name(tmp_path):
    pictures(tmp_path / os.fsdecode("자료".encode("cp949")) / "새" / "a")
    assert load_images("folder:자료/새", "train").classes == ("a",)
