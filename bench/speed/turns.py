"""What the benchmarks of optimiser steps share: the rows, the models, and processes that take turns step by step."""

import multiprocessing
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection

import numpy as np
import torch
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_post_hook
from transformers import LlamaConfig, LlamaForCausalLM

from tif.lm.batches import Batch, Example
from tif.lm.logits import AnswerTokens
from tif.lm.models import LanguageModel
from tif.training import Optimisation
from tif.training.loop import Run, Task, train

TOLERANCE = 1e-4  # between the losses of the versions
LEARNING_RATE, CLIP = 1e-5, 1.0
UNWANTED_SHARE = 0.3
QUANTILES = (0, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 1)
PROMPT_TOKENS = (18, 20, 21, 23, 26, 28, 33, 35, 61)
ANSWER_TOKENS = (8, 14, 19, 28, 36, 44, 54, 59, 82)  # end of sequence included


@dataclass(frozen=True)
class Setup:
    """What is measured: a Llama of `layers` x `width`, `batch` samples a step, `steps` timed steps."""

    layers: int
    width: int
    vocabulary: int
    batch: int
    micro_batch: int
    steps: int
    threads: int


@dataclass(frozen=True)
class Measured:
    """One optimiser step: its wall time, its loss before the update, and the peak memory so far in MiB."""

    seconds: float
    loss: float
    peak_mib: float


def rows(setup: Setup, seed: int = 0) -> list[Example]:
    """The forget samples of one effective batch, without reference values."""
    random = np.random.default_rng(seed)
    examples = []
    for index in range(setup.batch):
        prompt, answer = (
            round(np.interp(random.random(), QUANTILES, tokens)) for tokens in (PROMPT_TOKENS, ANSWER_TOKENS)
        )
        unwanted = random.random(answer) < UNWANTED_SHARE
        unwanted[-1] = False  # end of sequence is always a general token
        examples.append(
            Example(
                sample_id=f"forget/{index:04}",
                ids=torch.from_numpy(random.integers(setup.vocabulary, size=prompt + answer)),
                start=prompt,
                offsets=[(0, 0)] * answer,
                unwanted=torch.from_numpy(unwanted),
                forget=True,
            )
        )
    return examples


def build(setup: Setup, seed: int) -> LlamaForCausalLM:
    """A randomly initialised Llama of the shape that the `scratch` model has. Seed 0: the policy, 1: the reference."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=setup.vocabulary,
        hidden_size=setup.width,
        intermediate_size=-(-setup.width * 8 // 3 // 32) * 32,
        num_hidden_layers=setup.layers,
        num_attention_heads=max(1, setup.width // 64),
        tie_word_embeddings=True,
    )
    return LlamaForCausalLM._from_config(config, attn_implementation="sdpa")


def peak_mib() -> float:
    """The process's maximum resident size so far."""
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


class Turns:
    """A process's side of taking turns: waits, and sends what one step took."""

    def __init__(self, pipe: Connection) -> None:
        self.pipe = pipe
        self.start_mib = peak_mib()
        self.wait()

    def wait(self) -> None:
        """Wait for the turn and start the clock."""
        self.pipe.recv()
        self.began = time.perf_counter()

    def updated(self) -> None:
        """Stop the clock: the optimiser has updated the weights."""
        self.seconds = time.perf_counter() - self.began

    def done(self, loss: float) -> None:
        """Send the step's measurements and wait for the next turn."""
        self.pipe.send(Measured(self.seconds, loss, peak_mib() - self.start_mib))
        self.wait()


def watch_updates(turns: Turns) -> None:
    """Stop the clock of `turns` at every update: what is done once an epoch, such as checking weights, is no step."""
    register_optimizer_step_post_hook(lambda *_: turns.updated())


def train_in_turns(setup: Setup, turns: Turns, language_model: LanguageModel, task: Task) -> None:
    """The training loop of the unlearn stage. One epoch is one effective batch, so every epoch is one step."""
    losses: list[Tensor] = []

    def heard(tokens: AnswerTokens, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        loss, terms = task.objective(tokens, batch)
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
    train(language_model, replace(task, objective=heard), optimisation, Run(after_epoch=after_step))


def take_turns(
    setup: Setup, versions: dict[str, tuple[Callable, tuple]], expected: str, last: Callable[[], object]
) -> dict[str, list[Measured]]:
    """Run all versions in processes of their own, step by step in turn; the first step of each is the warm-up.

    versions: name -> function, called with its arguments, `setup` and a pipe. expected: the version whose losses the
    others must have. last: what is sent down each pipe before the first step, made once the processes have started.
    Exits when a version fails or the losses differ.
    """
    spawn = multiprocessing.get_context("spawn")
    pipes, processes = {}, []
    for version, (function, arguments) in versions.items():
        pipes[version], end = spawn.Pipe()
        processes.append(spawn.Process(target=function, args=(*arguments, setup, end), daemon=True))
        processes[-1].start()
        end.close()
    # only now: a process inherits the peak memory that its parent had reached when it was started
    torch.set_num_threads(setup.threads)
    first = last()
    for pipe in pipes.values():
        pipe.send(first)
    steps: dict[str, list[Measured]] = {version: [] for version in versions}
    for step in range(setup.steps + 1):
        for version, pipe in pipes.items():
            pipe.send("go")
            try:
                steps[version].append(pipe.recv())
            except EOFError:
                sys.exit(f"error: version {version} stopped at step {step}; its message is above")
        check_losses(step, {version: done[step].loss for version, done in steps.items()}, expected)
    for pipe in pipes.values():
        pipe.send("go")
    for process in processes:
        process.join()
    return steps


def check_losses(step: int, losses: dict[str, float], expected: str) -> None:
    """Exits unless all losses lie within TOLERANCE of that of the version `expected`, relative where it is above 1."""
    right = losses[expected]
    if any(not abs(loss - right) <= TOLERANCE * max(abs(right), 1) for loss in losses.values()):
        sys.exit(f"error: at step {step} the versions do not give the same loss: {losses}")
