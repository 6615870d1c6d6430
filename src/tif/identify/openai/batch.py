"""Asks through the Batch API: cheaper, hours later. A killed run finds its batches again and pays for none twice."""

import asyncio
import uuid
from collections import defaultdict
from collections.abc import Awaitable, Iterator
from dataclasses import replace
from functools import partial

import openai

from tif.base.errors import UserError
from tif.identify.openai import faults
from tif.identify.openai.batch_api import TRANSFER, Api, result_files
from tif.identify.openai.batch_files import Record, chunks, read_records, write_line
from tif.identify.openai.client import Session, checked
from tif.identify.openai.faults import Busy
from tif.identify.openai.progress import Progress
from tif.identify.openai.prompt import Hopeless, Reply, Unusable, Usage, read_completion, read_usage, without_labels
from tif.identify.openai.service import Service
from tif.identify.openai.store import Request, Store

MOST_BYTES = 200_000_000  # the API's limit for one file
ROUNDS = 3  # times that a request is submitted before it counts as failed
ENDS = {"completed", "failed", "expired", "cancelled"}


async def ask_all(requests: list[Request], service: Service, store: Store, progress: Progress) -> dict[str, Reply]:
    """Key -> reply, like `client.ask_all`; for the only process that asks.

    What failed is submitted again, `ROUNDS` times in all.
    Raises UserError when a batch is refused or cancelled, or requests still fail for other reasons than their content.
    """
    run = _Run(service, store, progress, {request.key: request for request in requests})
    async with run.session.client:
        return await run.all()


class _Run:
    """The batches of one run. `problems`: key -> why the last try of a request gave no reply."""

    def __init__(self, service: Service, store: Store, progress: Progress, requests: dict[str, Request]) -> None:
        self.session = Session(service, store, progress)
        self.service, self.store, self.progress, self.requests = service, store, progress, requests
        self.folder = store.folder / "batches"
        self.api = Api(self.session, self.folder)
        self.problems: dict[str, Exception] = {}
        self.tries: dict[str, list[Usage]] = defaultdict(list)
        self.found: dict[str, Reply] = {}
        self.sending = asyncio.Lock()  # a file may be large, so one at a time is in memory

    async def all(self) -> dict[str, Reply]:
        await _together(self._resume(record) for record in read_records(self.folder, set(self.requests)))
        for _ in range(ROUNDS):
            sizes = {request.key: len(write_line(request)) for request in self._missing()}
            await _together(self._submit(keys) for keys in chunks(sizes, self.service.batch_requests, MOST_BYTES))
        failed = {request.key: self.problems[request.key] for request in self._missing()}
        for key, problem in failed.items():
            if isinstance(problem, Unusable):
                self._give_up(key, problem)
        busy = [problem for problem in failed.values() if isinstance(problem, Busy)]
        if busy:
            raise UserError(
                f"{self.service.name}: {len(busy)} requests still fail after {ROUNDS} batches, last: {busy[-1]}."
                f" {faults.KEPT}"
            )
        self._missing()
        return self.found

    def _missing(self) -> list[Request]:
        for key, request in self.requests.items():
            if key not in self.found and (reply := self.store.get(key, request.rows)):
                self.found[key] = reply
                self.progress.done(request)
        return [request for key, request in self.requests.items() if key not in self.found]

    def _give_up(self, key: str, problem: Unusable) -> None:
        self.store.put(key, without_labels(str(problem), self.tries[key], batch=True))

    async def _resume(self, record: Record) -> None:
        """End a batch that an earlier run began, if that run came so far as to create it."""
        batch_id = record.batch_id or await self.session.patiently(lambda: self.api.listed(record), TRANSFER)
        if batch_id is None:
            record.path(self.folder).unlink()
        else:
            await self._end(replace(record, batch_id=batch_id))

    async def _submit(self, keys: list[str]) -> None:
        """Create a batch of some requests and end it."""
        record = Record(uuid.uuid4().hex, {key: self.requests[key].rows for key in keys})
        record.save(self.folder)
        for key in keys:
            self.problems.pop(key, None)
        self.progress.state("sending a batch")
        tries = []  # those that may have created the batch

        async def create() -> str:
            if tries and (batch_id := await self.api.listed(record)):
                return batch_id
            tries.append(record)
            try:
                return await self.api.create(record, file_id)
            except openai.APIStatusError as error:
                if error.status_code < 500 and error.status_code not in (408, 409):
                    tries.pop()
                raise

        try:
            async with self.sending:
                content = b"".join(write_line(self.requests[key]) for key in keys)
                file_id = await self.session.patiently(partial(self.api.upload, record, content), TRANSFER)
                del content
            batch_id = await self.session.patiently(create)
        except UserError:
            if not tries:
                record.path(self.folder).unlink()  # nothing was created, so there is nothing to look for
            raise
        record = replace(record, batch_id=batch_id)
        record.save(self.folder)
        await self._end(record)

    async def _end(self, record: Record) -> None:
        """Wait for a batch, keep its replies, forget its record."""
        while (batch := await self.session.patiently(lambda: self.api.look(record)))["status"] not in ENDS:
            counts = batch.get("request_counts")
            done = f" {counts.get('completed')}/{counts.get('total')}" if isinstance(counts, dict) else ""
            self.progress.state(f"batch {batch['status']}{done}")
            await asyncio.sleep(self.service.poll)
        for file in result_files(batch):
            await self._keep(record, file)
        status = batch["status"]
        for key in record.rows:
            self.problems.setdefault(key, Busy(f"the batch is {status} without this request"))
        record.path(self.folder).unlink()
        if status == "failed":
            raise self._refused(record, batch.get("errors"))
        if status == "cancelled":
            raise UserError(f"{self.service.name}: the batch {record.batch_id} was cancelled. {faults.KEPT}")
        for key in record.rows:
            if isinstance(self.problems[key], UserError):
                raise self.problems[key]

    def _refused(self, record: Record, errors: object) -> UserError:
        listed = errors.get("data") if isinstance(errors, dict) else None
        reasons = [faults.reason(error) for error in listed] if isinstance(listed, list) else []
        why = faults.said("; ".join(message for _, message in reasons[:3]) or "no reason given", self.service.key)
        hint = ""
        if any(code == "token_limit_exceeded" for code, _ in reasons):
            hint = (
                ". With a smaller openai.batch_requests each run gets as many batches done as the account may have"
                f" waiting at a time. {faults.KEPT}"
            )
        return UserError(f"{self.service.name} refuses the batch {record.batch_id}: {why}{hint}")

    async def _keep(self, record: Record, file: str) -> None:
        """Store every usable reply of an output or error file, and note why the others are not."""
        for key, status, body in await self.session.patiently(lambda: self.api.results(record, file), TRANSFER):
            if key not in record.rows:
                continue
            try:
                if status != 200:
                    why = faults.reason(body)
                    raise faults.unusable(status, *why) or faults.judge_status(status, *why, None, self.service)
                self.tries[key].append(read_usage(body))
                self.progress.spent(self.tries[key][-1])
                reply = checked(read_completion(body, record.rows[key], batch=True), self.service.key)
            except (Unusable, Busy, UserError) as problem:
                self.problems[key] = problem
                self.progress.retried()
                if isinstance(problem, Hopeless):
                    self._give_up(key, problem)
            else:
                self.store.put(key, reply)


async def _together(batches: Iterator[Awaitable[None]]) -> None:
    """Bring every batch to its end before the first error is raised, so that no finished reply is left behind."""
    for result in await asyncio.gather(*batches, return_exceptions=True):
        if isinstance(result, BaseException):
            raise result
