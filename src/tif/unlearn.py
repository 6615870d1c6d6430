"""Unlearning: join forget samples, spans and reference into token-level examples, train, and watch the trajectory."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pyarrow as pa
import torch
from pydantic import Field

from tif import masks, train
from tif.batches import Batch, Example
from tif.errors import UserError
from tif.likelihood import likelihoods, scored_rows
from tif.models import LanguageModel
from tif.reference import answer_keys, triples
from tif.scoring import Scores, encode_pairs

MARGIN_TOLERANCE = 0.25  # logits, mean absolute; room for what rounding does in bfloat16 between batch shapes


class Settings(train.Optimisation):
    """`unlearn`. method: file name of the method. trajectory_retain: retain samples scored after every epoch."""

    method: str = Field(pattern=r"^[a-z0-9_]+$")
    trajectory_retain: int = Field(ge=1)


def forget_examples(
    language_model: LanguageModel, forget: pa.Table, spans: pa.Table, reference: pa.Table
) -> list[Example]:
    """Forget samples as training examples, with unwanted tokens marked and reference logits attached.

    Raises UserError when the spans or the reference table do not belong to these samples and this tokenizer.
    """
    if not len(forget):
        raise UserError("data/benchmark/forget.parquet has no rows: there is nothing to forget")
    examples = encode_pairs(language_model, triples(forget))
    for name, expected in answer_keys(examples).items():
        found = reference[name].to_pylist()
        if found != list(expected):
            raise UserError(f"data/reference.parquet: column '{name}' does not match the forget set; run `dvc repro`")
    logits = torch.tensor(reference["logit"].to_numpy())
    parts = torch.split(logits, [len(example.offsets) for example in examples])
    unwanted = unwanted_spans(forget, spans)
    texts = forget["response"].to_pylist()
    return [
        replace(
            example,
            forget=True,
            reference_logit=part,
            unwanted=torch.tensor(masks.project(text, unwanted[example.sample_id], example.offsets)),
        )
        for example, part, text in zip(examples, parts, texts, strict=True)
    ]


def unwanted_spans(forget: pa.Table, spans: pa.Table) -> dict[str, list[masks.Span]]:
    """Unwanted (start, end) spans of every forget sample. Raises UserError unless `spans` holds each of its words."""
    answers = dict(zip(forget["sample_id"].to_pylist(), forget["response"].to_pylist(), strict=True))
    rows = spans.to_pylist()
    masks.check_rows(rows, answers, "data/spans.parquet (`dvc repro -f identify` makes it anew)")
    found: dict[str, list[masks.Span]] = {key: [] for key in answers}
    for row in rows:
        if row["unwanted"]:
            found[row["sample_id"]].append((row["start"], row["end"]))
    return found


def unlearn(
    language_model: LanguageModel,
    examples: list[Example],
    forget: pa.Table,
    retain: pa.Table,
    reference: pa.Table,
    method,
    method_settings,
    settings: Settings,
    device: str,
    progress: bool,
) -> tuple[list[dict[str, float]], list[dict]]:
    """Unlearn in place. Returns the step log and the rows of the trajectory table (see `trajectory`).

    method: a module of tif.methods. Raises UserError when the loss is not finite, or when the reference table was
    computed by another model.
    """
    watch, rows = trajectory(language_model, examples, forget, retain, reference, settings.trajectory_retain, progress)
    others: list[Example] = []
    if getattr(method_settings, "retain", 0) > 0:
        others = encode_pairs(language_model, triples(retain))

    def objective(tokens, batch: Batch):
        return method.objective(tokens, batch, method_settings)

    watch(0)
    return train.train(language_model, examples, objective, settings, device, progress, others, watch), rows


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
