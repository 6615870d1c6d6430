"""The trajectory: what the model in training says of forget and retain samples after every epoch."""

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from tif.base.errors import UserError
from tif.lm.models import LanguageModel
from tif.scores.answers import answers_of, evenly, score_answers, with_wrong_answers
from tif.scores.tokens import Scores
from tif.scores.truth_ratio import losses_of
from tif.unlearning.examples import Data

MARGIN_TOLERANCE = 0.25  # logits, mean absolute; room for what rounding does in bfloat16 between batch shapes


def trajectory(
    language_model: LanguageModel, data: Data, retain_rows: int, progress: bool
) -> tuple[Callable[[int], None], list[dict]]:
    """A function to call after every epoch, and the list that it appends trajectory rows to.

    Measured on the forget set and on `retain_rows` evenly spaced retain samples: truth_ratio and probability; on
    forget samples with UW also unwanted_logprob_drop, the mean fall of their UW tokens' log-probability (nats).
    """
    scored = with_wrong_answers(data.forget)
    if len(scored) < len(data.forget):
        raise UserError(
            f"data/benchmark/forget.parquet: {len(data.forget) - len(scored)} of {len(data.forget)} rows have no "
            "perturbed_responses; every forget row needs them for its truth ratio"
        )
    both = pa.concat_tables([scored, evenly(with_wrong_answers(data.retain), retain_rows)])
    keys = both["sample_id"].to_pylist()
    answers = answers_of(both, ("response", "paraphrase", "wrong"))
    unwanted = torch.cat([example.unwanted for example in data.examples]).numpy()
    reference = data.reference.filter(pc.equal(data.reference["answer"], "response"))
    before = reference["logprob"].to_numpy()
    rows: list[dict] = []

    def watch(epoch: int) -> None:
        scores = score_answers(language_model, answers, progress, f"epoch {epoch}")[1]
        if epoch == 0:
            _check_margin(scores.logit[: len(unwanted)], reference)
        found = losses_of(answers.sample, answers.name, scores.loss())
        for measure, values in (("truth_ratio", found.truth_ratio), ("probability", found.probability)):
            rows.extend(_row(epoch, key, measure, value) for key, value in zip(keys, values, strict=True))
        drops = logprob_drop(scores, before, unwanted, len(data.examples))
        ids = [example.sample_id for example in data.examples]
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


def logprob_drop(scores: Scores, before: np.ndarray, unwanted: np.ndarray, samples: int) -> np.ndarray:
    """[samples] mean fall of the log-probability of unwanted tokens in nats; NaN for a sample without any.

    scores: whose first examples are the responses of the samples.
    """
    bounds = scores.bounds[: samples + 1]
    fall = np.where(unwanted, before.astype(np.float64) - scores.logprob[: bounds[-1]], 0.0)
    count = np.add.reduceat(unwanted.astype(np.int64), bounds[:-1])
    total = np.add.reduceat(fall, bounds[:-1])
    return np.divide(total, count, out=np.full(samples, np.nan), where=count > 0)


def _row(epoch: int, sample_id: str, measure: str, value: float) -> dict:
    return {"epoch": epoch, "sample_id": sample_id, "measure": measure, "value": float(value)}
