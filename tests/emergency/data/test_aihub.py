import dataclasses
import json
import math
import os
import shutil
import tracemalloc
import unicodedata
from collections import Counter

import numpy as np
import pytest
from aihub_tree import BROKEN, FOLDERS, RATE, TRUNCATED, make_tree
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.data.catalog import DataError
from lib.data.decoding import Unreadable, decode
from lib.emergency.classes import NORMAL
from lib.emergency.data import aihub, aihub_shards, aihub_splits
from lib.emergency.data.aihub import SOURCE, Row, read_catalogue
from lib.emergency.data.aihub_shards import prepare
from lib.emergency.data.aihub_splits import split_source, split_strict


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An undamaged tree and its catalogue, which tests must not change."""
    tree = make_tree(tmp_path_factory.mktemp("whole"), per_class=4, seconds=0.5)
    return tree, read_catalogue(tree.folder, controls=tree.controls)


@pytest.fixture
def small(tmp_path):
    """Two clips of each class, which tests may damage."""
    return make_tree(tmp_path / "data", per_class=2, seconds=0.5)


def stem(row: Row) -> str:
    return aihub.stem_of(row.wav).removesuffix("_label")


def counts(rejected) -> Counter:
    return Counter(reason for reason, _ in rejected)


def assert_true(tree, catalogue):
    """Assert that the catalogue holds all clips of the tree with their true values."""
    assert Counter(map(stem, catalogue.rows)) == Counter(list(tree.truth))
    for row in catalogue.rows:
        truth = tree.truth[stem(row)]
        for name in ("number", "onset", "offset", "line", "speaker", "part"):
            assert getattr(row, name) == getattr(truth, name), (row, name)
        assert catalogue.path(row).is_file()
    assert counts(catalogue.rejected) == tree.rejected


def one_clip(root, folder="[라벨]5.화재", name="a", audio=None, **change):
    """Write a JSON in the format of the data set, and a file for its audio."""
    content = {
        "audio": {"fileName": "z", "duration": 11.0},
        "annotations": [
            {"area": {"start": 1, "end": 2.5}, "categories": {"category_02": "화재", "category_03": "화재_불소리"}}
        ],
    }
    content["annotations"][0] |= change
    path = root / "Training" / folder / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
    sound = root / "Training" / "[원천]5.화재_1" / (audio or f"{name}_label.wav")
    sound.parent.mkdir(parents=True, exist_ok=True)
    sound.write_bytes(bytes(100))
    return path


# --- Catalogue ----------------------------------------------------------------------------------


def test_the_catalogue_says_what_is_in_the_tree(whole):
    tree, catalogue = whole
    assert_true(tree, catalogue)
    assert read_catalogue(tree.folder, controls=tree.controls) == catalogue
    assert len(catalogue.rows) == 4 * 19 and {row.number for row in catalogue.rows} == set(range(1, 20))
    assert catalogue.rejected == ()


@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize("nested", [False, True])
def test_forms_of_korean_names_and_nesting_do_not_matter(whole, tmp_path, form, nested):
    tree = make_tree(tmp_path, per_class=4, seconds=0.5, form=form, nested=nested)
    catalogue = read_catalogue(tree.folder, controls=tree.controls)
    assert_true(tree, catalogue)
    for split in (split_source, split_strict):
        ours, theirs = split(catalogue.rows, 3), split(whole[1].rows, 3)
        for name in SOURCE:
            assert [stem(catalogue.rows[index]) for index in ours[name]] == [
                stem(whole[1].rows[index]) for index in theirs[name]
            ]


def test_every_broken_clip_is_counted_once_and_all_others_are_read(tmp_path):
    tree = make_tree(tmp_path, per_class=2, seconds=0.5, broken=(*BROKEN, TRUNCATED))
    (tree.folder / "readme.txt").write_text("")
    catalogue = read_catalogue(tree.folder, controls=tree.controls)
    tree.rejected["neither audio nor JSON"] = 1
    assert_true(tree, catalogue)
    label = "Training/[라벨]1.강제추행(성범죄)/1.강제추행(성범죄)_1.json"
    assert ("unreadable JSON", label) in catalogue.rejected


@pytest.mark.parametrize(
    ("folder", "categories", "found"),
    [
        ("[라벨]15.강도범죄", {"category_02": "강도범죄"}, 2),  # the number of "indoor"
        ("[라벨]8.화재", {}, 8),
        ("[라벨]1.무엇", {"category_02": "위급", "category_03": "가스사고_누출음"}, 7),
        ("[라벨]1.무엇", {"category_02": None, "category_03": "지진"}, 11),
        ("[라벨]5.화재", {"category_02": "화재", "category_03": "지진_소리"}, 8),
        ("[라벨]5.화재", {"category_02": "지진"}, "classes disagree"),
        ("[라벨]5.화재", ["화재"], 8),
        ("[라벨]5", {"category_02": "5"}, "unknown class"),
        ("무음", {"category_02": "무음"}, "unknown class"),  # the data set has no silence
    ],
)
def test_a_class_is_known_by_its_name(tmp_path, folder, categories, found):
    one_clip(tmp_path, name="good")
    one_clip(tmp_path, folder, categories=categories)
    catalogue = read_catalogue(tmp_path)
    if isinstance(found, str):
        assert counts(catalogue.rejected) == {found: 1}
    else:
        assert sorted(row.number for row in catalogue.rows) == sorted([8, found]) and not catalogue.rejected


@pytest.mark.parametrize(
    ("area", "found"),
    [
        ({"start": "1.5", "end": "2"}, (1.5, 2.0)),
        ({"start": 0, "end": 12}, (0.0, 12.0)),
        ({"start": 0, "end": True}, "no area"),
        ({"start": math.nan, "end": 1}, "no area"),
        ({"end": 1}, "no area"),
        ({"start": 10**400, "end": 1}, "no area"),
        ({"start": 0, "end": 1e308}, "no area"),
        ([0, 1], "no area"),
        ({"start": -1, "end": 1}, "area out of order"),
        ({"start": 1, "end": 1}, "area out of order"),
        ({"start": 11, "end": 12}, "area out of order"),  # the clip lasts 11 s
    ],
)
def test_areas(tmp_path, area, found):
    one_clip(tmp_path, name="good")
    one_clip(tmp_path, name="b", area=area)
    catalogue = read_catalogue(tmp_path)
    if isinstance(found, str):
        assert counts(catalogue.rejected) == {found: 1}
    else:
        assert [(row.onset, row.offset) for row in catalogue.rows if stem(row) == "b"] == [found]


@pytest.mark.parametrize("audio", ["a_label.wav", "a.wav", "a_label.FLAC", "a_1.wav", "z.wav", "z_label.wav", "l.wav"])
def test_names_by_which_audio_is_found(tmp_path, audio):
    one_clip(tmp_path, audio=audio, labelName="l.wav" if audio == "l.wav" else "불\ud800.wav")
    catalogue = read_catalogue(tmp_path)
    assert [os.path.basename(row.wav) for row in catalogue.rows] == [audio] and not catalogue.rejected


def test_audio_of_the_same_name(tmp_path):
    one_clip(tmp_path)
    first = tmp_path / "Training/[원천]5.화재_1/a_label.wav"
    for folder in ("Validation/[원천]5.화재_1", "Training/[원천]11.지진_1"):  # another part, another class
        (tmp_path / folder).mkdir(parents=True)
        shutil.copy(first, tmp_path / folder)
    catalogue = read_catalogue(tmp_path)
    assert [row.wav for row in catalogue.rows] == ["Training/[원천]5.화재_1/a_label.wav"]
    assert counts(catalogue.rejected) == {"duplicate": 1, "audio without JSON": 1}
    (tmp_path / "Training/[원천]5.화재_2").mkdir()
    shutil.copy(first, tmp_path / "Training/[원천]5.화재_2")
    assert counts(read_catalogue(tmp_path).rejected) == {"duplicate": 2, "audio without JSON": 1}
    (tmp_path / "Training/[원천]5.화재_2/a_label.wav").write_bytes(b"\1" * 100)
    with pytest.raises(DataError, match="1 x ambiguous audio"):
        read_catalogue(tmp_path)


def test_audio_of_a_rejected_json_is_not_counted_again(tmp_path):
    one_clip(tmp_path, name="good")
    path = one_clip(tmp_path, area=None)
    assert counts(read_catalogue(tmp_path).rejected) == {"no area": 1}
    for place in range(2):
        (path.parent / f"{place}").mkdir()
        (path.parent / f"{place}" / "a_label.wav").write_bytes(bytes(100))
    assert counts(read_catalogue(tmp_path).rejected) == {"no area": 1, "duplicate": 2}


def test_a_copied_folder_gives_duplicates_alone(small, tmp_path):
    for tag in ("[라벨]2.강도범죄", "[원천]2.강도범죄_1"):
        folder = small.folder / "Training" / tag
        shutil.copytree(folder, folder.with_name(tag.replace("2.", "15.")))
    catalogue = read_catalogue(small.folder, controls=small.controls)
    assert len(catalogue.rows) == len(small.truth) and counts(catalogue.rejected) == {"duplicate": 1}


def test_two_annotations_of_one_recording(tmp_path):
    """As in AI Hub's city sounds, each has its own audio."""
    path = one_clip(tmp_path, audio="a_4.wav")
    content = json.loads(path.read_text(encoding="utf-8"))
    content["annotations"] = [content["annotations"][0] | {"labelName": f"a_{place}.wav"} for place in (1, 2, 3)]
    path.write_text(json.dumps(content), encoding="utf-8")
    for place in (1, 2):
        (path.parent / f"a_{place}.wav").write_bytes(bytes(100 + place))
    catalogue = read_catalogue(tmp_path)
    assert [stem(row) for row in catalogue.rows] == ["a_1", "a_2"]
    assert counts(catalogue.rejected) == {"missing audio": 1}  # the third may mean a_4.wav
    for place, annotation in enumerate(content["annotations"]):
        annotation |= {"labelName": "a_4.wav", "area": {"start": place, "end": 5}}
    path.write_text(json.dumps(content), encoding="utf-8")
    catalogue = read_catalogue(tmp_path)
    assert [row.onset for row in catalogue.rows] == [0.0] and counts(catalogue.rejected) == {"second annotation": 2}


