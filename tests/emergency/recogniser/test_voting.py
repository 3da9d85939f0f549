"""Notebook 06's functions, with small untrained voters."""

import datetime as dt
import tempfile
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch

from lib.emergency.classes import EMERGENCY
from lib.emergency.data import sounds
from lib.emergency.recogniser import drop_in, ensemble, voting
from lib.emergency.recogniser.recogniser import CNN, TEXT, Opinion
from lib.emergency.whisper import figures as drawings
from lib.emergency.whisper.text import fit_text
from lib.emergency.whisper.training import label_frames
from lib.metrics.classification import fit_temperature
from tests.data.test_decoding import av_file, tone
from tests.emergency.recogniser.test_recogniser import alarming, folder, recogniser  # noqa: F401 (fixtures)


def test_recorded_sounds(recogniser, tmp_path, monkeypatch):  # noqa: F811
    """Alerts are counted by class; the recogniser alarms at any loud sound."""
    for name, level, count in (("dog", 0.5, 4), ("siren", 0.5, 3), ("wind", 0.0, 2)):
        (tmp_path / "esc50" / name).mkdir(parents=True)
        for take in range(count):
            path = tmp_path / "esc50" / name / f"2-{100 + take}-A.wav"
            soundfile.write(path, tone(440, seconds=5, level=level if take else 0.0), 16_000)
        soundfile.write(tmp_path / "esc50" / name / "1-99-A.wav", tone(440, seconds=5, level=0.5), 16_000)
    monkeypatch.setenv("DATA_ROOT", str(tmp_path / "elsewhere"))
    assert sounds.recorded(9) is None
    monkeypatch.setenv("DATA_ROOT", str(tmp_path))
    assert sounds.recorded(0) is None
    real = sounds.recorded(9)
    assert real.samples.shape == (9, 80_000)
    table = voting.recorded(alarming(recogniser), real, emergencies=("siren",), seed=3)
    found = table.set_index("sound")
    assert list(table.sound) == ["all others", "all emergencies", "siren", "dog", "wind"] and (table.seed == 3).all()
    assert found.alarms.to_dict() == {"all others": 3, "all emergencies": 2, "siren": 2, "dog": 3, "wind": 0}
    assert found.clips.to_dict() == {"all others": 6, "all emergencies": 3, "siren": 3, "dog": 4, "wind": 2}
    assert found.share["dog"] == 75 and found.low["dog"] < 75 < found.high["dog"]
    assert found.emergency.to_dict() == dict.fromkeys(found.index, False) | {"siren": True, "all emergencies": True}


@pytest.fixture(scope="module")
def test_set():
    return sounds.load("soundscapes", "test", count=60)


def test_parts_are_read_off_the_models(recogniser):  # noqa: F811
    table = voting.parts(recogniser).set_index("name")
    assert table.loc["CNN", "parameters"] == sum(weight.numel() for weight in recogniser.cnn.parameters())
    assert table.loc["frame head", "inside"] == "64 → 8 → 20, each 80 ms"
    drawings.architecture(table.reset_index())


def test_backgrounds_of_soundscapes_tell_nothing(test_set):
    row = voting.silence_audit(label_frames(sounds.load("soundscapes", "test", count=240)), EMERGENCY, seed=0).iloc[0]
    assert row.low < 60 and row.chance == 50 and row.clips > 60


def test_a_background_that_gives_emergencies_away_is_found(test_set):
    clips = label_frames(sounds.load("soundscapes", "test", count=240))
    clips.mel[torch.isin(clips.labels, torch.tensor(EMERGENCY)), :10] += 1
    assert voting.silence_audit(clips, EMERGENCY, seed=0).iloc[0].low > 80


def test_without_clips_that_are_silent_for_half_a_second_there_is_no_audit(test_set):
    clips = label_frames(test_set)
    clips.moments[clips.labels > 0] = 1
    assert voting.silence_audit(clips, EMERGENCY, seed=0) is None


