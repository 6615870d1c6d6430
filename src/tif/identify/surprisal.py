"""The identifier `surprisal`: a word is unwanted when a causal language model does not see it coming.

The model must not have seen the forget set: a base model that is older than the facts, or the retain model of this
pipeline (`identify.source=data/models/retain`), which is read as its card `tif.json` says, with its own prompt and
dtype, be its weights in the folder or on the hub. Any other model reads the plain prompt. Question and answer are
written as in every stage, so each word is judged given the question and the answer so far. What it cannot see: facts
that the earlier part of the answer gives away, and general words where several would do.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pyarrow as pa
import torch
from pydantic import Field, ValidationInfo, field_validator
from tqdm import tqdm

from tif.batches import Example, collate, encode, token_budget
from tif.identify import Found, Resources
from tif.logits import SCORING_BUDGET, answer_tokens, chunk_rows
from tif.masks import Span, is_punctuation, word_rows, words
from tif.models import Card, LanguageModel, folder_sha256, load, locate, open_model, prepare
from tif.params import Block

TOKEN_BUDGET = 2**13  # padded tokens a forward pass


class Settings(Block):
    """The block `surprisal`.

    model, revision: a causal language model of the hub, used where `identify.source` names no local model folder.
    dtype: of its weights, unless the folder has a card. measure, threshold: an unwanted word has a rank above the
    threshold, or a probability below.
    """

    model: str
    revision: str
    dtype: Literal["float32", "bfloat16", "float16"]
    measure: Literal["rank", "probability"]
    threshold: float = Field(ge=0)

    @field_validator("threshold")
    @classmethod
    def _within_the_measure(cls, threshold: float, info: ValidationInfo) -> float:
        measure = info.data.get("measure")
        if measure == "probability" and threshold > 1:
            raise ValueError("a probability lies between 0 and 1; for ranks set surprisal.measure=rank")
        if measure == "rank" and threshold < 1:
            raise ValueError("ranks start at 1; for probabilities set surprisal.measure=probability")
        return threshold


def identify(forget: pa.Table, retain: pa.Table, settings: Settings, resources: Resources) -> Found:
    """Rows of `tables.SPANS`, and what tells the model.

    Over the tokens t that share a character with the word, each given all tokens before it:

        rank         r = largest of 1 + number of tokens likelier than t;    unwanted = r > threshold
        probability  p = product of p(t);                                    unwanted = p < threshold
        score        = 1 - 1/r or 1 - p

    Punctuation is general, with score 0. forget: the forget set (`tables.SAMPLES`); `retain` is not used.
    resources.source: a model folder, with or without a card. Raises UserError for an unusable model folder or hub
    model, and for a card of a model below `model.source`, which no identifier reads.
    """
    prepare(resources.compute)
    source, device = resources.source, resources.compute.device
    if source and (source / "tif.json").is_file():
        language_model = load(source, None, device)
        card, origin = language_model.card, {"model_sha256": folder_sha256(source)}
        if card.repository:
            origin |= {"model": card.repository, "revision": card.revision}
    else:
        name, revision, origin = locate(source, settings.model, settings.revision)
        card = Card(prompt="plain", date="", dtype=settings.dtype, attention="sdpa")
        language_model = open_model(name, revision, card, device)
    rows = mark(language_model, forget, settings, resources.progress)
    return Found(rows, {"version": "1", **origin})


def mark(language_model: LanguageModel, forget: pa.Table, settings: Settings, progress: bool) -> list[dict]:
    """The rows of `identify`, with a model that is open already."""
    samples = forget.select(["sample_id", "prompt", "response"]).to_pylist()
    examples = [
        encode(language_model.tokenizer, language_model.form, sample["sample_id"], sample["prompt"], sample["response"])
        for sample in samples
    ]
    rows = []
    for sample, example, (rank, logprob) in zip(
        samples, examples, surprise(language_model, examples, progress), strict=True
    ):
        text, offsets, unwanted, scores = sample["response"], np.array(example.offsets), [], []
        for span in words(text):
            if is_punctuation(text[slice(*span)]):
                unwanted.append(False)
                scores.append(0.0)
                continue
            tokens = _tokens_of(span, offsets)
            if settings.measure == "rank":
                worst = int(rank[tokens].max())
                unwanted.append(worst > settings.threshold)
                scores.append(1 - 1 / worst)
            else:
                probability = min(float(np.exp(logprob[tokens].sum())), 1.0)
                unwanted.append(probability < settings.threshold)
                scores.append(1 - probability)
        rows += word_rows(sample["sample_id"], text, unwanted, scores)
    return rows


def _tokens_of(word: Span, offsets: np.ndarray) -> np.ndarray:
    """Indices of the tokens that share a character with the word; offsets: int [A, 2]."""
    return np.flatnonzero((offsets[:, 0] < word[1]) & (word[0] < offsets[:, 1]))


@torch.inference_mode()
def surprise(
    language_model: LanguageModel, examples: Sequence[Example], progress: bool
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Per example: int64 [A] rank and float64 [A] log-probability (nats) of its answer tokens, with end of sequence.

    Samples of more tokens than the model can read go through it in windows; see `windows`.
    """
    model = language_model.model
    length = getattr(model.config, "max_position_embeddings", None) or 2**30
    parts = [(index, part) for index, example in enumerate(examples) for part in windows(example, length)]
    scored: list[tuple[np.ndarray, np.ndarray]] = [None] * len(parts)
    with tqdm(total=len(parts), desc="surprisal", unit="answer", disable=not progress) as bar:
        for batch in token_budget([len(part.ids) for _, part in parts], TOKEN_BUDGET):
            tokens = answer_tokens(model, collate([parts[i][1] for i in batch]).to(model.device))
            rank, logprob = [], []
            step = chunk_rows(tokens.head.weight.shape[0], SCORING_BUDGET)
            for first in range(0, len(tokens.label), step):
                logits = tokens.head(tokens.hidden[first : first + step]).float()
                true = logits.gather(1, tokens.label[first : first + step, None])
                rank.append(1 + (logits > true).sum(-1))
                logprob.append((true[:, 0] - logits.logsumexp(-1)).double())
            cuts = np.cumsum([len(parts[i][1].ids) - parts[i][1].start for i in batch])[:-1]
            both = (torch.cat(values).cpu().numpy() for values in (rank, logprob))
            for i, *values in zip(batch, *(np.split(values, cuts) for values in both), strict=True):
                scored[i] = tuple(values)
            bar.update(len(batch))
    found: list[list] = [[] for _ in examples]
    for (index, _), values in zip(parts, scored, strict=True):
        found[index].append(values)
    return [tuple(np.concatenate(arrays) for arrays in zip(*values, strict=True)) for values in found]


def windows(example: Example, length: int) -> list[Example]:
    """`example` cut into parts of at most `length` tokens whose answer tokens are, in order, those of the whole.

    Each part begins with the tokens before its first answer token, at most half a window of them.
    """
    parts, start, end = [], example.start, len(example.ids)
    while start < end:
        left = 0 if end <= length else max(0, start - length // 2)
        right = min(end, left + length)
        parts.append(Example(example.sample_id, example.ids[left:right], start - left, offsets=[]))
        start = right
    return parts
