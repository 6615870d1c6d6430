"""The identifier `file`: an annotation that exists already, such as those published for TOFU with arXiv 2506.03142.

JSON lines, one forget row a line: `question`, `answer`, and `target_words` or `common_words`, each a list of
{"word", "start", "end"} with character offsets into `answer`. A listed "word" may be several words long.
"""

import hashlib
import json
from pathlib import Path
from typing import Literal

import pyarrow as pa

from tif.errors import UserError
from tif.identify import Found, Resources
from tif.masks import Span, is_punctuation, overlapping, word_rows, words
from tif.params import Block


class Settings(Block):
    """The block `file`.

    unwanted: `target_words` makes the listed target words unwanted; `not_common_words` makes unwanted what is not
    listed as common. punctuation: whether the complement includes punctuation; it has no effect on `target_words`.
    """

    unwanted: Literal["target_words", "not_common_words"]
    punctuation: bool


def identify(forget: pa.Table, retain: pa.Table, settings: Settings, resources: Resources) -> Found:
    """Rows of `tables.SPANS` with score 1 for unwanted words and 0 for the others, and their metadata.

    A word of the answer counts as listed when it overlaps a listed span. Rows are matched by question and answer;
    annotations of other rows are ignored. forget: the forget set (`tables.SAMPLES`); `retain` is not used.
    resources.source: the annotation file.
    Raises UserError naming the line for a damaged line, a missing field, and offsets that lie outside the answer or do
    not hold the word; naming the first three forget rows without an annotation.
    """
    source = resources.source
    if source is None or not source.is_file():
        raise UserError(
            "identify.method = file needs an annotation: set identify.source to a file of JSON lines with"
            f" question, answer and {_field(settings)}"
        )
    content = source.read_bytes()
    annotation = _read(source, content, _field(settings))
    samples = forget.select(["sample_id", "prompt", "response"]).to_pylist()
    missing = [sample for sample in samples if (sample["prompt"], sample["response"]) not in annotation]
    if missing:
        first = "; ".join(f"{sample['sample_id']} {sample['prompt']!r}" for sample in missing[:3])
        raise UserError(
            f"{source}: {len(missing)} of {len(samples)} forget rows have no line with the same question and answer,"
            f" first: {first}; use the annotation of this forget split"
        )
    rows = []
    for sample in samples:
        text = sample["response"]
        unwanted = overlapping(text, annotation[sample["prompt"], text])
        if settings.unwanted == "not_common_words":
            unwanted = [
                not common and (settings.punctuation or not is_punctuation(text[start:end]))
                for common, (start, end) in zip(unwanted, words(text), strict=True)
            ]
        rows += word_rows(sample["sample_id"], text, unwanted, [float(flag) for flag in unwanted])
    return Found(rows, {"version": "1", "annotation_sha256": hashlib.sha256(content).hexdigest()})


def _field(settings: Settings) -> str:
    return "target_words" if settings.unwanted == "target_words" else "common_words"


def _read(source: Path, content: bytes, field: str) -> dict[tuple[str, str], list[Span]]:
    """The listed spans of every (question, answer)."""
    try:
        lines = content.decode("utf-8").split("\n")
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
