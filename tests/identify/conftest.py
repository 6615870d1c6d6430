"""Tables of samples for the identifiers."""

import pyarrow as pa
import pytest

from tif import tables


@pytest.fixture
def samples():
    """Make a table of samples from (prompt, response) pairs; `gold` holds a list of spans or None a pair."""

    def make(*pairs: tuple[str, str], gold: list | None = None) -> pa.Table:
        rows = [
            {
                "sample_id": f"forget/{index:04d}",
                "split": "forget",
                "group": "person",
                "prompt": prompt,
                "response": response,
                "gold_spans": spans if spans is None else [{"start": a, "end": b} for a, b in spans],
            }
            for index, ((prompt, response), spans) in enumerate(zip(pairs, gold or [None] * len(pairs), strict=True))
        ]
        return pa.Table.from_pylist(rows, schema=tables.SAMPLES)

    return make
