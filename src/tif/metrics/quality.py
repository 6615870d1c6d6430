"""Forget quality: can the unlearned model be told from one that never saw the forget set (TOFU, arXiv 2401.06121)?"""

import math
import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import gammaln
from scipy.stats import ks_2samp

_SMALLEST_TRUSTED = 1e-290  # below, scipy's products lose digits and then underflow


@dataclass(frozen=True)
class ForgetQuality:
    """Result of `forget_quality`.

    pvalue: 0 to 1, 0 only where a double underflows. log10_pvalue: always finite, at most 0.
    statistic: largest gap between the two distribution functions, 0 to 1. n_unlearned, n_retain: sample sizes.
    """

    pvalue: float
    log10_pvalue: float
    statistic: float
    n_unlearned: int
    n_retain: int


def forget_quality(unlearned: ArrayLike, retain: ArrayLike) -> ForgetQuality:
    """Two-sided two-sample Kolmogorov-Smirnov test between the truth ratios of two models on the forget set.

    unlearned [n], retain [m]: truth ratios. A high p-value says that the unlearned model cannot be told from the model
    that never saw the forget set. The p-value is exact; where scipy cannot give it, or it underflows, it is counted in
    log space, so log10_pvalue is right at any size (m = n = 1000, no overlap: log10(2 / C(2000, 1000)) = -600.0).
    Raises ValueError for an empty array or a value that is not finite. Source: TOFU, forget quality.
    """
    samples = []
    for name, values in (("unlearned", unlearned), ("retain", retain)):
        array = np.asarray(values, dtype=np.float64)
        if array.ndim != 1 or array.size == 0:
            raise ValueError(f"forget quality: {name} must be a vector of at least one truth ratio")
        if not np.isfinite(array).all():
            bad = int(np.flatnonzero(~np.isfinite(array))[0])
            raise ValueError(f"forget quality: truth ratio {bad} of {name} is {array[bad]}, not finite")
        samples.append(array)
    n, m = len(samples[0]), len(samples[1])
    with warnings.catch_warnings(record=True) as fallback:
        warnings.simplefilter("always")
        result = ks_2samp(*samples, method="exact")
    pvalue, statistic = float(result.pvalue), float(result.statistic)
    if fallback or pvalue < _SMALLEST_TRUSTED:
        log10_pvalue = _log10_exact_pvalue(statistic, n, m)
        pvalue = 10.0**log10_pvalue
    else:
        log10_pvalue = math.log10(pvalue)
    return ForgetQuality(pvalue, log10_pvalue, statistic, n, m)


def _log10_exact_pvalue(statistic: float, n: int, m: int) -> float:
    """log10 of the exact probability of a gap of at least `statistic`, both samples from one distribution.

    All C(n+m, n) orders of the pooled sample are equally likely. An order is a lattice path from (0, 0) to (n, m); it
    counts when it touches a point (i, j) with |i/n - j/m| >= statistic. Counts are summed diagonal by diagonal as
    logarithms: only positive terms are added, so nothing cancels. Time O(n * m).
    """
    threshold = round(statistic * n * m)
    touched = np.full(n + 1, -np.inf)  # log count of paths to (i, s - i) that have touched such a point
    for s in range(n + m + 1):
        if s:
            touched[1:] = np.logaddexp(touched[1:], touched[:-1])
        i = np.arange(max(0, s - m), min(s, n) + 1)
        outside = i[np.abs(i * m - (s - i) * n) >= threshold]
        touched[outside] = _log_binomial(s, outside)
        touched[: max(0, s - m)] = -np.inf  # no such point: j would exceed m
    return min(0.0, float(touched[n] - _log_binomial(n + m, n)) / math.log(10))


def _log_binomial(n: int, k: ArrayLike) -> NDArray[np.float64]:
    k = np.asarray(k)
    return gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)
