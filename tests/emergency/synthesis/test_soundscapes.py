import hashlib
import os
import shutil
import subprocess
import sys
from collections import Counter
from itertools import chain

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier
from toy import share_speech

from lib import paths
from lib.data import cache
from lib.data.catalog import DataError
from lib.emergency.classes import CLASSES, EMERGENCY
from lib.emergency.data.aihub import letters_of
from lib.emergency.synthesis import events, recordings, rooms, soundscapes, speech
from lib.emergency.synthesis.lines import CORES, FRAMES, sentences
from lib.emergency.synthesis.soundscapes import BANDS, STEMS, datasheet, draw_soundscapes
from lib.emergency.synthesis.speech import speech_bank

pytestmark = pytest.mark.filterwarnings("ignore:This espeak-ng speaks differently")
SOUNDING = tuple(range(1, 20))
SIDES = *events.FAMILIES.values(), events.DISTRACTORS, (events.BACKGROUNDS,)
EVERY = tuple(family for sides in SIDES for side in sides for family in side)


@pytest.fixture(scope="module", autouse=True)
def output(tmp_path_factory):
    """A cache for this module alone, so that its clips are drawn by the code under test."""
    folder = tmp_path_factory.mktemp("output")
    share_speech(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OUTPUT_ROOT", str(folder))
        yield


@pytest.fixture(scope="module")
def train(output):
    return draw_soundscapes(300, seed=11)


@pytest.fixture(scope="module")
def held_out(output):
    return draw_soundscapes(120, seed=11, split="test")


@pytest.fixture(scope="module")
def stems(output):
    return draw_soundscapes(40, seed=11, stems=True)


# --- Form, determinism, cache ---------------------------------------------------------------------


def test_form_of_the_result(train, stems):
    assert train.samples.shape == (300, 64000) and train.samples.dtype == np.int16
    assert train.numbers.shape == (300,) and train.numbers.dtype == np.int64
    assert train.energy.shape == (300, 3, BANDS, 50) and train.energy.dtype == np.float32
    assert train.stems is None and stems.stems.shape == (40, 3, 64000) and stems.stems.dtype == np.int16
    assert [clip.index for clip in train.clips] == list(range(300))
    assert [clip.number for clip in train.clips] == train.numbers.tolist()
    for row in train.numbers.reshape(-1, 20):
        assert sorted(row) == list(range(20)), "every round holds each class once"
    assert len({tuple(row) for row in train.numbers.reshape(-1, 20)}) > 10, "in an order of its own"


def test_training_clips_are_those_of_the_published_data(train):
    """New options must not change them: one random number more or less would change all that follows in a clip."""
    told = [(clip.number, clip.background, clip.transcript,
             [(one.kind, one.name, one.source, one.snr, one.text) for one in clip.labels])
            for clip in train.clips[:40]]  # fmt: skip
    assert hashlib.sha256(repr(told).encode()).hexdigest()[:16] == "c04573e0b3f8265a"
    assert np.abs(train.samples[:40].astype(np.float64)).mean() == pytest.approx(827.4688, rel=1e-5)  # up to rounding


def test_stems_change_nothing_else(train, stems):
    assert np.array_equal(stems.samples, train.samples[:40]) and stems.clips == train.clips[:40]
    assert np.array_equal(stems.energy, train.energy[:40])


@pytest.mark.parametrize("count", [1, 45])
def test_a_smaller_count_is_the_beginning_of_a_larger_one(train, count, tmp_path, monkeypatch):
    few = draw_soundscapes(count, seed=11)
    assert np.array_equal(few.samples, train.samples[:count]) and few.clips == train.clips[:count]
    bank = speech_bank("train")
    monkeypatch.setattr(cache, "folder", lambda kind: tmp_path)  # an empty cache: clips are drawn again
    monkeypatch.setattr(soundscapes, "speech_bank", lambda *_: bank)
    few = draw_soundscapes(min(count, 6), seed=11)
    assert np.array_equal(few.samples, train.samples[: len(few.clips)]) and few.clips == train.clips[: len(few.clips)]


def test_same_bytes_in_another_process(held_out, tmp_path):
    """espeak-ng also speaks the lines again."""
    code = ("from lib.emergency.synthesis.soundscapes import draw_soundscapes as d; a = d(12, seed=11, split='test'); "
            "print(a.digest, *a.clips, sep='|')")  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True, cwd=paths.ROOT,
        env=os.environ | {"OUTPUT_ROOT": str(tmp_path), "PYTHONPATH": str(paths.ROOT)},
    )  # fmt: skip
    here = draw_soundscapes(12, seed=11, split="test")
    assert np.array_equal(here.samples, held_out.samples[:12])
    assert done.stdout.strip() == "|".join(map(str, (here.digest, *here.clips)))


