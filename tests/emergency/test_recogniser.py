"""From a recording to an alert, with small untrained voters: how it works, not how well."""

import numpy as np
import pytest
import soundfile
import torch

from lib.data.catalog import DataError
from lib.emergency import ensemble, whisper
from lib.emergency.classes import EMERGENCY, NAMES
from lib.emergency.cnn import build_cnn, save_cnn, variants
from lib.emergency.listener import Rule
from lib.emergency.recogniser import CNN, ENCODER, TEXT, Recogniser
from lib.emergency.text import fit_text
from lib.emergency.whisper import WhisperSize

LINES = ["불이야", "불났어요", "밥 먹자", "밥 줘"]


@pytest.fixture
def folder(tmp_path):
    """As notebooks 04 and 05 leave it."""
    torch.manual_seed(0)
    made = whisper.build(LINES, NAMES, WhisperSize(16, 1, 1, 2, 300), hidden=8).eval()
    made.save(tmp_path / "whisper")
    fit_text(LINES, torch.tensor([8, 8, 15, 15]), 20).save(tmp_path / "text.json")
    variant = variants(2)[0]
    save_cnn(build_cnn(variant, 20).eval(), variant, NAMES, tmp_path / "cnn.safetensors")
    return tmp_path


@pytest.fixture
def recogniser(folder):
    return Recogniser.assemble(folder, EMERGENCY)


def clips(count=3, seconds=4.0, seed=0):
    draw = np.random.default_rng(seed)
    return torch.from_numpy(
        (3000 * draw.normal(size=(count, round(seconds * 16_000)))).clip(-32768, 32767).astype(np.int16)
    )


def alarming(recogniser, number=8):
    """The same voters, made to call everything class `number`."""
    with torch.no_grad():
        for layer in (recogniser.cnn[-1], recogniser.whisper.head[2]):
            layer.bias[:] = 50.0 * torch.eye(20)[number]
    return recogniser


class TestHearing:
    def test_every_voter_has_a_say(self, recogniser):
        found = recogniser.hear(clips())
        assert list(found.votes) == [CNN, ENCODER, TEXT] and len(found.texts) == 3
        assert {logits.shape for logits in found.votes.values()} == {(3, 20)} and found.moments.shape == (3, 50, 20)

    @pytest.mark.parametrize("decibels", [-20, 20])
    def test_gain_does_not_matter(self, recogniser, decibels):
        samples = clips().float() / 32768
        one, two = (recogniser.hear(some).votes for some in (samples, samples * 10 ** (decibels / 20)))
        for name in (CNN, ENCODER):
            torch.testing.assert_close(one[name], two[name], atol=1e-3, rtol=1e-3)

    def test_calibrated(self, recogniser):
        labels = torch.tensor([8, 15, 0])
        fitted = recogniser.calibrated(recogniser.hear(clips()), labels)
        assert set(fitted.temperatures) == {CNN, ENCODER, TEXT} and fitted.temperatures[CNN] != 1
        wanted = ensemble.fit_temperature(recogniser.hear(clips()).votes[CNN], labels)
        assert fitted.temperatures[CNN] == pytest.approx(wanted)


class TestStreams:
    def chunks(self, seconds=12, step=1000):
        samples = clips(1, seconds)[0].numpy()
        return [samples[i : i + step] for i in range(0, len(samples), step)]

    def test_an_alert_says_all(self, recogniser):
        found = list(alarming(recogniser).watch(self.chunks(), "부엌", started=1000.0))
        assert len(found) == 1
        alert = found[0]
        assert (alert.kind, alert.korean, alert.location, alert.raised) == ("fire", "화재", "부엌", 1004.0)
        assert alert.probability > 0.5 and {CNN, ENCODER} <= set(alert.votes) and len(alert.samples) == 64_000
        assert alert.onset == 0 and alert.model == recogniser.digest()

    def test_one_voter_of_three_is_not_enough(self, recogniser):
        alarming(recogniser)
        with torch.no_grad():
            recogniser.cnn[-1].bias[:] = 50.0 * torch.eye(20)[15]
        recogniser.text.silent[:] = torch.eye(20)[15].log().clamp_min(-20)
        recogniser.whisper.transcribe = lambda hidden: [""] * len(hidden)
        assert not list(recogniser.watch(self.chunks()))

    def test_silence_calls_nobody(self, recogniser, monkeypatch):
        monkeypatch.setattr(recogniser.whisper, "encode", lambda *_: pytest.fail("encoded"))
        monkeypatch.setattr(recogniser.whisper, "transcribe", lambda *_: pytest.fail("decoded"))
        assert not list(alarming(recogniser).watch([np.zeros(16_000, np.int16)] * 20))

    def test_nothing_is_decoded_while_nothing_happens(self, recogniser, monkeypatch):
        monkeypatch.setattr(recogniser.whisper, "transcribe", lambda *_: pytest.fail("decoded"))
        assert not list(alarming(recogniser, 15).watch(self.chunks()))

    def test_nothing_is_written_while_nothing_happens(self, recogniser, tmp_path, monkeypatch, caplog):
        monkeypatch.chdir(tmp_path)
        before = sorted(tmp_path.rglob("*"))
        list(alarming(recogniser, 15).watch(self.chunks()))
        assert sorted(tmp_path.rglob("*")) == before and not caplog.text

    def test_a_file(self, recogniser, tmp_path):
        soundfile.write(tmp_path / "night.flac", np.repeat(clips(1, 9.0)[0].numpy(), 2), 32_000)
        assert [alert.kind for alert in alarming(recogniser).watch_file(tmp_path / "night.flac")] == ["fire"]

    def test_a_file_that_is_none(self, recogniser, tmp_path):
        (tmp_path / "night.wav").write_bytes(b"no sound at all")
        with pytest.raises(DataError, match="night.wav"):
            list(recogniser.watch_file(tmp_path / "night.wav"))


class TestFolders:
    def test_save_and_load(self, recogniser, folder):
        fitted = recogniser.calibrated(recogniser.hear(clips()), torch.tensor([8, 15, 0]))
        fitted.save(folder)
        found = Recogniser.load(folder)
        assert found.digest() == fitted.digest() and found.rule == Rule() and found.alarming == EMERGENCY

    def test_another_threshold_is_another_recogniser(self, recogniser, folder):
        from dataclasses import replace

        assert replace(recogniser, rule=Rule(on=0.9)).digest() != recogniser.digest()

    def test_not_yet_calibrated(self, folder):
        with pytest.raises(DataError, match="no recogniser .*Notebook 06 writes one"):
            Recogniser.load(folder)

    @pytest.mark.parametrize(("name", "notebook"), [("cnn.safetensors", "05"), ("text.json", "04")])
    def test_a_voter_is_missing(self, folder, name, notebook):
        (folder / name).unlink()
        with pytest.raises(DataError, match=f"Notebook {notebook} writes one: run it first"):
            Recogniser.assemble(folder, EMERGENCY)

    def test_a_damaged_cnn(self, folder):
        (folder / "cnn.safetensors").write_bytes(b"0" * 100)
        with pytest.raises(DataError, match="damaged .*run notebook 05 again"):
            Recogniser.assemble(folder, EMERGENCY)

    def test_other_classes(self, folder):
        variant = variants(2)[0]
        save_cnn(build_cnn(variant, 2), variant, ("dog", "rain"), folder / "cnn.safetensors")
        with pytest.raises(DataError, match="know different classes"):
            Recogniser.assemble(folder, EMERGENCY)
