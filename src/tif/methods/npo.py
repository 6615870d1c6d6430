"""Negative Preference Optimization (NPO): ascent that slows down as an answer falls below the target model's.

margin_b = sum over t in b of w_t (l_t - l_t of the target model)
NPO      = mean_b of -(2 / beta) log sigmoid(beta margin_b)
           (+ retain * mean NLL + kl * mean KL(target || model), both of retain answer tokens)

A sample whose weights are all 0 contributes 0. Source: arXiv 2404.05868, there with w_t = 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from tif.base.params import Block
from tif.losses import log_sigmoid_loss, sample_sums
from tif.methods import Needs, TokenWeights, answer_nll, forget_nll, kl_term, retain_needs, retain_term, token_weights

if TYPE_CHECKING:
    from torch import Tensor

    from tif.lm.batches import Batch
    from tif.lm.logits import AnswerTokens


class Settings(Block):
    """`npo`. beta: inverse temperature, > 0; towards 0 NPO becomes ascent. retain, kl: weights of the retain terms.

    token_weights: w_t, see `tif.methods.token_weights`.
    """

    beta: float = Field(gt=0)
    retain: float = Field(ge=0)
    kl: float = Field(ge=0)
    token_weights: TokenWeights


def needs(settings: Settings) -> Needs:
    """Retain samples for either retain term, and the target model's distributions on them for the KL term."""
    return retain_needs(settings.retain, settings.kl)


def objective(tokens: AnswerTokens, batch: Batch, settings: Settings) -> tuple[Tensor, dict[str, Tensor]]:
    """The micro-batch's share of NPO. Logged: npo, forget_nll and, if used, retain_nll and retain_kl."""
    weight, forget = token_weights(batch, settings.token_weights), batch.forget
    nll = answer_nll(tokens, batch, weight, settings.retain)
    rise = nll + batch.reference_logprob
    margin, total = sample_sums(rise[forget], weight[forget], batch.sample[forget])
    npo = batch.sample_share * log_sigmoid_loss(margin, total > 0, settings.beta)
    keep, kept = retain_term(nll, batch, settings.retain)
    near, nearness = kl_term(tokens, batch, settings.kl)
    return npo + keep + near, {"npo": npo, **forget_nll(nll, weight, batch), **kept, **nearness}
