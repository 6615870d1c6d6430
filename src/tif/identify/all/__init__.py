"""The identifier `all`: every word of the answer is unwanted, punctuation too.

With it the token-targeted methods fall back to the sample level: the baseline that shows what targeting is worth.
"""

import pyarrow as pa

from tif.base.params import Block
from tif.identify import Found, Resources
from tif.words import word_rows, words


class Settings(Block):
    """The block `all`, which has no keys."""


def identify(forget: pa.Table, retain: pa.Table, settings: Settings, resources: Resources) -> Found:
    """Rows of `SPANS` with every word unwanted and score 1, and their metadata.

    forget: the forget set (`SAMPLES`); `retain` and `resources` are not used.
    """
    rows = []
    for sample in forget.select(["sample_id", "response"]).to_pylist():
        count = len(words(sample["response"]))
        rows += word_rows(sample["sample_id"], sample["response"], [True] * count, [1.0] * count)
    return Found(rows, {"version": "1"})
