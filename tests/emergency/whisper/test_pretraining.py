"""A Whisper learns to read: the losses, where its decoder is to look, and what is learned."""

import unicodedata
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from lib.emergency.features import SILENCE
from lib.emergency.synthesis.spoken import Spoken
from lib.emergency.whisper import model as whisper
from lib.emergency.whisper import pretraining as reading
from lib.emergency.whisper.model import WhisperSize
from lib.emergency.whisper.pretraining import ReadingSettings, learn
from lib.emergency.whisper.training import listen

TEXTS = ("불", "가스", "살려")


@pytest.fixture(scope="module")
def lines():
    """Three lines as different as can be, each a chord of bands of its own that changes from letter to letter."""
    torch.manual_seed(0)
    rows = [torch.rand(8, 80).gt(0.7).float().repeat_interleave(6, 0) * 1.5 - 0.5 for _ in TEXTS]
    frames = torch.tensor([len(one) for one in rows])
    positions = int(frames.sum()) // 2
    progress = torch.cat([(torch.arange(count // 2) + 0.5) / (count // 2) for count in frames.tolist()])
    phonemes = torch.arange(positions) // 3 + 1  # a chord each
    return Spoken(torch.cat(rows).half(), frames.cumsum(0) - frames, frames, TEXTS, phonemes, progress,
                  int(phonemes.max()) + 1, "chords")  # fmt: skip


def fresh(lines):
    return whisper.build(lines.texts, ("silence", "fire"), WhisperSize(32, 1, 1, 2, 300), hidden=8)


@pytest.fixture(scope="module")
def quiet():
    return torch.full((2, 80, 100), SILENCE).half()


class TestLosses:
    def test_are_those_of_the_decoder_and_of_the_phonemes(self, lines):
        model = fresh(lines).eval()
        reader = reading._Reader(model, 5, ReadingSettings(phonemes=0.25, guide=0.5)).eval()
        mel, tokens, phonemes = torch.randn(3, 80, 60), model.tokens_of(TEXTS), torch.randint(5, (3, 30))
        progress = torch.rand(3, 30)
        found = reader(mel, 0, tokens, phonemes, progress)
        hidden, summed, count = model.encode(mel), 0.0, 0
        logits = model.text_logits(hidden, tokens)
        for clip, row in enumerate(tokens.tolist()):
            for place in range(len(model.prompt), len(row)):
                if row[place - 1] != model.end:
                    summed, count = summed + F.cross_entropy(logits[clip, place - 1], tokens[clip, place]), count + 1
        torch.testing.assert_close(found["text_loss"], summed / count)
        likely = reader.namer(hidden).log_softmax(2)
        named = -torch.stack([likely[b, n, phonemes[b, n]] for b in range(3) for n in range(30)]).mean()
        torch.testing.assert_close(found["phoneme_loss"], 0.25 * named)
        with reading._attended(model) as attention:
            model.text_logits(hidden, tokens[:, :-1])
        guide = reading.guide_loss(attention, reading.token_lengths(model)[tokens], progress)
        torch.testing.assert_close(found["guide_loss"], 0.5 * guide)


class TestGuide:
    def test_attention_is_the_decoder_s_own(self, lines):
        """As transformers' own attention that keeps its weights has it."""
        model = whisper.build(lines.texts, ("silence", "fire"), WhisperSize(32, 1, 2, 2, 300), hidden=8).eval()
        hidden, tokens = model.encode(torch.randn(3, 80, 60)), model.tokens_of(TEXTS)
        with reading._attended(model) as found:
            model.text_logits(hidden, tokens)
        model.whisper.set_attn_implementation("eager")
        wanted = model.whisper.model.decoder(
            input_ids=tokens, encoder_hidden_states=hidden, use_cache=False, output_attentions=True
        ).cross_attentions
        assert len(found) == len(wanted) == 2
        for one, other in zip(found, wanted, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)

    def test_nothing_is_left_in_the_model(self, lines):
        model = fresh(lines).eval()
        with pytest.raises(RuntimeError), reading._attended(model):
            raise RuntimeError
        projection = model.whisper.model.decoder.layers[0].encoder_attn.q_proj
        assert not projection._forward_hooks

    @pytest.mark.parametrize("layers", [1, 2, 3])
    def test_is_least_where_each_layer_looks_where_it_should(self, layers):
        """Four letters after a prompt that says nothing, a position each: the first of several layers looks at the
        letter given, the last at the one asked for."""
        lengths = torch.tensor([[0.0, 1, 1, 1, 1, 0]])
        progress = torch.tensor([[-1.0, 0.125, 0.375, 0.625, 0.875, -1.0]])

        def looking(places):  # at each of five steps
            return torch.eye(6)[list(places)][None, None]

        given, asked, free = looking((0, 1, 2, 3, 4)), looking((1, 2, 3, 4, 0)), looking((5, 5, 5, 5, 5))
        stack = {1: [asked], 2: [given, asked], 3: [given, free, asked]}[layers]
        assert reading.guide_loss(stack, lengths, progress) < 1e-6
        wrong = [one.roll(3, 3) for one in stack]
        assert reading.guide_loss(wrong, lengths, progress) > 0.7

    def test_by_hand(self):
        """Two letters of unequal length, looked for anywhere: 1 - a Gaussian on average, 1 where nothing is said."""
        lengths, progress = torch.tensor([[0.0, 3, 1]]), torch.tensor([[0.2, -1.0, 0.9]])
        even = torch.full((1, 2, 2, 3), 1 / 3)
        near = [torch.tensor([-((place - centre) ** 2) / 2 / reading.WIDTH**2]).exp().item()
                for centre in (0.375, 0.875) for place in (0.2, 0.9)]  # fmt: skip
        wanted = 1 - sum(near) / 6
        assert reading.guide_loss([even], lengths, progress).item() == pytest.approx(wanted, abs=1e-6)

    def test_a_text_without_letters_is_not_guided(self):
        assert reading.guide_loss([torch.full((1, 1, 2, 3), 1 / 3)], torch.zeros(1, 3), torch.rand(1, 3)) == 0

    def test_lengths_of_tokens_add_up_to_the_text_s(self, lines):
        model = fresh(lines)
        lengths = reading.token_lengths(model)
        row = model.tokens_of(("가스",))[0]
        assert lengths[row].sum() == len(unicodedata.normalize("NFD", "가스").encode())
        assert (lengths[model.prompt] == 0).all() and lengths[model.end] == 0


class TestLearning:
    def test_lines_are_read_wherever_they_are_said(self, lines, quiet):
        model = fresh(lines)
        many = replace(lines, starts=lines.starts.repeat(32), frames=lines.frames.repeat(32), texts=TEXTS * 32)
        history = learn(model, many, quiet, ReadingSettings(epochs=14, batch_size=16, device="cpu"), seed=0)
        assert history.phoneme_loss.iloc[-1] < 0.3 * history.phoneme_loss.iloc[0]
        assert history.guide_loss.iloc[-1] < 0.7 * history.guide_loss.iloc[0]
        torch.manual_seed(5)
        mel, _ = reading.mixed(quiet[torch.zeros(12).long()], lines, torch.arange(12) % 3, torch.full((12,), 30.0))
        assert listen(model, mel, gated=False).texts == TEXTS * 4

    def test_goes_on_from_its_checkpoint_to_the_same_end(self, lines, quiet, tmp_path):
        how = {"seed": 0, "checkpoint": tmp_path / "reading"}
        at_once = fresh(lines)
        learn(at_once, lines, quiet, ReadingSettings(epochs=2, batch_size=2, device="cpu"), seed=0)

        class Killed(RuntimeError):
            pass

        broken, epoch_batches = fresh(lines), reading.epoch_batches

        def killed(*args, epoch, **rest):
            if epoch == 2:
                raise Killed
            return epoch_batches(*args, epoch=epoch, **rest)

        with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
            patch.setattr(reading, "epoch_batches", killed)
            learn(broken, lines, quiet, ReadingSettings(epochs=2, batch_size=2, device="cpu"), **how)
        again = fresh(lines)
        learn(again, lines, quiet, ReadingSettings(epochs=2, batch_size=2, device="cpu"), **how)
        assert again.digest() == at_once.digest() != fresh(lines).digest()
