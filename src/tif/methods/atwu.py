"""ATWU (arXiv 2606.06320): unlearn with token weights that a small scorer learns along the way, from no annotation.

L = alpha * CE_retain - gamma * mean_t[s_t * g_t * l_t],    l_t = -log p(true token), t over forget answer tokens
J = mean_t[(1 - g_t) * l_t] + entropy * mean_t H(g_t) + population * mean_b (mean_{t in b} hard(g_t) - budget)^2
    + l2 * |w|^2

g_t = sigmoid(w . h_t + b) is the scorer, h_t the last hidden state at the token's own position. The model minimises L
with g fixed, the scorer minimises J with the model fixed. Retain training keeps the loss of tokens low that retain
answers share, so l_t, and with it g_t, rises where forgetting meets no resistance.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from tif.base.errors import UserError
from tif.base.late import Late
from tif.base.params import Block
from tif.methods import Needs, forget_mean, retain_term, token_weights

if TYPE_CHECKING:
    from torch import Tensor

    from tif.lm.batches import Batch
    from tif.lm.logits import AnswerTokens

torch = Late("torch")
F = Late("torch.nn.functional")


class Settings(Block):
    """`atwu`. token_weights: what g_t is: learned, or fixed, see `tif.methods.token_weights`.

    alpha, gamma: weights of the retain and of the forget term. beta: how early the forget term saturates; saturation:
    "weighted" has s_t = exp(-beta * g_t * l_t), "wga" s_t = exp(-beta * l_t).
    every: optimiser steps from one step of the scorer to the next. scorer_lr (decays linearly to 0), momentum,
    scorer_weight_decay, clip (largest norm of the gradient): of its SGD. entropy, population, budget, l2: see J.
    """

    token_weights: Literal["learned", "uniform", "spans", "scores"]
    alpha: float = Field(ge=0)
    gamma: float = Field(gt=0)
    beta: float = Field(ge=0)
    saturation: Literal["weighted", "wga"]
    every: int = Field(ge=1)
    scorer_lr: float = Field(gt=0)
    momentum: float = Field(ge=0, lt=1)
    scorer_weight_decay: float = Field(ge=0)
    clip: float = Field(gt=0)
    entropy: float = Field(ge=0)
    population: float = Field(ge=0)
    budget: float = Field(ge=0, le=1)
    l2: float = Field(ge=0)


def needs(settings: Settings) -> Needs:
    """Retain samples, with a retain term only; hidden states, to learn weights only."""
    return Needs(retain=settings.alpha > 0, own=settings.token_weights == "learned")


def forget_loss(nll: Tensor, weight: Tensor, beta: float, saturation: str) -> Tensor:
    """mean_t[s_t * g_t * l_t], with no gradient through s and g.

    nll: [n] of forget tokens, nats. weight: [n] g in [0, 1]. beta, saturation: see `Settings`. Returns a scalar, 0
    where n is 0.
    """
    weight = weight.detach()
    exponent = nll.detach() * (weight if saturation == "weighted" else 1)
    return (torch.exp(-beta * exponent) * weight * nll).sum() / max(len(nll), 1)


def scorer_loss(score: Tensor, nll: Tensor, sample: Tensor, settings: Settings) -> tuple[Tensor, Tensor]:
    """The two parts of J that are means, over tokens and over samples; J = both + l2 * |w|^2.

    score: [n] w . h_t + b, the logit of g. nll: [n] nats. sample: int64 [n]. hard(g) is 1 where g > .5, else 0, and
    has the gradient of g (straight through). Returns two scalars, 0 where n is 0.
    """
    weight, nll = score.sigmoid(), nll.detach()
    entropy = weight * F.softplus(-score) + (1 - weight) * F.softplus(score)
    tokens = ((1 - weight) * nll + settings.entropy * entropy).sum() / max(len(nll), 1)
    hard = (weight > 0.5).to(weight.dtype) + weight - weight.detach()
    _, index, count = torch.unique(sample, return_inverse=True, return_counts=True)
    share = torch.zeros(len(count), dtype=weight.dtype, device=weight.device).index_add(0, index, hard) / count
    samples = settings.population * ((share - settings.budget) ** 2).sum() / max(len(count), 1)
    return tokens, samples


class Learner:
    """The scorer, its SGD, and the loss of the model; see `tif.training.loop.Learner`.

    On every `every`th step, the first included, the hidden states and losses of the model's own forward pass serve J.
    The scorer is updated when the step's micro-batches have been seen, so the model's next step is the first to use
    its new weights: one forward pass a step, and neither loss ever has a gradient into the other's parameters.
    """

    def __init__(self, settings: Settings, width: int, steps: int, device: str) -> None:
        """width: hidden size d of the model. steps: optimiser steps of the model in all."""
        self.settings = settings
        self.steps = steps
        self.step = 0
        self.scorer = torch.nn.utils.skip_init(torch.nn.Linear, width, 1, device=device, dtype=torch.float32)
        for parameter in self.scorer.parameters():
            torch.nn.init.zeros_(parameter)
            parameter.grad = torch.zeros_like(parameter)
        self.sgd = torch.optim.SGD(
            self.scorer.parameters(), settings.scorer_lr, settings.momentum, weight_decay=settings.scorer_weight_decay
        )

    def objective(self, tokens: AnswerTokens, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The micro-batch's share of L, and its share of the values to log; collects the scorer's gradient of J.

        Logged: forget_loss (mean of s g l), forget_nll and weight (means of l and g), and, if used, retain_nll.
        """
        settings, forget = self.settings, batch.forget
        nll = tokens.nll(forget | batch.retain if settings.alpha else forget)
        weight = self._weight(tokens, batch)
        saturated = batch.forget_token_share * forget_loss(nll[forget], weight, settings.beta, settings.saturation)
        keep, kept = retain_term(nll, batch, settings.alpha)
        if self._learns():
            self._collect(tokens.own[forget], nll[forget], batch)
        terms = {
            "forget_loss": saturated,
            "forget_nll": forget_mean(nll, batch),
            "weight": batch.forget_token_share * weight.sum() / max(len(weight), 1),
        }
        return keep - settings.gamma * saturated, {**terms, **kept}

    def _weight(self, tokens: AnswerTokens, batch: Batch) -> Tensor:
        if self.settings.token_weights == "learned":
            return self.token_weights(tokens.own[batch.forget])
        return token_weights(batch, self.settings.token_weights)[batch.forget]

    def _learns(self) -> bool:
        return self.settings.token_weights == "learned" and self.step % self.settings.every == 0

    def _collect(self, own: Tensor, nll: Tensor, batch: Batch) -> None:
        with torch.enable_grad():
            parts = scorer_loss(self._score(own), nll, batch.sample[batch.forget], self.settings)
            share = batch.forget_token_share * parts[0] + batch.sample_share * parts[1]
        for parameter, gradient in zip(self.scorer.parameters(), torch.autograd.grad(share, self.scorer.parameters())):
            parameter.grad += gradient

    def after_step(self, step: int, sum_over_processes: Callable[[Tensor], Tensor]) -> None:
        """On every `every`th step: sum the gradient over the processes, clip it, and take one step of SGD."""
        if self._learns():
            for parameter in self.scorer.parameters():
                parameter.grad = sum_over_processes(parameter.grad)
            # not a mean over tokens, so it has no share
            self.scorer.weight.grad += 2 * self.settings.l2 * self.scorer.weight.detach()
            torch.nn.utils.clip_grad_norm_(self.scorer.parameters(), self.settings.clip)
            self.sgd.param_groups[0]["lr"] = self.settings.scorer_lr * (1 - step / self.steps)
            self.sgd.step()
            self.sgd.zero_grad(set_to_none=False)
        self.step = step + 1

    def token_weights(self, own: Tensor) -> Tensor:
        """[n] g in [0, 1] of hidden states [n, d]."""
        with torch.no_grad():
            return self._score(own).sigmoid()

    def _score(self, own: Tensor) -> Tensor:
        with torch.autocast(own.device.type, enabled=False):  # mixed precision would have it in bfloat16
            return self.scorer(own.detach().float())[:, 0]

    def state_dict(self) -> dict:
        """Scorer, state of its SGD, and the number of steps done."""
        return {"scorer": self.scorer.state_dict(), "sgd": self.sgd.state_dict(), "step": self.step}

    def load_state_dict(self, state: dict) -> None:
        """Raises UserError for a scorer of another hidden size."""
        found, width = state["scorer"]["weight"].shape[1], self.scorer.in_features
        if found != width:
            raise UserError(
                f"the saved scorer of atwu reads hidden states of {found} numbers, and this model's have {width}: it"
                " belongs to another model; delete the work folder of this run and run again"
            )
        self.scorer.load_state_dict(state["scorer"])
        self.sgd.load_state_dict(state["sgd"])
        self.step = state["step"]
