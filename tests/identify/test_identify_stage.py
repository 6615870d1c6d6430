"""The stage identify, and its summary by hand."""

import json
import subprocess
import sys

import pyarrow.parquet as pq
import pytest
from in_process import STAGES, run_stage

from tif.base import tables
from tif.base.errors import UserError
from tif.benchmarks import SAMPLES
from tif.identify.summary import responses, summary
from tif.words import check_rows


@pytest.fixture
def stage(tmp_path, samples):
    """Run the stage in a folder with one forget and two retain samples."""

    def run(method: str, *arguments: str, gold=((0, 4),), **blocks) -> None:
        blocks = {
            "identify": {"method": method, "source": "data/none"},
            "frequency": {"threshold": 0.5},
            "gold": {},
            "all": {},
            "compute": {"device": "cpu", "threads": 1},
            "runtime": {"progress": False},
            "file": {"unwanted": "target_words", "punctuation": False},
            **blocks,
        }
        # JSON is YAML, so the blocks need no writer of their own.
        (tmp_path / "params.yaml").write_text(json.dumps(blocks))
        spans = None if gold is None else [list(gold)]
        tables.write(tmp_path / "data/benchmark/forget.parquet", samples(("Who?", "Anna is 30."), gold=spans), SAMPLES)
        retain = samples(("Who?", "Bert is."), ("Who?", "Eve is."))
        tables.write(tmp_path / "data/benchmark/retain.parquet", retain, SAMPLES)
        (tmp_path / "data/none").touch()
        run_stage("identify", tmp_path, *arguments)

    return run


def test_outputs(stage, tmp_path, capsys):
    stage("frequency")
    assert capsys.readouterr() == ("", "")
    spans = pq.read_table(tmp_path / "data/spans.parquet")
    found = [(row["text"], row["unwanted"], row["score"]) for row in spans.to_pylist()]
    assert found == [("Anna", True, 1.0), ("is", False, 0.0), ("30", True, 1.0), (".", False, 0.0)]
    assert spans.schema.metadata == {b"identifier": b"frequency", b"version": b"1", b"settings": b'{"threshold": 0.5}'}
    # Unwanted: "Anna" and "30" of the 9 characters "Annais30."; gold: "Anna"; so 4 of 6, and 4 of 4. Of 8 letters and
    # digits 6 agree; by chance (6 * 4 + 2 * 4) / 64 = 1/2, so kappa is (3/4 - 1/2) / (1 - 1/2). One group: no spread.
    assert json.loads((tmp_path / "metrics/identify.json").read_text()) == {
        "method": "frequency",
        "rows": 1,
        "words": 4,
        "unwanted_share": 0.666667,
        "rows_without_unwanted": 0,
        "rows_only_punctuation": 0,
        "rows_unusual_share": 0,
        "agreement": {
            "precision": 0.666667,
            "recall": 1.0,
            "f1": 0.8,
            "jaccard": 0.666667,
            "kappa": 0.5,
            "f1_low": 0.8,
            "f1_high": 0.8,
        },
    }


@pytest.mark.parametrize("method", ["gold", "all"])
def test_the_same_bytes_again(stage, tmp_path, method):
    contents = []
    for _ in range(2):
        stage(method)
        contents.append([(tmp_path / name).read_bytes() for name in ("data/spans.parquet", "metrics/identify.json")])
    assert contents[0] == contents[1]


def test_without_gold_spans_there_is_no_agreement(stage, tmp_path):
    stage("all", gold=None)
    summary = json.loads((tmp_path / "metrics/identify.json").read_text())
    assert summary["agreement"] is None and summary["unwanted_share"] == 1.0


@pytest.mark.parametrize(
    ("method", "spans", "without", "only"), [("gold", [], 1, 0), ("gold", [(10, 11)], 0, 1), ("all", [], 0, 0)]
)
def test_rows_that_the_summary_counts(stage, tmp_path, method, spans, without, only):
    stage(method, gold=spans)
    summary = json.loads((tmp_path / "metrics/identify.json").read_text())
    assert (summary["rows_without_unwanted"], summary["rows_only_punctuation"]) == (without, only)


