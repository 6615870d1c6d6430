"""What to do about an error of the server: wait and try again, give the reply up, or stop with one clear message."""

import email.utils
import re
import time

import openai

from tif.base.errors import UserError
from tif.identify.openai.prompt import Hopeless, Unusable
from tif.identify.openai.service import KEY_VARIABLE, Service

LONGEST_WAIT = 600.0  # seconds; a server that asks for more has closed for today
KEPT = "Finished replies are kept, and a further run asks only for the others"

_CONTENT = {"content_filter": Unusable, "content_policy_violation": Unusable, "invalid_prompt": Hopeless}
# Every server has words of its own for it.
_TOO_LONG = re.compile(
    r"context[ _](length|size|window)|maximum context|too[ _]many[ _](input[ _])?tokens"
    r"|(prompt|input|request|message)s?\b.{0,60}\btoo (long|large)|\bexceed.{0,80}\b(tokens?|context|length)"
    r"|\btokens?\b.{0,80}(\bexceed|must be <)",
    re.IGNORECASE | re.DOTALL,
)
_STRUCTURED = re.compile(r"response.?format|schema|grammar|structured", re.IGNORECASE)
_TRANSIENT = {408, 409, 425, 429}


class Busy(Exception):
    """An error that may pass. `wait`: seconds that the server asks for, or None. The message says what happened."""

    def __init__(self, message: str, wait: float | None = None) -> None:
        super().__init__(message)
        self.wait = wait


def judge(error: Exception, service: Service) -> Exception:
    """The exception to raise instead: Busy, or a UserError that stops the stage.

    None of them holds the key, not even the part of it that a server may repeat.
    """
    if isinstance(error, TimeoutError | openai.APITimeoutError):
        return Busy(f"no reply within {service.timeout:g} s")
    if isinstance(error, openai.APIConnectionError):
        return Busy(f"the connection fails ({type(error.__cause__ or error).__name__})")
    if not isinstance(error, openai.APIStatusError):
        return UserError(f"{service.name}: {type(error).__name__}: {said(str(error), service.key)}")
    return judge_status(error.status_code, *reason(error.body), retry_after(error.response.headers), service)


def judge_status(status: int, code: str, message: str, wait: float | None, service: Service) -> Exception:
    """`judge` for an HTTP status, the code and message of the error, and the seconds of Retry-After, if any."""
    why = f"(HTTP {status}: {said(message, service.key)})"
    if status in (401, 403):
        rights = ", or what it is used for" if status == 403 else ""
        return UserError(f"{service.name} refuses the key in {KEY_VARIABLE}{rights} {why}. {KEPT}")
    if code == "insufficient_quota":
        return UserError(f"{service.name}: the account has no credit left (HTTP {status}). {KEPT}")
    if status in _TRANSIENT or status >= 500:
        if wait is not None and wait > LONGEST_WAIT:
            return UserError(f"{service.name} asks to wait {wait:.0f} s (HTTP {status}). {KEPT}")
        return Busy(why[1:-1], wait)
    hint = ""
    if status == 404:
        hint = ". Is there such a model, and does the address end as the API wants it, mostly in /v1?"
        hint += " A server without a Batch API needs openai.batch = false" if service.batch else ""
    elif _STRUCTURED.search(message):
        hint = "; a server without structured outputs needs openai.structured = false"
    elif status in (400, 422):
        hint = "; if it is too much for the model, lower openai.context_tokens, rows_per_request or reply_tokens"
    return UserError(f"{service.name} refuses the request {why}{hint}")


def unusable(status: int, code: str, message: str) -> Unusable | None:
    """What an error means that says that one request cannot be answered, not that all are wrong; else None."""
    if status == 413 or (status in (400, 422) and _TOO_LONG.search(f"{code} {message}")):
        return Hopeless("too long")
    return _CONTENT[code]("refused") if code in _CONTENT and status < 500 else None


def reason(body: object) -> tuple[str, str]:
    """Code (or else the type, or nothing) and message of the error in the body of a response, or of that error."""
    error = body.get("error") or body if isinstance(body, dict) else body
    if not isinstance(error, dict):
        return "", str(error or "no reason given")
    kinds = [kind for kind in (error.get("code"), error.get("type"), "") if isinstance(kind, str)]
    return kinds[0], str(error.get("message") or error.get("detail") or "no reason given")


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
        except (TypeError, ValueError, OverflowError):
            return None
    return max(0.0, seconds) if seconds == seconds else None


def said(message: str, key: str) -> str:
    """A server's message on one line, short, and without anything that looks like a part of a key.

    >>> said("Incorrect API key: sk-ab****wxyz.", "sk-abcdefghuvwxyz")
    'Incorrect API key: [hidden]'
    """
    if re.match(r"\s*<(!doctype|html|\?xml)", message, re.IGNORECASE):
        return "a web page"
    # A shorter key is no secret, and parts of it are in any text.
    parts = [key[:4], key[-4:], *(key[at : at + 6] for at in range(len(key) - 5))] if len(key) >= 8 else []
    hidden = [
        "[hidden]" if re.search(r"\bsk-", word) or "**" in word or any(part in word for part in parts) else word
        for word in message.split()
    ]
    text = " ".join(hidden)
    return text if len(text) <= 200 else text[:200] + "..."
