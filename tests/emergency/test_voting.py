"""Notebook 06's functions, with small untrained voters."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from lib.emergency import drop_in, ensemble, sounds, voting
from lib.emergency import recognition_figures as drawings
from lib.emergency.classes import EMERGENCY
from lib.emergency.moments import timed
from lib.emergency.recogniser import CNN, ENCODER, TEXT
from tests.emergency.test_recogniser import alarming, folder, recogniser  # noqa: F401 (fixtures)


@pytest.fixture(scope="module")
def test_set():
    return sounds.load("soundscapes", "test", count=60)


def test_parts_are_read_off_the_models(recogniser):  # noqa: F811
    table = voting.parts(recogniser).set_index("name")
    assert table.loc["CNN", "parameters"] == sum(weight.numel() for weight in recogniser.cnn.parameters())
    assert table.loc["moments", "inside"] == "64 → 8 → 20, each 80 ms"
    drawings.architecture(table.reset_index())


def test_gain_changes_nothing(recogniser, test_set):  # noqa: F811
    opinion = recogniser.hear(test_set.samples)
    table = voting.gains(recogniser, test_set, opinion, [-20, 0, 20], seed=0)
    assert table.decibels.tolist() == [-20, 0, 20] and table.changed.max() <= 5 and table.changed[1] == 0


def test_backgrounds_of_soundscapes_tell_nothing(test_set):
    row = voting.silence_audit(timed(sounds.load("soundscapes", "test", count=240)), EMERGENCY, seed=0).iloc[0]
    assert row.low < 60 and row.chance == 50 and row.clips > 60


class TestCorporaLeftOut:
    def test_a_shortcut_shows(self, test_set):
        """Each corpus marks its classes by pitches of its own: what is learned on one says nothing about the other."""
        draw = torch.Generator().manual_seed(0)
        labels = torch.arange(80) % 2 * 4 + 1  # two classes
        corpora = tuple("first" if index < 40 else "second" for index in range(80))
        time = torch.arange(16000) / 16000
        pitches = {True: (400.0, 900.0), False: (1800.0, 3600.0)}
        pitch = torch.tensor([pitches[index < 40][int(labels[index] == 5)] for index in range(80)])
        tone = torch.sin(2 * np.pi * pitch[:, None] * time) * 3000
        samples = (tone + 300 * torch.randn(80, 16000, generator=draw)).to(torch.int16)
        marked = replace(test_set.subset(slice(40)), samples=samples, labels=labels, corpora=corpora,
                         folds=labels, names=("",) * 80, spans=None, texts=None)  # fmt: skip
        table = voting.corpora_left_out([marked.subset(slice(0, 80, 2)), marked.subset(slice(1, 80, 2))], [5], seed=1)
        table = table.set_index(["corpus", "trained_on"])
        assert (table.xs("all corpora", level=1).accuracy > 95).all() and (table.seed == 1).all()
        assert (table.xs("other corpora", level=1).accuracy < 75).all() and (table.clips == 40).all()

    def test_soundscapes_have_two_and_esc50_one(self, test_set):
        table = voting.corpora_left_out([test_set], EMERGENCY, seed=0)
        assert set(table.corpus) == {"narrow microphones", "wide microphones"} and len(table) == 4
        assert voting.corpora_left_out([replace(test_set, corpora=None)], EMERGENCY, seed=0) is None
        assert voting.corpora_left_out([replace(test_set, corpora=("one",) * 60)], EMERGENCY, seed=0) is None


def test_false_alarms(recogniser, test_set):  # noqa: F811
    opinion = recogniser.hear(test_set.samples, words=False)
    table = voting.false_alarms(recogniser, opinion, test_set.labels, seed=2)
    assert set(table.rule) == {f"{k} of {n}" for k, n in voting.RULES} and (table.seed == 2).all()
    assert table.hours.iloc[0] == pytest.approx(
        (~torch.isin(test_set.labels, torch.tensor(EMERGENCY))).sum() * 4 / 3600
    )
    drawings.alarms(table)


class TestEvening:
    def test_is_made_of_calm_clips_and_emergencies(self, test_set):
        samples, spans = voting.an_evening(test_set, EMERGENCY, calm=3, emergencies=2)
        assert len(samples) == (3 + 1 + 3 + 1 + 2) * 64_000
        assert {12 <= start < 16 or 28 <= start < 32 for start, _, emergency in spans if emergency} == {True}

    def test_is_followed_to_its_alerts(self, recogniser, test_set):  # noqa: F811
        samples, spans = voting.an_evening(test_set, EMERGENCY, calm=2, emergencies=1)
        found = voting.follow(alarming(recogniser), samples, spans)
        assert len(found["times"]) == len(found["probability"]) and (np.diff(found["times"]) > 0).all()
        assert found["times"][0] == 0 and found["times"][-1] < len(samples) / 16_000
        assert len(found["alerts"]) == len(found["alarms"]) == 1 and found["alarms"][0, 1]
        drawings.recording(found)

    def test_too_short_for_a_window(self, recogniser):  # noqa: F811
        found = voting.follow(recogniser, np.zeros(1000, np.int16))
        assert not len(found["times"]) and not found["alerts"]


def test_said_to(recogniser, test_set):  # noqa: F811
    table = voting.said_to(recogniser, recogniser.hear(test_set.samples[:10]), test_set, 5)
    assert table.columns.tolist() == ["class", CNN, ENCODER, TEXT, "text"] and len(table) == 5


def test_votes_are_drawn(recogniser, test_set):  # noqa: F811
    votes = recogniser.hear(test_set.samples).votes
    table = ensemble.ensemble_table(votes, test_set.labels, votes, test_set.labels, test_set.classes, EMERGENCY, seed=0)
    drawings.votes(table)


class TestDropIn:
    def drop(self, recogniser, name, content, capsys):  # noqa: F811
        box = drop_in.drop_in(recogniser)
        drop_in._show(recogniser, name, content)
        assert len(box.children) == 2
        return capsys.readouterr().out

    def test_a_recording(self, recogniser, test_set, tmp_path, capsys):  # noqa: F811
        import soundfile

        soundfile.write(tmp_path / "a.wav", test_set.samples[:3].flatten().numpy(), 16_000)
        out = self.drop(alarming(recogniser), "a.wav", (tmp_path / "a.wav").read_bytes(), capsys)
        assert "fire (화재)" in out

    def test_no_recording(self, recogniser, capsys):  # noqa: F811
        out = self.drop(recogniser, "a.txt", b"hello", capsys)
        assert out.startswith("a.txt") and "/tmp" not in out

    def test_too_short(self, recogniser, tmp_path, capsys):  # noqa: F811
        import soundfile

        soundfile.write(tmp_path / "a.wav", np.ones(16_000) / 3, 16_000)
        assert "1.0 s long" in self.drop(recogniser, "a.wav", (tmp_path / "a.wav").read_bytes(), capsys)
