"""Replies to requests, from the store where it has them and from the server for the others."""

import asyncio
import signal
import sys
from collections.abc import Coroutine
from typing import TypeVar

from tif.base.errors import UserError
from tif.identify.openai.batch_files import read_records
from tif.identify.openai.progress import Progress
from tif.identify.openai.prompt import Reply
from tif.identify.openai.service import Service
from tif.identify.openai.store import Request, Store

T = TypeVar("T")


class Collector:
    """Gets the replies of one run. Until `close`, the store is claimed as soon as a reply is not there."""

    def __init__(self, service: Service, store: Store) -> None:
        self.service, self.store, self.progress = service, store, Progress(service)

    def collect(self, title: str, requests: list[Request]) -> dict[str, Reply]:
        """Key -> the reply; one without usable words says why in `reason`, and is kept like the others.

        title: what the progress bar calls the requests. Raises UserError when the server refuses or stays away; what
        has arrived by then is stored; when another run is in the way; and when a batch was begun with some of the
        requests, which would then be paid for twice.
        """
        service, store = self.service, self.store
        unique = {request.key: request for request in requests}
        stored = {key: store.get(key, request.rows) for key, request in unique.items()}
        found = {key: reply for key, reply in stored.items() if reply is not None}
        missing = [request for key, request in unique.items() if key not in found]
        if not missing:
            return found
        store.claim(alone=service.batch)  # before the look at the batches, so that none can begin after it
        if not service.batch and (records := read_records(store.folder / "batches", {one.key for one in missing})):
            raise UserError(
                f"{len(missing)} requests are not answered, and a batch that may hold them was begun and not ended: run"
                " with openai.batch = true to get what it has, or give it up by removing"
                f" {records[0].path(store.folder / 'batches')}"
            )
        # Here and not above: they import the package openai, without which an estimate and a run from the store do well
        from tif.identify.openai import batch, client

        ask_all = batch.ask_all if service.batch else client.ask_all
        rows = sum(request.rows for request in unique.values())
        self.progress.begin(title, rows, rows - sum(request.rows for request in missing))
        return found | _complete(ask_all(missing, service, store, self.progress))

    def close(self) -> None:
        self.progress.close()
        self.store.release()


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
