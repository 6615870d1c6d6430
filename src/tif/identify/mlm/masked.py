"""Masked language models: what the model expects in the place of single words, many words in one stream.

A word is replaced in its context by one mask token, as the `fill-mask` pipeline of transformers takes it. All masked
texts of a call share one stream: equal ones run once, batches hold texts of similar length, and the head over the
vocabulary runs at the masks alone.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm
from transformers import AutoModelForMaskedLM, PreTrainedModel, PreTrainedTokenizerFast
from transformers.utils import ModelOutput

from tif.base.errors import UserError
from tif.lm.batches import token_budget
from tif.lm.logits import SCORING_BUDGET, chunk_rows
from tif.lm.models import open_tokenizer, open_weights

TOKEN_BUDGET = 2**11  # padded tokens a forward pass on the CPU, where more only means more padding
DEVICE_BUDGET = 2**14  # the same on another device
TEXTS = 2**12  # masked texts held at a time


@dataclass(frozen=True)
class MaskedModel:
    """A masked language model and its tokenizer.

    before, after: token ids that the tokenizer puts around a text. room: tokens of the text itself that fit between
    them. cut: the module from whose output on the hidden states of the masks alone are enough, or None.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    before: tuple[int, ...]
    after: tuple[int, ...]
    room: int
    cut: torch.nn.Module | None


@dataclass(frozen=True)
class Query:
    """A word to be masked: `text[start:end]`. tokens: the vocabulary's ids that stand for this word, one or more."""

    text: str
    start: int
    end: int
    tokens: tuple[int, ...]


@dataclass(frozen=True)
class Expected:
    """What the model expects at the masks of Q queries.

    top: int64 [Q], the likeliest token; the lowest id among equals. top_probability: float32 [Q], its probability.
    probability: float32 [Q], sum of the probabilities of the query's own tokens. runs: texts that the model read.
    """

    top: np.ndarray
    top_probability: np.ndarray
    probability: np.ndarray
    runs: int


def open_masked(name: str, revision: str | None, device: str) -> MaskedModel:
    """Load a masked language model in float32 from a folder or hub repository.

    Raises UserError for a tokenizer without mask token or character offsets, and for unusable weights.
    """
    tokenizer = open_tokenizer(name, revision)
    if not tokenizer.is_fast:
        raise UserError(
            f"the tokenizer of {name} gives no character offsets; a fast tokenizer (tokenizer.json) is needed"
        )
    if tokenizer.mask_token is None:
        raise UserError(f"the tokenizer of {name} has no mask token; a masked language model is needed")
    model = open_weights(AutoModelForMaskedLM, name, revision, dtype=torch.float32).to(device).eval()
    return masked_model(name, model, tokenizer)


