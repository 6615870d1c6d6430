"""One call of the Batch API each. Only an answer that is what was asked for counts; nothing else may lose a batch."""

from collections.abc import Awaitable
from pathlib import Path

import openai

from tif.base.errors import UserError
from tif.identify.openai.batch_files import Record, read_result
from tif.identify.openai.client import Session
from tif.identify.openai.faults import Busy
from tif.identify.openai.prompt import Unusable

TRANSFER = 600.0  # seconds for sending or fetching one file


class Api:
    """The calls about a batch and its record (in `folder`).

    All raise Busy for an answer that is none, UserError for a web page, and the errors of the package openai.
    """

    def __init__(self, session: Session, folder: Path) -> None:
        self.session, self.folder, self.client = session, folder, session.client

    async def upload(self, record: Record, content: bytes) -> str:
        """The id of the input file."""
        file = f"{record.nonce}.jsonl", content
        sending = self.client.files.with_raw_response.create(file=file, purpose="batch", timeout=TRANSFER)
        return (await self._object(sending, "id"))["id"]

    async def create(self, record: Record, file: str) -> str:
        """The id of a new batch."""
        sending = self.client.batches.with_raw_response.create(
            input_file_id=file,
            endpoint="/v1/chat/completions",
            completion_window="24h",
            metadata={"tif": record.nonce},
        )
        return (await self._object(sending, "id"))["id"]

    async def listed(self, record: Record) -> str | None:
        """The id of the batch of a record among those of the server."""
        after = {}
        while True:
            page = await self._object(self.client.batches.with_raw_response.list(limit=100, **after))
            batches = page.get("data")
            if not isinstance(batches, list) or not all(_has_texts(batch, "id") for batch in batches):
                raise Busy("an answer that is no list of batches")
            for batch in batches:
                if isinstance(batch.get("metadata"), dict) and batch["metadata"].get("tif") == record.nonce:
                    return batch["id"]
            if not batches or not page.get("has_more"):
                return None
            after = {"after": batches[-1]["id"]}

    async def look(self, record: Record) -> dict:
        """The batch, with a `status`. Raises UserError when the server does not know it."""
        try:
            batch = await self._object(self.client.batches.with_raw_response.retrieve(record.batch_id), "status")
        except openai.NotFoundError:
            raise UserError(
                f"{self.session.service.name} does not know the batch {record.batch_id}: it was deleted, or belongs to"
                f" another key. {self._anew(record)}"
            ) from None
        if batch["status"] == "completed" and not result_files(batch):
            raise Busy(f"the batch {record.batch_id} is completed without results. {self._anew(record)}")
        return batch

    async def results(self, record: Record, file: str) -> list[tuple[str, int, object]]:
        """What `read_result` makes of the lines of an output or error file."""
        fetched = await self.client.files.content(file, timeout=TRANSFER)
        lines = fetched.content.decode("utf-8", "replace").split("\n")
        results = [read_result(line) for line in lines if line.strip()]
        if not results or any(key is None for key, _, _ in results):
            raise Busy(f"the file {file} of the batch {record.batch_id} holds no results. {self._anew(record)}")
        return results

    async def _object(self, sending: Awaitable, *names: str) -> dict:
        """The JSON object of a response, with texts under some names."""
        try:
            body = self.session.body(await sending)
        except Unusable:
            body = None
        if not _has_texts(body, *names):
            raise Busy("an answer that is none of this API")
        return body

    def _anew(self, record: Record) -> str:
        return f"Without the file {record.path(self.folder)} its requests are submitted anew"


def result_files(batch: dict) -> list[str]:
    """The ids of the output and the error file, as far as there are any."""
    return [batch[name] for name in ("output_file_id", "error_file_id") if _has_texts(batch, name)]


def _has_texts(value: object, *names: str) -> bool:
    return isinstance(value, dict) and all(value.get(name) and isinstance(value[name], str) for name in names)
