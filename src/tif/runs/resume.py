"""Saving checkpoints while a Trainer trains, and going on from the newest."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

from safetensors import SafetensorError
from transformers import TrainerCallback
from transformers.utils import logging

from tif.base.errors import UserError, first_line
from tif.runs.checkpoints import Checkpoints, not_written, unwritable
from tif.training.loop import FlatTrainer


class Stateful(Protocol):
    """What a checkpoint keeps beside the model and its optimiser."""

    def state_dict(self) -> dict:
        """Everything that a resumed run needs, as tensors and plain values."""

    def load_state_dict(self, state: dict) -> None:
        """Put back what `state_dict` gave."""


class Resumable(TrainerCallback):
    """A Trainer's checkpoints. kept: lists of rows, and other state, by name; the step log and the learner are added.

    No checkpoint is made between the last step of an epoch and what is done after the epoch: a run that went on from it
    would start with the next epoch. So this callback has to stand behind the one that does it.
    """

    def __init__(self, checkpoints: Checkpoints, kept: Mapping[str, list | Stateful]) -> None:
        self.checkpoints = checkpoints
        self.folder = checkpoints.folder
        self.kept = dict(kept)
        self.steps_per_epoch = 0
        self.doing = "loading"
        self.verbosity = logging.get_verbosity()

    def train(self, trainer: FlatTrainer) -> None:
        """Train from the newest checkpoint, or from the start where there is none.

        Raises UserError when a checkpoint does not fit the model, or cannot be written.
        """
        self.kept["log"] = trainer.log_rows
        if trainer.learner:
            self.kept["learner"] = trainer.learner
        self.steps_per_epoch = trainer.schedule.steps_per_epoch
        resume = self.checkpoints.resume
        try:
            with _quiet():
                if resume is None:
                    trainer.train()
                else:
                    logging.set_verbosity_error()  # it warns of tied weights, which are saved once
                    trainer.train(resume_from_checkpoint=str(self.checkpoints.path(resume)))
        except UserError:
            raise
        except Exception as error:
            if self.doing == "loading" and resume is not None and _does_not_fit(error):
                raise UserError(
                    f"the checkpoints in {self.folder} do not fit this run ({first_line(error)}); delete that folder"
                ) from None
            if self.doing == "saving" and not_written(error):
                raise unwritable(self.checkpoints.folder, error) from None
            raise

    def _load(self) -> None:
        state = self.checkpoints.load()
        for name, part in self.kept.items():
            if isinstance(part, list):
                part[:] = state[name]["rows"]
            else:
                part.load_state_dict(state[name])

    def on_train_begin(self, args, state, control, **kwargs) -> None:
        """Put back what was kept, now that weights that are sharded are so, and say where the run goes on."""
        if self.checkpoints.resume is not None:
            self._load()
        self.doing = "training"
        logging.set_verbosity(self.verbosity)
        if state.global_step and args.process_index == 0:
            print(f"resuming at step {state.global_step} of {state.max_steps}", file=sys.stderr)

    def on_step_end(self, args, state, control, **kwargs) -> None:
        """Save where it is time, unless it is the end of an epoch."""
        if state.global_step % self.steps_per_epoch:
            self._save_if_due(control)

    def on_epoch_end(self, args, state, control, **kwargs) -> None:
        """Save where it is time."""
        self._save_if_due(control)

    def _save_if_due(self, control) -> None:
        control.should_save = self.checkpoints.due()
        self.doing = "saving" if control.should_save else "training"

    def on_save(self, args, state, control, **kwargs) -> None:
        """Add to what the Trainer has written."""
        self.doing = "training"
        states = {
            name: {"rows": list(part)} if isinstance(part, list) else part.state_dict()
            for name, part in self.kept.items()
        }
        self.checkpoints.complete(state.global_step, states)


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bar for every model that is saved; that of training stays. What is changed inside is put back."""
    shown, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if shown:
            logging.enable_progress_bar()


def _does_not_fit(error: Exception) -> bool:
    """Whether an exception is what a state of another run raises when it is loaded.

    Too little memory and a process that is gone are RuntimeErrors too, and no fault of the checkpoints.
    """
    if isinstance(error, RuntimeError):
        return "loading state_dict" in str(error) or "RNG state" in str(error)
    return isinstance(error, (KeyError, ValueError, TypeError, OSError, SafetensorError))
