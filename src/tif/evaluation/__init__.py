"""Evaluation: all that needs a forward pass of a model, as two tables. Metrics read these, and need no model."""

import pyarrow as pa
from pydantic import Field

from tif.base.params import Block
from tif.base.tables import column

_KEY = pa.dictionary(pa.int32(), pa.string())

TOKENS = pa.schema(
    [
        column("sample_id", _KEY, "key of the sample"),
        column("answer", _KEY, "which answer to the sample's question: response, paraphrase, wrong/0, wrong/1, ..."),
        column("position", pa.int32(), "index of the token in the tokenised question and answer"),
        column("token_id", pa.int32(), "the answer token"),
        column("start", pa.int32(), "first character of the token in the answer"),
        column("end", pa.int32(), "one past its last character; start = end for end of sequence"),
        column("is_end", pa.bool_(), "whether it is the end of sequence"),
        column("logprob", pa.float32(), "log-probability of the token, nats"),
        column("hit", pa.bool_(), "whether it is the likeliest token, given those before it"),
    ]
)
TEXTS = pa.schema(
    [
        column("sample_id", pa.string(), "key of the sample"),
        column("text", pa.string(), "the model's greedy answer to the question"),
    ]
)


class Settings(Block):
    """`evaluate`. retain_rows: retain samples to evaluate, evenly spaced. new_tokens: longest generated answer.

    batch: questions answered at a time.
    """

    retain_rows: int = Field(ge=1)
    new_tokens: int = Field(ge=1)
    batch: int = Field(ge=1)
