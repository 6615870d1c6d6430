"""The identifier `mlm`: a word is unwanted unless a masked language model expects it in its place.

The discriminative identifier of arXiv 2506.03142: what a model that never saw the answer can fill in is general
language, what it cannot is the fact. Its two published modes are settings:

    TOFU  words: whitespace, context: question_answer, case_sensitive: false, threshold: 0    (distilroberta-base)
    MUSE  words: whitespace, context: sentence,        case_sensitive: true,  threshold: 0.9  (bert-large-uncased)

The published rule masks what stands between white space, so "Arlen." and "well-known" are replaced whole, and as no
token is such a word, none of them is ever general: about one in six of the words of TOFU's answers. With `words:
unicode`, the default, a word is one of ours (`masks.words`): attached punctuation and the other parts of a compound
stay in the context, and the rule works for scripts without spaces too.

What holds for both:
- Punctuation is general, with score 0: it carries no fact. A word between white space hands its label and score to the
  words of ours in it, but for these.
- One mask stands for the whole word, so a word that is no single token of the vocabulary can never be expected. It is
  unwanted with score 1, and no model needs to run for it.
- A model that knows lower case only never expects a capital letter; with `case_sensitive: true` every capitalised word
  is unwanted then, as published.
"""

import re
from bisect import bisect_right
from itertools import pairwise
from typing import Literal

import numpy as np
import pyarrow as pa
import regex
from pydantic import Field
from transformers import PreTrainedTokenizerFast

from tif.identify import Found, Resources
from tif.masked import MaskedModel, Query, expect, open_masked
from tif.masks import Span, is_punctuation, word_rows, words
from tif.models import locate, prepare
from tif.params import Block

_SENTENCE_END = regex.compile(
    r"""(?!(?<=\b\p{Lu}\p{Ll}{0,3})\.\s)"""  # not after an initial or a title: "J. Doe", "Prof. Doe"
    r"""(?:[.!?؟…।]+["'”’»)\]]*(?=\s)|[。！？]+[”’」』）]*)|(?=\n)"""
)


class Settings(Block):
    """The block `mlm`.

    model, revision: a masked language model of the hub, used where `identify.source` names no local model folder.
    words: what one mask replaces: a word of `masks.words`, or all that stands between white space.
    context: what the model reads beside the mask: question and answer, or the word's own sentence of the answer.
    case_sensitive: whether "may" misses "May". threshold: least probability of an expected word that is general.
    """

    model: str
    revision: str
    words: Literal["unicode", "whitespace"]
    context: Literal["question_answer", "sentence"]
    case_sensitive: bool
    threshold: float = Field(ge=0, le=1)


def identify(forget: pa.Table, retain: pa.Table, settings: Settings, resources: Resources) -> Found:
    """Rows of `tables.SPANS`, and what tells the model.

    With t the likeliest token in the place of the word, the word masked by a single mask:

        general = the word is punctuation, or t is the word and p(t) >= threshold
        score   = 1 - p(word), how unwanted the word is, in [0, 1]; 0 for punctuation

    p(word) is summed over the tokens that are this word: with a space before it or not, and in another case where case
    does not matter.

    A context of more tokens than the model can read is cut to a window around the mask.
    forget: the forget set (`tables.SAMPLES`); `retain` is not used. resources.source: a model folder.
    Counts: `words_outside_vocabulary`, words of ours for which no single token stands; `model_runs`, different masked
    texts read.
    Raises UserError for an unusable model folder or hub model, and for a model that has no mask token.
    """
    prepare(resources.compute)
    name, revision, origin = locate(resources.source, settings.model, settings.revision)
    masked = open_masked(name, revision, resources.compute.device)
    found = mark(masked, forget, settings, resources.progress)
    return Found(found.rows, {"version": "1", **origin}, found.counts)


def mark(masked: MaskedModel, forget: pa.Table, settings: Settings, progress: bool) -> Found:
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


def _masks(sample: dict, settings: Settings) -> list[tuple[str, int, int]]:
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
