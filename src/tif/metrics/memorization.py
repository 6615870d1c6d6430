"""What a model repeats token by token: extraction strength and exact memorisation, as in open-unlearning."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tif.metrics import Measure, mean
from tif.metrics.scored import Scored


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


def _hits(correct: ArrayLike) -> NDArray[np.bool_]:
    hits = np.asarray(correct)
    if hits.ndim != 1 or hits.size == 0:
        raise ValueError("expected a vector of at least one greedy hit")
    return hits.astype(bool)


def _each(function):
    def values(scored: Scored) -> np.ndarray:
        return np.array([function(hits) for hits in scored.hits])

    return values


FAMILY = (
    Measure(
        name="extraction_strength",
        title="extraction strength",
        sets=("forget", "retain", "holdout", "utility"),
        values=_each(extraction_strength),
        aggregate=mean,
        better="higher",
        says="Share of the true answer that greedy decoding completes without a mistake once the rest is given.",
    ),
    Measure(
        name="exact_memorization",
        title="exact memorization",
        sets=("forget", "retain", "holdout", "utility"),
        values=_each(exact_memorization),
        aggregate=mean,
        better="higher",
        says="Share of the true answer's tokens that are the model's first choice.",
    ),
)
