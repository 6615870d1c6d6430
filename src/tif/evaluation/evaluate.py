"""From a model and the sets of a benchmark to the two tables that all measures of the model are taken from."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from tif.base.errors import UserError
from tif.benchmarks import Set
from tif.evaluation import TEXTS, TOKENS, Settings
from tif.evaluation.generation import generate
from tif.lm.batches import Example
from tif.lm.models import LanguageModel
from tif.scores.answers import Answers, answers_of, evenly, score_answers, with_wrong_answers
from tif.scores.tokens import Scores


@dataclass(frozen=True)
class Evaluation:
    """tokens: `tif.evaluation.TOKENS`. texts: `tif.evaluation.TEXTS`."""

    tokens: pa.Table
    texts: pa.Table


def evaluate(
    language_model: LanguageModel,
    sets: dict[str, tuple[Set, pa.Table]],
    settings: Settings,
    progress: bool,
) -> Evaluation:
    """Score the answers of every set that is measured, and answer its questions where the set says so.

    sets: what a set is for, and its samples, by name. Of retain and holdout samples at most `settings.retain_rows`
    count, evenly spaced.
    """
    tokens, texts = [TOKENS.empty_table()], [TEXTS.empty_table()]
    for name, (about, table) in sets.items():
        chosen = evaluated(about, table, settings)
        answers = answers_of(chosen, about.answers)
        examples, scores = score_answers(language_model, answers, progress, f"scoring {name}")
        tokens.append(token_rows(answers, examples, scores))
        if about.generated:
            prompts = chosen["prompt"].to_pylist()
            said = generate(language_model, prompts, settings.new_tokens, settings.batch, progress)
            texts.append(pa.table({"sample_id": chosen["sample_id"], "text": said}, schema=TEXTS))
    return Evaluation(pa.concat_tables(tokens).unify_dictionaries(), pa.concat_tables(texts))


def evaluated(about: Set, table: pa.Table, settings: Settings) -> pa.Table:
    """The samples of a set that are evaluated: those with wrong answers where wrong answers are scored.

    Raises UserError where there is none.
    """
    if "wrong" in about.answers:
        table = with_wrong_answers(table)
    if not len(table):
        raise UserError(f"the {about.title.lower()} has no sample to evaluate; run the download stage")
    return evenly(table, settings.retain_rows if about.role in ("retain", "holdout") else None)


def token_rows(answers: Answers, examples: list[Example], scores: Scores) -> pa.Table:
    """The rows of the tokens table for E answers, T tokens in all."""
    counts = np.diff(scores.bounds)
    names = list(dict.fromkeys(answers.name))
    ids = list(dict.fromkeys(sample_id for sample_id, _, _ in answers.triples))
    number = {name: index for index, name in enumerate(names)}
    of_sample = {sample_id: index for index, sample_id in enumerate(ids)}
    starts = np.array([example.start for example in examples])
    place = np.arange(scores.bounds[-1]) - np.repeat(scores.bounds[:-1], counts)
    offsets = np.array([offset for example in examples for offset in example.offsets], dtype=np.int32)
    columns = {
        "sample_id": _dictionary([of_sample[sample_id] for sample_id, _, _ in answers.triples], counts, ids),
        "answer": _dictionary([number[name] for name in answers.name], counts, names),
        "position": (np.repeat(starts, counts) + place).astype(np.int32),
        "token_id": np.concatenate([example.ids[example.start :].numpy() for example in examples]).astype(np.int32),
        "start": offsets[:, 0],
        "end": offsets[:, 1],
        "is_end": place == np.repeat(counts, counts) - 1,
        "logprob": scores.logprob,
        "hit": scores.hit,
    }
    return pa.table(columns, schema=TOKENS)


def _dictionary(codes: list[int], counts: np.ndarray, names: list[str]) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(np.repeat(np.array(codes, dtype=np.int32), counts), names)
