"""An imitation of AI Hub's emergency set and its controls: folders, JSON and WAV files, with synthetic sounds.

A clip is a modulated tone of its class in noise, enough for a classifier to learn the classes.
"""

import json
import unicodedata
import wave
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lib.emergency.classes import EMERGENCY
from lib.emergency.synthesis.lines import CORES

RATE = 44_100

# AI Hub's folder -> class number of the source, in AI Hub's order, which differs from the source's.
FOLDERS = {
    "강제추행(성범죄)": 1, "강도범죄": 2, "절도범죄": 3, "폭력범죄": 4, "화재": 8, "갇힘": 5, "응급의료": 9,
    "전기사고": 6, "가스사고": 7, "낙상": 12, "붕괴사고": 13, "태풍-강풍": 10, "지진": 11, "도움요청": 14,
    "실내": 15, "실외": 16,
}  # fmt: skip
CITY = {"6.가전/13.세탁기": 17, "6.가전/12.청소기": 18}  # AI Hub's city sounds
PLAIN = {"가전소음_기타소음": 19}  # a user's own folder
PARTS = {15: 2}  # number of audio folders of a class, if not 1

# Ways to break a clip -> the reason for its rejection, or None if it must still be read.
BROKEN = {
    "cut JSON": "unreadable JSON",
    "list JSON": "no annotation",
    "no annotations": "no annotation",
    "CP949 JSON": None,
    "BOM JSON": None,
    "UTF-16 JSON": None,
    "unknown class": "unknown class",
    "other class": "classes disagree",
    "no area": "no area",
    "area backwards": "area out of order",
    "area behind the end": "area out of order",
    "no WAV": "missing audio",
    "header only": "empty audio",
    "copied JSON": "duplicate",
    "no JSON": "audio without JSON",
}
TRUNCATED = "truncated WAV"  # in the catalogue, but it may not decode


@dataclass(frozen=True)
class Truth:
    number: int
    onset: float
    offset: float
    line: str
    speaker: tuple[str, str, str]
    kind: str
    fine: str
    part: str


@dataclass(frozen=True)
class Tree:
    """folder: AI Hub's set. controls: folders of control sounds. truth: stem -> clip. rejected: reason -> count."""

    folder: Path
    controls: tuple[Path, ...]
    truth: dict[str, Truth]
    rejected: dict[str, int]


def make_tree(
    folder: str | Path,
    seed: int = 0,
    per_class: int = 4,
    *,
    seconds: float = 4.0,
    broken: tuple[str, ...] = (),
    form: str = "NFC",
    nested: bool = False,
) -> Tree:
    """Write folder/aihub, folder/city and folder/plain. A quarter of each class is in Validation.

    broken: entries of `BROKEN` or `TRUNCATED`, each applied to one clip. form: normal form of folder and
    file names, "NFC" or "NFD". nested: each folder lies in another of the same name.
    """
    draw = np.random.default_rng(seed)
    folder = Path(folder)
    truth, rejected = {}, {}
    damage = list(broken)
    for tag, (name, number) in enumerate(FOLDERS.items(), 1):
        for place in range(per_class):
            part = _part(place, per_class)
            labels, sounds = f"[라벨]{tag}.{name}", f"[원천]{tag}.{name}_{1 + place % PARTS.get(number, 1)}"
            if nested:
                labels, sounds = f"{labels}/{labels}", f"{sounds}/{sounds}"
            stem = f"{tag}.{name}_{place + 1}"
            clip, samples = _clip(draw, number, part, place, seconds)
            content = _content(stem, clip, len(samples), name)
            base = folder / "aihub" / part
            label = base / _form(f"{labels}/{stem}.json", form)
            sound = base / _form(f"{sounds}/{stem}_label.wav", form)
            what = damage.pop(0) if damage and place == 0 else ""
            reason = BROKEN.get(what)
            _write_wav(sound, samples)
            _write_json(label, content)
            if what:
                _break(what, label, sound, content)
            if reason:
                rejected[reason] = rejected.get(reason, 0) + 1
            if reason in (None, "duplicate"):
                truth[stem] = clip
    if damage:
        raise ValueError(f"No clip is left to break: {damage}.")
    for path, number in CITY.items():
        for place in range(per_class):
            part, stem = _part(place, per_class), f"{path[-3:]}_{place + 1}"
            clip, samples = _clip(draw, number, part, place, seconds)
            content = _content(stem, clip, len(samples), path.rpartition(".")[2])
            content["annotations"][0]["labelName"] = f"{stem}_1.wav"
            base = folder / "city" / part
            _write_json(base / _form(f"label/{path}/{stem}.json", form), content)
            _write_wav(base / _form(f"source/{path}/{stem}_1.wav", form), samples)
            truth[f"{stem}_1"] = clip
    for name, number in PLAIN.items():
        for place in range(per_class):
            stem = f"recording {place + 1}"
            _write_wav(folder / "plain" / _form(f"{name}/{stem}.wav", form),
                       _clip(draw, number, "", place, seconds)[1])  # fmt: skip
            truth[stem] = Truth(number, 0.0, np.inf, "", ("", "", ""), "", "", "")
    return Tree(folder / "aihub", (folder / "city", folder / "plain"), truth, rejected)


