"""Gradient ascent (GA): make the forget answers unlikely, without bound and without anything that preserves.

GA = -mean_t[w_t l_t]
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tif.base.params import Block
from tif.methods import Needs, TokenWeights, answer_nll, forget_mean, forget_nll, token_weights

if TYPE_CHECKING:
    from torch import Tensor

    from tif.lm.batches import Batch
    from tif.lm.logits import AnswerTokens


class Settings(Block):
    """`ga`. token_weights: w_t, see `tif.methods.token_weights`."""

    token_weights: TokenWeights


def needs(settings: Settings) -> Needs:
    """Nothing beyond the forget answers."""
    return Needs()


def objective(tokens: AnswerTokens, batch: Batch, settings: Settings) -> tuple[Tensor, dict[str, Tensor]]:
    """The micro-batch's share of GA. Logged: ga, forget_nll."""
    weight = token_weights(batch, settings.token_weights)
    nll = answer_nll(tokens, batch, weight, retain=0)
    ga = -forget_mean(weight * nll, batch)
    return ga, {"ga": ga, **forget_nll(nll, weight, batch)}
