"""Clones of one commit of this repository, which share its cache, for the length of a study."""

import fcntl
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from tif.base.errors import UserError
from tif.base.tables import write_text

ROOT = Path(__file__).resolve().parents[2]
SECONDS_TO_END = 30  # for the processes of a killed study, before a new one gives up


def git(*arguments: str, where: Path = ROOT) -> str:
    """Output of a git command, without the last line break. Raises UserError with what git says."""
    done = subprocess.run(["git", *arguments], cwd=where, capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"git {arguments[0]}: {done.stderr.strip()}")
    return done.stdout.removesuffix("\n")


def show(revision: str, path: str) -> str | None:
    """A file of a revision of this repository, or None where there is no such revision or file."""
    done = subprocess.run(["git", "show", f"{revision}:{path}"], cwd=ROOT, capture_output=True, text=True)
    return None if done.returncode else done.stdout


@contextmanager
def clones(folder: Path, base: str, count: int) -> Iterator[tuple[IO, list[Path]]]:
    """Make clones in `folder`, and remove them at the end.

    Gives the lock too, for processes that work in them: while one of them lives, no other study removes the clones.
    Raises UserError while another study uses the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        _acquire(lock, folder)
        made = [folder / f"clone{number}" for number in range(count)]
        for old in folder.glob("clone*"):  # of a study that was killed
            _remove(old)
        dvc = [sys.executable, "-m", "dvc", "cache", "dir"]
        cache = subprocess.run(dvc, cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()
        try:
            for clone in made:
                _clone(clone, base)
                write_text(clone / ".dvc/config.local", f"[cache]\n    dir = {ROOT / cache}\n")
            yield lock, made
        finally:
            for clone in made:
                _remove(clone)


def _acquire(lock: IO, folder: Path) -> None:
    end = time.monotonic() + SECONDS_TO_END
    while True:
        try:
            return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > end:
                raise UserError(f"another study is running in {folder}; wait for it or give another --folder") from None
            time.sleep(0.2)


def _clone(folder: Path, base: str) -> None:
    git("clone", "-q", "--no-checkout", str(ROOT), str(folder))
    git("checkout", "-q", "--detach", base, where=folder)
    for key in ("user.name", "user.email"):  # DVC commits experiments
        found = subprocess.run(["git", "config", key], cwd=ROOT, capture_output=True, text=True).stdout.strip()
        git("config", key, found or "study", where=folder)


def _remove(folder: Path) -> None:
    for _ in range(20):  # a stage that is just being ended may still write
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(0.5)
    raise UserError(f"{folder} cannot be removed; remove it and run again")