def _part(place: int, per_class: int) -> str:
    return "Validation" if place >= per_class - max(per_class // 4, per_class > 1) else "Training"


def _form(path: str, form: str) -> str:
    return unicodedata.normalize(form, path)


def _clip(draw, number: int, part: str, place: int, seconds: float) -> tuple[Truth, np.ndarray]:
    """Return a clip and its samples: noise, with the tone of its class from onset to offset."""
    n = round(seconds * RATE)
    onset = round(draw.uniform(0, 0.3) * seconds, 3)
    offset = round(draw.uniform(0.6, 1) * seconds, 3)
    spoken = number < 15 and place % 2 == 0
    lines = [line for side in CORES[number] for line in side] if spoken else [""]
    speaker = tuple(str(draw.choice(words)) for words in (("남", "여"), ("20대", "40대", "60대"), ("표준", "경상")))
    clip = Truth(number, onset, offset, lines[place // 2 % len(lines)], speaker if spoken else ("", "", ""),
                 "음성" if spoken else "비음성", f"소리{place % 3}", part)  # fmt: skip
    time = np.arange(n, dtype=np.float32) / RATE
    samples = draw.standard_normal(n, np.float32) * 300
    inside = slice(round(onset * RATE), round(offset * RATE))
    pitch = 150 * 1.2**number * draw.uniform(0.97, 1.03)
    tone = np.sin(np.float32(2 * np.pi * pitch) * time[inside])
    samples[inside] += 6000 * tone * (1 + np.sin(np.float32(2 * np.pi * (1 + number % 5)) * time[inside]))
    return clip, np.rint(samples).clip(-32768, 32767).astype("<i2")


def _content(stem: str, clip: Truth, n: int, name: str) -> dict:
    annotation = {
        "audio_id": stem,
        "area": {"start": clip.onset, "end": clip.offset},
        "categories": {
            "category_01": "위급" if clip.number in EMERGENCY else "정상",
            "category_02": name,
            "category_03": f"{name}_{clip.fine}",
        },
        "note": f"[효과음] {clip.line} (울먹이며)" if clip.line else "",
        "audioType": clip.kind,
    }
    if any(clip.speaker):
        annotation |= dict(zip(("gender", "generation", "dialect"), clip.speaker, strict=True))
    return {
        "audio": {"fileName": stem, "fileSize": 44 + 2 * n, "duration": round(n / RATE, 3)},
        "annotations": [annotation],
    }


def _write_json(path: Path, content: object, encoding: str = "utf-8") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(json.dumps(content, ensure_ascii=False, indent=1).encode(encoding))


def _write_wav(path: Path, samples: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file, wave.open(file) as sound:
        sound.setparams((1, 2, RATE, 0, "NONE", ""))
        sound.writeframes(samples.tobytes())


def _break(what: str, label: Path, sound: Path, content: dict) -> None:
    annotation = content["annotations"][0]
    if what == "cut JSON":
        label.write_bytes(label.read_bytes()[:100])
    elif what == "list JSON":
        _write_json(label, [content])
    elif what == "no annotations":
        _write_json(label, content | {"annotations": []})
    elif what in ("CP949 JSON", "BOM JSON", "UTF-16 JSON"):
        _write_json(label, content, {"CP949 JSON": "cp949", "BOM JSON": "utf-8-sig"}.get(what, "utf-16"))
    elif what in ("unknown class", "other class"):
        name = "외계인" if what == "unknown class" else "지진" if "지진" not in label.stem else "화재"
        annotation["categories"] |= {"category_02": name, "category_03": f"{name}_소리"}
        _write_json(label, content)
        if what == "unknown class":  # nor does the folder name a class
            other = label.parent.with_name("[라벨]99.외계인")
            other.mkdir()
            label.rename(other / label.name)
    elif what in ("no area", "area backwards", "area behind the end"):
        start, end, duration = annotation["area"]["start"], annotation["area"]["end"], content["audio"]["duration"]
        annotation["area"] = {"no area": {"start": None}, "area backwards": {"start": end, "end": start}}.get(
            what, {"start": duration, "end": duration + 1}
        )
        _write_json(label, content)
    elif what == "no WAV":
        sound.unlink()
    elif what == "header only":
        sound.write_bytes(sound.read_bytes()[:44])
    elif what == "copied JSON":
        label.with_suffix(".JSON").write_bytes(label.read_bytes())
    elif what == "no JSON":
        label.unlink()
    elif what == TRUNCATED:
        sound.write_bytes(sound.read_bytes()[:1000])
    else:
        raise ValueError(f"broken names {what!r}, expected one of {', '.join((*BROKEN, TRUNCATED))}.")
