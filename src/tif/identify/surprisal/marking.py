"""From rank and probability of the answer tokens to the labels of words."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from tif.lm.batches import Example, encode
from tif.lm.models import LanguageModel
from tif.scores.tokens import score
from tif.words import Span, is_punctuation, word_rows, words

if TYPE_CHECKING:
    from tif.identify.surprisal import Settings


def mark(language_model: LanguageModel, forget: pa.Table, settings: "Settings", progress: bool) -> list[dict]:
    """The rows of `identify`, with a model that is open already."""
    samples = forget.select(["sample_id", "prompt", "response"]).to_pylist()
    examples = [
        encode(language_model.tokenizer, language_model.form, sample["sample_id"], sample["prompt"], sample["response"])
        for sample in samples
    ]
    rows = []
    for sample, example, (rank, logprob) in zip(
        samples, examples, surprise(language_model, examples, progress), strict=True
    ):
        text, offsets, unwanted, scores = sample["response"], np.array(example.offsets), [], []
        for span in words(text):
            if is_punctuation(text[slice(*span)]):
                unwanted.append(False)
                scores.append(0.0)
                continue
            tokens = _tokens_of(span, offsets)
            if settings.measure == "rank":
                worst = int(rank[tokens].max())
                unwanted.append(worst > settings.threshold)
                scores.append(1 - 1 / worst)
            else:
                probability = min(float(np.exp(logprob[tokens].sum())), 1.0)
                unwanted.append(probability < settings.threshold)
                scores.append(1 - probability)
        rows += word_rows(sample["sample_id"], text, unwanted, scores)
    return rows


def _tokens_of(word: Span, offsets: np.ndarray) -> np.ndarray:
    """Indices of the tokens that share a character with the word; offsets: int [A, 2]."""
    return np.flatnonzero((offsets[:, 0] < word[1]) & (word[0] < offsets[:, 1]))


def surprise(
    language_model: LanguageModel, examples: Sequence[Example], progress: bool
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Per example: int64 [A] rank and float64 [A] log-probability (nats) of its answer tokens, with end of sequence.

    Samples of more tokens than the model can read go through it in windows; see `windows`.
    """
    length = getattr(language_model.model.config, "max_position_embeddings", None) or 2**30
    cut = [windows(example, length) for example in examples]
    scores = score(language_model, [part for parts in cut for part in parts], progress, "surprisal", more=True)
    ends = np.cumsum([len(example.ids) - example.start for example in examples])[:-1]
    values = (np.split(values, ends) for values in (scores.rank, scores.logprob.astype(np.float64)))
    return list(zip(*values, strict=True)) if examples else []


def windows(example: Example, length: int) -> list[Example]:
    """`example` cut into parts of at most `length` tokens whose answer tokens are, in order, those of the whole.

    Each part begins with the tokens before its first answer token, at most half a window of them.
    """
    parts, start, end = [], example.start, len(example.ids)
    while start < end:
        left = 0 if end <= length else max(0, start - length // 2)
        right = min(end, left + length)
        parts.append(Example(example.sample_id, example.ids[left:right], start - left, offsets=[]))
        start = right
    return parts
