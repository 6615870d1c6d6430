"""Where the target and the retain model come from: trained from scratch, a hub repository, or a local folder."""

from pathlib import Path
from typing import Annotated, Literal

import pyarrow as pa
import torch
from pydantic import Field, RootModel
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers import models as tokenizer_models
from tokenizers import trainers as tokenizer_trainers
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from tif.batches import Batch
from tif.errors import UserError
from tif.logits import AnswerTokens
from tif.models import Card, LanguageModel, check_folder, open_model, resolve, save, write_card
from tif.params import Block
from tif.scoring import encode_pairs
from tif.tables import writing
from tif.train import Optimisation, train

END = "<|end|>"


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


class Hub(Block):
    """A published target model and its retain models.

    target: repository of the model trained on everything. retain: one repository for each forget split. revisions:
    repository -> branch, tag or commit; `main` where none is given. With `model.source`, the folder of that name's
    last part below it is used instead.
    """

    kind: Literal["hub"]
    prompt: Literal["plain", "chat"]
    date: str
    dtype: Literal["float32", "bfloat16", "float16"]
    attention: Literal["sdpa", "eager", "flash_attention_2"]
    target: str
    retain: dict[str, str]
    revisions: dict[str, str]


class Settings(RootModel):
    """A model block: `kind` says which of the two."""

    root: Annotated[Scratch | Hub, Field(discriminator="kind")]


def token_mean(tokens: AnswerTokens, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    """Fine-tuning objective: mean negative log-likelihood of all answer tokens of the effective batch."""
    loss = batch.token_share * tokens.nll(torch.ones_like(batch.forget)).mean()
    return loss, {}


def from_scratch(
    path: Path, settings: Scratch, corpus: list[pa.Table], rows: list[pa.Table], device: str, progress: bool
) -> None:
    """Train tokenizer and model and save them as a model folder.

    corpus: tables whose text the tokenizer is trained on; the same for target and retain, so that their token
    counts, and with them truth ratios, compare. rows: tables whose answers the model learns.
    """
    if settings.width % settings.heads or settings.width // settings.heads % 2:
        raise UserError("params.yaml: scratch.width must be an even multiple of scratch.heads")
    form = Card(prompt=settings.prompt, date="", dtype="float32", attention="sdpa")
    tokenizer = train_tokenizer([text for table in corpus for text in _texts(table)], settings.vocabulary)
    torch.manual_seed(settings.seed)
    model = LlamaForCausalLM._from_config(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=settings.width,
            intermediate_size=-(-settings.width * 8 // 3 // 32) * 32,
            num_hidden_layers=settings.layers,
            num_attention_heads=settings.heads,
            max_position_embeddings=2048,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
        ),
        attn_implementation=form.attention,
    )
    language_model = LanguageModel(model.to(device), tokenizer, form)
    samples = [
        (row["sample_id"], row["prompt"], row["response"])
        for table in rows
        for row in table.select(["sample_id", "prompt", "response"]).to_pylist()
    ]
    train(language_model, encode_pairs(language_model, samples), token_mean, settings, device, progress)
    save(path, language_model)


def train_tokenizer(texts: list[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of at most `vocabulary` tokens; any text round-trips."""
    tokenizer = Tokenizer(tokenizer_models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = tokenizer_trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, clean_up_tokenization_spaces=False)


def _texts(table: pa.Table) -> list[str]:
    columns = table.select(["prompt", "response"]).to_pydict()
    return [f"Question: {prompt}\nAnswer: {answer}" for prompt, answer in zip(*columns.values(), strict=True)]


def refer(path: Path, block: str, settings: Hub, role: str, forget_split: str, source: Path | None) -> None:
    """Write a model folder that names a hub repository and its resolved commit, or a folder below `source`.

    Raises UserError when the block has no retain model for `forget_split`, when the hub cannot be reached, or when a
    local folder is incomplete. A local model is opened once, so that a broken one fails here and not stages later.
    """
    if role == "retain" and forget_split not in settings.retain:
        raise UserError(
            f"params.yaml: {block}.retain has no model for the forget split '{forget_split}'; "
            f"it has: {', '.join(sorted(settings.retain))}"
        )
    repository = settings.target if role == "target" else settings.retain[forget_split]
    form = {"prompt": settings.prompt, "date": settings.date, "dtype": settings.dtype, "attention": settings.attention}
    if source is not None:
        card = Card(**form, local=repository.rsplit("/", 1)[-1])
        check_folder(str(source / card.local))
        open_model(str(source / card.local), None, card, "cpu")
    else:
        instead = "use model.name=scratch, or download the model and set model.source to the folder that holds it"
        commit = resolve(repository, settings.revisions.get(repository, "main"), instead)
        card = Card(**form, repository=repository, revision=commit)
    with writing(path) as folder:
        folder.mkdir()
        write_card(folder, card)
