"""Forget quality against counts of all orders, and against scipy."""

import math
from itertools import combinations

import numpy as np
import pytest
from scipy.stats import ks_2samp

from tif import metrics
from tif.metrics.quality import _log10_exact_pvalue


@pytest.mark.parametrize(("n", "floor"), [(400, 1.06e-239), (200, 1.94e-119)])
def test_forget_quality_without_overlap(n, floor):
    quality = metrics.forget_quality(np.arange(n), np.arange(n) + n)
    assert quality.statistic == 1.0
    assert (quality.n_unlearned, quality.n_retain) == (n, n)
    assert quality.pvalue == pytest.approx(floor, rel=5e-3)
    # only two of the C(2n, n) orders keep the samples apart
    assert quality.pvalue == pytest.approx(2 / math.comb(2 * n, n), rel=1e-9)
    assert quality.log10_pvalue == pytest.approx(math.log10(floor), abs=3e-3)


@pytest.mark.parametrize(("n", "m"), [(1000, 1000), (900, 1000), (3000, 800)])
def test_forget_quality_where_a_double_underflows(n, m):
    quality = metrics.forget_quality(np.arange(n), np.arange(m) + n)
    exact = math.log10(2) - math.log10(math.comb(n + m, n))
    assert quality.log10_pvalue == pytest.approx(exact, abs=1e-9)
    assert quality.pvalue == 0.0


def test_forget_quality_equals_a_count_of_all_orders():
    # samples of 3 and 4: enumerate all C(7, 3) = 35 orders of the pooled sample and count the gaps
    def gap(places):
        steps = [place in places for place in range(7)]
        return max(abs(sum(steps[:k]) / 3 - (k - sum(steps[:k])) / 4) for k in range(8))

    unlearned, retain = [0.1, 0.2, 0.6], [0.3, 0.4, 0.5, 0.7]  # the order 0, 1, 5 of 7
    seen = gap({0, 1, 5})
    gaps = [gap(set(places)) for places in combinations(range(7), 3)]
    expected = sum(g >= seen - 1e-9 for g in gaps) / 35
    quality = metrics.forget_quality(unlearned, retain)
    assert quality.statistic == pytest.approx(seen)
    assert quality.pvalue == pytest.approx(expected)
    assert _log10_exact_pvalue(seen, 3, 4) == pytest.approx(math.log10(expected), abs=1e-12)


@pytest.mark.parametrize(("n", "m"), [(1, 1), (5, 5), (40, 40), (17, 30), (60, 45), (200, 200), (150, 200)])
def test_log_space_count_equals_scipy(n, m):
    rng = np.random.default_rng(n * 1000 + m)
    for shift in (0.0, 1.0, 4.0):
        unlearned, retain = rng.normal(size=n), rng.normal(shift, size=m)
        result = ks_2samp(unlearned, retain, method="exact")
        quality = metrics.forget_quality(unlearned, retain)
        assert quality.pvalue == result.pvalue
        assert quality.statistic == result.statistic
        assert quality.log10_pvalue == math.log10(result.pvalue)
        counted = _log10_exact_pvalue(result.statistic, n, m)
        assert counted == pytest.approx(math.log10(result.pvalue), abs=1e-10)


def test_forget_quality_is_one_for_equal_samples_and_symmetric():
    rng = np.random.default_rng(3)
    a, b = rng.lognormal(size=50), rng.lognormal(0.5, size=50)
    same = metrics.forget_quality(a, a[::-1])
    assert (same.pvalue, same.log10_pvalue, same.statistic) == (1.0, 0.0, 0.0)
    assert metrics.forget_quality(a, b) == metrics.forget_quality(b, a)
    # ranks alone count
    assert metrics.forget_quality(a, b) == metrics.forget_quality(np.log(a), np.log(b))


@pytest.mark.parametrize("bad", [[], [[1.0, 2.0]], [1.0, math.nan], [math.inf]])
def test_forget_quality_refuses(bad):
    with pytest.raises(ValueError, match="unlearned"):
        metrics.forget_quality(bad, [1.0])
    with pytest.raises(ValueError, match="retain"):
        metrics.forget_quality([1.0], bad)
