"""The language-model head on answer tokens only: logits, losses and their gradients, never more rows than fit."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from tif.base.errors import UserError
from tif.lm.batches import Batch

LOGIT_BUDGET = 2**26  # logits of one chunk in training; 256 MiB in float32
SCORING_BUDGET = 2**25  # the same where nothing is trained


@dataclass(frozen=True)
class AnswerTokens:
    """Scores of the N answer tokens of a batch, computed from hidden states only where they are asked for.

    hidden: [N, d] the last hidden state that predicts each token, or that of the layer asked for. label: int64 [N].
    own: [N, d] last hidden state at the token's own position, detached. reference_head: the target model's head,
    frozen. The last two are None unless the method needs them (see `tif.methods.Needs`).

    Rows over the vocabulary (V wide) are computed for at most LOGIT_BUDGET / V tokens at a time, and again in the
    backward pass where there are more tokens than that. So one float32 buffer of LOGIT_BUDGET numbers bounds the
    memory for logits, beside a copy in the head's dtype where that is another.
    """

    hidden: Tensor
    label: Tensor
    head: torch.nn.Linear
    own: Tensor | None = None
    reference_head: torch.nn.Linear | None = None

    def logit(self) -> Tensor:
        """[N] raw logit of the true token: one dot product each, no row over the vocabulary."""
        value = (self.hidden.float() * F.embedding(self.label, self.head.weight).float()).sum(-1)
        if self.head.bias is not None:
            value = value + self.head.bias[self.label]
        return value

    def nll(self, where: Tensor) -> Tensor:
        """[N] negative log-likelihood (nats) of the true token where `where` (bool [N]) is true, elsewhere 0."""
        hidden, weight, bias = self.hidden[where], self.head.weight, self.head.bias
        if torch.is_autocast_enabled(hidden.device.type):  # which does not reach into the backward pass
            dtype = torch.get_autocast_dtype(hidden.device.type)
            hidden, weight = hidden.to(dtype), weight.to(dtype)
            bias = bias if bias is None else bias.to(dtype)
        return _spread(_TokenNll.apply(hidden, weight, bias, self.label[where]), where)

    def per_token(self, loss: Callable[..., Tensor], where: Tensor, reference_hidden: Tensor | None = None) -> Tensor:
        """[N] a loss of whole rows of logits where `where` (bool [N]) is true, elsewhere 0.

        loss: (logits [n, V], label [n]) -> [n], in float32; with reference_hidden [N, d], a third argument holds the
        target model's logits [n, V]. Some more buffers of the chunk's size live inside of `loss`: seven of them in all
        for a Kullback-Leibler divergence.
        """
        parts = [self.hidden[where], self.label[where]]
        if reference_hidden is not None:
            parts.append(reference_hidden[where])

        def chunk(hidden: Tensor, label: Tensor, *reference: Tensor) -> Tensor:
            with torch.no_grad():
                known = [self.reference_head(states).float() for states in reference]
            return loss(self.head(hidden).float(), label, *known)

        size = chunk_rows(self.head.weight.shape[0], LOGIT_BUDGET)
        if len(parts[0]) <= size:
            return _spread(chunk(*parts), where)
        chunks = zip(*(torch.split(part, size) for part in parts))
        return _spread(torch.cat([checkpoint(chunk, *part, use_reentrant=False) for part in chunks]), where)


def chunk_rows(vocabulary: int, budget: int) -> int:
    """Rows over the vocabulary that a budget of numbers holds, at least one."""
    return max(1, budget // vocabulary)


def _spread(chosen: Tensor, where: Tensor) -> Tensor:
    return torch.zeros(len(where), dtype=chosen.dtype, device=chosen.device).masked_scatter(where, chosen)


class _TokenNll(torch.autograd.Function):
    """Linear head and cross-entropy in one, with one [n, V] buffer instead of four: hidden [n, d], label [n] -> [n].

    The buffer holds the logits, then exp(logit - largest), and in the backward pass the gradient of the logits,
    softmax - one-hot. It is used up by the backward pass, so a graph can be walked only once. With more tokens than
    one chunk holds, no buffer is kept: the backward pass computes the logits of each chunk again.
    """

    @staticmethod
    def forward(ctx, hidden: Tensor, weight: Tensor, bias: Tensor | None, label: Tensor) -> Tensor:
        size = chunk_rows(weight.shape[0], LOGIT_BUDGET)
        ctx.save_for_backward(hidden, weight, bias, label)
        ctx.kept = None
        if len(hidden) <= size:
            nll, *kept = _exponentials(hidden, weight, bias, label)
            if any(ctx.needs_input_grad):
                ctx.kept = kept
            return nll
        parts = zip(torch.split(hidden, size), torch.split(label, size))
        return torch.cat([_exponentials(states, weight, bias, labels)[0] for states, labels in parts])

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, label = ctx.saved_tensors
        size = chunk_rows(weight.shape[0], LOGIT_BUDGET)
        states, of_weight, of_bias = [], None, None
        for part, labels, above in zip(*(torch.split(values, size) for values in (hidden, label, grad))):
            rows, total = ctx.kept or _exponentials(part, weight, bias, labels)[1:]
            ctx.kept = None
            rows.mul_(above[:, None] / total)
            rows.scatter_add_(-1, labels[:, None], -above[:, None])
            rows = rows.to(weight.dtype)
            states.append(rows @ weight)
            if ctx.needs_input_grad[1]:  # not where the head is frozen
                of_weight = rows.T @ part if of_weight is None else of_weight.addmm_(rows.T, part)
            if ctx.needs_input_grad[2]:
                of_bias = rows.sum(0) if of_bias is None else of_bias + rows.sum(0)
            del rows  # or two chunks would exist while the next is computed
        return torch.cat(states), of_weight, of_bias, None


def _exponentials(hidden: Tensor, weight: Tensor, bias: Tensor | None, label: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """NLL [n], and in one [n, V] buffer exp(logit - largest) with its sums [n, 1]."""
    rows = F.linear(hidden, weight, bias).float()
    chosen = rows.gather(-1, label[:, None])
    largest = rows.amax(-1, keepdim=True)
    total = rows.sub_(largest).exp_().sum(-1, keepdim=True)
    return (total.log() + largest - chosen).squeeze(-1), rows, total


def answer_tokens(model: PreTrainedModel, batch: Batch, layer: int | None = None, own: bool = False) -> AnswerTokens:
    """One forward pass of the backbone; see `AnswerTokens`. No logits are computed yet.

    layer: take the hidden states after that many decoder layers instead of the last. own: whether to gather `own`.
    Raises UserError when the model has fewer layers.
    """
    output = model.base_model(input_ids=batch.input_ids, use_cache=False, output_hidden_states=layer is not None)
    if layer is not None and layer >= len(output.hidden_states):
        layers = len(output.hidden_states) - 1
        raise UserError(f"params.yaml: layer = {layer} of the method's block: the model has layers 1 to {layers} only")
    states = output.last_hidden_state if layer is None else output.hidden_states[layer]
    return AnswerTokens(
        hidden=states[batch.row, batch.column],
        label=batch.label,
        head=model.get_output_embeddings(),
        own=states[batch.row, batch.column + 1].detach() if own else None,
    )
