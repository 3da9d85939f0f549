import os
import shutil
import zipfile
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch

from lib.data import cache, catalog, decoding
from lib.data.audio import Sounds, load_sounds
from lib.data.catalog import DataError
from lib.data.decoding import RATE

REAL = os.environ.get("DATA_ROOT", "")  # before a test clears it


@pytest.fixture(autouse=True)
def own_output(tmp_path, monkeypatch):
    monkeypatch.setenv("OUTPUT_ROOT", str(tmp_path / "out"))
    monkeypatch.setenv("DATA_ROOT", str(tmp_path))


def noise(number, count=2400):
    """Return noise, (count,) int16, seeded by `number`."""
    return np.random.default_rng(number).integers(-20_000, 20_000, count).astype(np.int16)


def write(path, samples, rate=RATE, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate, **options)


def fill(folder, count, *, first=0, kind="wav", length=2400):
    for number in range(first, first + count):
        write(folder / f"{number:04}.{kind}", noise(number, length))


def split_folder(root, counts):
    for part in ("train", "test"):
        for k, (name, count) in enumerate(counts.items()):
            fill(root / part / name, count, first=1000 * k + 500 * (part == "test"))


def load(tmp_path, dataset="folder:set", split="train", *, seconds=0.15, **options):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATA_ROOT", str(tmp_path))
        return load_sounds(dataset, split, seconds=seconds, **options)


# --- Sounds -------------------------------------------------------------------------------------


def test_what_is_cut_off_is_told(tmp_path):
    fill(tmp_path / "set/a", 4)
    fill(tmp_path / "set/b", 3, length=RATE)
    with pytest.warns(UserWarning, match="3 of the 7 sounds of .* are longer than 0.15 s, of which the beginning"):
        sounds = load(tmp_path, split="all")
    assert torch.equal(sounds.samples[-1], torch.from_numpy(noise(2, RATE)[:2400]))


def test_split_folder(tmp_path):
    split_folder(tmp_path / "set", {"cat": 4, "ant": 3})
    sounds = load(tmp_path)
    assert isinstance(sounds, Sounds) and len(sounds) == 7
    assert sounds.samples.shape == (7, 2400) and sounds.samples.dtype == torch.int16
    assert sounds.labels.dtype == sounds.folds.dtype == torch.int64
    assert (sounds.name, sounds.classes, sounds.split) == ("folder set", ("ant", "cat"), "train")
    for name, samples, label in zip(sounds.names, sounds.samples, sounds.labels, strict=True):
        part, folder, file = name.split("/")
        assert (part, folder) == ("train", sounds.classes[label])
        assert np.array_equal(samples, noise(int(file[:4])))
    everything = load(tmp_path, split="all")
    assert set(everything.names) == set(sounds.names) | set(load(tmp_path, split="test").names)
    assert len(everything) == 14 and everything.split == "all"


def test_subset_and_to(tmp_path):
    fill(tmp_path / "set/a", 6)
    sounds = load(tmp_path, split="all")
    mask = torch.tensor([False, True, True, False, False, False])
    for indices in ([1, 2], np.array([1, 2]), torch.tensor([1, 2]), slice(1, 3), mask, mask.numpy()):
        part = sounds.subset(indices)
        assert torch.equal(part.samples, sounds.samples[1:3]) and part.names == sounds.names[1:3]
        assert torch.equal(part.folds, sounds.folds[1:3]) and torch.equal(part.labels, sounds.labels[1:3])
        assert part.checksum != sounds.checksum
    spans = tuple(((place, place + 1.0),) for place in range(6))
    part = replace(sounds, spans=spans, texts=tuple("abcdef")).subset([4, 1])
    assert part.spans == (spans[4], spans[1]) and part.texts == ("e", "b")
    assert len(sounds.subset([])) == 0
    assert sounds.subset(range(6)).checksum == sounds.checksum == sounds.to("cpu").checksum


def test_short_clips_are_followed_by_silence_and_of_long_ones_the_beginning_is_taken(tmp_path):
    for length in (1600, 4000, 16_000):
        write(tmp_path / f"set/a/{length}.wav", noise(length, length))
    sounds = load(tmp_path, split="all", seconds=0.25)
    for name, samples in zip(sounds.names, sounds.samples.numpy(), strict=True):
        length = int(name[2:-4])
        assert np.array_equal(samples, np.pad(noise(length, length)[:4000], (0, max(4000 - length, 0))))


