"""Collects what a model returned into labels of words: votes of samples, scores, and what could not be used."""

from bisect import bisect_left
from dataclasses import dataclass
from itertools import combinations

from tif.identify.openai.locate import Text
from tif.words import words


@dataclass(frozen=True, order=True)
class Piece:
    """The part [start, end) of the answer of a row, in characters: all of it, or a window of a long one."""

    row: int
    start: int
    end: int


class Labels:
    """The labels of some answers, by several samples of the model."""

    def __init__(self, texts: list[str], samples: int) -> None:
        self.texts = texts
        self.spans = [words(text) for text in texts]
        self.labelled = [[bytearray(len(spans)) for _ in range(samples)] for spans in self.spans]
        self.marked = [[bytearray(len(spans)) for _ in range(samples)] for spans in self.spans]
        self.failed: list[tuple[Piece, int, str, str]] = []

    def mark(self, piece: Piece, sample: int, returned: list[str]) -> tuple[list[str], list[str]]:
        """Mark every place of the returned words in a piece; which of them are in it, and which are not."""
        spans = self.spans[piece.row]
        text = Text(self.texts[piece.row], piece.start, piece.end, spans)
        self._set(self.labelled[piece.row][sample], spans, piece.start, piece.end)
        found, missing = [], []
        for word in dict.fromkeys(filter(str.strip, returned)):
            places = text.locate(word)
            (found if places else missing).append(word)
            for start, end in places:
                self._set(self.marked[piece.row][sample], spans, start, end)
        return found, missing

    def fail(self, piece: Piece, sample: int, reason: str, key: str) -> None:
        """Note that a piece got no usable reply to the request with this key."""
        self.failed.append((piece, sample, reason, key))

    def votes(self, row: int) -> tuple[list[bool], list[float]]:
        """For each word of an answer: unwanted or not, and its score.

        score = samples that marked the word / samples, those without a usable reply too; unwanted = score > 1/2.
        """
        scores = [sum(column) / len(column) for column in zip(*self.marked[row])]
        return [score > 0.5 for score in scores], scores

    def mean_pairwise_jaccard(self) -> float | None:
        """Mean over rows and pairs of samples of |A & B| / |A | B|, A and B the words that two samples marked.

        1 when both are empty. Only pairs that labelled every word of the row count; None without any such pair.
        """
        values = []
        for labelled, marked in zip(self.labelled, self.marked):
            whole = [votes for votes, words in zip(marked, labelled) if words and all(words)]
            for one, other in combinations(whole, 2):
                both = sum(a & b for a, b in zip(one, other))
                either = sum(a | b for a, b in zip(one, other))
                values.append(both / either if either else 1.0)
        return sum(values) / len(values) if values else None

    @staticmethod
    def _set(flags: bytearray, spans: list[tuple[int, int]], start: int, end: int) -> None:
        first, last = bisect_left(spans, (start, start)), bisect_left(spans, (end, end))
        flags[first:last] = b"\x01" * (last - first)
