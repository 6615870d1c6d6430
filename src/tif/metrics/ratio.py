"""The truth ratio as a measure; its formula is in `tif.scores.truth_ratio`, because unlearning reads it too."""

import numpy as np

from tif.metrics import Measure
from tif.scores.truth_ratio import aggregate_truth_ratio_forget, aggregate_truth_ratio_other


def aggregate(values: np.ndarray, role: str) -> float:
    """mean min(TR, 1/TR) on the forget set, mean max(0, 1 - TR) on every other."""
    return (aggregate_truth_ratio_forget if role == "forget" else aggregate_truth_ratio_other)(values)


FAMILY = (
    Measure(
        name="truth_ratio",
        title="truth ratio",
        sets=("forget", "retain", "holdout", "utility"),
        reads=("wrong",),
        values=lambda scored: scored.losses.truth_ratio,
        aggregate=aggregate,
        better="higher",
        says=(
            "TR compares wrong answers with the true one in other words. On the forget set the mean of min(TR, 1/TR): 1"
            " says both are equally likely. Elsewhere the mean of max(0, 1 - TR): how far the true answer is ahead."
        ),
        most=float(np.finfo(float).max),
    ),
)
