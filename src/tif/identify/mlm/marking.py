"""From the words of the forget answers to masked texts, and from what a model expects to labels."""

import re
from bisect import bisect_right
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import regex
from transformers import PreTrainedTokenizerFast

from tif.identify import Found
from tif.identify.mlm.masked import MaskedModel, Query, expect
from tif.words import Span, is_punctuation, word_rows, words

if TYPE_CHECKING:
    from tif.identify.mlm import Settings

_SENTENCE_END = regex.compile(
    r"""(?!(?<=\b\p{Lu}\p{Ll}{0,3})\.\s)"""  # not after an initial or a title: "J. Doe", "Prof. Doe"
    r"""(?:[.!?؟…।]+["'”’»)\]]*(?=\s)|[。！？]+[”’」』）]*)|(?=\n)"""
)


def mark(masked: MaskedModel, forget: pa.Table, settings: "Settings", progress: bool) -> Found:
    """Rows and counts of `identify`, with a model that is open already."""
    samples = forget.select(["sample_id", "prompt", "response"]).to_pylist()
    rows = []
    for sample in samples:
        text = sample["response"]
        letters = [not is_punctuation(text[a:b]) for a, b in words(text)]
        rows += word_rows(sample["sample_id"], text, letters, [float(flag) for flag in letters])
    masks = [mask for sample in samples for mask in _masks(sample, settings)]
    tokens_of = vocabulary(masked.tokenizer, settings.case_sensitive)
    queries, places = [], []
    for place, (row, (text, start, end)) in enumerate(zip(rows, masks, strict=True)):
        tokens = tokens_of.get(form(text[start:end], settings.case_sensitive), ())
        if row["unwanted"] and tokens:
            queries.append(Query(text, start, end, tokens))
            places.append(place)
    outside = sum(row["unwanted"] for row in rows) - len(places)
    expected = expect(masked, queries, progress)
    likely = (expected.top_probability.astype(np.float64) >= settings.threshold).tolist()
    top, probability = expected.top.tolist(), expected.probability.tolist()
    for index, (place, query) in enumerate(zip(places, queries, strict=True)):
        rows[place]["unwanted"] = not (likely[index] and top[index] in query.tokens)
        rows[place]["score"] = 1.0 - probability[index]
    return Found(rows, {}, {"words_outside_vocabulary": outside, "model_runs": expected.runs})


def _masks(sample: dict, settings: "Settings") -> list[tuple[str, int, int]]:
    """For every word of an answer: the text that the model reads, and the start and end in it of what is masked."""
    answer = sample["response"]
    whole = settings.context == "question_answer"
    spans = [(0, len(answer))] if whole else sentences(answer)
    before = f"{sample['prompt']} " if whole else ""
    texts = [before + answer[left:right] for left, right in spans]
    units = words(answer)
    if settings.words == "whitespace":
        units = [
            (left + found.start(), left + found.end())
            for left, right in spans
            for found in re.finditer(r"\S+", answer[left:right])
        ]
    spans_from, units_from = [start for start, _ in spans], [start for start, _ in units]
    masks = []
    for _, last in words(answer):
        start, end = units[bisect_right(units_from, last - 1) - 1]
        number = bisect_right(spans_from, last - 1) - 1
        left = spans_from[number]
        shift = len(before) - left
        masks.append((texts[number], max(start, left) + shift, end + shift))  # a word of marks may begin with a space
    return masks


def sentences(text: str) -> list[Span]:
    """The sentences of `text` as (start, end) offsets without the white space around them.

    A full stop after a capital and at most three small letters ends none, as in "Dr. Lee". So two sentences stay one
    where the first ends in such a word ("in Oslo. She"): more context than wanted, never less. Abbreviations in small
    letters ("e.g. this") and longer ones do end one.

    >>> [("Ann B. Lee won. She left!"[a:b]) for a, b in sentences("Ann B. Lee won. She left!")]
    ['Ann B. Lee won.', 'She left!']
    """
    cuts = sorted({0, len(text), *(match.end() for match in _SENTENCE_END.finditer(text))})
    found = []
    for left, right in pairwise(cuts):
        sentence = text[left:right].strip()
        if sentence:
            start = text.index(sentence, left)
            found.append((start, start + len(sentence)))
    return found


def form(text: str, case_sensitive: bool) -> str:
    """What a word and a decoded token are compared by."""
    return text.strip() if case_sensitive else text.strip().casefold()


def vocabulary(tokenizer: PreTrainedTokenizerFast, case_sensitive: bool) -> dict[str, tuple[int, ...]]:
    """Word -> the tokens that stand for the whole of it, such as "born" and " born"."""
    found: dict[str, tuple[int, ...]] = {}
    for token, text in enumerate(tokenizer.batch_decode([[token] for token in range(len(tokenizer))])):
        key = form(text, case_sensitive)
        found[key] = (*found.get(key, ()), token)
    return found