def masked_model(name: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> MaskedModel:
    """The model with what has to be known of it. Raises UserError when tokenizer and weights do not fit together."""
    size = model.get_input_embeddings().num_embeddings
    if len(tokenizer) > size:
        raise UserError(f"{name}: the tokenizer has {len(tokenizer)} tokens, the model only {size}; they do not match")
    ids = tokenizer(tokenizer.mask_token)["input_ids"]
    at = ids.index(tokenizer.mask_token_id)
    before, after = tuple(ids[:at]), tuple(ids[at + 1 :])
    room = min(tokenizer.model_max_length, _positions(model)) - len(before) - len(after)
    masked = MaskedModel(model, tokenizer, before, after, room, cut=None)
    narrower = (replace(masked, cut=module) for module in _cuts(model))
    return next((other for other in narrower if _agree(masked, other)), masked)


def _positions(model: PreTrainedModel) -> int:
    """Longest input in tokens. Models like RoBERTa count positions from their padding index on."""
    longest = getattr(model.config, "max_position_embeddings", None) or 2**30
    for module in model.modules():
        if isinstance(module, torch.nn.Embedding) and module.num_embeddings == longest and module.padding_idx:
            return longest - module.padding_idx - 1
    return longest


def _cuts(model: PreTrainedModel) -> list[torch.nn.Module]:
    """Modules after which positions may no longer depend on each other, the earliest first.

    In layers like BERT's and DistilBERT's that is the last attention with its residual; the feed-forward part and the
    head over the vocabulary follow. In any other model it is the end of the model without its head.
    """
    if model.base_model is model:
        return []
    stacks = [module for module in model.base_model.modules() if isinstance(module, torch.nn.ModuleList)]
    last = max(stacks, key=len)[-1] if stacks else None
    if hasattr(last, "sa_layer_norm"):
        return [last.sa_layer_norm, model.base_model]
    if hasattr(last, "intermediate") and hasattr(getattr(last, "attention", None), "output"):
        return [last.attention, model.base_model]
    return [model.base_model]


@torch.inference_mode()
def _agree(one: MaskedModel, other: MaskedModel) -> bool:
    """Whether two ways to run a model give the same logits at the masks of a short text."""
    mask = one.tokenizer.mask_token_id
    ids = [torch.tensor([*one.before, mask, 0, mask, *one.after]), torch.tensor([*one.before, mask, *one.after])]
    at = torch.tensor([len(one.before) + 2, len(one.before)])
    first, second = _logits(one, ids, at), _logits(other, ids, at)
    return first.shape == second.shape and torch.allclose(first, second, rtol=1e-4, atol=1e-4)


def _logits(masked: MaskedModel, ids: Sequence[Tensor], at: Tensor) -> Tensor:
    """[B, V] logits at position at[i] of each row ids[i].

    Cutting the hidden states down to those positions saves the head over the vocabulary at all others, which is half
    of the work of a small model, and most of the last layer.
    """
    model, pad = masked.model, masked.tokenizer.pad_token_id or 0
    lengths = torch.tensor([len(row) for row in ids])
    input_ids = pad_sequence(list(ids), batch_first=True, padding_value=pad)
    attention_mask = (torch.arange(input_ids.shape[1]) < lengths[:, None]).long()
    inputs = {"input_ids": input_ids.to(model.device), "attention_mask": attention_mask.to(model.device)}
    rows, at = torch.arange(len(ids), device=model.device), at.to(model.device)

    def cut(module: torch.nn.Module, arguments: tuple, output: Tensor | tuple | ModelOutput):
        if isinstance(output, Tensor):
            return output[rows, at][:, None]
        if isinstance(output, ModelOutput):
            output.last_hidden_state = output.last_hidden_state[rows, at][:, None]
            return output
        return (output[0][rows, at][:, None], *output[1:])

    if masked.cut is None:
        return model(**inputs, return_dict=True).logits[rows, at]
    hook = masked.cut.register_forward_hook(cut)
    try:
        return model(**inputs, return_dict=True).logits[:, 0]
    finally:
        hook.remove()


@torch.inference_mode()
def expect(masked: MaskedModel, queries: Sequence[Query], progress: bool) -> Expected:
    """What the model expects in the place of each query's word, whatever order the queries come in."""
    runs: dict[tuple[bytes, int], list[int]] = {}
    for index, run in enumerate(_encode(masked, queries)):
        runs.setdefault(run, []).append(index)
    inputs = list(runs)
    top = np.zeros(len(queries), np.int64)
    top_probability, probability = np.zeros(len(queries), np.float32), np.zeros(len(queries), np.float32)
    with tqdm(total=len(queries), desc="masking", unit="word", disable=not progress) as bar:
        for batch in _batches(masked, [len(ids) // 4 for ids, _ in inputs]):
            ids = [torch.from_numpy(np.frombuffer(inputs[i][0], np.int32).astype(np.int64)) for i in batch]
            logits = _logits(masked, ids, torch.tensor([inputs[i][1] for i in batch]))
            found = logits.softmax(-1)
            best = logits.argmax(-1)
            words = [runs[inputs[i]] for i in batch]
            counts = [len(some) for some in words]
            where = np.concatenate(words)
            top[where] = np.repeat(best.cpu().numpy(), counts)
            top_probability[where] = np.repeat(found.gather(1, best[:, None])[:, 0].cpu().numpy(), counts)
            probability[where] = _own(found, words, queries)
            bar.update(len(where))
    return Expected(top, top_probability, probability, len(inputs))


def _own(found: Tensor, words: list[list[int]], queries: Sequence[Query]) -> np.ndarray:
    """The summed probability of each word's own tokens; found: [B, V]; words: the B rows' queries."""
    pairs = [(row, token) for row, some in enumerate(words) for query in some for token in queries[query].tokens]
    counts = [len(queries[query].tokens) for some in words for query in some]
    row, token = torch.tensor(pairs, device=found.device).T
    values = found[row, token].double().cpu().numpy()
    return np.add.reduceat(values, np.cumsum([0, *counts[:-1]])).clip(0, 1)


def _batches(masked: MaskedModel, lengths: list[int]) -> Iterator[list[int]]:
    """Rows of similar length, within both budgets."""
    rows = chunk_rows(masked.model.get_input_embeddings().num_embeddings, SCORING_BUDGET)
    for batch in token_budget(lengths, TOKEN_BUDGET if masked.model.device.type == "cpu" else DEVICE_BUDGET):
        yield from (batch[i : i + rows] for i in range(0, len(batch), rows))


def _encode(masked: MaskedModel, queries: Sequence[Query]) -> Iterator[tuple[bytes, int]]:
    """Token ids (int32, as bytes, which take a tenth of the memory of a list) and the mask's position, per query."""
    lengths = _long_texts(masked, {query.text for query in queries})
    for part in range(0, len(queries), TEXTS):
        cut = [_cut(masked, query, lengths.get(query.text)) for query in queries[part : part + TEXTS]]
        texts = [text[:start] + masked.tokenizer.mask_token + text[end:] for text, start, end in cut]
        for (text, start, _), ids in zip(cut, _tokens(masked, texts)["input_ids"], strict=True):
            yield _window(masked, ids, text[:start].count(masked.tokenizer.mask_token))


def _tokens(masked: MaskedModel, texts: list[str], offsets: bool = False):
    return masked.tokenizer(
        texts,
        add_special_tokens=False,
        return_attention_mask=False,
        return_token_type_ids=False,
        return_offsets_mapping=offsets,
        verbose=False,  # texts longer than the model are cut here
    )


def _long_texts(masked: MaskedModel, texts: set[str]) -> dict[str, tuple[list[int], list[int]]]:
    """Texts of more tokens than fit -> where their tokens start and end, in characters."""
    found = {}
    for text in sorted(text for text in texts if len(text) > masked.room // 4):
        offsets = _tokens(masked, [text], offsets=True)["offset_mapping"][0]
        if len(offsets) > masked.room:
            found[text] = [start for start, _ in offsets], [end for _, end in offsets]
    return found


def _cut(masked: MaskedModel, query: Query, offsets: tuple[list[int], list[int]] | None) -> tuple[str, int, int]:
    """The query's text, start and end; of a long text only what lies near the word.

    Without it every word of a long document would cost a tokenisation of the whole document. Twice the window stays on
    each side, so that tokens cut at its ends do not reach the window.
    """
    if offsets is None:
        return query.text, query.start, query.end
    starts, ends = offsets
    first = max(0, bisect_right(starts, query.start) - 1 - 2 * masked.room)
    last = min(len(ends), bisect_right(starts, query.end - 1) + 2 * masked.room) - 1
    left, right = min(starts[first], query.start), max(ends[last], query.end)
    return query.text[left:right], query.start - left, query.end - left


def _window(masked: MaskedModel, ids: list[int], which: int) -> tuple[bytes, int]:
    """The tokens around the mask number `which` (a text may hold the mask token itself), and its position."""
    masks = [position for position, token in enumerate(ids) if token == masked.tokenizer.mask_token_id]
    if which >= len(masks):
        raise UserError(
            f"the tokenizer of the masked language model does not find its own mask token {masked.tokenizer.mask_token}"
            " inside a text; set `single_word` of that token to false in tokenizer.json"
        )
    left = max(0, min(masks[which] - masked.room // 2, len(ids) - masked.room))
    row = (*masked.before, *ids[left : left + masked.room], *masked.after)
    return np.array(row, np.int32).tobytes(), len(masked.before) + masks[which] - left
