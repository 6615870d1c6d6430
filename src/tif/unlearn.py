"""Unlearning: join forget samples, spans and reference into token-level examples, train, and watch the trajectory."""

import copy
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import pyarrow as pa
import torch
from pydantic import Field
from transformers import PreTrainedModel

from tif import masks, train
from tif.batches import Batch, Example, collate, token_budget
from tif.checkpoints import Checkpoints
from tif.errors import UserError
from tif.fit import Fit, fitted
from tif.logits import AnswerTokens, answer_tokens, within
from tif.models import LanguageModel
from tif.reference import answer_keys, encode_answers, triples
from tif.resume import Resumable
from tif.scoring import TOKEN_BUDGET, encode_pairs
from tif.selection import Best, best, standings
from tif.trajectory import trajectory


class Settings(train.Optimisation, Fit):
    """`unlearn`. method: file name of the method. trajectory_retain: retain samples scored after every epoch.

    processes: copies of the stage that share every step, each with a device of its own unless it runs on the CPU.
    select: which epoch's weights are saved: last, or best, the one with the greatest harmonic mean of the forget set's
    truth ratio score and the share of the target model's retain probability that is left; see `tif.selection`.
    The other keys are those of `Fit`.
    """

    method: str = Field(pattern=r"^[a-z0-9_]+$")
    trajectory_retain: int = Field(ge=1)
    processes: int = Field(default=1, ge=1)
    select: Literal["last", "best"] = "last"


@dataclass(frozen=True)
class Unlearned:
    """What unlearning leaves beside the model: one row a step, and rows of the trajectory and the weights table.

    selection: which epoch's weights the model has (last or best), and how those two epochs do.
    """

    log: list[dict[str, float]]
    trajectory: list[dict]
    weights: list[dict]
    selection: dict[str, str | dict[str, float]]


def forget_examples(
    language_model: LanguageModel, forget: pa.Table, spans: pa.Table, reference: pa.Table
) -> list[Example]:
    """Forget samples as training examples: unwanted tokens marked, refusals and reference values attached.

    Raises UserError when the spans or the reference table do not belong to these samples and this tokenizer.
    """
    if not len(forget):
        raise UserError("data/benchmark/forget.parquet has no rows: there is nothing to forget")
    responses, refusals = encode_answers(language_model, forget)
    both = [*responses, *refusals]
    keys, more = answer_keys(responses, "response"), answer_keys(refusals, "refusal")
    for name, expected in keys.items():
        if reference[name].to_pylist() != expected + more[name]:
            raise UserError(f"data/reference.parquet: column '{name}' does not match the forget set; run `dvc repro`")
    sizes = [len(example.offsets) for example in both]
    logits, logprobs = (torch.split(torch.tensor(reference[n].to_numpy()), sizes) for n in ("logit", "logprob"))
    known = [
        replace(example, forget=True, reference_logit=logit, reference_logprob=logprob)
        for example, logit, logprob in zip(both, logits, logprobs, strict=True)
    ]
    words = scored_words(forget, spans)
    texts = forget["response"].to_pylist()
    return [
        replace(
            example,
            refusal=refused,
            unwanted=torch.tensor(
                masks.project(text, [word[:2] for word in words[example.sample_id] if word[3]], example.offsets)
            ),
            score=torch.tensor(masks.soften(text, [word[:3] for word in words[example.sample_id]], example.offsets)),
        )
        for example, refused, text in zip(known[: len(forget)], known[len(forget) :], texts, strict=True)
    ]


def scored_words(forget: pa.Table, spans: pa.Table) -> dict[str, list[tuple[int, int, float, bool]]]:
    """(start, end, score, unwanted) of the words of every forget sample. Raises UserError unless `spans` holds each."""
    answers = dict(zip(forget["sample_id"].to_pylist(), forget["response"].to_pylist(), strict=True))
    rows = spans.to_pylist()
    masks.check_rows(rows, answers, "data/spans.parquet (`dvc repro -f identify` makes it anew)")
    found: dict[str, list[tuple[int, int, float, bool]]] = {key: [] for key in answers}
    for row in rows:
        found[row["sample_id"]].append((row["start"], row["end"], row["score"], row["unwanted"]))
    return found


