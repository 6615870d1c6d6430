"""UNDIAL: distil the target model into itself with the logit of every forget token lowered by a fixed amount.

q_t    = softmax(z_t of the target model - beta onehot(true token))
UNDIAL = mean_t[w_t CE(q_t, softmax(z_t))]  (+ retain * mean NLL of retain answer tokens)

Source: arXiv 2402.10052, there with w_t = 1.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from pydantic import Field

from tif.base.params import Block
from tif.methods import Needs, TokenWeights, against_target, forget_mean, retain_term, token_weights

if TYPE_CHECKING:
    from torch import Tensor

    from tif.lm.batches import Batch
    from tif.lm.logits import AnswerTokens


class Settings(Block):
    """`undial`. beta: how much the logit of the true token falls, > 0. retain: weight of the retain term.

    token_weights: w_t, see `tif.methods.token_weights`.
    """

    beta: float = Field(gt=0)
    retain: float = Field(ge=0)
    token_weights: TokenWeights


def needs(settings: Settings) -> Needs:
    """The target model's distributions on forget answers; retain samples, with a retain term only."""
    return Needs(retain=settings.retain > 0, cached=("forget",), rows=True)


def distillation(logits: Tensor, label: Tensor, reference: Tensor, beta: float) -> Tensor:
    """Cross-entropy to softmax(reference - beta onehot(label)).

    logits, reference: [n, V] under the model in training and the target model. label: int64 [n]. Returns [n] nats.
    """
    adjusted = reference.scatter_add(-1, label[:, None], reference.new_full((len(label), 1), -beta))
    return -(adjusted.softmax(-1) * logits.log_softmax(-1)).sum(-1)


def objective(tokens: AnswerTokens, batch: Batch, settings: Settings) -> tuple[Tensor, dict[str, Tensor]]:
    """The micro-batch's share of UNDIAL. Logged: undial and, if used, retain_nll."""
    weight = token_weights(batch, settings.token_weights)
    entropy = against_target(tokens, batch, partial(distillation, beta=settings.beta), weight > 0)
    undial = forget_mean(weight * entropy, batch)
    nll = tokens.nll(batch.retain)
    keep, kept = retain_term(nll, batch, settings.retain)
    return undial + keep, {"undial": undial, **kept}
