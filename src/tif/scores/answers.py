"""The answers that are scored after the questions of samples: the true one, its paraphrase, and wrong ones."""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tif.base.errors import UserError
from tif.lm.batches import Example, encode_pairs
from tif.lm.models import LanguageModel
from tif.scores.tokens import Scores, score


@dataclass(frozen=True)
class Answers:
    """E answers to the questions of n samples: all responses in the samples' order, then paraphrases, then wrong ones.

    sample: int [E], index of the sample. name: of each, response, paraphrase, wrong/0, wrong/1, ...
    triples: E (sample_id, question, answer).
    """

    sample: np.ndarray
    name: list[str]
    triples: list[tuple[str, str, str]]


def answers_of(table: pa.Table, kinds: Collection[str]) -> Answers:
    """The answers of these kinds (response, paraphrase, wrong) that the samples of a table have."""
    rows = table.select(["sample_id", "prompt", "response", "paraphrased_response", "perturbed_responses"]).to_pylist()
    found = {"response": [], "paraphrase": [], "wrong": []}
    for index, row in enumerate(rows):
        found["response"].append((index, "response", row["response"]))
        if row["paraphrased_response"]:
            found["paraphrase"].append((index, "paraphrase", row["paraphrased_response"]))
        found["wrong"] += [
            (index, f"wrong/{number}", text) for number, text in enumerate(row["perturbed_responses"] or [])
        ]
    chosen = [one for kind, some in found.items() if kind in kinds for one in some]
    return Answers(
        sample=np.array([index for index, _, _ in chosen], dtype=np.int64),
        name=[name for _, name, _ in chosen],
        triples=[(rows[index]["sample_id"], rows[index]["prompt"], text) for index, _, text in chosen],
    )


def with_wrong_answers(table: pa.Table) -> pa.Table:
    """The samples that have wrong answers. Raises UserError when none has, or one has an empty list of them."""
    table = table.filter(table["perturbed_responses"].is_valid())
    if not len(table):
        raise UserError(
            "a benchmark table has no row with perturbed_responses, so no truth ratio; run the download stage"
        )
    empty = table.filter(pc.equal(pc.list_value_length(table["perturbed_responses"]), 0))["sample_id"].to_pylist()
    if empty:
        raise UserError(f"{empty[0]}: perturbed_responses is empty; the truth ratio needs a wrong answer, or null")
    return table


def evenly(table: pa.Table, limit: int | None) -> pa.Table:
    """At most `limit` rows, evenly spaced; None: all."""
    if limit is None or limit >= len(table):
        return table
    return table.take(np.linspace(0, len(table) - 1, limit).round().astype(int))


def score_answers(
    language_model: LanguageModel, answers: Answers, progress: bool, title: str
) -> tuple[list[Example], Scores]:
    """The answers in tokens, and their scores. Raises UserError when a score is not finite."""
    examples = encode_pairs(language_model, answers.triples)
    scores = score(language_model, examples, progress, title)
    finite = np.isfinite(scores.loss())
    if not finite.all():
        sample_id = answers.triples[int(np.argmin(finite))][0]
        raise UserError(f"the model's score of {sample_id} is not finite; train with a lower learning rate (lr)")
    return examples, scores