def unlearn(
    language_model: LanguageModel,
    examples: list[Example],
    forget: pa.Table,
    retain: pa.Table,
    reference: pa.Table,
    method,
    method_settings,
    settings: Settings,
    device: str,
    progress: bool,
    checkpoints: Checkpoints | None = None,
) -> Unlearned:
    """Unlearn in place. method: a module of tif.methods. checkpoints: where to go on from and what to add to.

    Raises UserError when the loss is not finite, when the reference table was computed by another model, or when the
    method needs retain samples and there are none.
    """
    needs = method.needs(method_settings)
    others = encode_pairs(language_model, triples(retain)) if needs.retain else []
    if needs.retain and not others:
        raise UserError(
            f"data/benchmark/retain.parquet has no rows, and unlearn.method = '{settings.method}' trains with retain "
            "samples; set the weight of its retain term to 0 where it has one, or choose another method"
        )
    watch, rows = trajectory(language_model, examples, forget, retain, reference, settings.trajectory_retain, progress)
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

    learner, weights = None, []
    if hasattr(method, "Learner"):
        width = language_model.model.get_output_embeddings().in_features
        steps = train.Schedule(examples, others, settings.batch, settings.seed).steps_per_epoch * settings.epochs
        learner = method.Learner(method_settings, width, steps, device)

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
            weights.extend(weight_rows(language_model, examples, learner, epoch))

    if early:
        after_epoch(0)
    kept = {"trajectory": rows, "weights": weights, "best": chosen}
    with fitted(language_model.model, settings, settings.seed):
        log = train.train(
            language_model,
            examples,
            learner.objective if learner else partial(method.objective, settings=method_settings),
            settings,
            device,
            progress,
            others,
            after_epoch,
            learner=learner,
            forward=forward,
            resumable=Resumable(checkpoints, kept) if checkpoints else None,
            unused=needs.layer is not None,
            fit=settings,
        )
        if chosen.kept:
            chosen.put_back()
    found = standings(rows, ids)
    selection = {"selected": settings.select, "last": found[-1].rounded(), "best": best(found).rounded()}
    return Unlearned(log, rows, weights, selection)


@torch.no_grad()
def weight_rows(language_model: LanguageModel, examples: list[Example], learner: train.Learner, epoch: int) -> list:
    """Rows of the weights table: what the learner gives every answer token of `examples` now."""
    found: list[list[dict]] = [[] for _ in examples]
    for indices in token_budget([len(example.ids) for example in examples], TOKEN_BUDGET):
        batch = collate([replace(examples[i], refusal=None) for i in indices]).to(language_model.model.device)
        tokens = within(language_model.model, partial(answer_tokens, batch=batch, own=True))
        weight = learner.weights(tokens.own).tolist()
        for i in indices:
            example = examples[i]
            part, weight = weight[: len(example.offsets)], weight[len(example.offsets) :]
            keys = {"epoch": epoch, "sample_id": example.sample_id}
            found[i] = [
                keys | {"position": example.start + k, "start": start, "end": end, "weight": value}
                for k, ((start, end), value) in enumerate(zip(example.offsets, part, strict=True))
            ]
    return [row for rows in found for row in rows]


@torch.no_grad()
def with_hidden(language_model: LanguageModel, examples: list[Example], layer: int | None) -> list[Example]:
    """The examples with `reference_hidden`, which a method reads of the target model: see `Needs.cached`."""
    made = list(examples)
    for indices in token_budget([len(example.ids) for example in examples], TOKEN_BUDGET):
        batch = collate([replace(examples[i], refusal=None) for i in indices]).to(language_model.model.device)
        hidden = answer_tokens(language_model.model, batch, layer).hidden.cpu()
        sizes = [len(examples[i].offsets) for i in indices]
        for i, part in zip(indices, torch.split(hidden, sizes), strict=True):
            made[i] = replace(examples[i], reference_hidden=part.clone())
    return made
