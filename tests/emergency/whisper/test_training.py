"""Clips with frame labels and texts, and the training of a Whisper on both."""

import unicodedata

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lib.data.audio import Sounds
from lib.emergency.data import sounds
from lib.emergency.features import log_mel
from lib.emergency.synthesis.soundscapes import draw_soundscapes
from lib.emergency.whisper import model as whisper
from lib.emergency.whisper import training as moments
from lib.emergency.whisper.model import WhisperSize
from lib.emergency.whisper.training import (
    UNKNOWN,
    Settings,
    augment,
    equalised,
    label_frames,
    predict_frames,
    starting_at,
)

SIZE = WhisperSize(d_model=16, encoder_layers=1, decoder_layers=1, heads=2, tokens=300)


def tones(count=24, classes=3, seconds=1.0, spans=True, texts=True):
    """Clips with a tone in their middle half, its pitch given by the class; class 0 is silent."""
    draw = np.random.default_rng(0)
    labels = np.arange(count) % classes
    time = np.arange(round(seconds * 16_000)) / 16_000
    heard = (time >= seconds / 4) & (time < 3 * seconds / 4)
    waves = [np.sin(2 * np.pi * 400 * 3**label * time) * heard * 0.3 * bool(label) for label in labels]
    samples = np.rint((np.stack(waves) + draw.normal(0, 1e-4, (count, len(time)))) * 32767).astype(np.int16)
    return Sounds(
        torch.from_numpy(samples), torch.from_numpy(labels), ("silence", "low", "high")[:classes],
        torch.zeros(count, dtype=torch.long), ("",) * count, "tones", "t", "train",
        spans=tuple(((seconds / 4, 3 * seconds / 4),) if label else () for label in labels) if spans else None,
        texts=tuple(("", "불이야", "살려주세요")[label] for label in labels) if texts else None,
    )  # fmt: skip


def model(classes=("silence", "low", "high"), stack=2, seed=0):
    return whisper.build(("불이야", "살려주세요"), classes, SIZE, stack=stack, hidden=8, seed=seed)


class TestClips:
    def test_soundscapes_say_what_is_heard_when(self):
        drawn = draw_soundscapes(40, split="test")
        clips = label_frames(sounds.of_soundscapes(drawn, "test"))
        assert clips.mel.shape == (40, 80, 400) and clips.moments.shape == (40, 200)
        for row, clip, text in zip(clips.moments, drawn.clips, clips.texts, strict=True):
            assert set(row.tolist()) <= {0, clip.number} and text == clip.transcript
            for label in clip.labels:
                middle = round((label.onset + label.offset) / 2 * 50)
                if label.kind != "distractor":
                    assert row[min(middle, 199)] == clip.number
            heard = sum(label.offset - label.onset for label in clip.labels if label.kind != "distractor")
            assert (row > 0).sum() <= heard * 50 + 2 * len(clip.labels)

    def test_without_times_every_moment_is_of_the_clip_s_class_but_digital_silence(self):
        some = tones(spans=False)
        some.samples[1, : 8_000 + 100] = 0
        clips = label_frames(some)
        assert clips.moments[1].tolist() == [UNKNOWN] * 25 + [1] * 25
        assert clips.moments[2].tolist() == [2] * 50

    @pytest.mark.parametrize("seconds", [2.54, 2.55, 2.56])
    def test_a_last_odd_frame_is_left_out(self, seconds):
        clips = label_frames(sounds.load("soundscapes", "test", count=20, seconds=seconds))
        assert clips.mel.shape[2] == 2 * clips.moments.shape[1] == 2 * int(50 * seconds)
        model = whisper.build(["불"], clips.classes, WhisperSize(16, 1, 1, 2, 260), stack=4, hidden=8)
        assert model(clips.mel[:1].float()).shape[1] == clips.targets(4).shape[1]

    def test_targets_are_those_in_the_middle_of_a_moment(self):
        clips = label_frames(tones())
        assert clips.targets(1).equal(clips.moments)
        assert clips.targets(4).shape == (24, 12)
        assert clips.targets(2)[1].tolist() == clips.moments[1, 1::2].tolist()

    def test_times_and_words_are_part_of_the_checksum(self):
        sums = {label_frames(tones(spans=spans, texts=texts)).checksum for spans in (0, 1) for texts in (0, 1)}
        assert len(sums) == 4


