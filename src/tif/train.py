"""The one training loop: a transformers Trainer over flat answer tokens."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Protocol

import torch
from pydantic import Field
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.utils.data import DataLoader
from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainingArguments

from tif.batches import Batch, Example, micro_batches
from tif.errors import UserError
from tif.fit import Fit, finish
from tif.fit import arguments as fit_arguments
from tif.logits import AnswerTokens, answer_tokens
from tif.models import LanguageModel
from tif.params import Block

Objective = Callable[[AnswerTokens, Batch], tuple[Tensor, dict[str, Tensor]]]
"""Answer tokens of a micro-batch -> its share of the step's loss, and terms to log (summed over micro-batches)."""

REMEDY = "Lower the learning rate (lr) or the loss weights of the training block"


class Optimisation(Block):
    """The settings that fine-tuning and unlearning share: AdamW with linear warm-up and decay.

    batch: samples per optimiser step. micro_batch: rows per forward pass; changes memory and speed, and results only
    by rounding. warmup: share of all steps in [0, 1].
    """

    epochs: int = Field(ge=1)
    batch: int = Field(ge=1)
    micro_batch: int = Field(ge=1)
    lr: float = Field(gt=0)
    weight_decay: float = Field(ge=0)
    warmup: float = Field(ge=0, le=1)
    max_grad_norm: float = Field(gt=0)
    seed: int = Field(ge=0)


