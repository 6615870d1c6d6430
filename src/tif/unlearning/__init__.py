"""What unlearning writes beside the model: its trajectory, and the token weights that a method has learned."""

import pyarrow as pa

from tif.base.tables import column

TRAJECTORY = pa.schema(
    [
        column("epoch", pa.int32(), "epochs of unlearning done; 0 is the target model"),
        column("sample_id", pa.string(), "key of a forget or retain sample"),
        column("measure", pa.string(), "truth_ratio, probability, or unwanted_logprob_drop (nats)"),
        column("value", pa.float64(), "the value of the measure"),
    ]
)

TOKEN_WEIGHTS = pa.schema(
    [
        column("epoch", pa.int32(), "epochs of unlearning done"),
        column("sample_id", pa.string(), "key of a forget sample"),
        column("position", pa.int32(), "index of the token in the tokenised sample"),
        column("start", pa.int32(), "first character of the token in response"),
        column("end", pa.int32(), "one past its last character; start = end for end of sequence"),
        column("weight", pa.float32(), "weight that the method has learned for the token, 0 to 1"),
    ]
)
