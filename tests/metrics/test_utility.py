"""Model utility, by hand."""

import math

import pytest

from tif import metrics
from tif.metrics.utility import MEASURES

SETS = ("retain", "real_authors", "world_facts")


def utility_parts(value=0.5):
    return {name: dict.fromkeys(MEASURES, value) for name in SETS}


def test_model_utility_by_hand():
    parts = utility_parts(0.5)
    parts["world_facts"]["rouge"] = 0.25
    # 9 / (8 * 2 + 4)
    assert metrics.model_utility(parts) == pytest.approx(9 / 20)


def test_model_utility_is_of_whatever_sets_there_are():
    # 3 / (1/.5 + 1/.25 + 1/1) = 3/7, and with six parts of 1/2 more 9 / (7 + 12)
    one = {"probability": 0.5, "rouge": 0.25, "truth_ratio": 1.0}
    assert metrics.model_utility({"books": one}) == pytest.approx(3 / 7)
    others = {name: dict.fromkeys(MEASURES, 0.5) for name in ("news", "code")}
    assert metrics.model_utility({**others, "books": one}) == pytest.approx(9 / 19)


def test_model_utility_is_zero_when_any_part_is():
    for name in SETS:
        for measure in MEASURES:
            parts = utility_parts(1.0)
            parts[name][measure] = 0.0
            assert metrics.model_utility(parts) == 0.0


def test_model_utility_refuses():
    with pytest.raises(ValueError, match="at least one set"):
        metrics.model_utility({})
    missing = utility_parts()
    del missing["real_authors"]["rouge"]
    with pytest.raises(ValueError, match="real_authors: expected exactly probability, rouge, truth_ratio, found prob"):
        metrics.model_utility(missing)
    extra = utility_parts()
    extra["retain"]["f1"] = 0.5
    with pytest.raises(ValueError, match=r"retain: expected exactly .* truth_ratio, f1"):
        metrics.model_utility(extra)
    for value in (-0.1, 1.1, math.nan, None, "1"):
        wrong = utility_parts()
        wrong["retain"]["rouge"] = value
        with pytest.raises(ValueError, match=r"retain\.rouge"):
            metrics.model_utility(wrong)
