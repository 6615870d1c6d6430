"""Which measures there are, and what adding one takes."""

import hand_evaluated as hand
import numpy as np
import pytest

from tif import metrics
from tif.base.errors import UserError
from tif.benchmarks import Set
from tif.metrics import known_measures
from tif.metrics.measure import details, measure

FILE = """
import numpy as np

from tif.metrics import Measure, mean

FAMILY = (
    Measure(
        name="first_hit",
        title="First word",
        sets=("forget",),
        values=lambda scored: np.array([hits[0] for hits in scored.hits]),
        aggregate=mean,
        better="higher",
        says="Share of the answers whose first token is the model's first choice.",
    ),
)
"""


def test_those_there_are():
    assert set(known_measures()) == {
        "exact_memorization", "extraction_strength", "normalized_probability", "probability", "rouge", "truth_ratio"
    }  # fmt: skip
    for name, one in known_measures().items():
        assert one.name == name and one.title and one.says.endswith(".")
        assert set(one.sets) <= {"forget", "retain", "holdout", "utility"}
    assert known_measures()["probability"].aggregate(np.array([0.25, 0.75]), "forget") == 0.5


def test_a_file_in_the_package_is_enough(root, tmp_path, monkeypatch):
    folder = tmp_path / "more"
    folder.mkdir()
    (folder / "first.py").write_text(FILE)
    one = Set("forget", "Forget set", ("response",), False, ("first_hit",))
    hand.write_card(root, {"forget": one})
    with pytest.raises(UserError, match="asks for the measure 'first_hit'; known: exact_memorization, "):
        measure(root / "data/benchmark", root / "data/evaluation")
    monkeypatch.setattr(metrics, "__path__", [*metrics.__path__, str(folder)])
    monkeypatch.delitem(__import__("sys").modules, "tif.metrics.first", raising=False)
    found = details(measure(root / "data/benchmark", root / "data/evaluation"))
    assert found["target"] == {"forget": {"first_hit": 0.5}, "utility": {}}
    hand.write_card(root, {"forget": one, "retain": Set("retain", "Retain set", ("response",), False, ("first_hit",))})
    with pytest.raises(UserError, match="the retain set cannot have the measure 'first_hit'"):
        measure(root / "data/benchmark", root / "data/evaluation")


def test_functions_by_one_name_whatever_file_they_are_in():
    names = ["truth_ratio", "forget_quality", "model_utility", "extraction_strength", "exact_memorization"]
    assert all(callable(getattr(metrics, name)) for name in names)
    with pytest.raises(AttributeError, match="no attribute 'truth_ration'"):
        _ = metrics.truth_ration
