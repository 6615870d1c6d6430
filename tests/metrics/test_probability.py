"""The share of the true answer among all answers, by hand, and what all that compares answers refuses."""

import math

import numpy as np
import pytest

from tif import metrics


def test_normalized_probability_by_hand():
    # p = 1/2 against 1/4 and 1/4: 1/2
    share = metrics.normalized_probability([math.log(2)], [[math.log(4), math.log(4)]])
    assert share == pytest.approx([0.5])


def test_normalized_probability_equals_the_naive_one_and_outlives_underflow():
    rng = np.random.default_rng(0)
    correct, wrong = rng.uniform(0, 20, 50), rng.uniform(0, 20, (50, 5))
    naive = np.exp(-correct) / (np.exp(-correct) + np.exp(-wrong).sum(axis=1))
    assert metrics.normalized_probability(correct, wrong) == pytest.approx(naive, rel=1e-12)
    shifted = metrics.normalized_probability(correct + 2000, wrong + 2000)  # every p is 0 in a double
    assert shifted == pytest.approx(naive, rel=1e-9)


def test_nan_stands_for_a_wrong_answer_that_is_not_there():
    correct, wrong = [1.0, 2.0], [[2.0, math.nan, 4.0], [1.0, 3.0, 8.0]]
    for metric in (metrics.truth_ratio, metrics.normalized_probability):
        values = metric(correct, wrong)
        assert values[0] == pytest.approx(metric([1.0], [[2.0, 4.0]])[0], rel=1e-15)
        assert values[1] == pytest.approx(metric([2.0], [[1.0, 3.0, 8.0]])[0], rel=1e-15)


@pytest.mark.parametrize(
    ("correct", "wrong", "message"),
    [
        ([1.0], [1.0], "shapes"),
        ([1.0, 2.0], [[1.0]], "shapes"),
        ([1.0], [[]], "shapes"),
        ([math.nan], [[1.0]], "finite"),
        ([1.0], [[math.inf]], "finite"),
        ([1.0, 1.0], [[1.0], [math.nan]], "sample 1 has no wrong answer"),
    ],
)
def test_losses_are_checked(correct, wrong, message):
    with pytest.raises(ValueError, match=message):
        metrics.truth_ratio(correct, wrong)
    with pytest.raises(ValueError, match=message):
        metrics.normalized_probability(correct, wrong)
