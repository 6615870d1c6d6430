"""SatImp: ascent on forget tokens weighted by how far they are from saturation and by how much they matter.

SatImp = -mean_t[w_t sg(p_t^beta1 (1 - p_t)^beta2) l_t]  (+ retain * mean NLL of retain answer tokens)

Source: arXiv 2505.11953, there with w_t = 1.
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
    """`satimp`. beta1: how fast the weight falls with a token's probability; beta2: and with its complement.

    retain: weight of the retain term. token_weights: w_t, see `tif.methods.token_weights`.
    """

    beta1: float = Field(ge=0)
    beta2: float = Field(ge=0)
    retain: float = Field(ge=0)
    token_weights: TokenWeights


def needs(settings: Settings) -> Needs:
    """Retain samples, with a retain term only."""
    return retain_needs(settings.retain)


def confidence(nll: Tensor, beta1: float, beta2: float) -> Tensor:
    """p^beta1 (1 - p)^beta2 of p = exp(-nll), without gradient; exact where p is near 0 or 1. nll: [n] nats."""
    nll = nll.detach().clamp(min=0)  # rounding may put the NLL of a certain token below 0, and 1 - p with it
    return torch.exp(-beta1 * nll) * (-torch.expm1(-nll)) ** beta2


def objective(tokens: AnswerTokens, batch: Batch, settings: Settings) -> tuple[Tensor, dict[str, Tensor]]:
    """The micro-batch's share of SatImp. Logged: satimp, forget_nll and, if used, retain_nll."""
    weight = token_weights(batch, settings.token_weights)
    nll = answer_nll(tokens, batch, weight, settings.retain)
    satimp = -forget_mean(weight * confidence(nll, settings.beta1, settings.beta2) * nll, batch)
    keep, kept = retain_term(nll, batch, settings.retain)
    return satimp + keep, {"satimp": satimp, **forget_nll(nll, weight, batch), **kept}