def test_clips_are_the_same_whoever_draws_them(monkeypatch, tmp_path):
    """Clips are drawn in this process, or in several that each write files to the cache."""
    digests = []
    for count in (1, 2):
        torch.set_num_threads(count)
        share_speech(tmp_path / str(count))
        monkeypatch.setenv("OUTPUT_ROOT", str(tmp_path / str(count)))
        digests.append(draw_soundscapes(38, seed=3, seconds=1.0).digest)
    assert digests[0] == digests[1]


def test_what_is_kept_is_not_drawn_again(train, monkeypatch):
    def drawn(*arguments):
        raise AssertionError("a clip was drawn")

    monkeypatch.setattr(soundscapes, "_clip", drawn)
    again = draw_soundscapes(300, seed=11)
    assert again.digest == train.digest and again.clips == train.clips
    assert np.array_equal(again.energy, train.energy)


def test_a_damaged_file_is_made_again():
    whole = draw_soundscapes(3, seed=21, split="test")
    [path] = cache.folder("soundscapes").glob("*-test-21/*.npz")
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.warns(UserWarning, match="damaged"):
        assert draw_soundscapes(3, seed=21, split="test").digest == whole.digest
    assert draw_soundscapes(3, seed=21, split="test").digest == whole.digest


def test_splits_and_seeds_share_no_clip():
    drawn = [draw_soundscapes(5, seed=s, split=split, seconds=1.0) for split in soundscapes.SPLITS for s in (0, 1)]
    assert len({clip.tobytes() for one in drawn for clip in one.samples}) == 30


def test_other_lengths():
    clips = draw_soundscapes(6, seconds=1.53, stems=True)
    assert clips.samples.shape == (6, 24480) and clips.energy.shape == (6, 3, BANDS, 20)
    assert all(0 <= label.onset < label.offset <= 1.53 for clip in clips.clips for label in clip.labels)


def test_bad_arguments():
    with pytest.raises(ValueError, match="1 to 30"):
        draw_soundscapes(1, seconds=0.5)


# --- Speech ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", soundscapes.SPLITS)
def test_espeak_says_what_it_said_for_the_published_results(split):
    assert speech_bank(split).digest == speech.DIGESTS[split]


def test_every_class_has_sentences_in_every_voice():
    bank = speech_bank("test")
    for number in CORES:
        said = bank.utterances[number]
        assert {one.text for one in said} <= set(sentences(number, "test")) and len(said) == speech.SENTENCES[1]
        assert len({one.text for one in said}) == len(said) and {one.voice for one in said} == set(speech.VOICES[1])
    for one in chain(*bank.utterances.values()):
        assert one.samples.dtype == np.int16 and np.abs(one.samples).max() == 16000
        assert 0.2 < len(one.samples) / speech.RATE < 3.5, one.text
        assert not any(map(str.isdigit, one.text)), "digits are written as syllables"


def test_validation_speaks_the_lines_of_training_anew():
    """It has the lines and voices of training, but each line in a different voice."""
    heard, anew = speech_bank("train").utterances, speech_bank("validation").utterances
    for number in CORES:
        for one, two in zip(heard[number], anew[number], strict=True):
            assert one.text == two.text and one.voice != two.voice
            assert len(one.samples) != len(two.samples) or not np.array_equal(one.samples, two.samples)
        assert {two.voice for two in anew[number]} == {one.voice for one in heard[number]} == set(speech.VOICES[0])


