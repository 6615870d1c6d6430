"""Replies that were paid for, one file each, under a hash of everything that determines the reply."""

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tif import tables
from tif.chat.prompt import Unusable, canonical, read_reply
from tif.chat.service import OPENAI_URL
from tif.errors import UserError


@dataclass(frozen=True)
class Request:
    """One request: the body of a Chat Completion, how many rows it asks for, and which of the samples it is."""

    body: dict
    rows: int
    sample: int
    key: str


@dataclass(frozen=True)
class Reply:
    """The labels of a reply: target words per row, the model that gave them, tokens (None: not told), batch price."""

    words: list[list[str]]
    model: str
    prompt_tokens: int | None
    completion_tokens: int | None
    batch: bool


def request(base_url: str | None, body: dict, rows: int, sample: int) -> Request:
    """A request with its key: SHA-256 of server, body and number of the sample. sample: 0, 1, ..."""
    place = (base_url or OPENAI_URL).rstrip("/")
    key = hashlib.sha256(canonical({"base_url": place, "body": body, "sample": sample}).encode()).hexdigest()
    return Request(body, rows, sample, key)


class Store:
    """The folder `openai` of the work folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        # POSIX drops a process's locks when it closes any descriptor of the file, so this one stays open.
        self._locks = os.open(folder / "locks", os.O_RDWR | os.O_CREAT, 0o644)

    def path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.json"

    def get(self, key: str, rows: int) -> Reply | None:
        """The stored reply, or None when there is none or its file is damaged."""
        try:
            kept = json.loads(self.path(key).read_text(encoding="utf-8"))
            if kept.pop("sha256") != _checksum(kept):
                return None
            words = read_reply(kept["content"], rows)
            return Reply(words, kept["model"], kept["prompt_tokens"], kept["completion_tokens"], kept["batch"])
        except (OSError, ValueError, TypeError, KeyError, AttributeError, Unusable):
            return None

    def put(self, key: str, completion: dict, rows: int, batch: bool) -> Reply:
        """Keep what `prompt.read_completion` gave, in one step."""
        kept = {**completion, "batch": batch}
        text = json.dumps({**kept, "sha256": _checksum(kept)}, indent=1, ensure_ascii=False) + "\n"
        tables.write_text(self.path(key), text)
        return Reply(
            read_reply(kept["content"], rows),
            kept["model"],
            kept["prompt_tokens"],
            kept["completion_tokens"],
            batch,
        )

    @contextmanager
    def locked(self, key: str) -> Iterator[bool]:
        """Whether this process got the lock of a key; without waiting. The kernel frees the locks of a dead process.

        A lock is one byte of one file, so that no lock files stay behind. Two keys may share a byte, which only costs
        time. Inside one process a lock excludes nothing.
        """
        byte = int(key[:15], 16)
        try:
            fcntl.lockf(self._locks, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, byte)
        except (BlockingIOError, PermissionError):
            yield False
            return
        except OSError as error:
            raise UserError(f"{self.folder} allows no file locks ({error.strerror}); set TIF_WORK to another") from None
        try:
            yield True
        finally:
            fcntl.lockf(self._locks, fcntl.LOCK_UN, 1, byte)


def _checksum(kept: dict) -> str:
    return hashlib.sha256(canonical(kept).encode()).hexdigest()
