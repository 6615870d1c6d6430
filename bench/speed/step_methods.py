"""Every unlearning method: one optimiser step as the pipeline does it, against the same step done naively.

    python bench/speed/step.py --methods

naive: forget answers, refusals and retain answers in a forward pass each, padded to the longest, logits at every
position; log-softmax at every position of the answers whose NLL the method reads; where the method compares with the
target model, a reference model in memory runs in every step over the answers it is asked about, and over no others. It
runs the objective of the method itself, so the two versions differ in how they come by its inputs and in nothing else.
Both start from the same weights and must give the same loss at every step. naive takes the batch in one piece and tif
in micro-batches, which is part of the difference in memory (`b-micro` of step.py: how much).

Settings are those of params.yaml, but for `token_weights`, which is uniform: with the spans the head would run on fewer
tokens. The effective batch is `--batch` forget samples and, where the method trains with them, as many retain samples.
"""

import copy
import importlib
import json
import statistics
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch
from ruamel.yaml import YAML
from torch import Tensor
from transformers import LlamaForCausalLM, get_linear_schedule_with_warmup
from turns import CLIP, LEARNING_RATE, Setup, Turns, build, rows, take_turns, train_in_turns

from tif.base.params import Compute, validate
from tif.lm.batches import Batch, Example, collate
from tif.lm.logits import AnswerTokens, answer_tokens
from tif.lm.models import Card, LanguageModel, prepare
from tif.methods import Needs
from tif.scores.tokens import score
from tif.training.loop import Task
from tif.unlearning.examples import with_hidden

ROOT = Path(__file__).resolve().parents[2]
REFUSAL_TOKENS = 10
VALUES = {"tpo": "logit", "npo": "logprob", "dpo": "logprob"}  # these compare with single values of the target model


def method_names() -> list[str]:
    """All methods of the package."""
    return sorted(path.stem for path in (ROOT / "src/tif/methods").glob("[a-z]*.py"))


@dataclass
class Method:
    """A method with its settings; `objective` of a method that learns holds its state."""

    needs: Needs
    objective: Callable[[AnswerTokens, Batch], tuple[Tensor, dict[str, Tensor]]]
    learner: object | None


def method(name: str, setup: Setup) -> Method:
    """The method with the settings of params.yaml and uniform weights."""
    module = importlib.import_module(f"tif.methods.{name}")
    values = YAML(typ="safe").load(ROOT / "params.yaml")[name]
    if values.get("token_weights") in ("spans", "scores"):
        values["token_weights"] = "uniform"
    if "layer" in values:
        values["layer"] = min(values["layer"], setup.layers)
    settings = validate(name, values, module.Settings)
    learner = None
    if hasattr(module, "Learner"):
        learner = module.Learner(settings, setup.width, setup.steps + 1, "cpu")
    objective = learner.objective if learner else partial(module.objective, settings=settings)
    return Method(module.needs(settings), objective, learner)


def samples(setup: Setup, needs: Needs) -> tuple[list[Example], list[Example]]:
    """Forget samples, with refusals where needed, and retain samples, without any reference values."""
    forget = rows(setup)
    if needs.refusals:
        random = np.random.default_rng(2)
        forget = [
            replace(example, refusal=_with_answer(example, random.integers(setup.vocabulary, size=REFUSAL_TOKENS)))
            for example in forget
        ]
    retain = [replace(row, forget=False, unwanted=None) for row in rows(setup, seed=1)] if needs.retain else []
    return forget, [replace(row, sample_id=f"retain/{index:04}") for index, row in enumerate(retain)]


def _with_answer(example: Example, answer: np.ndarray) -> Example:
    ids = torch.cat([example.ids[: example.start], torch.from_numpy(answer)])
    return replace(example, ids=ids, unwanted=None, offsets=[(0, 0)] * len(answer))


def run_tif(name: str, setup: Setup, turns: Turns) -> None:
    """The training loop of the unlearn stage, on reference values computed before the first step."""
    prepare(Compute(device="cpu", threads=setup.threads))
    chosen = method(name, setup)
    needs, card = chosen.needs, Card(prompt="plain", date="", dtype="float32", attention="sdpa")
    target = LanguageModel(build(setup, seed=1), None, card)
    forget, retain = samples(setup, needs)
    forget = _referenced(target, forget)
    if needs.refusals:
        answers = _referenced(target, [example.refusal for example in forget])
        forget = [replace(example, refusal=answer) for example, answer in zip(forget, answers)]
    if "forget" in needs.cached:
        forget = with_hidden(target, forget, needs.layer)
    if "retain" in needs.cached:
        retain = with_hidden(target, retain, needs.layer)
    head = copy.deepcopy(target.model.get_output_embeddings()).requires_grad_(False) if needs.cached else None
    del target

    def forward(model: LlamaForCausalLM, batch: Batch) -> AnswerTokens:
        return replace(answer_tokens(model, batch, needs.layer, needs.own), reference_head=head)

    policy = LanguageModel(build(setup, seed=0), None, card)
    train_in_turns(setup, turns, policy, Task(forget, chosen.objective, retain, chosen.learner, forward))


