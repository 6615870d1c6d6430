"""A stage for test_sharded.py: it unlearns a tiny model whose weights two CPU processes share, with FSDP2 over gloo.

Accelerate shards on accelerators alone, so each process tells it that it has one; what is sharded and gathered, and
when, is what it would be there.
"""

import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import torch
from accelerate import PartialState
from accelerate.utils import DistributedType
from torch.distributed.fsdp import FSDPModule

from tif import checkpoints, errors, models, params, processes, train
from tif.reference import reference_rows
from tif.unlearn import Settings, forget_examples, unlearn

COMPUTE = params.Compute(device="cpu", threads=1)


def pretend(finish):
    """`tif.fit.finish`, which is called once the Trainer's arguments have set up the processes."""

    def finished(told, fit):
        finish(told, fit)
        if fit.fsdp:
            PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU

    return finished


def case(
    folder: Path, group: processes.Group, name: str, method: str, settings: dict, minutes: float | None, model: str
) -> dict:
    """One run of unlearning on the tables and a model in `folder`, saved there as the model folder `name`."""
    start = folder / model
    model = models.load(start, None, "cpu")
    forget, retain, spans, reference = (
        pq.read_table(folder / f"{table}.parquet") for table in ("forget", "retain", "spans", "reference")
    )
    if start.name != "model":
        reference = reference_rows(model, forget, False)
    examples = forget_examples(model, forget, spans, reference)
    module = params.choose("methods", method, "unlearn.method")
    block = params.read(method, module.Settings, folder / "params.yaml")
    settings = Settings(**settings)
    arguments = (model, examples, forget, retain, reference, module, block, settings, "cpu", False)
    if minutes is None:
        done = unlearn(*arguments)
    else:
        with checkpoints.opened("b" * 64, minutes, group) as kept:
            done = unlearn(*arguments, kept)
    card = models.of_adapter(model.card, start) if settings.lora else model.card
    models.save(folder / name, replace(model, card=card))
    return {
        "log": done.log,
        "trajectory": done.trajectory,
        "weights": done.weights,
        "selection": done.selection,
        "sharded": isinstance(model.model, FSDPModule),
        "units": sum(isinstance(module, FSDPModule) for module in model.model.modules()),
        "local": sum(getattr(weight, "_local_tensor", weight).numel() for weight in model.model.parameters()),
        "all": sum(weight.numel() for weight in model.model.parameters()),
    }


class Mortal(train.FlatTrainer):
    """Process 1 kills itself before a step."""

    def training_step(self, *arguments, **options):
        if self.args.process_index == 1 and self.state.global_step == int(os.environ["DIE_BEFORE_STEP"]):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().training_step(*arguments, **options)


def main() -> None:
    """Run the cases of cases.json and write each process's results."""
    folder, count = Path(sys.argv[1]), int(sys.argv[2])
    models.prepare(COMPUTE)
    if not processes.started():
        processes.launch(count, COMPUTE)
        return
    train.finish = pretend(train.finish)
    if "DIE_BEFORE_STEP" in os.environ:
        train.FlatTrainer = Mortal
    with processes.joined("cpu") as group:
        results = [case(folder, group, **values) for values in json.loads((folder / "cases.json").read_text())]
        torch.save(results, folder / f"results-{group.rank}.pt")


if __name__ == "__main__":
    errors.run(processes.told_once(main))
