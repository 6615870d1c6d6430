"""Representation misdirection (RMU): steer a layer's hidden states on forget answers, keep them on retain answers.

RMU = mean_t[w_t mean over d of (h_t - c u)^2] + alpha * mean over retain answer tokens and d of (h - h of the target)^2

h is the hidden state [d] that predicts a token, after `layer` decoder layers; u a random unit vector with no negative
number. The published form trains a few matrices below that layer; here every weight below it moves, as `unlearn` says.
Source: arXiv 2403.03218.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from tif.base.late import Late
from tif.base.params import Block
from tif.methods import Needs, TokenWeights, forget_mean, token_weights

if TYPE_CHECKING:
    from torch import Tensor

    from tif.lm.batches import Batch
    from tif.lm.logits import AnswerTokens

torch = Late("torch")


class Settings(Block):
    """`rmu`. layer: number of decoder layers below the hidden states, from 1. c: length of the vector steered to.

    alpha: weight of what keeps retain answers. seed: of u. token_weights: w_t, see `tif.methods.token_weights`.
    """

    layer: int = Field(ge=1)
    c: float = Field(gt=0)
    alpha: float = Field(ge=0)
    seed: int = Field(ge=0)
    token_weights: TokenWeights


def needs(settings: Settings) -> Needs:
    """Hidden states of the layer; retain samples and what they are under the target model, unless alpha is 0."""
    keep = settings.alpha > 0
    return Needs(retain=keep, layer=settings.layer, cached=("retain",) if keep else ())


def direction(width: int, seed: int) -> Tensor:
    """u, float32 [width]: numbers uniform in [0, 1), scaled to length 1; a pure function of its arguments."""
    numbers = torch.rand(width, generator=torch.Generator().manual_seed(seed))
    return numbers / numbers.norm()


def objective(tokens: AnswerTokens, batch: Batch, settings: Settings) -> tuple[Tensor, dict[str, Tensor]]:
    """The micro-batch's share of RMU. Logged: steering (the forget term) and, unless alpha is 0, retain_drift."""
    hidden = tokens.hidden.float()
    goal = settings.c * direction(hidden.shape[1], settings.seed).to(hidden.device)
    steering = forget_mean(token_weights(batch, settings.token_weights) * (hidden - goal).square().mean(-1), batch)
    if not settings.alpha:
        return steering, {"steering": steering}
    drift = batch.token_share * _drift(hidden, batch)
    return steering + settings.alpha * drift, {"steering": steering, "retain_drift": drift}


def _drift(hidden: Tensor, batch: Batch) -> Tensor:
    if not batch.retain.any():
        return torch.zeros((), device=hidden.device)
    return (hidden - batch.reference_hidden.float())[batch.retain].square().mean()
