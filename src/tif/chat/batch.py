"""Asks through the Batch API: cheaper, hours later. A killed run finds its batches again and pays for none twice."""

import asyncio
import hashlib
import uuid
from collections.abc import Awaitable, Iterator
from dataclasses import replace

import openai

from tif.chat import faults
from tif.chat.batch_files import Record, chunks, read_records, read_result, write_line
from tif.chat.client import Session, checked
from tif.chat.faults import Busy
from tif.chat.progress import Progress
from tif.chat.prompt import Unusable, read_completion
from tif.chat.service import Service
from tif.chat.store import Reply, Request, Store
from tif.errors import UserError

MOST_REQUESTS, MOST_BYTES = 50_000, 200_000_000  # the API's limits for one file
ROUNDS = 3  # times that a request is submitted before it counts as failed
TRANSFER = 600.0  # seconds for sending or fetching one file
LOCK = hashlib.sha256(b"batches").hexdigest()
UNFINISHED = {"validating", "in_progress", "finalizing", "cancelling"}


async def ask_all(
    requests: list[Request], service: Service, store: Store, progress: Progress
) -> dict[str, Reply | str]:
    """Key -> reply or reason, like `client.ask_all`. One process at a time; the others wait for it.

    What failed is submitted again, `ROUNDS` times in all.
    Raises UserError when a batch is refused or cancelled, or requests still fail for other reasons than their content.
    """
    run = _Run(service, store, progress, {request.key: request for request in requests})
    async with run.session.client:
        while True:
            with store.locked(LOCK) as mine:
                if mine:
                    return await run.all()
            progress.state("waiting for the batches of another run")
            await asyncio.sleep(service.poll)


