"""The truth ratio and its two aggregates, by hand."""

import math

import numpy as np
import pytest

from tif import metrics
from tif.metrics.ratio import FAMILY


def test_truth_ratio_by_hand():
    # losses ln 2 against the mean of ln 4 and ln 16, which is ln 8: exp(ln 2 - ln 8) = 1/4
    ratio = metrics.truth_ratio([math.log(2)], [[math.log(4), math.log(16)]])
    assert ratio == pytest.approx([0.25])


def test_truth_ratio_of_huge_losses_is_a_difference():
    # p = exp(-300) for all answers: 1e-10 in the denominator would make this 0
    assert metrics.truth_ratio([300.0], [[301.0, 301.0]]) == pytest.approx([math.exp(-1)])


def test_truth_ratio_stays_finite_and_positive():
    ratios = metrics.truth_ratio([5000.0, 0.0], [[1.0], [5000.0]])
    assert np.isfinite(ratios).all()
    assert ratios[0] > 1e300
    assert 0 < ratios[1] < 1e-300


def test_aggregates_by_hand():
    # min(TR, 1/TR) of 1/2, 4, 1: 1/2 + 1/4 + 1 over 3; max(0, 1 - TR): 1/2 + 0 + 0 over 3
    assert metrics.aggregate_truth_ratio_forget([0.5, 4.0, 1.0]) == pytest.approx(1.75 / 3)
    assert metrics.aggregate_truth_ratio_other([0.5, 4.0, 1.0]) == pytest.approx(0.5 / 3)


def test_aggregates_of_zero_and_infinity():
    assert metrics.aggregate_truth_ratio_forget([0.0, math.inf]) == 0.0
    assert metrics.aggregate_truth_ratio_other([0.0, math.inf]) == 0.5


@pytest.mark.parametrize("ratios", [[], [math.nan], [-0.1]])
def test_aggregates_refuse_what_is_no_ratio(ratios):
    for aggregate in (metrics.aggregate_truth_ratio_forget, metrics.aggregate_truth_ratio_other):
        with pytest.raises(ValueError, match="truth ratios"):
            aggregate(ratios)


def test_the_measure_takes_the_aggregate_of_the_sets_role():
    """As above, on utility sets and on a holdout set as on retain."""
    (one,) = FAMILY
    values = np.array([0.5, 4.0, 1.0])
    assert one.aggregate(values, "forget") == pytest.approx(1.75 / 3)
    assert [one.aggregate(values, role) for role in ("retain", "holdout", "utility")] == pytest.approx([0.5 / 3] * 3)
    assert one.reads == ("wrong",)