class TestStartingAt:
    @pytest.mark.parametrize("second", [0.0, 0.3])
    def test_the_first_sound_begins_there(self, second):
        clips = label_frames(tones())
        turned = starting_at(clips, second)
        first = round(second * 50)
        for row, before in zip(turned.moments, clips.moments, strict=True):
            if before.any():
                assert (row > 0).int().argmax() == first
            assert row.sum() == before.sum()
        by = first - round(0.25 * 50)
        torch.testing.assert_close(turned.mel[1], clips.mel[1].roll(2 * by, -1))
        assert turned.mel[0].equal(clips.mel[0])  # silence
        assert turned.checksum != clips.checksum


class TestAugment:
    def settings(self, **kwargs):
        return Settings(**{"time_mask": 0.0, "frequency_mask": 0.0} | kwargs)

    def test_spectrogram_and_moments_turn_together(self):
        ramp = torch.arange(50).repeat(64, 1)
        mel = ramp.repeat_interleave(2, 1)[:, None].expand(-1, 80, -1).float()
        turned, moments_ = augment(mel, ramp, torch.zeros(64, dtype=torch.bool), self.settings())
        assert turned[:, 0, ::2].long().equal(moments_) and len(moments_[:, 0].unique()) > 20

    def test_no_word_is_cut_in_two(self):
        torch.manual_seed(0)
        clips = label_frames(tones())
        _, turned = augment(clips.mel.float(), clips.moments, torch.ones(24, dtype=torch.bool), self.settings())
        for row, before in zip(turned, clips.moments, strict=True):
            assert row.sum() == before.sum()
            assert (row > 0).int().diff().abs().sum() <= 2  # one contiguous span

    def test_stays_where_there_is_nowhere_to_cut(self):
        full = torch.ones(3, 50, dtype=torch.long)
        _, turned = augment(torch.randn(3, 80, 100), full, torch.ones(3, dtype=torch.bool), self.settings())
        assert turned.equal(full)

    def test_masks_hide_at_most_their_share(self):
        torch.manual_seed(0)
        said = torch.zeros(200, dtype=torch.bool)
        mel, _ = augment(torch.ones(200, 80, 100), torch.ones(200, 50), said,
                         self.settings(shift=False, time_mask=0.1, frequency_mask=0.2))  # fmt: skip
        hidden = mel == 0
        assert 0 < hidden.all(2).sum(1).max() <= 16 and 0 < hidden.all(1).sum(1).max() <= 10

    def test_an_equaliser_is_a_filter(self):
        torch.manual_seed(0)
        mel = torch.rand(2000, 80, 20) * 0.1  # nothing near the clamp
        found = equalised(mel, 6.0)
        curve = (found - mel)[:, :, :1]
        torch.testing.assert_close(found - mel, curve.expand_as(mel), atol=1e-6, rtol=0)  # the same in all frames
        edges = 40 * curve[:, [0, -1], 0]  # dB, where the curve is at its knots
        assert edges.std(0).sub(6.0).abs().max() < 0.4 and edges.mean(0).abs().max() < 0.6
        assert abs(float(torch.corrcoef(edges.T)[0, 1])) < 0.1
        assert curve.diff(dim=1).abs().max() < 5 * 6 / 40 * 5 / 79 * 2  # smooth: no step of more than five deviations

    def test_an_equaliser_keeps_eight_decades(self):
        samples = torch.randn(4, 16000) * torch.linspace(0, 1, 16000)
        mel = log_mel(samples / samples.abs().max())
        assert equalised(mel, 0.0).equal(mel)
        found = equalised(mel, 20.0)
        assert (found.amax((1, 2)) - found.amin((1, 2))).max() <= 2 + 1e-6
        assert augment(mel, torch.zeros(4, 50).long(), torch.zeros(4, dtype=torch.bool),
                       self.settings(shift=False))[0].equal(mel)  # no equaliser by default  # fmt: skip


