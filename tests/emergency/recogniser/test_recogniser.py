"""From a recording to an alert, with small untrained voters: how it works, not how well."""

import os
import sys
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch
from matplotlib.figure import Figure
from toy import ROOT
from transformers import WhisperConfig, WhisperForConditionalGeneration

from lib.data.catalog import DataError
from lib.emergency.classes import EMERGENCY, NAMES
from lib.emergency.cnn.network import build_cnn, save_cnn, variants
from lib.emergency.features import log_mel, scaled
from lib.emergency.recogniser import drop_in, ensemble
from lib.emergency.recogniser.listener import Rule
from lib.emergency.recogniser.recogniser import CNN, ENCODER, FRAMES, TEXT, Recogniser
from lib.emergency.whisper import model as whisper
from lib.emergency.whisper.model import WhisperSize
from lib.emergency.whisper.text import fit_text
from lib.emergency.whisper.training import UNKNOWN, Clips, predict_frames
from lib.metrics.classification import fit_temperature

LINES = ["불이야", "불났어요", "밥 먹자", "밥 줘"]


@pytest.fixture
def folder(tmp_path):
    """Models as notebooks 04 and 05 save them."""
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


def labelled():
    """Labels of `clips()`; the first frame of each clip is unknown."""
    labels = torch.tensor([8, 15, 0])
    moments = labels[:, None].repeat(1, 200)
    moments[:, :4] = UNKNOWN
    return Clips(torch.zeros(3, 80, 400), labels, NAMES, moments, None, "some", "some")


def alarming(recogniser, number=8):
    """The same voters, but the CNN and the encoder now predict class `number` for everything."""
    with torch.no_grad():
        for layer in (recogniser.cnn[-1], recogniser.whisper.head[2]):
            layer.bias[:] = 50.0 * torch.eye(20)[number]
    return recogniser


