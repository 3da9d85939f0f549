"""The built-in clips of study 4: synthetic emergencies (위급상황) and ordinary scenes with known ground truth.

A clip mixes speech or an event of its class, or both, with a background; one microphone records them in one room.
Its content is known exactly: onsets and offsets, the words, and the energy of each stem in every cell of time and
frequency. Level, room, microphone, timing, length and signal-to-noise ratio are drawn independently of the
class (silence aside), as is the presence of distractors: sounds that may alarm but are harmless.

All clips are synthetic: no result on them shows how well real emergencies are detected.

Clip i depends on (seed, split, i) and on the clip length, so 100 clips are the first 100 of 1,000. The same
versions of NumPy, SciPy and espeak-ng give the same bytes on every run.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial

import numpy as np
import scipy
from scipy import fft

from lib.data import cache
from lib.emergency.classes import CLASSES, EMERGENCY, NORMAL
from lib.emergency.synthesis import events, recordings
from lib.emergency.synthesis.generators import RATE, Draw, fade
from lib.emergency.synthesis.recordings import Recordings, either
from lib.emergency.synthesis.rooms import draw_room, heard, microphone, television
from lib.emergency.synthesis.speech import Bank, speech_bank
from lib.sources import module_hashes

VERSION = "6"
SPLITS = ("train", "validation", "test")
STEMS = ("speech", "event", "background")
BANDS = 40  # bands of the energy: pairs of Whisper's 80 mel bands
CELL = 1280  # samples per time cell of the energy: 8 Whisper frames, 80 ms

# Level of speech over the background noise in dB. A raised voice has 68 dB at one metre, a loud one 75, a shout 82
# (ANSI S3.5-1997); the background in homes is at 40 to 60.
VOICE = 5, 30

_FLOOR = 10 ** (-30 / 10)  # a sound lasts while its power is above this share of its maximum
_MASKED = 10 ** (-10 / 10)  # and above this share of the power of all other sounds at the same time
_SHORTEST = 0.2  # seconds; a label that other sounds cut short lasts at least this long
_FRAME = 160  # samples, for levels and labels: 10 ms


@dataclass(frozen=True)
class Label:
    """A sound from `onset` to `offset` (seconds in the clip, including reverberation down to -30 dB).

    It ends earlier, but not within 0.2 s of its onset, if everything else in the clip is louder by 10 dB from then on.

    kind: "speech", "event" or "distractor". name: the class or the distractor. source: the voice or the family.
    snr: level over the background noise in dB while active, infinite without noise. text: the spoken words.
    """

    onset: float
    offset: float
    kind: str
    name: str
    source: str
    snr: float
    text: str = ""


@dataclass(frozen=True)
class Clip:
    """Ground truth of clip `index` of class `number`. background: the family that generated the background, if any.
    dry: whether the clip is one recording with nothing added.
    """

    index: int
    number: int
    labels: tuple[Label, ...]
    transcript: str
    background: str
    dry: bool = False

    def of(self, kind: str) -> tuple[Label, ...]:
        """Return the labels of `kind`."""
        return tuple(label for label in self.labels if label.kind == kind)


@dataclass(frozen=True)
class Soundscapes:
    """Clips of one stream.

    samples: (N, n) int16 at 16 kHz, as the microphone records them.
    numbers: (N,) int64, the class of the source, 0..19.
    energy: (N, 3, BANDS, cells) float32, power of each of `STEMS` before the microphone (whose filter is the
        same for all), summed over each cell, full scale 1. Relevance maps of Whisper's (80, frames) log-mel
        have the same cells after summing 2 bands x 8 frames.
    stems: (N, 3, n) int16, whose sum is the clip before the microphone; None unless requested.
    recorded: whether recordings are among the sounds.
    digest: SHA-256 of samples and numbers.
    """

    samples: np.ndarray
    numbers: np.ndarray
    clips: tuple[Clip, ...]
    energy: np.ndarray
    stems: np.ndarray | None
    recorded: bool
    digest: str


def draw_soundscapes(
    count: int,
    *,
    seed: int = 0,
    split: str = "train",
    seconds: float = 4.0,
    stems: bool = False,
    recorded: Recordings | None = None,
) -> Soundscapes:
    """Return the first `count` clips of the stream (seed, split), generated once and then read from `build/cache`.

    Every 20 consecutive clips starting at a multiple of 20 contain each class once. Training and test share no voice,
    line, or family of event or distractor generators; validation uses those of training in other scenes, with each
    line in a different voice.

    recorded: recordings of this `split` to use among the events, distractors and backgrounds, and for dry clips in
        training and validation.

    Raises:
        ValueError: seconds is out of range.
    """
    if not 1 <= seconds <= 30:
        raise ValueError(f"seconds is {seconds}, expected 1 to 30.")
    bank, n = speech_bank(split), round(seconds * RATE)
    # The key covers everything that affects the clips except seed and split, which are in the folder's name.
    made_by = module_hashes(__name__, without=("lib.forking", "lib.sources")), np.__version__, scipy.__version__
    key = hashlib.sha256(repr((made_by, bank.digest, n, recorded and recorded.checksum)).encode())
    place = cache.folder("soundscapes") / f"{key.hexdigest()[:16]}-{split}-{seed}{'-stems' if stems else ''}"
    rounds = [partial(_round, place / f"{turn:05d}.npz", turn, seed, split, n, stems, bank, recorded)
              for turn in range(-(-count // len(CLASSES)))]  # fmt: skip
    missing = [partial(_made, one) for one in rounds if not one.args[0].exists()]
    if len(missing) > 1:  # a single round takes less time than starting processes
        from lib.forking import side_by_side  # imports torch, which nothing else here needs

        side_by_side(missing)
    joined, clips = {}, []
    for one in rounds:  # only one round at a time is in memory beside the joined arrays
        arrays, more = one()
        for name, values in arrays.items():
            whole = joined.setdefault(name, np.empty((count, *values.shape[1:]), values.dtype))
            whole[len(clips) : len(clips) + len(values)] = values[: count - len(clips)]
        clips += more[: count - len(clips)]
    numbers = np.array([clip.number for clip in clips], np.int64)
    digest = hashlib.sha256(repr(joined["samples"].shape).encode())
    digest.update(np.ascontiguousarray(joined["samples"], "<i2").data)
    digest.update(numbers.astype("<i8").data)
    return Soundscapes(joined["samples"], numbers, tuple(clips), joined["energy"], joined.get("stems"),
                       recorded is not None, digest.hexdigest())  # fmt: skip


def datasheet(recorded: bool = False) -> dict[str, str]:
    """Return the data sheet that the notebook shows beside results on these clips."""
    sounds = "procedural events and recorded ones of ESC-50 (CC BY-NC 3.0)" if recorded else "procedural events"
    dry = "; a tenth of those of training and validation: one recording as it is" if recorded else ""
    return {
        "what": f"synthetic clips: {sounds}, machine speech, simulated rooms and microphones{dry}",
        "generator": f"version {VERSION}, NumPy {np.__version__}, SciPy {scipy.__version__}",
        "speech": "espeak-ng, Korean",
        "speech SHA-256": speech_bank("train").digest,
        "classes": "19 of the source and silence, in equal numbers",
        "held out for the test": "voices, lines, families of event generators, families of distractors"
        + (", recordings" if recorded else ""),
        "can show": "timing against known onsets, calibration, speed, where relevance lies, failure by level "
        "and distractor, and whether code runs",
        "cannot show": "recall or false alarms on real emergencies, character error rate of real Korean, "
        "how AI Hub's recordings would rank the models",
        "known gaps": "no overlapping talkers, no moving sources, one microphone; espeak-ng's Korean lacks nasal "
        "assimilation and emotion" + ("" if recorded else "; events follow recipes, not recordings"),
    }


# --- Cache --------------------------------------------------------------------------------------


def _made(one: Callable) -> None:
    """Draw one round in a worker process: its clips stay in the cache instead of being sent back."""
    one()


def _round(path, turn, seed, split, n, stems, bank, recorded) -> tuple[dict[str, np.ndarray], list[Clip]]:
    """Return round `turn` of the stream, one clip per class in random order, from the file or drawn and saved."""
    arrays = cache.read(path)
    if arrays is None:
        order = np.argsort(Draw(seed, (SPLITS.index(split), 1, turn)).unit(len(CLASSES)), kind="stable").tolist()
        drawn = [_clip(turn * len(CLASSES) + place, number, seed, split, n, bank, recorded)
                 for place, number in enumerate(order)]  # fmt: skip
        arrays = {name: np.stack([one[name] for one in drawn]) for name in ("samples", "energy", "stems")[: 2 + stems]}
        arrays["clips"] = np.array(json.dumps([asdict(one["clip"]) for one in drawn]))
        cache.keep(path, **arrays)
    rows = json.loads(str(arrays.pop("clips")))
    return arrays, [Clip(**row | {"labels": tuple(Label(**label) for label in row["labels"])}) for row in rows]


# --- Drawing ------------------------------------------------------------------------------------


def _clip(
    index: int, number: int, seed: int, split: str, n: int, bank: Bank, recorded: Recordings | None = None
) -> dict:
    draw = Draw(seed, (SPLITS.index(split), 0, index))
    if split != "test" and (played := recordings.dry(draw, recorded, number, n)):
        return _dry(index, number, *played)
    room = draw_room(draw)
    family = either(draw, events.BACKGROUNDS, recorded, recordings.BACKGROUNDS, recordings.BACKGROUND)
    noise = family(draw, n)
    layers = {name: np.zeros(n) for name in STEMS}
    layers["background"] += noise / _power(noise) ** 0.5
    sounds = []  # labels and what they label

    def add(stem, dry, onset, snr, **label):
        """Play `dry` in the room from `onset` (s, may be negative), `snr` dB over the noise while it is active."""
        wet, delay = heard(draw, dry, room)
        place = round(onset * RATE)
        part = wet[max(-place, 0) : n - place]
        place = max(place, 0)
        if not part.any():
            return
        frames, level = _loud(part)
        alone = np.zeros(n)
        alone[place : place + len(part)] = part * (10 ** (snr / 20) / level)
        layers[stem] += alone
        # A sound cut off by the clip's beginning starts with the clip, any other after its travel time.
        first = max(int(frames[0]) * _FRAME, delay if onset > 0 else 0)
        last = min((int(frames[-1]) + 1) * _FRAME, len(part))
        span = round((place + first) / RATE, 4), round((place + last) / RATE, 4)
        sounds.append((Label(*span, snr=round(snr, 2), **label), alone))

    def say(number):
        """Return a line of a class, up to 7 % faster or slower, an onset where it fits if possible, and its label."""
        lines = bank.utterances[number]
        one = draw.choice([one for one in lines if len(one.samples) < 0.9 * n] or lines)
        length = int(len(one.samples) * draw.between(0.93, 1.07))
        wave = np.interp(np.linspace(0, len(one.samples) - 1, length), np.arange(len(one.samples)), one.samples)
        onset = draw.between(0, max((n - length) / RATE - 0.1, 0))
        return wave, onset, {"source": one.voice, "text": one.text}

    transcript, name = "", CLASSES[number].name
    if number:
        content = draw.unit()
        if content < 0.92:
            recipes, categories = events.FAMILIES[number][split == "test"], recordings.EVENTS.get(number, ())
            source = either(draw, recipes, recorded, categories, recordings.EVENT)
            for _ in range(1 + draw.chance(0.25)):
                length = draw.between(0.8, n / RATE) if draw.chance(0.7) else n / RATE * 1.1
                onset = draw.between(-0.25 * length, n / RATE - 0.6 * length)
                sound = source(draw, round(length * RATE)) * fade(round(length * RATE), 0.002, 0.01)
                # The louder of two draws: a class that is rarely audible cannot be learned.
                snr = max(draw.between(-5, 20), draw.between(-5, 20))
                add("event", sound, onset, snr, kind="event", name=name, source=source.__name__)
        if content > 0.46:
            wave, onset, said = say(number)
            add("speech", wave, onset, draw.between(*VOICE), kind="speech", name=name, **said)
            transcript = said["text"]
        if draw.chance(0.3):
            recipes = events.DISTRACTORS[split == "test"]
            source = either(draw, recipes, recorded, recordings.DISTRACTORS, recordings.DISTRACTOR)
            sound = source(draw, round(draw.between(0.6, 2.0) * RATE))
            onset, snr = draw.between(-0.1, n / RATE - 0.5), draw.between(-5, 20)
            add("background", sound, onset, snr, kind="distractor", name=source.__name__, source=source.__name__)
        if draw.chance(0.25):
            # A television: emergency lines in ordinary scenes, lines of either kind in emergencies.
            wave, onset, said = say(draw.choice(EMERGENCY if number in NORMAL or draw.chance(0.5) else NORMAL))
            snr = draw.between(-5, 12)
            add("background", television(wave), onset, snr, kind="distractor", name="television", **said)

    mixture = sum(layers.values())
    if number:
        scale = 0.9 * 32767 / np.abs(mixture).max()
    else:
        scale = 32767 * 10 ** (draw.between(-60, -40) / 20) / np.sqrt(_power(mixture))
        scale = min(scale, 0.9 * 32767 / np.abs(mixture).max())
    stems = np.stack([np.rint(layers[name] * scale) for name in STEMS])
    samples = microphone(draw, stems.sum(0), quiet=not number)
    labels = [_masked(label, alone, mixture - alone) for label, alone in sounds]
    labels = tuple(sorted(labels, key=lambda label: (label.onset, label.kind)))
    clip = Clip(index, number, labels, transcript, family.__name__)
    return {"samples": samples, "stems": stems.astype(np.int16), "energy": _energy(stems / 32768), "clip": clip}


def _dry(index: int, number: int, category: str, samples: np.ndarray) -> dict:
    """Return the clip `samples`, a recording of `category` without added background, room or microphone."""
    source, labels, behind = f"recorded {category}", (), category in recordings.BACKGROUNDS
    if not behind:
        frames, _ = _loud(samples.astype(np.float64))
        span = int(frames[0]) * _FRAME / RATE, min((int(frames[-1]) + 1) * _FRAME, len(samples)) / RATE
        kind, name = ("event", CLASSES[number].name) if number else ("distractor", source)
        labels = (Label(*(round(time, 4) for time in span), kind, name, source, snr=np.inf),)
    stems = np.zeros((len(STEMS), len(samples)), np.int16)
    stems[STEMS.index("event" if number else "background")] = samples
    clip = Clip(index, number, labels, "", source if behind else "", dry=True)
    return {"samples": samples, "stems": stems, "energy": _energy(stems / 32768), "clip": clip}


def _power(wave: np.ndarray) -> float:
    return float(np.mean(wave**2)) + 1e-20


def _masked(label: Label, alone: np.ndarray, others: np.ndarray) -> Label:
    """Return `label`, ending where the others mask the sound `alone` for the rest of the clip."""
    audible = np.flatnonzero(_frames(alone) > _MASKED * _frames(others))
    end = (int(audible[-1]) + 1) * _FRAME / RATE if len(audible) else 0.0
    return replace(label, offset=min(label.offset, max(end, round(label.onset + _SHORTEST, 4))))


def _frames(wave: np.ndarray) -> np.ndarray:
    """Return the power of each 10 ms of `wave`."""
    return (np.pad(wave, (0, -len(wave) % _FRAME)) ** 2).reshape(-1, _FRAME).mean(1)


def _loud(wave: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the indices of the 10 ms frames within 30 dB of the loudest, and the root mean square over them."""
    power = _frames(wave)
    loud = np.flatnonzero(power >= _FLOOR * power.max())
    return loud, float(np.sqrt(power[loud].mean()))


