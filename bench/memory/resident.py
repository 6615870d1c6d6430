"""Memory of a function in a fresh process, as the growth of the maximum resident size. Linux only."""

import ctypes
import gc
import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path

from tif.base.params import Compute
from tif.lm.models import prepare

AT_ONCE = {"MALLOC_MMAP_THRESHOLD_": "65536"}  # glibc gives freed memory back at once: what is left are live numbers


def growth(function: Callable[..., None], arguments: tuple, warm_up: tuple, allocator: dict[str, str]) -> float:
    """MiB by which the maximum grows in function(*arguments), after function(*warm_up) in the same fresh process.

    allocator: environment variables, which glibc reads when a process starts. The function has to be importable.
    """
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=_work, args=(function, arguments, warm_up, theirs))
    before = {name: os.environ.get(name) for name in allocator}
    os.environ.update(allocator)
    process.start()
    for name, value in before.items():
        os.environ.pop(name) if value is None else os.environ.update({name: value})
    theirs.close()
    found = ours.recv()
    process.join()
    return found / 2**20


def _work(function: Callable[..., None], arguments: tuple, warm_up: tuple, pipe) -> None:
    prepare(Compute(device="cpu", threads=1))
    function(*warm_up)
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the maximum starts anew
    before = _status("VmRSS")
    function(*arguments)
    pipe.send(_status("VmHWM") - before)


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))
