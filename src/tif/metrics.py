"""Metrics: pure functions from arrays to numbers.

For one answer with n labels (end of sequence included), loss = sum(negative log-likelihood) / n in nats and
probability p = exp(-loss). Formulas: TOFU (arXiv 2401.06121) and its evaluation code; extraction strength and exact
memorisation as in open-unlearning.
"""

import math
import statistics
import warnings
from dataclasses import dataclass
from functools import cache
from numbers import Real

import numpy as np
from numpy.typing import ArrayLike, NDArray
from rouge_score.rouge_scorer import RougeScorer
from rouge_score.tokenizers import Tokenizer
from scipy.special import expit, gammaln, logsumexp
from scipy.stats import ks_2samp

from tif.masks import is_punctuation, words

UTILITY_SETS = ("retain", "real_authors", "world_facts")
UTILITY_MEASURES = ("probability", "rouge", "truth_ratio")

_LARGEST_EXPONENT = 700.0  # exp(700) is still a finite double, and so is exp(-700) a positive one
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


def truth_ratio(correct_loss: ArrayLike, wrong_losses: ArrayLike) -> NDArray[np.float64]:
    """Truth ratio of every sample: TR = exp(correct_loss - mean_j wrong_loss_j).

    correct_loss [n], wrong_losses [n, k]: mean token losses in nats; NaN in wrong_losses stands for "no such answer"
    where a sample has fewer than k. Returns [n], above 0: below 1 the correct answer is likelier than the wrong ones.
    An exponent beyond 700 nats is cut to 700, so that the ratio stays finite.
    Raises ValueError for wrong shapes, a sample without wrong answer, or a loss that is not finite.
    Source: TOFU, equation of the truth ratio, as an exp of a difference (no small number in the denominator).
    """
    correct, wrong = _losses(correct_loss, wrong_losses)
    return np.exp(np.clip(correct - np.nanmean(wrong, axis=1), -_LARGEST_EXPONENT, _LARGEST_EXPONENT))


def normalized_probability(correct_loss: ArrayLike, wrong_losses: ArrayLike) -> NDArray[np.float64]:
    """Share of the correct answer in the probability of all answers: p / (p + sum_j p_wrong_j), p = exp(-loss).

    correct_loss [n], wrong_losses [n, k]: mean token losses in nats, NaN as in `truth_ratio`. Returns [n], 0 to 1.
    Computed from loss differences, so that it holds where every p underflows. Raises ValueError as `truth_ratio` does.
    Source: TOFU, probability on real authors and world facts.
    """
    correct, wrong = _losses(correct_loss, wrong_losses)
    difference = np.where(np.isnan(wrong), -np.inf, correct[:, None] - wrong)
    return expit(-logsumexp(difference, axis=1))


def aggregate_truth_ratio_forget(tr: ArrayLike) -> float:
    """mean min(TR, 1/TR) over the forget set, 0 to 1: near 1 the correct and the wrong answers are equally likely.

    tr [n], at least 0; 0 and infinity count 0. Raises ValueError for empty input, a negative value or a NaN.
    """
    ratios = _ratios(tr)
    with np.errstate(divide="ignore"):
        return float(np.minimum(ratios, 1.0 / ratios).mean())


def aggregate_truth_ratio_other(tr: ArrayLike) -> float:
    """mean max(0, 1 - TR) over a set to be kept, 0 to 1: near 1 the correct answer is by far the likeliest.

    tr [n], at least 0; infinity counts 0. Raises ValueError for empty input, a negative value or a NaN.
    """
    return float(np.maximum(0.0, 1.0 - _ratios(tr)).mean())


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


def model_utility(parts: dict[str, dict[str, float]]) -> float:
    """Harmonic mean of nine: {probability, rouge, truth_ratio} of each of {retain, real_authors, world_facts}.

    parts: {set: {measure: value from 0 to 1}}. Returns 0 to 1; 0 when any part is 0.
    Raises ValueError for a missing or unknown set or measure, or a value outside [0, 1]. Source: TOFU, model utility.
    """
    _exactly(parts, UTILITY_SETS, "model utility")
    values = []
    for name in UTILITY_SETS:
        _exactly(parts[name], UTILITY_MEASURES, f"model utility: {name}")
        for measure in UTILITY_MEASURES:
            value = parts[name][measure]
            if not (isinstance(value, Real) and 0 <= value <= 1):
                raise ValueError(f"model utility: {name}.{measure} = {value!r} is not between 0 and 1")
            values.append(float(value))
    return statistics.harmonic_mean(values)