class Learner(Protocol):
    """What a method learns beside the model, such as token weights; its `objective` collects gradients for it."""

    def objective(self, tokens: AnswerTokens, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """See `Objective`."""

    def after_step(self, step: int, sum_over_processes: Callable[[Tensor], Tensor]) -> None:
        """Called when all micro-batches of a step have been seen, before the model's own update."""

    def state_dict(self) -> dict:
        """Everything that a resumed run needs, as tensors and plain values."""

    def load_state_dict(self, state: dict) -> None:
        """Put back what `state_dict` gave."""

    def weights(self, own: Tensor) -> Tensor:
        """[n] weights in [0, 1] of tokens, from their own hidden states [n, d]."""


class Resumable(Protocol):
    """A callback that saves checkpoints and goes on from one; see `tif.resume`."""

    folder: Path

    def train(self, trainer: "FlatTrainer") -> None:
        """Let the trainer train, from the newest checkpoint where there is one."""


@dataclass(frozen=True)
class Schedule:
    """Which samples a step takes, a pure function of seed and step, so that a resumed run goes on as it would have.

    Every epoch is a new permutation of the `examples`. Every step also takes as many of the `others` as it takes of
    the examples, in a permutation that is new every time they run out.
    """

    examples: Sequence[Example]
    others: Sequence[Example]
    batch: int
    seed: int

    @property
    def steps_per_epoch(self) -> int:
        return -(-len(self.examples) // self.batch)

    def samples(self, step: int) -> list[Example]:
        """The effective batch of a step, counted from 0 over all epochs."""
        epoch, place = divmod(step, self.steps_per_epoch)
        order = _permutation(len(self.examples), self.seed + epoch, 0)
        part = [self.examples[i] for i in order[place * self.batch :][: self.batch]]
        first = epoch * len(self.examples) + place * self.batch
        return part + [self._other(first + i) for i in range(len(part)) if self.others]

    def _other(self, number: int) -> Example:
        turn, place = divmod(number, len(self.others))
        return self.others[_permutation(len(self.others), self.seed, turn)[place]]


@lru_cache(maxsize=64)
def _permutation(size: int, seed: int, turn: int) -> list[int]:
    """The permutation number `turn` (0, 1, ...) of a generator."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(turn):
        torch.randperm(size, generator=generator)
    return torch.randperm(size, generator=generator).tolist()


class FlatTrainer(Trainer):
    """Trainer whose steps are effective batches of a schedule, cut into micro-batches of similar length.

    The step's loss is the sum of its micro-batches' shares over all processes, so it depends neither on how the batch
    is cut nor on how many processes there are.
    """

    def __init__(
        self,
        language_model: LanguageModel,
        schedule: Schedule,
        micro_batch: int,
        objective: Objective,
        learner: Learner | None,
        forward: Callable[[PreTrainedModel, Batch], AnswerTokens],
        **arguments,
    ) -> None:
        super().__init__(
            model=language_model.model, train_dataset=range(schedule.steps_per_epoch), data_collator=list, **arguments
        )
        self.tokenizer = language_model.tokenizer
        self.schedule = schedule
        self.micro_batch = micro_batch
        self.objective = objective
        self.learner = learner
        self.forward = forward
        self.log_rows: list[dict[str, float]] = []

    def get_train_dataloader(self) -> DataLoader:
        """Numbers of an epoch's steps; every process takes its part of each step itself (see `training_step`)."""
        return DataLoader(self.train_dataset, collate_fn=self.data_collator)

    def training_step(self, model: torch.nn.Module, inputs: list[int], num_items_in_batch=None) -> Tensor:
        """Forward and backward over one effective batch; returns its loss. Raises UserError when it is not finite."""
        model.train()
        step = self.state.global_step
        batches = micro_batches(
            self.schedule.samples(step), self.micro_batch, self.args.process_index, self.args.world_size
        )
        total = torch.zeros((), device=self.args.device)
        logged: dict[str, Tensor] = {}
        for batch in batches:
            # sharded gradients are added up in every micro-batch, as whole ones may not fit
            now = batch is batches[-1] or self.is_fsdp_enabled
            with nullcontext() if now else self.accelerator.no_sync(model):
                loss, terms = model(call=partial(self._share, batch.to(self.args.device)))
                # what runs in several processes averages the gradients; the shares are made to be summed
                self.accelerator.backward(loss * self.args.world_size)
            total += loss.detach()
            for name, value in terms.items():
                logged[name] = logged.get(name, 0) + value
        if self.learner:
            self.learner.after_step(step, self._sum_over_processes)
        values = self._sum_over_processes(torch.stack([total, *logged.values()])).tolist()
        self.log_rows.append({"step": step, **dict(zip(["loss", *logged], values, strict=True))})
        return total

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write the model's part of a checkpoint, but for sharded weights, which are written with the optimiser's."""
        if not self.is_fsdp_enabled:  # or they would be gathered and written twice, and this copy read by nobody
            super().save_model(output_dir, _internal_call)

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        """Write the weights that are trained; the others are those of the model that the run starts with."""
        weights = self.model.named_parameters(remove_duplicate=False)
        frozen = {name for name, weight in weights if not weight.requires_grad}
        if frozen:
            state_dict = self.model.state_dict() if state_dict is None else state_dict
            state_dict = {name: value for name, value in state_dict.items() if name not in frozen}
        super()._save(output_dir, state_dict)

    def _share(self, batch: Batch, model: PreTrainedModel) -> tuple[Tensor, dict[str, Tensor]]:
        tokens = self.forward(model, batch)
        loss, terms = self.objective(tokens, batch)
        if not torch.isfinite(loss):
            raise UserError(self._not_finite(tokens, batch))
        if not loss.requires_grad:
            raise UserError(
                "params.yaml: no weight that is trained changes the loss: unlearn.lora.targets are all above the layer"
                " whose hidden states the method reads; name lower ones, or set the method's layer higher"
            )
        # detached here, as data parallel wrappers expect a gradient for everything that an output depends on
        return loss, {name: value.detach().float() for name, value in terms.items()}

    def _sum_over_processes(self, values: Tensor) -> Tensor:
        return self.accelerator.reduce(values, "sum") if self.args.world_size > 1 else values

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Print nothing: `log_rows` holds every step, and times do not belong to the output."""

    def _not_finite(self, tokens: AnswerTokens, batch: Batch) -> str:
        everywhere = torch.ones_like(batch.forget)
        with torch.no_grad():
            scores = tokens.hidden.sum(-1) + tokens.logit() + tokens.nll(everywhere)
            scores = scores + batch.reference_logit + batch.reference_logprob + batch.score
        bad = ~torch.isfinite(scores)
        if bad.any():
            first = int(bad.nonzero()[0, 0])
            token = self.tokenizer.decode([int(batch.label[first])])
            sample = f"{batch.sample_ids[int(batch.sample[first])]}, token {int(batch.column[first]) + 1} ({token!r})"
        else:  # every token's score is finite, so their sum is not
            sample = f"one of {', '.join(batch.sample_ids)}"
        return f"the loss is not finite at step {self.state.global_step}, sample {sample}; nothing was saved. {REMEDY}"


def train(
    language_model: LanguageModel,
    examples: Sequence[Example],
    objective: Objective,
    optimisation: Optimisation,
    device: str,
    progress: bool,
    others: Sequence[Example] = (),
    after_epoch: Callable[[int], None] | None = None,
    learner: Learner | None = None,
    forward: Callable[[PreTrainedModel, Batch], AnswerTokens] = answer_tokens,
    resumable: Resumable | None = None,
    unused: bool = False,
    fit: Fit | None = None,
) -> list[dict[str, float]]:
    """Train the model in place.

    examples: one epoch's samples. others: samples of which each step takes as many as it takes of `examples` (the
    retain term); see `Schedule`. after_epoch: called with the number of epochs done. learner: trained beside the model.
    forward: makes a micro-batch's answer tokens. resumable: saves checkpoints and goes on from them. unused: whether
    `forward` leaves some weights out, which several processes have to look for. fit: for a model made ready by
    `tif.fit.fitted`; sharded weights stay sharded, and after_epoch is called with 0 too, once they are.
    Returns one row of logged values per optimiser step.
    Raises UserError for a loss that is not finite, and for a model with nothing to train.
    """
    model = language_model.model
    if not any(weight.requires_grad for weight in model.parameters()):
        raise UserError("the model has no weight that can be trained: all of them are frozen")
    schedule = Schedule(examples, others, optimisation.batch, optimisation.seed)
    fit = fit or Fit()
    folder = nullcontext(resumable.folder) if resumable else tempfile.TemporaryDirectory()
    with folder as output, _callable(model):
        arguments = TrainingArguments(
            output_dir=str(output),
            num_train_epochs=optimisation.epochs,
            per_device_train_batch_size=1,
            learning_rate=optimisation.lr,
            weight_decay=optimisation.weight_decay,
            warmup_steps=round(schedule.steps_per_epoch * optimisation.epochs * optimisation.warmup),
            max_grad_norm=optimisation.max_grad_norm,
            lr_scheduler_type="linear",
            seed=optimisation.seed,
            use_cpu=device == "cpu",
            ddp_find_unused_parameters=unused,
            save_strategy="no",
            logging_strategy="no",
            report_to=[],
            remove_unused_columns=False,
            dataloader_pin_memory=False,
            disable_tqdm=not progress,
            **fit_arguments(fit),
        )
        finish(arguments, fit)
        trainer = FlatTrainer(
            language_model,
            schedule,
            optimisation.micro_batch,
            objective,
            learner,
            forward,
            args=arguments,
            # a checkpoint must not come between the end of an epoch and what is done then
            callbacks=[_AfterEpoch(after_epoch, fit, device), *([resumable] if resumable else [])],
        )
        if trainer.args.n_gpu > 1:
            raise UserError("training runs on one device; set CUDA_VISIBLE_DEVICES to one of them")
        if resumable:
            resumable.train(trainer)
        else:
            trainer.train()
    model.eval()
    return trainer.log_rows


@contextmanager
def _callable(model: PreTrainedModel) -> Iterator[None]:
    """Let `model(call=function)` be function(model), run inside the hooks that data parallel wrappers need."""
    plain = model.forward

    def forward(*args, call: Callable | None = None, **kwargs):
        return call(model) if call else plain(*args, **kwargs)

    model.forward = forward
    try:
        yield
    finally:
        del model.forward


class _AfterEpoch(TrainerCallback):
    def __init__(self, action: Callable[[int], None] | None, fit: Fit, device: str) -> None:
        self.action = action
        self.fit = fit
        self.device = device

    def on_train_begin(self, args, state, control, model=None, **kwargs) -> None:
        """Run the action on a model that could not be used before it was sharded."""
        if self.fit.fsdp and not state.global_step:
            self._run(0, model)

    def on_epoch_end(self, args, state, control, model=None, **kwargs) -> None:
        """Check the weights, then run the action on the model in evaluation mode."""
        weights = (weight.to_local() if isinstance(weight, DTensor) else weight for weight in model.parameters())
        if not all(torch.isfinite(weight).all() for weight in weights):
            # a loss is checked before its step, so what the last step made has to be checked here
            made = f"step {state.global_step - 1} made weights that are not finite"
            raise UserError(f"{made}; nothing was saved. {REMEDY}")
        self._run(round(state.epoch), model)

    def _run(self, epoch: int, model: PreTrainedModel) -> None:
        if self.action:
            model.eval()
            mixed = self.fit.precision == "mixed" and not self.fit.fsdp
            with torch.autocast(self.device, torch.bfloat16, enabled=mixed):
                self.action(epoch)
            model.train()
