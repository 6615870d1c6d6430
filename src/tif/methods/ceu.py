"""CE-U: cross-entropy to the model's own distribution with the true token taken out.

q_t  = sg(softmax(z_t with the true token's logit at -infinity))
CE-U = mean_t[w_t CE(q_t, softmax(z_t))]  (+ retain * mean NLL of retain answer tokens)

Its gradient in the logits is softmax(z_t) - q_t, so it vanishes as p_t does. Source: arXiv 2503.01224, there with
w_t = 1.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pydantic import Field

from tif.base.late import Late
from tif.base.params import Block
from tif.methods import Needs, TokenWeights, forget_mean, retain_needs, retain_term, token_weights

if TYPE_CHECKING:
    from torch import Tensor

    from tif.lm.batches import Batch
    from tif.lm.logits import AnswerTokens

torch = Late("torch")


class Settings(Block):
    """`ceu`. retain: weight of the retain term. token_weights: w_t, see `tif.methods.token_weights`."""

    retain: float = Field(ge=0)
    token_weights: TokenWeights


def needs(settings: Settings) -> Needs:
    """Retain samples, with a retain term only."""
    return replace(retain_needs(settings.retain), rows=True)


def cross_entropy_without_label(logits: Tensor, label: Tensor) -> Tensor:
    """Cross-entropy to softmax(logits) renormalised without the label, with no gradient through that target.

    logits: [n, V], V at least 2. label: int64 [n]. Returns [n] nats.
    """
    others = logits.detach().scatter(-1, label[:, None], -torch.inf).softmax(-1)
    return -(others * logits.log_softmax(-1)).sum(-1)


def objective(tokens: AnswerTokens, batch: Batch, settings: Settings) -> tuple[Tensor, dict[str, Tensor]]:
    """The micro-batch's share of CE-U. Logged: ceu and, if used, retain_nll."""
    weight = token_weights(batch, settings.token_weights)
    ceu = forget_mean(weight * tokens.per_token(cross_entropy_without_label, weight > 0), batch)
    nll = tokens.nll(batch.retain)
    keep, kept = retain_term(nll, batch, settings.retain)
    return ceu + keep, {"ceu": ceu, **kept}