@pytest.mark.parametrize(
    ("method", "blocks", "message"),
    [
        ("frequncy", {}, "identify.method = 'frequncy' is unknown; did you mean 'frequency'?; known: all, distilled, "),
        ("gold", {}, "forget/0000 has no gold spans"),
        ("file", {}, "set identify.source to a file"),
        (
            "file",
            {"identify": {"method": "file", "source": "words.jsonl"}},
            "identify.source = 'words.jsonl': nothing is",
        ),
        ("frequency", {"frequency": {"treshold": 0.5}}, "unknown key frequency.treshold; did you mean 'threshold'?"),
    ],
)
def test_bad_input_leaves_no_output(stage, tmp_path, method, blocks, message):
    with pytest.raises(UserError) as error:
        stage(method, gold=None, **blocks)
    assert message in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "data/spans.parquet").exists() and not (tmp_path / "metrics").exists()
    if method == "gold":  # the same as a process
        done = subprocess.run([sys.executable, STAGES / "identify.py"], cwd=tmp_path, capture_output=True, text=True)
        assert (done.returncode, done.stdout, done.stderr) == (1, "", f"error: {error.value}\n")


def test_only_the_paid_identifier_has_an_estimate(stage, tmp_path):
    with pytest.raises(UserError, match="= frequency costs nothing; only openai has a price"):
        stage("frequency", "--estimate")
    assert not (tmp_path / "data/spans.parquet").exists()


def test_agreement_is_of_the_rows_that_the_identifier_did_not_learn_from(samples):
    """One of two is copied: what it says of the other counts, and without any other there is no agreement."""
    forget = samples(("?", "Anna is 30."), ("?", "Bert."), gold=[[(0, 4)], [(0, 4)]])
    rows = [
        {"sample_id": key, "start": a, "end": b, "text": text, "unwanted": flag, "score": float(flag)}
        for key, text, a, b, flag in [
            ("forget/0000", "Anna", 0, 4, True),
            ("forget/0000", "is", 5, 7, True),
            ("forget/0000", "30", 8, 10, False),
            ("forget/0000", ".", 10, 11, False),
            ("forget/0001", "Bert", 0, 4, False),
            ("forget/0001", ".", 4, 5, False),
        ]
    ]
    copied = frozenset({"forget/0001"})
    found = summary(forget, rows, copied)
    # "Anna" of "Annais" is right: 4 of 6 characters, and 4 of 4
    assert (found["agreement"]["precision"], found["agreement"]["recall"]) == (0.666667, 1.0)
    assert (found["rows"], found["words"], found["rows_without_unwanted"]) == (2, 6, 1)
    assert found["unwanted_share"] == round(6 / 14, 6)
    assert summary(forget, rows, frozenset(responses(forget)))["agreement"] is None


GOOD = [
    {"sample_id": "forget/0000", "start": 0, "end": 3, "text": "One", "unwanted": True, "score": 1.0},
    {"sample_id": "forget/0000", "start": 4, "end": 7, "text": "two", "unwanted": False, "score": 0.0},
]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([GOOD[0]], "the word [4, 7) of forget/0000 has no row"),
        ([*GOOD, GOOD[1]], "is not the next word"),
        ([GOOD[1], GOOD[0]], "is not the next word"),
        ([GOOD[0], {**GOOD[1], "end": 8}], "[4, 8) lies outside the answer of 7 characters"),
        ([GOOD[0], {**GOOD[1], "start": -3}], "lies outside the answer"),
        ([GOOD[0], {**GOOD[1], "text": "too"}], "'too' is not the next word"),
        ([GOOD[0], {**GOOD[1], "sample_id": "forget/0009"}], "forget/0009 is not a sample of the forget set"),
        ([{**GOOD[0], "score": 1.5}, GOOD[1]], "score 1.5, which is not in [0, 1]"),
        ([{**GOOD[0], "score": float("nan")}, GOOD[1]], "score nan"),
    ],
)
def test_rows_are_checked_before_they_are_written(rows, message):
    check_rows(GOOD, {"forget/0000": "One two"}, "here")
    with pytest.raises(UserError) as error:
        check_rows(rows, {"forget/0000": "One two"}, "here")
    assert message in str(error.value) and str(error.value).startswith("here: ")
