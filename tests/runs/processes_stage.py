"""A stage for test_processes.py: it unlearns a tiny model in several cases, alone or as one of several processes."""

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import torch

from tif.base import errors, params
from tif.lm import models
from tif.reference.table import reference_rows
from tif.runs import checkpoints, processes
from tif.unlearning.run import Settings, Unlearned, forget_examples, unlearn

COMPUTE = params.Compute(device="cpu", threads=1)


def unlearned(
    start: Path, group: processes.Group, method: str, settings: Settings, minutes: float | None
) -> tuple[models.LanguageModel, Unlearned]:
    """The model of a folder, unlearned with the tables and blocks beside it. minutes: None for no checkpoints."""
    folder, model = start.parent, models.load(start, None, "cpu")
    forget, retain, spans = (pq.read_table(folder / f"{name}.parquet") for name in ("forget", "retain", "spans"))
    reference = reference_rows(model, forget, False)
    examples = forget_examples(model, forget, spans, reference)
    module = params.choose("methods", method, "unlearn.method")
    block = params.read(method, module.Settings, folder / "params.yaml")
    arguments = (model, examples, forget, retain, reference, module, block, settings, "cpu", False)
    if minutes is None:
        return model, unlearn(*arguments)
    with checkpoints.opened("a" * 64, minutes, group) as kept:
        return model, unlearn(*arguments, kept)


def case(folder: Path, group: processes.Group, method: str, settings: dict, minutes: float | None, die: dict) -> dict:
    """One run of unlearning on the tables and the model in `folder`: all that comes of it, and the samples seen here.

    die: which process kills itself, at which call of the objective, and which checkpoint it lets be completed first.
    """
    module = params.choose("methods", method, "unlearn.method")
    seen, target = [], getattr(module, "Learner", module)
    objective = target.objective

    def noted(*arguments, **options):
        batch = next(value for value in arguments if hasattr(value, "sample_share"))
        seen.append([batch.sample_ids, batch.sample_share, batch.token_share])
        if die and group.rank == die["rank"] and len(seen) == die["call"]:
            die_after(folder / "work/unlearn" / ("a" * 64) / die["checkpoint"])
        return objective(*arguments, **options)

    target.objective = noted
    try:
        model, done = unlearned(folder / "model", group, method, Settings(**settings), minutes)
    finally:
        target.objective = objective
    return {**vars(done), "model": dict(model.model.state_dict()), "seen": seen, "world": group.count}


def die_after(checkpoint: Path) -> None:
    """Kill this process once process 0 has completed a checkpoint; else it may be gone before."""
    while not (checkpoint / checkpoints.MARKER).exists():
        time.sleep(0.02)
    os.kill(os.getpid(), signal.SIGKILL)


def main(case: Callable[..., dict]) -> None:
    """Run the cases of cases.json and write each process's results."""
    folder, count = Path(sys.argv[1]), int(sys.argv[2])
    models.prepare(COMPUTE)
    if not processes.started():
        processes.launch(count, COMPUTE)
        return
    with processes.joined("cpu") as group:
        results = [case(folder, group, **values) for values in json.loads((folder / "cases.json").read_text())]
        torch.save(results, folder / f"results-{group.rank}.pt")


if __name__ == "__main__":
    errors.run(processes.told_once(lambda: main(case)))
