"""KL minimisation (KL): ascent on forget answers, while the distributions on retain answers stay the target model's.

loss = -mean_t[w_t l_t] + kl * mean KL(target || model) over the next-token distributions of retain answers
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from tif.base.params import Block
from tif.methods import Needs, TokenWeights, answer_nll, forget_mean, forget_nll, kl_term, retain_needs, token_weights

if TYPE_CHECKING:
    from torch import Tensor

    from tif.lm.batches import Batch
    from tif.lm.logits import AnswerTokens


class Settings(Block):
    """`kl`. kl: weight of the KL term. token_weights: w_t, see `tif.methods.token_weights`."""

    kl: float = Field(ge=0)
    token_weights: TokenWeights


def needs(settings: Settings) -> Needs:
    """Retain samples and the target model's distributions on them, with a KL term only."""
    return retain_needs(0, settings.kl)


def objective(tokens: AnswerTokens, batch: Batch, settings: Settings) -> tuple[Tensor, dict[str, Tensor]]:
    """The micro-batch's share of the loss. Logged: ga (the forget term), forget_nll and, if used, retain_kl."""
    weight = token_weights(batch, settings.token_weights)
    nll = answer_nll(tokens, batch, weight, retain=0)
    ga = -forget_mean(weight * nll, batch)
    keep, kept = kl_term(tokens, batch, settings.kl)
    return ga + keep, {"ga": ga, **forget_nll(nll, weight, batch), **kept}