class TestTraining:
    @pytest.mark.parametrize("how", [{"learning_rate": 0.01}, {"optimizer": "muon", "learning_rate": 0.004}])
    def test_learns_what_is_heard_when_and_what_is_said(self, how):
        torch.manual_seed(0)
        clips, whole = label_frames(tones(48, seconds=2.0)), model()
        settings = Settings(0.5, 30, 8, shift=False, **how)
        moments.train(whole, clips, settings, seed=0)
        heard = predict_frames(whole, clips.mel)
        assert (heard.moments.argmax(2) == clips.targets(2)).float().mean() > 0.9
        assert (heard.clips.argmax(1) == clips.labels).float().mean() > 0.95
        assert np.mean([one == two for one, two in zip(heard.texts, clips.texts, strict=True)]) > 0.9

    def test_muon_gets_the_matrices_between_hidden_states(self):
        whole = model()
        adam, muon = moments.optimizers(whole, Settings(optimizer="muon", learning_rate=0.001))
        names = {weight: name for name, weight in whole.named_parameters()}
        given = [[names[weight] for group in one.param_groups for weight in group["params"]] for one in (adam, muon)]
        learned = [name for name, weight in whole.named_parameters() if weight.requires_grad]
        assert sorted(given[0] + given[1]) == sorted(learned)
        assert {weight.ndim for group in muon.param_groups for weight in group["params"]} == {2}
        assert "head.0.weight" in given[1] and "whisper.model.encoder.layers.0.fc1.weight" in given[1]
        assert {"head.2.weight", "whisper.model.decoder.embed_tokens.weight"} <= set(given[0])
        assert muon.param_groups[0]["lr"] == pytest.approx(moments.MUON_SHARE * 0.001)
        assert len(moments.optimizers(whole, Settings())) == 1

    def test_the_losses_are_the_textbook_s(self):
        torch.manual_seed(0)
        clips, whole = label_frames(tones(4)), model()
        tokens = whole.tokens_of(clips.texts)
        mel = clips.mel.float()
        terms = moments._Losses(whole.eval(), 0.3)(mel, clips.moments, tokens)
        hidden = whole.hidden(mel)[0]
        wanted = clips.targets(2)
        by_hand = [-F.log_softmax(row, 0)[k] for row, k in zip(whole(mel).flatten(0, 1), wanted.flatten(), strict=True)]
        torch.testing.assert_close(terms["label_loss"], 0.7 * torch.stack(by_hand).mean())
        logits, by_hand = whole.text_logits(hidden, tokens), []
        for clip, text in enumerate(clips.texts):
            ids = [*whole.tokenizer.encode(unicodedata.normalize("NFD", text), add_special_tokens=False), whole.end]
            by_hand += [-F.log_softmax(logits[clip, 3 + k], 0)[token] for k, token in enumerate(ids)]
        torch.testing.assert_close(terms["text_loss"], 0.3 * torch.stack(by_hand).mean())

    def test_clips_without_words_teach_a_trained_whisper_one_token(self, monkeypatch):
        whole = model().eval()
        monkeypatch.setattr(whole, "no_speech", 7)
        tokens, hidden = whole.tokens_of(["불", "", "물이"]), torch.randn(3, 20, whole.whisper.config.d_model)
        logits = whole.text_logits(hidden, tokens).log_softmax(2)
        by_hand = [-logits[0, 0, whole.prompt[1]], -logits[1, 0, 7], -logits[2, 0, whole.prompt[1]]]
        for row in (0, 2):
            ids = tokens[row, 4:].tolist()
            by_hand += [-logits[row, 3 + k, token] for k, token in enumerate(ids[: ids.index(whole.end) + 1])]
        torch.testing.assert_close(moments.text_loss(whole, hidden, tokens), torch.stack(by_hand).mean())

    def test_weights_of_a_checkpoint_learn_more_slowly_the_lower_they_are(self):
        settings = Settings(learning_rate=1.0, trained_rate=0.1, layer_decay=0.5, weight_decay=0.3)
        whole = whisper.build(("불이야",), ("silence", "low"), WhisperSize(16, 3, 1, 2, 300), stack=2, hidden=8)
        (adam,) = moments.optimizers(whole, settings)
        names = {weight: name for name, weight in whole.named_parameters()}
        rates = {names[weight]: (group["lr"], group["weight_decay"]) for group in adam.param_groups
                 for weight in group["params"]}  # fmt: skip
        assert set(rates) == {name for name, weight in whole.named_parameters() if weight.requires_grad}
        layers = whole.whisper.config.encoder_layers
        for layer in range(layers):
            wanted = 0.1 * 0.5 ** (layers - 1 - layer)
            assert rates[f"whisper.model.encoder.layers.{layer}.fc1.weight"] == pytest.approx((wanted, 0.3))
            assert rates[f"whisper.model.encoder.layers.{layer}.final_layer_norm.bias"] == pytest.approx((wanted, 0.0))
        assert rates["whisper.model.encoder.conv1.weight"][0] == pytest.approx(0.1 * 0.5**layers)
        assert rates["whisper.model.encoder.layer_norm.weight"][0] == pytest.approx(0.1)
        assert rates["whisper.model.decoder.layers.0.fc1.weight"][0] == pytest.approx(0.1)
        assert rates["head.0.weight"] == (1.0, 0.3)

    def test_adapters_are_the_product_of_two_small_matrices_and_end_in_the_weights(self):
        whole, mel = model().eval(), label_frames(tones(4)).mel.float()
        names, last = list(dict(whole.named_parameters())), whole.hidden(mel)[0]
        query = whole.whisper.model.encoder.layers[0].self_attn.q_proj.weight.detach().clone()
        with moments.adapted(whole, 2, seed=0):
            torch.testing.assert_close(whole.hidden(mel)[0], last)
            learned = {name: weight for name, weight in whole.named_parameters() if weight.requires_grad}
            small = {name: weight for name, weight in learned.items() if not name.startswith("head.")}
            # A pair each for queries and values in the encoder, the decoder and cross-attention.
            assert len(small) == 12 and {min(weight.shape) for weight in small.values()} == {2}
            assert len(learned) - len(small) == len(list(whole.head.parameters()))
            (adam,) = moments.optimizers(whole, Settings(learning_rate=0.5, trained_rate=0.1, adapters=2))
            assert {group["lr"] for group in adam.param_groups} == {0.5}
            with torch.no_grad():
                for weight in small.values():
                    weight.normal_()
            first, second = (weight for name, weight in small.items() if "encoder.layers.0.self_attn.q_proj" in name)
            wanted, last = query + 2 * second @ first, whole.hidden(mel)[0]
        torch.testing.assert_close(whole.whisper.model.encoder.layers[0].self_attn.q_proj.weight, wanted)
        torch.testing.assert_close(whole.hidden(mel)[0], last)
        assert list(dict(whole.named_parameters())) == names
        assert all(weight.requires_grad for weight in whole.parameters())

    def test_with_adapters_nothing_else_of_the_whisper_learns(self):
        whole = model()
        before = {name: value.clone() for name, value in whole.state_dict().items()}
        moments.train(whole, label_frames(tones()), Settings(0.5, 1, 8, adapters=2), seed=0)
        changed = {name for name, value in whole.state_dict().items() if not torch.equal(value, before[name])}
        assert changed == {name for name in before if "q_proj.weight" in name or "v_proj.weight" in name
                           or name.startswith("head.")}  # fmt: skip

    def test_what_is_unknown_is_not_learned_from(self):
        clips, whole = label_frames(tones(4)), model().eval()
        losses = moments._Losses(whole, 0.0)
        unknown = torch.full_like(clips.moments, UNKNOWN)
        assert losses(clips.mel.float(), unknown, None)["label_loss"] == 0
        half = clips.moments.clone()
        half[2:] = UNKNOWN
        one, two = (
            losses(clips.mel.float()[:n], m, None)["label_loss"] for n, m in ((4, half), (2, clips.moments[:2]))
        )
        torch.testing.assert_close(one, two)

    @pytest.mark.parametrize(("ratio", "terms"), [(0.0, {"label_loss"}), (0.5, {"label_loss", "text_loss"}),
                                                  (1.0, {"text_loss"})])  # fmt: skip
    def test_the_ratio_decides_what_runs(self, ratio, terms):
        clips, whole = label_frames(tones(2)), model()
        calls = []
        whole.whisper.model.decoder.register_forward_hook(lambda *_: calls.append(1))
        found = moments._Losses(whole, ratio)(clips.mel.float(), clips.moments, whole.tokens_of(clips.texts))
        assert set(found) == terms and bool(calls) == (ratio > 0)

    def test_clips_without_texts_cannot_be_transcribed(self):
        clips = label_frames(tones(texts=False))
        with pytest.raises(ValueError, match="tones has no texts: .* set the ratio to 0"):
            moments.train(model(), clips, Settings(0.5), seed=0)
        history = moments.train(model(), clips, Settings(0.0, 1, 8), seed=0)
        assert "text_loss" not in history

    def test_a_ratio_beyond_one(self):
        with pytest.raises(ValueError, match="ratio is 1.5"):
            Settings(1.5)

    @pytest.mark.parametrize("how", [{}, {"optimizer": "muon"}, {"adapters": 2}])
    def test_continued_equals_uninterrupted(self, tmp_path, monkeypatch, how):
        clips = label_frames(tones())
        settings = Settings(0.5, 3, 8, **how)
        uninterrupted = model()
        history = moments.train(uninterrupted, clips, settings, seed=0)
        real, calls = moments.augment, []

        def dies(*args):
            calls.append(1)
            if len(calls) == 8:  # in the third epoch
                raise KeyboardInterrupt
            return real(*args)

        monkeypatch.setattr(moments, "augment", dies)
        with pytest.raises(KeyboardInterrupt):
            moments.train(model(), clips, settings, seed=0, checkpoint=tmp_path / "c")
        monkeypatch.setattr(moments, "augment", real)
        continued = model()
        again = moments.train(continued, clips, settings, seed=0, checkpoint=tmp_path / "c")
        assert continued.digest() == uninterrupted.digest() and history.equals(again)

    def test_other_first_weights_start_anew(self, tmp_path):
        clips, settings = label_frames(tones()), Settings(0.0, 1, 8)
        trained = [model(seed=seed) for seed in (0, 1)]
        for one in trained:
            moments.train(one, clips, settings, seed=0, checkpoint=tmp_path / "c")
        assert trained[0].digest() != trained[1].digest()

    def test_fewer_clips_than_a_batch(self):
        clips = label_frames(tones(4))
        history = moments.train(model(), clips, Settings(0.0, 1, 16), seed=0)
        assert history.label_loss.notna().sum() == 1


