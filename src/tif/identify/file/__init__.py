"""The identifier `file`: an annotation that exists already, such as those published for TOFU with arXiv 2506.03142.

For the form of the file see `tif.identify.annotations`.
"""

import hashlib
from typing import Literal

import pyarrow as pa

from tif.base.errors import UserError
from tif.base.params import Block
from tif.identify import Found, Resources
from tif.identify.annotations import read_json_lines
from tif.words import is_punctuation, overlapping, word_rows, words


class Settings(Block):
    """The block `file`.

    unwanted: `target_words` makes the listed target words unwanted; `not_common_words` makes unwanted what is not
    listed as common. punctuation: whether the complement includes punctuation; it has no effect on `target_words`.
    """

    unwanted: Literal["target_words", "not_common_words"]
    punctuation: bool


def identify(forget: pa.Table, retain: pa.Table, settings: Settings, resources: Resources) -> Found:
    """Rows of `SPANS` with score 1 for unwanted words and 0 for the others, and their metadata.

    A word of the answer counts as listed when it overlaps a listed span. Rows are matched by question and answer;
    annotations of other rows are ignored. forget: the forget set (`SAMPLES`); `retain` is not used.
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
    annotation = read_json_lines(source, _field(settings))
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
    return Found(rows, {"version": "1", "annotation_sha256": hashlib.sha256(source.read_bytes()).hexdigest()})


def _field(settings: Settings) -> str:
    return "target_words" if settings.unwanted == "target_words" else "common_words"
