"""The stage identify as a process, and its summary by hand."""

import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tif.base import tables
from tif.base.errors import UserError
from tif.benchmarks import SAMPLES
from tif.words import check_rows

STAGE = Path(__file__).parents[2] / "stages" / "identify.py"


@pytest.fixture
def stage(tmp_path, samples):
    """Run the stage in a folder with one forget and two retain samples; returns the process."""

    def run(method: str, gold=((0, 4),), **blocks):
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
        return subprocess.run([sys.executable, STAGE], cwd=tmp_path, capture_output=True, text=True)

    return run


def test_outputs(stage, tmp_path):
    done = stage("frequency")
    assert (done.returncode, done.stderr) == (0, "")
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
        assert stage(method).returncode == 0
        contents.append([(tmp_path / name).read_bytes() for name in ("data/spans.parquet", "metrics/identify.json")])
    assert contents[0] == contents[1]


def test_without_gold_spans_there_is_no_agreement(stage, tmp_path):
    assert stage("all", gold=None).returncode == 0
    summary = json.loads((tmp_path / "metrics/identify.json").read_text())
    assert summary["agreement"] is None and summary["unwanted_share"] == 1.0


@pytest.mark.parametrize(
    ("method", "spans", "without", "only"), [("gold", [], 1, 0), ("gold", [(10, 11)], 0, 1), ("all", [], 0, 0)]
)
def test_rows_that_the_summary_counts(stage, tmp_path, method, spans, without, only):
    assert stage(method, gold=spans).returncode == 0
    summary = json.loads((tmp_path / "metrics/identify.json").read_text())
    assert (summary["rows_without_unwanted"], summary["rows_only_punctuation"]) == (without, only)


@pytest.mark.parametrize(
    ("method", "blocks", "message"),
    [
        ("frequncy", {}, "identify.method = 'frequncy' is unknown; did you mean 'frequency'?"),
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
    done = stage(method, gold=None, **blocks)
    assert done.returncode == 1 and message in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "data/spans.parquet").exists() and not (tmp_path / "metrics").exists()


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
