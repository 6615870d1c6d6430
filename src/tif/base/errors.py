"""Errors meant for the user, and what other errors say in short."""

import errno


class UserError(Exception):
    """Bad input. The message says what is wrong, where, and what to do; it is shown without a traceback."""


def first_line(error: Exception) -> str:
    """What an exception says, in short: at most 200 characters of its first line, and of the second behind a colon."""
    text = getattr(error, "strerror", None) or str(error).strip() or type(error).__name__
    lines = [line.strip() for line in text.splitlines()]
    return " ".join(lines[: 2 if lines[0].endswith(":") else 1])[:200]


def disk_is_full(error: BaseException) -> bool:
    """Whether an exception means "no space left", also as reported by Arrow and safetensors without an errno."""
    return getattr(error, "errno", None) == errno.ENOSPC or "no space left on device" in str(error).lower()
