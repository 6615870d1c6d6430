"""The tables between the stages: one Arrow schema each, read with checks, written so that nothing is half-written.

`sample_id` is a stable string such as `forget/0007`: the table the row belongs to, and its index in it.
`position` is the index of a token inside the tokenised sample (prompt, answer, end of sequence).
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tif.errors import UserError


def _column(name: str, kind: pa.DataType, meaning: str, nullable: bool = False) -> pa.Field:
    return pa.field(name, kind, nullable=nullable, metadata={"meaning": meaning})


_SPAN = pa.struct([pa.field("start", pa.int32()), pa.field("end", pa.int32())])

SAMPLES = pa.schema(
    [
        _column("sample_id", pa.string(), "key, for example forget/0007"),
        _column("split", pa.string(), "name of the split, for example forget10"),
        _column("group", pa.string(), "the person or document that the row is about"),
        _column("prompt", pa.string(), "question"),
        _column("response", pa.string(), "answer"),
        _column("paraphrased_prompt", pa.string(), "the question in other words", nullable=True),
        _column("paraphrased_response", pa.string(), "the answer in other words", nullable=True),
        _column("perturbed_responses", pa.list_(pa.string()), "wrong answers of the same form", nullable=True),
        _column("gold_spans", pa.list_(_SPAN), "characters of response that carry the fact, where known", True),
    ]
)
SPANS = pa.schema(
    [
        _column("sample_id", pa.string(), "key of a forget sample"),
        _column("start", pa.int32(), "first character of the word in response"),
        _column("end", pa.int32(), "one past the last character of the word in response"),
        _column("text", pa.string(), "the word"),
        _column("unwanted", pa.bool_(), "unwanted word (UW) or general word (GW)"),
        _column("score", pa.float32(), "how unwanted, 0 to 1"),
    ]
)
REFERENCE = pa.schema(
    [
        _column("sample_id", pa.string(), "key of a forget sample"),
        _column("answer", pa.string(), "response, or refusal: an I-don't-know answer in its place"),
        _column("position", pa.int32(), "index of the token in the tokenised sample"),
        _column("token_id", pa.int32(), "the answer token"),
        _column("start", pa.int32(), "first character of the token in the answer"),
        _column("end", pa.int32(), "one past its last character; start = end for end of sequence"),
        _column("logit", pa.float32(), "raw logit of the token under the target model"),
        _column("logprob", pa.float32(), "log-probability of the token under the target model, nats"),
    ]
)
WEIGHTS = pa.schema(
    [
        _column("epoch", pa.int32(), "epochs of unlearning done"),
        _column("sample_id", pa.string(), "key of a forget sample"),
        _column("position", pa.int32(), "index of the token in the tokenised sample"),
        _column("start", pa.int32(), "first character of the token in response"),
        _column("end", pa.int32(), "one past its last character; start = end for end of sequence"),
        _column("weight", pa.float32(), "weight that the method has learned for the token, 0 to 1"),
    ]
)
TRAJECTORY = pa.schema(
    [
        _column("epoch", pa.int32(), "epochs of unlearning done; 0 is the target model"),
        _column("sample_id", pa.string(), "key of a forget or retain sample"),
        _column("measure", pa.string(), "truth_ratio, probability, or unwanted_logprob_drop (nats)"),
        _column("value", pa.float64(), "the value of the measure"),
    ]
)
EVALUATION = pa.schema(
    [
        _column("sample_id", pa.string(), "key of the sample"),
        _column("measure", pa.string(), "probability, truth_ratio, rouge, extraction_strength, ..."),
        _column("value", pa.float64(), "the value of the measure"),
        _column("text", pa.string(), "the generated answer, on rows of the measure rouge", nullable=True),
    ]
)


@contextmanager
def writing(path: Path | str) -> Iterator[Path]:
    """A temporary path beside `path` to write a file or folder to; renamed to `path` on success, removed on failure."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        yield scratch / path.name
        if path.is_dir():
            shutil.rmtree(path)
        os.replace(scratch / path.name, path)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def write_text(path: Path | str, text: str) -> None:
    """Write a text file in one step (see `writing`)."""
    with writing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write(
    path: Path | str,
    rows: pa.Table | dict[str, list] | list[dict],
    schema: pa.Schema,
    metadata: dict[str, str] | None = None,
) -> None:
    """Write `rows` (an Arrow table, a list of rows or a dict of columns) as Parquet with exactly `schema`.

    The same rows give the same bytes. `metadata` goes into the schema's metadata.
    Raises UserError when a column that must have values has a null.
    """
    if isinstance(rows, list):
        table = pa.Table.from_pylist(rows, schema=schema)
    elif isinstance(rows, dict):
        table = pa.Table.from_pydict(rows, schema=schema)
    else:
        table = rows.select(schema.names).cast(schema)
    _check_nulls(Path(path), table, schema)
    if metadata:
        table = table.replace_schema_metadata(metadata)
    with writing(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def read(path: Path | str, schema: pa.Schema) -> pa.Table:
    """Read a Parquet table and check it against `schema`. Raises UserError naming the file and the wrong column."""
    path = Path(path)
    try:
        table = pq.read_table(path)
    except FileNotFoundError:
        raise UserError(f"{path} is missing; `dvc repro` makes it") from None
    except pa.ArrowInvalid as error:
        raise UserError(f"{path} is not a readable Parquet file: {error}") from None
    for field in schema:
        if field.name not in table.column_names:
            raise UserError(f"{path}: column '{field.name}' is missing")
        found = table.schema.field(field.name).type
        if found != field.type:
            raise UserError(f"{path}: column '{field.name}' is {found}, expected {field.type}")
    table = table.select(schema.names)
    _check_nulls(path, table, schema)
    return table


def _check_nulls(path: Path, table: pa.Table, schema: pa.Schema) -> None:
    for field in schema:
        if not field.nullable and table.column(field.name).null_count:
            raise UserError(f"{path}: column '{field.name}' has rows without a value")


def without(table: pa.Table, removed: pa.Table) -> pa.Table:
    """The samples of `table` that are not in `removed`, compared by prompt and response."""
    gone = set(zip(removed["prompt"].to_pylist(), removed["response"].to_pylist(), strict=True))
    pairs = zip(table["prompt"].to_pylist(), table["response"].to_pylist(), strict=True)
    return table.filter(pa.array([pair not in gone for pair in pairs]))
