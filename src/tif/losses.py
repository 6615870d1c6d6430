"""Unlearning objectives as pure functions on flat answer tokens.

All answer tokens of a batch lie on one axis of length N; `sample` says which sample a token belongs to. Losses of
samples reduce per sample first and then take the mean over the distinct ids in `sample`, so they depend neither on
padding nor, but for the batch form of LPL, on how a batch is cut into micro-batches.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from tif.base.late import Late

if TYPE_CHECKING:
    from torch import Tensor

torch = Late("torch")
F = Late("torch.nn.functional")


def sample_sums(values: Tensor, weight: Tensor, sample: Tensor) -> tuple[Tensor, Tensor]:
    """Weighted sums per sample: sum_t w_t v_t and sum_t w_t over the tokens t of each of the S samples.

    values: [N]. weight: [N], at least 0; where it is 0 the value is not read, even one that is not finite.
    sample: int64 [N], id of the sample a token belongs to. Returns [S], [S], samples in the order of their ids.
    Raises ValueError: the tensors are not all of shape [N].
    """
    _check_flat(values, weight, sample)
    index, samples = _dense(sample)
    weighted = torch.where(weight > 0, weight * values, 0)
    return _segment_sum(weighted, index, samples), _segment_sum(weight, index, samples)


def log_sigmoid_loss(margin: Tensor, counts: Tensor, beta: float) -> Tensor:
    """The saturating loss that LPL, NPO, SimNPO and DPO share.

        mean over b of -(2 / beta) * log sigmoid(beta * margin_b)

    Its slope in a margin is -2 sigmoid(-beta * margin_b): -1 at margin 0, near 0 far above it, at most 2 in size.

    Args:
        margin: [S], how far sample b is beyond what it is compared with, nats or logits.
        counts: bool [S]; a sample for which it is false contributes 0 and stays in the denominator.
        beta: inverse temperature, above 0. The larger, the earlier the loss saturates.

    Returns:
        A scalar in units of the margin: (2 / beta) ln 2 when every margin is 0. It is 0 when S is 0.

    Raises:
        ValueError: beta is not positive.
    """
    if not beta > 0:
        raise ValueError(f"beta must be above 0, not {beta}")
    loss = -(2 / beta) * F.logsigmoid(beta * margin)
    return torch.where(counts, loss, 0).sum() / max(len(margin), 1)


def logit_preference_loss(
    logit: Tensor,
    reference_logit: Tensor,
    unwanted: Tensor,
    sample: Tensor,
    beta: float,
    per: Literal["sample", "batch"] = "sample",
) -> Tensor:
    """Logit Preference Loss (LPL): push the raw logit of unwanted tokens below the target model's.

        margin_b = mean over U_b of (reference_logit - logit)
        LPL      = mean over b of -(2 / beta) * log sigmoid(beta * margin_b)                  per sample
        LPL      = -(2 / beta) * log sigmoid(beta * mean over b of margin_b) * S_U / S        per batch

    U_b are the unwanted tokens of sample b; a sample without any contributes 0 and stays in the denominator: it has no
    margin, and S_U of the S samples have one.

    Args:
        logit: [N] raw logit of the true next token under the model in training.
        reference_logit: [N] the same under the frozen target model.
        unwanted: bool [N], true for unwanted tokens.
        sample: int64 [N], id of the sample a token belongs to.
        beta: inverse temperature, above 0. The larger, the earlier the loss saturates.
        per: where the log-sigmoid is taken. The batch form is no sum over samples, so it does depend on which
            samples are given together.

    Returns:
        A scalar, in units of logits: (2 / beta) * ln 2 for every sample at margin 0. It is 0 when N is 0.

    Raises:
        ValueError: beta is not positive, or the tensors are not all of shape [N].

    Source: arXiv 2506.03142 for one sample; the batch form is that of the code published with it.
    """
    _check_flat(logit, reference_logit, unwanted, sample)
    total, count = sample_sums(reference_logit - logit, unwanted.to(logit.dtype), sample)
    margin, known = total / count.clamp(min=1), count > 0
    if per == "sample":
        return log_sigmoid_loss(margin, known, beta)
    together = log_sigmoid_loss((margin.sum() / known.sum().clamp(min=1))[None], known.any()[None], beta)
    return together * known.sum() / max(len(margin), 1)


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


def kl_divergence(logits: Tensor, label: Tensor, reference: Tensor) -> Tensor:
    """KL(target || model) of whole next-token distributions: sum_v q_v (log q_v - log p_v), q of the target model.

    logits, reference: float [n, V] under the model in training and the target model. label: not read; it is there for
    `tif.lm.logits.AnswerTokens.per_token`. Returns [n] nats, 0 where the distributions are equal.
    """
    return F.kl_div(logits.log_softmax(-1), reference.log_softmax(-1), reduction="none", log_target=True).sum(-1)


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
