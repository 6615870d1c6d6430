"""Checkpoints of a training run in the work folder, so that a killed one goes on where it was.

A run is known by a key: a hash of everything that its result depends on. A checkpoint is a folder that the transformers
Trainer has written, with state of our own beside it, and counts only with a marker that is written last: the SHA-256 of
every file in it. The two newest are kept, because a crash of the machine can damage the newest.
"""

import fcntl
import hashlib
import importlib.metadata
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from pydantic import BaseModel
from safetensors import SafetensorError

from tif.base.errors import UserError, first_line
from tif.runs import work
from tif.runs.processes import Group

MARKER = "complete.json"
PICKLE = "training_args.bin"  # written by the Trainer and read by nobody
ABANDONED = 14 * 24 * 3600  # seconds without a new checkpoint, and nobody at work, after which a run is given up
LIBRARIES = ("torch", "transformers", "accelerate", "peft")


def run_key(settings: Sequence[BaseModel], inputs: Mapping[str, Path], script: Path, processes: int) -> str:
    """SHA-256 of what a result depends on; call it when all modules are imported.

    settings: the blocks that were read. inputs: what a file or folder is for -> where it is; only content counts.
    script: of the stage. processes: how many there are. The modules of this project that are loaded count too, and the
    versions of the libraries that train.
    """
    modules = {name: module.__file__ for name, module in sys.modules.items() if name.split(".")[0] == "tif"}
    parts = {
        "settings": [[type(block).__module__, block.model_dump(mode="json")] for block in settings],
        "inputs": {name: _content(path) for name, path in inputs.items()},
        "code": {name: _content(Path(file)) for name, file in {**modules, "script": script}.items() if file},
        "libraries": {name: _version(name) for name in LIBRARIES},
        "processes": processes,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _content(path: Path) -> str | dict[str, str]:
    """SHA-256 of a file, or of every file below a folder."""
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
        return {file.relative_to(path).as_posix(): _content(file) for file in files}
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Checkpoints:
    """The checkpoints of one run; see `opened`. folder: of them. resume: step of the newest good one, or None."""

    def __init__(self, folder: Path, key: str, minutes: float, group: Group) -> None:
        self.folder = folder
        self.key = key
        self.minutes = minutes
        self.group = group
        newest = group.agree(self._newest() if group.rank == 0 else 0)
        self.resume = newest if newest >= 0 else None
        self.saved = time.monotonic()

    def path(self, step: int) -> Path:
        """Where the Trainer puts the checkpoint of a step."""
        return self.folder / f"checkpoint-{step}"

    def load(self) -> dict[str, dict]:
        """The state that this process gave to `complete` with the checkpoint `resume`."""
        return torch.load(self._state(self.resume), weights_only=True, map_location="cpu")

    def _state(self, step: int) -> Path:
        return self.path(step) / f"tif-{self.group.rank}.pt"

    def due(self) -> bool:
        """Whether it is time for the next one; the same in all processes. Then only the newest is kept until it is
        complete.
        """
        due = self.group.agree(time.monotonic() - self.saved >= 60 * self.minutes)
        if due and self.group.rank == 0:
            for step in self._steps()[1:]:
                _remove(self.path(step))
        return bool(due)

    def complete(self, step: int, state: dict[str, dict]) -> None:
        """Add the state to what the Trainer has written at a step, and make it count.

        state: name -> tensors and plain values. Every process writes its own, as it may hold a part of the weights.
        """
        try:
            torch.save(state, self._state(step))
        except Exception as error:
            if not not_written(error):
                raise
            raise unwritable(self.path(step), error) from None
        self.group.wait()
        if self.group.rank == 0:
            try:
                self._seal(self.path(step))
            except OSError as error:
                raise unwritable(self.path(step), error) from None
        self.saved = time.monotonic()

    def _seal(self, folder: Path) -> None:
        (folder / PICKLE).unlink(missing_ok=True)
        for path in [*folder.rglob("*"), folder]:
            _sync(path)
        temporary = folder / f".{MARKER}"
        temporary.write_text(json.dumps({"key": self.key, "files": _content(folder)}, indent=1), encoding="utf-8")
        _sync(temporary)
        os.replace(temporary, folder / MARKER)
        _sync(folder)
        _sync(self.folder)

    def _steps(self) -> list[int]:
        """Steps of all checkpoints, the newest first."""
        names = [path.name.removeprefix("checkpoint-") for path in self.folder.glob("checkpoint-*")]
        return sorted((int(name) for name in names if name.isdigit()), reverse=True)

    def _newest(self) -> int:
        """Step of the newest good checkpoint, or -1; removes newer ones. Raises UserError for one of another run."""
        for step in self._steps():
            if self._is_good(self.path(step)):
                return step
            _remove(self.path(step))
        return -1

    def _is_good(self, folder: Path) -> bool:
        if not (folder / MARKER).exists():
            return False  # it was being written when the run was killed
        try:
            marker = json.loads((folder / MARKER).read_text(encoding="utf-8"))
            key, files = marker["key"], marker["files"]
        except (ValueError, TypeError, KeyError):
            key, files = self.key, None
        if key != self.key:
            raise UserError(f"{folder} is a checkpoint of another run; delete {self.folder} and run again")
        found = _content(folder)
        found.pop(MARKER)
        if files != found:
            print(f"{folder} is damaged; going on without it", file=sys.stderr)
            return False
        return True


@contextmanager
def opened(key: str, minutes: float, group: Group) -> Iterator[Checkpoints]:
    """The checkpoints of the run `key` in the work folder, for this run alone; deleted when the block ends well.

    minutes: time between two of them, 0 for one after every step. A second run with the same key waits until the first
    has ended; if that was killed, it goes on from its checkpoints. A run that ends well also deletes those of killed
    runs that nobody has gone on with for two weeks. Raises UserError for a checkpoint of another run in the folder.
    """
    base = work.folder() / "unlearn"
    folder = base / key
    with _locked(base, key, group) as locks:
        try:
            folder.mkdir(exist_ok=True)
        except OSError as error:
            raise unwritable(folder, error) from None
        try:
            yield Checkpoints(folder, key, minutes, group)
            if group.rank == 0:
                for checkpoint in folder.iterdir():
                    _remove(checkpoint)
                _remove_abandoned(base, locks)
        finally:
            if group.rank == 0:  # the others may end while it is still in use
                with suppress(OSError):  # it stays while it holds a checkpoint
                    folder.rmdir()


@contextmanager
def _locked(base: Path, key: str, group: Group) -> Iterator[int]:
    """Keep the lock of a key, which the kernel frees when process 0 dies. Gives the open file of all locks.

    A lock is one byte of one file, so that no lock files stay behind. Two keys may share a byte, which only costs time.
    All processes ask again together, because one that waited for process 0 alone would run into a time limit.
    """
    try:
        base.mkdir(exist_ok=True)
        locks = os.open(base / "locks", os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise unwritable(base, error) from None
    try:
        told = False
        while not group.agree(group.rank > 0 or _try_lock(locks, key)):
            if not told and group.rank == 0:
                print("another run with the same settings and data is under way; waiting for its end", file=sys.stderr)
            told = True
            time.sleep(1)
        yield locks
    finally:
        os.close(locks)


def _try_lock(locks: int, key: str) -> bool:
    try:
        fcntl.lockf(locks, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, int(key[:15], 16))
    except (BlockingIOError, PermissionError):
        return False
    except OSError as error:
        raise UserError(f"the work folder allows no file locks ({error.strerror}); set TIF_WORK to another") from None
    return True


def _remove(folder: Path) -> None:
    """Remove a checkpoint in such an order that what a kill leaves of it does not count."""
    (folder / MARKER).unlink(missing_ok=True)
    shutil.rmtree(folder)


def _remove_abandoned(base: Path, locks: int) -> None:
    """Remove the checkpoints of runs that are most likely never asked for again: settings, data or code have changed.

    Their locks are kept until the file of locks is closed, so that no run begins with what is being removed.
    """
    for folder in base.iterdir():
        with suppress(OSError, UserError):  # it may be somebody else's; the run that has ended is good without
            old = time.time() - folder.stat().st_mtime > ABANDONED
            if old and re.fullmatch("[0-9a-f]{64}", folder.name) and _try_lock(locks, folder.name):
                for checkpoint in folder.iterdir():
                    _remove(checkpoint)
                folder.rmdir()


def _sync(path: Path) -> None:
    """Bring a file, or the names in a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def unwritable(path: Path, error: Exception) -> UserError:
    """What to say when the work folder takes no more."""
    return UserError(
        f"{path} cannot be written ({first_line(error)}); free some space, or set TIF_WORK to a folder with room"
    )


def not_written(error: Exception) -> bool:
    """Whether an exception says that a file could not be written.

    torch tells so by a RuntimeError that names the module of its archives; one for too little memory names another.
    """
    return isinstance(error, (OSError, SafetensorError)) or "inline_container" in str(error)
