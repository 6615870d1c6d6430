"""Probability and truth ratio of samples under one model."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tif import metrics
from tif.errors import UserError
from tif.models import LanguageModel
from tif.scoring import Scores, encode_pairs, score


@dataclass(frozen=True)
class Likelihoods:
    """What the scoring pass says of n samples.

    answer: token scores of the n answers, in order. loss, correct: [n] mean token losses of the answer and of what
    the truth ratio takes as correct. wrong: [n, k] of the wrong answers, NaN where a sample has fewer.
    """

    answer: Scores
    loss: np.ndarray
    correct: np.ndarray
    wrong: np.ndarray

    @property
    def probability(self) -> np.ndarray:
        """[n] exp(-loss): the geometric mean of an answer's token probabilities."""
        return np.exp(-self.loss)

    @property
    def truth_ratio(self) -> np.ndarray:
        return metrics.truth_ratio(self.correct, self.wrong)


def scored_rows(table: pa.Table, limit: int | None = None) -> pa.Table:
    """The samples that have wrong answers, at most `limit` of them, evenly spaced.

    Raises UserError when none has wrong answers, or one an empty list of them: then there is no truth ratio.
    """
    table = table.filter(table["perturbed_responses"].is_valid())
    if not len(table):
        raise UserError(
            "a benchmark table has no row with perturbed_responses, so no truth ratio; run the download stage"
        )
    empty = table.filter(pc.equal(pc.list_value_length(table["perturbed_responses"]), 0))["sample_id"].to_pylist()
    if empty:
        raise UserError(f"{empty[0]}: perturbed_responses is empty; the truth ratio needs a wrong answer, or null")
    if limit is None or limit >= len(table):
        return table
    return table.take(np.linspace(0, len(table) - 1, limit).round().astype(int))


def likelihoods(language_model: LanguageModel, table: pa.Table, progress: bool, title: str) -> Likelihoods:
    """Score answers, paraphrased answers and wrong answers of samples, all after the sample's own question.

    The truth ratio's correct answer is the paraphrased one; samples without paraphrase (the utility sets) use the
    answer itself. Raises UserError when a score is not finite. Source: TOFU (arXiv 2401.06121).
    """
    rows = table.to_pylist()
    answers, correct, wrong = [], [], []
    for row in rows:
        key, question = row["sample_id"], row["prompt"]
        answers.append((key, question, row["response"]))
        correct.append((key, question, row["paraphrased_response"] or row["response"]))
        wrong.extend((key, question, text) for text in row["perturbed_responses"])
    counts = [len(row["perturbed_responses"]) for row in rows]

    scores = score(language_model, encode_pairs(language_model, answers + correct + wrong), progress, title)
    n, loss = len(rows), scores.loss()
    if not np.isfinite(loss).all():
        sample = (answers + correct + wrong)[int(np.argmin(np.isfinite(loss)))][0]
        raise UserError(f"the model's score of {sample} is not finite; train with a lower learning rate (lr)")
    wrong_loss = np.full((n, max(counts)), np.nan)
    wrong_loss[np.arange(max(counts)) < np.array(counts)[:, None]] = loss[2 * n :]
    end = scores.bounds[n]
    answer = Scores(scores.bounds[: n + 1], scores.logit[:end], scores.logprob[:end], scores.hit[:end])
    return Likelihoods(answer, loss[:n], loss[n : 2 * n], wrong_loss)