# --- Energy -------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def _filters() -> np.ndarray:
    """Return (201, BANDS): Whisper's 80 mel filters (Slaney's scale and norm, 400-point FFT), summed in pairs."""
    from transformers.audio_utils import mel_filter_bank  # here, as it is slow to import

    filters = mel_filter_bank(201, 2 * BANDS, 0.0, RATE / 2, RATE, norm="slaney", mel_scale="slaney")
    return filters.reshape(201, BANDS, 2).sum(2)


def _energy(stems: np.ndarray) -> np.ndarray:
    """(3, n) -> (3, BANDS, cells) float32: mel power summed over the frames of each cell."""
    n = stems.shape[1]
    window = np.hanning(401)[:-1]
    padded = np.pad(stems, ((0, 0), (200, 200 + _FRAME)))
    frames = np.lib.stride_tricks.sliding_window_view(padded, 400, axis=1)[:, ::_FRAME][:, : -(-n // _FRAME)]
    power = np.zeros((*frames.shape[:2], BANDS))
    for stem in range(len(stems)):
        if stems[stem].any():
            spectrum = fft.rfft((frames[stem] * window).astype(np.float32), axis=-1)
            power[stem] = (spectrum.real**2 + spectrum.imag**2).astype(np.float64) @ _filters()
    step = CELL // _FRAME
    power = np.pad(power, ((0, 0), (0, -power.shape[1] % step), (0, 0)))
    return power.reshape(len(stems), -1, step, BANDS).sum(2).transpose(0, 2, 1).astype(np.float32)
