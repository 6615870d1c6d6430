"""Tables between the stages: read with checks, written so that nothing is half-written.

Every table has an Arrow schema, with a meaning and a unit for each column, beside the code that makes it.

`sample_id` is a stable string such as `forget/0007`: the set the row belongs to, and its index in it.
`position` is the index of a token inside the tokenised sample (prompt, answer, end of sequence).
"""

import csv
import io
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tif.base.errors import UserError


def column(name: str, kind: pa.DataType, meaning: str, nullable: bool = False) -> pa.Field:
    """A column of a schema, with what it means and its unit."""
    return pa.field(name, kind, nullable=nullable, metadata={"meaning": meaning})


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


def csv_text(header: list[str], rows: list[list]) -> str:
    """A CSV file as text; None becomes an empty cell."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return buffer.getvalue()


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


def read_json(path: Path | str) -> dict:
    """A JSON object from a file. Raises UserError when it is missing or damaged."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is missing; `dvc repro` makes it") from None
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}); delete it and run `dvc repro`") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold a JSON object; delete it and run `dvc repro`")
    return content
