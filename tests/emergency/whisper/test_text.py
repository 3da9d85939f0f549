"""Character error rates, and the classifier from text to class."""

import math
import unicodedata

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lib.data.catalog import DataError
from lib.emergency.synthesis.lines import CORES
from lib.emergency.whisper import text
from lib.emergency.whisper.text import (
    aligned,
    cer_row,
    chance_cer,
    errors,
    fit_text,
    hallucinations,
    normalise,
)

words = st.text("가나다라 불이야.", max_size=12)


def distance(one, two):
    """Levenshtein, by its definition."""
    row = list(range(len(two) + 1))
    for i, a in enumerate(one, 1):
        before, row[0] = row[0], i
        for j, b in enumerate(two, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (a != b))
    return row[-1]


def cer(references, hypotheses):
    return cer_row(references, hypotheses, seed=0)["cer"]


class TestNormalisers:
    def test_each_is_the_one_before_and_something_more(self):
        line = "  살려 주세요,  빨리! "
        assert [normalise(line, name) for name in text.NORMALISERS] == [
            "살려 주세요, 빨리!", "살려 주세요 빨리", "살려주세요빨리", unicodedata.normalize("NFD", "살려주세요빨리"),
        ]  # fmt: skip

    @pytest.mark.parametrize("name", text.NORMALISERS)
    @given(line=words)
    def test_nfd_is_nfc(self, name, line):
        assert normalise(unicodedata.normalize("NFD", line), name) == normalise(line, name)
        assert normalise(normalise(line, name), name) == normalise(line, name)


class TestCharacterErrors:
    @given(st.lists(st.tuples(words, words), max_size=5))
    def test_equal_levenshtein(self, pairs):
        plain = [(normalise(one), normalise(two)) for one, two in pairs]
        wanted = [(distance(one, two), len(one)) for one, two in plain if one]
        assert errors(*zip(*pairs, strict=True) if pairs else ([], [])).tolist() == [list(row) for row in wanted]

    def test_corpus_level(self):
        assert cer(["가나다라", "가"], ["가나다라", "나"]) == pytest.approx(20)  # not the mean of 0 and 100

    def test_words_where_none_are_said_do_not_count(self):
        assert cer(["", "가나"], ["자막 제공", "가나"]) == 0
        assert math.isnan(cer([""], ["자막"]))

    def test_invented_characters_exceed_a_hundred(self):
        assert cer(["가"], ["나다라"]) == 300

    def test_interval(self):
        references, hypotheses = ["가나다라"] * 100, ["가나다라", "가나다마"] * 50
        row = cer_row(references, hypotheses, seed=0)
        assert row["cer"] == 12.5 and row["clips"] == 100
        # The mean of n shares of 0 or 1/4: standard error 0.125 / sqrt(100).
        assert row["cer_low"] == pytest.approx(12.5 - 1.96 * 1.25, abs=0.4)
        assert row["cer_high"] == pytest.approx(12.5 + 1.96 * 1.25, abs=0.4)
        assert math.isnan(cer_row([""], [""], seed=0)["cer_low"])


class TestChance:
    def test_of_two_it_is_the_other_one_s(self):
        assert chance_cer(["가나", "다", ""], ["가나", "다라", "마"], seed=0) == pytest.approx(100 * (2 + 2) / 3)

    def test_who_always_writes_the_same_is_no_better_than_chance(self):
        said = ["불이야", "가스가 새요", "", "살려주세요"]
        assert chance_cer(said, ["불이 나요"] * 4, seed=0) == pytest.approx(cer(said, ["불이 나요"] * 4))

    def test_lines_by_heart_are_far_from_it(self):
        said = ["불이야", "가스가 새요", "살려주세요", "감전됐어요"]
        assert cer(said, said) == 0 and chance_cer(said, said, seed=0) > 70

    def test_one_clip_has_none(self):
        assert math.isnan(chance_cer(["불", ""], ["불", ""], seed=0))


@pytest.mark.parametrize("texts, labels", [
    (["불이야", "사람 살려", "도와줘", "사람 살려"], [0, 0, 1, 1]),  # a fold may leave a class without texts
    (["a", "a", "b", "b", "c", "d", "e"], [0, 0, 1, 1, 2, 2, 2]),
])  # fmt: skip
def test_texts_that_classes_share_can_be_learned(texts, labels):
    reader = fit_text(texts, torch.tensor(labels), max(labels) + 1)
    assert 0.01 <= reader.temperature <= 100 and torch.isfinite(reader.logits(texts)).all()


