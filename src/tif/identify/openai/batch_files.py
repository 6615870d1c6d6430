"""The files of the Batch API: what is sent, what comes back, and the record of a batch under way."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from tif.base.errors import UserError
from tif.identify.openai.store import Request, write


@dataclass(frozen=True)
class Record:
    """A batch that may have been paid for. nonce: what the batch carries as metadata; rows: key -> rows of a request.

    It is written before the batch is created, with `batch_id` None, so that a kill in between cannot hide a batch: the
    next run looks for the nonce among the server's batches.
    """

    nonce: str
    rows: dict[str, int]
    batch_id: str | None = None

    def path(self, folder: Path) -> Path:
        return folder / f"{self.nonce}.json"

    def save(self, folder: Path) -> None:
        write(self.path(folder), json.dumps(asdict(self)) + "\n")


def read_records(folder: Path, wanted: set[str]) -> list[Record]:
    """The recorded batches that hold one of the `wanted` keys. Raises UserError for a damaged file."""
    records = []
    for path in sorted(folder.glob("*.json")):
        try:
            record = Record(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            raise UserError(f"{path} is damaged: remove it; the batch that it names is then paid for again") from None
        if wanted & set(record.rows):
            records.append(record)
    return records


def chunks(sizes: dict[str, int], most: int, size: int) -> Iterator[list[str]]:
    """The keys of `sizes` (key -> bytes of its line) in groups of at most `most` lines and `size` bytes.

    A longer line is alone.
    """
    group, total = [], 0
    for key, length in sizes.items():
        if group and (len(group) == most or total + length > size):
            yield group
            group, total = [], 0
        group.append(key)
        total += length
    if group:
        yield group


def write_line(request: Request) -> bytes:
    """A request as a line of the input file."""
    item = {"custom_id": request.key, "method": "POST", "url": "/v1/chat/completions", "body": request.body}
    return json.dumps(item).encode() + b"\n"


def read_result(line: str) -> tuple[str | None, int, object]:
    """Key, HTTP status and body of a line of an output or error file; what is no such line has no key."""
    try:
        item = json.loads(line)
        response, error = item.get("response") or {}, item.get("error")
        key, status = item["custom_id"], response.get("status_code", 0)
    except (ValueError, RecursionError, TypeError, KeyError, AttributeError):
        return None, 0, None
    if not isinstance(key, str):
        return None, 0, None
    status = status if type(status) is int and status else 503
    return key, status, {"error": error} if error else response.get("body")
