import unicodedata

import pytest

from lib.emergency.classes import CLASSES, EMERGENCY, NAMES, NORMAL, find


def test_numbers_groups_and_emergencies_are_those_of_the_source():
    assert [row.number for row in CLASSES] == list(range(20))
    assert tuple(range(1, 15)) == EMERGENCY and tuple(range(15, 20)) == NORMAL
    groups = {row.group: [one.number for one in CLASSES if one.group == row.group] for row in CLASSES}
    assert len(groups) == 7
    assert groups["safety"] == [1, 2, 3, 4] and groups["fire"] == [5, 6, 7, 8, 9]
    assert groups["disaster"] == [10, 11] and groups["accident"] == [12, 13] and groups["general"] == [14]
    assert CLASSES[0].name == "silence"


def test_every_name_is_another():
    assert len(set(NAMES)) == len({row.korean for row in CLASSES}) == 20


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_found_by_name_in_both_languages(form):
    for row in CLASSES:
        for name in (row.name, row.name.upper(), row.korean, f" {row.korean} ", *row.aliases):
            assert find(unicodedata.normalize(form, name)) is row, name


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("5.화재", 8),  # AI Hub numbers its folders differently
        ("[라벨]5.화재_2", 8),
        ("[원천]1.강제추행(성범죄)_1", 1),
        ("12.태풍-강풍", 10),
        ("8. 전기사고", 6),
        ("가전소음_세탁기,건조기", 17),
        ("Vacuum_Cleaner", 18),
    ],
)
def test_folders_are_found_by_their_name_not_by_their_number(name, number):
    assert find(name).number == number
    assert find(unicodedata.normalize("NFD", name)).number == number


@pytest.mark.parametrize("name", ["", "5", "5.", "소리", "fires"])
def test_unknown_names(name):
    assert find(name) is None