def test_without_espeak_it_is_said_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("OUTPUT_ROOT", str(tmp_path))
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    with pytest.raises(DataError, match="does not run here .exit code 1.*espeakng-loader anew.*dataset=folder"):
        speech_bank("test")


# --- Splits ---------------------------------------------------------------------------------------


def test_training_and_test_share_no_voice_line_or_family(train, held_out):
    assert not set(speech.VOICES[0]) & set(speech.VOICES[1])
    for number in SOUNDING:
        (seen, unseen), (before, after) = CORES[number], FRAMES[number >= 15]
        assert not any(set(one) & set(two) for one, two in ((seen, unseen), *zip(before, after, strict=True)))
        assert not set(sentences(number, "train")) & set(sentences(number, "test"))
        assert len(set(sentences(number, "train"))) > 400
        ours, theirs = events.FAMILIES[number][0], events.FAMILIES[number][1]
        assert len(ours) >= 3 and theirs and not set(ours) & set(theirs)
    learned, tested = ({letters_of(core) for sides in CORES.values() for core in sides[k]} for k in (0, 1))
    assert not [(one, two) for one in learned for two in tested if one in two or two in one]
    every = [family for pair in events.FAMILIES.values() for side in pair for family in side]
    assert len(set(every)) == len(every), "a family belongs to one class"
    assert not set(events.DISTRACTORS[0]) & set(events.DISTRACTORS[1])
    for kind in ("speech", "event", "distractor"):
        seen, unseen = ({(one.source, one.text) for clip in part.clips for one in clip.of(kind)}
                        for part in (train, held_out))  # fmt: skip
        assert seen and unseen and not {s for s, _ in seen} & {s for s, _ in unseen}
        assert not {text for _, text in seen if text} & {text for _, text in unseen}


def test_validation_says_and_does_what_training_does(train):
    for number in SOUNDING:
        assert sentences(number, "validation") == sentences(number, "train")
    clips = draw_soundscapes(60, seed=11, split="validation").clips
    heard, anew = ({(label.text, label.source) for clip in some for label in clip.labels if label.text}
                   for some in (train.clips, clips))  # fmt: skip
    assert anew and not anew & heard and {text for text, _ in anew} & {text for text, _ in heard}
    families = {family.__name__ for pair in events.FAMILIES.values() for family in pair[0]}
    assert {label.source for clip in clips for label in clip.of("event")} <= families
    others = {family.__name__ for family in events.DISTRACTORS[0]} | {"television"}
    assert {label.name for clip in clips for label in clip.of("distractor")} <= others


@pytest.mark.parametrize("family", EVERY, ids=lambda family: family.__name__)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(round(0.6 * events.RATE), round(4.4 * events.RATE)))
@settings(max_examples=8, deadline=None)
def test_a_family_makes_sound_of_any_length_and_the_same_twice(family, seed, n):
    wave = family(events.Draw(seed, (0,)), n)
    assert wave.shape == (n,) and np.isfinite(wave).all() and np.abs(wave).max() > 0
    assert np.array_equal(wave, family(events.Draw(seed, (0,)), n))


# --- What the clips hold --------------------------------------------------------------------------


def test_samples_are_sound_and_few_clip(train):
    peak = np.abs(train.samples.astype(int)).max(1) / 32767
    driven = peak > 0.99
    assert (train.samples.astype(float).std(1) > 1).all() and np.isfinite(train.energy).all()
    assert peak[~driven].max() < 0.97
    assert 0.03 < driven.mean() < 0.16 and not driven[train.numbers == 0].any()


