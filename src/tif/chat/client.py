"""Asks a Chat Completions server for many replies at a time, with patience, and keeps each the moment it arrives."""

import asyncio
import json
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

import openai

from tif.chat import faults
from tif.chat.faults import Busy
from tif.chat.progress import Progress
from tif.chat.prompt import Unusable, read_completion
from tif.chat.service import OPENAI_URL, Service
from tif.chat.store import Reply, Request, Store
from tif.errors import UserError

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
        Raises Unusable when the last try gave an unusable reply; UserError for an error that stops the stage.
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
            if isinstance(problem, UserError):
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

    async def completion(self, request: Request) -> dict:
        """One try; see `prompt.read_completion`. Raises Unusable, UserError, or an error of the package openai."""
        raw = await self.client.chat.completions.with_raw_response.create(**request.body)
        if "html" in raw.http_response.headers.get("content-type", ""):
            raise self._web_page()
        try:
            body = json.loads(raw.http_response.content)
        except (ValueError, RecursionError):
            raise Unusable("malformed") from None
        self.progress.spent(body)
        return checked(read_completion(body, request.rows), self.service.key)

    def checked_object(self, value: T) -> T:
        """What the package made of a response, unless it was no JSON, which it hands on as text."""
        if isinstance(value, str):
            raise self._web_page()
        return value

    def _web_page(self) -> UserError:
        return UserError(
            f"{self.service.name} answers with a web page or another text, and not as an API; the address of an API"
            " mostly ends in /v1"
        )

    async def reply(self, request: Request) -> Reply | str:
        """The reply, from the store or the server, or the reason why there is none."""
        while True:
            with self.store.locked(request.key) as mine:
                found = self.store.get(request.key, request.rows)
                if found is None and mine:
                    try:
                        completion = await self.patiently(lambda: self.completion(request))
                    except Unusable as reason:
                        return str(reason)
                    return self.store.put(request.key, completion, request.rows, batch=False)
            if found is not None:
                return found
            await self.pause(LOCK_POLL)
            if self.stopped.is_set():
                raise Stopped


def checked(completion: dict, key: str) -> dict:
    """`completion`, unless it repeats the key, which nothing may keep. Raises Unusable then."""
    if len(key) >= 8 and (key in completion["content"] or key in completion["model"]):
        raise Unusable("malformed")
    return completion


async def ask_all(
    requests: list[Request], service: Service, store: Store, progress: Progress
) -> dict[str, Reply | str]:
    """Key -> reply or reason, for requests with different keys, `service.concurrency` of them at a time.

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