@torch.no_grad()
def _referenced(target: LanguageModel, examples: list[Example]) -> list[Example]:
    scores = score(target, [replace(example, refusal=None) for example in examples], progress=False)
    parts = [np.split(values, scores.bounds[1:-1]) for values in (scores.logit.astype(np.float32), scores.logprob)]
    return [
        replace(example, reference_logit=torch.from_numpy(logit), reference_logprob=torch.from_numpy(logprob))
        for example, logit, logprob in zip(examples, *parts)
    ]


@dataclass(frozen=True)
class Forward:
    """A forward pass over one group of answers (forget, retain, refusals). logits: [B, L, V]. states: [B, L, d]."""

    batch: Batch
    logits: Tensor
    states: Tensor

    def at(self, values: Tensor) -> Tensor:
        """[n, ...] the values that belong to the group's n answer tokens."""
        return values[self.batch.row, self.batch.column]

    def logit(self) -> Tensor:
        """[n] logit of the true token."""
        return self.logits[self.batch.row, self.batch.column, self.batch.label]

    def logprob(self) -> Tensor:
        """[n] log-probability of the true token, from a log-softmax at every position."""
        found = self.logits[:, :-1].log_softmax(-1).gather(-1, self.batch.input_ids[:, 1:, None])[..., 0]
        return self.at(found)


def forward(model: LlamaForCausalLM, batch: Batch, layer: int | None) -> Forward:
    """All of it, as `model(...)` gives it."""
    output = model(input_ids=batch.input_ids, use_cache=False, output_hidden_states=True)
    return Forward(batch, output.logits, output.hidden_states[-1 if layer is None else layer])


@dataclass(frozen=True)
class NaiveTokens:
    """What `tif.lm.logits.AnswerTokens` offers.

    reference: the target model's passes; None for groups not asked about.
    """

    passes: list[Forward]
    reference: list[Forward | None]

    @property
    def hidden(self) -> Tensor:
        """[N, d] hidden states that predict the tokens."""
        return torch.cat([one.at(one.states) for one in self.passes])

    @property
    def own(self) -> Tensor:
        """[N, d] hidden states at the tokens' own positions."""
        return torch.cat([one.states[one.batch.row, one.batch.column + 1].detach() for one in self.passes])

    def logit(self) -> Tensor:
        """[N] logit of the true token of forget answers, 0 elsewhere."""
        return self._of_groups(lambda one, _: one.logit(), torch.cat([one.batch.forget for one in self.passes]))

    def nll(self, where: Tensor) -> Tensor:
        """[N] NLL of the true token, nats."""
        return torch.where(where, self._of_groups(lambda one, _: -one.logprob(), where), 0)

    def per_token(self, loss: Callable[..., Tensor], where: Tensor, reference_hidden: Tensor | None = None) -> Tensor:
        """[N] a loss of whole rows of logits."""

        def of(one: Forward, known: Forward | None) -> Tensor:
            others = [] if reference_hidden is None else [known.at(known.logits)]
            return loss(one.at(one.logits), one.batch.label, *others)

        return torch.where(where, self._of_groups(of, where), 0)

    def _of_groups(self, of: Callable[[Forward, Forward | None], Tensor], where: Tensor) -> Tensor:
        """[N] `of` each group that has a token in `where`, 0 for the others."""
        sizes = [len(one.batch.label) for one in self.passes]
        parts = zip(self.passes, self.reference, where.split(sizes))
        return torch.cat([of(one, known) if some.any() else torch.zeros(len(some)) for one, known, some in parts])


