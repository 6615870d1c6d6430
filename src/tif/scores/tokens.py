"""Scores of answer tokens under one model, from which every likelihood metric and the reference table read."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from tif.lm.batches import Batch, Example
from tif.lm.logits import SCORING_BUDGET, answer_tokens, chunk_rows
from tif.lm.models import LanguageModel
from tif.scores.passes import passes
from tif.scores.truth_ratio import mean_loss


@dataclass(frozen=True)
class Scores:
    """Per-token scores of E examples with T answer tokens in all, end of sequence included.

    bounds: int64 [E + 1]; tokens of example i are bounds[i]:bounds[i + 1].
    logit, logprob: float32 [T], of the true token (logprob in nats). hit: bool [T], greedy choice is right.

    Where they were asked for, else None: rank: int64 [T], 1 + number of tokens whose logit is strictly greater. mean,
    variance: float32 [T], of log p (nats) of a token drawn from the model's own distribution there.
    """

    bounds: np.ndarray
    logit: np.ndarray
    logprob: np.ndarray
    hit: np.ndarray
    rank: np.ndarray | None = None
    mean: np.ndarray | None = None
    variance: np.ndarray | None = None

    def loss(self) -> np.ndarray:
        """[E] mean negative log-likelihood of an answer's tokens, nats, float64."""
        return mean_loss(self.logprob, self.bounds)


def score(
    language_model: LanguageModel,
    examples: Sequence[Example],
    progress: bool,
    title: str = "scoring",
    more: bool = False,
) -> Scores:
    """Score every answer token of `examples`, in batches of similar length, whatever order they come in.

    more: whether to give rank, mean and variance too; they need no further pass, but more work over the vocabulary.
    """
    bounds, found = passes(language_model, examples, partial(_read, more=more), progress, title)
    if not found:
        found = [torch.empty(0), torch.empty(0), torch.empty(0, dtype=torch.bool)]
    return Scores(bounds, *(values.numpy() for values in found))


def _read(model: PreTrainedModel, batch: Batch, more: bool) -> list[Tensor]:
    """Logit, log-probability and hit of the answer tokens of a batch, and rank, mean and variance where asked for."""
    tokens = answer_tokens(model, batch)
    dots = tokens.logit()
    step = chunk_rows(tokens.head.weight.shape[0], SCORING_BUDGET)
    chunks = []
    for first, last in pairwise([*range(0, len(dots), step), len(dots)]):
        rows, label = tokens.head(tokens.hidden[first:last]), tokens.label[first:last]
        rounded = rows.dtype != torch.float32
        rows = rows.float()
        true = rows.gather(1, label[:, None])[:, 0]
        logprob = true - rows.logsumexp(-1)
        # a head of fewer bits rounds its logits; training does not, and margins compare with this
        values = [dots[first:last] if rounded else true, logprob, rows.argmax(-1) == label]
        if more:
            values += [1 + (rows > true[:, None]).sum(-1), *_moments(rows)]
        chunks.append(values)
    return [torch.cat(values) for values in zip(*chunks, strict=True)]


def _moments(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of log p under p = softmax(logits [n, V]): sum p log p, and sum p (log p - mean)^2."""
    log_p = logits.log_softmax(-1)
    p = log_p.exp()
    mean = (p * log_p).sum(-1)
    return mean, (p * (log_p - mean[:, None]).square()).sum(-1)
