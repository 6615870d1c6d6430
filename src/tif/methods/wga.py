"""Weighted gradient ascent (WGA): ascent on forget tokens that stops where they have become unlikely.

WGA = -mean_t[w_t sg(p_t^beta) l_t]  (+ retain * mean NLL of retain answer tokens)

Source: arXiv 2502.19301, there with w_t = 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from tif.base.late import Late
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

torch = Late("torch")


class Settings(Block):
    """`wga`. beta: how fast a token's weight falls with its probability; 0 is plain ascent. retain: of the retain term.

    token_weights: w_t, see `tif.methods.token_weights`.
    """

    beta: float = Field(ge=0)
    retain: float = Field(ge=0)
    token_weights: TokenWeights


def needs(settings: Settings) -> Needs:
    """Retain samples, with a retain term only."""
    return retain_needs(settings.retain)


def objective(tokens: AnswerTokens, batch: Batch, settings: Settings) -> tuple[Tensor, dict[str, Tensor]]:
    """The micro-batch's share of WGA. Logged: wga, forget_nll and, if used, retain_nll."""
    weight = token_weights(batch, settings.token_weights)
    nll = answer_nll(tokens, batch, weight, settings.retain)
    confidence = torch.exp(-settings.beta * nll.detach())
    wga = -forget_mean(weight * confidence * nll, batch)
    keep, kept = retain_term(nll, batch, settings.retain)
    return wga + keep, {"wga": wga, **forget_nll(nll, weight, batch), **kept}
