"""What to do about an error of the server: wait and try again, give the reply up, or stop with one clear message."""

import email.utils
import re
import time

import openai

from tif.chat.prompt import Unusable
from tif.chat.service import KEY_VARIABLE, Service
from tif.errors import UserError

LONGEST_WAIT = 600.0  # seconds; a server that asks for more has closed for today
KEPT = "Finished replies are kept, and a further run asks only for the others"

# These say that one request cannot be answered, not that all are wrong.
_ABOUT_THE_CONTENT = {
    "content_filter": "refused",
    "content_policy_violation": "refused",
    "invalid_prompt": "refused",
    "context_length_exceeded": "too long",
}
_TRANSIENT = {408, 409, 425, 429}


class Busy(Exception):
    """An error that may pass. `wait`: seconds that the server asks for, or None. The message says what happened."""

    def __init__(self, message: str, wait: float | None = None) -> None:
        super().__init__(message)
        self.wait = wait


def judge(error: Exception, service: Service) -> Exception:
    """The exception to raise instead: Busy, Unusable, or a UserError that stops the stage.

    None of them holds the key, not even the part of it that a server may repeat.
    """
    if isinstance(error, TimeoutError | openai.APITimeoutError):
        return Busy(f"no reply within {service.timeout:g} s")
    if isinstance(error, openai.APIConnectionError):
        return Busy(f"the connection fails ({type(error.__cause__ or error).__name__})")
    if not isinstance(error, openai.APIStatusError):
        return UserError(f"{service.name}: {type(error).__name__}: {said(str(error), service.key)}")
    wait = retry_after(error.response.headers)
    code, message = code_and_message({"error": error.body}) if isinstance(error.body, dict) else (None, error.message)
    return judge_status(error.status_code, code, message, wait, service)


def judge_status(status: int, code: str | None, message: str, wait: float | None, service: Service) -> Exception:
    """`judge` for an HTTP status, the code and message of the error, and the seconds of Retry-After, if any."""
    if status in (401, 403):
        return UserError(f"{service.name} refuses the key in {KEY_VARIABLE} (HTTP {status}). {KEPT}")
    if code == "insufficient_quota":
        return UserError(f"{service.name}: the account has no credit left (HTTP {status}). {KEPT}")
    if code in _ABOUT_THE_CONTENT and status < 500:
        return Unusable(_ABOUT_THE_CONTENT[code])
    if status in _TRANSIENT or status >= 500:
        if wait is not None and wait > LONGEST_WAIT:
            return UserError(f"{service.name} asks to wait {wait:.0f} s (HTTP {status}). {KEPT}")
        return Busy(f"HTTP {status}: {said(message, service.key)}", wait)
    hint = ""
    if status == 404:
        hint = ". Is there such a model, and does the address end as the API wants it, mostly in /v1?"
        hint += " A server without a Batch API needs openai.batch = false" if service.batch else ""
    elif status in (400, 422):
        hint = "; a server without structured outputs needs openai.structured = false"
    return UserError(f"{service.name} refuses the request (HTTP {status}: {said(message, service.key)}){hint}")


def code_and_message(body: object) -> tuple[str | None, str]:
    """Code and message of the error in a response's body."""
    error = body.get("error") if isinstance(body, dict) else None
    if not isinstance(error, dict):
        return None, "no reason given"
    code = error.get("code")
    return code if isinstance(code, str) else None, str(error.get("message") or "no reason given")


def retry_after(headers) -> float | None:
    """Seconds that a Retry-After header asks for, written as seconds or as an HTTP date; None without a usable one."""
    value = headers.get("retry-after")
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except (TypeError, ValueError):
            return None
    return max(0.0, seconds) if seconds == seconds else None


def said(message: str, key: str) -> str:
    """A server's message on one line, short, and without anything that looks like a part of a key.

    >>> said("Incorrect API key: sk-ab****wxyz.", "sk-abcdefghuvwxyz")
    'Incorrect API key: [hidden]'
    """
    if re.match(r"\s*<(!doctype|html|\?xml)", message, re.IGNORECASE):
        return "a web page"
    parts = [key[:4], key[-4:]] if len(key) >= 8 else []  # a shorter one is no secret, and parts of it are in any text
    hidden = [
        "[hidden]" if re.search(r"\bsk-", word) or "**" in word or any(part in word for part in parts) else word
        for word in message.split()
    ]
    text = " ".join(hidden)
    return text if len(text) <= 200 else text[:200] + "..."
