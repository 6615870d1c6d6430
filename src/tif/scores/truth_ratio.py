"""Probability and truth ratio of samples under one model (TOFU, arXiv 2401.06121).

For one answer with n labels (end of sequence included), loss = sum(negative log-likelihood) / n in nats and
probability p = exp(-loss).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

_LARGEST_EXPONENT = 700.0  # exp(700) is still a finite double, and so is exp(-700) a positive one


def truth_ratio(correct_loss: ArrayLike, wrong_losses: ArrayLike) -> NDArray[np.float64]:
    """Truth ratio of every sample: TR = exp(correct_loss - mean_j wrong_loss_j).

    correct_loss [n], wrong_losses [n, k]: mean token losses in nats; NaN in wrong_losses stands for "no such answer"
    where a sample has fewer than k. Returns [n], above 0: below 1 the correct answer is likelier than the wrong ones.
    An exponent beyond 700 nats is cut to 700, so that the ratio stays finite.
    Raises ValueError for wrong shapes, a sample without wrong answer, or a loss that is not finite.
    Source: TOFU, equation of the truth ratio, as an exp of a difference (no small number in the denominator).
    """
    correct, wrong = losses(correct_loss, wrong_losses)
    return np.exp(np.clip(correct - np.nanmean(wrong, axis=1), -_LARGEST_EXPONENT, _LARGEST_EXPONENT))


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


def mean_loss(logprob: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """[E] mean negative log-likelihood (nats, float64) of tokens bounds[i]:bounds[i + 1]; logprob: [T] nats."""
    sums = np.add.reduceat(logprob.astype(np.float64), bounds[:-1])
    return -sums / np.diff(bounds)


@dataclass(frozen=True)
class Losses:
    """Mean token losses (nats) of the answers to n questions.

    response: [n] of the answer. correct: [n] of what the truth ratio takes as correct, the paraphrase where there is
    one, else the answer itself (the utility sets). wrong: [n, k] of the wrong answers, NaN where a sample has fewer.
    """

    response: NDArray[np.float64]
    correct: NDArray[np.float64]
    wrong: NDArray[np.float64]

    @property
    def probability(self) -> NDArray[np.float64]:
        """[n] exp(-loss): the geometric mean of an answer's token probabilities."""
        return np.exp(-self.response)

    @property
    def truth_ratio(self) -> NDArray[np.float64]:
        return truth_ratio(self.correct, self.wrong)


def losses_of(sample: NDArray[np.integer], answer: Sequence[str], loss: NDArray[np.float64]) -> Losses:
    """The losses of E answers, sorted by what they are.

    sample: int [E], which of the n samples an answer belongs to, 0 to n - 1. answer: its name: response, paraphrase,
    wrong/0, wrong/1, ... loss: [E] nats. Raises ValueError unless every sample has a response.
    """
    n = int(sample.max()) + 1 if len(sample) else 0
    columns: dict[str, NDArray[np.float64]] = {}
    names = np.asarray(answer, dtype=object)
    for name in dict.fromkeys(answer):
        where = names == name
        column = columns.setdefault(name, np.full(n, np.nan))
        column[sample[where]] = loss[where]
    response = columns.get("response", np.full(n, np.nan))
    if len(set(sample[names == "response"].tolist())) != n:
        raise ValueError("a sample has no response")
    paraphrase = columns.get("paraphrase", np.full(n, np.nan))
    has_paraphrase = np.zeros(n, dtype=bool)
    has_paraphrase[sample[names == "paraphrase"]] = True
    wrong = [columns[name] for name in columns if name.startswith("wrong/")]
    return Losses(
        response,
        np.where(has_paraphrase, paraphrase, response),
        np.stack(wrong, axis=1) if wrong else np.empty((n, 0)),
    )


def losses(correct_loss: ArrayLike, wrong_losses: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Both as arrays [n] and [n, k]; see `truth_ratio`, whose errors it raises."""
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
