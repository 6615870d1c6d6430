"""Probability of the true answer, alone and among the wrong ones (TOFU, arXiv 2401.06121)."""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, logsumexp

from tif.metrics import Measure, mean
from tif.scores.truth_ratio import losses


def normalized_probability(correct_loss: ArrayLike, wrong_losses: ArrayLike) -> NDArray[np.float64]:
    """Share of the correct answer in the probability of all answers: p / (p + sum_j p_wrong_j), p = exp(-loss).

    correct_loss [n], wrong_losses [n, k]: mean token losses in nats, NaN as in `truth_ratio`. Returns [n], 0 to 1.
    Computed from loss differences, so that it holds where every p underflows. Raises ValueError as `truth_ratio` does.
    Source: TOFU, probability on real authors and world facts.
    """
    correct, wrong = losses(correct_loss, wrong_losses)
    difference = np.where(np.isnan(wrong), -np.inf, correct[:, None] - wrong)
    return expit(-logsumexp(difference, axis=1))


FAMILY = (
    Measure(
        name="probability",
        title="probability",
        sets=("forget", "retain", "holdout", "utility"),
        values=lambda scored: scored.losses.probability,
        aggregate=mean,
        better="higher",
        says="How likely the model finds the true answer: exp of minus the mean loss per token.",
    ),
    Measure(
        name="normalized_probability",
        title="probability among the answers",
        sets=("forget", "retain", "holdout", "utility"),
        reads=("wrong",),
        values=lambda scored: normalized_probability(scored.losses.response, scored.losses.wrong),
        aggregate=mean,
        better="higher",
        says="Share of the true answer in the probability of all answers that are offered.",
    ),
)
