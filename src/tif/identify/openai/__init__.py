"""The identifier `openai`: a chat model says which words of an answer are unwanted, on any Chat Completions server.

Rules:
- A returned word counts at every place of the answer (of the window, in a long one) where it stands between word
  boundaries: as it is, or else after Unicode and case folding (`tif.identify.openai.locate`).
- Words that are not in the answer are asked for once more, then reported and dropped. So are those without a letter or
  digit, unasked.
- In one sample a word is unwanted when any window that holds it says so; in the end, when more than half of the
  samples say so. Its score is their share.
- A request for several rows without a usable reply is asked again row by row. A row without a usable reply is reported
  and its words count as general in that sample. That there is none is kept like a reply: to ask once more, remove the
  file that the record names from the work folder, or change `seed`, which asks about every row again.
"""

import math
from collections import Counter
from contextlib import closing
from dataclasses import dataclass

import httpx
import pyarrow as pa
from pydantic import Field, field_validator

from tif.base.errors import UserError
from tif.base.params import Block
from tif.identify import Found, Resources
from tif.identify.openai import prompt
from tif.identify.openai.collect import Collector
from tif.identify.openai.labels import Labels, Piece
from tif.identify.openai.prompt import Reply
from tif.identify.openai.report import Absent, Report
from tif.identify.openai.service import Price, Service, read_key
from tif.identify.openai.store import Request, Store, request
from tif.identify.openai.windows import count_tokens, windows
from tif.words import is_punctuation, word_rows

# What a reply costs is not known before it is there, so the estimate assumes:
REPLY_SHARE = 0.6  # tokens of the returned words, per token of the answer: about a third, in quotes and commas
REPLY_FRAME = 16  # tokens of JSON around the words of one row


class Prices(Block):
    """USD per million tokens; `batch` is the factor on both for the Batch API."""

    prompt: float = Field(ge=0)
    completion: float = Field(ge=0)
    batch: float = Field(ge=0, le=1)


class Settings(Block):
    """The block `openai`; params.yaml says what each key means.

    The keys marked `exclude` decide neither what is asked nor what comes of it, so the outputs do not hold them.
    """

    model: str = Field(min_length=1)
    base_url: str | None = Field(pattern=r"^https?://[^@?#\s]+$")
    structured: bool
    temperature: float | None = Field(ge=0, le=2)
    seed: int | None
    reply_tokens: int = Field(ge=1)
    reply_tokens_name: str = Field(pattern=r"^(max_completion_tokens|max_tokens)$")
    rows_per_request: int = Field(ge=1)
    samples: int = Field(ge=1)
    context_tokens: int = Field(ge=50)
    overlap: int = Field(ge=0)
    batch: bool = Field(exclude=True)
    poll: float = Field(gt=0, exclude=True)
    batch_requests: int = Field(ge=1, le=50_000, exclude=True)  # the API's limit for one file
    concurrency: int = Field(ge=1, le=1000, exclude=True)
    timeout: float = Field(gt=0, exclude=True)
    attempts: int = Field(ge=1, exclude=True)
    backoff: float = Field(ge=0, exclude=True)
    prices: Prices = Field(exclude=True)

    @field_validator("base_url")
    @classmethod
    def _is_an_address(cls, value: str | None) -> str | None:
        try:
            url = httpx.URL(value or "http://none")
        except httpx.InvalidURL as error:
            raise ValueError(str(error)) from None
        if not url.host or not 0 < (url.port or 80) < 65536:
            raise ValueError("without a host, or with an impossible port")
        return value


@dataclass(frozen=True)
class Asking:
    """A request, and the pieces of answers that it is about, in the order of their ids in it."""

    pieces: tuple[Piece, ...]
    sample: int
    request: Request


def identify(forget: pa.Table, retain: pa.Table, settings: Settings, resources: Resources) -> Found:
    """Rows of `SPANS`; the module says how they come about.

    forget: the forget set (`SAMPLES`); `retain` and `resources.source` are not used. Replies are kept in the
    folder `openai` of the work folder (`tif.runs.work`), and none that is there is asked for again.
    counts: requests, tokens of their replies (`Report.counts`), the price in USD, and how much of what record lists.
    record: rows without a usable reply, words that were not in their answer, rows without unwanted words.
    Raises UserError without a key, and when the server refuses or stays away.
    """
    service = _service(settings, read_key(), resources.progress)
    samples = forget.select(["sample_id", "prompt", "response"]).to_pylist()
    askings = plan(samples, settings)
    from tif.runs import work

    store = Store(work.folder() / "openai")
    labels = Labels([row["response"] for row in samples], settings.samples)
    replies: dict[str, Reply] = {}
    with closing(Collector(service, store)) as collector:

        def ask(title: str, some: list[Asking]) -> None:
            replies.update(collector.collect(title, [asking.request for asking in some]))

        ask("rows", askings)
        whole = [one for one in askings if len(one.pieces) == 1 or not replies[one.request.key].reason]
        single = [
            _asking(samples, (piece,), one.sample, settings)
            for one in askings
            if len(one.pieces) > 1 and replies[one.request.key].reason
            for piece in one.pieces
        ]
        ask("rows of unusable replies", single)
        absent = _mark(labels, [*whole, *single], replies)
        wanted = [[word for word in item.words if not is_punctuation(word)] for item in absent]
        again = {
            number: _asking(samples, (item.piece,), item.sample, settings, words)
            for number, (item, words) in enumerate(zip(absent, wanted, strict=True))
            if words
        }
        ask("words that were not in their answer", list(again.values()))
    for number, asking in again.items():
        item, reply = absent[number], replies[asking.request.key]
        item.reason = reply.reason
        if not reply.reason:
            item.instead, item.still_missing = labels.mark(item.piece, item.sample, reply.words[0])
    report = Report([row["sample_id"] for row in samples], labels, absent, list(replies.values()))
    report.say(store.folder)
    rows = []
    for number, row in enumerate(samples):
        rows += word_rows(row["sample_id"], row["response"], *labels.votes(number))
    metadata = {
        "version": "1",
        "model": ", ".join(sorted({reply.model for reply in replies.values() if reply.model})) or settings.model,
        "prompt_version": prompt.VERSION,
        "prompt_sha256": prompt.sha256(),
    }
    return Found(rows, metadata, report.counts(service.price), report.record())


