"""Forget quality and its price after every epoch of unlearning."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tif.base import tables
from tif.base.errors import UserError
from tif.metrics.quality import forget_quality
from tif.metrics.scored import same_samples
from tif.scores.truth_ratio import aggregate_truth_ratio_forget, aggregate_truth_ratio_other
from tif.unlearning import TRAJECTORY

_AGAIN = "run `dvc repro -f unlearn`"


@dataclass(frozen=True)
class Epoch:
    """One epoch: forget quality against the retain model, and means over the samples that the trajectory follows.

    unwanted_logprob_drop: nats, how far the log-probability of the unwanted words has fallen since epoch 0; None where
    no sample has any.
    """

    epoch: int
    forget_quality: float
    forget_quality_log10: float
    statistic: float
    forget_truth_ratio: float
    forget_probability: float
    retain_truth_ratio: float
    retain_probability: float
    unwanted_logprob_drop: float | None


def read_trajectory(path: Path, reference: Mapping[str, float]) -> list[Epoch]:
    """The epochs of a trajectory table, in order; reference: truth ratio of every forget sample under the retain model.

    Raises UserError for an empty table, a missing measure, a doubled row or other forget samples than the reference's.
    """
    values: dict[int, dict[tuple[str, str], dict[str, float]]] = {}
    for row in sorted(tables.read(path, TRAJECTORY).to_pylist(), key=lambda row: row["sample_id"]):
        epoch, sample_id, measure, value = (row[key] for key in ("epoch", "sample_id", "measure", "value"))
        column = values.setdefault(epoch, {}).setdefault((sample_id.split("/")[0], measure), {})
        if sample_id in column or not np.isfinite(value):
            fault = "two rows" if sample_id in column else f"value {value}"
            raise UserError(f"{path}: {fault} of measure '{measure}' of {sample_id} at epoch {epoch}; {_AGAIN}")
        column[sample_id] = value
    if not values:
        raise UserError(f"{path} holds no rows; {_AGAIN}")
    return [_epoch(path, epoch, values[epoch], reference) for epoch in sorted(values)]


def _epoch(
    path: Path, epoch: int, values: dict[tuple[str, str], dict[str, float]], reference: Mapping[str, float]
) -> Epoch:
    def array(name: str, measure: str) -> np.ndarray:
        if (name, measure) not in values:
            raise UserError(f"{path}: no row of measure '{measure}' on the {name} set at epoch {epoch}; {_AGAIN}")
        return np.array(list(values[name, measure].values()))

    truth_ratios = array("forget", "truth_ratio")
    where = f"{path}: measure 'truth_ratio' at epoch {epoch}"
    same_samples(values["forget", "truth_ratio"], reference, where, "the evaluation of the retain model", _AGAIN)
    quality = forget_quality(truth_ratios, np.array([reference[key] for key in sorted(reference)]))
    drop = values.get(("forget", "unwanted_logprob_drop"))
    return Epoch(
        epoch=epoch,
        forget_quality=quality.pvalue,
        forget_quality_log10=quality.log10_pvalue,
        statistic=quality.statistic,
        forget_truth_ratio=aggregate_truth_ratio_forget(truth_ratios),
        forget_probability=float(array("forget", "probability").mean()),
        retain_truth_ratio=aggregate_truth_ratio_other(array("retain", "truth_ratio")),
        retain_probability=float(array("retain", "probability").mean()),
        unwanted_logprob_drop=float(np.mean(list(drop.values()))) if drop else None,
    )
