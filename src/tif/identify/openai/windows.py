"""Cuts long answers into overlapping windows at sentence boundaries, and estimates tokens without a tokenizer."""

import math
from itertools import pairwise

import regex

from tif.words import Span, words

_SENTENCE_END = regex.compile(r"(?:[.!?…؟۔।]+[\p{Pe}\p{Pf}\"']*(?=\s)|[。！？｡]+[\p{Pe}\p{Pf}]*|\n)\s*", regex.VERSION1)
_ONE_TOKEN = regex.compile(r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}]", regex.VERSION1)


def count_tokens(text: str) -> int:
    """An estimate: one token per Han, kana or Hangul character, and one per four UTF-8 bytes of the rest.

    >>> count_tokens("She wrote it in 1987."), count_tokens("她写")
    (6, 2)
    """
    single = len(_ONE_TOKEN.findall(text))
    rest = len(text.encode("utf-8", "surrogatepass")) - 3 * single  # each of these characters has three bytes or more
    return single + math.ceil(max(0, rest) / 4)


def sentences(text: str) -> list[Span]:
    """The sentences of `text` in order, without gaps: each ends after its terminator and the white space behind it.

    Language-neutral: a terminator is . ! ? … and its Arabic or Devanagari forms before white space, a CJK full stop,
    exclamation or question mark anywhere, or a line break.
    """
    cuts = sorted({0, len(text), *(match.end() for match in _SENTENCE_END.finditer(text))})
    return list(pairwise(cuts))


def windows(text: str, budget: int, overlap: int) -> list[Span]:
    """Overlapping parts of `text`, as (start, end) characters, that cover it.

    budget: most tokens of a window (`count_tokens`). overlap: most tokens that a window repeats of the one before, in
    whole sentences. A sentence above the budget is cut between words; a single word above it stays whole.
    """
    if count_tokens(text) <= budget:
        return [(0, len(text))]
    parts = [part for sentence in sentences(text) for part in _cut(text, sentence, budget)]
    sizes = [count_tokens(text[a:b]) for a, b in parts]
    found, first = [], 0
    while True:
        stop, total = first + 1, sizes[first]
        while stop < len(parts) and total + sizes[stop] <= budget:
            total += sizes[stop]
            stop += 1
        found.append((parts[first][0], parts[stop - 1][1]))
        if stop == len(parts):
            return found
        # The next window must reach further than this one, so it repeats no more than leaves room for a new part.
        repeated, back = 0, stop
        while back - 1 > first and repeated + sizes[back - 1] <= min(overlap, budget - sizes[stop]):
            back -= 1
            repeated += sizes[back]
        first = back


def _cut(text: str, sentence: Span, budget: int) -> list[Span]:
    """A sentence as parts of at most `budget` tokens that begin at words."""
    start, end = sentence
    if count_tokens(text[start:end]) <= budget:
        return [sentence]
    cuts, size = [start], 0
    begins = [start + a for a, _ in words(text[start:end])]
    for a, b in zip(begins, [*begins[1:], end]):
        more = count_tokens(text[a:b])
        if size and size + more > budget:
            cuts.append(a)
            size = 0
        size += more
    cuts.append(end)
    return list(pairwise(cuts))
