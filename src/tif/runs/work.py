"""The work folder: what is worth keeping between runs and is no output, such as replies that were paid for.

All experiments of a repository share it, those of `dvc exp run --queue` and `--temp` too, which run in folders of their
own but use the repository's cache.
"""

import os
import subprocess
import sys
from pathlib import Path

from tif.base.errors import UserError

VARIABLE = "TIF_WORK"


def folder() -> Path:
    """The work folder: `TIF_WORK` if set, else `tif-work` beside the folder that `dvc cache dir` resolves to.

    It is made when it is missing, and git ignores what is in it.
    Raises UserError outside of a DVC repository when `TIF_WORK` is not set, for a relative `TIF_WORK`, which would be
    another folder in every experiment, and for a folder that cannot be written.
    """
    place = os.environ.get(VARIABLE)
    if place and not os.path.isabs(os.path.expanduser(place)):
        raise UserError(
            f"{VARIABLE} = {place!r} is relative, so experiments that run elsewhere would not find it: give a full path"
        )
    work = Path(os.path.expanduser(place)).resolve() if place else _cache_folder().parent / "tif-work"
    try:
        work.mkdir(parents=True, exist_ok=True)
        ignore = work / ".gitignore"
        if not ignore.exists():
            ignore.write_text("*\n", encoding="utf-8")
    except OSError as error:
        raise UserError(
            f"the work folder {work} cannot be made ({error.strerror}); set {VARIABLE} to another"
        ) from None
    if not os.access(work, os.W_OK):
        raise UserError(f"the work folder {work} is not writable; set {VARIABLE} to another")
    return work


def _cache_folder() -> Path:
    done = subprocess.run([sys.executable, "-m", "dvc", "cache", "dir"], capture_output=True, text=True)
    if done.returncode:
        raise UserError(
            f"the work folder is beside the cache of DVC, and `dvc cache dir` fails here; set {VARIABLE} to a folder"
        )
    return Path(done.stdout.strip()).resolve()
