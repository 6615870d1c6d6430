"""Gradient difference (GradDiff): ascent on forget answers, descent on retain answers.

GradDiff = -mean_t[w_t l_t] + retain * mean NLL of retain answer tokens

The published form has a weight on either term. Only their ratio is a choice here, as AdamW undoes a common factor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from tif.base.params import Block
from tif.methods import (
    Needs,
    TokenWeights,
    answer_nll,
    forget_mean,
    forget_nll,
    retain_needs,
    retain_term,
    token_weights,
)

if TYPE_CHECKING:
    from torch import Tensor

    from tif.lm.batches import Batch
    from tif.lm.logits import AnswerTokens


class Settings(Block):
    """`graddiff`. retain: weight of the retain term. token_weights: w_t, see `tif.methods.token_weights`."""

    retain: float = Field(ge=0)
    token_weights: TokenWeights


def needs(settings: Settings) -> Needs:
    """Retain samples, with a retain term only."""
    return retain_needs(settings.retain)


def objective(tokens: AnswerTokens, batch: Batch, settings: Settings) -> tuple[Tensor, dict[str, Tensor]]:
    """The micro-batch's share of GradDiff. Logged: ga (the forget term), forget_nll and, if used, retain_nll."""
    weight = token_weights(batch, settings.token_weights)
    nll = answer_nll(tokens, batch, weight, settings.retain)
    ga = -forget_mean(weight * nll, batch)
    keep, kept = retain_term(nll, batch, settings.retain)
    return ga + keep, {"ga": ga, **forget_nll(nll, weight, batch), **kept}