def test_other_formats_and_other_files(tmp_path):
    for number, kind in enumerate(["flac", "OGG", "mp3", "aiff", "wav"]):
        write(tmp_path / f"set/x{number}.{kind}", noise(number, 4410), 44_100)
    (tmp_path / "set/readme.txt").write_text("x")
    (tmp_path / "set/.hidden.wav").write_text("x")
    sounds = load(tmp_path, split="all", seconds=0.1)
    assert len(sounds) == 5 and sounds.classes == ("sound",)
    assert (sounds.samples.float().std(1) > 1000).all()


def test_folder_without_splits_is_split_80_20(tmp_path):
    fill(tmp_path / "set/a", 20)
    train, test = (load(tmp_path, split=split) for split in ("train", "test"))
    assert (len(train), len(test)) == (16, 4) and len({*train.names, *test.names}) == 20
    assert set(load(tmp_path, count=10, seed=1).names) < set(train.names)


def test_folds_of_a_folder_depend_on_names_alone(tmp_path):
    fill(tmp_path / "set/a", 100, length=1600)
    sounds = load(tmp_path, split="all", seconds=0.1)
    sizes = sounds.folds.bincount(minlength=5)
    assert len(sizes) == 5 and sizes.min() >= 8
    folds = dict(zip(sounds.names, sounds.folds.tolist(), strict=True))
    for part in (load(tmp_path, seconds=0.1), load(tmp_path, split="all", seconds=0.1, count=30, seed=3)):
        assert [folds[name] for name in part.names] == part.folds.tolist()


def test_subset_is_balanced_and_grows(tmp_path):
    split_folder(tmp_path / "set", {"a": 9, "b": 6})
    few, more = (load(tmp_path, count=count, seed=1) for count in (8, 11))
    assert few.labels.bincount().tolist() == [4, 4] and set(few.names) < set(more.names)
    with pytest.raises(DataError, match="count=16 asks for more than the 15"):
        load(tmp_path, count=16)


# --- Errors -------------------------------------------------------------------------------------