def test_the_text_is_calibrated_on_texts_that_it_did_not_learn():
    """On random texts that it has learned, a reader is confident and right; out of fold it is neither."""
    draw = np.random.default_rng(0)
    texts = ["".join(draw.choice(list("가나다라마바사"), 8)) for _ in range(120)] + [""] * 5
    labels = torch.from_numpy(draw.integers(1, 5, 125))
    reader = fit_text(texts, labels, 20)
    learned = reader.logits(texts)
    opinion = Opinion({CNN: torch.zeros(125, 20), TEXT: learned}, None, tuple(texts))
    found = voting.out_of_fold(opinion, texts, labels, reader, seed=0)
    accuracy = {name: (votes[:120].argmax(1) == labels[:120]).float().mean().item()
                for name, votes in (("learned", learned), ("out of fold", found.votes[TEXT]))}  # fmt: skip
    assert accuracy["learned"] > 0.9 and accuracy["out of fold"] < 0.4
    assert found.votes[TEXT][120:].isnan().all() and found.votes[TEXT][:120].isfinite().all()
    assert found.votes[CNN] is not learned and (found.votes[CNN] == 0).all()
    sure = [fit_temperature(votes, labels) for votes in (learned, found.votes[TEXT])]
    assert sure[0] < 0.3 * sure[1]
    nothing = voting.out_of_fold(replace(found, texts=("",) * 125), texts, labels, reader, seed=0)
    assert nothing.votes[TEXT].isnan().all()
    lines, classes = np.repeat(texts[:40], 4).tolist(), labels[:40].repeat_interleave(4)
    again = voting.out_of_fold(Opinion({}, None, tuple(lines)), lines, classes, reader, seed=0).votes[TEXT]
    assert (again.argmax(1) == classes).float().mean() < 0.5, "a line is never learned from another clip of it"
    misread = Opinion({}, None, tuple(f"{line}라" for line in texts))  # misread training lines
    both = fit_text([*texts, *misread.texts], labels.repeat(2), 20)
    again = voting.out_of_fold(misread, texts, labels, both, seed=0).votes[TEXT][:120]
    assert (again.argmax(1) == labels[:120]).float().mean() < 0.4, "nor from the training's clip of it"


def test_the_rule_is_the_one_with_fewest_errors_of_both_kinds(recogniser):  # noqa: F811
    """Emergency clips have 8 likely frames in a row, other clips a single frame that is even likelier."""
    likely = np.full((20, 50), 0.05)
    likely[:10, 20:28], likely[10:, 5] = 0.6, 0.9
    logits = torch.zeros(20, 50, 20)
    logits[:, :, 0], logits[:, :, EMERGENCY[0]] = torch.from_numpy(np.log(1 - likely)), torch.from_numpy(np.log(likely))
    logits[:, :, [k for k in range(1, 20) if k != EMERGENCY[0]]] = -50.0
    labels = torch.tensor([EMERGENCY[0]] * 10 + [15] * 10)
    opinion = Opinion({}, logits, ("",) * 20)
    rule = voting.with_rule(recogniser, opinion, labels, seed=0).rule
    assert rule.k > 1 and rule.on <= 0.6 and rule.off <= rule.on
    assert voting.with_rule(recogniser, opinion, torch.zeros(20).long(), seed=0).rule == recogniser.rule
    assert voting.with_rule(recogniser, opinion, labels[:1].repeat(20), seed=0).rule == recogniser.rule


def test_false_alarms(recogniser, test_set):  # noqa: F811
    opinion = recogniser.predict(test_set.samples, words=False)
    table = voting.false_alarms(recogniser, opinion, test_set.labels, seed=2)
    assert set(table.rule) == {f"{k} of {n}" for k, n in voting.RULES} and (table.seed == 2).all()
    assert table.hours.iloc[0] == pytest.approx(
        (~torch.isin(test_set.labels, torch.tensor(EMERGENCY))).sum() * 4 / 3600
    )
    drawings.alarms(table)


def test_sentences_on_alarms_follow_the_table():
    table = pd.DataFrame({"rule": ["1 of 1"] * 3, "threshold": [0.2, 0.5, 0.9], "miss_rate": [0.0, 4.0, 30.0],
                          "alarms_per_hour": [300.0, 90.0, 20.0], "alarms_low": [200.0, 60.0, 9.0],
                          "alarms_high": [400.0, 130.0, 40.0], "hours": 0.2})  # fmt: skip
    five, _, none = voting.operating_points(table)
    assert "is 90 per hour (95 % interval: 60 to 130), by the rule 1 of 1 frames above 0.5; the rule was chosen" in five
    assert "12 minutes of sound without an emergency are too few to show for any operating point at most 1" in none
    lucky = table.assign(alarms_per_hour=[300.0, 90.0, 0.0], alarms_high=[400.0, 130.0, 18.4])
    assert voting.operating_points(lucky)[2] == none  # too little sound to show it
    better = lucky.assign(alarms_high=[400.0, 130.0, 0.9])
    assert voting.operating_points(better)[2] == (
        "With at most 1 false alarm per hour (upper end of the 95 % interval), 30 % of the emergencies are missed."
    )
    assert "No rule and threshold" in voting.operating_points(table.assign(miss_rate=50.0))[0]
    assert voting.operating_points(table.assign(hours=0.0, alarms_per_hour=np.nan)) == [
        "All test clips are emergencies: false alarms cannot be counted on them."
    ]


