"""Alignment of token scores with unwanted tokens, on rankings counted by hand."""

import pytest

from tif.agreement.ranking import Alignment, Tokens, alignment
from tif.words import words


def test_by_hand():
    """a: of 2 x 2 pairs 3 are in order; precision 1/1 at the first UW, 2/3 at the second. b: all in order."""
    scores = {"a": [0.9, 0.5, 0.4, 0.1], "b": [0.2, 0.7, 0.3]}
    unwanted = {"a": [True, False, True, False], "b": [False, True, False]}
    found = alignment(scores, unwanted)
    assert found.auroc == pytest.approx((3 / 4 + 1) / 2)
    assert found.average_precision == pytest.approx(((1 + 2 / 3) / 2 + 1) / 2)
    assert (found.samples, found.left_out) == (2, 0)


def test_a_score_that_says_nothing():
    found = alignment({"a": [0.5] * 5}, {"a": [True, False, False, False, False]})
    assert (found.auroc, found.average_precision) == (0.5, pytest.approx(0.2))


def test_answers_with_nothing_to_rank_are_left_out():
    scores = {"none": [0.1, 0.2], "all": [0.3, 0.4], "both": [0.0, 1.0], "empty": []}
    unwanted = {"none": [False, False], "all": [True, True], "both": [True, False], "empty": []}
    assert alignment(scores, unwanted) == Alignment(0.0, 0.5, 1, 3)
    some = ("none", "all", "empty")
    nothing = alignment({key: scores[key] for key in some}, {key: unwanted[key] for key in some})
    assert nothing == Alignment(None, None, 0, 3)


def test_only_the_order_within_an_answer_counts():
    unwanted = {"a": [True, False, False], "b": [True, False, False]}
    scores = {"a": [0.3, 0.2, 0.1], "b": [0.9, 0.8, 0.7]}
    assert alignment(scores, unwanted).auroc == 1
    shifted = {"a": [score / 10 for score in scores["a"]], "b": scores["b"]}
    assert alignment(shifted, unwanted) == alignment(scores, unwanted)


@pytest.mark.parametrize(
    ("scores", "message"),
    [({"b": [0.1, 0.2]}, "same answers"), ({"a": [0.1]}, "2 tokens and 1 scores"), ({"a": [0.1, float("nan")]}, "NaN")],
)
def test_scores_that_do_not_belong(scores, message):
    with pytest.raises(ValueError, match=message):
        alignment(scores, {"a": [True, False]})


def test_words_on_tokens():
    """The tokens "Bo", "rn", " in" and " Ulm." of two words: the highest score of the words that a token overlaps."""
    text = "Born in Ulm."
    tokens = Tokens({"a": text}, {"a": [(0, 2), (2, 4), (4, 7), (7, 12)]})
    rows = [{"start": a, "end": b, "score": s} for (a, b), s in zip(words(text), (0.1, 0.2, 0.9, 0.0))]
    assert tokens.scores({"a": rows}) == {"a": [0.1, 0.1, 0.2, 0.9]}
    assert tokens.unwanted({"a": [(8, 11)]}) == {"a": [False, False, False, True]}
