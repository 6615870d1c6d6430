"""Words, spans and tokens of an answer: what a word is, and which tokens a set of spans marks as unwanted."""

from collections.abc import Sequence
from itertools import pairwise

import regex

Span = tuple[int, int]

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