def test_clips_that_are_alike_are_no_copies(tmp_path, small):
    """They are numbered from 1 in each folder, have the same length, and no line or area that distinguishes them."""
    for place in range(3):
        (tmp_path / f"세탁기/{place}").mkdir(parents=True)
        (tmp_path / f"세탁기/{place}/1.wav").write_bytes(bytes([place % 2]) * 100)
    catalogue = read_catalogue(small.folder, controls=[tmp_path / "세탁기"])
    assert [row.wav for row in catalogue.rows if row.root == 1] == ["0/1.wav", "1/1.wav"]
    assert catalogue.rejected == (("duplicate", "2/1.wav"),)


@pytest.mark.parametrize(
    ("note", "line"),
    [
        ("살려주세요", "살려주세요"),
        ("  불이야!\n 불이야! ", "불이야! 불이야!"),
        ("[비명] 살려 (울음) 주세요 <소음> {잡음}（쿵）", "살려 주세요"),
        ("(비명)", ""),
        ("없음", ""),
        (None, ""),
        (3, ""),
        ("불이야\ud800", "불이야?"),
        ("(끝나지 않은 괄호", "(끝나지 않은 괄호"),
        ("(119)/(일일구)에 신고해 (지금) 주세요", "119에 신고해 주세요"),  # (written form)/(spoken form)
    ],
)
def test_lines(tmp_path, note, line):
    one_clip(tmp_path, note=unicodedata.normalize("NFD", note) if isinstance(note, str) else note)
    (row,) = read_catalogue(tmp_path).rows
    assert row.line == line


