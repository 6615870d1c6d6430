"""Training: one loop over flat answer tokens, and what makes it fit into memory. Here are the settings alone."""

from typing import Literal

from pydantic import Field

from tif.base.params import Block
from tif.lm.adapters import Lora


class Optimisation(Block):
    """The settings that fine-tuning and unlearning share: AdamW with linear warm-up and decay.

    batch: samples per optimiser step. micro_batch: rows per forward pass; changes memory and speed, and results only
    by rounding. warmup: share of all steps in [0, 1].
    """

    epochs: int = Field(ge=1)
    batch: int = Field(ge=1)
    micro_batch: int = Field(ge=1)
    lr: float = Field(gt=0)
    weight_decay: float = Field(ge=0)
    warmup: float = Field(ge=0, le=1)
    max_grad_norm: float = Field(gt=0)
    seed: int = Field(ge=0)


class Memory(Block):
    """Keys of `unlearn` that change memory, and results by rounding alone (but for lora, which trains something else).

    lora: adapters to train in place of the weights, or null. gradient_checkpointing: whether layers keep their inputs
    only and compute the rest again in the backward pass. precision: `weights` trains in the dtype of the model's card;
    `mixed` keeps float32 weights, whose products are computed in bfloat16. fsdp: whether each of the `processes` GPUs
    keeps a part of the weights, gradients and optimiser state.
    """

    lora: Lora | None = None
    gradient_checkpointing: bool = False
    precision: Literal["weights", "mixed"] = "weights"
    fsdp: bool = False
