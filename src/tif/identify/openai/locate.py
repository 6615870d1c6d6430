"""Where the words that a model returned stand in the answer."""

import unicodedata
from bisect import bisect_left

import regex

from tif.words import Span, is_punctuation, words

_GRAPHEME = regex.compile(r"\X")
_LOOKALIKES = str.maketrans({**dict.fromkeys("‘’ʼ′", "'"), **dict.fromkeys("“”″", '"'), **dict.fromkeys("‐‑‒–—−", "-")})


class Text:
    """A part of a text, ready for many look-ups.

    Word boundaries are those of the whole text (`tif.words.words`): `start` and `end` (characters) bound the part.
    """

    def __init__(self, text: str, start: int = 0, end: int | None = None, spans: list[Span] | None = None) -> None:
        end = len(text) if end is None else end
        spans = words(text) if spans is None else spans
        inside = spans[bisect_left(spans, (start, start)) : bisect_left(spans, (end, end))]
        part = [span for span in inside if span[1] <= end]
        self.text, self.start = text[start:end], start
        self.starts, self.ends = {a for a, _ in part}, {b for _, b in part}
        self._folded: tuple[str, list[int], list[int]] | None = None

    def locate(self, word: str) -> list[Span]:
        """Every place of `word`, as (start, end) characters of the whole text, in order; empty if it is not there.

        A place begins where a word begins and ends where a word ends. Only if the exact word has no place, both sides
        are compared after NFKC and case folding, with typographic quotes and hyphens as ASCII and any white space as
        a space. Without a letter or digit nothing is located, because a full stop would be found in every sentence.
        """
        word = word.strip()
        if not word or is_punctuation(word):
            return []
        exact = [(self.start + at, self.start + at + len(word)) for at in _occurrences(self.text, word)]
        exact = [span for span in exact if span[0] in self.starts and span[1] in self.ends]
        if exact:
            return exact
        if self._folded is None:
            self._folded = _fold(self.text)
        folded, first, last = self._folded
        wanted = _fold(word)[0]
        found = []
        for at in _occurrences(folded, wanted):
            a, b = first[at], last[at + len(wanted) - 1]
            whole = (at == 0 or first[at - 1] != a) and (at + len(wanted) == len(folded) or last[at + len(wanted)] != b)
            if whole and self.start + a in self.starts and self.start + b in self.ends:
                found.append((self.start + a, self.start + b))
        return found


def _occurrences(text: str, part: str) -> list[int]:
    found, at = [], text.find(part) if part else -1
    while at >= 0:
        found.append(at)
        at = text.find(part, at + 1)
    return found


def _fold(text: str) -> tuple[str, list[int], list[int]]:
    """The folded text, and for each of its characters the start and the end of the grapheme that it comes from.

    >>> _fold("Straße")
    ('strasse', [0, 1, 2, 3, 4, 4, 5], [1, 2, 3, 4, 5, 5, 6])
    """
    folded, first, last = [], [], []
    for match in _GRAPHEME.finditer(text):
        grapheme = match.group().translate(_LOOKALIKES)
        form = " " if grapheme.isspace() else unicodedata.normalize("NFKC", grapheme).casefold()
        form = unicodedata.normalize("NFKC", form)
        folded.append(form)
        first += [match.start()] * len(form)
        last += [match.end()] * len(form)
    return "".join(folded), first, last
