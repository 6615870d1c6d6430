"""The identifiers that need no rule: the benchmark's own spans, and every word."""

import pytest

from tif.base.errors import UserError
from tif.identify import Resources, gold
from tif.identify import all as every
from tif.words import words


def test_gold_marks_the_words_that_a_span_touches(samples):
    forget = samples(("Born where?", "She was born in New York."), ("Who?", "Nobody."), gold=[[(16, 24)], []])
    found = gold.identify(forget, forget, gold.Settings(), Resources())
    rows = found.rows
    assert [row["text"] for row in rows if row["unwanted"]] == ["New", "York"]
    assert [row["score"] for row in rows] == [float(row["unwanted"]) for row in rows]
    assert rows[0] == {
        "sample_id": "forget/0000", "start": 0, "end": 3, "text": "She", "unwanted": False, "score": 0.0
    }  # fmt: skip
    assert [row["text"] for row in rows if row["sample_id"] == "forget/0001"] == ["Nobody", "."]
    assert found.metadata == {"version": "1"}


def test_gold_counts_a_word_cut_by_a_span(samples):
    forget = samples(("?", "Nineteenth century"), gold=[[(4, 5)]])
    rows = gold.identify(forget, forget, gold.Settings(), Resources()).rows
    assert [row["unwanted"] for row in rows] == [True, False]


def test_gold_without_spans_names_the_alternatives(samples):
    forget = samples(("?", "Yes."), ("?", "No."), gold=[[(0, 3)], None])
    with pytest.raises(UserError, match=r"forget/0001 has no gold spans.*frequency, file or all"):
        gold.identify(forget, forget, gold.Settings(), Resources())


def test_all_marks_every_word_and_punctuation(samples):
    forget = samples(("?", "Yes, 1,250 of them!"), ("?", "作家。"))
    rows = every.identify(forget, forget, every.Settings(), Resources()).rows
    assert [row["text"] for row in rows] == ["Yes", ",", "1,250", "of", "them", "!", "作", "家", "。"]
    assert all(row["unwanted"] and row["score"] == 1.0 for row in rows)
    assert len(rows) == sum(len(words(text)) for text in forget.column("response").to_pylist())
