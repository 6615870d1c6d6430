"""The identifier `mlm`: a word is unwanted unless a masked language model expects it in its place.

The discriminative identifier of arXiv 2506.03142: what a model that never saw the answer can fill in is general
language, what it cannot is the fact. Its two published modes are settings:

    TOFU  context: question_answer, case_sensitive: false, threshold: 0     (distilroberta-base)
    MUSE  context: sentence,        case_sensitive: true,  threshold: 0.9   (bert-large-uncased)

Decisions where the published rule speaks of words between spaces:
- A word is one of ours (`masks.words`), so the rule works without spaces too. Attached punctuation and the other
  parts of a hyphenated compound stay in the context.
- Punctuation is general, with score 0: it carries no fact.
- One mask stands for the whole word, so a word that is no single token of the vocabulary can never be expected. It is
  unwanted with score 1, and no model needs to run for it.
- A model that knows lower case only never expects a capital letter; with `case_sensitive: true` every capitalised word
  is unwanted then, as published.
"""

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
    r"""(?<!\b\p{Lu})(?:[.!?؟…।]+["'”’»)\]]*(?=\s)|[。！？]+[”’」』）]*)|(?=\n)"""  # not after an initial, "J. Doe"
)


class Settings(Block):
    """The block `mlm`.

    model, revision: a masked language model of the hub, used where `identify.source` names no local model folder.
    context: what the model reads beside the mask: question and answer, or the word's own sentence of the answer.
    case_sensitive: whether "may" misses "May". threshold: least probability of an expected word that is general.
    """

    model: str
    revision: str
    context: Literal["question_answer", "sentence"]
    case_sensitive: bool
    threshold: float = Field(ge=0, le=1)


def identify(forget: pa.Table, retain: pa.Table, settings: Settings, resources: Resources) -> Found:
    """Rows of `tables.SPANS`, and what tells the model.

    With t the likeliest token in the place of the word, the word masked by a single mask:

        general = the word is punctuation, or t is the word and p(t) >= threshold
        score   = 1 - p(word), summed over the tokens that are this word (with a space before it, in another case
                  where case does not matter); 0 for punctuation

    A context of more tokens than the model can read is cut to a window around the mask.
    forget: the forget set (`tables.SAMPLES`); `retain` is not used. resources.source: a model folder.
    Counts: `words_outside_vocabulary`, which no single token stands for; `model_runs`, different masked texts read.
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
    contexts = _contexts(samples, settings)
    tokens_of = vocabulary(masked.tokenizer, settings.case_sensitive)
    queries, places = [], []
    for place, (row, (text, start)) in enumerate(zip(rows, contexts, strict=True)):
        tokens = tokens_of.get(form(row["text"], settings.case_sensitive), ())
        if row["unwanted"] and tokens:
            queries.append(Query(text, start, start + len(row["text"]), tokens))
            places.append(place)
    outside = sum(row["unwanted"] for row in rows) - len(places)
    expected = expect(masked, queries, progress)
    likely = (expected.top_probability.astype(np.float64) >= settings.threshold).tolist()
    top, probability = expected.top.tolist(), expected.probability.tolist()
    for index, (place, query) in enumerate(zip(places, queries, strict=True)):
        rows[place]["unwanted"] = not (likely[index] and top[index] in query.tokens)
        rows[place]["score"] = 1.0 - probability[index]
    return Found(rows, {}, {"words_outside_vocabulary": outside, "model_runs": expected.runs})


def _contexts(samples: list[dict], settings: Settings) -> list[tuple[str, int]]:
    """For every word of every answer: the text that the model reads, and where the word starts in it."""
    found = []
    for sample in samples:
        answer = sample["response"]
        if settings.context == "question_answer":
            text = f"{sample['prompt']} {answer}"
            found += [(text, len(text) - len(answer) + start) for start, _ in words(answer)]
            continue
        spans = sentences(answer)
        starts = [start for start, _ in spans]
        for start, _ in words(answer):
            left, right = spans[bisect_right(starts, start) - 1]
            found.append((answer[left:right], start - left))
    return found


def sentences(text: str) -> list[Span]:
    """The sentences of `text` as (start, end) offsets without the white space around them.

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
