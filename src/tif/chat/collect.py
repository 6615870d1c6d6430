"""Replies to requests, from the store where it has them and from the server for the others."""

import asyncio
import signal
import sys
from collections.abc import Coroutine
from typing import TypeVar

from tif.chat.batch_files import read_records
from tif.chat.progress import Progress
from tif.chat.service import Service
from tif.chat.store import Reply, Request, Store
from tif.errors import UserError

T = TypeVar("T")


def collect(title: str, requests: list[Request], service: Service, store: Store) -> dict[str, Reply | str]:
    """Key -> the reply, or the reason why there is no usable one (`prompt.Unusable`).

    title: what the progress bar calls the requests. Raises UserError when the server refuses or stays away; what has
    arrived by then is stored; and when a batch was begun with some of them, which would then be paid for twice.
    """
    unique = {request.key: request for request in requests}
    stored = {key: store.get(key, request.rows) for key, request in unique.items()}
    found: dict[str, Reply | str] = {key: reply for key, reply in stored.items() if reply is not None}
    missing = [request for key, request in unique.items() if key not in found]
    if not missing:
        return found
    if not service.batch and (records := read_records(store.folder / "batches", {one.key for one in missing})):
        raise UserError(
            f"{len(missing)} requests are not answered, and a batch that may hold them was begun and not ended: run"
            " with openai.batch = true to get what it has, or give it up by removing"
            f" {records[0].path(store.folder / 'batches')}"
        )
    # Here and not above: they import the package openai, without which an estimate and a run from the store do well.
    from tif.chat import batch, client

    ask_all = batch.ask_all if service.batch else client.ask_all
    rows = sum(request.rows for request in unique.values())
    progress = Progress(title, rows, rows - sum(request.rows for request in missing), service)
    try:
        return found | _complete(ask_all(missing, service, store, progress))
    finally:
        progress.close()


def _complete(work: Coroutine[None, None, T]) -> T:
    """The result of a coroutine. SIGTERM cancels it first, because an exit in the middle of the loop is all noise."""
    before = signal.getsignal(signal.SIGTERM)

    async def main() -> T:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asyncio.current_task().cancel)
        return await work

    try:
        return asyncio.run(main())
    except asyncio.CancelledError:
        sys.exit(128 + signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
