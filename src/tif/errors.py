"""Errors meant for the user, and the one way in which a stage starts and ends."""

import ctypes
import errno
import signal
import sys
from collections.abc import Callable


class UserError(Exception):
    """Bad input. The message says what is wrong, where, and what to do; it is shown without a traceback."""


def run(stage: Callable[[], None]) -> None:
    """Run a stage: one line on stderr and exit status 1 for bad input or a full disk.

    Any other exception is a defect and keeps its traceback. SIGTERM ends the stage like an exception does, so that
    nothing half-written stays. On Linux the stage also gets it when its parent dies, because a stage that outlives a
    killed `dvc repro` would go on writing into outputs that nobody watches.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    die_with_parent(signal.SIGTERM)
    try:
        stage()
    except UserError as error:
        sys.exit(f"error: {error}")
    except Exception as error:
        if not disk_is_full(error):
            raise
        where = getattr(error, "filename", None) or "an output of this stage"
        sys.exit(f"error: the disk is full while writing {where}; it was not kept. Free some space and run again")


def die_with_parent(how: signal.Signals) -> None:
    """On Linux, let the kernel send this process a signal when its parent dies."""
    if sys.platform == "linux":
        parent_death_signal = 1  # PR_SET_PDEATHSIG
        ctypes.CDLL(None).prctl(parent_death_signal, how)


def first_line(error: Exception) -> str:
    """What an exception says, in short: one line of at most 200 characters."""
    return (getattr(error, "strerror", None) or str(error).strip() or type(error).__name__).splitlines()[0][:200]


def disk_is_full(error: BaseException) -> bool:
    """Whether an exception means "no space left", also as reported by Arrow and safetensors without an errno."""
    return getattr(error, "errno", None) == errno.ENOSPC or "no space left on device" in str(error).lower()
