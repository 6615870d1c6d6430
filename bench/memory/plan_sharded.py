"""The memory plan of sharded weights against measured memory: two processes on the CPU, FSDP2 over gloo.

    python bench/memory/plan_sharded.py

As plan.py, from when the weights are sharded on; what a process holds before that is printed beside it, because
every process loads the whole model into main memory first. Accelerate shards on accelerators alone, so it is told that
there are some.
"""

import ctypes
import gc
import os
from dataclasses import dataclass, replace
from pathlib import Path

import plan as alone
import resident
from accelerate import PartialState
from accelerate.utils import DistributedType

from tif.base import params, stage
from tif.lm import models
from tif.methods import Needs
from tif.plan import memory as plan
from tif.runs import processes
from tif.training import Memory, loop, sharding

COMPUTE = params.Compute(device="cpu", threads=1)
CASES = [case for case in alone.CASES if case.layers == 8 and case.dtype == "float32"]


@dataclass(frozen=True)
class Sharded(alone.Case):
    """A case whose weights are sharded."""

    @property
    def memory(self) -> Memory:
        return super().memory.model_copy(update={"fsdp": True})


def pretend(told, memory, finish=sharding.finish) -> None:
    """`tif.training.sharding.finish`, and every process has an accelerator."""
    finish(told, memory)
    PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU


class AfterEpoch(loop._AfterEpoch):
    """Notes the resident size when the weights have been sharded, and lets the maximum start anew."""

    loaded = 0

    def on_train_begin(self, *arguments, **options) -> None:
        gc.collect()
        AfterEpoch.loaded = resident._status("VmHWM")
        Path("/proc/self/clear_refs").write_text("5")


def measure(case: Sharded) -> str:
    """One line of the table."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = resident._status("VmRSS")
    alone.run(case)
    found, loaded = ((size - before) / 2**20 for size in (resident._status("VmHWM"), AfterEpoch.loaded))
    load = plan.load_of([(case.length, case.answer)], [], Needs(), 2 * case.rows, case.rows, processes=2)
    setup = plan.Setup(case.dtype, case.precision, case.checkpointing, fsdp=True, processes=2)
    total = plan.memory(plan.shape_of(case.config, case.memory.lora), setup, load).total / 2**20
    return f"{case.name:<32}{total:>10.0f}{found:>10.0f}{total / found - 1:>8.0%}{loaded:>10.0f}"


def main() -> None:
    """Measure every case in two processes; process 0 prints."""
    models.prepare(COMPUTE)
    if not processes.started():
        os.environ |= resident.AT_ONCE
        processes.launch(2, COMPUTE)
        return
    sharding.finish, loop._AfterEpoch = pretend, AfterEpoch
    with processes.joined("cpu") as group:
        cases = [Sharded(**vars(case)) for case in CASES]
        alone.run(replace(cases[0], layers=1, width=128, vocabulary=500, rows=1, length=16, answer=8))
        if group.rank == 0:
            print(f"{'MiB a process':<32}{'planned':>10}{'measured':>10}{'error':>8}{'loading':>10}")
        for case in cases:
            line = measure(case)
            if group.rank == 0:
                print(line, flush=True)


if __name__ == "__main__":
    stage.run(processes.told_once(main))