def test_folder_names_in_cp949(tmp_path):
    one_clip(tmp_path, categories={})
    try:
        os.rename(os.fsencode(tmp_path / "Training/[라벨]5.화재"),
                  os.fsencode(tmp_path / "Training") + "/[라벨]5.화재".encode("cp949"))  # fmt: skip
    except OSError:
        pytest.skip("this file system takes UTF-8 alone")
    (tmp_path / "Training").joinpath("x").mkdir()
    (row,) = read_catalogue(tmp_path).rows
    assert row.number == 8
    ranks = split_source([row] * 3, 0)  # names that are not valid UTF-8 can be hashed
    assert sum(map(len, ranks.values())) == 3


def test_controls_hold_normal_classes_alone(small, tmp_path):
    for name in ("화재", "외계인", "세탁기"):
        folder = tmp_path / "own" / name
        folder.mkdir(parents=True)
        (folder / f"{name}.mp3").write_bytes(bytes(100))
        (folder / f"{name}.wav").write_bytes(bytes(44))
    catalogue = read_catalogue(small.folder, controls=[tmp_path / "own"])
    assert [row.number for row in catalogue.rows if row.root == 1] == [17]
    assert counts(catalogue.rejected) == {"unknown class": 2, "not a control class": 2, "empty audio": 1}
    # Emergencies in AI Hub's format are not controls either.
    again = read_catalogue(small.folder, controls=[small.folder])
    assert counts(again.rejected) == {"not a control class": 2 * 14, "duplicate": 2 * 2}
    # The layout of AI Hub's noisy speech: SD is the same take without the noise.
    for name in ("01_SN", "01_SD", "02_SD"):
        (tmp_path / "noisy/01.세탁기, 건조기").mkdir(parents=True, exist_ok=True)
        (tmp_path / f"noisy/01.세탁기, 건조기/{name}.wav").write_bytes(bytes(100) + name.encode())
    catalogue = read_catalogue(small.folder, controls=[tmp_path / "noisy"])
    assert [stem(row) for row in catalogue.rows if row.root == 1] == ["01_SN", "02_SD"]
    assert counts(catalogue.rejected) == {"duplicate": 1} and catalogue.rows[-1].number == 17
    # The innermost folder determines the class.
    (tmp_path / "own" / "실내" / "청소기" / "2021").mkdir(parents=True)
    (tmp_path / "own" / "실내" / "청소기" / "2021" / "a.wav").write_bytes(bytes(100))
    catalogue = read_catalogue(small.folder, controls=[tmp_path / "own"])
    assert [row.number for row in catalogue.rows if row.root == 1] == [17, 18]
    # The root itself may be the folder of a class.
    catalogue = read_catalogue(small.folder, controls=[tmp_path / "own" / "세탁기"])
    assert [row.number for row in catalogue.rows if row.root == 1] == [17]


