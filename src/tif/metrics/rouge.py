"""ROUGE-L recall of the model's own answers."""

from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from tif.metrics import Measure, mean
from tif.metrics.scored import Scored
from tif.words import is_punctuation, words

if TYPE_CHECKING:
    from rouge_score.rouge_scorer import RougeScorer


def rouge_recall(reference: str, generated: str) -> float:
    """ROUGE-L recall: length of the longest common subsequence of words / words of `reference`. Returns 0 to 1.

    Words are those of the rouge-score package: runs of a-z and 0-9, with stemming. It sees nothing of other scripts, so
    where more than half of the letters and digits of `reference` are neither a-z nor 0-9 (case aside), both texts are
    cut into `tif.words.words` instead, case folded, without punctuation and stemming: each Han ideograph is a word.
    """
    scorer = _words_scorer() if _is_foreign(reference) else _scorer()
    return float(scorer.score(reference, generated)["rougeL"].recall)


@cache
def _scorer() -> "RougeScorer":
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rougeL"], use_stemmer=True)


@cache
def _words_scorer() -> "RougeScorer":
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rougeL"], tokenizer=_Words())


class _Words:  # what RougeScorer takes as a tokenizer
    def tokenize(self, text: str) -> list[str]:
        return [text[a:b].casefold() for a, b in words(text) if not is_punctuation(text[a:b])]


def _is_foreign(text: str) -> bool:
    signs = [character for character in text.lower() if character.isalnum()]
    return sum(not character.isascii() for character in signs) > len(signs) / 2


def _values(scored: Scored) -> np.ndarray:
    return np.array([rouge_recall(answer, text) for answer, text in zip(scored.responses, scored.texts, strict=True)])


FAMILY = (
    Measure(
        name="rouge",
        title="ROUGE",
        sets=("forget", "retain", "holdout", "utility"),
        reads=("text",),
        values=_values,
        aggregate=mean,
        better="higher",
        says="Share of the true answer's words that the written answer repeats in order (ROUGE-L recall).",
    ),
)
