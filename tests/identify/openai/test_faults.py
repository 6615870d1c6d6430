"""Messages without keys, and Retry-After."""

from email.utils import formatdate
from time import time

import pytest

from tif.base.errors import UserError
from tif.identify.openai.faults import Busy, judge_status, reason, retry_after, said, unusable
from tif.identify.openai.prompt import Hopeless, Unusable
from tif.identify.openai.service import Price, Service

KEY = "sk-proj-Zq7Xw3Lk9Vt2Rb5Nm8Jh4Gd6"


@pytest.fixture
def service():
    return Service(None, KEY, False, 1, 1.0, 1, 0.0, 1.0, 1, Price(0, 0, 0), False)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (f"bad key {KEY}.", "bad key [hidden]"),
        ("bad key sk-pr***wxyz.", "bad key [hidden]"),
        ("bad key ********4Gd6.", "bad key [hidden]"),
        (f"Bearer:{KEY[:7]}... is wrong", "[hidden] is wrong"),
        ("two\n lines\tof text", "two lines of text"),
        ("<!DOCTYPE html><p>x", "a web page"),
        (" <html><p>x", "a web page"),
        (f"key {KEY[12:20]} of Project proj_1", "key [hidden] of Project proj_1"),
        ("x" * 300, "x" * 200 + "..."),
    ],
)
def test_messages_hide_what_looks_like_a_key(message, expected):
    assert said(message, KEY) == expected


def test_a_key_that_is_no_secret_hides_nothing():
    assert said("the model none is not here", "none") == "the model none is not here"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("7", 7),
        ("0.5", 0.5),
        ("-3", 0),
    ],
)
def test_retry_after_in_seconds(value, expected):
    assert retry_after({"retry-after": value}) == expected


@pytest.mark.parametrize(("ahead", "low", "high"), [(100, 90, 100), (-100, 0, 0)])
def test_retry_after_as_a_date(ahead, low, high):
    assert low <= retry_after({"retry-after": formatdate(time() + ahead, usegmt=True)}) <= high


@pytest.mark.parametrize(
    "value", [None, "", "soon", "nan", "Wed, 99 Foo 2020", "Thu, 18446744073709551616 Jan 2024 00:00:00 GMT"]
)
def test_an_unusable_retry_after(value):
    assert retry_after({} if value is None else {"retry-after": value}) is None


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"error": {"code": "c", "type": "t", "message": "m"}}, ("c", "m")),
        ({"error": {"code": 400, "type": "t", "message": "m"}}, ("t", "m")),
        ({"object": "error", "code": 400, "type": None, "message": "m"}, ("", "m")),
        ({"detail": "not loaded"}, ("", "not loaded")),
        ({"detail": [{"loc": ["body"]}]}, ("", "[{'loc': ['body']}]")),
        ({"error": "m"}, ("", "m")),
        ("m", ("", "m")),
        ({}, ("", "no reason given")),
        (None, ("", "no reason given")),
    ],
)
def test_the_reason_in_the_forms_that_servers_use(body, expected):
    assert reason(body) == expected


LONG = [
    (400, "context_length_exceeded", "no"),
    (400, "BadRequestError", "This model's maximum context length is 2048 tokens. However, you requested 5000 tokens."),
    (400, "exceed_context_size_error", "the request exceeds the available context size, try increasing it"),
    (400, "", "prompt is too long: 250000 tokens > 200000 maximum"),
    (400, "", "The input token count (9) exceeds the maximum number of tokens allowed (8)."),
    (422, "validation", "`inputs` tokens + `max_new_tokens` must be <= 2048. Given: 3000"),
    (413, "", "no reason given"),
]


@pytest.mark.parametrize(("status", "code", "message"), LONG)
def test_too_long_in_the_words_of_several_servers(status, code, message):
    problem = unusable(status, code, message)
    assert isinstance(problem, Hopeless) and str(problem) == "too long"


@pytest.mark.parametrize(
    ("status", "code", "message", "kind"),
    [
        (400, "invalid_prompt", "no", Hopeless),
        (400, "content_filter", "no", Unusable),
        (500, "content_filter", "no", type(None)),
        (429, "rate_limit_exceeded", "Rate limit exceeded: 9 tokens per minute", type(None)),
        (400, "", "response_format is not supported", type(None)),
        (400, "", "temperature must be <= 2, and yours exceeds it", type(None)),
    ],
)
def test_what_is_about_one_request(status, code, message, kind):
    assert type(unusable(status, code, message)) is kind


@pytest.mark.parametrize(
    ("status", "message", "expected"),
    [
        (400, "response_format is not supported", "needs openai.structured = false"),
        (422, "Grammar: unknown", "needs openai.structured = false"),
        (400, "no such thing", "lower openai.context_tokens, rows_per_request or reply_tokens"),
        (
            403,
            f"no access to tiny with {KEY[:9]}**",
            "or what it is used for (HTTP 403: no access to tiny with [hidden])",
        ),
        (401, "expired", "refuses the key in OPENAI_API_KEY (HTTP 401: expired)"),
    ],
)
def test_what_stops_the_stage_says_why_and_what_to_do(service, status, message, expected):
    problem = judge_status(status, "", message, None, service)
    assert isinstance(problem, UserError) and expected in str(problem)
    assert isinstance(judge_status(503, "", message, None, service), Busy)
