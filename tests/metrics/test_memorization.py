"""Extraction strength and exact memorisation, by hand and by a search."""

import numpy as np
import pytest

from tif import metrics


@pytest.mark.parametrize(
    ("correct", "strength", "memorized"),
    [
        ([1, 1, 1, 1], 1.0, 1.0),
        ([0, 0, 0, 0], 0.0, 0.0),
        ([1, 1, 1, 0], 0.0, 0.75),  # the last one is wrong: no suffix is right
        ([0, 1, 1, 1], 0.75, 0.75),
        ([1, 0, 1, 1], 0.5, 0.75),
        ([1], 1.0, 1.0),
        ([0], 0.0, 0.0),
    ],
)
def test_extraction_strength_and_exact_memorization(correct, strength, memorized):
    assert metrics.extraction_strength(np.array(correct, dtype=bool)) == strength
    assert metrics.exact_memorization(np.array(correct, dtype=bool)) == memorized


def test_extraction_strength_equals_a_search_for_the_shortest_prefix():
    rng = np.random.default_rng(1)
    for _ in range(200):
        hits = rng.random(rng.integers(1, 8)) < 0.7
        k = next(k for k in range(len(hits) + 1) if hits[k:].all())
        assert metrics.extraction_strength(hits) == 1 - k / len(hits)


def test_hits_of_nothing_are_refused():
    for metric in (metrics.extraction_strength, metrics.exact_memorization):
        with pytest.raises(ValueError, match="at least one"):
            metric([])
