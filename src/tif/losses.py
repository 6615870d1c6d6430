"""Unlearning objectives as pure functions on flat answer tokens.

All answer tokens of a batch lie on one axis of length N; `sample` says which sample a token belongs to. Every loss
reduces per sample first and then takes the mean over the distinct ids in `sample`, so it depends neither on padding
nor on how a batch is cut into micro-batches.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def logit_preference_loss(
    logit: Tensor, reference_logit: Tensor, unwanted: Tensor, sample: Tensor, beta: float
) -> Tensor:
    """Logit Preference Loss (LPL): push the raw logit of unwanted tokens below the target model's.

        margin_b = mean over U_b of (reference_logit - logit)
        LPL      = mean over b of -(2 / beta) * log sigmoid(beta * margin_b)

    U_b are the unwanted tokens of sample b; a sample without any contributes 0 and stays in the denominator.

    Args:
        logit: [N] raw logit of the true next token under the model in training.
        reference_logit: [N] the same under the frozen target model.
        unwanted: bool [N], true for unwanted tokens.
        sample: int64 [N], id of the sample a token belongs to.
        beta: inverse temperature, above 0. The larger, the earlier the loss saturates.

    Returns:
        A scalar, in units of logits: (2 / beta) * ln 2 for every sample at margin 0. It is 0 when N is 0.

    Raises:
        ValueError: beta is not positive, or the tensors are not all of shape [N].

    Source: arXiv 2506.03142, with the log-sigmoid taken per sample and not per micro-batch.
    """
    if not beta > 0:
        raise ValueError(f"beta must be above 0, not {beta}")
    _check_flat(logit, reference_logit, unwanted, sample)
    index, samples = _dense(sample)
    count = _segment_sum(unwanted.to(logit.dtype), index, samples)
    # where, not a product: a general token may hold any value, even one that is not finite
    drop = torch.where(unwanted, reference_logit - logit, 0)
    margin = _segment_sum(drop, index, samples) / count.clamp(min=1)
    loss = -(2 / beta) * F.logsigmoid(beta * margin)
    return torch.where(count > 0, loss, 0).sum() / max(samples, 1)


def preservation_loss(nll: Tensor, general: Tensor, sample: Tensor) -> Tensor:
    """Preservation Loss (PL): keep general tokens likely.

        PL = mean over b of sum over G_b of nll

    G_b are the general tokens of sample b, end of sequence included. The inner sum is a sum, as published.

    Args:
        nll: [N] negative log-likelihood of the true token, nats.
        general: bool [N], true for general tokens.
        sample: int64 [N], id of the sample a token belongs to.

    Returns:
        A scalar in nats a sample; 0 when N is 0.

    Raises:
        ValueError: the tensors are not all of shape [N].

    Source: arXiv 2506.03142.
    """
    _check_flat(nll, general, sample)
    index, samples = _dense(sample)
    return _segment_sum(torch.where(general, nll, 0), index, samples).sum() / max(samples, 1)


def _dense(sample: Tensor) -> tuple[Tensor, int]:
    """Ids renumbered 0 to S-1, and S."""
    distinct, index = torch.unique(sample, return_inverse=True)
    return index, len(distinct)


def _segment_sum(values: Tensor, index: Tensor, segments: int) -> Tensor:
    return torch.zeros(segments, dtype=values.dtype, device=values.device).index_add(0, index, values)


def _check_flat(*tensors: Tensor) -> None:
    shapes = {tuple(tensor.shape) for tensor in tensors}
    if len(shapes) != 1 or len(next(iter(shapes))) != 1:
        raise ValueError(f"expected vectors of one length N, got shapes {sorted(shapes)}")
