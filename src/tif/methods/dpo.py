"""Direct Preference Optimization with refusals (IdkDPO): prefer "I don't know" to the forget answer.

gain_t   = log p_t - log p_t of the target model
margin_b = sum of gain_t over the refusal of b - sum of w_t gain_t over the forget answer of b
DPO      = mean_b of -(2 / beta) log sigmoid(beta margin_b)  (+ retain * mean NLL of retain answer tokens)

A sample whose weights are all 0 contributes 0, its refusal too. Source: arXiv 2305.18290, and arXiv 2404.05868 for
refusals as the preferred answers; both with w_t = 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from tif.base.late import Late
from tif.base.params import Block
from tif.losses import log_sigmoid_loss, sample_sums
from tif.methods import Needs, TokenWeights, answer_nll, forget_nll, mean, retain_term, token_weights

if TYPE_CHECKING:
    from torch import Tensor

    from tif.lm.batches import Batch
    from tif.lm.logits import AnswerTokens

torch = Late("torch")


class Settings(Block):
    """`dpo`. beta: inverse temperature, > 0. retain: weight of the retain term.

    token_weights: w_t of the forget answer's tokens, see `tif.methods.token_weights`; those of the refusal all count 1.
    """

    beta: float = Field(gt=0)
    retain: float = Field(ge=0)
    token_weights: TokenWeights


def needs(settings: Settings) -> Needs:
    """The refusals; retain samples, with a retain term only."""
    return Needs(refusals=True, retain=settings.retain > 0)


def objective(tokens: AnswerTokens, batch: Batch, settings: Settings) -> tuple[Tensor, dict[str, Tensor]]:
    """The micro-batch's share of DPO. Logged: dpo, forget_nll, refusal_nll and, if used, retain_nll.

    refusal_nll is the mean within a micro-batch, weighted by its share of samples.
    """
    weight = torch.where(batch.refusal, 1, token_weights(batch, settings.token_weights))
    nll = answer_nll(tokens, batch, weight, settings.retain)
    gain = -nll - batch.reference_logprob
    (preferred, _), (rejected, total) = (
        sample_sums(gain[where], weight[where], batch.sample[where]) for where in (batch.refusal, batch.forget)
    )
    dpo = batch.sample_share * log_sigmoid_loss(preferred - rejected, total > 0, settings.beta)
    refusal_nll = batch.sample_share * mean(nll, batch.refusal)
    keep, kept = retain_term(nll, batch, settings.retain)
    return dpo + keep, {"dpo": dpo, **forget_nll(nll, weight, batch), "refusal_nll": refusal_nll, **kept}
