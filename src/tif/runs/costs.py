"""What unlearning costs: seconds a step and peak memory, written beside the pipeline and never into an output.

Costs differ from run to run, and outputs must not. So they are measured only where the environment variable TIF_COSTS
names a file, which bench/study/study.py does.
"""

import json
import os
import resource
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

import torch
from torch.optim import AdamW
from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook

from tif.base.tables import write_text

VARIABLE = "TIF_COSTS"


@contextmanager
def measured() -> Iterator[None]:
    """Measure the training inside, and write a JSON object to the file that TIF_COSTS names; without it, do nothing.

    seconds_per_step: median time from one step of the model's optimiser (AdamW) to the next, so that what an epoch ends
    with does not count. steps: number of these. peak_mib: largest resident set of this process so far, models loaded
    and trajectory scored. peak_gpu_mib: largest memory that PyTorch had allocated, on CUDA only. Nothing is written
    with fewer than two steps or by other processes than the first of several.
    """
    path = os.environ.get(VARIABLE)
    if not path or os.environ.get("RANK", "0") != "0":
        yield
        return
    ends: list[float] = []

    def note(optimizer: Optimizer, *_) -> None:
        if isinstance(optimizer, AdamW):
            ends.append(time.perf_counter())

    hook = register_optimizer_step_post_hook(note)
    try:
        yield
    finally:
        hook.remove()
    if len(ends) > 1:
        write_text(path, json.dumps(_costs(ends)) + "\n")


def _costs(ends: list[float]) -> dict[str, float]:
    seconds = [after - before for before, after in pairwise(ends)]
    scale = 2**20 if sys.platform == "darwin" else 2**10  # ru_maxrss is in bytes there, in KiB elsewhere
    found = {
        "seconds_per_step": statistics.median(seconds),
        "steps": len(seconds),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / scale,
    }
    if torch.cuda.is_available():
        found["peak_gpu_mib"] = torch.cuda.max_memory_allocated() / 2**20
    return found