class _Run:
    """The batches of one run. `problems`: key -> why the last try of a request gave no reply."""

    def __init__(self, service: Service, store: Store, progress: Progress, requests: dict[str, Request]) -> None:
        self.session = Session(service, store, progress)
        self.service, self.store, self.progress, self.requests = service, store, progress, requests
        self.folder = store.folder / "batches"
        self.problems: dict[str, Exception] = {}
        self.found: dict[str, Reply] = {}

    async def all(self) -> dict[str, Reply | str]:
        await _together(self._resume(record) for record in read_records(self.folder, set(self.requests)))
        for _ in range(ROUNDS):
            missing = self._missing()
            if not missing:
                break
            lines = [(request.key, write_line(request)) for request in missing]
            await _together(self._submit(dict(group)) for group in chunks(lines, MOST_REQUESTS, MOST_BYTES))
        failed = {request.key: self.problems[request.key] for request in self._missing()}
        for problem in failed.values():
            if isinstance(problem, Busy):
                raise UserError(
                    f"{self.service.name}: {len(failed)} requests still fail after {ROUNDS} batches,"
                    f" last: {problem}. {faults.KEPT}"
                )
        return self.found | {key: str(problem) for key, problem in failed.items()}

    def _missing(self) -> list[Request]:
        for key, request in self.requests.items():
            if key not in self.found and (reply := self.store.get(key, request.rows)):
                self.found[key] = reply
                self.progress.done(request)
        return [request for key, request in self.requests.items() if key not in self.found]

    async def _resume(self, record: Record) -> None:
        """End a batch that an earlier run began, if that run came so far as to create it."""
        batch_id = record.batch_id or await self.session.patiently(lambda: self._listed(record.nonce), TRANSFER)
        if batch_id is None:
            record.path(self.folder).unlink()
        else:
            await self._end(replace(record, batch_id=batch_id))

    async def _submit(self, lines: dict[str, bytes]) -> None:
        """Create a batch of some requests (key -> line of the file) and end it."""
        record = Record(uuid.uuid4().hex, {key: self.requests[key].rows for key in lines})
        record.write(self.folder)
        for key in lines:
            self.problems.pop(key, None)
        self.progress.state("sending a batch")
        client, content, tries = self.session.client, b"".join(lines.values()), []

        async def create() -> str:
            # A try that timed out may have created the batch all the same.
            if tries and (batch_id := await self._listed(record.nonce)):
                return batch_id
            tries.append(record)
            batch = await client.batches.create(
                input_file_id=file_id,
                endpoint="/v1/chat/completions",
                completion_window="24h",
                metadata={"tif": record.nonce},
            )
            return self.session.checked_object(batch).id

        try:
            file = await self.session.patiently(
                lambda: client.files.create(file=(f"{record.nonce}.jsonl", content), purpose="batch", timeout=TRANSFER),
                TRANSFER,
            )
            file_id = self.session.checked_object(file).id
            batch_id = await self.session.patiently(create)
        except UserError:
            if not tries:
                record.path(self.folder).unlink()  # nothing was created, so there is nothing to look for
            raise
        record = replace(record, batch_id=batch_id)
        record.write(self.folder)
        await self._end(record)

    async def _listed(self, nonce: str) -> str | None:
        async for batch in self.session.client.batches.list(limit=100):
            if (batch.metadata or {}).get("tif") == nonce:
                return batch.id
        return None

    async def _end(self, record: Record) -> None:
        """Wait for a batch, keep its replies, forget its record."""
        batch = await self._wait(record)
        for file in filter(None, (batch.output_file_id, batch.error_file_id)):
            await self._keep(record, file)
        for key in record.rows:
            self.problems.setdefault(key, Busy(f"the batch is {batch.status} without this request"))
        record.path(self.folder).unlink()
        if batch.status == "failed":
            reasons = [error.message or "" for error in (batch.errors.data or [])] if batch.errors else []
            said = faults.said("; ".join(reasons[:3]) or "no reason given", self.service.key)
            raise UserError(f"{self.service.name} refuses the batch {batch.id}: {said}")
        if batch.status == "cancelled":
            raise UserError(f"{self.service.name}: the batch {batch.id} was cancelled. {faults.KEPT}")
        for key in record.rows:
            if isinstance(self.problems[key], UserError):
                raise self.problems[key]

    async def _wait(self, record: Record):
        async def look():
            try:
                return self.session.checked_object(await self.session.client.batches.retrieve(record.batch_id))
            except openai.NotFoundError:
                place = record.path(self.folder)
                raise UserError(
                    f"{self.service.name} does not know the batch {record.batch_id}: it was deleted, or belongs to"
                    f" another key. Without the file {place} its requests are submitted anew"
                ) from None

        while True:
            batch = await self.session.patiently(look)
            if batch.status not in UNFINISHED:
                return batch
            counts = batch.request_counts
            done = f" {counts.completed}/{counts.total}" if counts else ""
            self.progress.state(f"batch {batch.status}{done}")
            await asyncio.sleep(self.service.poll)

    async def _keep(self, record: Record, file: str) -> None:
        """Store every usable reply of an output or error file, and note why the others are not."""
        client = self.session.client
        fetched = await self.session.patiently(lambda: client.files.content(file, timeout=TRANSFER), TRANSFER)
        for text in filter(str.strip, fetched.content.decode("utf-8", "replace").split("\n")):
            key, status, body = read_result(text)
            if key not in record.rows:
                continue
            try:
                if status != 200:
                    raise faults.judge_status(status, *faults.code_and_message(body), None, self.service)
                self.progress.spent(body)
                completion = checked(read_completion(body, record.rows[key]), self.service.key)
            except (Unusable, Busy, UserError) as problem:
                self.problems[key] = problem
                self.progress.retried()
            else:
                self.store.put(key, completion, record.rows[key], batch=True)


async def _together(batches: Iterator[Awaitable[None]]) -> None:
    """Bring every batch to its end before the first error is raised, so that no finished reply is left behind."""
    for result in await asyncio.gather(*batches, return_exceptions=True):
        if isinstance(result, BaseException):
            raise result
