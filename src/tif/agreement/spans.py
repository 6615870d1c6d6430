"""How well two spans tables (`SPANS`) agree: scores with bootstrap intervals over people or documents."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np
import pyarrow as pa

from tif.base.errors import UserError

Spans = pa.Table | Sequence[dict]  # a spans table: as Arrow, or as a list of rows


@dataclass(frozen=True)
class Estimate:
    """A number and its 95 % percentile bootstrap interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Scores:
    """How well unwanted words agree with those of a reference; kappa in [-1, 1], the others in [0, 1]."""

    precision: Estimate
    recall: Estimate
    f1: Estimate
    jaccard: Estimate
    kappa: Estimate


@dataclass(frozen=True)
class Agreement:
    """Scores counted on letters and digits, and on words that hold one; see `agreement`."""

    characters: Scores
    words: Scores


def agreement(
    a: Spans, b: Spans, groups: Mapping[str, str] | None = None, draws: int = 2000, seed: int = 0
) -> Agreement:
    """Agreement of the spans table `a` with the reference `b` over all samples (micro).

    With A and B the unwanted units of the two and N the number of all units, where a unit is a character for which
    str.isalnum() holds, or a word with such a character:

        precision = |A & B| / |A|, recall = |A & B| / |B|, f1 = 2 |A & B| / (|A| + |B|), jaccard = |A & B| / |A | B|
        kappa     = (observed - chance) / (1 - chance)                                                  (Cohen 1960)
        observed  = (|A & B| + N - |A | B|) / N, chance = (|A| |B| + (N - |A|) (N - |B|)) / N^2

    A quotient with denominator 0 is 1 when |A| = |B| and 0 otherwise. The intervals resample whole groups, because the
    answers about one person or document resemble each other. From fewer than about twenty groups they are too narrow,
    as percentile intervals of few values are.
    groups: sample_id -> group; None makes every sample a group of its own. draws, seed: of the bootstrap.
    Raises UserError unless both tables cover the same words of the same samples, in any order, and each has a group.
    """
    return _agreement(_bootstrap(_counts(a, b, groups), draws, seed))


def agreement_difference(
    a: Spans, b: Spans, reference: Spans, groups: Mapping[str, str] | None = None, draws: int = 2000, seed: int = 0
) -> Agreement:
    """Agreement of `a` with `reference` minus that of `b`; both are counted on the same resamples (paired).

    `a` is the better one in, say, F1 when that interval lies above 0. Arguments and errors: see `agreement`.
    """
    first, second = (_bootstrap(_counts(table, reference, groups), draws, seed) for table in (a, b))
    return _agreement(first - second)


def _counts(a: Spans, b: Spans, groups: Mapping[str, str] | None) -> np.ndarray:
    """|A & B|, |A|, |B| and N of every group, on characters and on words [groups, 2, 4]."""
    first, second = _sorted(a), _sorted(b)
    for row, other in zip_longest(first, second):
        if row is None or other is None or any(row[key] != other[key] for key in ("sample_id", "start", "end", "text")):
            shown = " and ".join(
                f"{some['sample_id']} [{some['start']}, {some['end']}) {some['text']!r}" if some else "nothing more"
                for some in (row, other)
            )
            raise UserError(f"agreement: the two spans tables do not cover the same words: {shown} stand in one place")
    names = [row["sample_id"] for row in first]
    if groups is not None:
        lacking = next((name for name in names if name not in groups), None)
        if lacking is not None:
            raise UserError(f"agreement: sample {lacking} has no group")
        names = [groups[name] for name in names]
    index = {name: number for number, name in enumerate(dict.fromkeys(names))}
    letters = np.array([sum(map(str.isalnum, row["text"])) for row in first], dtype=np.int64)
    in_a, in_b = (np.array([row["unwanted"] for row in rows], dtype=np.int64) for rows in (first, second))
    units = np.stack([letters, letters > 0], axis=1)
    member = np.stack([in_a * in_b, in_a, in_b, np.ones_like(in_a)], axis=1)
    counts = np.zeros((len(index), 2, 4), dtype=np.int64)
    np.add.at(counts, [index[name] for name in names], units[:, :, None] * member[:, None, :])
    return counts


def _sorted(spans: Spans) -> list[dict]:
    rows = spans.to_pylist() if isinstance(spans, pa.Table) else spans
    return sorted(rows, key=lambda row: (row["sample_id"], row["start"], row["end"]))


def _bootstrap(counts: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """The five scores of all groups, and below them of every resample [1 + draws, 2, 5]."""
    totals = [counts.sum(axis=0, keepdims=True)]
    generator = np.random.default_rng(seed)
    for begin in range(0, draws, 100):  # in portions, because thousands of groups times all draws fill the memory
        number = min(100, draws - begin)
        often = generator.multinomial(len(counts), [1 / len(counts)] * len(counts), size=number) if len(counts) else 0
        totals.append(np.tensordot(often, counts, axes=1) if len(counts) else np.zeros((number, 2, 4), dtype=np.int64))
    return _scores(np.concatenate(totals))


def _scores(counts: np.ndarray) -> np.ndarray:
    """precision, recall, f1, jaccard, kappa [..., 5] of |A & B|, |A|, |B|, N [..., 4]."""
    both, a, b, n = np.moveaxis(counts, -1, 0)
    chance = a * b + (n - a) * (n - b)
    agreed = n - a - b + 2 * both
    quotients = [(both, a), (both, b), (2 * both, a + b), (both, a + b - both), (n * agreed - chance, n * n - chance)]
    return np.stack(
        [np.divide(over, under, out=(a == b).astype(float), where=under != 0) for over, under in quotients], axis=-1
    )


def _agreement(scores: np.ndarray) -> Agreement:
    low, high = np.quantile(scores[1:], [0.025, 0.975], axis=0)
    numbers = np.stack([scores[0], low, high], axis=-1).tolist()
    return Agreement(*(Scores(*(Estimate(*some) for some in unit)) for unit in numbers))
