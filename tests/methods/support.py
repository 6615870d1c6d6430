"""What the tests of the methods share: samples, the objective on cut batches, naive scores, and points set by hand."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from types import ModuleType

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from tif.lm.batches import Batch, Example, collate
from tif.lm.logits import AnswerTokens, answer_tokens
from tif.lm.models import LanguageModel
from tif.methods import Needs
from tif.unlearning.examples import with_hidden


@dataclass(frozen=True)
class World:
    """A model in training, another that is its target model, and samples with the target model's values."""

    model: PreTrainedModel
    target: LanguageModel
    forget: list[Example]
    retain: list[Example]

    def step(self, needs: Needs, forget: int, retain: int) -> list[Example]:
        """An effective batch of so many samples, as `tif.unlearning.run.unlearn` would supply them."""
        mine, others = self.forget[:forget], self.retain[: retain if needs.retain else 0]
        if not needs.refusals:
            mine = [replace(example, refusal=None) for example in mine]
        if "forget" in needs.cached:
            mine = with_hidden(self.target, mine, needs.layer)
        if "retain" in needs.cached:
            others = with_hidden(self.target, others, needs.layer)
        return [*mine, *others]

    def tokens(self, batch: Batch, needs: Needs) -> AnswerTokens:
        """The answer tokens of a batch under the model in training."""
        head = self.target.model.get_output_embeddings()
        return replace(answer_tokens(self.model, batch, needs.layer, needs.own), reference_head=head)


def objective_of(module: ModuleType, settings, world: World) -> Callable:
    """The objective of a method, also of one that learns more than the model."""
    if hasattr(module, "Learner"):
        return module.Learner(settings, world.model.config.hidden_size, 10, "cpu").objective
    return lambda tokens, batch: module.objective(tokens, batch, settings)


def total(world: World, module: ModuleType, settings, batches: list[Batch]) -> tuple[float, dict[str, float], Tensor]:
    """Sums over micro-batches of the loss, of the logged terms and of the gradient, all weights in one vector."""
    needs, objective = module.needs(settings), objective_of(module, settings, world)
    world.model.zero_grad()
    value, terms = 0.0, {}
    for batch in batches:
        loss, parts = objective(world.tokens(batch, needs), batch)
        loss.backward()
        value += loss.item()
        assert not terms or list(terms) == list(parts), "processes sum terms by their order"
        terms = {name: terms.get(name, 0) + part.item() for name, part in parts.items()}
    return value, terms, gradient(world.model)


def gradient(model: PreTrainedModel) -> Tensor:
    """[all weights]; 0 where a loss does not reach a weight."""
    weights = list(model.parameters())
    return torch.cat([(torch.zeros_like(w) if w.grad is None else w.grad.clone()).flatten() for w in weights])


def assert_near(found: Tensor, expected: Tensor, tolerance: float) -> None:
    """Two gradients differ nowhere by more than `tolerance` times the largest number in them."""
    largest = expected.abs().max().item()
    assert largest > 1e-6, "a gradient of nothing shows nothing"
    assert (found - expected).abs().max().item() <= tolerance * largest


def check(world: World, module: ModuleType, settings, naive: Callable[[list[Example], list[Example]], Tensor]) -> dict:
    """The method equals its formula in value and gradient, on a batch of six forget samples and four of the rest.

    naive: (forget samples, retain samples) -> loss, written for one sample at a time. Returns the logged terms.
    """
    step = world.step(module.needs(settings), 6, 4)
    value, terms, found = total(world, module, settings, [collate(step)])
    expected = naive([e for e in step if e.forget], [e for e in step if not e.forget])
    assert value == pytest.approx(expected.item(), rel=1e-5)
    world.model.zero_grad()
    expected.backward()
    assert_near(found, gradient(world.model), 1e-4)
    return terms


def rows(model: PreTrainedModel, example: Example) -> list[tuple[Tensor, int]]:
    """(logits over the vocabulary, true token) of every answer token, from the model's own full forward pass."""
    logits = model(input_ids=example.ids[None]).logits[0].float()
    return [(logits[at - 1], int(example.ids[at])) for at in range(example.start, len(example.ids))]


def nlls(model: PreTrainedModel, example: Example) -> list[Tensor]:
    """Negative log-likelihoods of an example's answer tokens."""
    return [-row.log_softmax(0)[label] for row, label in rows(model, example)]


def token_weights(example: Example, weights: str) -> list[float]:
    """The weight of every answer token of a forget sample."""
    if weights == "uniform":
        return [1.0] * len(example.offsets)
    return [float(value) for value in (example.unwanted if weights == "spans" else example.score)]


def average(values) -> Tensor:
    """Mean of scalars; 0 of none."""
    values = list(values)
    return sum(values) / len(values) if values else torch.zeros(())


def retain_nll(world: World, retain: list[Example]) -> Tensor:
    """Mean over all answer tokens of the retain samples."""
    return average(value for example in retain for value in nlls(world.model, example))


def retain_kl(world: World, retain: list[Example]) -> Tensor:
    """Mean KL(target || model) over all answer tokens of the retain samples."""
    values = []
    for example in retain:
        for (row, _), (known, _) in zip(rows(world.model, example), rows(world.target.model, example), strict=True):
            q, p = known.detach().softmax(0), row.softmax(0)
            values.append((q * (q / p).log()).sum())
    return average(values)


def by_hand(
    probabilities: list[list[float]],
    kind: str,
    sample: list[int] | None = None,
    score: list[float] | None = None,
    reference: list[list[float]] | None = None,
) -> tuple[AnswerTokens, Batch]:
    """Answer tokens with given distributions, whose true token is always number 0; a hidden state is a row of logits.

    kind: a letter a token: f (forget), u (forget, unwanted), i (refusal: "I don't know"), r (retain). sample: 0
    everywhere unless given. reference: distributions under the target model.
    """
    hidden = torch.tensor(probabilities).log().requires_grad_()
    known = None if reference is None else torch.tensor(reference).log()
    size, width = hidden.shape
    head = torch.nn.Linear(width, width, bias=False)
    head.weight = torch.nn.Parameter(torch.eye(width))
    flag = {letter: torch.tensor([letter == other for other in kind]) for letter in "fui"}
    label = torch.zeros(size, dtype=torch.int64)
    sample = torch.tensor(sample or [0] * size)
    batch = Batch(
        input_ids=label[None],
        row=label,
        column=label,
        label=label,
        sample=sample,
        forget=flag["f"] | flag["u"],
        refusal=flag["i"],
        unwanted=flag["u"],
        score=torch.tensor(score or [0.0] * size),
        reference_logit=torch.zeros(size),
        reference_logprob=torch.zeros(size) if known is None else known[:, 0],
        reference_hidden=known,
        sample_share=1.0,
        forget_token_share=1.0,
        token_share=1.0,
        sample_ids=tuple(str(number) for number in range(int(sample.max()) + 1)),
    )
    return AnswerTokens(hidden, label, head, reference_head=head), batch