class TestListening:
    def test_silence_is_never_decoded(self, monkeypatch):
        whole = model()
        with torch.no_grad():
            whole.head[2].bias[:] = torch.tensor([50.0, 0, 0])
        monkeypatch.setattr(whole, "transcribe", lambda *_: pytest.fail("decoded"))
        heard = predict_frames(whole, label_frames(tones()).mel)
        assert heard.texts == ("",) * 24 and not heard.clips.argmax(1).any()

    def test_texts_stay_with_their_clips(self, monkeypatch):
        whole = model()
        clips = label_frames(tones())
        loud = iter([torch.tensor([0, 1, 0, 1] * 6)])
        monkeypatch.setattr(whole, "clip_logits", lambda _: F.one_hot(next(loud), 3).float())
        monkeypatch.setattr(whole, "transcribe", lambda hidden: [f"{i}" for i in range(len(hidden))])
        heard = predict_frames(whole, clips.mel, batch_size=24)
        assert heard.texts[:4] == ("", "0", "", "1") and heard.texts[-1] == "11"

    def test_moments_are_smoothed_and_clips_are_not(self):
        whole, mel = model(), label_frames(tones()).mel
        with torch.no_grad():
            logits = whole(mel.float())
        heard = predict_frames(whole, mel, words=False)
        torch.testing.assert_close(heard.moments, moments.smoothed(logits, whole.seconds_per_moment))
        torch.testing.assert_close(heard.clips, whole.clip_logits(logits))
        assert (heard.moments - logits.log_softmax(-1)).abs().max() > 1e-3

    def test_shapes(self):
        heard = predict_frames(model(stack=4), label_frames(tones(5)).mel, batch_size=2)
        assert heard.moments.shape == (5, 12, 3) and heard.clips.shape == (5, 3) and len(heard.texts) == 5