def estimate(forget: pa.Table, settings: Settings) -> str:
    """Rows, requests, tokens and price of labelling `forget`, before any request, and how they were estimated."""
    samples = forget.select(["sample_id", "prompt", "response"]).to_pylist()
    askings = list({asking.request.key: asking for asking in plan(samples, settings)}.values())
    texts = Counter(message["content"] for asking in askings for message in asking.request.body["messages"])
    schema = count_tokens(prompt.canonical(prompt.SCHEMA)) if settings.structured else 0
    sent = sum(times * count_tokens(text) for text, times in texts.items()) + schema * len(askings)
    answers = [samples[piece.row]["response"][piece.start : piece.end] for one in askings for piece in one.pieces]
    got = sum(REPLY_FRAME + math.ceil(REPLY_SHARE * count_tokens(answer)) for answer in answers)
    price = Price(**settings.prices.model_dump()).of(sent, got, settings.batch)
    return (
        f"rows: {len(samples)}\n"
        f"requests: {len(askings)}\n"
        f"tokens: {sent} of prompts and {got} of replies\n"
        f"cost: {price:.2f} USD for {settings.model}{' through the Batch API' if settings.batch else ''}\n"
        "Tokens are estimated from the length of the texts, those of replies from the length of the answers. Retries"
        " and second askings come on top; replies that are stored already cost nothing again."
    )


def plan(samples: list[dict], settings: Settings) -> list[Asking]:
    """All first requests: pieces in order, `rows_per_request` and at most `context_tokens` together, for every sample.

    samples: rows with `prompt` and `response`. What holds no word is not asked about.
    Raises UserError when the overlap is not below the context budget.
    """
    if settings.overlap >= settings.context_tokens:
        raise UserError(
            f"params.yaml: openai.overlap = {settings.overlap} is not allowed: it must be below openai.context_tokens"
            f" = {settings.context_tokens}"
        )
    groups: list[list[Piece]] = []
    room = 0
    for row, sample in enumerate(samples):
        text = sample["response"]
        for start, end in windows(text, settings.context_tokens, settings.overlap):
            if not text[start:end].strip():
                continue
            size = count_tokens(text[start:end])
            if not groups or len(groups[-1]) == settings.rows_per_request or size > room:
                groups.append([])
                room = settings.context_tokens
            groups[-1].append(Piece(row, start, end))
            room -= size
    return [_asking(samples, tuple(group), number, settings) for number in range(settings.samples) for group in groups]


def _asking(
    samples: list[dict], pieces: tuple[Piece, ...], sample: int, settings: Settings, missing: list[str] | None = None
) -> Asking:
    """A request for some pieces; with `missing` the second one, about words that are not in a single piece."""
    rows = [(samples[piece.row]["prompt"], samples[piece.row]["response"][piece.start : piece.end]) for piece in pieces]
    body = {
        "model": settings.model,
        "messages": prompt.messages(rows, missing),
        settings.reply_tokens_name: settings.reply_tokens,
    }
    if settings.structured:
        body["response_format"] = prompt.RESPONSE_FORMAT
    if settings.temperature is not None:
        body["temperature"] = settings.temperature
    if settings.seed is not None:
        body["seed"] = settings.seed + sample
    return Asking(pieces, sample, request(settings.base_url, body, len(pieces), sample))


def _mark(labels: Labels, askings: list[Asking], replies: dict[str, Reply]) -> list[Absent]:
    """Put first replies into `labels`; the returned words that are not in their piece."""
    absent = []
    for asking in askings:
        reply = replies[asking.request.key]
        for number, piece in enumerate(asking.pieces):
            if reply.reason:
                labels.fail(piece, asking.sample, reply.reason, asking.request.key)
                continue
            _, missing = labels.mark(piece, asking.sample, reply.words[number])
            if missing:
                absent.append(Absent(piece, asking.sample, missing))
    return absent


def _service(settings: Settings, key: str, progress: bool) -> Service:
    return Service(
        base_url=settings.base_url,
        key=key,
        batch=settings.batch,
        concurrency=settings.concurrency,
        timeout=settings.timeout,
        attempts=settings.attempts,
        backoff=settings.backoff,
        poll=settings.poll,
        batch_requests=settings.batch_requests,
        price=Price(**settings.prices.model_dump()),
        progress=progress,
    )
