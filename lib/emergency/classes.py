"""The 19 classes of study 4 (위급상황 음성 인식), and 0 for silence.

The numbers are those of the source. Data sets number their folders differently (fire is 5 at AI Hub and
8 in the source), so classes are always looked up by name, with `find`.
"""

import re
import unicodedata
from dataclasses import dataclass


@dataclass(frozen=True)
class SoundClass:
    """A class. number: 0..19. group: that of the source. aliases: other names that data sets may use."""

    number: int
    name: str
    korean: str
    group: str
    emergency: bool
    aliases: tuple[str, ...] = ()


CLASSES = (
    SoundClass(0, "silence", "무음", "silence", False),
    # 치안안전
    SoundClass(1, "sexual assault", "강제추행", "safety", True, ("성범죄", "forcible molestation")),
    SoundClass(2, "robbery", "강도범죄", "safety", True, ("강도",)),
    SoundClass(3, "theft", "절도범죄", "safety", True, ("절도",)),
    SoundClass(4, "violence", "폭력범죄", "safety", True, ("폭력", "assault")),
    # 소방안전
    SoundClass(5, "confinement", "갇힘", "fire", True, ("trapped",)),
    SoundClass(6, "electrical accident", "전기사고", "fire", True, ("전기", "electrical")),
    SoundClass(7, "gas accident", "가스사고", "fire", True, ("가스", "gas")),
    SoundClass(8, "fire", "화재", "fire", True),
    SoundClass(9, "medical emergency", "응급의료", "fire", True, ("medical",)),
    # 자연재해
    SoundClass(10, "typhoon", "태풍/강풍", "disaster", True, ("태풍", "강풍", "strong wind")),
    SoundClass(11, "earthquake", "지진", "disaster", True),
    # 사고 발생
    SoundClass(12, "fall", "낙상", "accident", True),
    SoundClass(13, "collapse", "붕괴사고", "accident", True, ("붕괴",)),
    # 일반(위급), 일반(정상)
    SoundClass(14, "call for help", "도움요청", "general", True, ("help",)),
    SoundClass(15, "indoor", "실내", "normal", False),
    SoundClass(16, "outdoor", "실외", "normal", False),
    SoundClass(
        17,
        "washer and dryer",
        "가전소음_세탁기, 건조기",
        "normal",
        False,
        ("세탁기", "건조기", "세탁기, 건조기", "washer"),
    ),
    SoundClass(18, "vacuum cleaner", "가전소음_청소기", "normal", False, ("청소기", "진공청소기", "vacuum")),
    SoundClass(19, "other appliances", "가전소음_기타소음", "normal", False, ("기타소음", "appliances")),
)
NAMES = tuple(row.name for row in CLASSES)
EMERGENCY = tuple(row.number for row in CLASSES if row.emergency)
NORMAL = tuple(row.number for row in CLASSES if row.group == "normal")


def find(name: str) -> SoundClass | None:
    """Return the class called `name` in English or Korean (NFC or NFD), ignoring case, spaces and punctuation, or None.

    Text that data sets add to a name is ignored: "[라벨]5.화재_2" is fire. A number alone never identifies a class.
    """
    return _BY_NAME.get(_plain(name))


def _plain(name: str) -> str:
    name = unicodedata.normalize("NFC", name).casefold().strip()
    name = re.sub(r"\[[^\]]*\]|\([^)]*\)", "", name).strip()  # [라벨], (성범죄)
    name = re.sub(r"^\d+\s*[._)\- ]\s*", "", name)  # 5.
    name = re.sub(r"_\d+$", "", name)  # part _2 of a folder
    return re.sub(r"[\W_]+", "", name)


_BY_NAME = {_plain(name): row for row in CLASSES for name in (row.name, row.korean, *row.aliases)}
