"""Which server is asked, with which key, how patiently, and at which price. Imports nothing of the package openai."""

import os
from dataclasses import dataclass, field

from tif.base.errors import UserError

OPENAI_URL = "https://api.openai.com/v1"
KEY_VARIABLE = "OPENAI_API_KEY"


@dataclass(frozen=True)
class Price:
    """USD per million tokens of prompts and of replies; `batch` is the factor on both for the Batch API."""

    prompt: float
    completion: float
    batch: float

    def of(self, prompt_tokens: int, completion_tokens: int, batch: bool) -> float:
        """USD."""
        full = (prompt_tokens * self.prompt + completion_tokens * self.completion) / 1e6
        return full * self.batch if batch else full


@dataclass(frozen=True)
class Service:
    """A server and how to treat it; none of it but the address decides what a reply says.

    base_url: None for OpenAI. batch: whether to use the Batch API. concurrency: requests under way at a time.
    timeout: seconds for one try. attempts: tries of a request in all. backoff: seconds before the second try, twice as
    many before each further one. poll: seconds between two looks at a batch. batch_requests: most requests in one.
    progress: whether to show a bar.
    """

    base_url: str | None
    key: str = field(repr=False)
    batch: bool
    concurrency: int
    timeout: float
    attempts: int
    backoff: float
    poll: float
    batch_requests: int
    price: Price
    progress: bool

    @property
    def name(self) -> str:
        return f"openai.base_url = {self.base_url}" if self.base_url else "the OpenAI API"


def read_key() -> str:
    """The key from the environment.

    Raises UserError when it is missing or cannot be sent in a header, and when the environment redirects requests in a
    way that the hash of a stored reply would not know.
    """
    key = os.environ.get(KEY_VARIABLE, "")
    if not key:
        raise UserError(
            f"identify.method = openai needs a key: set the environment variable {KEY_VARIABLE}"
            " (any text does for a server that checks none)"
        )
    if not all("!" <= character <= "~" for character in key):
        raise UserError(f"the key in {KEY_VARIABLE} holds a space, a line break or a character outside ASCII")
    for variable in ("OPENAI_BASE_URL", "OPENAI_CUSTOM_HEADERS"):
        if os.environ.get(variable):
            raise UserError(
                f"the environment variable {variable} would change what is asked without being recorded: unset it"
                " (the address of the server belongs into openai.base_url of params.yaml)"
            )
    return key
