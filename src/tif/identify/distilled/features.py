"""Cheap features of the words of an answer: what a table of word statistics, the question and the neighbours say.

Nothing here knows a language: the statistics and the word vectors come from unlabelled questions and answers, case and
digits from Unicode.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.sparse import csr_matrix
from scipy.sparse.linalg import svds
from threadpoolctl import threadpool_limits

from tif.words import is_punctuation, words

_RARE = 2  # a word that stands fewer times in the text shares the statistics of all such words
_STATISTICS = 3
_QUOTES = frozenset('"“”„«»「」『』')
_ENDS = frozenset(".!?。！？؟")


@dataclass(frozen=True)
class Lexicon:
    """What unlabelled text says about words.

    index: case-folded word -> row; row 0 stands for every word that is not in it. table: [V, 3 + d], to four decimals:
    log share of the answers and of the questions that hold the word, share of its occurrences with a capital (the first
    word of a sentence does not count), and a vector of d numbers that is alike for words with like neighbours.
    """

    index: dict[str, int]
    table: np.ndarray

    def rows(self, text: str) -> np.ndarray:
        """[n, 3 + d], one row a word of `text` (`tif.words.words`)."""
        return self.table[[self.index.get(form, 0) for form in forms(text)]]


def forms(text: str) -> list[str]:
    """The case-folded words of `text`."""
    return [text[start:end].casefold() for start, end in words(text)]


def make_lexicon(questions: Sequence[str], answers: Sequence[str], size: int) -> Lexicon:
    """The lexicon of unlabelled text, with word vectors of at most `size` numbers.

    Vectors are U sqrt(S) of a truncated singular value decomposition of the positive pointwise mutual information of a
    word and its left or right neighbour, max(0, log p(word, neighbour) / (p(word) p(neighbour)^.75)), as in Levy and
    Goldberg, "Neural word embedding as implicit matrix factorization" (2014). The same text gives the same numbers.
    Raises ValueError when there is no text.
    """
    documents = [forms(text) for text in (*questions, *answers)]
    counts: dict[str, int] = {}
    for form in (form for document in documents for form in document):
        counts[form] = counts.get(form, 0) + 1
    if not counts:
        raise ValueError("a lexicon needs text")
    index = {form: row for row, form in enumerate((form for form, n in counts.items() if n >= _RARE), start=1)}
    numbered = [[index.get(form, 0) for form in document] for document in documents]
    asked, answered = numbered[: len(questions)], numbered[len(questions) :]
    count = len(index) + 1
    statistics = np.stack(
        [_log_share(answered, count), _log_share(asked, count), _capital_share([*questions, *answers], index)], axis=1
    )
    return Lexicon(index, np.concatenate([statistics, _vectors(numbered, count, size)], axis=1).round(4))


def _log_share(documents: list[list[int]], count: int) -> np.ndarray:
    """[V] log of the share of documents with a word, one half added; for row 0 that of one word that is not there."""
    holding = np.bincount([row for document in documents for row in set(document)], minlength=count)
    holding[0] = 0
    return np.log((holding + 0.5) / (len(documents) + 1))


def _capital_share(texts: Sequence[str], index: dict[str, int]) -> np.ndarray:
    """[V] share of a word's occurrences inside sentences that start with a capital, drawn towards .3 of one."""
    capitals, inside = np.zeros(len(index) + 1), np.zeros(len(index) + 1)
    for text in texts:
        for (a, b), (start, end) in pairwise(words(text)):
            if text[a:b] not in _ENDS and text[a:b] not in _QUOTES:
                row = index.get(text[start:end].casefold(), 0)
                inside[row] += 1
                capitals[row] += text[start].isupper()
    return (capitals + 0.3) / (inside + 1)


