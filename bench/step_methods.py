"""Every unlearning method: one optimiser step as the pipeline does it, against the same step done naively.

    python bench/step.py --methods

naive: forget answers, refusals and retain answers in a forward pass each, padded to the longest, logits and their
log-softmax at every position; where the method compares with the target model, a reference model in memory runs over
the same rows in every step. It runs the objective of the method itself, so the two versions differ in how they come
by its inputs and in nothing else. Both start from the same weights and must give the same loss at every step.

Settings are those of params.yaml, but for `weights`, which is uniform: with the spans the head would run on fewer
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
from turns import CLIP, LEARNING_RATE, Setup, Turns, build, rows, take_turns, watch_updates

from tif.batches import Batch, Example, collate
from tif.methods import Needs
from tif.models import AnswerTokens, Card, LanguageModel, answer_tokens, prepare
from tif.params import Compute, validate
from tif.scoring import score
from tif.train import Optimisation, train
from tif.unlearn import with_hidden

ROOT = Path(__file__).resolve().parent.parent
REFUSAL_TOKENS = 10
WITH_REFERENCE = ("dpo", "npo", "tpo")  # these compare with single values of the target model


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
    if values.get("weights") in ("spans", "scores"):
        values["weights"] = "uniform"
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
    losses: list[Tensor] = []

    def forward(model: LlamaForCausalLM, batch: Batch) -> AnswerTokens:
        return replace(answer_tokens(model, batch, needs.layer, needs.own), reference_head=head)

    def objective(tokens: AnswerTokens, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        loss, terms = chosen.objective(tokens, batch)
        losses.append(loss.detach())
        return loss, terms

    def after_step(epoch: int) -> None:
        turns.done(float(sum(losses)))
        losses.clear()

    optimisation = Optimisation(
        epochs=setup.steps + 1,
        batch=setup.batch,
        micro_batch=setup.micro_batch,
        lr=LEARNING_RATE,
        weight_decay=0.0,
        warmup=0.0,
        max_grad_norm=CLIP,
        seed=0,
    )
    watch_updates(turns)
    policy = LanguageModel(build(setup, seed=0), None, card)
    train(policy, forget, objective, optimisation, "cpu", False, retain, after_step, chosen.learner, forward)


@torch.no_grad()
def _referenced(target: LanguageModel, examples: list[Example]) -> list[Example]:
    scores = score(target, [replace(example, refusal=None) for example in examples], progress=False)
    parts = [np.split(values, scores.bounds[1:-1]) for values in (scores.logit.astype(np.float32), scores.logprob)]
    return [
        replace(example, reference_logit=torch.from_numpy(logit), reference_logprob=torch.from_numpy(logprob))
        for example, logit, logprob in zip(examples, *parts)
    ]


@dataclass(frozen=True)
class NaiveTokens:
    """What `tif.models.AnswerTokens` offers, read from logits of all positions. rows, reference: [N, V]."""

    hidden: Tensor
    label: Tensor
    rows: Tensor
    logprob: Tensor
    own: Tensor
    reference: Tensor | None

    def logit(self) -> Tensor:
        """[N] logit of the true token."""
        return self.rows.gather(-1, self.label[:, None])[:, 0]

    def nll(self, where: Tensor) -> Tensor:
        """[N] NLL of the true token, nats."""
        return torch.where(where, -self.logprob, 0)

    def per_token(self, loss: Callable[..., Tensor], where: Tensor, reference_hidden: Tensor | None = None) -> Tensor:
        """[N] a loss of whole rows of logits."""
        known = [] if reference_hidden is None else [self.reference]
        return torch.where(where, loss(self.rows, self.label, *known), 0)


def naive_rows(model: LlamaForCausalLM, batches: list[Batch], layer: int | None) -> dict[str, Tensor]:
    """A forward pass for each batch; hidden states, logits, log-probabilities of the answer tokens of all of them."""
    found: dict[str, list[Tensor]] = {"hidden": [], "rows": [], "logprob": [], "own": []}
    for batch in batches:
        output = model(input_ids=batch.input_ids, use_cache=False, output_hidden_states=True)
        logprob = output.logits[:, :-1].log_softmax(-1).gather(-1, batch.input_ids[:, 1:, None])[..., 0]
        found["rows"].append(output.logits[batch.row, batch.column])
        found["logprob"].append(logprob[batch.row, batch.column])
        states = output.hidden_states[-1 if layer is None else layer]
        found["hidden"].append(states[batch.row, batch.column])
        found["own"].append(states[batch.row, batch.column + 1].detach())
    return {name: torch.cat(parts) for name, parts in found.items()}


def run_naive(name: str, setup: Setup, turns: Turns) -> None:
    """A plain loop with the reference model in memory where the method has one."""
    chosen = method(name, setup)
    needs = chosen.needs
    forget, retain = samples(setup, needs)
    whole = collate([*forget, *retain])
    groups = [collate([replace(example, refusal=None) for example in forget])]
    groups += [collate(retain)] if retain else []
    groups += [collate([example.refusal for example in forget])] if needs.refusals else []
    policy = build(setup, seed=0).train()
    reference = build(setup, seed=1).eval() if name in WITH_REFERENCE or needs.cached else None
    optimiser = torch.optim.AdamW(policy.parameters(), lr=LEARNING_RATE, weight_decay=0.0, fused=True)
    schedule = get_linear_schedule_with_warmup(optimiser, 0, setup.steps + 1)
    for step in range(setup.steps + 1):
        known = None
        batch = whole
        if reference is not None:
            with torch.no_grad():
                known = naive_rows(reference, groups, needs.layer)
            logit = known["rows"].gather(-1, whole.label[:, None])[:, 0]
            batch = replace(
                whole, reference_logit=logit, reference_logprob=known["logprob"], reference_hidden=known["hidden"]
            )
        found = naive_rows(policy, groups, needs.layer)
        tokens = NaiveTokens(label=whole.label, reference=known and known["rows"], **found)
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