def test_how_sure_to_be_is_learned_from_other_texts():
    """The lines are random: had it learned copies of held-out lines, the classifier would be overconfident."""
    draw = np.random.default_rng(0)
    lines = ["".join(draw.choice(list("가나다라마바사아자차카타파하"), 6)) for _ in range(60)]
    labels = torch.from_numpy(draw.integers(0, 3, 60))
    once, copied = (fit_text(some * lines, labels.repeat(some), 3).temperature for some in (1, 4))
    assert once > 2 and copied > 2


def test_hallucinations():
    assert hallucinations(["", "", " ", "불이야"], ["자막", "", "자막", "불"]) == (2, 3)


class TestAligned:
    def test_pieces(self):
        assert aligned("불이 났어요", "불이 나써요!") == [
            ("equal", "불이 ", "불이 "), ("substitute", "났어", "나써"), ("equal", "요", "요"),
        ]  # fmt: skip

    @given(words, words)
    def test_pieces_make_up_both(self, one, two):
        pieces = aligned(one, two)
        for place, whole in ((1, one), (2, two)):
            assert "".join(piece[place] for piece in pieces) == normalise(whole, "no punctuation")
        assert all((a == b) == (kind == "equal") for kind, a, b in pieces)


def lines_of(split):
    pairs = [(line, number) for number in CORES for line in CORES[number][split]]
    return [line for line, _ in pairs], torch.tensor([number for _, number in pairs])


@pytest.fixture(scope="module")
def fitted():
    return fit_text(*lines_of(0), 20)


class TestClassifier:
    def test_knows_what_it_has_read(self, fitted):
        lines, numbers = lines_of(0)
        found = fitted.logits(lines)
        assert found.shape == (228, 20) and (found.argmax(1) == numbers).float().mean() > 0.95

    def test_reads_lines_that_it_has_not(self, fitted):
        lines, numbers = lines_of(1)
        assert (fitted.logits(lines).argmax(1) == numbers).float().mean() > 0.4  # chance is 1 in 19

    def test_log_probabilities(self, fitted):
        found = fitted.logits(["불이야", "밥 먹자"])
        torch.testing.assert_close(found.exp().sum(1), torch.ones(2))

    def test_without_words_it_abstains_however_often_that_was_an_emergency(self):
        lines, labels = ["불이야", "불났어요", "밥 먹자", "밥 줘"], torch.tensor([1, 1, 2, 2])
        one = fit_text(lines, labels, 3)
        other = fit_text([*lines, *[""] * 9], torch.cat([labels, torch.ones(9, dtype=torch.long)]), 3)
        for fitted in (one, other):
            found = fitted.logits(["", "불이야", " ! "])
            assert found.isnan().all(1).tolist() == [True, False, True]
        assert torch.equal(one.logits(lines), other.logits(lines))

    def test_a_class_without_words_is_all_but_impossible(self):
        fitted = fit_text(["불이야", "불났어요", "밥 먹자", "밥 줘"], torch.tensor([1, 1, 2, 2]), 5)
        assert fitted.logits(["불이야"])[0, [0, 3, 4]].max() < -15

    def test_doubt_does_not_raise_a_class_without_words(self):
        """Random texts teach nothing: the temperature is high, yet only the two trained classes are possible."""
        draw = np.random.default_rng(0)
        texts = ["".join(draw.choice(list("가나다라마바사"), 5)) for _ in range(60)]
        fitted = fit_text(texts, torch.from_numpy(draw.integers(1, 3, 60)), 20)
        assert fitted.temperature > 2
        torch.testing.assert_close(fitted.logits(texts)[:, [1, 2]].exp().sum(1), torch.ones(60), atol=1e-6, rtol=0)

    def test_order_does_not_matter(self, fitted):
        lines, numbers = lines_of(0)
        order = np.random.default_rng(0).permutation(len(lines))
        other = fit_text([lines[i] for i in order], numbers[torch.from_numpy(order)], 20)
        weights = [one.pipeline[-1].coef_ for one in (fitted, other)]
        np.testing.assert_allclose(*weights, atol=1e-2)

    def test_saved_and_loaded(self, fitted, tmp_path):
        fitted.save(tmp_path / "text.json")
        lines = lines_of(1)[0]
        assert torch.equal(text.load_text(tmp_path / "text.json").logits(lines), fitted.logits(lines))

    @pytest.mark.parametrize(
        ("content", "words"),
        [
            (None, "There is no"),
            ("{", "damaged"),
            ("{}", "damaged"),
            ("[" * 99999, "damaged"),
        ],
    )
    def test_nothing_to_load(self, tmp_path, content, words):
        if content is not None:
            (tmp_path / "text.json").write_text(content)
        with pytest.raises(DataError, match=f"{words}.*otebook 04"):
            text.load_text(tmp_path / "text.json")

    def test_one_class_alone(self):
        with pytest.raises(ValueError, match="at least two classes"):
            fit_text(["불이야", ""], torch.tensor([1, 0]), 2)
