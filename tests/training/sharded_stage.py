"""A stage for test_sharded.py: it unlearns a tiny model whose weights two CPU processes share, with FSDP2 over gloo.

Accelerate shards on accelerators alone, so each process tells it that it has one; what is sharded and gathered, and
when, is what it would be there.
"""

import os
from dataclasses import replace
from pathlib import Path

from accelerate import PartialState
from accelerate.utils import DistributedType
from processes_stage import die_after, main, unlearned
from torch.distributed.fsdp import FSDPModule

from tif.base import errors
from tif.lm import models
from tif.runs import processes
from tif.training import loop as train
from tif.unlearning.run import Settings


def pretend(finish):
    """`tif.training.memory.finish`, which is called once the Trainer's arguments have set up the processes."""

    def finished(told, fit):
        finish(told, fit)
        if fit.fsdp:
            PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU

    return finished


def case(
    folder: Path, group: processes.Group, name: str, method: str, settings: dict, minutes: float | None, model: str
) -> dict:
    """One run of unlearning on the tables and a model in `folder`, saved there as the model folder `name`."""
    start, settings = folder / model, Settings(**settings)
    model, done = unlearned(start, group, method, settings, minutes)
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
        step = self.state.global_step
        if self.args.process_index == 1 and step == int(os.environ["DIE_BEFORE_STEP"]):
            die_after(Path(self.args.output_dir) / f"checkpoint-{step}")
        return super().training_step(*arguments, **options)


if __name__ == "__main__":
    train.finish = pretend(train.finish)
    if "DIE_BEFORE_STEP" in os.environ:
        train.FlatTrainer = Mortal
    errors.run(processes.told_once(lambda: main(case)))
