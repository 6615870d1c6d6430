"""Probability and truth ratio, by hand: from the losses of all answers to the numbers of each sample and of a set."""

import math

import numpy as np
import pytest

from tif.scores.truth_ratio import (
    Losses,
    aggregate_truth_ratio_forget,
    aggregate_truth_ratio_other,
    losses_of,
    mean_loss,
    truth_ratio,
)

NAN = math.nan


def ln(*numbers: float) -> np.ndarray:
    return np.log(np.array(numbers))


def test_losses_by_hand():
    """Sample 0 has everything, sample 1 no paraphrase and one wrong answer, sample 2 neither paraphrase nor wrong one.

    The rows come in any order, as a table gives them back.
    """
    rows = [
        (1, "response", 1.0),
        (0, "wrong/1", 6.0),
        (2, "response", 7.0),
        (0, "response", 2.0),
        (0, "paraphrase", 3.0),
        (1, "wrong/0", 5.0),
        (0, "wrong/0", 4.0),
    ]
    sample, answer, loss = zip(*rows)
    found = losses_of(np.array(sample), answer, np.array(loss))
    assert found.response.tolist() == [2, 1, 7]
    assert found.correct.tolist() == [3, 1, 7], "without a paraphrase the answer itself is the correct one"
    wrong = {tuple(column) for column in np.nan_to_num(found.wrong, nan=-1).T.tolist()}
    assert wrong == {(4, 5, -1), (6, -1, -1)}
    assert found.probability == pytest.approx(np.exp([-2, -1, -7]))
    assert Losses(found.response[:2], found.correct[:2], found.wrong[:2]).truth_ratio == pytest.approx(
        [math.exp(3 - 5), math.exp(1 - 5)]
    )
    with pytest.raises(ValueError, match="sample 2 has no wrong answer"):
        _ = found.truth_ratio


def test_losses_of_responses_alone():
    found = losses_of(np.array([0, 1]), ["response"] * 2, np.array([0.5, 1.5]))
    assert found.correct.tolist() == found.response.tolist() == [0.5, 1.5]
    assert found.wrong.shape == (2, 0)
    assert losses_of(np.array([], dtype=int), [], np.array([])).response.shape == (0,)


@pytest.mark.parametrize(
    ("sample", "answer"),
    [
        ([0, 1], ["response", "paraphrase"]),
        ([0, 2], ["response", "response"]),
        ([0], ["wrong/0"]),
    ],
)
def test_a_sample_without_response(sample, answer):
    with pytest.raises(ValueError, match="a sample has no response"):
        losses_of(np.array(sample), answer, np.ones(len(sample)))


def test_truth_ratio_by_hand():
    """The correct answer has loss ln 2; ln 4 and ln 16 have mean ln 8: 2/8. And ln 8 against ln 2 is 4."""
    assert truth_ratio(ln(2, 8), [ln(4, 16), [math.log(2), NAN]]) == pytest.approx([0.25, 4.0])


def test_truth_ratio_of_five_wrong_answers_is_one_of_a_geometric_mean():
    """p = 1/2 for the paraphrase; 1/2, 1/4, 1/8, 1/16, 1/32 for the wrong ones, whose geometric mean is 1/8: 1/4."""
    assert truth_ratio(ln(2), [ln(2, 4, 8, 16, 32)]) == pytest.approx([0.25])


def test_truth_ratio_stays_finite_and_positive():
    found = truth_ratio([0.0, 5000.0, 5000.0], [[5000.0], [0.0], [5001.0]])
    assert (found > 0).all() and np.isfinite(found).all()
    assert found[2] == pytest.approx(math.exp(-1)), "a difference of huge losses"


@pytest.mark.parametrize(
    ("correct", "wrong", "message"),
    [
        ([1.0], [1.0], r"shapes \[n\] and \[n, k\]"),
        ([1.0, 2.0], [[1.0]], "shapes"),
        ([1.0], np.empty((1, 0)), "k >= 1"),
        ([NAN], [[1.0]], "must be finite"),
        ([1.0], [[math.inf]], "must be finite"),
        ([1.0, 1.0], [[1.0], [NAN]], "sample 1 has no wrong answer"),
    ],
)
def test_losses_that_give_no_truth_ratio(correct, wrong, message):
    with pytest.raises(ValueError, match=message):
        truth_ratio(correct, wrong)


def test_aggregates_by_hand():
    """TR 1/2, 2 and 1. Forget: (1/2 + 1/2 + 1) / 3. Others: (1/2 + 0 + 0) / 3."""
    assert aggregate_truth_ratio_forget([0.5, 2, 1]) == pytest.approx(2 / 3)
    assert aggregate_truth_ratio_other([0.5, 2, 1]) == pytest.approx(1 / 6)
    assert aggregate_truth_ratio_forget([0, math.inf]) == 0
    assert aggregate_truth_ratio_other([0, math.inf]) == 0.5


@pytest.mark.parametrize("ratios", [[], [NAN], [-0.1], [[1.0]]])
@pytest.mark.parametrize("aggregate", [aggregate_truth_ratio_forget, aggregate_truth_ratio_other])
def test_what_is_no_ratio(aggregate, ratios):
    with pytest.raises(ValueError, match="truth ratios must be a vector of at least one value"):
        aggregate(ratios)


def test_mean_loss_by_hand():
    """Answers of 2 and 1 tokens: (1 + 2) / 2 and 4, in float64."""
    found = mean_loss(np.array([-1, -2, -4], np.float32), np.array([0, 2, 3]))
    assert found.tolist() == [1.5, 4.0] and found.dtype == np.float64
