"""Sharded weights (FSDP2): the one file that knows how they are gathered, told apart and saved.

Accelerate shards them inside of the Trainer, in place: the model object stays, and its weights become parts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from tif.lm.models import LanguageModel
from tif.training import Memory

if TYPE_CHECKING:
    from transformers import PreTrainedModel, TrainingArguments

T = TypeVar("T")


def arguments(memory: Memory) -> dict[str, Any]:
    """What a Trainer has to be told: FSDP2; every decoder layer, by the model's own list, is a unit of its own."""
    if not memory.fsdp:
        return {}
    return {"fsdp": True, "fsdp_config": {"version": 2, "state_dict_type": "FULL_STATE_DICT"}}


def finish(told: TrainingArguments, memory: Memory) -> None:
    """Sums of gradients over processes in float32, which the arguments have no key for."""
    if memory.fsdp and memory.precision == "mixed":
        from torch.distributed.fsdp import MixedPrecisionPolicy

        told.fsdp_plugin_args["mixed_precision_policy"] = MixedPrecisionPolicy(torch.bfloat16, torch.float32)


def is_sharded(model: PreTrainedModel) -> bool:
    """Whether the weights are parts by now."""
    from torch.distributed.fsdp import FSDPModule

    return isinstance(model, FSDPModule)


def around(model: PreTrainedModel, function: Callable[[PreTrainedModel], T]) -> T:
    """function(model), of sharded weights inside of the model's forward pass, where they are gathered.

    Every process has to make the same calls then; see `LanguageModel.around` and `tif.training.loop`.
    """
    from torch.distributed.fsdp import FSDPModule

    if not is_sharded(model):
        return function(model)
    made = model(call=function)
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()  # the head stays gathered otherwise, as if a backward pass came, and its parts hidden
    return made


def local(weight: Tensor) -> Tensor:
    """The part of a weight that lies in this process, or all of it."""
    return weight.to_local() if hasattr(weight, "to_local") else weight


def gathered(language_model: LanguageModel) -> dict[str, Tensor] | None:
    """The whole `state_dict` of a sharded model in main memory, or None; every process has to call this.

    Weights have the dtype of the model's card, and one that is tied to another is left out.
    """
    model, card = language_model.model, language_model.card
    if not is_sharded(model):
        return None
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    state = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    if card.base is None:
        tied = model.all_tied_weights_keys  # gathering makes a copy of each of them
        dtype = getattr(torch, card.dtype)
        state = {name: value.to(dtype) for name, value in state.items() if name not in tied}
    return state
