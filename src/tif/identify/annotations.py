"""Annotations that exist already: JSON lines with character spans, such as those published for TOFU.

One row a line: `question`, `answer`, and `target_words` or `common_words`, each a list of {"word", "start", "end"} with
character offsets into `answer`. A listed "word" may be several words long.
"""

import json
from pathlib import Path

from tif.base.errors import UserError
from tif.words import Span


def read_json_lines(source: Path, field: str) -> dict[tuple[str, str], list[Span]]:
    """The spans that `field` lists for every (question, answer).

    Raises UserError naming the line for a damaged line, a missing field, a row that stands twice with different spans,
    and offsets that lie outside the answer or do not hold the word.
    """
    try:
        lines = source.read_bytes().decode("utf-8").split("\n")
    except UnicodeDecodeError:
        raise UserError(f"{source} is not a UTF-8 text file of JSON lines") from None
    annotation: dict[tuple[str, str], list[Span]] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{source}: line {number}"
        row = _object(where, line)
        key = (_text(where, row, "question"), _text(where, row, "answer"))
        spans = _spans(where, row, field)
        if annotation.setdefault(key, spans) != spans:
            raise UserError(f"{where}: question and answer stand on an earlier line too, with other {field}")
    return annotation


def _object(where: str, line: str) -> dict:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise UserError(f"{where} is not JSON ({error}); the file is truncated or damaged") from None
    if not isinstance(row, dict):
        raise UserError(f"{where} is not a JSON object with question, answer and a list of words")
    return row


def _text(where: str, row: dict, name: str) -> str:
    if not isinstance(row.get(name), str):
        raise UserError(f"{where}: field '{name}' is missing or not text")
    return row[name]


def _spans(where: str, row: dict, field: str) -> list[Span]:
    if not isinstance(row.get(field), list):
        raise UserError(
            f"{where}: field '{field}' is missing or not a list; an empty list says that no word is meant, and"
            " file.unwanted chooses which field is read"
        )
    spans = []
    for item in row[field]:
        word, start, end = (
            (item.get(name) for name in ("word", "start", "end")) if isinstance(item, dict) else (None,) * 3
        )
        if not isinstance(word, str) or type(start) is not int or type(end) is not int:
            raise UserError(
                f"{where}: '{field}' holds {item!r}, not an object with word (text), start and end (numbers)"
            )
        length = len(row["answer"])
        if not 0 <= start < end <= length:
            raise UserError(
                f"{where}: {word!r} at [{start}, {end}) is empty or lies outside the answer of {length} characters"
            )
        if row["answer"][start:end] != word:
            raise UserError(f"{where}: the answer holds {row['answer'][start:end]!r} at [{start}, {end}), not {word!r}")
        spans.append((start, end))
    return spans
