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
    aliases: tuple[str, ...] = ()


CLASSES = (
    SoundClass(0, "silence", "무음", "silence"),
    # 치안안전
    SoundClass(1, "sexual assault", "강제추행", "safety", ("성범죄", "forcible molestation")),
    SoundClass(2, "robbery", "강도범죄", "safety", ("강도",)),
    SoundClass(3, "theft", "절도범죄", "safety", ("절도",)),
    SoundClass(4, "violence", "폭력범죄", "safety", ("폭력", "assault")),
    # 소방안전
    SoundClass(5, "confinement", "갇힘", "fire", ("trapped",)),
    SoundClass(6, "electrical accident", "전기사고", "fire", ("전기", "electrical")),
    SoundClass(7, "gas accident", "가스사고", "fire", ("가스", "gas")),
    SoundClass(8, "fire", "화재", "fire"),
    SoundClass(9, "medical emergency", "응급의료", "fire", ("medical",)),
    # 자연재해
    SoundClass(10, "typhoon", "태풍/강풍", "disaster", ("태풍", "강풍", "strong wind")),
    SoundClass(11, "earthquake", "지진", "disaster"),
    # 사고 발생
    SoundClass(12, "fall", "낙상", "accident"),
    SoundClass(13, "collapse", "붕괴사고", "accident", ("붕괴",)),
    # 일반(위급), 일반(정상)
    SoundClass(14, "call for help", "도움요청", "general", ("help",)),
    SoundClass(15, "indoor", "실내", "normal"),
    SoundClass(16, "outdoor", "실외", "normal"),
    SoundClass(
        17, "washer and dryer", "가전소음_세탁기, 건조기", "normal", ("세탁기", "건조기", "세탁기, 건조기", "washer")
    ),
    SoundClass(18, "vacuum cleaner", "가전소음_청소기", "normal", ("청소기", "진공청소기", "vacuum")),
    SoundClass(19, "other appliances", "가전소음_기타소음", "normal", ("기타소음", "appliances")),
)
NAMES = tuple(row.name for row in CLASSES)
EMERGENCY = tuple(row.number for row in CLASSES if row.group not in ("silence", "normal"))
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
