"""Unlearning: train on the forget samples with a method, and watch the trajectory."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import ModuleType

import numpy as np
from transformers import PreTrainedModel

from tif.base.errors import UserError
from tif.base.params import Block
from tif.lm.batches import Batch, Example, encode_pairs
from tif.lm.logits import AnswerTokens, answer_tokens
from tif.lm.models import LanguageModel
from tif.methods import Needs
from tif.reference.table import triples
from tif.runs.checkpoints import Checkpoints
from tif.runs.resume import Resumable
from tif.scores.passes import passes
from tif.training import sharding
from tif.training.loop import Learner, Run, Task, train
from tif.training.memory import fitted
from tif.training.schedule import Schedule
from tif.unlearning.examples import Data, with_hidden
from tif.unlearning.selection import Best, best, standings
from tif.unlearning.settings import Settings
from tif.unlearning.trajectory import trajectory


@dataclass(frozen=True)
class Method:
    """A module of `tif.methods`, and its block."""

    module: ModuleType
    settings: Block

    @property
    def needs(self) -> Needs:
        return self.module.needs(self.settings)

    def learner(self, width: int, steps: int, device: str) -> Learner | None:
        """What it learns beside the model, if anything. width: hidden size. steps: optimiser steps in all."""
        if not hasattr(self.module, "Learner"):
            return None
        return self.module.Learner(self.settings, width, steps, device)


@dataclass(frozen=True)
class Unlearned:
    """What unlearning leaves beside the model: one row a step, and rows of the trajectory and of the token weights.

    selection: which epoch's weights the model has (last or best), and how those two epochs do.
    """

    log: list[dict[str, float]]
    trajectory: list[dict]
    token_weights: list[dict]
    selection: dict[str, str | dict[str, float]]


def unlearn(
    language_model: LanguageModel,
    data: Data,
    method: Method,
    settings: Settings,
    run: Run,
    checkpoints: Checkpoints | None = None,
) -> Unlearned:
    """Unlearn in place. run: device and progress. checkpoints: where to go on from and what to add to.

    Raises UserError when the loss is not finite, when the reference table was computed by another model, or when the
    method needs retain samples and there are none.
    """
    if settings.fsdp:
        language_model = replace(language_model, around=sharding.around)
    needs, examples = method.needs, data.examples
    others = encode_pairs(language_model, triples(data.retain)) if needs.retain else []
    if needs.retain and not others:
        raise UserError(
            f"data/benchmark/retain.parquet has no rows, and unlearn.method = '{settings.method}' trains with retain "
            "samples; set the weight of its retain term to 0 where it has one, or choose another method"
        )
    watch, rows = trajectory(language_model, data, settings.trajectory_retain, run.progress)
    if not needs.refusals:
        examples = [replace(example, refusal=None) for example in examples]
    resumed = checkpoints is not None and checkpoints.resume is not None  # then it is all in the checkpoint
    early = not resumed and not settings.fsdp  # a model to be sharded may not fit before that
    if early:
        watch(0)
    head = None
    if needs.cached:
        head = copy.deepcopy(language_model.model.get_output_embeddings()).requires_grad_(False)
    if "forget" in needs.cached:
        examples = with_hidden(language_model, examples, needs.layer)
    if "retain" in needs.cached:
        others = with_hidden(language_model, others, needs.layer)

    def forward(model: PreTrainedModel, batch: Batch) -> AnswerTokens:
        return replace(answer_tokens(model, batch, needs.layer, needs.own), reference_head=head)

    width = language_model.model.get_output_embeddings().in_features
    steps = Schedule(examples, others, settings.batch, settings.seed).steps_per_epoch * settings.epochs
    learner, learned = method.learner(width, steps, run.device), []

    ids = {example.sample_id for example in examples}
    keeps = checkpoints is None or checkpoints.group.rank == 0 or settings.fsdp
    # parts of weights have to be of one epoch, though processes may round scores differently
    agree = checkpoints.group.agree if checkpoints and settings.fsdp else int
    chosen = Best(language_model.model, rows, ids, settings.select == "best" and keeps, agree)

    def after_epoch(epoch: int) -> None:
        if epoch or settings.fsdp:
            watch(epoch)
        if epoch:
            chosen.after_epoch(epoch)
        if learner and needs.own:
            learned.extend(token_weight_rows(language_model, examples, learner, epoch))

    if early:
        after_epoch(0)
    kept = {"trajectory": rows, "weights": learned, "best": chosen}
    task = Task(
        examples,
        learner.objective if learner else partial(method.module.objective, settings=method.settings),
        others,
        learner,
        forward,
        unused=needs.layer is not None,
    )
    resumable = Resumable(checkpoints, kept) if checkpoints else None
    with fitted(language_model.model, settings, settings.seed):
        log = train(
            language_model, task, settings, replace(run, memory=settings, after_epoch=after_epoch, resumable=resumable)
        )
        if chosen.kept:
            chosen.put_back()
    found = standings(rows, ids)
    selection = {"selected": settings.select, "last": found[-1].rounded(), "best": best(found).rounded()}
    return Unlearned(log, rows, learned, selection)


def token_weight_rows(
    language_model: LanguageModel, examples: Sequence[Example], learner: Learner, epoch: int
) -> list[dict]:
    """Rows of the token weights table: what the learner gives every answer token of `examples` now."""
    bounds, (found,) = passes(
        language_model,
        examples,
        lambda model, batch: [learner.token_weights(answer_tokens(model, batch, own=True).own)],
        title="token weights",
    )
    parts = np.split(found.numpy(), bounds[1:-1])
    return [
        {
            "epoch": epoch,
            "sample_id": example.sample_id,
            "position": example.start + k,
            "start": start,
            "end": end,
            "weight": value,
        }
        for example, part in zip(examples, parts, strict=True)
        for k, ((start, end), value) in enumerate(zip(example.offsets, part.tolist(), strict=True))
    ]
