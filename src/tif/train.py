"""The one training loop: a transformers Trainer over flat answer tokens."""

import tempfile
from collections.abc import Callable, Iterator, Sequence

import torch
from pydantic import Field
from torch import Tensor
from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainingArguments

from tif.batches import Batch, Example, micro_batches
from tif.errors import UserError
from tif.models import AnswerTokens, LanguageModel, answer_tokens
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


class FlatTrainer(Trainer):
    """Trainer whose batch is one effective batch, cut into micro-batches of similar length.

    The step's loss is the sum of its micro-batches' shares, so it does not depend on how the batch is cut.
    """

    def __init__(self, objective: Objective, **arguments) -> None:
        super().__init__(**arguments)
        self.objective = objective
        self.log_rows: list[dict[str, float]] = []

    def training_step(self, model: PreTrainedModel, inputs: list[Batch], num_items_in_batch=None) -> Tensor:
        """Forward and backward over one effective batch; returns its loss. Raises UserError when it is not finite."""
        model.train()
        total = torch.zeros((), device=self.args.device)
        logged: dict[str, Tensor] = {}
        for batch in inputs:
            batch = batch.to(self.args.device)
            tokens = answer_tokens(model, batch)
            loss, terms = self.objective(tokens, batch)
            if not torch.isfinite(loss):
                raise UserError(self._not_finite(tokens, batch))
            self.accelerator.backward(loss)
            total += loss.detach()
            for name, value in terms.items():
                logged[name] = logged.get(name, 0) + value.detach()
        values = {name: float(value) for name, value in logged.items()}
        self.log_rows.append({"step": self.state.global_step, "loss": float(total), **values})
        return total

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Print nothing: `log_rows` holds every step, and times do not belong to the output."""

    def _not_finite(self, tokens: AnswerTokens, batch: Batch) -> str:
        everywhere = torch.ones_like(batch.forget)
        with torch.no_grad():
            scores = tokens.hidden.sum(-1) + tokens.logit() + tokens.nll(everywhere) + batch.reference_logit
        bad = ~torch.isfinite(scores)
        if bad.any():
            sample = batch.sample_ids[int(batch.row[bad.nonzero()[0, 0]])]
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
) -> list[dict[str, float]]:
    """Train the model in place.

    examples: one epoch's samples. others: samples of which each step takes as many as it takes of `examples` (the
    retain term), in a seeded order that is new every time they run out. after_epoch: called with the number of
    epochs done. Returns one row of logged values per optimiser step.
    """
    other = _endless(others, optimisation.seed)

    def collate_step(part: Sequence[Example]) -> list[Batch]:
        return micro_batches([*part, *(next(other) for _ in part if others)], optimisation.micro_batch)

    with tempfile.TemporaryDirectory() as scratch:
        arguments = TrainingArguments(
            output_dir=scratch,
            num_train_epochs=optimisation.epochs,
            per_device_train_batch_size=optimisation.batch,
            learning_rate=optimisation.lr,
            weight_decay=optimisation.weight_decay,
            warmup_steps=_warmup_steps(len(examples), optimisation),
            max_grad_norm=optimisation.max_grad_norm,
            lr_scheduler_type="linear",
            seed=optimisation.seed,
            use_cpu=device == "cpu",
            save_strategy="no",
            logging_strategy="no",
            report_to=[],
            remove_unused_columns=False,
            dataloader_pin_memory=False,
            disable_tqdm=not progress,
        )
        trainer = FlatTrainer(
            objective,
            model=language_model.model,
            args=arguments,
            train_dataset=list(examples),
            data_collator=collate_step,
            callbacks=[_AfterEpoch(after_epoch)],
        )
        if trainer.args.n_gpu > 1 or trainer.args.world_size > 1:
            raise UserError("training runs on one device; set CUDA_VISIBLE_DEVICES to one of them")
        trainer.train()
    language_model.model.eval()
    return trainer.log_rows


def _warmup_steps(samples: int, optimisation: Optimisation) -> int:
    steps = -(-samples // optimisation.batch) * optimisation.epochs
    return round(steps * optimisation.warmup)


def _endless(examples: Sequence[Example], seed: int) -> Iterator[Example]:
    generator = torch.Generator().manual_seed(seed)
    while examples:
        yield from (examples[i] for i in torch.randperm(len(examples), generator=generator).tolist())


class _AfterEpoch(TrainerCallback):
    def __init__(self, action: Callable[[int], None] | None) -> None:
        self.action = action

    def on_epoch_end(self, args, state, control, model=None, **kwargs) -> None:
        """Check the weights, then run the action on the model in evaluation mode."""
        if not all(torch.isfinite(weight).all() for weight in model.parameters()):
            # a loss is checked before its step, so what the last step made has to be checked here
            made = f"step {state.global_step - 1} made weights that are not finite"
            raise UserError(f"{made}; nothing was saved. {REMEDY}")
        if self.action:
            model.eval()
            self.action(round(state.epoch))
            model.train()
