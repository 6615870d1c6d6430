"""Everything that can be wrong with what the report reads: one message, and nothing written."""

from pathlib import Path

import hand_evaluated as hand
import pytest
from html_page import written

from tif.base import tables
from tif.base.errors import UserError
from tif.benchmarks import SAMPLES
from tif.evaluation import TEXTS
from tif.metrics import MEASURES
from tif.report.build import build
from tif.words import SPANS


def without(rows, **match):
    return [row for row in rows if any(row[key] != value for key, value in match.items())]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda rows: without(rows, model="retain", measure="rouge"),
            "'rouge' of the retain model lacks sample forget/0",
        ),
        (
            lambda rows: without(rows, model="target", sample_id="forget/0002"),
            "'probability' .* lacks sample forget/0002",
        ),
        (lambda rows: rows[:0], "'probability' of the target model lacks sample forget/0000 .4 differ"),
    ],
)
def test_bad_measures(root, change, message):
    path = root / "data/measures.parquet"
    tables.write(path, change(tables.read(path, MEASURES).to_pylist()), MEASURES)
    before = written(root)
    with pytest.raises(UserError, match=rf"measures\.parquet: measure {message}.*dvc repro -f measure"):
        build(root)
    assert written(root) == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows[1:], "lacks sample forget/0000"),
        (lambda rows: [*rows, {"sample_id": "forget/0004", "text": ""}], "has an unknown sample forget/0004"),
    ],
)
def test_bad_texts(root, change, message):
    tables.write(root / "data/evaluation/unlearned/texts.parquet", change(hand.texts("unlearned")), TEXTS)
    with pytest.raises(UserError, match=rf"unlearned/texts\.parquet {message}.*dvc repro -f evaluate@unlearned"):
        build(root)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "is missing; `dvc repro` makes it"),
        ("epoch,forget_quality_log10,forget_probability,retain_probability\n", "holds no rows; .*dvc repro -f measure"),
        ("epoch,forget_probability\n0,0.5\n", "is damaged; run `dvc repro -f measure`"),
        ("epoch,forget_quality_log10,forget_probability,retain_probability\n0,x,1,1\n", "is damaged"),
        ("epoch,forget_quality_log10,forget_probability,retain_probability\n0,1\n", "is damaged"),
    ],
)
def test_bad_trajectory(root, content, message):
    path = root / "metrics/plots/trajectory.csv"
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(UserError, match=rf"trajectory\.csv {message}"):
        build(root)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: without(rows, sample_id="forget/0001"), "is not the next word"),
        (lambda rows: [*rows, {**rows[0], "sample_id": "forget/0009"}], "forget/0009 is not a sample"),
        (lambda rows: [{**rows[0], "text": "Eva"}, *rows[1:]], r"forget/0000: \[0, 3\) 'Eva' is not the next word"),
        (lambda rows: [{**rows[0], "end": 999}, *rows[1:]], "lies outside the answer"),
        (lambda rows: [rows[0], *rows], "is not the next word"),
    ],
)
def test_bad_spans(root, change, message):
    tables.write(root / "data/spans.parquet", change(hand.spans()), SPANS)
    with pytest.raises(UserError, match=rf"spans\.parquet.*dvc repro -f identify.*{message}"):
        build(root)


NAMES = ["data/benchmark/card.json", "metrics/identify.json", "metrics/details.json"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("content", "message"), [(None, "missing"), ("{", "not JSON"), ("[]", "JSON object")])
def test_bad_json(root, name, content, message):
    (root / name).unlink() if content is None else (root / name).write_text(content)
    before = written(root)
    with pytest.raises(UserError, match=f"{Path(name).name}.*{message}"):
        build(root)
    assert written(root) == before


def test_json_of_another_form(root):
    (root / "metrics/details.json").write_text('{"target": {}, "retain": {}, "about": {}}')
    with pytest.raises(UserError, match="does not have all of target, retain, unlearned; run `dvc repro -f measure`"):
        build(root)
    (root / "data/benchmark/card.json").write_text('{"name": "tiny", "sets": {"forget": {"role": "forget"}}}')
    with pytest.raises(UserError, match="does not say what the sets of the benchmark are; run `dvc repro download`"):
        build(root)


def test_empty_forget_table(root):
    tables.write(root / "data/benchmark/forget.parquet", [], SAMPLES)
    with pytest.raises(UserError, match=r"forget\.parquet holds no rows"):
        build(root)
