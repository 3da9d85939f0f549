import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from lib.data import audio, cache
from lib.data.audio import RATE, DataError, load_sounds

REAL = Path(os.environ.get("DATA_ROOT", "")) / "esc50"


def tone(hertz, seconds=0.5, rate=RATE):
    return 0.3 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)


def make_folder(root, counts, seconds=0.5):
    for hertz, (name, count) in zip((300, 600, 900, 1200), counts.items(), strict=False):
        (root / name).mkdir(parents=True)
        for number in range(count):
            soundfile.write(root / name / f"{number}.wav", tone(hertz + number, seconds), RATE)
    return root


def make_esc50(root, folds=5):
    """The official layout, small: two classes, two takes in each fold."""
    (root / "meta").mkdir(parents=True)
    (root / "audio").mkdir()
    lines = ["filename,fold,target,category,esc10,src_file,take"]
    for fold in range(1, folds + 1):
        for target, category in ((0, "dog"), (40, "helicopter")):
            for take in "AB":
                name = f"{fold}-{1000 * fold + target}-{take}-{target}.wav"
                soundfile.write(root / "audio" / name, tone(400 + 10 * target + fold, 5.0, 44_100), 44_100)
                lines.append(f"{name},{fold},{target},{category},False,1,{take}")
    (root / "meta" / "esc50.csv").write_text("\n".join(lines) + "\n")
    return root


# -- Folders -------------------------------------------------------------------------------------


def test_a_folder_of_classes(tmp_path):
    make_folder(tmp_path / "own", {"knock": 10, "rain": 10})
    train, test = (load_sounds(f"folder:{tmp_path / 'own'}", split, seconds=1.0) for split in ("train", "test"))
    assert (len(train), len(test)) == (16, 4) and not set(train.names) & set(test.names)
    assert train.classes == ("knock", "rain") and train.name == "folder own"
    assert train.samples.shape == (16, RATE) and train.samples.dtype == torch.int16
    for name, label, samples in zip(train.names, train.labels.tolist(), train.samples.numpy(), strict=True):
        assert name.startswith(train.classes[label])
        hertz = (300, 600)[label] + int(name.split("/")[1][:-4])
        assert np.abs(samples[:8000] / 32767 - tone(hertz)).max() < 1e-3
        assert not samples[8000:].any(), "what is too short is followed by silence"


def test_all_is_train_and_test(tmp_path):
    make_folder(tmp_path / "own", {"knock": 10, "rain": 10})
    names = {split: set(load_sounds(f"folder:{tmp_path / 'own'}", split).names) for split in ("train", "test", "all")}
    assert names["all"] == names["train"] | names["test"] and len(names["all"]) == 20


def test_train_and_test_folders_are_respected(tmp_path):
    for split in ("train", "test"):
        make_folder(tmp_path / "own" / split, {"knock": 3, "rain": 2})
    assert len(load_sounds(f"folder:{tmp_path / 'own'}", "test")) == 5
    assert len(load_sounds(f"folder:{tmp_path / 'own'}", "all")) == 10


def test_a_longer_recording_is_cut(tmp_path):
    make_folder(tmp_path / "own", {"knock": 2, "rain": 2}, seconds=3.0)
    assert load_sounds(f"folder:{tmp_path / 'own'}", "all", seconds=0.5).samples.shape == (4, 8000)


def test_a_subset_lies_within_a_larger_one_and_is_balanced(tmp_path):
    make_folder(tmp_path / "own", {"knock": 12, "rain": 12})
    few, more = (load_sounds(f"folder:{tmp_path / 'own'}", "all", count=count, seed=3) for count in (6, 10))
    assert set(few.names) <= set(more.names) and torch.bincount(few.labels).tolist() == [3, 3]


def test_every_file_has_a_fold_of_its_own_that_never_changes(tmp_path):
    make_folder(tmp_path / "own", {"knock": 30, "rain": 30})
    found = load_sounds(f"folder:{tmp_path / 'own'}", "all", seconds=0.5)
    folds = dict(zip(found.names, found.folds.tolist(), strict=True))
    assert set(folds.values()) == set(range(audio.FOLDS))
    some = load_sounds(f"folder:{tmp_path / 'own'}", "all", seconds=0.5, count=20)
    assert all(folds[name] == fold for name, fold in zip(some.names, some.folds.tolist(), strict=True))


def test_the_second_time_nothing_is_decoded(tmp_path, monkeypatch):
    make_folder(tmp_path / "own", {"knock": 4, "rain": 4})
    first = load_sounds(f"folder:{tmp_path / 'own'}", "all")
    monkeypatch.setattr(audio, "decode", lambda *_, **__: pytest.fail("decoded again"))
    second = load_sounds(f"folder:{tmp_path / 'own'}", "all")
    assert torch.equal(first.samples, second.samples) and first.checksum == second.checksum
    assert list(cache.folder("sounds").iterdir())


def test_a_subset_of_clips_is_consistent(tmp_path):
    make_folder(tmp_path / "own", {"knock": 4, "rain": 4})
    whole = load_sounds(f"folder:{tmp_path / 'own'}", "all")
    for chosen in ([1, 3], slice(2, 5), whole.labels == 1):
        part = whole.subset(chosen)
        places = [whole.names.index(name) for name in part.names]
        assert torch.equal(part.samples, whole.samples[places]) and torch.equal(part.labels, whole.labels[places])
        assert torch.equal(part.folds, whole.folds[places]) and part.checksum != whole.checksum
    assert whole.subset(slice(None)).checksum == whole.checksum


