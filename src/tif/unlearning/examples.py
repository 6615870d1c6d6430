"""What unlearning trains on: forget samples joined with spans and reference, and hidden states of the target model."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
import torch

from tif.base.errors import UserError
from tif.lm.batches import Example
from tif.lm.logits import answer_tokens
from tif.lm.models import LanguageModel
from tif.reference.table import answer_keys, encode_answers
from tif.scores.passes import passes, per_example
from tif.words import check_rows, project, soften


@dataclass(frozen=True)
class Data:
    """The tables that unlearning reads, and its examples: the samples of `forget`, see `forget_examples`."""

    examples: list[Example]
    forget: pa.Table
    retain: pa.Table
    reference: pa.Table


def forget_examples(
    language_model: LanguageModel, forget: pa.Table, spans: pa.Table, reference: pa.Table
) -> list[Example]:
    """Forget samples as training examples: unwanted tokens marked, refusals and reference values attached.

    Raises UserError when the spans or the reference table do not belong to these samples and this tokenizer.
    """
    if not len(forget):
        raise UserError("data/benchmark/forget.parquet has no rows: there is nothing to forget")
    responses, refusals = encode_answers(language_model, forget)
    both = [*responses, *refusals]
    keys, more = answer_keys(responses, "response"), answer_keys(refusals, "refusal")
    for name, expected in keys.items():
        if reference[name].to_pylist() != expected + more[name]:
            raise UserError(f"data/reference.parquet: column '{name}' does not match the forget set; run `dvc repro`")
    sizes = [len(example.offsets) for example in both]
    logits, logprobs = (torch.split(torch.tensor(reference[n].to_numpy()), sizes) for n in ("logit", "logprob"))
    known = [
        replace(example, forget=True, reference_logit=logit, reference_logprob=logprob)
        for example, logit, logprob in zip(both, logits, logprobs, strict=True)
    ]
    words = scored_words(forget, spans)
    texts = forget["response"].to_pylist()
    return [
        replace(
            example,
            refusal=refused,
            unwanted=torch.tensor(
                project(text, [word[:2] for word in words[example.sample_id] if word[3]], example.offsets)
            ),
            score=torch.tensor(soften(text, [word[:3] for word in words[example.sample_id]], example.offsets)),
        )
        for example, refused, text in zip(known[: len(forget)], known[len(forget) :], texts, strict=True)
    ]


def scored_words(forget: pa.Table, spans: pa.Table) -> dict[str, list[tuple[int, int, float, bool]]]:
    """(start, end, score, unwanted) of the words of every forget sample. Raises UserError unless `spans` holds each."""
    answers = dict(zip(forget["sample_id"].to_pylist(), forget["response"].to_pylist(), strict=True))
    rows = spans.to_pylist()
    check_rows(rows, answers, "data/spans.parquet (`dvc repro -f identify` makes it anew)")
    found: dict[str, list[tuple[int, int, float, bool]]] = {key: [] for key in answers}
    for row in rows:
        found[row["sample_id"]].append((row["start"], row["end"], row["score"], row["unwanted"]))
    return found


def with_hidden(language_model: LanguageModel, examples: Sequence[Example], layer: int | None) -> list[Example]:
    """The examples with `reference_hidden`, which a method reads of the target model: see `Needs.cached`."""
    bounds, found = passes(
        language_model, examples, lambda model, batch: [answer_tokens(model, batch, layer).hidden], title="target model"
    )
    parts = per_example(bounds, found[0]) if found else ()
    return [replace(example, reference_hidden=part) for example, part in zip(examples, parts, strict=True)]
