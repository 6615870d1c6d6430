"""Where the target and the retain model come from: one file a `kind` of model block. Here are their settings alone."""

from typing import Annotated, Literal

from pydantic import Field, RootModel, ValidationInfo, field_validator

from tif.base.params import Block
from tif.training import Optimisation


class Scratch(Optimisation):
    """A byte-level BPE tokenizer and a small Llama, trained here.

    vocabulary: tokens of the tokenizer. layers, width, heads: size of the Llama; its feed-forward width is 8/3 of
    `width`, rounded up to a multiple of 32.
    """

    kind: Literal["scratch"]
    prompt: Literal["plain"]
    vocabulary: int = Field(ge=300, le=65536)
    layers: int = Field(ge=1)
    width: int = Field(ge=16)
    heads: int = Field(ge=1)

    @field_validator("heads")
    @classmethod
    def _divides_the_width(cls, heads: int, info: ValidationInfo) -> int:
        width = info.data.get("width")
        if width and width % (2 * heads):
            raise ValueError(f"width ({width}) must be an even multiple of heads")
        return heads


class Published(Block):
    """A published target model and its retain models.

    target: repository of the model trained on everything. retain: one repository for each forget split. revisions:
    repository -> branch, tag or commit; `main` where none is given. With `model.source`, the folder of that name's
    last part below it is used instead.
    """

    kind: Literal["published"]
    prompt: Literal["plain", "chat"]
    date: str
    dtype: Literal["float32", "bfloat16", "float16"]
    attention: Literal["sdpa", "eager", "flash_attention_2"]
    target: str
    retain: dict[str, str]
    revisions: dict[str, str]


class Settings(RootModel):
    """A model block: `kind` says which of them."""

    root: Annotated[Scratch | Published, Field(discriminator="kind")]
