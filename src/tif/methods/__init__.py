"""Unlearning methods: one file each, chosen by its name in `unlearn.method`.

A method module has

- `Settings`, its block of params.yaml;
- `needs(settings) -> Needs`: what the training loop has to supply beyond the answer tokens of the forget set;
- `objective(tokens, batch, settings) -> (loss, terms)`: a micro-batch's share of the step's loss and of the values to
  log. Both are sums over micro-batches, so every mean is taken here and multiplied by the share of its denominator
  that lies in this micro-batch: `batch.sample_share`, `batch.forget_token_share` or `batch.token_share`.

Symbols of the methods' docstrings: l_t is the NLL of token t in nats, p_t = exp(-l_t), w_t its weight (see
`token_weights`), target the model before its first step, sg(.) a value that gets no gradient. mean_t is over all
forget answer tokens of the effective batch, mean_b over its forget samples.

A method that learns more than the model (atwu) has `Learner` in place of `objective`; see `tif.methods.atwu`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from tif.base.late import Late
from tif.losses import kl_divergence

if TYPE_CHECKING:
    from torch import Tensor

    from tif.lm.batches import Batch
    from tif.lm.logits import AnswerTokens

torch = Late("torch")

TokenWeights = Literal["uniform", "spans", "scores"]


@dataclass(frozen=True)
class Needs:
    """What a method needs. No method needs a second model: the target model is the model before its first step.

    retain: as many retain samples as forget samples in every step. refusals: every forget sample once more with an
    "I don't know" answer, in the same micro-batch. own: hidden states at the tokens' own positions.
    layer: hidden states after that many decoder layers in place of the last; no logits can be computed from them.
    cached: answers whose hidden states under the target model (at `layer`) are computed once before training and kept
    in main memory, N x d numbers in the model's dtype; with a frozen copy of the head they give its distributions.
    rows: whether whole rows of logits enter its loss, as in `AnswerTokens.per_token`; only `tif.plan.memory` reads it.
    """

    retain: bool = False
    refusals: bool = False
    own: bool = False
    layer: int | None = None
    cached: tuple[Literal["forget", "retain"], ...] = ()
    rows: bool = False


def retain_needs(retain: float, kl: float = 0.0) -> Needs:
    """What `retain_term` and `kl_term` need with these weights."""
    return Needs(retain=retain > 0 or kl > 0, cached=("retain",) if kl > 0 else (), rows=kl > 0)


def token_weights(batch: Batch, chosen: TokenWeights) -> Tensor:
    """[N] w_t in [0, 1] of forget answer tokens, 0 elsewhere.

    uniform: 1. spans: 1 for unwanted tokens, else 0. scores: the score that the identifier gave.
    """
    if chosen == "uniform":
        return batch.forget.float()
    return torch.where(batch.forget, batch.unwanted.float() if chosen == "spans" else batch.score, 0)


def answer_nll(tokens: AnswerTokens, batch: Batch, weight: Tensor, retain: float) -> Tensor:
    """[N] nats of tokens with a weight and, with a retain term, of retain answers; 0 elsewhere, where no head runs."""
    where = weight > 0
    return tokens.nll(where | batch.retain if retain else where)


def mean(values: Tensor, where: Tensor) -> Tensor:
    """Mean of values [N] where `where` (bool [N]) is true; 0 where it never is."""
    return values[where].mean() if where.any() else torch.zeros((), device=values.device)


def forget_mean(values: Tensor, batch: Batch) -> Tensor:
    """The micro-batch's share of mean_t values, over all forget answer tokens whatever their weights."""
    chosen = values[batch.forget]
    return batch.forget_token_share * chosen.sum() / max(len(chosen), 1)


def forget_nll(nll: Tensor, weight: Tensor, batch: Batch) -> dict[str, Tensor]:
    """The value to log: mean NLL of the forget tokens with a weight.

    Taken within a micro-batch and weighted by its share of forget tokens: the exact mean under uniform weights only.
    """
    return {"forget_nll": batch.forget_token_share * mean(nll, batch.forget & (weight > 0))}


def retain_term(nll: Tensor, batch: Batch, weight: float) -> tuple[Tensor, dict[str, Tensor]]:
    """The share of weight * mean NLL of retain answer tokens, and retain_nll to log. 0 and nothing for weight 0."""
    if not weight:
        return torch.zeros((), device=nll.device), {}
    value = batch.token_share * mean(nll, batch.retain)
    return weight * value, {"retain_nll": value}


def kl_term(tokens: AnswerTokens, batch: Batch, weight: float) -> tuple[Tensor, dict[str, Tensor]]:
    """Share of weight * mean KL(target || model) of retain answer tokens, and retain_kl to log: as `retain_term`."""
    if not weight:
        return torch.zeros((), device=tokens.hidden.device), {}
    value = batch.token_share * mean(against_target(tokens, batch, kl_divergence, batch.retain), batch.retain)
    return weight * value, {"retain_kl": value}


def against_target(tokens: AnswerTokens, batch: Batch, loss: Callable[..., Tensor], where: Tensor) -> Tensor:
    """`tokens.per_token` with the target model's logits, also where a micro-batch has no such token at all."""
    known = batch.reference_hidden
    if known is None and not where.any():
        known = tokens.hidden  # stands for the missing ones; none of its rows is read
    return tokens.per_token(loss, where, known)
