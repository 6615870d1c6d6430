"""The one training loop: a transformers Trainer over flat answer tokens."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainingArguments

from tif.base.errors import UserError
from tif.lm.batches import Batch, Example, micro_batches
from tif.lm.logits import AnswerTokens, answer_tokens
from tif.lm.models import LanguageModel
from tif.training import Memory, Optimisation, memory, sharding
from tif.training.schedule import Schedule

Objective = Callable[[AnswerTokens, Batch], tuple[Tensor, dict[str, Tensor]]]
"""Answer tokens of a micro-batch -> its share of the step's loss, and terms to log (summed over micro-batches)."""

REMEDY = "Lower the learning rate (lr) or the loss weights of the training block"


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

    def token_weights(self, own: Tensor) -> Tensor:
        """[n] weights in [0, 1] of tokens, from their own hidden states [n, d]."""


class Resumable(Protocol):
    """A callback that saves checkpoints and goes on from one; see `tif.runs.resume`."""

    folder: Path

    def train(self, trainer: "FlatTrainer") -> None:
        """Let the trainer train, from the newest checkpoint where there is one."""


@dataclass(frozen=True)
class Task:
    """What is learned from what.

    examples: one epoch's samples. objective: of their answer tokens. others: samples of which each step takes as many
    as it takes of `examples` (the retain term); see `Schedule`. learner: trained beside the model. forward: makes a
    micro-batch's answer tokens. unused: whether `forward` leaves some weights out, which several processes have to
    look for.
    """

    examples: Sequence[Example]
    objective: Objective
    others: Sequence[Example] = ()
    learner: Learner | None = None
    forward: Callable[[PreTrainedModel, Batch], AnswerTokens] = answer_tokens
    unused: bool = False


class FlatTrainer(Trainer):
    """Trainer whose steps are effective batches of a schedule, cut into micro-batches of similar length.

    The step's loss is the sum of its micro-batches' shares over all processes, so it depends neither on how the batch
    is cut nor on how many processes there are.
    """

    def __init__(
        self, language_model: LanguageModel, task: Task, schedule: Schedule, micro_batch: int, **arguments
    ) -> None:
        super().__init__(
            model=language_model.model, train_dataset=range(schedule.steps_per_epoch), data_collator=list, **arguments
        )
        self.tokenizer = language_model.tokenizer
        self.schedule = schedule
        self.micro_batch = micro_batch
        self.objective = task.objective
        self.learner = task.learner
        self.forward = task.forward
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


@dataclass(frozen=True)
class Run:
    """How training is carried out.

    device: torch device. progress: whether to show a bar. memory: for a model made ready by
    `tif.training.memory.fitted`; sharded weights stay sharded. after_epoch: called with the number of epochs done, and
    with 0 too once weights are sharded. resumable: saves checkpoints and goes on from them.
    """

    device: str = "cpu"
    progress: bool = False
    memory: Memory = field(default_factory=Memory)
    after_epoch: Callable[[int], None] | None = None
    resumable: Resumable | None = None


def train(language_model: LanguageModel, task: Task, optimisation: Optimisation, run: Run) -> list[dict[str, float]]:
    """Train the model in place.

    Returns one row of logged values per optimiser step.
    Raises UserError for a loss that is not finite, and for a model with nothing to train.
    """
    model = language_model.model
    if not any(weight.requires_grad for weight in model.parameters()):
        raise UserError("the model has no weight that can be trained: all of them are frozen")
    schedule = Schedule(task.examples, task.others, optimisation.batch, optimisation.seed)
    resumable = run.resumable
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
            use_cpu=run.device == "cpu",
            ddp_find_unused_parameters=task.unused,
            save_strategy="no",
            logging_strategy="no",
            report_to=[],
            remove_unused_columns=False,
            dataloader_pin_memory=False,
            disable_tqdm=not run.progress,
            **memory.arguments(run.memory),
        )
        sharding.finish(arguments, run.memory)
        trainer = FlatTrainer(
            language_model,
            task,
            schedule,
            optimisation.micro_batch,
            args=arguments,
            # a checkpoint must not come between the end of an epoch and what is done then
            callbacks=[_AfterEpoch(run), *([resumable] if resumable else [])],
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
    def __init__(self, run: Run) -> None:
        self.run = run

    def on_train_begin(self, args, state, control, model=None, **kwargs) -> None:
        """Run the action on a model that could not be used before it was sharded."""
        if self.run.memory.fsdp and not state.global_step:
            self._act(0, model)

    def on_epoch_end(self, args, state, control, model=None, **kwargs) -> None:
        """Check the weights, then run the action on the model in evaluation mode."""
        if not all(torch.isfinite(sharding.local(weight)).all() for weight in model.parameters()):
            # a loss is checked before its step, so what the last step made has to be checked here
            made = f"step {state.global_step - 1} made weights that are not finite"
            raise UserError(f"{made}; nothing was saved. {REMEDY}")
        self._act(round(state.epoch), model)

    def _act(self, epoch: int, model: PreTrainedModel) -> None:
        if self.run.after_epoch:
            model.eval()
            mixed = self.run.memory.precision == "mixed" and not self.run.memory.fsdp
            with torch.autocast(self.run.device, torch.bfloat16, enabled=mixed):
                self.run.after_epoch(epoch)
            model.train()
