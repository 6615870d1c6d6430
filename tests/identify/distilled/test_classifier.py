"""The classifier of words: equal to scikit-learn's own, the same through JSON, and a threshold by hand."""

import json

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier

from tif.identify.distilled.classifier import Classifier, Recipe, best_threshold, fit, held_out

RECIPE = Recipe(trees=12, learning_rate=0.2, leaves=6, seed=3)


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((600, 12)).round(3)
    return x, x[:, 2] + x[:, 5] * (x[:, 7] > 0) + 0.5 * rng.standard_normal(600) > 0


def test_equal_to_scikit_learn(data, monkeypatch):
    kept = []
    original = HistGradientBoostingClassifier.fit
    monkeypatch.setattr(HistGradientBoostingClassifier, "fit", lambda self, *a: kept.append(self) or original(self, *a))
    found = fit(*data, RECIPE).probability(data[0])
    assert found == pytest.approx(kept[0].predict_proba(data[0])[:, 1], abs=1e-12)
    assert ((found > 0.5) == data[1]).mean() > 0.85


def test_the_same_trees_again_through_json(data):
    first = fit(*data, RECIPE)
    assert fit(*data, RECIPE) == first
    again = Classifier.from_json(json.loads(json.dumps(first.to_json())), 12)
    assert (again.probability(data[0]) == first.probability(data[0])).all()
    assert fit(*data, Recipe(12, 0.2, 6, seed=4)) != first


def test_held_out_never_sees_its_own_fold(data):
    x, unwanted = data
    fold = np.arange(600) % 3
    found = held_out(x, unwanted, fold, RECIPE)
    for number in range(3):
        test = fold == number
        expected = fit(x[~test], unwanted[~test], RECIPE).probability(x[test])
        assert (found[test] == expected).all()


def test_one_kind_only(data):
    with pytest.raises(ValueError, match="one kind"):
        fit(data[0], np.ones(600, dtype=bool), RECIPE)


def test_best_threshold_by_hand():
    probability = np.array([0.9, 0.6, 0.5, 0.1])
    unwanted = np.array([True, False, True, False])
    # Above .5, only the first two: TP 4, FP 1, FN 2 -> 8/11. Above .1: all but the last: TP 6, FP 1 -> 12/13.
    # Above .6, the first: TP 4, FN 2 -> 8/10. So the best begins at .1.
    assert best_threshold(probability, unwanted, np.array([4, 1, 2, 9])) == (0.1, pytest.approx(12 / 13))
    # With a heavy second word it pays to cut it off: TP 4, FN 2 -> .8 against 12/32.
    assert best_threshold(probability, unwanted, np.array([4, 20, 2, 9])) == (0.6, pytest.approx(0.8))
