"""Targeted Preference Optimization (arXiv 2506.03142): unlearn unwanted words, preserve general ones.

TPO = LPL + lambda * PL  (+ retain * mean NLL of retain answer tokens)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from tif.base.params import Block
from tif.losses import logit_preference_loss, preservation_loss
from tif.methods import Needs, mean, retain_needs, retain_term

if TYPE_CHECKING:
    from torch import Tensor

    from tif.lm.batches import Batch
    from tif.lm.logits import AnswerTokens


class Settings(Block):
    """`tpo`. beta: inverse temperature of LPL, > 0. lambda: weight of PL, >= 0. retain: weight of the retain term.

    per: whether the log-sigmoid of LPL is taken of every sample's margin, or, as in the code published with the paper,
    of the mean margin of a whole micro-batch. Under `batch` the results depend on `unlearn.micro_batch` and on the
    number of processes, because a log-sigmoid of the effective batch's mean is no sum over micro-batches; the
    published code has micro-batches of 4.
    """

    beta: float = Field(gt=0)
    lambda_: float = Field(alias="lambda", ge=0)
    retain: float = Field(ge=0)
    per: Literal["sample", "batch"] = "sample"


def needs(settings: Settings) -> Needs:
    """Retain samples, with a retain term only."""
    return retain_needs(settings.retain)


def objective(tokens: AnswerTokens, batch: Batch, settings: Settings) -> tuple[Tensor, dict[str, Tensor]]:
    """The micro-batch's share of the TPO loss, and its share of the values to log.

    Logged: lpl, pl, logit_drop (mean fall of the UW tokens' logits), general_nll (mean NLL of GW tokens, nats) and,
    with a retain term, retain_nll. The means over UW and GW tokens are taken within a micro-batch and weighted by
    its share of samples; they are for watching and enter no loss.
    """
    forget = batch.forget
    general = forget & ~batch.unwanted
    logit, nll = tokens.logit(), tokens.nll(general | batch.retain)

    part = [values[forget] for values in (logit, batch.reference_logit, batch.unwanted, batch.sample)]
    lpl = logit_preference_loss(*part, settings.beta, settings.per)
    pl = preservation_loss(nll[forget], general[forget], batch.sample[forget])
    loss = batch.sample_share * (lpl + settings.lambda_ * pl)
    terms = {
        "lpl": batch.sample_share * lpl,
        "pl": batch.sample_share * pl,
        "logit_drop": batch.sample_share * mean(batch.reference_logit - logit, forget & batch.unwanted),
        "general_nll": batch.sample_share * mean(nll, general),
    }
    keep, kept = retain_term(nll, batch, settings.retain)
    return loss + keep, {**terms, **kept}
