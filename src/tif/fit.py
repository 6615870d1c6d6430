"""What makes training fit into memory: adapters, precision, recomputed activations, sharded weights.

docs/memory.md says what each of them saves and costs.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch.distributed.fsdp import MixedPrecisionPolicy
from transformers import PreTrainedModel, TrainingArguments

from tif import adapters
from tif.errors import UserError
from tif.params import Block, Compute


class Fit(Block):
    """Keys of `unlearn` that change memory, and results by rounding alone (but for lora, which trains something else).

    lora: adapters to train in place of the weights, or null. gradient_checkpointing: whether layers keep their inputs
    only and compute the rest again in the backward pass. precision: `weights` trains in the dtype of the model's card;
    `mixed` keeps float32 weights, whose products are computed in bfloat16. fsdp: whether each of the `processes` GPUs
    keeps a part of the weights, gradients and optimiser state.
    """

    lora: adapters.Lora | None = None
    gradient_checkpointing: bool = False
    precision: Literal["weights", "mixed"] = "weights"
    fsdp: bool = False


def check(fit: Fit, processes: int, compute: Compute, cached: bool) -> None:
    """Raises UserError for what this machine, or a sharded run, cannot do.

    cached: whether the method reads cached hidden states.
    """
    if fit.precision == "mixed" and compute.device == "cuda" and not torch.cuda.is_bf16_supported():
        raise UserError(
            "params.yaml: unlearn.precision = mixed needs a GPU that computes in bfloat16, and this one does not;"
            " set it to weights"
        )
    if not fit.fsdp:
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
def fitted(model: PreTrainedModel, fit: Fit, seed: int) -> Iterator[None]:
    """The model made ready for training, and in its own precision again when the block ends. Adapters stay."""
    if fit.gradient_checkpointing and not model.supports_gradient_checkpointing:
        raise UserError(
            f"{type(model).__name__} cannot compute its layers again; set unlearn.gradient_checkpointing=false"
        )
    before = []
    if fit.precision == "mixed":
        if not fit.fsdp:  # sharded weights are others, and are cast when they are saved
            before = [(weight, weight.dtype) for weight in model.parameters()]
        for weight in model.parameters():
            weight.data = weight.data.float()
    if fit.lora:
        adapters.attach(model, fit.lora, seed)
    if fit.gradient_checkpointing:
        # not left to FSDP's own wrapper, which would drop other inputs of adapters the second time
        model.activation_checkpointing_enable({"use_reentrant": False})
    yield
    if fit.gradient_checkpointing:
        model.activation_checkpointing_disable()
    for weight, dtype in before:
        weight.data = weight.data.to(dtype)


def arguments(fit: Fit) -> dict[str, Any]:
    """What a Trainer has to be told."""
    told: dict[str, Any] = {"bf16": fit.precision == "mixed"}
    if fit.fsdp:
        # FSDP2; every decoder layer, by the model's own list, is a unit of its own
        told |= {"fsdp": True, "fsdp_config": {"version": 2, "state_dict_type": "FULL_STATE_DICT"}}
    return told


def finish(told: TrainingArguments, fit: Fit) -> None:
    """Sums of gradients over processes in float32, which the arguments have no key for."""
    if fit.fsdp and fit.precision == "mixed":
        told.fsdp_plugin_args["mixed_precision_policy"] = MixedPrecisionPolicy(torch.bfloat16, torch.float32)
