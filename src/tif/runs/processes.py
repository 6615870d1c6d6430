"""More than one process for a stage: it launches copies of itself through torchrun, and its failures are told once."""

import ctypes
import logging
import os
import signal
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING

from tif.base.errors import UserError
from tif.base.params import Compute

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

PATIENCE = timedelta(hours=6)  # how long a process waits for the others, for example while the first one writes a model
LAUNCHER = "TIF_LAUNCHER"  # variable: the process that has started this one
GRACE = 3.0  # seconds; the launcher looks after its processes ten times a second


@dataclass(frozen=True)
class Group:
    """The processes that work on one stage. rank: 0 for the one that writes. count: how many there are."""

    rank: int = 0
    count: int = 1

    def agree(self, value: int) -> int:
        """The value of process 0, in every process."""
        if self.count == 1:
            return value
        import torch
        import torch.distributed as dist

        shared = torch.tensor(value)
        dist.broadcast(shared, 0)
        return int(shared)

    def wait(self) -> None:
        """Wait until every process is here."""
        if self.count > 1:
            import torch
            import torch.distributed as dist

            dist.all_reduce(torch.zeros(1))  # on the CPU, where no GPU has to be named


def started() -> bool:
    """Whether this process is one of those that torchrun has started."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def launch(count: int, compute: Compute) -> None:
    """Run this script again in `count` processes of this machine, as `torchrun --standalone` does, until they end.

    Process 0 writes to the terminal; what the others print is shown when one of them fails first. Raises UserError with
    the message of the process that failed, and for too few GPUs.
    """
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException, Std
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    check_devices(count, compute.device)
    # as torchrun would, but with the thread count that the results depend on
    os.environ["OMP_NUM_THREADS"] = str(compute.threads)
    os.environ[LAUNCHER] = str(os.getpid())
    logging.disable()  # the agent reports each failure at length, beside what the processes say themselves
    with tempfile.TemporaryDirectory(prefix="tif-processes-") as logs:
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=count,
            run_id=str(uuid.uuid4()),
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            local_addr="localhost",
            max_restarts=0,
            logs_specs=DefaultLogsSpecs(logs, redirects=dict.fromkeys(range(1, count), Std.ALL)),
        )
        try:
            elastic_launch(config, sys.executable)(*sys.argv)
        except ChildFailedError as error:
            _tell(error, logs, count)
        except SignalException as error:
            sys.exit(128 + error.sigval)


def check_devices(count: int, device: str) -> None:
    """Raises UserError when there are not as many devices as processes; CPU processes need none of their own."""
    import torch

    there = {"cpu": count, "cuda": torch.cuda.device_count(), "mps": 1}[device]
    if there < count:
        raise UserError(
            f"params.yaml: unlearn.processes = {count}, and every process needs a {device} device of its own, of which"
            f" there {'is' if there == 1 else 'are'} {there}; set unlearn.processes to at most that"
        )


def _tell(error: "ChildFailedError", logs: str, count: int) -> None:
    """Raise or exit with what the first process to fail said."""
    rank, failure = error.get_first_failure()
    said = failure.error_file_data["message"]
    if isinstance(said, dict):
        raise UserError(said["message"].removeprefix(f"{UserError.__name__}: ")) from None
    if failure.exitcode < 0:
        raise UserError(
            f"process {rank} of {count} was killed by {failure.signal_name()}; if it was short of memory, lower"
            " unlearn.micro_batch or unlearn.processes"
        ) from None
    first = error.failures.get(0)
    if first is None or first.exitcode != 1:  # process 0 has not shown the same; the others write to files
        for path in Path(logs).glob(f"*/attempt_0/{rank}/stderr.log"):
            sys.stderr.write(path.read_text(encoding="utf-8", errors="replace"))
    sys.exit(1)


@contextmanager
def joined(device: str) -> Iterator[Group]:
    """The group that this process belongs to; of one process unless torchrun has started it."""
    if not started():
        yield Group()
        return
    import torch
    import torch.distributed as dist

    if device == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("cpu:gloo,cuda:nccl" if device == "cuda" else "gloo", timeout=PATIENCE)
    group = Group(dist.get_rank(), dist.get_world_size())
    yield group
    group.wait()
    dist.destroy_process_group()


def told_once(stage: Callable[[], None]) -> Callable[[], None]:
    """The stage, whose failure in one of several processes reaches the user once, through the launcher.

    Bad input is recorded for the launcher, which ends the other processes and shows it. Any other exception waits for a
    moment: most are the echo of a process that has gone, and then the launcher ends this one before it speaks.
    Without the launcher the processes would wait for each other where no signal is heeded, so its death is theirs.
    """

    @wraps(stage)
    def run() -> None:
        if not started():
            return stage()
        signal.signal(signal.SIGINT, lambda *_: sys.exit(128 + signal.SIGINT))
        _killed_with_parent()
        if os.getppid() != int(os.environ.get(LAUNCHER, os.getppid())):
            sys.exit(1)  # it has died before
        try:
            return stage()
        except UserError as error:
            from torch.distributed.elastic.multiprocessing.errors import get_error_handler

            get_error_handler().record_exception(error)
            sys.exit(1)
        except Exception:
            time.sleep(GRACE)
            raise

    return run


def _killed_with_parent() -> None:
    """On Linux, let the kernel kill this process when its parent dies."""
    if sys.platform == "linux":
        parent_death_signal = 1  # PR_SET_PDEATHSIG
        ctypes.CDLL(None).prctl(parent_death_signal, signal.SIGKILL)