class TestSmoothing:
    @pytest.mark.parametrize(("seconds", "beside"), [(0.08, 4), (0.04, 9), (0.02, 18), (1.0, 0)])
    def test_is_the_mean_of_the_probabilities_that_there_are(self, seconds, beside):
        logits = torch.randn(2, 50, 3, generator=torch.Generator().manual_seed(0))
        likely, found = logits.softmax(-1), moments.smoothed(logits, seconds).exp()
        for k in (0, 1, 25, 49):
            around = likely[:, max(0, k - beside) : k + beside + 1].mean(1)
            torch.testing.assert_close(found[:, k], around)

    def test_a_single_slip_is_overruled_and_an_event_is_not(self):
        wanted = torch.tensor([[0] * 15 + [1] * 20 + [0] * 15])
        slips = wanted.clone()
        slips[0, [5, 25, 45]] = torch.tensor([2, 0, 1])
        assert (moments.smoothed(8.0 * F.one_hot(slips, 3), 0.08).argmax(-1) == wanted).all()

    @given(
        hnp.arrays(
            np.float32, st.tuples(st.just(1), st.integers(1, 12), st.just(3)), elements=st.floats(-90, 90, width=32)
        )
    )
    def test_gives_finite_logits_of_probabilities_at_any_length(self, logits):
        found = moments.smoothed(torch.from_numpy(logits), 0.08)
        assert found.isfinite().all() and found.shape == logits.shape
        torch.testing.assert_close(found.exp().sum(-1), torch.ones(1, logits.shape[1]), atol=1e-5, rtol=0)

    def test_what_is_sure_all_along_stays(self):
        logits = torch.tensor([2.0, -1.0, 0.5]).expand(1, 30, 3)
        torch.testing.assert_close(moments.smoothed(logits, 0.08), logits.log_softmax(-1))