class TestHearing:
    def test_every_voter_has_a_say(self, recogniser):
        found = recogniser.predict(clips())
        assert list(found.votes) == [CNN, ENCODER, TEXT] and len(found.texts) == 3
        assert {logits.shape for logits in found.votes.values()} == {(3, 20)} and found.moments.shape == (3, 50, 20)

    @pytest.mark.parametrize("seconds", [1.0, 1.37, 4.0, 5.0])
    @pytest.mark.parametrize("level", [0, 1])
    def test_clips_of_other_lengths(self, recogniser, seconds, level):
        """Silent clips have as many frames as others."""
        found = recogniser.predict(level * clips(2, seconds))
        positions = -(-(round(seconds * 16_000) // 160) // 2)
        assert found.moments.shape == (2, positions // 4, 20) and (found.moments[0, 0, 0] == 20) == (level == 0)

    def test_a_whisper_of_128_bands_beside_a_cnn_of_80(self, folder, recogniser):
        config = WhisperConfig.from_pretrained(folder / "whisper", num_mel_bins=128)
        WhisperForConditionalGeneration(config).save_pretrained(folder / "checkpoint")
        recogniser.whisper.tokenizer.save_pretrained(folder / "checkpoint")
        whisper.from_checkpoint(folder / "checkpoint", NAMES).eval().save(folder / "whisper")
        wide, some = Recogniser.assemble(folder, EMERGENCY), clips()
        opinion = wide.predict(some)
        torch.testing.assert_close(opinion.votes[CNN], recogniser.predict(some).votes[CNN])
        mel = log_mel(scaled(some), 128)
        torch.testing.assert_close(opinion.votes[ENCODER], predict_frames(wide.whisper, mel, words=False).clips)
        report = wide.follow(some[0].numpy())
        assert len(report.times) == 50
        assert all(isinstance(picture, Figure) for picture in drop_in.pictures(wide, report))

    def test_of_silent_clips_no_network_is_asked(self, recogniser, monkeypatch):
        alone = recogniser.predict(clips())
        mixed = recogniser.predict(
            torch.cat([torch.zeros(1, 64_000, dtype=torch.int16), clips(), torch.ones(1, 64_000, dtype=torch.int16)])
        )
        torch.testing.assert_close(mixed.moments[1:4], alone.moments)
        assert mixed.texts[1:4] == alone.texts and mixed.texts[0] == mixed.texts[4] == ""
        for name in (CNN, ENCODER):
            assert mixed.votes[name].argmax(1)[[0, 4]].tolist() == [0, 0]
        monkeypatch.setattr(recogniser.whisper, "hidden", lambda *_: pytest.fail("encoded"))
        monkeypatch.setattr(recogniser.whisper, "transcribe", lambda *_: pytest.fail("decoded"))
        assert not ensemble.majority(recogniser.predict(torch.zeros(3, 64_000)).votes, EMERGENCY).any()

    @pytest.mark.parametrize("value", [torch.nan, torch.inf])
    def test_what_is_no_clip(self, recogniser, value):
        with pytest.raises(ValueError, match="clips hold samples that are not finite"):
            recogniser.predict(torch.full((1, 64_000), value))

    @pytest.mark.parametrize("decibels", [-20, 20])
    def test_gain_does_not_matter(self, recogniser, decibels):
        samples = clips().float() / 32768
        one, two = (recogniser.predict(some).votes for some in (samples, samples * 10 ** (decibels / 20)))
        for name in (CNN, ENCODER):
            torch.testing.assert_close(one[name], two[name], atol=1e-3, rtol=1e-3)

    def test_calibrated(self, recogniser):
        opinion, known = recogniser.predict(clips()), labelled()
        fitted = recogniser.calibrated(opinion, known).temperatures
        assert set(fitted) == {CNN, ENCODER, TEXT, FRAMES} and fitted[CNN] != 1
        assert fitted[CNN] == pytest.approx(fit_temperature(opinion.votes[CNN], known.labels))
        frames, wanted = opinion.moments[:, 1:].reshape(-1, 20), known.targets(4)[:, 1:].flatten()  # the first: unknown
        assert fitted[FRAMES] == pytest.approx(fit_temperature(frames, wanted)) and fitted[FRAMES] != fitted[ENCODER]

    def test_each_temperature_divides_its_own_logits(self, recogniser):
        hot = replace(recogniser, temperatures={CNN: 2.0, ENCODER: 3.0, TEXT: 4.0, FRAMES: 5.0})
        opinion = hot.predict(clips(1))
        for name, logits in hot.calibrated_votes(opinion).items():
            torch.testing.assert_close(logits, opinion.votes[name] / hot.temperatures[name], equal_nan=True)
        likely = (opinion.moments / 5).softmax(-1)
        torch.testing.assert_close(hot.likely_alarms(opinion), likely[:, :, list(EMERGENCY)].sum(2))
        np.testing.assert_allclose(hot.follow(clips(1)[0].numpy()).probabilities, likely[0], atol=1e-5)


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

    def test_a_class_named_by_a_folder_in_cp949_is_readable(self, recogniser):
        names = [*NAMES[:8], os.fsdecode("큰불".encode("cp949")), *NAMES[9:]]
        (alert,) = replace(alarming(recogniser), classes=tuple(names)).watch(self.chunks())
        assert alert.kind == "큰불" and "큰불" in alert.message()

    def test_one_voter_of_three_is_not_enough_where_another_abstains(self, recogniser):
        alarming(recogniser)
        with torch.no_grad():
            recogniser.cnn[-1].bias[:] = 50.0 * torch.eye(20)[15]
        recogniser.whisper.transcribe = lambda hidden: [""] * len(hidden)
        assert not list(recogniser.watch(self.chunks()))

    def test_silence_calls_nobody(self, recogniser, monkeypatch):
        monkeypatch.setattr(recogniser.whisper, "hidden", lambda *_: pytest.fail("encoded"))
        monkeypatch.setattr(recogniser.whisper, "transcribe", lambda *_: pytest.fail("decoded"))
        assert not list(alarming(recogniser).watch([np.zeros(16_000, np.int16)] * 20))
        probabilities = recogniser.follow(np.full(80_000, 2, np.int16)).probabilities
        assert (probabilities.argmax(1) == 0).all()
        first = replace(recogniser, alarming=(0, 2))  # user-defined: class 0 alarms
        assert not list(first.watch([np.zeros(16_000, np.int16)] * 20))

    def test_nothing_is_decoded_while_nothing_happens(self, recogniser, monkeypatch):
        monkeypatch.setattr(recogniser.whisper, "transcribe", lambda *_: pytest.fail("decoded"))
        assert not list(alarming(recogniser, 15).watch(self.chunks()))

    def test_nothing_is_written_while_nothing_happens(self, recogniser, tmp_path, monkeypatch, caplog):
        monkeypatch.chdir(tmp_path)
        before = sorted(tmp_path.rglob("*"))
        list(alarming(recogniser, 15).watch(self.chunks()))
        assert sorted(tmp_path.rglob("*")) == before and not caplog.text

    def test_a_file_that_is_none(self, recogniser, tmp_path):
        (tmp_path / "night.wav").write_bytes(b"no sound at all")
        for follow in (recogniser.follow, lambda path: list(recogniser.watch(path))):
            with pytest.raises(DataError, match="night.wav"):
                follow(tmp_path / "night.wav")

    def test_an_overruled_alarm_is_asked_about_again(self, recogniser, monkeypatch):
        asked = []
        monkeypatch.setattr(Recogniser, "judge", lambda self, alarm, *_: asked.append(alarm.at))
        assert not list(alarming(recogniser).watch(self.chunks()))
        assert asked == [4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0]


class TestSources:
    """A file, an array or a stream: the same sound, the same report."""

    def sources(self, folder, seconds):
        samples = clips(1, seconds)[0].numpy()
        soundfile.write(folder / "night.flac", samples, 16_000)
        yield folder / "night.flac"
        yield str(folder / "night.flac")
        yield samples
        yield torch.from_numpy(samples)
        yield samples.astype(np.float32) / 32768
        yield (samples[start : start + 777] for start in range(0, len(samples), 777))
        yield [samples[:5], samples[5:5], samples[5:]]

    @pytest.mark.parametrize("seconds", [2.5, 4.0, 9.7])
    def test_are_heard_alike(self, recogniser, tmp_path, seconds):
        loud = alarming(recogniser)
        reports = [loud.follow(source, "부엌", started=5.0) for source in self.sources(tmp_path, seconds)]
        first = reports[0]
        assert [alert.kind for alert in first.alerts] == ["fire"] and first.alerts[0].location == "부엌"
        for other in reports[1:]:
            assert other.alerts == first.alerts and other.alarms == first.alarms and other.at == first.at
            np.testing.assert_array_equal(other.probabilities, first.probabilities)
            assert np.array_equal(other.window, first.window) and other.opinion.texts == first.opinion.texts
        if seconds >= 4:
            assert [list(loud.watch(source, "부엌", started=5.0)) for source in self.sources(tmp_path, seconds)] == [
                list(first.alerts)
            ] * 7

    def test_silence_fills_up_what_is_shorter_than_a_window(self, recogniser):
        samples = clips(1, 0.7)[0].numpy()
        report = recogniser.follow(samples)
        assert len(report.times) == 50 and np.array_equal(report.window, np.pad(samples, (0, 64_000 - len(samples))))

    def test_the_timeline_covers_it_without_gaps(self, recogniser):
        report = recogniser.follow(clips(1, 9.7)[0].numpy())
        steps = np.diff(report.times)
        assert report.times[0] == 0 and 9.7 - 0.09 <= report.times[-1] + 0.08 <= 9.7 + 1e-6
        assert steps.min() > 0.035 and steps.max() < 0.125
        np.testing.assert_allclose(report.probabilities.sum(1), 1, rtol=1e-5)

    def test_moments_are_averaged_over_the_windows_that_hold_them(self, recogniser):
        samples = clips(1, 8.0)[0]
        report = recogniser.follow(samples.numpy())
        windows = recogniser.predict(samples.unfold(0, 64_000, 16_000))
        each = (windows.moments / recogniser.temperatures[FRAMES]).softmax(-1).numpy()  # (5 windows, 50, 20)
        moment = np.abs(report.times - 3.0).argmin()  # in the windows from 0, 1, 2 and 3 s
        wanted = np.mean([each[start, int((report.times[moment] - start + 0.04) / 0.08)] for start in range(4)], 0)
        np.testing.assert_allclose(report.probabilities[moment], wanted, atol=1e-5)

    def test_the_likeliest_window_is_opened(self, recogniser):
        report = recogniser.follow(clips(1, 8.0)[0].numpy())
        heard = recogniser.listen([clips(1, 8.0)[0].numpy()], "", 0.0)
        means = [one.probabilities[:, list(EMERGENCY)].sum(1).mean() for one in heard]  # windows from 0, 1, ... 4 s
        assert report.at == np.argmax(means) and len(means) == 5
        start = round(report.at * 16_000)
        assert np.array_equal(report.window, clips(1, 8.0)[0].numpy()[start : start + 64_000])
        torch.testing.assert_close(
            report.opinion.moments, recogniser.predict(torch.from_numpy(report.window)[None]).moments
        )

    @pytest.mark.parametrize(
        "source",
        [
            np.zeros((2, 64_000), np.int16),
            np.zeros(64_000, np.int32),
            clips(1)[0].numpy().astype(np.float32),  # values of int16, not in -1 to 1
            np.full(64_000, np.nan),
        ],
    )
    def test_no_source(self, recogniser, source):
        with pytest.raises(ValueError, match="sound is"):
            recogniser.follow(source)

    @pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64, np.longdouble])
    def test_full_scale_in_any_precision(self, recogniser, kind):
        samples = np.sin(np.arange(64_000) / 9).round(1).astype(kind)
        window = recogniser.follow(samples).window
        assert window.max() == 32767 and window.min() == -32768
        np.testing.assert_allclose(window / 32768, samples.astype(np.float64), atol=2**-15 + 1e-9)
        one, other = (torch.from_numpy(some)[None] for some in (samples.astype(np.float16), window))
        one, other = (recogniser.predict(some).moments for some in (one, other))
        torch.testing.assert_close(one, other, atol=0.02, rtol=0.02)

    @pytest.mark.parametrize("value", [1.5, -1e300])
    def test_floats_beyond_full_scale(self, recogniser, value):
        samples = clips(1)[0].numpy() / 32768
        samples[20_000] = value
        with pytest.raises(ValueError, match="finite floats in -1 to 1: clip or divide"):
            recogniser.follow(samples)


class TestFolders:
    def test_save_and_load(self, recogniser, folder):
        fitted = recogniser.calibrated(recogniser.predict(clips()), labelled())
        fitted.save(folder)
        found = Recogniser.load(folder)
        assert found.digest() == fitted.digest() and found.rule == Rule() and found.alarming == EMERGENCY

    def test_another_threshold_or_another_text_is_another_recogniser(self, recogniser):
        text = recogniser.text
        other = replace(text, learned=(*text.learned[1:], ("불이야 불", text.learned[0][1])))
        changed = replace(recogniser, rule=Rule(on=0.9)), replace(recogniser, text=other)
        changed += (
            replace(recogniser, alarming=(8,)),
            replace(recogniser, temperatures=recogniser.temperatures | {CNN: 2.0}),
        )
        digests = {one.digest() for one in (recogniser, *changed)}
        with torch.no_grad():
            recogniser.cnn[0].weight += 1
        assert len(digests) == 5 and recogniser.digest() not in digests

    def test_not_yet_calibrated(self, folder):
        with pytest.raises(DataError, match="recogniser.json. Notebook 06 writes it: run it first"):
            Recogniser.load(folder)

    def test_alarming_classes_that_the_models_do_not_have(self, folder):
        with pytest.raises(DataError, match="trained on different classes"):
            Recogniser.assemble(folder, [8, 20])

    @pytest.mark.parametrize(("name", "notebook"), [("cnn.safetensors", "05"), ("text.json", "04")])
    def test_a_voter_is_missing(self, folder, name, notebook):
        (folder / name).unlink()
        with pytest.raises(DataError, match=f"Notebook {notebook} writes it: run it first"):
            Recogniser.assemble(folder, EMERGENCY)

    def test_a_damaged_cnn(self, folder):
        (folder / "cnn.safetensors").write_bytes(b"0" * 100)
        with pytest.raises(DataError, match="damaged .*run notebook 05 again"):
            Recogniser.assemble(folder, EMERGENCY)

    def test_other_classes(self, folder):
        variant = variants(2)[0]
        save_cnn(build_cnn(variant, 2), variant, ("dog", "rain"), folder / "cnn.safetensors")
        with pytest.raises(DataError, match="trained on different classes"):
            Recogniser.assemble(folder, EMERGENCY)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_the_benchmark(monkeypatch):
    """With tiny voters, all measurements run, including the stream, and each target finds its row."""
    import recognition as benchmark

    monkeypatch.setattr(benchmark, "SIZE", WhisperSize(16, 1, 1, 2))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # for the process of the stream
    threads = torch.get_num_threads()
    table = benchmark.measure(rounds=1)
    assert torch.get_num_threads() == threads
    rows = table.set_index("task")
    assert rows.relative[benchmark.PEER] == 1 and (rows.milliseconds.dropna() > 0).all()
    own, mapped = (rows.megabytes[f"stream, {what}"] for what in ("memory of its own", "with files mapped, at most"))
    assert rows.megabytes["of that, by import torch"] < own < mapped
    assert rows.rounds["hop of a stream, p95"] == benchmark.HOPS
    targets = benchmark.check(table)
    assert len(targets) == 3 and targets.measured.gt(0).all()
    worse = table.assign(**{name: 1000 * table[name] for name in ("milliseconds", "relative", "megabytes")})
    assert (benchmark.check(worse).measured > targets.at_most).all()