def _vectors(documents: list[list[int]], count: int, size: int) -> np.ndarray:
    """[V, d] word vectors, d = min(size, V - 1); see `make_lexicon`."""
    left = np.array([row for document in documents for row in [count, *document]])  # the extra row is the border
    right = np.array([row for document in documents for row in [*document, count]])
    # column: which neighbour, and on which side
    pairs = csr_matrix(
        (
            np.ones(2 * len(left)),
            (np.concatenate([left, right]), np.concatenate([right, left + count + 1])),
        ),
        shape=(count + 1, 2 * (count + 1)),
    )[:count]
    pairs.sum_duplicates()
    pairs = pairs.tocoo()
    of_word = np.asarray(pairs.sum(1)).ravel()
    of_neighbour = np.asarray(pairs.sum(0)).ravel() ** 0.75
    information = np.log(pairs.data / (of_word[pairs.row] * of_neighbour[pairs.col] / of_neighbour.sum()))
    matrix = csr_matrix((np.maximum(information, 0), (pairs.row, pairs.col)), shape=pairs.shape)
    size = min(size, count - 1)
    with threadpool_limits(1):  # other thread counts give other last bits
        if count <= 4 * max(size, 1):  # the iteration needs more words than that
            left_vectors, values, _ = np.linalg.svd(matrix.toarray(), full_matrices=False)
        else:
            rng = np.random.default_rng(0)
            left_vectors, values, _ = svds(matrix, k=size, v0=rng.standard_normal(count), rng=rng)
    order = np.argsort(-values)[:size]
    return left_vectors[:, order] * np.sqrt(values[order])


def features(lexicon: Lexicon, prompt: str, response: str) -> np.ndarray:
    """[n, F], one row a word of `response`: the word itself, its place, and its two neighbours on either side."""
    known = lexicon.rows(response)
    statistics, vectors = known[:, :_STATISTICS], known[:, _STATISTICS:]
    spelled = [response[start:end] for start, end in words(response)]
    shape = _shape(spelled)
    asked = _asked(forms(prompt), forms(response))
    near = np.concatenate([statistics, shape, asked], axis=1)
    return np.concatenate(
        [near, vectors, _place(spelled, statistics[:, 0])]
        + [_shifted(near, offset) for offset in (-2, -1, 1, 2)]
        + [_shifted(vectors, offset) for offset in (-1, 1)],
        axis=1,
    )


def _shape(spelled: list[str]) -> np.ndarray:
    return np.array(
        [
            [word[0].isupper(), len(word) > 1 and word.isupper(), any(map(str.isdigit, word)), is_punctuation(word)]
            for word in spelled
        ],
        dtype=float,
    ).reshape(len(spelled), 4)


def _asked(question: list[str], answer: list[str]) -> np.ndarray:
    """[n, 4]: the word is in the question; so is the pair with the word before, and after; longest shared beginning."""
    held, pairs = set(question), set(pairwise(question))
    return np.array(
        [
            [form in held, (left, form) in pairs, (form, right) in pairs, _shared_beginning(form, held)]
            for left, form, right in zip([None, *answer], answer, [*answer[1:], None])
        ],
        dtype=float,
    ).reshape(len(answer), 4)


def _shared_beginning(form: str, others: set[str]) -> float:
    """Largest share of `form` with which another word begins: near 1 for another form of the same word."""
    longest = 0
    for other in others:
        length = next((k for k, (a, b) in enumerate(zip(form, other)) if a != b), min(len(form), len(other)))
        longest = max(longest, length)
    return longest / len(form)


def _place(spelled: list[str], answer_share: np.ndarray) -> np.ndarray:
    """[n, 9]: place in the answer and in the sentence, whether quoted or said before, length, and rank of rarity."""
    count = len(spelled)
    rank = np.argsort(np.argsort(answer_share, kind="stable"), kind="stable") / max(count, 1)
    rows, said, sentence, inside, quoted = [], set(), 0, 0, False
    for position, word in enumerate(spelled):
        quoted ^= word in _QUOTES
        form = word.casefold()
        rows.append([position, count - position, position / count, sentence, inside, quoted, form in said, len(word)])
        said.add(form)
        inside += 1
        if word in _ENDS:
            sentence, inside = sentence + 1, 0
    return np.concatenate([np.array(rows, dtype=float).reshape(count, 8), rank[:, None]], axis=1)


def _shifted(values: np.ndarray, offset: int) -> np.ndarray:
    """Row i holds row i + offset of `values`, or -9 beyond the ends."""
    moved = np.full_like(values, -9)
    if abs(offset) < len(values):
        if offset > 0:
            moved[:-offset] = values[offset:]
        else:
            moved[-offset:] = values[:offset]
    return moved