def extraction_strength(correct: ArrayLike) -> float:
    """1 - k/L, k the shortest prefix after which every greedy token is right; 0 when the last one is wrong.

    correct [L]: whether the teacher-forced greedy token equals the label, in order. Returns 0 to 1.
    Raises ValueError for empty input. Source: open-unlearning, after arXiv 2311.17035.

    >>> extraction_strength([True, False, True, True])
    0.5
    """
    hits = _hits(correct)
    wrong = np.flatnonzero(~hits)
    prefix = int(wrong[-1]) + 1 if wrong.size else 0
    return 1.0 - prefix / len(hits)


def exact_memorization(correct: ArrayLike) -> float:
    """Share of right greedy tokens, 0 to 1.

    correct [L]: whether the teacher-forced greedy token equals the label. Raises ValueError for empty input.
    """
    return float(_hits(correct).mean())


def rouge_recall(reference: str, generated: str) -> float:
    """ROUGE-L recall: length of the longest common subsequence of words / words of `reference`. Returns 0 to 1.

    Words are those of the rouge-score package: runs of a-z and 0-9, with stemming. It sees nothing of other scripts, so
    where more than half of the letters and digits of `reference` are neither a-z nor 0-9 (case aside), both texts are
    cut into `masks.words` instead, case folded, without punctuation and stemming: each Han ideograph is a word.
    """
    scorer = _words_scorer() if _is_foreign(reference) else _scorer()
    return float(scorer.score(reference, generated)["rougeL"].recall)


@cache
def _scorer() -> RougeScorer:
    return RougeScorer(["rougeL"], use_stemmer=True)


@cache
def _words_scorer() -> RougeScorer:
    return RougeScorer(["rougeL"], tokenizer=_Words())


class _Words(Tokenizer):
    def tokenize(self, text: str) -> list[str]:
        return [text[a:b].casefold() for a, b in words(text) if not is_punctuation(text[a:b])]


def _is_foreign(text: str) -> bool:
    signs = [character for character in text.lower() if character.isalnum()]
    return sum(not character.isascii() for character in signs) > len(signs) / 2


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


def _losses(correct_loss: ArrayLike, wrong_losses: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    correct = np.asarray(correct_loss, dtype=np.float64)
    wrong = np.asarray(wrong_losses, dtype=np.float64)
    if correct.ndim != 1 or wrong.ndim != 2 or len(wrong) != len(correct) or wrong.shape[1] == 0:
        raise ValueError(f"losses must have shapes [n] and [n, k] with k >= 1, not {correct.shape} and {wrong.shape}")
    missing = np.isnan(wrong)
    if not (np.isfinite(correct).all() and (np.isfinite(wrong) | missing).all()):
        raise ValueError("losses must be finite")
    if missing.all(axis=1).any():
        raise ValueError(f"sample {int(missing.all(axis=1).argmax())} has no wrong answer")
    return correct, wrong


def _ratios(tr: ArrayLike) -> NDArray[np.float64]:
    ratios = np.asarray(tr, dtype=np.float64)
    if ratios.ndim != 1 or ratios.size == 0 or not (ratios >= 0).all():
        raise ValueError("truth ratios must be a vector of at least one value, none of them negative or NaN")
    return ratios


def _hits(correct: ArrayLike) -> NDArray[np.bool_]:
    hits = np.asarray(correct)
    if hits.ndim != 1 or hits.size == 0:
        raise ValueError("expected a vector of at least one greedy hit")
    return hits.astype(bool)


def _exactly(mapping: dict, names: tuple[str, ...], where: str) -> None:
    if set(mapping) != set(names):
        raise ValueError(
            f"{where}: expected exactly {', '.join(names)}, found {', '.join(map(str, mapping)) or 'none'}"
        )
