"""Tables: read back what was written, byte for byte the same, checked, and never half-written."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tif.base import tables
from tif.base.errors import UserError
from tif.benchmarks import SAMPLES
from tif.evaluation import TEXTS, TOKENS
from tif.metrics import MEASURES
from tif.reference import REFERENCE
from tif.unlearning import TOKEN_WEIGHTS, TRAJECTORY
from tif.words import SPANS

ROWS = [
    {"sample_id": "forget/0000", "start": 0, "end": 3, "text": "她是谁", "unwanted": True, "score": 0.5},
    {"sample_id": "forget/0000", "start": 4, "end": 5, "text": ".", "unwanted": False, "score": 0.0},
]
SCHEMAS = {
    "samples": SAMPLES,
    "spans": SPANS,
    "reference": REFERENCE,
    "trajectory": TRAJECTORY,
    "token weights": TOKEN_WEIGHTS,
    "tokens": TOKENS,
    "texts": TEXTS,
    "measures": MEASURES,
}


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_column_has_a_meaning_and_every_table_a_key(name):
    schema = SCHEMAS[name]
    assert "sample_id" in schema.names
    assert all(field.metadata[b"meaning"] for field in schema)


def test_round_trip(tmp_path):
    tables.write(tmp_path / "spans.parquet", ROWS, SPANS)
    table = tables.read(tmp_path / "spans.parquet", SPANS)
    assert table.to_pylist() == ROWS
    assert table.schema.types == SPANS.types


def test_nested_columns_and_nulls_survive(tmp_path):
    row = {
        "sample_id": "forget/0000",
        "split": "forget",
        "group": "g",
        "prompt": "?",
        "response": "x",
        "paraphrased_prompt": None,
        "paraphrased_response": "y",
        "perturbed_responses": ["a", "b"],
        "gold_spans": [{"start": 0, "end": 1}],
    }
    rows = [row, {**row, "perturbed_responses": None, "gold_spans": None}, {**row, "gold_spans": []}]
    tables.write(tmp_path / "a.parquet", rows, SAMPLES)
    assert tables.read(tmp_path / "a.parquet", SAMPLES).to_pylist() == rows


def test_rows_columns_and_arrow_give_the_same_bytes(tmp_path):
    columns = {name: [row[name] for row in ROWS] for name in SPANS.names}
    arrow = pa.table({name: columns[name] for name in reversed(SPANS.names)})
    for index, rows in enumerate((ROWS, columns, arrow, ROWS)):
        tables.write(tmp_path / f"{index}.parquet", rows, SPANS, {"identifier": "gold"})
    contents = [(tmp_path / f"{index}.parquet").read_bytes() for index in range(4)]
    assert contents[0] == contents[1] == contents[2] == contents[3]


def test_metadata_is_kept(tmp_path):
    tables.write(tmp_path / "a.parquet", ROWS, SPANS, {"identifier": "gold", "settings": '{"x": 1}'})
    assert pq.read_schema(tmp_path / "a.parquet").metadata == {b"identifier": b"gold", b"settings": b'{"x": 1}'}


def test_folders_are_made_and_nothing_else_is_left(tmp_path):
    tables.write(tmp_path / "data" / "deep" / "a.parquet", ROWS, SPANS)
    tables.write_text(tmp_path / "data" / "deep" / "a.txt", "höher\n")
    assert sorted(path.name for path in (tmp_path / "data" / "deep").iterdir()) == ["a.parquet", "a.txt"]
    assert (tmp_path / "data" / "deep" / "a.txt").read_bytes() == b"h\xc3\xb6her\n"


def test_a_null_where_a_value_must_be(tmp_path):
    with pytest.raises(UserError, match=r"a\.parquet: column 'text' has rows without a value"):
        tables.write(tmp_path / "a.parquet", [{**ROWS[0], "text": None}], SPANS)
    assert list(tmp_path.iterdir()) == []


def test_a_failing_write_keeps_what_was_there(tmp_path):
    path = tmp_path / "a.txt"
    tables.write_text(path, "first")
    with pytest.raises(OSError, match="stop"), tables.writing(path) as temporary:
        temporary.write_text("sec")
        raise OSError("stop")
    assert path.read_text() == "first" and list(tmp_path.iterdir()) == [path]


def test_a_folder_is_replaced_as_a_whole_or_not_at_all(tmp_path):
    folder = tmp_path / "out"
    for name in ("one", "two"):
        with tables.writing(folder) as temporary:
            temporary.mkdir()
            (temporary / name).write_text(name)
    assert [path.name for path in folder.iterdir()] == ["two"]
    with pytest.raises(RuntimeError), tables.writing(folder) as temporary:
        temporary.mkdir()
        (temporary / "three").write_text("3")
        raise RuntimeError
    assert [path.name for path in folder.iterdir()] == ["two"] and list(tmp_path.iterdir()) == [folder]


def test_read_without_a_file(tmp_path):
    with pytest.raises(UserError, match=r"a\.parquet is missing"):
        tables.read(tmp_path / "a.parquet", SPANS)


def test_read_a_file_that_is_no_table(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"PAR1 no table")
    with pytest.raises(UserError, match=r"a\.parquet is not a readable Parquet file"):
        tables.read(tmp_path / "a.parquet", SPANS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda table: table.drop_columns(["score"]), "column 'score' is missing"),
        (
            lambda table: table.set_column(1, "start", table["start"].cast(pa.int64())),
            "'start' is int64, expected int32",
        ),
        (lambda table: table.set_column(3, "text", pa.array([None, "."])), "column 'text' has rows without a value"),
    ],
)
def test_read_a_wrong_column(tmp_path, change, message):
    plain = pa.Table.from_pylist(ROWS, schema=pa.schema([(field.name, field.type) for field in SPANS]))
    pq.write_table(change(plain), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=message):
        tables.read(tmp_path / "a.parquet", SPANS)


def test_read_leaves_out_columns_that_are_not_in_the_schema(tmp_path):
    extra = pa.Table.from_pylist(ROWS, schema=SPANS).append_column("note", pa.array(["x", "y"]))
    pq.write_table(extra, tmp_path / "a.parquet")
    assert tables.read(tmp_path / "a.parquet", SPANS).column_names == SPANS.names
