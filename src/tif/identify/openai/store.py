"""Replies that were paid for, one file each, under a hash of everything that determines the reply."""

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from tif.base import tables
from tif.base.errors import UserError
from tif.identify.openai.prompt import Reply, canonical
from tif.identify.openai.service import OPENAI_URL

WHOLE = 1 << 60  # the byte of `claim`; those of keys are below


@dataclass(frozen=True)
class Request:
    """One request: the body of a Chat Completion, how many rows it asks for, and which of the samples it is."""

    body: dict
    rows: int
    sample: int
    key: str


def request(base_url: str | None, body: dict, rows: int, sample: int) -> Request:
    """A request with its key: SHA-256 of server, body and number of the sample. sample: 0, 1, ..."""
    place = (base_url or OPENAI_URL).rstrip("/")
    key = hashlib.sha256(canonical({"base_url": place, "body": body, "sample": sample}).encode()).hexdigest()
    return Request(body, rows, sample, key)


class Store:
    """The folder `openai` of the work folder. Raises UserError when it cannot be written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # POSIX drops a process's locks when it closes any descriptor of the file, so this one stays open.
            self._locks = os.open(folder / "locks", os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise _unwritable(folder / "locks", error) from None

    def path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.json"

    def get(self, key: str, rows: int) -> Reply | None:
        """The stored reply, or None when there is none or its file is damaged."""
        try:
            kept = json.loads(self.path(key).read_text(encoding="utf-8"))
            if kept.pop("sha256") != _checksum(kept):
                return None
            reply = Reply(**kept)
            return reply if reply.reason or len(reply.words) == rows else None
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None

    def put(self, key: str, reply: Reply) -> None:
        """Keep a reply, usable or not, in one step. Raises UserError when it cannot be written."""
        kept = asdict(reply)
        text = json.dumps({**kept, "sha256": _checksum(kept)}, indent=1, ensure_ascii=False)
        write(self.path(key), text + "\n")

    @contextmanager
    def locked(self, key: str) -> Iterator[bool]:
        """Whether this process got the lock of a key; without waiting. The kernel frees the locks of a dead process.

        A lock is one byte of one file, so that no lock files stay behind. Two keys may share a byte, which only costs
        time. Inside one process a lock excludes nothing.
        """
        byte = int(key[:15], 16)
        mine = self._lock(fcntl.LOCK_EX, byte)
        try:
            yield mine
        finally:
            if mine:
                fcntl.lockf(self._locks, fcntl.LOCK_UN, 1, byte)

    def claim(self, alone: bool) -> None:
        """Ask for replies beside other processes that do so key by key or, for batches, alone; until `release`.

        Raises UserError when another process asks in a way that does not go with it.
        """
        if not self._lock(fcntl.LOCK_EX if alone else fcntl.LOCK_SH, WHOLE):
            raise UserError(
                f"another run is asking for replies in {self.folder}, and a run with openai.batch = true goes with no"
                " other: run this one again when that has ended, so that nothing is paid for twice"
            )

    def release(self) -> None:
        """Give up what `claim` got."""
        fcntl.lockf(self._locks, fcntl.LOCK_UN, 1, WHOLE)

    def _lock(self, kind: int, byte: int) -> bool:
        try:
            fcntl.lockf(self._locks, kind | fcntl.LOCK_NB, 1, byte)
        except (BlockingIOError, PermissionError):
            return False
        except OSError as error:
            raise UserError(f"{self.folder} allows no file locks ({error.strerror}); set TIF_WORK to another") from None
        return True


def write(path: Path, text: str) -> None:
    """`tables.write_text` into the store. Raises UserError when that fails."""
    try:
        tables.write_text(path, text)
    except OSError as error:
        raise _unwritable(path, error) from None


def _unwritable(path: Path, error: OSError) -> UserError:
    return UserError(f"{path} cannot be written ({error.strerror}); set TIF_WORK to a folder of your own, with room")


def _checksum(kept: dict) -> str:
    return hashlib.sha256(canonical(kept).encode()).hexdigest()