def test_rooms_reverberate_or_are_in_the_open():
    rt60 = np.array([rooms.draw_room(events.Draw(11, (k,))).rt60 for k in range(300)])
    assert 0.05 < (rt60 == 0).mean() < 0.3 and rt60[rt60 > 0].min() < 0.3
    assert 0.75 < rt60.max() <= 0.9


def test_settings_have_wide_ranges_in_every_group(train):
    emergency = np.isin(train.numbers, range(1, 15))
    sounding = train.numbers > 0
    for part in (emergency, sounding & ~emergency):
        clips = [train.clips[k] for k in np.flatnonzero(part)]
        for kind, (low, high) in (("event", (-5, 20)), ("speech", (5, 30))):
            snr = np.array([label.snr for clip in clips for label in clip.of(kind)])
            assert snr.min() >= low and snr.max() <= high and np.ptp(snr) > 20
        assert {clip.background for clip in clips} == {family.__name__ for family in events.BACKGROUNDS}
        level = 20 * np.log10(train.samples[part].astype(float).std(1) / 32767)
        assert np.ptp(level) > 25
        assert 0.35 < np.mean([bool(clip.transcript) for clip in clips]) < 0.72
        assert np.mean([bool(clip.of("event")) for clip in clips]) > 0.75
        assert 0.2 < np.mean([bool(clip.of("distractor")) for clip in clips]) < 0.7
        onset = np.array([label.onset for clip in clips for label in clip.of("event")])
        assert onset.min() == 0 and onset.max() > 2.2, "events begin anywhere, also before the clip"


def test_a_television_says_alarm_words_where_nothing_has_happened(train):
    alarms = {text for number in range(1, 15) for text in sentences(number, "train")}
    said = [label.text for clip in train.clips if clip.number >= 15 for label in clip.of("distractor") if label.text]
    assert said and set(said) <= alarms
    assert not any(label.text in clip.transcript for clip in train.clips if clip.number >= 15
                   for label in clip.of("distractor") if label.text)  # fmt: skip
    dropped = Counter(label.name for clip in train.clips if clip.number >= 15 for label in clip.of("distractor"))
    assert {"dropped_pan", "television"} <= set(dropped)


def test_labels_name_the_class_and_the_words(train):
    for clip in train.clips:
        assert all(0 <= label.onset < label.offset <= 4 for label in clip.labels)
        assert len(clip.of("speech")) <= 1 and len(clip.of("event")) <= 2
        assert clip.transcript == "".join(label.text for label in clip.of("speech"))
        assert {label.name for label in clip.of("speech") + clip.of("event")} <= {CLASSES[clip.number].name}
        if clip.number:
            assert clip.of("speech") or clip.of("event")
            assert not clip.transcript or clip.transcript in sentences(clip.number, "train")


def test_silence_holds_nothing_but_a_quiet_background(stems, train):
    for k in np.flatnonzero(stems.numbers == 0):
        assert not stems.clips[k].labels and not stems.clips[k].transcript
        assert not stems.stems[k, :2].any() and stems.stems[k, 2].any()
    level = 20 * np.log10(train.samples[train.numbers == 0].astype(float).std(1) / 32767)
    assert level.max() < -38


