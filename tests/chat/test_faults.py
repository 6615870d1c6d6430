"""Messages without keys, and Retry-After."""

from email.utils import formatdate
from time import time

import pytest

from tif.chat.faults import retry_after, said

KEY = "sk-proj-Zq7Xw3Lk9Vt2Rb5Nm8Jh4Gd6"


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


@pytest.mark.parametrize("value", [None, "", "soon", "nan", "Wed, 99 Foo 2020"])
def test_an_unusable_retry_after(value):
    assert retry_after({} if value is None else {"retry-after": value}) is None
