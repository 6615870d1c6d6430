"""The identifier `gold`: unwanted is what the benchmark itself marks as the fact. The upper bound for the others."""

import pyarrow as pa

from tif.base.errors import UserError
from tif.base.params import Block
from tif.identify import Found, Resources
from tif.words import span_rows


class Settings(Block):
    """The block `gold`, which has no keys."""


def identify(forget: pa.Table, retain: pa.Table, settings: Settings, resources: Resources) -> Found:
    """Rows of `SPANS`: a word is unwanted when it overlaps a gold span; score 1 or 0. And their metadata.

    forget: the forget set (`SAMPLES`); `retain` and `resources` are not used.
    Raises UserError when a sample has no gold spans.
    """
    rows = []
    for sample in forget.select(["sample_id", "response", "gold_spans"]).to_pylist():
        if sample["gold_spans"] is None:
            raise UserError(
                f"identify.method = gold: {sample['sample_id']} has no gold spans, because the benchmark does not know"
                " them; choose frequency, file or all, or benchmark.name=fictitious"
            )
        spans = [(span["start"], span["end"]) for span in sample["gold_spans"]]
        rows += span_rows(sample["sample_id"], sample["response"], spans)
    return Found(rows, {"version": "1"})
