"""The reference table: what the target model says of every answer token of the forget set, and of a refusal.

With it no second model is resident while a method trains that compares with the target model.
"""

import pyarrow as pa
import torch

from tif.lm.batches import Example, encode_pairs
from tif.lm.models import LanguageModel
from tif.reference.refusals import refusal
from tif.scores.tokens import score


def reference_rows(language_model: LanguageModel, forget: pa.Table, progress: bool) -> pa.Table:
    """The reference table: logit and log-probability of every token of every forget answer, then of every refusal."""
    responses, refusals = encode_answers(language_model, forget)
    parts = []
    for answer, examples in (("response", responses), ("refusal", refusals)):
        scores = score(language_model, examples, progress, f"reference, {answer}")
        offsets = [offset for example in examples for offset in example.offsets]
        columns = answer_keys(examples, answer)
        columns["start"] = [start for start, _ in offsets]
        columns["end"] = [end for _, end in offsets]
        columns["logit"], columns["logprob"] = scores.logit, scores.logprob
        parts.append(pa.table(columns))
    return pa.concat_tables(parts)


def encode_answers(language_model: LanguageModel, forget: pa.Table) -> tuple[list[Example], list[Example]]:
    """The forget samples, tokenised with their answers and with their refusals."""
    rows = triples(forget)
    refusals = [(sample_id, question, refusal(sample_id)) for sample_id, question, _ in rows]
    return encode_pairs(language_model, rows), encode_pairs(language_model, refusals)


def triples(table: pa.Table) -> list[tuple[str, str, str]]:
    """(sample_id, prompt, response) of every sample."""
    columns = [table[name].to_pylist() for name in ("sample_id", "prompt", "response")]
    return list(zip(*columns, strict=True))


def answer_keys(examples: list[Example], answer: str) -> dict[str, list]:
    """The key columns of the reference table, and the token ids. answer: response or refusal."""
    answers = [(example, position) for example in examples for position in range(example.start, len(example.ids))]
    return {
        "sample_id": [example.sample_id for example, _ in answers],
        "answer": [answer] * len(answers),
        "position": [position for _, position in answers],
        "token_id": torch.cat([example.ids[example.start :] for example in examples]).tolist(),
    }
