"""LoRA: small trainable matrices beside frozen weights, attached, saved and loaded through peft.

    layer(x) = W x + (alpha / rank) * B (A dropout(x)),   A: [rank, in], B: [out, rank], B = 0 at first

They are float32 whatever the dtype of W, so that small updates are not rounded away. The model keeps its class, so
its backbone, its head and its `generate` stay where they are; see `tif.lm.models` for what belongs to a saved adapter.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from tif.base.errors import UserError, first_line
from tif.base.params import Block, nearest

if TYPE_CHECKING:
    from peft import LoraConfig
    from torch import Tensor
    from transformers import PreTrainedModel

NAME = "default"  # peft's name of the one adapter; in no saved file
PREFIX = "base_model.model."  # of every key in a saved adapter, as peft writes and reads them
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


class Lora(Block):
    """`unlearn.lora`; null trains all weights.

    rank: of the added matrices. alpha: their product is multiplied by alpha / rank. dropout: share of their inputs
    that is dropped in training, [0, 1). targets: the linear layers that get them, by the end of their names: q_proj, or
    layers.0.mlp.up_proj. The head cannot be one of them.
    """

    rank: int = Field(ge=1)
    alpha: float = Field(gt=0)
    dropout: float = Field(ge=0, lt=1)
    targets: list[str] = Field(min_length=1)


def attach(model: PreTrainedModel, lora: Lora, seed: int) -> None:
    """Freeze the weights and add an adapter that changes no output yet.

    Raises UserError for a target that is not the end of any linear layer's name, the head's aside.
    """
    import torch
    from peft import LoraConfig
    from transformers.pytorch_utils import Conv1D

    head = model.get_output_embeddings()
    linear = [
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear | Conv1D) and module != head
    ]
    for target in lora.targets:
        if not any(f".{name}".endswith(f".{target}") for name in linear):
            known = sorted({name.rsplit(".", 1)[-1] for name in linear})
            raise UserError(
                f"params.yaml: unlearn.lora.targets: {target!r} is no linear layer of the model that can have an "
                f"adapter{nearest(target, known)}; known: {', '.join(known)}"
            )
    torch.manual_seed(seed)
    _inject(
        model,
        LoraConfig(
            r=lora.rank,
            lora_alpha=lora.alpha,
            lora_dropout=lora.dropout,
            target_modules=lora.targets,
            fan_in_fan_out=any(isinstance(module, Conv1D) for module in model.modules()),  # the weight is transposed
            task_type="CAUSAL_LM",
        ),
    )


def _inject(model: PreTrainedModel, config: LoraConfig) -> None:
    from peft import inject_adapter_in_model
    from peft.tuners.tuners_utils import cast_adapter_dtype

    inject_adapter_in_model(config, model, NAME)
    cast_adapter_dtype(model, NAME)
    model.train(model.training)  # new modules are in training mode, and drop inputs


def save(folder: Path, model: PreTrainedModel, base: str | None, revision: str | None, state: dict | None) -> None:
    """Write the adapter into an existing folder, in peft's own form.

    base, revision: hub repository and commit of the frozen weights, if they are from there. state: the model's
    `state_dict` where it is known already.
    """
    from safetensors.torch import save_file

    content = model.peft_config[NAME].to_dict()
    content |= {"base_model_name_or_path": base, "revision": revision, "inference_mode": True}
    content = {key: sorted(value) if isinstance(value, set) else value for key, value in content.items()}
    (folder / CONFIG).write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    weights = {PREFIX + key: value.contiguous() for key, value in _weights(model, state).items()}
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})


def load(folder: Path, model: PreTrainedModel) -> None:
    """Put the adapter of a folder on the model that it was trained on.

    Raises UserError when its files are missing, damaged, or of another model.
    """
    from peft import LoraConfig, set_peft_model_state_dict
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        content = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        weights = load_file(folder / WEIGHTS, device=str(model.device))
        _inject(model, LoraConfig(**content))
        weights = {key.removeprefix(PREFIX): value for key, value in weights.items()}
        if weights.keys() != _weights(model, None).keys():
            raise ValueError("its weights are not those of its configuration")
        set_peft_model_state_dict(model, weights, NAME)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RuntimeError, SafetensorError) as error:
        raise UserError(f"no usable adapter in {folder}: {first_line(error)}; delete it and run `dvc repro`") from None


def _weights(model: PreTrainedModel, state: dict | None) -> dict[str, Tensor]:
    from peft import get_peft_model_state_dict

    return get_peft_model_state_dict(model, state, NAME, save_embedding_layers=False)