def test_a_missing_folder_says_where_to_apply(tmp_path, small):
    with pytest.raises(DataError, match=r"위급상황 음성/음향.*number 170.*AI Hub.*<data root>/aihub/.*Training/"):
        read_catalogue(tmp_path / "nowhere")
    with pytest.raises(DataError, match="named in controls="):
        read_catalogue(small.folder, controls=[tmp_path / "nowhere"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no clip that can be used .no files.*unpacked.*number 170"):
        read_catalogue(tmp_path / "empty")
    (tmp_path / "empty" / "화재.zip").touch()
    with pytest.raises(DataError, match="1 x neither audio nor JSON"):
        read_catalogue(tmp_path / "empty")


# --- Splits -------------------------------------------------------------------------------------


def rows_of(numbers, parts=("Training",), lines=("",), speakers=(("", "", ""),)):
    return [
        Row(0, f"{i}.json", f"{i}.wav", int(number), 0.0, 1.0, lines[i % len(lines)], speakers[i % len(speakers)],
            part=parts[i % len(parts)])
        for i, number in enumerate(numbers)
    ]  # fmt: skip


def assert_apart(splits, count):
    assert list(splits) == ["train", "validation", "test"]
    together = np.concatenate(list(splits.values()))
    assert len(set(together.tolist())) == len(together) == count


@pytest.mark.parametrize("more", [0, 5000])
def test_the_numbers_of_the_source(more):
    rows = rows_of(np.random.default_rng(0).integers(1, 20, 78_616 + more), parts=("Training",) * 7 + ("Validation",))
    splits = split_source(rows, seed=1)
    assert {split: len(indices) for split, indices in splits.items()} == SOURCE
    assert_apart(splits, 78_616)
    if not more:
        tested = set(splits["test"].tolist())
        assert all(index in tested for index, row in enumerate(rows) if row.part == "Validation")


def test_a_smaller_set_is_split_in_the_same_shares_class_by_class():
    rows = rows_of([number for number in NORMAL for _ in range(2000 + 300 * number)])
    splits = split_source(rows, seed=0)
    assert_apart(splits, len(rows))
    for split, share in (("test", 12_102 / 78_616), ("validation", 666 / 78_616)):
        assert len(splits[split]) == pytest.approx(share * len(rows), abs=1)
        for number in NORMAL:
            found = sum(rows[index].number == number for index in splits[split])
            assert found == pytest.approx(share * (2000 + 300 * number), abs=1.5)


def test_the_first_indices_mix_the_classes():
    rows = rows_of(np.repeat(range(1, 20), 100))
    for split in (split_source, split_strict):
        assert len({rows[index].number for index in split(rows, 0)["train"][:100]}) > 15


ROWS = st.lists(
    st.builds(
        Row, st.just(0), st.just(""), st.integers(0, 40).map("{}.wav".format), st.sampled_from([1, 2, 15]),
        st.just(0.0), st.just(1.0),
        st.sampled_from(["", "", "", "불이야", "불이야!", "불 이야", "Help", "help", "도와 줘", "아"]),
        st.sampled_from([("", "", ""), ("여", "20대", "경상"), ("남", "", "")]),
        part=st.sampled_from(["Training", "Validation", ""]),
    ), min_size=3, max_size=60, unique_by=lambda row: (row.wav, row.number, row.part),
)  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(ROWS, st.integers(0, 5), st.randoms(use_true_random=False))
def test_splits_hold_every_clip_once_and_do_not_depend_on_the_order(rows, seed, random):
    shuffled = list(rows)
    random.shuffle(shuffled)
    for split in (split_source, split_strict):
        splits, again = split(rows, seed), split(shuffled, seed)
        assert_apart(splits, len(rows))
        for name in SOURCE:
            assert [rows[index] for index in splits[name]] == [shuffled[index] for index in again[name]]


@settings(max_examples=100, deadline=None)
@given(ROWS, st.integers(0, 5))
def test_no_line_and_no_speaker_of_a_line_is_on_two_sides(rows, seed):
    where = {index: name for name, indices in split_strict(rows, seed).items() for index in indices}
    sides = {}
    for index, row in enumerate(rows):
        line = "".join(filter(str.isalnum, row.line)).lower()
        keys = [("line", line), ("speaker and line", row.speaker, line)] if line else []
        if not line:
            keys = [
                ("speaker without a line", row.number, row.speaker)
                if any(row.speaker)
                else ("file", row.json or row.wav)
            ]
        for key in keys:
            assert sides.setdefault(key, where[index]) == where[index], key


def test_strict_shares_come_close_for_every_class(monkeypatch):
    monkeypatch.setattr(aihub_splits, "STRICT_SHARES", (0.6, 0.2, 0.2))
    rng = np.random.default_rng(0)
    lines = [f"{rng.integers(10**9)}" for _ in range(200)]
    rows = [dataclasses.replace(row, line=lines[rng.integers(10) * 19 + row.number - 1])
            for row in rows_of(rng.integers(1, 20, 6000))]  # fmt: skip
    splits = split_strict(rows, 0)
    for number in range(1, 20):
        total = sum(row.number == number for row in rows)
        for split, share in zip(SOURCE, (0.6, 0.2, 0.2), strict=True):
            # Each class has ten lines, each with about a tenth of its clips.
            found = sum(rows[index].number == number for index in splits[split])
            assert found / total == pytest.approx(share, abs=0.12)


def test_seeds_give_other_splits():
    rows = rows_of(np.repeat(range(1, 20), 30), lines=[f"{i}" for i in range(171)])
    for split in (split_source, split_strict):
        assert set(split(rows, 0)["test"].tolist()) != set(split(rows, 1)["test"].tolist())


# --- Preparation --------------------------------------------------------------------------------


@pytest.fixture
def shards_of_five(monkeypatch):
    monkeypatch.setattr(aihub_shards, "_SHARD", 5)


def everything(catalogue):
    return np.arange(len(catalogue.rows))


def count_decoding(monkeypatch, limit=10**9):
    """Return a list that grows with every decoded clip; after `limit` of them, the run is interrupted."""
    seen = []

    def counted(path, *, seconds=None):
        if len(seen) == limit:
            raise KeyboardInterrupt
        seen.append(path)
        return decode(path, seconds=seconds)

    monkeypatch.setattr(aihub_shards, "decode", counted)
    return seen


def test_prepared_clips_begin_with_the_area(whole, tmp_path, shards_of_five):
    _, catalogue = whole
    for split, indices in split_strict(catalogue.rows, 0).items():
        prepared = prepare(catalogue, indices, tmp_path / split, seconds=0.25)
        assert isinstance(prepared.samples, np.memmap) and prepared.rejected == ()
        assert prepared.samples.shape == (len(indices), 4000) and prepared.samples.dtype == np.int16
        for index, row, clip in zip(indices, prepared.rows, prepared.samples, strict=True):
            source = catalogue.rows[index]
            first = min(round(source.onset * 16_000), 8000 - 4000)  # a file lasts 0.5 s
            np.testing.assert_array_equal(clip, decode(catalogue.path(source))[first:][:4000])
            assert row.onset == pytest.approx(source.onset - first / 16_000, abs=1e-6)
            assert row.offset == pytest.approx(min(source.offset - first / 16_000, 0.25), abs=1e-6)
            assert dataclasses.replace(row, onset=source.onset, offset=source.offset) == source


def test_the_truth_can_be_heard_where_the_rows_say(whole, tmp_path):
    """The tones of the mock data are 20 times as loud as the noise before and after them."""
    _, catalogue = whole
    prepared = prepare(catalogue, everything(catalogue), tmp_path, seconds=0.6)
    for row, clip in zip(prepared.rows, prepared.samples.astype(np.float64), strict=True):
        if row.root == 2:  # no area is known
            continue
        inside = slice(round(row.onset * 16_000) + 20, round(row.offset * 16_000) - 20)
        loud = np.sqrt(np.mean(clip[inside] ** 2))
        outside = np.concatenate([clip[: max(inside.start - 40, 0)], clip[inside.stop + 40 :]])
        assert np.sqrt(np.mean(outside**2)) < loud / 5
        assert not clip[8000:].any()  # beyond the end of the file


def test_a_killed_run_goes_on_behind_its_last_finished_shard(whole, tmp_path, shards_of_five, monkeypatch):
    _, catalogue = whole
    indices = everything(catalogue)
    at_once = prepare(catalogue, indices, tmp_path / "at once", seconds=0.25)
    count_decoding(monkeypatch, limit=23)
    with pytest.raises(KeyboardInterrupt):
        prepare(catalogue, indices, tmp_path / "resumed", seconds=0.25)
    with (tmp_path / "resumed/samples.int16").open("ab") as file:
        file.write(b"left by kill -9")
    seen = count_decoding(monkeypatch)
    resumed = prepare(catalogue, indices, tmp_path / "resumed", seconds=0.25)
    assert len(seen) == len(catalogue.rows) - 20
    assert resumed.rows == at_once.rows and np.array_equal(resumed.samples, at_once.samples)
    files = [path.name for path in (tmp_path / "at once").iterdir() if path.name != ".lock"]
    assert len(files) == 16 + 1
    for name in files:
        assert (tmp_path / "at once" / name).read_bytes() == (tmp_path / "resumed" / name).read_bytes()
    seen.clear()
    prepare(catalogue, indices, tmp_path / "resumed", seconds=0.25)
    assert not seen


def test_a_killed_change_of_settings_leaves_no_mixture(whole, tmp_path, shards_of_five, monkeypatch):
    _, catalogue = whole
    prepare(catalogue, everything(catalogue), tmp_path, seconds=0.25)
    count_decoding(monkeypatch, limit=7)
    with pytest.raises(KeyboardInterrupt):
        prepare(catalogue, everything(catalogue), tmp_path, seconds=0.2)
    seen = count_decoding(monkeypatch)
    again = prepare(catalogue, everything(catalogue), tmp_path, seconds=0.2)
    assert len(seen) == len(catalogue.rows) - 5
    other = prepare(catalogue, everything(catalogue), tmp_path / "other", seconds=0.2)
    assert again.rows == other.rows and np.array_equal(again.samples, other.samples)


@pytest.mark.parametrize("what", ["samples", "record", "record gone", "short", "gone"])
def test_a_damaged_shard_is_noticed_and_made_again(whole, tmp_path, shards_of_five, monkeypatch, what):
    _, catalogue = whole
    sound = prepare(catalogue, everything(catalogue), tmp_path, seconds=0.25).samples.copy()
    record, samples = tmp_path / "00002.json", tmp_path / "samples.int16"
    data = bytearray(samples.read_bytes())
    if "gone" in what:
        (record if what == "record gone" else samples).unlink()
    elif what == "record":
        record.write_bytes(record.read_bytes().replace(b"Training", b"training", 1))
    else:
        data[10 * 8000] ^= 1
        samples.write_bytes(data[: -2 if what == "short" else None])
    seen = count_decoding(monkeypatch)
    again = prepare(catalogue, everything(catalogue), tmp_path, seconds=0.25)
    assert np.array_equal(again.samples, sound)
    last = len(catalogue.rows) % 5 or 5
    assert len(seen) == {"gone": len(catalogue.rows), "short": 5 + last}.get(what, 5)


def test_changed_sources_labels_and_settings_are_noticed(small, tmp_path, shards_of_five, monkeypatch):
    catalogue = read_catalogue(small.folder, controls=small.controls)
    out = tmp_path / "out"
    seen = count_decoding(monkeypatch)

    def again(catalogue=catalogue, **settings) -> int:
        seen.clear()
        prepare(catalogue, everything(catalogue), out, **{"seconds": 0.25} | settings)
        return len(seen)

    assert again() == 38 and again() == 0
    path = catalogue.path(catalogue.rows[7])
    os.utime(path, ns=(0, 0))
    assert again() == 5  # all clips of its shard
    path.write_bytes(path.read_bytes() + b"..")
    assert again() == 5
    other = dataclasses.replace(catalogue.rows[30], line="다른 말")
    changed = dataclasses.replace(catalogue, rows=(*catalogue.rows[:30], other, *catalogue.rows[31:]))
    assert again(changed) == 5
    assert prepare(changed, everything(changed), out, seconds=0.25).rows[30].line == "다른 말"
    assert again(changed, seconds=0.3) == 38
    fewer = dataclasses.replace(changed, rows=changed.rows[:10])
    assert again(fewer, seconds=0.3) == 0
    assert len(prepare(fewer, everything(fewer), out, seconds=0.3).rows) == 10
    assert (out / "samples.int16").stat().st_size == 10 * 2 * 4800


def test_what_cannot_be_decoded_is_counted(small, tmp_path, shards_of_five):
    catalogue = read_catalogue(small.folder, controls=small.controls)
    catalogue.path(catalogue.rows[0]).write_bytes(b"no sound at all " * 10)
    catalogue.path(catalogue.rows[1]).unlink()
    behind = dataclasses.replace(catalogue.rows[2], onset=5.0, offset=6.0)
    catalogue = dataclasses.replace(catalogue, rows=(*catalogue.rows[:2], behind, *catalogue.rows[3:]))
    prepared = prepare(catalogue, everything(catalogue), tmp_path / "out", seconds=0.25)
    assert len(prepared.rows) == len(prepared.samples) == len(catalogue.rows) - 3
    reasons = [reason for reason, _ in prepared.rejected]
    assert len(reasons) == 3 and reasons[1:] == ["missing", aihub.OUTSIDE]
    assert [name for _, name in prepared.rejected] == [row.wav for row in catalogue.rows[:3]]
    np.testing.assert_array_equal(prepared.samples[0], _window_of(catalogue, 3))


def _window_of(catalogue, index):
    row = catalogue.rows[index]
    return decode(catalogue.path(row))[min(round(row.onset * 16_000), 4000) :][:4000]


def test_a_shard_of_rejected_clips_and_an_empty_split(small, tmp_path, shards_of_five):
    catalogue = read_catalogue(small.folder, controls=small.controls)
    for row in catalogue.rows[:5]:
        catalogue.path(row).unlink()
    prepared = prepare(catalogue, everything(catalogue), tmp_path / "out", seconds=0.25)
    assert len(prepared.samples) == len(catalogue.rows) - 5
    np.testing.assert_array_equal(prepared.samples[0], _window_of(catalogue, 5))
    assert prepare(catalogue, [], tmp_path / "none", seconds=0.25).samples.shape == (0, 4000)


def test_what_is_written_to_the_samples_stays_in_memory(whole, tmp_path):
    _, catalogue = whole
    prepared = prepare(catalogue, [0, 1], tmp_path, seconds=0.25)
    before = prepared.samples.copy()
    prepared.samples[:] = 0
    assert np.array_equal(prepare(catalogue, [0, 1], tmp_path, seconds=0.25).samples, before)


def test_memory_does_not_grow_with_the_number_of_clips(whole, tmp_path, monkeypatch):
    _, catalogue = whole
    monkeypatch.setattr(aihub_shards, "_SHARD", 4)
    peaks = []
    for count in (8, 8, 72):  # the first only warms caches
        tracemalloc.start()
        prepare(catalogue, range(count), tmp_path / f"{len(peaks)}", seconds=30)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] < 1.3 * peaks[1]
    assert peaks[1] < 2 * 4 * 30 * 16_000 * 2  # two shards


def test_a_file_that_may_not_be_read_stops_the_run(whole, tmp_path, monkeypatch):
    _, catalogue = whole

    def fail(path, *, seconds=None):
        raise Unreadable(f"{path} cannot be read.", "no access")

    monkeypatch.setattr(aihub_shards, "decode", fail)
    with pytest.raises(DataError, match="wav cannot be read"):
        prepare(catalogue, [0], tmp_path, seconds=4)


def test_bad_arguments(whole, tmp_path):
    _, catalogue = whole
    for bad in (0, math.nan, 100):
        with pytest.raises(ValueError, match="seconds"):
            prepare(catalogue, [0], tmp_path, seconds=bad)
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot be written.*Make room"):
        prepare(catalogue, [0], tmp_path / "file", seconds=4)


def test_the_look_alike_is_what_the_readers_of_the_set_describe(whole):
    tree, _ = whole
    names = list(FOLDERS)
    assert [names.index(name) + 1 for name in ("화재", "갇힘", "전기사고", "도움요청", "실내")] == [5, 6, 8, 14, 15]
    labels = sorted(path.name for path in (tree.folder / "Training").iterdir())
    assert "[라벨]5.화재" in labels and {"[원천]15.실내_1", "[원천]15.실내_2", "[원천]5.화재_1"} <= set(labels)
    label = tree.folder / "Training/[라벨]5.화재/5.화재_1.json"
    sound = tree.folder / "Training/[원천]5.화재_1/5.화재_1_label.wav"
    content = json.loads(label.read_text(encoding="utf-8"))
    assert set(content["audio"]) == {"fileName", "fileSize", "duration"}
    assert content["audio"]["fileSize"] == sound.stat().st_size == 44 + RATE
    assert set(content["annotations"][0]) == {
        "audio_id", "area", "categories", "note", "audioType", "gender", "generation", "dialect",
    }  # fmt: skip
