"""Target and retain model trained from scratch: a byte-level BPE tokenizer and a small Llama."""

from pathlib import Path

import pyarrow as pa
import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers import models as tokenizer_models
from tokenizers import trainers as tokenizer_trainers
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from tif.finetune import Scratch
from tif.lm.batches import Batch, encode_pairs
from tif.lm.logits import AnswerTokens
from tif.lm.models import Card, LanguageModel, save
from tif.training.loop import Run, Task, train

END = "<|end|>"


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
    train(language_model, Task(encode_pairs(language_model, samples), token_mean), settings, Run(device, progress))
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
