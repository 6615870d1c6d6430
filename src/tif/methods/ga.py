"""Gradient ascent (GA): make the forget answers unlikely, without bound and without anything that preserves.

GA = -mean_t[w_t l_t]
"""

from torch import Tensor

from tif.batches import Batch
from tif.logits import AnswerTokens
from tif.methods import Needs, Weights, answer_nll, forget_mean, forget_nll, token_weights
from tif.params import Block


class Settings(Block):
    """`ga`. weights: w_t, see `tif.methods.token_weights`."""

    weights: Weights


def needs(settings: Settings) -> Needs:
    """Nothing beyond the forget answers."""
    return Needs()


def objective(tokens: AnswerTokens, batch: Batch, settings: Settings) -> tuple[Tensor, dict[str, Tensor]]:
    """The micro-batch's share of GA. Logged: ga, forget_nll."""
    weight = token_weights(batch, settings.weights)
    nll = answer_nll(tokens, batch, weight, retain=0)
    ga = -forget_mean(weight * nll, batch)
    return ga, {"ga": ga, **forget_nll(nll, weight, batch)}