def test_strong_labels_lie_where_the_stem_has_its_energy(stems):
    checked = Counter()
    for clip, waves in zip(stems.clips, stems.stems, strict=True):
        for kind, wave in zip(("speech", "event"), waves.astype(float), strict=False):
            inside = np.zeros(len(wave), bool)
            for label in clip.of(kind):
                inside[round(label.onset * 16000) : round(label.offset * 16000)] = True
            if not inside.any():
                assert not wave.any()
                continue
            assert (wave[inside] ** 2).sum() > 0.98 * (wave**2).sum(), (clip.index, kind)
            if len(clip.of(kind)) == 1:  # a single sound also begins and ends there
                [label] = clip.of(kind)
                first, last = round(label.onset * 16000), round(label.offset * 16000)
                power = [(wave[max(a, 0) : b] ** 2).mean() for a, b in ((first, first + 320), (last - 320, last))]
                loudest = (wave[: len(wave) // 160 * 160] ** 2).reshape(-1, 160).mean(1).max()
                assert min(power) > 10**-3.5 * loudest, (clip.index, kind)
            checked[kind] += 1
    assert min(checked.values()) > 12


@pytest.mark.parametrize(("others", "length", "end"), [(0, 2, 2.5), (1, 2, 1.0), (0.1, 2, 2.0), (100, 2, 0.7),
                                                       (100, 0.1, 0.6)])  # fmt: skip
def test_a_label_ends_where_other_sounds_mask_it_for_good(others, length, end):
    time = np.arange(64000) / 16000
    alone = 10 ** (-20 * (time - 0.5) / 20) * ((time >= 0.5) & (time < 0.5 + length))  # falls by 20 dB per second
    label = soundscapes.Label(0.5, 0.5 + length, "event", "fire", "crackle_roar", 0.0)
    masked = soundscapes._masked(label, alone, np.full(64000, float(others)))
    assert masked.offset == pytest.approx(end, abs=0.011) and masked.onset == 0.5


def test_the_clip_before_the_microphone_is_the_sum_of_its_stems(stems, tmp_path, monkeypatch):
    sums = stems.stems.sum(1, dtype=np.int64)
    assert np.abs(sums[stems.numbers > 0]).max(1) == pytest.approx(0.9 * 32767, abs=2)
    assert STEMS == ("speech", "event", "background")

    def ideal(draw, mixture, quiet):
        return mixture.astype(np.int16)

    bank = speech_bank("train")
    monkeypatch.setattr(soundscapes, "microphone", ideal)
    for k in range(4):
        drawn = soundscapes._clip(k, int(stems.numbers[k]), 11, "train", 64000, bank)
        assert np.array_equal(drawn["samples"], sums[k]) and np.array_equal(drawn["stems"], stems.stems[k])


def test_the_signal_to_noise_ratio_is_what_the_label_says():
    clips = draw_soundscapes(20, seed=5, stems=True)
    compared = 0
    for clip, waves in zip(clips.clips, clips.stems.astype(float), strict=True):
        if clip.of("distractor") or len(clip.of("event")) != 1:
            continue
        [label] = clip.of("event")
        power = (waves[1] ** 2).reshape(-1, 160).mean(1)
        active = power[power >= power.max() / 1000].mean()
        assert 10 * np.log10(active / (waves[2] ** 2).mean()) == pytest.approx(label.snr, abs=1)
        compared += 1
    assert compared > 3


def test_energy_is_that_of_the_stems(stems):
    """A cell is loud where its stem is, in time and in frequency."""
    from_energy = stems.energy.astype(float).sum((2, 3))
    for k in range(20):
        for stem, total in zip(stems.stems[k], from_energy[k], strict=True):
            assert bool(stem.any()) == (total > 0)
    tone = np.zeros((3, 64000))
    tone[1, 16000:32000] = np.sin(2 * np.pi * 1000 * np.arange(16000) / 16000)
    cells = soundscapes._energy(tone)
    assert not cells[0].any() and not cells[2].any()
    time_share = cells[1].sum(0) / cells[1].sum()
    assert time_share[12:26].sum() > 0.999 and not time_share[:12].any()
    mel = 1000 / (200 / 3) / ((15 + 27 * np.log(8) / np.log(6.4)) / 81)  # in mel bands of Whisper
    assert cells[1].sum(1).argmax() in (int((mel - 1) // 2), int(mel // 2))


# --- No shortcut ----------------------------------------------------------------------------------


def scalars(samples):
    """Return (N, 10) features of loudness, spectrum and duration, which must not suffice for a classifier."""
    wave = samples / 32768.0
    power = np.abs(np.fft.rfft(wave, axis=1)) ** 2
    hertz = np.fft.rfftfreq(wave.shape[1], 1 / 16000)
    share = power / power.sum(1, keepdims=True)
    centroid = share @ hertz
    bandwidth = np.sqrt(share @ hertz**2 - centroid**2)
    rolloff = hertz[(share.cumsum(1) < 0.85).sum(1)]
    frames = 10 * np.log10((wave.reshape(len(wave), -1, 320) ** 2).mean(2) + 1e-10)
    level = 10 * np.log10((wave**2).mean(1))
    peak = 20 * np.log10(np.abs(wave).max(1))
    floor = np.quantile(frames, 0.1, axis=1)
    duration = (frames > floor[:, None] + 10).mean(1)
    crossings = np.diff(np.signbit(wave), axis=1).mean(1)
    flatness = np.log(power + 1e-12).mean(1) - np.log(power.mean(1))
    return np.stack([level, peak, peak - level, centroid, bandwidth, rolloff, floor, duration, crossings, flatness], 1)


def test_simple_scalars_do_not_tell_emergencies_from_ordinary_scenes(train, held_out):
    models = {
        "tree": DecisionTreeClassifier(max_depth=2, class_weight="balanced", random_state=0),
        "logistic": make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=2000)),
    }
    sounding = train.numbers > 0
    x, y = scalars(train.samples[sounding]), train.numbers[sounding] < 15
    others = held_out.numbers > 0
    for name, model in models.items():
        model.fit(x, y)
        fitted = balanced_accuracy_score(y, model.predict(x))
        unseen = balanced_accuracy_score(
            held_out.numbers[others] < 15, model.predict(scalars(held_out.samples[others]))
        )
        print(f"{name}: {fitted:.3f} on its own clips, {unseen:.3f} on the test's")
        assert fitted < 0.75 and unseen < 0.75, name


def test_the_data_sheet_calls_the_clips_synthetic():
    sheet = datasheet()
    assert sheet["what"].startswith("synthetic") and soundscapes.VERSION in sheet["generator"]
    assert sheet["cannot show"] and sheet["can show"]


# --- Recordings -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def recorded():
    """A tone of 400 Hz or more for each category, after half a second of silence."""
    names = sum(recordings.EVENTS.values(), ()) + recordings.DISTRACTORS + recordings.BACKGROUNDS
    tones = [np.sin(2 * np.pi * (400 + 50 * k) * np.arange(16_000) / events.RATE) for k in range(len(names))]
    samples = np.stack([np.concatenate([np.zeros(8000), 12_000 * tone]) for tone in tones]).astype(np.int16)
    return recordings.Recordings(samples, tuple(names), "tones")


def test_every_category_has_one_label():
    """A category used as a background or a distractor is never used as an event."""
    names = sum(recordings.EVENTS.values(), ()) + recordings.DISTRACTORS + recordings.BACKGROUNDS
    assert len(set(names)) == len(names) == 50, "all fifty but coughing, and one in two spellings"
    assert "coughing" not in names, "the synthetic one is an emergency"
    assert {number for number in recordings.EVENTS if number in EMERGENCY} == {2, 8, 9, 14}


def test_a_recording_sounds_for_as_long_as_it_is_asked_to(recorded):
    play = recorded.of("siren")
    frequency = 400 + 50 * recorded.categories.index("siren")
    for n in (8000, 40_000):
        wave = play(soundscapes.Draw(0, (n,)), n)
        spectrum = np.abs(np.fft.rfft(wave * np.hanning(n)))
        assert len(wave) == n and abs(np.argmax(spectrum) * events.RATE / n - frequency) < 3
        assert np.abs(wave[-800:]).max() > 6000 and np.abs(wave[:800]).max() > 6000  # the silence before it is cut off


def test_recordings_are_heard_as_often_as_said_and_their_events_keep_their_class(recorded):
    drawn = draw_soundscapes(400, seed=3, recorded=recorded)
    heard = [(label.name, label.source) for clip in drawn.clips for label in clip.of("event")]
    share = {name: np.mean([source.startswith("recorded") for one, source in heard if one == name])
             for name in ("fire", "indoor", "theft")}  # fmt: skip
    assert 0.2 < share["fire"] < 0.8 and 0.2 < share["indoor"] < 0.8 and share["theft"] == 0
    for name, source in heard:
        if source.startswith("recorded"):
            number = next(one.number for one in CLASSES if one.name == name)
            assert source.removeprefix("recorded ") in recordings.EVENTS[number]
    assert 0.15 < np.mean([clip.background.startswith("recorded") for clip in drawn.clips]) < 0.45
    plain = draw_soundscapes(20, seed=3)
    assert "ESC-50 (CC BY-NC 3.0)" in datasheet(recorded=True)["what"] and "ESC-50" not in str(datasheet())
    assert drawn.recorded and not plain.recorded and not np.array_equal(plain.samples, drawn.samples[:20])


def test_a_tenth_of_the_clips_is_one_recording_and_nothing_else(recorded):
    for split, count in (("train", 400), ("validation", 200), ("test", 40)):
        drawn = draw_soundscapes(count, seed=3, split=split, recorded=recorded)
        assert (np.sort(drawn.numbers.reshape(-1, 20)) == np.arange(20)).all(), "the classes keep their shares"
        dry = [clip for clip in drawn.clips if clip.dry]
        assert 0.06 < len(dry) / count < 0.14 if split != "test" else not dry
        assert {clip.number for clip in dry} <= {0, *recordings.EVENTS}
        for clip in dry:
            assert len(clip.labels) == (not clip.background) and not clip.transcript
            category = (clip.background or clip.labels[0].source).removeprefix("recorded ")
            allowed = recordings.EVENTS.get(clip.number, recordings.DISTRACTORS)
            assert category in (recordings.BACKGROUNDS if clip.background else allowed)
            played = drawn.samples[clip.index].astype(float)
            assert -30.1 < 20 * np.log10(np.abs(played).max() / 32767) < -0.4
            known = recorded.samples[recorded.categories.index(category)].astype(float)
            there = np.flatnonzero(played)
            begin = there[0] - np.flatnonzero(known)[0]
            inside = played[max(begin, 0) : begin + len(known)]
            known = known[max(-begin, 0) :][: len(inside)]
            assert not np.delete(played, there).any() and np.corrcoef(inside, known)[0, 1] > 0.999
            for label in clip.labels:
                assert label.kind == ("event" if clip.number else "distractor") and label.snr == np.inf
                assert abs(label.onset - there[0] / 16000) < 0.011 and abs(label.offset - there[-1] / 16000) < 0.011


def test_a_dry_piece_of_a_long_recording_has_its_loudest_moment():
    rng = np.random.default_rng(0)
    wave = rng.integers(-50, 50, 80_000).astype(np.int16)
    for top in (0, 40_000, 79_999):
        loud = wave.copy()
        loud[top] = 9000
        pool = recordings.Recordings(loud[None], ("siren",), "one click")
        found = [recordings.dry(soundscapes.Draw(0, (k,)), pool, 14, 24_000) for k in range(60)]
        pieces = [one[1] for one in found if one]
        assert 3 < len(pieces) < 25 and {len(piece) for piece in pieces} == {24_000}
        places = [int(np.abs(piece.astype(int)).argmax()) for piece in pieces]
        assert all(np.abs(piece.astype(int)).max() > 10 * np.median(np.abs(piece.astype(int))) for piece in pieces)
        assert top != 40_000 or (min(places) >= 1599 and max(places) <= 22_401 and np.ptp(places) > 5000)


def test_where_there_are_no_recordings_the_clips_are_the_plain_ones(train, recorded):
    """They are identical, as the draw for a dry clip is made only where recordings exist."""
    nothing = recordings.Recordings(recorded.samples[:1], ("coughing",), "nothing")
    bank = speech_bank("train")
    for k in range(3):
        drawn = soundscapes._clip(k, int(train.numbers[k]), 11, "train", 64000, bank, nothing)
        assert np.array_equal(drawn["samples"], train.samples[k]) and drawn["clip"] == train.clips[k]
