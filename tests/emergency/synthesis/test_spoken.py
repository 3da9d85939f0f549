"""Lines to read, and clips into which they are mixed."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.emergency.features import log_mel, scaled
from lib.emergency.synthesis.lines import LINES, lines
from lib.emergency.synthesis.speech import speech_bank
from lib.emergency.synthesis.spoken import LONGEST, Spoken, lines_to_read, mixed, read_aloud, spoken

HELD_OUT = {line for number in LINES for line in lines(number, "test")}


@pytest.fixture(scope="module")
def some():
    return spoken(20, seed=0)


class TestLines:
    def test_none_is_of_the_test_and_none_comes_twice(self):
        found = lines_to_read(3000, seed=0)
        assert len(set(found)) == 3000 and not set(found) & HELD_OUT
        assert all(1 <= len(line.split()) <= 3 for line in found)

    def test_the_first_are_the_same_of_any_count_and_others_of_another_seed(self):
        assert lines_to_read(5, seed=0) == lines_to_read(9, seed=0)[:5] != lines_to_read(5, seed=1)

    def test_all_is_hangul(self):
        assert all(letter == " " or "가" <= letter <= "힣" for line in lines_to_read(500, seed=3) for letter in line)

    def test_words_that_are_no_words_are_among_them(self):
        known = {word for number in LINES for line in lines(number, "train") for word in line.split()}
        words = [word for line in lines_to_read(1000, seed=0) for word in line.split()]
        assert 0.5 < sum(word in known for word in words) / len(words) < 0.7


class TestSpoken:
    def test_lines_to_read_and_those_of_the_training(self, some):
        read = lines_to_read(20, seed=0)
        assert [text for text in some.texts if text in read] == [text for text in read if text in some.texts]
        assert set(some.texts) - set(read) <= {one.text for one in speech_bank("train").utterances}
        assert len(some) == len(some.starts) == len(some.frames) and some.frames.sum() == len(some.rows)
        assert some.starts[0] == 0 and torch.equal(some.starts[1:], some.frames.cumsum(0)[:-1])
        assert some.frames.max() <= 100 * LONGEST

    def test_the_same_seed_the_same_lines(self, some):
        again, other = spoken(20, seed=0), spoken(20, seed=1)
        assert again.checksum == some.checksum != other.checksum and torch.equal(again.rows, some.rows)

    def test_the_test_s_lines_are_as_they_were_spoken(self):
        found, (first, *_) = read_aloud("test"), speech_bank("test").utterances
        assert set(found.texts) <= HELD_OUT and found.texts[0] == first.text
        wanted = log_mel(scaled(torch.from_numpy(first.samples)[None]))[0].mT.half()
        wanted = wanted[: len(wanted) // 2 * 2]
        assert torch.equal(found.rows[: found.frames[0]], wanted)


class TestPhonemes:
    def test_each_position_has_the_phoneme_that_is_said_then(self):
        """As espeak-ng says when each begins: at the middle of the position, until the next."""
        found, names = read_aloud("test"), set()
        kept = [one for one in speech_bank("test").utterances if len(one.samples) // 160 <= 100 * LONGEST]
        number: dict[str, int] = {}
        for k in range(0, len(found), 20):
            start, count = found.starts[k] // 2, found.frames[k] // 2
            one = kept[k]
            onsets = [onset for onset, _ in one.phonemes]
            for place in range(int(count)):
                now = [name for onset, name in one.phonemes if onset <= (place + 0.5) / 50]
                found_number = found.phonemes[start + place].item()
                if not now:
                    assert found_number == 0 and found.progress[start + place] == -1
                    continue
                assert number.setdefault(now[-1], found_number) == found_number > 0
                assert len(now) - 1 <= found.progress[start + place] * len(onsets) <= len(now)
            names |= {name for _, name in one.phonemes}
        assert len(set(number.values())) == len(number) <= len(names) < found.kinds

    def test_progress_rises_through_a_line(self, some):
        for start, count in zip(some.starts.tolist()[:30], some.frames.tolist()[:30], strict=True):
            said = some.progress[start // 2 : (start + count) // 2]
            said = said[said >= 0]
            assert len(said) > 5 and (said.diff() > 0).all() and said[0] < 0.2 and said[-1] > 0.8

    def test_places_in_a_clip(self):
        places, said = tone(6).at(torch.tensor([0, 0]), torch.tensor([0, 3]), 5)
        assert said.tolist() == [[True] * 3 + [False] * 2, [False] * 2 + [True] * 3]
        assert places[said].tolist() == [0, 1, 2] * 2

    def test_without_espeak_vowels_are_the_phonemes(self):
        found = read_aloud("test", kind="babble")
        assert 2 < found.kinds <= 22 and (found.phonemes > 0).float().mean() > 0.7


def tone(frames, level=0.0, mels=4):
    """A line that is equally loud in all its cells, in decades."""
    said = torch.ones(frames // 2).long(), (torch.arange(frames // 2) + 0.5) / max(frames // 2, 1)
    rows = torch.full((frames, mels), (level + 4) / 4)
    return Spoken(rows, torch.tensor([0]), torch.tensor([frames]), ("아",), *said, 2, "")


class TestMixing:
    @given(frames=st.integers(1, 30), length=st.integers(30, 60), seed=st.integers(0, 99))
    @settings(max_examples=25, deadline=None)
    def test_a_line_is_said_once_and_whole(self, frames, length, seed):
        torch.manual_seed(seed)
        mel, onsets = mixed(torch.zeros(3, 4, length), tone(frames), torch.zeros(3).long(), torch.full((3,), 60.0))
        for row, onset in zip(mel[:, 0], onsets.tolist(), strict=True):
            loud = (row > 0.5).nonzero()[:, 0]
            assert loud.tolist() == list(range(onset, onset + frames))

    def test_powers_add_up_at_the_level_that_is_asked_for(self):
        """At 10 dB over the clip: 1 beside 0.1 while it is said, 0.1 alone before and after."""
        mel, (onset,) = mixed(torch.full((1, 4, 50), 0.3), tone(20), torch.tensor([0]), torch.tensor([10.0]))
        power = 10 ** (4 * mel[0, 0] - 4)
        torch.testing.assert_close(power[onset : onset + 20], torch.full((20,), 1.1), rtol=1e-4, atol=0)
        torch.testing.assert_close(torch.cat([power[:onset], power[onset + 20 :]]), torch.full((30,), 0.1), rtol=1e-4,
                                   atol=0)  # fmt: skip

    def test_is_nearly_the_spectrogram_of_the_sum(self, some):
        """Of independent sounds, whose products of amplitudes come out small."""
        torch.manual_seed(0)
        noise, said = 0.05 * torch.randn(1, 64000), speech_bank("test").utterances[3].samples
        lines = read_aloud("test")
        mel, (onset,) = mixed(log_mel(noise), lines, torch.tensor([3]), torch.tensor([10.0]))
        line = scaled(torch.from_numpy(said)[None])[0]
        both = torch.zeros(64000)
        both[onset * 160 : onset * 160 + len(line)] = line
        before = log_mel(both[None])
        power = 10 ** (4 * before - 4)
        loud = power.mean(1)[0]
        level = loud[loud > 1e-3 * loud.max()].mean()
        share = (level / (10 ** (4 * log_mel(noise) - 4)).mean() / 10).sqrt()
        wanted = log_mel(both + share * noise)
        assert (mel - wanted).abs().mean() < 0.05  # 2 dB a cell; a range of 2
        assert torch.corrcoef(torch.stack([mel.flatten(), wanted.flatten()]))[0, 1] > 0.98

    def test_longer_than_the_clip_is_cut(self):
        mel, onsets = mixed(torch.zeros(2, 4, 10), tone(25), torch.tensor([0, 0]), torch.tensor([60.0, 60.0]))
        assert onsets.tolist() == [0, 0] and (mel > 0.5).all()
