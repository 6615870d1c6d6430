"""Asks a Chat Completions server for many replies at a time, with patience, and keeps each the moment it arrives."""

import asyncio
import json
import random
from collections.abc import Awaitable, Callable
from itertools import chain
from typing import TypeVar

import openai

from tif.base.errors import UserError
from tif.identify.openai import faults
from tif.identify.openai.faults import Busy
from tif.identify.openai.progress import Progress
from tif.identify.openai.prompt import Hopeless, Reply, Unusable, Usage, read_completion, read_usage, without_labels
from tif.identify.openai.service import OPENAI_URL, Service
from tif.identify.openai.store import Request, Store

T = TypeVar("T")

LONGEST_BACKOFF = 60.0  # seconds
LOCK_POLL = 0.1  # seconds between two looks at a reply that another process is asking for


class Stopped(Exception):
    """Another request has stopped the session."""


class Session:
    """One run's talk with a server. After the first error that stops it, requests under way end and none begins."""

    def __init__(self, service: Service, store: Store, progress: Progress) -> None:
        self.service, self.store, self.progress = service, store, progress
        self.stopped = asyncio.Event()
        self.client = openai.AsyncOpenAI(
            api_key=service.key,
            base_url=service.base_url or OPENAI_URL,
            max_retries=0,
            timeout=service.timeout,
        )

    async def patiently(self, send: Callable[[], Awaitable[T]], seconds: float | None = None) -> T:
        """The result of `send`, tried up to `attempts` times, each at most `seconds` (by default the timeout) long.

        Between two tries: the backoff, doubled each time and with jitter, or the server's Retry-After if it is longer.
        Raises Unusable when the last try gave an unusable reply or no other can do better; UserError for an error that
        stops the stage.
        """
        attempt = 0
        while True:
            attempt += 1
            if self.stopped.is_set():
                raise Stopped
            try:
                async with asyncio.timeout(seconds or self.service.timeout):
                    return await send()
            except (openai.OpenAIError, TimeoutError) as error:
                problem = faults.judge(error, self.service)
            except (Unusable, Busy) as error:
                problem = error
            if isinstance(problem, UserError | Hopeless):
                raise problem from None
            if attempt == self.service.attempts:
                if isinstance(problem, Unusable):
                    raise problem from None
                message = f"{self.service.name}: gave up after {attempt} tries, last: {problem}. {faults.KEPT}"
                raise UserError(message) from None
            self.progress.retried()
            delay = min(LONGEST_BACKOFF, self.service.backoff * 2 ** (attempt - 1)) * random.uniform(0.5, 1.5)
            await self.pause(max(delay, getattr(problem, "wait", None) or 0.0))

    async def pause(self, seconds: float) -> None:
        """Wait, but not longer than until the session is stopped."""
        try:
            await asyncio.wait_for(self.stopped.wait(), seconds)
        except TimeoutError:
            return

    async def completion(self, request: Request, tries: list[Usage]) -> Reply:
        """One try, whose tokens are added to `tries`.

        Raises Unusable, UserError, or an error of the package openai.
        """
        try:
            raw = await self.client.chat.completions.with_raw_response.create(**request.body)
        except openai.APIStatusError as error:
            raise faults.unusable(error.status_code, *faults.reason(error.body)) or error from None
        usage = None, None
        try:
            body = self.body(raw)
            usage = read_usage(body)
            return checked(read_completion(body, request.rows, batch=False), self.service.key)
        finally:
            tries.append(usage)
            self.progress.spent(usage)

    def body(self, raw) -> object:
        """The decoded JSON of a response. Raises UserError for a web page, Unusable for what else is no JSON."""
        if "html" in raw.http_response.headers.get("content-type", ""):
            raise UserError(
                f"{self.service.name} answers with a web page, and not as an API; the address of an API mostly ends in"
                " /v1"
            )
        try:
            return json.loads(raw.http_response.content)
        except (ValueError, RecursionError):
            raise Unusable("malformed") from None

    async def reply(self, request: Request) -> Reply:
        """The reply, from the store or the server."""
        while True:
            with self.store.locked(request.key) as mine:
                found = self.store.get(request.key, request.rows)
                if found is None and mine:
                    found = await self._asked(request)
                    self.store.put(request.key, found)
            if found is not None:
                return found
            await self.pause(LOCK_POLL)
            if self.stopped.is_set():
                raise Stopped

    async def _asked(self, request: Request) -> Reply:
        tries: list[Usage] = []
        try:
            return await self.patiently(lambda: self.completion(request, tries))
        except Unusable as reason:
            return without_labels(str(reason), tries, batch=False)


def checked(reply: Reply, key: str) -> Reply:
    """`reply`, unless it repeats the key, which nothing may keep. Raises Unusable then."""
    if len(key) >= 8 and any(key in text for text in (reply.model, *chain(*reply.words))):
        raise Unusable("malformed")
    return reply


async def ask_all(requests: list[Request], service: Service, store: Store, progress: Progress) -> dict[str, Reply]:
    """Key -> reply, for requests with different keys, `service.concurrency` of them at a time.

    Raises the first error that stops the session, after the requests under way have ended and their replies are kept.
    """
    session = Session(service, store, progress)
    todo, found, errors = iter(requests), {}, []

    async def work() -> None:
        for request in todo:
            try:
                found[request.key] = await session.reply(request)
            except Stopped:
                return
            except Exception as error:
                errors.append(error)
                session.stopped.set()
                return
            progress.done(request)

    async with session.client:
        await asyncio.gather(*(work() for _ in range(min(service.concurrency, len(requests)))))
    if errors:
        raise errors[0]
    return found
