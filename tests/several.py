"""What tests of several processes share: a folder to unlearn in, cases of unlearning, and forked processes to run them.

A forked process has all libraries loaded already, so that it starts at once. How a stage starts others is tested with
real ones, see `tests/processes_stage.py`.
"""

import multiprocessing
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from accelerate.state import AcceleratorState, GradientState
from forgetting import data_of, towns
from ruamel.yaml import YAML

from tif.base import params, tables
from tif.benchmarks import SAMPLES
from tif.lm import models
from tif.lm.models import LanguageModel
from tif.runs import checkpoints, processes
from tif.training.loop import Run
from tif.unlearning.run import Method, Unlearned, unlearn
from tif.unlearning.settings import Settings
from tif.words import SPANS

ROOT = Path(__file__).resolve().parents[1]
COMPUTE = params.Compute(device="cpu", threads=1)
KEY = "a" * 64
SETTINGS = {
    "epochs": 2, "batch": 4, "micro_batch": 2, "lr": 1e-3, "weight_decay": 0.01, "warmup": 0.1, "max_grad_norm": 1.0,
    "seed": 0, "trajectory_retain": 2,
}  # fmt: skip


def prepare(folder: Path, language_model: LanguageModel, table: Callable[..., pa.Table], facts: list) -> Path:
    """Model, tables and blocks of settings, as files: five forget samples of different lengths."""
    forget = table("forget", [(question * (i + 1), answer) for i, (question, answer) in enumerate(facts[:5])])
    models.save(folder / "model", language_model)
    tables.write(folder / "forget.parquet", forget, SAMPLES)
    tables.write(folder / "retain.parquet", table("retain", facts[5:]), SAMPLES)
    tables.write(folder / "spans.parquet", towns(forget), SPANS)
    yaml = YAML()
    blocks = yaml.load(ROOT / "params.yaml")
    blocks["atwu"]["every"] = 1
    blocks["rmu"]["layer"] = 1
    yaml.dump(blocks, folder / "params.yaml")
    return folder


def unlearned(
    start: Path, group: processes.Group, method: str, settings: Settings, minutes: float | None
) -> tuple[LanguageModel, Unlearned]:
    """The model of a folder, unlearned with the tables and blocks beside it. minutes: None for no checkpoints."""
    folder, model = start.parent, models.load(start, None, "cpu")
    forget, retain, spans = (pq.read_table(folder / f"{name}.parquet") for name in ("forget", "retain", "spans"))
    module = params.choose("methods", method, "unlearn.method")
    block = params.read(method, module.Settings, folder / "params.yaml")
    arguments = (model, data_of(model, forget, retain, spans), Method(module, block), settings, Run())
    if minutes is None:
        return model, unlearn(*arguments)
    with checkpoints.opened(KEY, minutes, group) as kept:
        return model, unlearn(*arguments, kept)


def die_after(checkpoint: Path) -> None:
    """Kill this process once process 0 has completed a checkpoint; else it may be gone before."""
    while not (checkpoint / checkpoints.MARKER).exists():
        time.sleep(0.02)
    os.kill(os.getpid(), signal.SIGKILL)


def results(folder: Path, rank: int) -> list[dict]:
    """What a process has left in `folder`, of every case."""
    return torch.load(folder / f"results-{rank}.pt", weights_only=True)


def work(folder: Path, case: Callable[..., dict], cases: list[dict]) -> None:
    """Run cases as one process of a group, and leave their results for `results`."""
    models.prepare(COMPUTE)
    with processes.joined("cpu") as group:
        torch.save([case(folder, group, **values) for values in cases], folder / f"results-{group.rank}.pt")


def forked(function: Callable[[], None], told: Path, **variables: str) -> multiprocessing.Process:
    """Start `function` in a forked process whose standard output and error go to the file `told`."""

    def begin() -> None:
        os.environ.update(variables)
        descriptor = os.open(told, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for number in (1, 2):
            os.dup2(descriptor, number)
        sys.stdout, sys.stderr = (os.fdopen(number, "w", 1, closefd=False) for number in (1, 2))  # not pytest's
        function()

    process = multiprocessing.get_context("fork").Process(target=begin, daemon=True)
    process.start()
    return process


def group_of_two(folder: Path, case: Callable[..., dict], *cases: dict) -> list[int]:
    """Run cases in two forked processes, with the variables that torchrun sets, until both have ended: exit statuses.

    When one of them is killed, so is the other, as torchrun would. Their work folder is `folder`/work.
    """
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]

    def begin() -> None:
        # what earlier trainings in the tests' own process have left
        AcceleratorState._reset_state(reset_partial_state=True)
        GradientState._reset_state()
        work(folder, case, list(cases))

    shared = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    shared |= {"TORCHELASTIC_RUN_ID": "forked", "TIF_WORK": str(folder / "work")}
    pair = [
        forked(begin, folder / f"told-{rank}.txt", RANK=str(rank), LOCAL_RANK=str(rank), **shared) for rank in (0, 1)
    ]
    end = time.monotonic() + 240
    while any(process.is_alive() for process in pair):
        if any(process.exitcode for process in pair) or time.monotonic() > end:
            for process in pair:
                process.kill()
        for process in pair:
            process.join(0.05)
    return [process.exitcode for process in pair]
