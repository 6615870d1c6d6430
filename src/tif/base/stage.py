"""The one way in which a stage starts and ends.

This module is imported before any other, because it notes who started this process.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tif.base.errors import UserError, disk_is_full

LOOK_AFTER = 1.0  # seconds between two looks at whether DVC is still there


def run(stage: Callable[[], None]) -> None:
    """Run a stage: one line on stderr and exit status 1 for bad input or a full disk, and 130 after Ctrl-C.

    Any other exception is a defect and keeps its traceback. SIGTERM ends the stage like an exception does, so that
    nothing half-written stays. A stage that DVC started sends it to itself when DVC is gone, because one that outlives
    a killed `dvc repro` would go on writing into outputs that nobody watches. Started by hand it may outlive its shell.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        with _watched():
            stage()
    except UserError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        print("interrupted; nothing half-written was kept, and the next run goes on or starts anew", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    except Exception as error:
        if not disk_is_full(error):
            raise
        where = getattr(error, "filename", None) or "an output of this stage"
        sys.exit(f"error: the disk is full while writing {where}; it was not kept. Free some space and run again")


@contextmanager
def _watched() -> Iterator[None]:
    """End this process by SIGTERM, from another thread, when who started it is gone, or at once where that is so now.

    The kernel can do so (PR_SET_PDEATHSIG), but only for the parent, and only from when it is asked.
    """
    if "DVC_STAGE" not in os.environ:  # which DVC sets
        yield
        return
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(LOOK_AFTER):
            if abandoned():
                os.kill(os.getpid(), signal.SIGTERM)
                return  # a second one would come in the middle of what the first makes the stage do

    if abandoned():
        sys.exit(128 + signal.SIGTERM)
    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        ended.set()


def abandoned() -> bool:
    """Whether who started this process is gone: its child, this process or a shell, then has another parent."""
    parent, behind = STARTERS
    return os.getppid() != parent or (behind is not None and _parent(parent) not in (behind, None))


def _starters() -> tuple[int, int | None]:
    """Ids of the parent of this process and, where that is a shell which runs a single command, of the shell's parent.

    DVC starts a stage through the user's shell. Some let the command take their place; others, such as Debian's sh,
    stay, and do not end with DVC. The second id is None where there is no /proc to tell.
    """
    parent = os.getppid()
    try:
        told = Path(f"/proc/{parent}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return parent, None
    return parent, _parent(parent) if told[-3:-2] == [b"-c"] else None  # shell, its options, -c, command, nothing


def _parent(process: int) -> int | None:
    try:
        stat = Path(f"/proc/{process}/stat").read_bytes()
    except OSError:
        return None
    return int(stat.rpartition(b")")[2].split()[1])  # behind the name, which may hold anything, and the state


STARTERS = _starters()  # when this package is imported, so that a death while libraries are loaded is noticed
