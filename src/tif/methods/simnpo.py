"""SimNPO: NPO without a reference model; an answer's mean NLL is compared with a fixed one.

margin_b = sum over t in b of w_t l_t / sum of w_t - delta
SimNPO   = mean_b of -(2 / beta) log sigmoid(beta margin_b)
           (+ retain * mean NLL + kl * mean KL(target || model), both of retain answer tokens)

A sample whose weights are all 0 contributes 0. Source: arXiv 2410.07163, there with w_t = 1 and gamma = beta delta.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from tif.base.late import Late
from tif.base.params import Block
from tif.losses import log_sigmoid_loss, sample_sums
from tif.methods import Needs, TokenWeights, answer_nll, forget_nll, kl_term, retain_needs, retain_term, token_weights

if TYPE_CHECKING:
    from torch import Tensor

    from tif.lm.batches import Batch
    from tif.lm.logits import AnswerTokens

torch = Late("torch")


class Settings(Block):
    """`simnpo`. beta: inverse temperature, > 0. delta: mean NLL at which the slope is 1, nats, >= 0.

    retain, kl: weights of the retain terms. token_weights: w_t, see `tif.methods.token_weights`.
    """

    beta: float = Field(gt=0)
    delta: float = Field(ge=0)
    retain: float = Field(ge=0)
    kl: float = Field(ge=0)
    token_weights: TokenWeights


def needs(settings: Settings) -> Needs:
    """Retain samples for either retain term, and the target model's distributions on them for the KL term."""
    return retain_needs(settings.retain, settings.kl)


def objective(tokens: AnswerTokens, batch: Batch, settings: Settings) -> tuple[Tensor, dict[str, Tensor]]:
    """The micro-batch's share of SimNPO. Logged: simnpo, forget_nll and, if used, retain_nll and retain_kl."""
    weight, forget = token_weights(batch, settings.token_weights), batch.forget
    nll = answer_nll(tokens, batch, weight, settings.retain)
    total, weights = sample_sums(nll[forget], weight[forget], batch.sample[forget])
    known = weights > 0
    margin = total / torch.where(known, weights, 1) - settings.delta
    simnpo = batch.sample_share * log_sigmoid_loss(margin, known, settings.beta)
    keep, kept = retain_term(nll, batch, settings.retain)
    near, nearness = kl_term(tokens, batch, settings.kl)
    return simnpo + keep + near, {"simnpo": simnpo, **forget_nll(nll, weight, batch), **kept, **nearness}