def test_files_that_cannot_be_read_are_named_at_once(tmp_path):
    fill(tmp_path / "set/a", 5)
    (tmp_path / "set/a/bad.wav").write_text("no sound")
    (tmp_path / "set/a/worse.mp3").write_text("no sound")
    (tmp_path / "set/a/empty.ogg").write_bytes(b"")
    write(tmp_path / "set/a/nan.wav", np.full(9000, np.nan), subtype="FLOAT")
    with pytest.raises(DataError, match=r"4 files cannot be used; the next are .*, .*, .*\.") as caught:
        load(tmp_path, split="all")
    for name in ("bad.wav", "worse.mp3", "empty.ogg", "nan.wav"):
        assert f"a/{name}" in str(caught.value)
    assert not cache.folder("sounds").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: (s / "test/c").mkdir(), r"class folder .*test.c holds no sounds. Put sounds there"),
        (lambda s: [p.rename(p.with_suffix(".png")) for p in s.rglob("*.wav")],
         r"holds no sounds: \d+ x file \.png found.*\.flac|train holds no sounds.*\.flac"),
        (lambda s: (s / "test/b").rename(s / "test/c"), "only in train: b; only in test: c"),
        (lambda s: shutil.rmtree(s / "test"), "holds train but not both train and test"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("split", ["train", "all"])
def test_damaged_folder(tmp_path, change, message, split):
    split_folder(tmp_path / "set", {"a": 2, "b": 2})
    change(tmp_path / "set")
    with pytest.raises(DataError, match=message):
        load(tmp_path, split=split)


def test_one_sound_cannot_be_split_but_loaded(tmp_path):
    fill(tmp_path / "set/a", 1)
    with pytest.raises(DataError, match="only 1 sound"):
        load(tmp_path)
    assert len(load(tmp_path, split="all")) == 1


@pytest.mark.parametrize(
    ("dataset", "options", "message"),
    [
        ("esc10", {}, "There is no data set 'esc10' of this kind. Expected one of soundscapes, .*esc50"),
        ("folder:nowhere", {}, "nowhere does not exist.*DATA_ROOT"),
        ("esc50", {"split": "valid"}, "no split 'valid'"),
        ("esc50", {"seconds": 0.01}, "seconds=0.01 is not possible. Expected 0.1 to 600"),
        ("esc50", {"seconds": float("nan")}, "seconds=nan"),
        ("esc50", {"count": 0}, "count=0 is not possible"),
        ("esc50", {}, "esc50 was not found below .*ESC-50-master.zip from https://github.com.*CC BY-NC.*DATA_ROOT"),
    ],
)
def test_bad_arguments(tmp_path, dataset, options, message):
    with pytest.raises(DataError, match=message):
        load(tmp_path, dataset, **options)


# --- Cache --------------------------------------------------------------------------------------


def test_second_time_nothing_is_decoded(tmp_path, monkeypatch):
    split_folder(tmp_path / "set", {"a": 4, "b": 4})
    first = load(tmp_path)
    calls = Counter()
    original = decoding.decode

    def count(path, **options):
        calls["files"] += 1
        return original(path, **options)

    monkeypatch.setattr(decoding, "decode", count)
    again = load(tmp_path)
    assert not calls and again.checksum == first.checksum and again.names == first.names
    assert torch.equal(again.samples, first.samples) and torch.equal(again.folds, first.folds)
    again.samples.zero_()  # its memory is not shared
    assert load(tmp_path).checksum == first.checksum and not calls
    load(tmp_path, seconds=0.1)
    load(tmp_path, count=3)
    assert calls["files"] == 8 + 3
    path = tmp_path / "set/train/a/0000.wav"
    write(path, noise(99))
    os.utime(path, (10, 10))
    assert load(tmp_path).checksum != first.checksum


def test_decoded_by_many_threads_as_by_one(tmp_path):
    fill(tmp_path / "set/a", 200, length=1600)
    one = load(tmp_path, split="all", seconds=0.1)
    shutil.rmtree(cache.folder("sounds"))
    torch.set_num_threads(4)
    assert load(tmp_path, split="all", seconds=0.1).checksum == one.checksum


# --- ESC-50 -------------------------------------------------------------------------------------

CATEGORIES = {"dog": 0, "rooster": 1, "cat": 5}


def write_esc50(folder, folds=range(1, 6)):
    """Write the official repository, with two short clips of three classes in each fold, at 44.1 kHz."""
    lines = ["filename,fold,target,category,esc10,src_file,take"]
    for fold in folds:
        for category, target in CATEGORIES.items():
            for take in "AB":
                source = 1000 * fold + target
                name = f"{fold}-{source}-{take}-{target}.wav"
                write(folder / "audio" / name, noise(source + ord(take), 8820), 44_100)
                lines.append(f"{name},{fold},{target},{category},True,{source},{take}")
    (folder / "meta").mkdir()
    (folder / "meta/esc50.csv").write_text("\n".join(lines) + "\n")
    (folder / "README.md").write_text("ESC-50")


def pack(folder, archive):
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        for path in [folder, *sorted(folder.rglob("*"))]:
            packed.write(path, path.relative_to(folder.parent))
    shutil.rmtree(folder)


@pytest.mark.parametrize("where", ["", "esc50"])
def test_official_esc50_unpacked_and_packed(tmp_path, where):
    folder = tmp_path / where / "ESC-50-master"
    write_esc50(folder)
    everything = load(tmp_path, "esc50", "all")
    assert everything.samples.shape == (30, 2400) and everything.name == "ESC-50"
    assert everything.classes == ("cat", "dog", "rooster")
    for name, samples, label, fold in zip(
        everything.names, everything.samples, everything.labels, everything.folds, strict=True
    ):
        first, _, _, target = name.removeprefix("audio/").removesuffix(".wav").split("-")
        assert int(first) - 1 == fold and CATEGORIES[everything.classes[label]] == int(target)
        assert np.array_equal(samples, decoding.decode(folder / name, seconds=0.15))

    pack(folder, folder.with_suffix(".zip"))
    listing = sorted(tmp_path.rglob("*.*"))
    packed = load(tmp_path, "esc50", "all")
    assert (packed.checksum, packed.names, packed.classes, packed.name) == (
        everything.checksum, everything.names, everything.classes, "ESC-50"
    )  # fmt: skip
    assert torch.equal(packed.folds, everything.folds)
    written = [path for path in sorted(tmp_path.rglob("*.*")) if path not in listing]
    assert all(path.is_relative_to(tmp_path / "out") for path in written), "the data root is left alone"


def test_last_fold_is_the_test(tmp_path):
    write_esc50(tmp_path / "ESC-50-master", folds=(1, 2, 4))
    train, test = (load(tmp_path, "esc50", split) for split in ("train", "test"))
    assert set(train.folds.tolist()) == {0, 1} and set(test.folds.tolist()) == {3}
    assert train.name == test.name == "ESC-50 (folds 1, 2, 4)"
    assert load(tmp_path, "esc50", count=3).labels.tolist().count(0) == 1


@pytest.mark.parametrize("where", ["audio/", ""])
def test_esc50_without_its_classes_is_refused(tmp_path, where):
    for fold in (1, 2):
        write(tmp_path / f"esc50/{where}{fold}-17-A-0.wav", noise(fold))
    with pytest.raises(DataError, match=r"esc50 holds the clips of ESC-50 without their classes.*meta/esc50\.csv"):
        load(tmp_path, "esc50", "all")


@pytest.mark.parametrize("where", ["ESC-50", "ESC-50-master/ESC-50-master"])
def test_esc50_cloned_by_git_or_unpacked_twice(tmp_path, where):
    write_esc50(tmp_path / where)
    assert len(load(tmp_path, "esc50", "all")) == 30


def test_esc50_as_an_audio_folder(tmp_path):
    for fold in (2, 3):
        for category in CATEGORIES:
            write(tmp_path / f"esc50/{category}/{fold}-17-A.ogg", noise(fold))
    sounds = load(tmp_path, "esc50", "all")
    assert (sounds.name, sounds.classes) == ("ESC-50 (16 kHz Vorbis copy, folds 2-3)", ("cat", "dog", "rooster"))
    assert sorted(zip(sounds.names, sounds.folds.tolist(), strict=True))[:2] == [
        ("cat/2-17-A.ogg", 1), ("cat/3-17-A.ogg", 2)
    ]  # fmt: skip
    write(tmp_path / "esc50/cat/meow.ogg", noise(1))
    with pytest.raises(DataError, match=r"meow\.ogg is not that of an ESC-50 clip.*folder:<path>"):
        load(tmp_path, "esc50")


def test_one_fold_alone_cannot_be_split(tmp_path):
    write_esc50(tmp_path / "ESC-50-master", folds=[3])
    with pytest.raises(DataError, match="holds fold 3 of ESC-50 alone"):
        load(tmp_path, "esc50")
    assert load(tmp_path, "esc50", "all").name == "ESC-50 (fold 3)"


def test_damaged_official_esc50(tmp_path):
    folder = tmp_path / "ESC-50-master"
    write_esc50(folder)
    (folder / "audio/3-3000-A-0.wav").unlink()
    with pytest.raises(DataError, match=r"1 of the 30 clips that meta/esc50\.csv names.*audio/3-3000-A-0\.wav.*github"):
        load(tmp_path, "esc50")
    for content in ("", "a,b\n1,2\n", "filename,fold,category\nx.wav,one,dog\n"):
        (folder / "meta/esc50.csv").write_text(content)
        with pytest.raises(DataError, match=r"meta/esc50\.csv.*github"):
            load(tmp_path, "esc50")


@pytest.mark.parametrize("damage", [(",3,0,dog,", ",6,0,dog,"), (",3,0,dog,", ",3.5,0,dog,"), (",3,0,dog,", ",3,0,,"),
                                    ("3-3000-B-0.wav", "3-3000-A-0.wav")])  # fmt: skip
def test_a_wrong_line_in_the_list_of_esc50(tmp_path, damage):
    """An invalid fold, a missing class, a clip named twice: each is an error."""
    write_esc50(tmp_path / "ESC-50-master")
    path = tmp_path / "ESC-50-master/meta/esc50.csv"
    path.write_text(path.read_text().replace(*damage))
    with pytest.raises(DataError, match=r"meta/esc50\.csv of .*a fold is not 1 to 5, a category is missing.*github"):
        load(tmp_path, "esc50", "all")


@pytest.mark.parametrize("damage", ["cut", "flip", "text", "list", "version", "locked"])
def test_damaged_esc50_archive(tmp_path, damage):
    folder, archive = tmp_path / "ESC-50-master", tmp_path / "ESC-50-master.zip"
    write_esc50(folder)
    if damage == "list":
        (folder / "meta/esc50.csv").unlink()
    pack(folder, archive)
    content = bytearray(archive.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 0xFF
    elif damage in ("version", "locked"):  # in the last entry of the zip's directory
        content[content.rfind(b"PK\1\2") + {"version": 6, "locked": 8}[damage]] |= 0x81
    archive.write_bytes({"cut": content[: len(content) // 2], "text": b"none"}.get(damage, content))
    with pytest.raises(DataError, match=r"ESC-50-master\.zip .*could not be unpacked .*get it again.*github"):
        load(tmp_path, "esc50", "all")


@pytest.mark.skipif(catalog.locate("esc50") is None, reason="set DATA_ROOT to a folder with ESC-50")
def test_the_real_esc50(monkeypatch):
    monkeypatch.setenv("DATA_ROOT", REAL)
    sounds = load_sounds("esc50", "test", count=100)
    assert sounds.samples.shape == (100, 4 * RATE) and len(sounds.classes) == 50
    assert sounds.labels.bincount().tolist() == [2] * 50
    assert len(sounds.folds.unique()) == 1 and sounds.name.startswith("ESC-50")
    assert (sounds.samples.float().std(1) > 0).all()
