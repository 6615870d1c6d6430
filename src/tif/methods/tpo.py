"""Targeted Preference Optimization (arXiv 2506.03142): unlearn unwanted words, preserve general ones.

TPO = LPL + lambda * PL  (+ retain * mean NLL of retain answer tokens)
"""

import torch
from pydantic import Field
from torch import Tensor

from tif.batches import Batch
from tif.losses import logit_preference_loss, preservation_loss
from tif.methods import Needs
from tif.models import AnswerTokens
from tif.params import Block


class Settings(Block):
    """`tpo`. beta: inverse temperature of LPL, > 0. lambda: weight of PL, >= 0. retain: weight of the retain term."""

    beta: float = Field(gt=0)
    lambda_: float = Field(alias="lambda", ge=0)
    retain: float = Field(ge=0)


def needs(settings: Settings) -> Needs:
    """Retain samples, with a retain term only."""
    return Needs(retain=settings.retain > 0)


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
    lpl = logit_preference_loss(*part, settings.beta)
    pl = preservation_loss(nll[forget], general[forget], batch.sample[forget])
    loss = batch.sample_share * (lpl + settings.lambda_ * pl)
    terms = {
        "lpl": batch.sample_share * lpl,
        "pl": batch.sample_share * pl,
        "logit_drop": batch.sample_share * _mean(batch.reference_logit - logit, forget & batch.unwanted),
        "general_nll": batch.sample_share * _mean(nll, general),
    }
    if settings.retain:
        retain_nll = batch.token_share * _mean(nll, batch.retain)
        loss = loss + settings.retain * retain_nll
        terms["retain_nll"] = retain_nll
    return loss, terms


def _mean(values: Tensor, where: Tensor) -> Tensor:
    return values[where].mean() if where.any() else torch.zeros((), device=values.device)