class TestEvening:
    def test_is_made_of_calm_clips_and_emergencies(self, test_set):
        samples, spans = voting.an_evening(test_set, EMERGENCY, calm=3, emergencies=2)
        assert len(samples) == (3 + 1 + 3 + 1 + 2) * 64_000
        assert {12 <= start < 16 or 28 <= start < 32 for start, _, emergency in spans if emergency} == {True}

    def test_is_followed_to_its_alerts(self, recogniser, test_set):  # noqa: F811
        samples, spans = voting.an_evening(test_set, EMERGENCY, calm=2, emergencies=1)
        report = alarming(recogniser).follow(samples)
        arrays = voting.recording_arrays(recogniser, samples, report, spans)
        assert len(arrays["times"]) == len(arrays["probability"]) and (np.diff(arrays["times"]) > 0).all()
        assert arrays["times"][0] == 0 and arrays["times"][-1] < len(samples) / 16_000
        assert len(report.alerts) == len(arrays["alarms"]) == 1 and arrays["alarms"][0, 1]
        drawings.recording(arrays)


def test_votes_are_drawn(recogniser, test_set):  # noqa: F811
    votes = recogniser.predict(test_set.samples).votes
    table = ensemble.ensemble_table(votes, test_set.labels, votes, test_set.labels, test_set.classes, EMERGENCY, seed=0)
    drawings.votes(table)


class TestDropIn:
    def file(self, samples, tmp_path, name="a.wav"):
        soundfile.write(tmp_path / name, samples, 16_000)
        return (tmp_path / name).read_bytes()

    def test_a_file(self, recogniser, test_set, tmp_path, capsys):  # noqa: F811
        box = drop_in.drop_in(alarming(recogniser), "kitchen")
        upload = box.children[0].children[0]
        content = self.file(test_set.samples[:3].flatten().numpy(), tmp_path)
        upload.value = ({"name": "a.wav", "type": "audio/wav", "size": len(content), "content": memoryview(content),
                         "last_modified": dt.datetime.now(dt.UTC)},)  # fmt: skip
        out = capsys.readouterr().out
        assert "fire (화재) at kitchen" in out and "Figure" in out and "2 of 3  an emergency" in out

    def test_the_microphone(self, recogniser, tmp_path, capsys):  # noqa: F811
        """Chrome and Firefox record Opus in webm, Safari AAC in mp4."""
        microphone = drop_in.drop_in(alarming(recogniser)).children[0].children[1]
        for container, codec in (("webm", "libopus"), ("mp4", "aac")):
            microphone.recording = av_file(tone(440, 48_000, 5), container, codec, 48_000)
            assert "fire (화재)" in capsys.readouterr().out
        microphone.recording = b""  # a reset of the widget
        assert not capsys.readouterr().out

    def test_less_than_a_window(self, recogniser, tmp_path, capsys):  # noqa: F811
        drop_in.show(replace(recogniser, alarming=()), "a.wav", self.file(tone(440, seconds=1.5), tmp_path))
        assert "No alert." in capsys.readouterr().out

    @pytest.mark.parametrize(("content", "words"), [(b"hello", "is not a recording"), (b"", "is empty")])
    def test_no_recording(self, recogniser, capsys, content, words):  # noqa: F811
        drop_in.show(recogniser, "a.txt", content)
        out = capsys.readouterr().out
        assert out.startswith("a.txt") and words in out and "/tmp" not in out and len(out.splitlines()) == 1

    @pytest.mark.parametrize("name", ["", "..", "a\0b.wav", "불" * 84 + ".wav"], ids=range(4))
    def test_any_name(self, recogniser, tmp_path, capsys, name):  # noqa: F811
        """A browser may send any name: empty, that of a folder, or longer than 255 bytes."""
        drop_in.show(replace(recogniser, alarming=()), name, self.file(tone(440), tmp_path))
        assert "No alert." in capsys.readouterr().out

    def test_silence(self, recogniser, tmp_path, capsys):  # noqa: F811
        drop_in.show(alarming(recogniser), "a.wav", self.file(np.zeros(96_000), tmp_path))
        out = capsys.readouterr().out
        assert "No alert." in out and "No words." in out and "no words" in out

    def test_nothing_of_it_is_kept(self, recogniser, tmp_path, monkeypatch):  # noqa: F811
        content = self.file(tone(440, seconds=5), tmp_path)
        (tmp_path / "empty").mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "empty"))
        drop_in.show(alarming(recogniser), "a.wav", content)
        assert not list((tmp_path / "empty").iterdir())
