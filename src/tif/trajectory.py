"""The trajectory: what the model in training says of forget and retain samples after every epoch."""

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from tif.batches import Example
from tif.errors import UserError
from tif.likelihood import likelihoods, scored_rows
from tif.models import LanguageModel
from tif.scoring import Scores

MARGIN_TOLERANCE = 0.25  # logits, mean absolute; room for what rounding does in bfloat16 between batch shapes


def trajectory(
    language_model: LanguageModel,
    examples: list[Example],
    forget: pa.Table,
    retain: pa.Table,
    reference: pa.Table,
    retain_rows: int,
    progress: bool,
) -> tuple[Callable[[int], None], list[dict]]:
    """A function to call after every epoch, and the list that it appends trajectory rows to.

    Measured on the forget set and on `retain_rows` evenly spaced retain samples: truth_ratio and probability; on
    forget samples with UW also unwanted_logprob_drop, the mean fall of their UW tokens' log-probability (nats).
    """
    scored = scored_rows(forget)
    if len(scored) < len(forget):
        raise UserError(
            f"data/benchmark/forget.parquet: {len(forget) - len(scored)} of {len(forget)} rows have no "
            "perturbed_responses; every forget row needs them for its truth ratio"
        )
    both = pa.concat_tables([scored, scored_rows(retain, retain_rows)])
    keys = both["sample_id"].to_pylist()
    unwanted = torch.cat([example.unwanted for example in examples]).numpy()
    reference = reference.filter(pc.equal(reference["answer"], "response"))
    before = reference["logprob"].to_numpy()
    rows: list[dict] = []

    def watch(epoch: int) -> None:
        found = likelihoods(language_model, both, progress, f"epoch {epoch}")
        if epoch == 0:
            _check_margin(found.answer.logit[: len(unwanted)], reference)
        for measure, values in (("truth_ratio", found.truth_ratio), ("probability", found.probability)):
            rows.extend(_row(epoch, key, measure, value) for key, value in zip(keys, values, strict=True))
        drops = logprob_drop(found.answer, before, unwanted, len(examples))
        ids = [example.sample_id for example in examples]
        rows.extend(
            _row(epoch, key, "unwanted_logprob_drop", value) for key, value in zip(ids, drops) if not np.isnan(value)
        )

    return watch, rows


def _check_margin(logit: np.ndarray, reference: pa.Table) -> None:
    margin = float(np.mean(np.abs(reference["logit"].to_numpy() - logit)))
    if not margin <= MARGIN_TOLERANCE:
        raise UserError(
            f"before training the logits already differ from data/reference.parquet by {margin:.3f} on average: "
            "the reference was computed by another model; run `dvc repro`"
        )


def logprob_drop(answer: Scores, before: np.ndarray, unwanted: np.ndarray, samples: int) -> np.ndarray:
    """[samples] mean fall of the log-probability of unwanted tokens in nats; NaN for a sample without any."""
    bounds = answer.bounds[: samples + 1]
    fall = np.where(unwanted, before.astype(np.float64) - answer.logprob[: bounds[-1]], 0.0)
    count = np.add.reduceat(unwanted.astype(np.int64), bounds[:-1])
    total = np.add.reduceat(fall, bounds[:-1])
    return np.divide(total, count, out=np.full(samples, np.nan), where=count > 0)


def _row(epoch: int, sample_id: str, measure: str, value: float) -> dict:
    return {"epoch": epoch, "sample_id": sample_id, "measure": measure, "value": float(value)}
