"""What `tif.agreement.lint` finds, one kind at a time, in tables as broken as they come."""

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tif.agreement.lint import KINDS, Finding, lint
from tif.identify.annotations import read_json_lines
from tif.words import SPANS, span_rows

REAL = Path(__file__).parents[2].parent / "shared" / "tofu"
TEXTS = {"forget/0000": "Ann wrote Sea.", "forget/0001": "Yes, 30."}


def span(start, end, sample_id="forget/0000", **columns) -> dict:
    return {"sample_id": sample_id, "start": start, "end": end, **columns}


REST = span(0, 3, "forget/0001")  # "Yes": keeps the second sample free of findings


@pytest.mark.parametrize(
    ("rows", "kind", "what"),
    [
        ([span(0, 3), span(0, 3, "forget/0007", text="Ann")], "unknown_sample", "[0, 3) 'Ann' belongs to no answer"),
        ([span(0, 3), span(0, 3, None)], "unknown_sample", "[0, 3) belongs to no answer"),
        ([span(0, 3), span(10, 15)], "outside", "[10, 15) is no part of the answer of 14 characters"),
        ([span(0, 3), span(-4, 3)], "outside", "[-4, 3) is no part"),
        ([span(0, 3), span(9, 4)], "outside", "[9, 4) is no part"),
        ([span(0, 3), span(5, 5)], "outside", "[5, 5) is no part"),
        ([span(0, 3), span(None, 5, text="wrote")], "outside", "[None, 5) 'wrote' is no part"),
        ([span(0, 3), span(4, 9, text="wrotes")], "other_text", "[4, 9) 'wrotes' stands where the answer has 'wrote'"),
        ([span(0, 3), span(4, 7, text="wro")], "cuts_word", "[4, 7) 'wro' cuts a word"),
        ([span(1, 3)], "cuts_word", "[1, 3) cuts a word"),
        ([span(0, 3), span(0, 9)], "overlap", "[0, 9) begins before [..., 3) ends"),
        ([span(0, 9), span(0, 3, unwanted=False)], "overlap", "[0, 9) begins before"),
        ([span(0, 9), span(0, 9)], "overlap", "[0, 9) begins before [..., 9) ends"),
        ([], "without_unwanted", "no word is unwanted"),
        ([span(0, 3, unwanted=False)], "without_unwanted", "no word is unwanted"),
        ([span(3, 4)], "without_unwanted", "no word is unwanted"),  # a space
        ([span(13, 14)], "only_punctuation", "only '.' is unwanted"),
    ],
)
def test_one_finding_of_each_kind(rows, kind, what):
    (found,) = [some for some in lint([*rows, REST], TEXTS) if some.kind != "share_outlier"]
    assert found.kind == kind and what in found.what
    expected = "forget/0000" if kind != "unknown_sample" else str(rows[-1]["sample_id"])
    assert found.sample_id == expected
    assert kind in KINDS


def test_a_good_table_has_none():
    rows = [row for sample_id, text in TEXTS.items() for row in span_rows(sample_id, text, [(0, 3)])]
    assert lint(rows, TEXTS) == []
    assert lint(pa.Table.from_pylist(rows, schema=SPANS), TEXTS) == []
    assert lint([], {}) == []


def test_offsets_may_be_any_integers():
    rows = [span(np.int64(0), np.int32(3)), REST]
    assert lint(rows, TEXTS) == []


def test_touching_spans_and_spans_over_several_words_are_fine():
    assert lint([span(4, 9), span(0, 3), span(9, 13), REST], TEXTS) == []


def test_findings_follow_the_samples():
    rows = [span(5, 6, "forget/0001"), span(1, 2, "forget/0001"), span(1, 3), span(0, 1, "other")]
    assert [(some.sample_id, some.kind) for some in lint(rows, TEXTS)] == [
        ("other", "unknown_sample"),
        ("forget/0000", "cuts_word"),
        ("forget/0001", "cuts_word"),
        ("forget/0001", "cuts_word"),
    ]


def shares(*marked: int) -> list[Finding]:
    """Samples of one word of 20 letters, of which so many are unwanted."""
    texts = {f"forget/{number:04d}": "a" * 20 for number in range(len(marked))}
    rows = [span(0, end, sample_id) for sample_id, end in zip(texts, marked, strict=True) if end]
    return [some for some in lint(rows, texts) if some.kind == "share_outlier"]


def test_share_outliers_by_hand():
    # Shares .20 .25 .30 .35 .40 and x: the limit is 3.5 / .6745 = 5.19 times the median distance from the median.
    # x = .80: median .325, distances .025 .025 .075 .075 .125 .475, MAD .075; .475 / .075 = 6.33 is beyond.
    assert shares(4, 5, 6, 7, 8, 16) == [
        Finding("share_outlier", "forget/0005", "0.800 of the characters are unwanted, the median is 0.325")
    ]
    # x = .70: .375 / .075 = 5 is within.
    assert shares(4, 5, 6, 7, 8, 14) == []


def test_share_outliers_on_both_sides_and_without_spread():
    # MAD 0, so the floor .02 holds: beyond .104 from the median.
    assert [some.sample_id for some in shares(10, 10, 10, 10, 1, 20, 12)] == ["forget/0004", "forget/0005"]
    assert shares(20, 20, 20) == []


def test_samples_without_unwanted_words_are_no_outliers():
    found = shares(10, 10, 10, 0, 0, 0, 0)
    assert found == []


@pytest.mark.slow
@pytest.mark.parametrize(("forget", "without"), [("forget05", 4), ("forget10", 12)])
def test_published_spans(forget, without):
    if not REAL.is_dir():
        pytest.skip(f"the real TOFU files are not at {REAL}")
    path = REAL / f"{forget}_words_gpt.jsonl"
    annotation = read_json_lines(path, "target_words")
    texts = {f"forget/{number:04d}": answer for number, (_, answer) in enumerate(annotation)}
    rows = [
        span(start, end, sample_id)
        for sample_id, spans in zip(texts, annotation.values(), strict=True)
        for start, end in spans
    ]
    kinds = Counter(some.kind for some in lint(rows, texts))
    assert kinds["without_unwanted"] == without
    assert not {"unknown_sample", "outside"} & set(kinds)
