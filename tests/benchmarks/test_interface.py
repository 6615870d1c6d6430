"""What every benchmark says of its sets, and how the card carries it."""

import json
from pathlib import Path

import pytest

from tif.base.errors import UserError
from tif.base.params import choose, known_names
from tif.benchmarks import Set, describe, place, questions, read_card, unseen, without
from tif.metrics import known_measures
from tif.metrics.measure import check


@pytest.mark.parametrize("name", known_names("benchmarks"))
def test_every_benchmark_has_sets_with_measures_that_they_can_have(name):
    module = choose("benchmarks", name, "benchmark.name")
    assert module.FORM in ("question", "document")
    assert {"forget", "retain"} <= module.SETS.keys()
    known = known_measures()
    for key, about in module.SETS.items():
        check(key, about, known, Path("data/benchmark"))
        assert about.title and about.measures and "response" in about.answers
        assert (key == about.role) or about.role == "utility"
        assert len(set(about.utility)) in (0, 3) and set(about.utility) <= set(about.measures)


def test_sets_come_back_from_the_card(tmp_path):
    sets = {
        "forget": questions("forget", "Forget set"),
        "holdout": unseen("Holdout set"),
        "books": Set("utility", "Books", ("response", "wrong"), False, ("probability",), ("probability",)),
    }
    (tmp_path / "card.json").write_text(json.dumps({"name": "x", "sets": describe(sets)}))
    card, found = read_card(tmp_path)
    assert found == sets and card["name"] == "x"


def test_where_tables_lie():
    assert place(Path("b"), "forget", "forget") == Path("b/forget.parquet")
    assert place(Path("b"), "holdout", "holdout") == Path("b/holdout.parquet")
    assert place(Path("b"), "books", "utility") == Path("b/utility/books.parquet")


def test_utility_sets_take_the_share_of_the_true_answer_as_tofu_does():
    assert questions("retain", "R").utility == ("probability", "rouge", "truth_ratio")
    assert questions("utility", "U").utility == ("normalized_probability", "rouge", "truth_ratio")
    assert questions("forget", "F").utility == ()
    assert "normalized_probability" not in questions("retain", "R").measures


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{}", "does not say what the sets of the benchmark are; run `dvc repro download`"),
        ('{"sets": []}', "does not say what the sets"),
        ('{"sets": {"forget": {"role": "forget"}}}', "does not say what the sets"),
        ('{"sets": {"forget": {"rule": "forget"}}}', "does not say what the sets"),
        ("{", "is not JSON"),
        (None, "is missing; `dvc repro` makes it"),
    ],
)
def test_a_damaged_card(tmp_path, content, message):
    if content is not None:
        (tmp_path / "card.json").write_text(content)
    with pytest.raises(UserError, match=rf"card\.json {message}"):
        read_card(tmp_path)


def test_without_compares_question_and_answer(table):
    """Of two rows with one question only that with the same answer goes, and all equal ones do."""
    whole = table("full", [("q", "a."), ("q", "b."), ("p", "a."), ("q", "a.")])
    left = without(whole, table("forget", [("q", "a."), ("x", "y.")]))
    assert left["sample_id"].to_pylist() == ["full/0001", "full/0002"]
    assert without(whole, whole.slice(0, 0)).equals(whole)