def run_naive(name: str, setup: Setup, turns: Turns) -> None:
    """A plain loop with the reference model in memory where the method has one."""
    chosen = method(name, setup)
    needs = chosen.needs
    forget, retain = samples(setup, needs)
    whole = collate([*forget, *retain])
    groups = {"forget": collate([replace(example, refusal=None) for example in forget])}
    groups |= {"retain": collate(retain)} if retain else {}
    groups |= {"refusal": collate([example.refusal for example in forget])} if needs.refusals else {}
    asked = {*needs.cached, *(("forget", "refusal") if name in VALUES else ())}
    policy = build(setup, seed=0).train()
    reference = build(setup, seed=1).eval() if asked else None
    optimiser = torch.optim.AdamW(policy.parameters(), lr=LEARNING_RATE, weight_decay=0.0, fused=True)
    schedule = get_linear_schedule_with_warmup(optimiser, 0, setup.steps + 1)
    for step in range(setup.steps + 1):
        known = [_ask(reference, group, needs.layer) if part in asked else None for part, group in groups.items()]
        batch = with_values(whole, groups, known, VALUES.get(name), bool(needs.cached))
        tokens = NaiveTokens([forward(policy, group, needs.layer) for group in groups.values()], known)
        loss, _ = chosen.objective(tokens, batch)
        loss.backward()
        if chosen.learner:
            chosen.learner.after_step(step, lambda values: values)
        torch.nn.utils.clip_grad_norm_(policy.parameters(), CLIP)
        optimiser.step()
        turns.updated()
        schedule.step()
        optimiser.zero_grad()
        turns.done(loss.item())


@torch.no_grad()
def _ask(reference: LlamaForCausalLM, group: Batch, layer: int | None) -> Forward:
    return forward(reference, group, layer)


def with_values(
    whole: Batch, groups: dict[str, Batch], known: list[Forward | None], value: str | None, hidden: bool
) -> Batch:
    """The batch with what the objective reads of the target model; 0 where it was not asked."""

    def filled(of: Callable[[Forward], Tensor], *shape: int) -> Tensor:
        pairs = zip(groups.values(), known)
        return torch.cat([of(one) if one else torch.zeros(len(group.label), *shape) for group, one in pairs])

    if value:
        whole = replace(whole, **{f"reference_{value}": filled(lambda one: getattr(one, value)())})
    if hidden:
        width = next(one.states.shape[-1] for one in known if one)
        whole = replace(whole, reference_hidden=filled(lambda one: one.at(one.states), width))
    return whole


def work(name: str, version: str, setup: Setup, pipe: Connection) -> None:
    """Body of a process: do all steps of one version of one method."""
    torch.set_num_threads(setup.threads)
    pipe.recv()
    turns = Turns(pipe)
    if version == "tif":
        run_tif(name, setup, turns)
    else:
        run_naive(name, setup, turns)


def measure(name: str, setup: Setup) -> dict[str, float | str]:
    """One row: seconds a step and peak MiB of both versions, and the naive version's share of tif's."""
    versions = {version: (work, (name, version)) for version in ("naive", "tif")}
    steps = take_turns(setup, versions, "naive", lambda: None)
    seconds = {version: statistics.median(step.seconds for step in done[1:]) for version, done in steps.items()}
    peak = {version: done[-1].peak_mib for version, done in steps.items()}
    return {
        "method": name,
        "seconds": seconds["tif"],
        "naive_seconds": seconds["naive"],
        "times_faster": seconds["naive"] / seconds["tif"],
        "peak_mib": peak["tif"],
        "naive_peak_mib": peak["naive"],
        "peak_share": peak["tif"] / peak["naive"],
    }


def main(setup: Setup, methods: list[str], as_json: bool) -> None:
    """Measure the named methods, or all, and print a row for each. Exits for a name that is none."""
    unknown = sorted(set(methods) - set(method_names()))
    if unknown:
        sys.exit(f"error: no method is called {', '.join(unknown)}; there are: {', '.join(method_names())}")
    found = []
    if not as_json:
        print(", ".join(f"{name} {value}" for name, value in asdict(setup).items()))
        columns = ("method", "s/step", "naive", "x faster", "peak MiB", "naive", "share")
        print("".join(f"{column:<10}" if column == "method" else f"{column:>10}" for column in columns), flush=True)
    for name in methods or method_names():
        row = measure(name, setup)
        found.append(row)
        if not as_json:
            numbers = f"{row['seconds']:>10.3f}{row['naive_seconds']:>10.3f}{row['times_faster']:>10.2f}"
            memory = f"{row['peak_mib']:>10.0f}{row['naive_peak_mib']:>10.0f}{row['peak_share']:>10.2f}"
            print(f"{name:<10}{numbers}{memory}", flush=True)
    if as_json:
        print(json.dumps({"setup": asdict(setup), "methods": found}, indent=2))
