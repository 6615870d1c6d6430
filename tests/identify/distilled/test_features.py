"""Word statistics and features, by hand on a few sentences."""

import numpy as np
import pytest

from tif.identify.distilled.features import features, forms, make_lexicon

QUESTIONS = ["Who is Anna?", "Where is Bert?"]
ANSWERS = ["Anna is a baker.", "He is in Rome. He is well.", "In Rome, says Anna."]


@pytest.fixture(scope="module")
def lexicon():
    return make_lexicon(QUESTIONS, ANSWERS, 4)


def test_shares_of_answers_and_questions(lexicon):
    # "is": 2 of 3 answers (twice in one counts once) and 2 of 2 questions; "rome": 2 answers, no question.
    row = lexicon.table[lexicon.index["is"]]
    assert row[:2] == pytest.approx([np.log(2.5 / 4), np.log(2.5 / 3)], abs=1e-4)
    row = lexicon.table[lexicon.index["rome"]]
    assert row[:2] == pytest.approx([np.log(2.5 / 4), np.log(0.5 / 3)], abs=1e-4)


def test_capitals_count_inside_sentences_only(lexicon):
    # "Anna": after "is" and after "says", capital both times, and once at the start: (2 + .3) / (2 + 1).
    assert lexicon.table[lexicon.index["anna"], 2] == pytest.approx(2.3 / 3, abs=1e-4)
    # "He" and "In" start sentences; "in" stands inside one, without a capital: (0 + .3) / (1 + 1).
    assert lexicon.table[lexicon.index["he"], 2] == pytest.approx(0.3, abs=1e-4)
    assert lexicon.table[lexicon.index["in"], 2] == pytest.approx(0.15, abs=1e-4)


def test_words_seen_once_share_a_row(lexicon):
    assert "baker" not in lexicon.index
    assert (lexicon.rows("baker WELL")[0] == lexicon.table[0]).all()
    assert (lexicon.rows("baker WELL")[1] == lexicon.table[0]).all()


def test_words_with_the_same_neighbours_have_the_same_vector():
    answers = [f"the {word} sat here" for word in ("cat", "dog") for _ in range(3)] + ["so we ran off"] * 3
    table = make_lexicon([], answers, 6)
    cat, dog, ran = (table.rows(word)[0, 3:] for word in ("cat", "dog", "ran"))
    assert cat == pytest.approx(dog, abs=1e-3)
    assert np.linalg.norm(cat - ran) > 0.5


def test_the_same_text_gives_the_same_numbers(lexicon):
    assert (make_lexicon(QUESTIONS, ANSWERS, 4).table == lexicon.table).all()


def test_a_vocabulary_smaller_than_the_vector():
    assert make_lexicon([], ["one one"], 32).table.shape == (2, 4)
    assert make_lexicon([], ["one two"], 32).table.shape == (1, 3)
    with pytest.raises(ValueError, match="needs text"):
        make_lexicon(["", " "], [], 32)


def test_one_row_a_word_whatever_the_text(lexicon):
    width = features(lexicon, "Who?", "Anna.").shape[1]
    for prompt, response in [("", ""), ("?", "她是作家。"), ("من؟", "هي كاتبة."), ("Who?", "Anna's 2nd book: “Rome”.")]:
        found = features(lexicon, prompt, response)
        assert found.shape == (len(forms(response)), width) and np.isfinite(found).all()


def test_the_question_is_seen(lexicon):
    found = features(lexicon, "Is Anna Moore a geologist?", "Anna Moore studies geology")
    # columns 7 to 10: in the question; pair with the word before, after; longest shared beginning.
    assert found[:, 7:11].tolist() == [[1, 0, 1, 1], [1, 1, 0, 1], [0, 0, 0, 0], [0, 0, 0, pytest.approx(6 / 7)]]


def test_neighbours_are_shifted_rows(lexicon):
    found = features(lexicon, "?", "Anna is a baker")
    near = found[:, :11]
    start = found.shape[1] - 2 * 4 - 4 * 11  # neighbours at -2, -1, 1, 2, then vectors at -1, 1
    before = found[:, start + 11 : start + 22]
    assert (before[1:] == near[:-1]).all() and (before[0] == -9).all()
    assert (features(lexicon, "?", "Anna")[0, start : start + 44] == -9).all()
