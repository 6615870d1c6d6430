"""What makes training fit into memory: adapters, precision, recomputed activations.

docs/memory.md says what each of them saves and costs.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import PreTrainedModel

from tif.base.errors import UserError
from tif.base.params import Compute
from tif.lm import adapters
from tif.training import Memory, sharding


def check(memory: Memory, processes: int, compute: Compute, cached: bool) -> None:
    """Raises UserError for what this machine, or a sharded run, cannot do.

    cached: whether the method reads cached hidden states.
    """
    if memory.precision == "mixed" and compute.device == "cuda" and not torch.cuda.is_bf16_supported():
        raise UserError(
            "params.yaml: unlearn.precision = mixed needs a GPU that computes in bfloat16, and this one does not;"
            " set it to weights"
        )
    if not memory.fsdp:
        return
    if processes == 1:
        raise UserError(
            "params.yaml: unlearn.fsdp shards weights over unlearn.processes, which is 1; set it to the GPUs"
        )
    if compute.device != "cuda":
        raise UserError(f"params.yaml: unlearn.fsdp needs compute.device = cuda, not {compute.device}")
    if cached:
        raise UserError(
            "params.yaml: unlearn.fsdp is true, but the method with its settings reads hidden states of the target,"
            " and those are computed before weights are sharded; set unlearn.fsdp to false, or choose another method"
        )


@contextmanager
def fitted(model: PreTrainedModel, memory: Memory, seed: int) -> Iterator[None]:
    """The model made ready for training, and in its own precision again when the block ends. Adapters stay."""
    if memory.gradient_checkpointing and not model.supports_gradient_checkpointing:
        raise UserError(
            f"{type(model).__name__} cannot compute its layers again; set unlearn.gradient_checkpointing=false"
        )
    before = []
    if memory.precision == "mixed":
        if not memory.fsdp:  # sharded weights are others, and are cast when they are saved
            before = [(weight, weight.dtype) for weight in model.parameters()]
        for weight in model.parameters():
            weight.data = weight.data.float()
    if memory.lora:
        adapters.attach(model, memory.lora, seed)
    if memory.gradient_checkpointing:
        # not left to FSDP's own wrapper, which would drop other inputs of adapters the second time
        model.activation_checkpointing_enable({"use_reentrant": False})
    yield
    if memory.gradient_checkpointing:
        model.activation_checkpointing_disable()
    for weight, dtype in before:
        weight.data = weight.data.to(dtype)


def arguments(memory: Memory) -> dict[str, Any]:
    """What a Trainer has to be told."""
    return {"bf16": memory.precision == "mixed", **sharding.arguments(memory)}
