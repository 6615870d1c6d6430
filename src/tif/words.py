"""Words, spans and tokens of an answer: what a word is, and which tokens a set of spans marks as unwanted."""

from collections.abc import Sequence
from itertools import pairwise, zip_longest

import pyarrow as pa
import regex

from tif.base.errors import UserError
from tif.base.tables import column

Span = tuple[int, int]

SPANS = pa.schema(
    [
        column("sample_id", pa.string(), "key of a forget sample"),
        column("start", pa.int32(), "first character of the word in response"),
        column("end", pa.int32(), "one past the last character of the word in response"),
        column("text", pa.string(), "the word"),
        column("unwanted", pa.bool_(), "unwanted word (UW) or general word (GW)"),
        column("score", pa.float32(), "how unwanted, 0 to 1"),
    ]
)
"""The spans table, the Parquet masks: one row for every word of every forget answer, in order."""

_BOUNDARY = regex.compile(r"\b", regex.WORD | regex.VERSION1)


def words(text: str) -> list[Span]:
    """The words of `text` as (start, end) character offsets, in order, without white space.

    A word is what lies between two default word boundaries of Unicode (UAX 29). So "author's" and "1,250" are one
    word each, a punctuation mark is a word of its own, and every Han ideograph is a word of its own.

    >>> [("Li Wei's 2nd novel."[a:b]) for a, b in words("Li Wei's 2nd novel.")]
    ['Li', "Wei's", '2nd', 'novel', '.']
    """
    cuts = sorted({0, len(text), *(match.start() for match in _BOUNDARY.finditer(text))})
    return [(a, b) for a, b in pairwise(cuts) if not text[a:b].isspace()]


def project(text: str, spans: Sequence[Span], offsets: Sequence[Span]) -> list[bool]:
    """Which tokens of an answer are unwanted.

    text: the answer, of length n. spans: unwanted (start, end) character ranges in it, in any order.
    offsets: (start, end) of every token, empty for tokens that stand for no text (end of sequence).
    Returns one bool a token: True when the token overlaps a span in at least one non-space character.
    Raises ValueError for a span or an offset outside the text.
    """
    marked = mark(text, spans)
    if any(not 0 <= start <= end <= len(text) for start, end in offsets):
        raise ValueError(f"a token offset lies outside the answer of {len(text)} characters")
    return [any(marked[start:end]) for start, end in offsets]


def soften(text: str, scored: Sequence[tuple[int, int, float]], offsets: Sequence[Span]) -> list[float]:
    """Soft weight of every token of an answer: the highest score among the words it overlaps, 0 where there is none.

    scored: (start, end, score) of every word, score in [0, 1]. text, offsets, errors: see `project`.
    """
    character = [0.0] * len(text)
    for start, end, score in scored:
        for place, inside in enumerate(mark(text, [(start, end)])[start:end], start):
            character[place] = max(character[place], score * inside)
    if any(not 0 <= start <= end <= len(text) for start, end in offsets):
        raise ValueError(f"a token offset lies outside the answer of {len(text)} characters")
    return [max(character[start:end], default=0.0) for start, end in offsets]


def mark(text: str, spans: Sequence[Span]) -> list[bool]:
    """One bool a character of `text`: inside a span and not white space. Raises ValueError for a span outside it."""
    marked = [False] * len(text)
    for start, end in spans:
        if not 0 <= start <= end <= len(text):
            raise ValueError(f"span [{start}, {end}) lies outside the answer of {len(text)} characters")
        marked[start:end] = [not character.isspace() for character in text[start:end]]
    return marked


def overlapping(text: str, spans: Sequence[Span]) -> list[bool]:
    """One bool a word of `text` (see `words`): the word overlaps a span in at least one non-space character."""
    return project(text, spans, words(text))


def is_punctuation(text: str) -> bool:
    """Whether `text` holds no letter and no digit of any script."""
    return not any(character.isalnum() for character in text)


def word_rows(sample_id: str, text: str, unwanted: Sequence[bool], scores: Sequence[float]) -> list[dict]:
    """The rows of `SPANS` for one answer, one per word of `text` (see `words`).

    unwanted, scores: one value a word, in order. Raises ValueError when their number is not that of the words.
    """
    return [
        {"sample_id": sample_id, "start": a, "end": b, "text": text[a:b], "unwanted": flag, "score": score}
        for (a, b), flag, score in zip(words(text), unwanted, scores, strict=True)
    ]


def span_rows(sample_id: str, text: str, spans: Sequence[Span]) -> list[dict]:
    """The rows of `SPANS` for one answer whose unwanted words are those that overlap a span; score 1 or 0."""
    unwanted = overlapping(text, spans)
    return word_rows(sample_id, text, unwanted, [float(flag) for flag in unwanted])


def check_rows(rows: Sequence[dict], responses: dict[str, str], where: str) -> None:
    """Raise UserError unless `rows` (`SPANS`) hold exactly the words of every answer, in order.

    responses: sample_id -> answer of every forget sample, in order. where: what the message calls the rows.
    """
    expected = ((sample_id, *span) for sample_id, text in responses.items() for span in words(text))
    for row, word in zip_longest(rows, expected):
        if row is None:
            raise UserError(f"{where}: the word [{word[1]}, {word[2]}) of {word[0]} has no row")
        sample_id, start, end = row["sample_id"], row["start"], row["end"]
        if sample_id not in responses:
            raise UserError(f"{where}: {sample_id} is not a sample of the forget set")
        text = responses[sample_id]
        if not 0 <= start < end <= len(text):
            raise UserError(f"{where}: {sample_id}: [{start}, {end}) lies outside the answer of {len(text)} characters")
        if (sample_id, start, end) != word or row["text"] != text[start:end]:
            raise UserError(
                f"{where}: {sample_id}: [{start}, {end}) {row['text']!r} is not the next word of the answer"
            )
        if not 0 <= row["score"] <= 1:
            raise UserError(f"{where}: {sample_id}: [{start}, {end}) has score {row['score']}, which is not in [0, 1]")
