"""The reference table: what the target model says of every answer token of the forget set, and of a refusal.

With it no second model is resident while a method trains that compares with the target model.
"""

import pyarrow as pa

from tif.base.tables import column

REFERENCE = pa.schema(
    [
        column("sample_id", pa.string(), "key of a forget sample"),
        column("answer", pa.string(), "response, or refusal: an I-don't-know answer in its place"),
        column("position", pa.int32(), "index of the token in the tokenised sample"),
        column("token_id", pa.int32(), "the answer token"),
        column("start", pa.int32(), "first character of the token in the answer"),
        column("end", pa.int32(), "one past its last character; start = end for end of sequence"),
        column("logit", pa.float32(), "raw logit of the token under the target model"),
        column("logprob", pa.float32(), "log-probability of the token under the target model, nats"),
    ]
)