# -- ESC-50 --------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["ESC-50-master", "esc50/ESC-50-master"])
def test_the_official_folder(tmp_path, where):
    make_esc50(tmp_path / where)
    found = load_sounds("esc50", "all", seconds=5.0, root=str(tmp_path))
    assert found.name == "ESC-50" and found.classes == ("dog", "helicopter") and len(found) == 20
    for name, label, fold in zip(found.names, found.labels.tolist(), found.folds.tolist(), strict=True):
        assert int(name[0]) == fold + 1 and name.endswith(f"-{(0, 40)[label]}.wav")


def test_the_official_archive_as_github_packs_it(tmp_path):
    make_esc50(tmp_path / "made" / "ESC-50-master")
    (tmp_path / "data").mkdir()
    with zipfile.ZipFile(tmp_path / "data" / "ESC-50-master.zip", "w") as archive:
        for path in sorted((tmp_path / "made").rglob("*")):
            archive.write(path, path.relative_to(tmp_path / "made"))
    packed = load_sounds("esc50", "all", root=str(tmp_path / "data"))
    assert packed.checksum == load_sounds("esc50", "all", root=str(tmp_path / "made")).checksum
    whole = (tmp_path / "data" / "ESC-50-master.zip").read_bytes()
    (tmp_path / "data" / "ESC-50-master.zip").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="truncated or damaged"):
        load_sounds("esc50", "all", root=str(tmp_path / "data"))


def test_an_audio_folder_of_some_folds_says_so(tmp_path):
    for name in ("dog", "rain"):
        (tmp_path / "esc50" / name).mkdir(parents=True)
        for fold in (1, 2, 4):
            soundfile.write(tmp_path / "esc50" / name / f"{fold}-100{fold}-A.ogg", tone(500), RATE)
    found = load_sounds("esc50", "all", root=str(tmp_path))
    assert found.name == "ESC-50 (lossy copy, folds 1 2 4)"
    assert sorted(found.folds.tolist()) == [0, 0, 1, 1, 3, 3]
    train, test = (load_sounds("esc50", split, root=str(tmp_path)) for split in ("train", "test"))
    assert set(test.folds.tolist()) == {3} and set(train.folds.tolist()) == {0, 1}


def test_a_folder_that_is_not_esc50_is_refused(tmp_path):
    make_folder(tmp_path / "esc50", {"dog": 2, "rain": 2})
    with pytest.raises(DataError, match="fold-source-take"):
        load_sounds("esc50", "all", root=str(tmp_path))


def test_a_missing_recording_is_named(tmp_path):
    folder = make_esc50(tmp_path / "ESC-50-master")
    (folder / "audio" / "3-3000-A-0.wav").unlink()
    with pytest.raises(DataError, match=r"1 of ESC-50's 20 recordings are missing.*3-3000-A-0\.wav"):
        load_sounds("esc50", "all", root=str(tmp_path))


def test_without_the_set_the_message_says_where_to_get_it(tmp_path):
    with pytest.raises(DataError, match=r"karolpiczak/ESC-50.*CC BY-NC.*DATA_ROOT"):
        load_sounds("esc50", "train", root=str(tmp_path))


@pytest.mark.skipif(not REAL.is_dir(), reason="ESC-50 is not below DATA_ROOT")
def test_the_real_set():
    found = load_sounds("esc50", "all", seconds=5.0)
    assert len(found.classes) == 50 and len(found) in (1600, 2000)
    counts = torch.bincount(found.labels)
    assert (counts == counts[0]).all()


# -- What is refused -----------------------------------------------------------------------------


def test_all_bad_files_are_told_at_once(tmp_path):
    folder = make_folder(tmp_path / "own", {"knock": 4, "rain": 4})
    (folder / "knock" / "1.wav").write_bytes(b"")
    (folder / "rain" / "0.wav").write_bytes(b"no sound at all" * 100)
    (folder / "rain" / "3.wav").write_bytes(b"nor here" * 100)
    with pytest.raises(DataError) as caught:
        load_sounds(f"folder:{folder}", "all")
    message = str(caught.value)
    assert "3 of 8 sounds" in message and "1 empty" in message and "2 not audio" in message
    assert str(folder / "knock" / "1.wav") in message


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("esc5", "train"), "did you mean 'esc50'"),
        (("folder:", "train"), "lacks its path"),
        (("folder:no-such-folder", "train"), "does not exist"),
        (("esc50", "valid"), "no split"),
    ],
)
def test_arguments_that_make_no_sense(tmp_path, arguments, message):
    with pytest.raises(DataError, match=message):
        load_sounds(*arguments, root=str(tmp_path))


@pytest.mark.parametrize("change", [{"seconds": 0.01}, {"seconds": 1e6}, {"count": 0}, {"count": 99}, {"seed": -1}])
def test_numbers_that_make_no_sense(tmp_path, change):
    make_folder(tmp_path / "own", {"knock": 2, "rain": 2})
    with pytest.raises(DataError, match=next(iter(change))):
        load_sounds(f"folder:{tmp_path / 'own'}", "all", **change)


def test_a_folder_of_images_is_refused(tmp_path):
    (tmp_path / "own" / "a").mkdir(parents=True)
    (tmp_path / "own" / "a" / "b.png").write_bytes(b"x")
    with pytest.raises(DataError, match=r"holds no sounds.*\.png.*\.wav"):
        load_sounds(f"folder:{tmp_path / 'own'}", "all")
