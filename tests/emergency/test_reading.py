"""A Whisper learns to read: both readers' losses, and what is learned."""

import unicodedata

import pytest
import torch
import torch.nn.functional as F

from lib.emergency import reading, whisper
from lib.emergency.features import SILENCE
from lib.emergency.moments import listen
from lib.emergency.reading import ReadingSettings, learn
from lib.emergency.spoken import Spoken
from lib.emergency.whisper import WhisperSize

TEXTS = ("불", "가스", "살려")


@pytest.fixture(scope="module")
def lines():
    """Three lines as different as can be, each a chord of bands of its own that changes from letter to letter."""
    torch.manual_seed(0)
    rows = [torch.rand(8, 80).gt(0.7).float().repeat_interleave(6, 0) * 1.5 - 0.5 for _ in TEXTS]
    frames = torch.tensor([len(one) for one in rows])
    return Spoken(torch.cat(rows).half(), frames.cumsum(0) - frames, frames, TEXTS, "chords")


def fresh(lines):
    return whisper.build(lines.texts, ("silence", "fire"), WhisperSize(32, 1, 1, 2, 300), hidden=8)


@pytest.fixture(scope="module")
def quiet():
    return torch.full((2, 80, 100), SILENCE).half()


class TestLosses:
    def test_ctc_is_the_sum_over_all_alignments(self, lines):
        """By the textbook's recursion over every path of letters and blanks, in the probabilities themselves."""
        torch.manual_seed(1)
        model = fresh(lines).eval()
        letters, counts, kinds = reading._letters(("가", "스"))
        reader = reading._Reader(model, kinds, 0.3).eval()
        mel, tokens = torch.randn(2, 80, 8), model.tokens_of(("가", "스"))
        with torch.no_grad():
            found = reader(mel, tokens, letters, counts)["letter_loss"]
            likely = reader.alphabet(model.encode(mel)).softmax(2)  # (2, 4, kinds)
        wanted = []
        for clip, (row, count) in enumerate(zip(letters.tolist(), counts.tolist(), strict=True)):
            total = 0.0
            for path in torch.cartesian_prod(*[torch.arange(kinds)] * likely.shape[1]).tolist():
                merged = [one for k, one in enumerate(path) if one and (not k or path[k - 1] != one)]
                if merged == row[:count]:
                    total += torch.stack([likely[clip, k, one] for k, one in enumerate(path)]).prod().item()
            wanted.append(-torch.tensor(total).log() / count)
        torch.testing.assert_close(found, 0.3 * torch.stack(wanted).mean(), rtol=1e-4, atol=1e-5)

    def test_letters_are_jamo_without_spaces(self):
        letters, counts, kinds = reading._letters(("불 이", "이"))
        assert counts.tolist() == [len(unicodedata.normalize("NFD", "불이")), 2]
        assert kinds == 6 and letters[1, :2].tolist() == letters[0, 3:].tolist() and letters[1, 2:].sum() == 0

    def test_the_decoder_s_is_that_of_moments(self, lines):
        model = fresh(lines).eval()
        reader = reading._Reader(model, 5, 0.25).eval()
        mel, tokens = torch.randn(3, 80, 60), model.tokens_of(TEXTS)
        found = reader(mel, tokens, torch.ones(3, 2).long(), torch.tensor([2, 2, 2]))["text_loss"]
        logits, summed, count = model.text_logits(model.encode(mel), tokens), 0.0, 0
        for clip, row in enumerate(tokens.tolist()):
            for place in range(len(model.prompt), len(row)):
                if row[place - 1] != model.end:
                    summed, count = summed + F.cross_entropy(logits[clip, place - 1], tokens[clip, place]), count + 1
        torch.testing.assert_close(found, 0.75 * summed / count)


class TestLearning:
    def test_lines_are_read_wherever_they_are_said(self, lines, quiet):
        model = fresh(lines)
        many = Spoken(lines.rows, lines.starts.repeat(32), lines.frames.repeat(32), TEXTS * 32, "chords")
        history = learn(model, many, quiet, ReadingSettings(epochs=14, batch_size=16, device="cpu"), seed=0)
        assert history.letter_loss.iloc[-1] < 0.2 * history.letter_loss.iloc[0]
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
