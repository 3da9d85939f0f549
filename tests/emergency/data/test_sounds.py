import json
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from aihub_tree import make_tree

from lib.data.catalog import DataError
from lib.emergency.classes import EMERGENCY, NAMES
from lib.emergency.data import sounds
from lib.emergency.features import log_mel, scaled


@pytest.fixture(autouse=True)
def own_data_root(tmp_path, monkeypatch):
    monkeypatch.setenv("DATA_ROOT", str(tmp_path))


@pytest.fixture
def drawn():
    return sounds.load("soundscapes", "train", count=40, seconds=1.0)


def test_soundscapes_are_sounds_like_any_other(drawn):
    assert drawn.samples.shape == (40, 16_000) and drawn.samples.dtype == torch.int16
    assert drawn.classes == NAMES and "synthetic" in drawn.name and len(drawn.checksum) == 64
    assert torch.bincount(drawn.labels).tolist() == [2] * 20
    assert torch.equal(drawn.folds, torch.arange(40) // 20)
    with pytest.raises(DataError, match="'validation' and 'test'"):
        sounds.load("soundscapes", "all")


def test_sets_come_with_the_truth_where_it_is_known(tmp_path):
    train, test, truth = sounds.load_sets("soundscapes", train_count=20, test_count=20, seconds=1.0)
    assert (train.split, test.split) == ("train", "test") and train.checksum != test.checksum
    assert np.array_equal(truth.samples, test.samples.numpy()) and truth.stems is not None
    for name in ("knock", "rain"):
        (tmp_path / name).mkdir()
        for number in range(5):
            soundfile.write(tmp_path / name / f"{number}.wav", np.sin(np.arange(8000) * (number + 1) / 9), 16_000)
    train, test, truth = sounds.load_sets(f"folder:{tmp_path}", seconds=1.0)
    assert (len(train), len(test), truth) == (8, 2, None)


def test_mels_are_whispers_of_each_clip(drawn):
    mels = sounds.mels(drawn, batch_size=7)
    assert mels.mel.shape == (40, 1, 80, 100) and mels.checksum.startswith(drawn.checksum)
    alone = log_mel(scaled(drawn.samples[11:12]))
    assert torch.allclose(mels.mel[11].float(), alone, atol=2e-3)  # half precision


def test_folds_are_joined_and_never_split(drawn):
    mels = sounds.mels(drawn)
    assert sounds.in_folds(mels, 0) is mels and sounds.in_folds(mels, 2) is mels
    many = mels.part(torch.ones(40, dtype=torch.bool), "all")
    object.__setattr__(many, "folds", torch.arange(40) // 8)
    joined = sounds.in_folds(many, 2)
    assert joined.folds.unique().tolist() == [0, 1] and joined.checksum != many.checksum
    for fold in range(5):
        assert joined.folds[many.folds == fold].unique().numel() == 1
    with pytest.raises(ValueError, match="folds=9 is more than the 5"):
        sounds.in_folds(many, 9)


def test_what_alarms():
    assert sounds.alarming(NAMES) == EMERGENCY
    assert sounds.alarming(("dog", "rain")) == ()
    assert sounds.alarming(("dog", "rain", "siren"), ["siren"]) == (2,)
    assert sounds.alarming(("5.화재", unicodedata.normalize("NFD", "실내"), "gas accident")) == (0, 2)
    with pytest.raises(ValueError, match=r"no class 'sirens' to alarm at; the classes are dog, siren"):
        sounds.alarming(("dog", "siren"), ["sirens"])


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_aihub_from_its_folders_to_clips(tmp_path, form):
    tree = make_tree(tmp_path, per_class=4, form=form)
    (tmp_path / "aihub-controls").mkdir()
    for control in tree.controls:
        Path(control).rename(tmp_path / "aihub-controls" / Path(control).name)
    how = {"seconds": 1.0}
    for dataset in ("aihub", "aihub-strict"):
        train, test = (sounds.load(dataset, split, **how) for split in ("train", "test"))
        assert train.classes == NAMES and train.samples.shape[1] == 16_000
        assert set(train.labels.tolist()) == set(range(1, 20)), "nineteen classes, and no silence"
        assert not set(train.names) & set(test.names)
        assert train.name.startswith("AI Hub") and ("strict" in train.name) == (dataset == "aihub-strict")
        assert train.rejected == test.rejected == {}
        controls = [fold for fold, name in zip(train.folds.tolist(), train.labels.tolist(), strict=True) if name > 16]
        assert len(set(controls)) > 1  # without line and JSON, they do not all share a fold
    again = sounds.load("aihub", "test", **how)
    assert again.checksum == sounds.load("aihub", "test", **how).checksum
    assert len(sounds.load("aihub", "train", count=19, **how)) == 19


def test_rejected_files_are_counted_by_reason(tmp_path):
    make_tree(tmp_path, per_class=4, broken=("cut JSON", "no WAV", "no area"))
    loaded = sounds.load("aihub", "train", seconds=1.0)
    assert loaded.rejected == {"unreadable JSON": 1, "missing audio": 1, "no area": 1}
    cut = sum(bool(text) and span[0][1] > 0.999 for text, span in zip(loaded.texts, loaded.spans, strict=True))
    assert loaded.name.endswith(f"3 files rejected, {cut} lines reach beyond their clip") and cut
    assert loaded.subset([0, 1]).rejected == loaded.rejected


def test_clips_of_one_sentence_share_a_fold(tmp_path):
    for path in make_tree(tmp_path, per_class=4, seconds=0.5).folder.rglob("*.json"):
        content = json.loads(path.read_text(encoding="utf-8"))
        content["annotations"][0]["note"] = content["annotations"][0]["note"] and "불이야!"
        path.write_text(json.dumps(content), encoding="utf-8")
    loaded = sounds.load("aihub", "train", seconds=0.5)
    spoken = [fold for fold, text in zip(loaded.folds.tolist(), loaded.texts, strict=True) if text]
    assert len(spoken) > 9 and len(set(spoken)) == 1


def test_without_aihub_the_message_says_where_to_apply():
    with pytest.raises(DataError, match="170"):
        sounds.load("aihub", "train")


def test_a_name_is_found_in_nfc_and_nfd():
    composed, apart = (unicodedata.normalize(form, "화재") for form in ("NFC", "NFD"))
    for classes, name in (((composed, "개"), apart), ((apart, "개"), composed)):
        assert sounds.alarming(classes, [name]) == (0,)


class TestRecordingsAmongTheScenes:
    """`soundscapes-recorded` refuses an ESC-50 that it cannot use."""

    @staticmethod
    def esc50(root: Path, folds, level=0.3):
        (root / "esc50" / "dog").mkdir(parents=True)
        for fold in folds:
            wave = level * np.sin(np.arange(80_000) / 10)
            soundfile.write(root / "esc50" / "dog" / f"{fold}-{fold}00-A.wav", wave, 16_000)

    def test_of_two_folds(self, tmp_path):
        self.esc50(tmp_path, [1, 2])
        assert len(sounds.load("soundscapes-recorded", "test", count=20)) == 20
        for split in ("train", "validation"):
            with pytest.raises(DataError, match="three folds of ESC-50, .*; there are two.*dataset=soundscapes"):
                sounds.load("soundscapes-recorded", split, count=20)

    def test_of_three(self, tmp_path):
        self.esc50(tmp_path, [1, 2, 3])
        sets = [sounds.load("soundscapes-recorded", split, count=20) for split in sounds.COUNT]
        assert [len(one) for one in sets] == [20] * 3

    def test_its_folds_are_training_validation_and_test(self, tmp_path):
        self.esc50(tmp_path, range(1, 6))
        counts = dict.fromkeys(("train_count", "validation_count", "test_count"), 0)
        *sets, truth = sounds.three_sets("esc50", **counts, seconds=1.0, seed=0)
        assert [sorted(one.folds.tolist()) for one in sets] == [[2, 3, 4], [1], [0]] and truth is None
        assert [one.split for one in sets] == ["train", "validation", "test"]

    def test_with_classes_of_other_names(self, tmp_path):
        self.esc50(tmp_path, [1, 2, 3])
        (tmp_path / "esc50" / "dog").rename(tmp_path / "esc50" / "Dogs barking")
        for load in (lambda: sounds.load("soundscapes-recorded", "test", count=20), lambda: sounds.recorded(1)):
            with pytest.raises(DataError, match="classes of ESC-50 are named Dogs barking here: name its"):
                load()

    def test_of_silence(self, tmp_path):
        self.esc50(tmp_path, [1, 2, 3], level=0.0)
        with pytest.raises(DataError, match="1 of the recordings of ESC-50 are digital silence"):
            sounds.load("soundscapes-recorded", "test", count=20)
