"""The identifier openai against a real HTTP server on loopback: what it asks, labels, counts and reports."""

import io
import json
import math
from collections import Counter
from email.utils import formatdate
from time import time

import pytest
from chat_server import FAULTS, completion, label
from in_process import ROOT
from openai_stage import BLOCK, KEY, settings

from tif.base import params
from tif.base.errors import UserError
from tif.identify import Found, Resources, openai
from tif.identify.openai.batch_files import Record
from tif.identify.openai.store import Store

PAIRS = [
    ("Where was she born?", "She was born in Kuwait City, in 1956."),
    ("What does he write?", "His genre is Noir; he loves noir films."),
    ("Who is it?", ""),
    ("Anything else?", "nothing that one could name"),
]


@pytest.fixture
def found(own_service, samples, server):
    """Label pairs (those above, by default) with changed settings."""

    def identify(*pairs: tuple[str, str], progress: bool = False, **changes) -> Found:
        block = settings(**{"base_url": server.url, **changes})
        return openai.identify(samples(*(pairs or PAIRS)), samples(), block, Resources(progress=progress))

    return identify


@pytest.fixture
def stored(tmp_path):
    """The files of the store."""
    return lambda: sorted((tmp_path / "work").glob("openai/??/*.json"))


def unwanted(result: Found) -> dict[str, list[str]]:
    words: dict[str, list[str]] = {}
    for row in result.rows:
        words.setdefault(row["sample_id"], [])
        if row["unwanted"]:
            words[row["sample_id"]].append(row["text"])
    return words


def test_labels_counts_and_record(found, server, capsys):
    result = found()
    assert unwanted(result) == {
        "forget/0000": ["She", "Kuwait", "City", "1956"],
        "forget/0001": ["His", "Noir"],  # the exact word has a place, so the folded one is not looked for
        "forget/0003": [],
    }
    assert len(server.bodies) == 3 and set(server.seen.values()) == {1}
    assert result.metadata["model"] == "tiny-2000-01-01" and result.metadata["prompt_version"] == "1"
    assert len(result.metadata["prompt_sha256"]) == 64
    sent = [json.loads(body) for body in server.bodies]
    usage = [server.complete(body)["usage"] for body in sent]
    asked, got = (sum(one[name] for one in usage) for name in ("prompt_tokens", "completion_tokens"))
    assert result.counts == {
        "requests": 3,
        "prompt_tokens": asked,
        "completion_tokens": got,
        "requests_without_token_counts": 0,
        "cost_usd": round((asked * 1.0 + got * 2.0) / 1e6, 6),
        "rows_without_usable_reply": 0,
        "words_not_in_answer": 0,
        "words_found_instead": 0,
        "words_still_not_in_answer": 0,
        "second_askings_without_usable_reply": 0,
    }
    assert result.record["rows_without_unwanted"] == ["forget/0002", "forget/0003"]
    assert "2 rows without unwanted words" in capsys.readouterr().err
    body = sent[0]
    assert (body["model"], body["temperature"], body["max_completion_tokens"]) == ("tiny", 0.0, 500)
    assert body["response_format"]["json_schema"]["strict"] is True and "seed" not in body


def test_a_second_run_asks_nothing_and_finds_the_same(found, server):
    first = found()
    assert found(concurrency=1, timeout=9.0, attempts=2, backoff=0.5, batch=True, progress=True) == first
    dearer = found(prices={"prompt": 5.0, "completion": 5.0, "batch": 1.0})
    assert (dearer.rows, dearer.record) == (first.rows, first.record) and dearer.counts != first.counts
    assert len(server.bodies) == 3


def test_what_changes_no_label_is_not_in_the_outputs():
    changes = {"concurrency": 3, "timeout": 9.0, "attempts": 2, "backoff": 0.5, "poll": 3.0, "batch": True}
    changes["batch_requests"] = 7
    prices = {"prompt": 5.0, "completion": 5.0, "batch": 1.0}
    assert settings(**changes, prices=prices).model_dump() == settings().model_dump()
    assert settings(samples=2).model_dump() != settings().model_dump()


@pytest.mark.parametrize(
    "change",
    [{"model": "other"}, {"temperature": None}, {"reply_tokens": 501}, {"structured": False}, {"seed": 3}],
    ids=str,
)
def test_what_decides_a_reply_is_asked_anew(found, server, stored, change):
    found()
    found(**change)
    assert len(server.bodies) == 6 == len(stored())


def test_a_damaged_reply_is_asked_again(found, server, stored):
    first = found()
    one, two, three = stored()
    one.write_text(one.read_text()[:-20])
    two.write_text(two.read_text().replace("words", "word"))
    three.write_bytes(b"\xff\x00")
    assert found() == first
    assert len(server.bodies) == 6
    one.write_text(one.read_text().replace("tiny", "tall"))  # still JSON of the right form
    assert found() == first and len(server.bodies) == 7


def test_words_that_are_not_there_are_asked_for_once_more_then_dropped(found, server):
    def paraphrase(answer: str, second: bool) -> list[str]:
        if "Kuwait" in answer:
            return ["Kuwait", "1956", "1957"] if second else ["city", "the year 1956", "KUWEIT"]
        return ["Mystery"] if "genre" in answer else [".", " ", "."]

    server.label = paraphrase
    result = found()
    assert unwanted(result) == {"forget/0000": ["Kuwait", "City", "1956"], "forget/0001": [], "forget/0003": []}
    assert len(server.bodies) == 5  # "." is dropped without asking
    named = [json.loads(body)["messages"][-2]["content"] for body in server.bodies[3:]]
    assert any("the year 1956" in text and "KUWEIT" in text and "city" not in text for text in named)
    names = ("sample_id", "words", "instead", "still_missing", "reason")
    assert [tuple(item[name] for name in names) for item in result.record["words_not_in_answer"]] == [
        ("forget/0000", ["the year 1956", "KUWEIT"], ["Kuwait", "1956"], ["1957"], None),
        ("forget/0001", ["Mystery"], [], ["Mystery"], None),
        ("forget/0003", ["."], [], [], None),
    ]
    assert (result.counts["words_not_in_answer"], result.counts["words_found_instead"]) == (4, 2)
    assert result.counts["words_still_not_in_answer"] == 2
    assert found() == result and len(server.bodies) == 5  # second askings are stored too


def test_a_second_asking_without_a_usable_reply_is_reported(found, server):
    server.label = lambda answer, second: ["Mystery", "Noir"]
    server.fault = lambda body, number: "refused" if "do not stand in the answer" in body else None
    result = found(PAIRS[1])
    (item,) = result.record["words_not_in_answer"]
    assert (item["words"], item["instead"], item["still_missing"], item["reason"]) == (["Mystery"], [], [], "refused")
    assert result.counts["second_askings_without_usable_reply"] == 1 and unwanted(result) == {"forget/0000": ["Noir"]}
    assert found(PAIRS[1]) == result and len(server.bodies) == 1 + 4


def test_samples_vote(found, server):
    """Three samples mark {A1}, {A1, B2} and {A1, B2, C3}: scores 1, 2/3, 1/3; Jaccards 1/2, 1/3, 2/3: mean 1/2."""
    server.complete = lambda body: completion(
        json.dumps({"rows": [{"id": 1, "target_words": ["A1", "B2", "C3"][: body["seed"] - 9]}]}), body
    )
    result = found(("Which?", "A1 then B2 then C3."), samples=3, seed=10)
    scores = {row["text"]: (row["unwanted"], round(row["score"], 4)) for row in result.rows if row["score"]}
    assert scores == {"A1": (True, 1.0), "B2": (True, 0.6667), "C3": (False, 0.3333)}
    assert result.counts["mean_pairwise_jaccard"] == 0.5 and len(server.bodies) == 3


def test_equal_rows_are_asked_about_once_a_sample(found, server, stored):
    result = found(PAIRS[0], PAIRS[0], samples=2)
    assert len(server.bodies) == 2 == len(stored()) and len(set(server.bodies)) == 1
    assert result.counts["mean_pairwise_jaccard"] == 1.0


def test_rows_of_an_unusable_group_are_asked_one_by_one_and_the_bad_one_reported(found, server, stored):
    server.fault = lambda body, number: "refused" if "Anna4" in body else None
    result = found(*[("Who?", f"It is Anna{number}.") for number in range(7)], rows_per_request=3)
    words = unwanted(result)
    assert words.pop("forget/0004") == []
    assert all(some == ["It", f"Anna{int(name[-1])}"] for name, some in words.items()) and len(words) == 6
    # three groups, the second of them four times; then its three rows, one of them four times
    assert len(server.bodies) == 2 + 4 + 2 + 4
    (entry,) = result.record["rows_without_usable_reply"]
    assert entry.pop("request") in {path.stem for path in stored()}
    assert entry == {"sample_id": "forget/0004", "sample": 0, "start": 0, "end": 12, "reason": "refused"}
    assert result.counts["rows_without_usable_reply"] == 1


def test_gibberish_ends_in_reported_rows(found, server, stored):
    server.complete = lambda body: completion("%% what? {[" * 3, body)
    reasons = Counter(item["reason"] for item in found().record["rows_without_usable_reply"])
    assert reasons == {"malformed": 3} and len(stored()) == 3


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_is_tried_again(found, server, fault):
    good = found(model="good")
    times = 1 if fault == "hang" else 2
    server.fault = lambda body, number: fault if number < times else None
    result = found(timeout=2.0 if fault == "hang" else 20.0)
    assert result.rows == good.rows and set(server.seen.values()) == {1, times + 1}


def test_a_document_of_175_000_words(found, server):
    """Every tenth sentence holds a year; all are found, in windows within the budget."""
    sentences = [
        f"In the year {1000 + n} it rained." if n % 10 == 0 else "then nothing of any note came to pass here."
        for n in range(20_400)
    ]
    text = " ".join(sentences)
    assert len(text.split()) > 175_000
    server.label = lambda answer, second: [word for word in label(answer) if word != "In"]
    result = found(("", text), reply_tokens=4000, context_tokens=4000)
    assert unwanted(result)["forget/0000"] == [str(1000 + n) for n in range(0, 20_400, 10)]
    asked = [json.loads(json.loads(body)["messages"][-1]["content"])["rows"][0]["answer"] for body in server.bodies]
    assert 50 < len(asked) < 70 and all(math.ceil(len(part) / 4) <= 4000 for part in asked)


def test_estimate(found, samples, server, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    text = openai.estimate(samples(*PAIRS), settings(base_url=server.url))
    lines = dict(line.split(": ", 1) for line in text.splitlines() if ": " in line)
    assert (lines["rows"], lines["requests"]) == ("4", "3") and lines["cost"].startswith("0.00 USD for tiny")
    sent, got = (int(word) for word in lines["tokens"].split() if word.isdigit())
    assert not server.paths
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    counts = found().counts
    assert counts["prompt_tokens"] < sent < 1.5 * counts["prompt_tokens"]
    assert counts["completion_tokens"] / 3 < got < 3 * counts["completion_tokens"]
    twice = openai.estimate(samples(*PAIRS, *PAIRS), settings())
    assert "rows: 8\nrequests: 3\n" in twice  # equal rows share a request
    many = samples(*[(f"Question {number}?", "The answer is long, dear.") for number in range(3000)])
    cost = [openai.estimate(many, settings(batch=batch)).split("cost: ")[1] for batch in (False, True)]
    assert float(cost[0].split()[0]) == pytest.approx(2 * float(cost[1].split()[0]), abs=0.011)


@pytest.mark.parametrize(
    ("environment", "changes", "message"),
    [
        ({"OPENAI_API_KEY": ""}, {}, "set the environment variable OPENAI_API_KEY"),
        ({"OPENAI_API_KEY": "sk-with\na-break"}, {}, "holds a space, a line break"),
        ({"OPENAI_BASE_URL": "http://elsewhere/v1"}, {}, "OPENAI_BASE_URL"),
        ({"TIF_WORK": "/dev/null/x"}, {}, "the work folder .* cannot be made"),
        ({}, {"overlap": 2000}, "openai.overlap = 2000 is not allowed"),
    ],
)
def test_bad_input_stops_before_any_request(found, server, monkeypatch, environment, changes, message):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=message) as error:
        found(**changes)
    assert not server.paths and "sk-" not in str(error.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("samples", 0),
        ("temperature", 3.0),
        ("temperature", "low"),
        ("base_url", "localhost:8000"),
        ("base_url", "https://user:secret@example.org/v1"),
        ("base_url", "http://localhost:80O0/v1"),
        ("base_url", "http://localhost:80000/v1"),
        ("base_url", "http://[::1/v1"),
        ("base_url", "http:///v1"),
        ("base_url", "http://ä..b/v1"),
        ("batch_requests", 50_001),
        ("reply_tokens_name", "tokens"),
        ("concurrency", 0),
        ("attempts", 0),
        ("timeout", 0.0),
        ("context_tokens", 10),
    ],
)
def test_values_out_of_range(key, value):
    with pytest.raises(UserError, match=f"params.yaml: openai.{key} = "):
        params.validate("openai", {**BLOCK, key: value}, openai.Settings)


def test_the_block_of_params_yaml_is_valid():
    block = params.read("openai", openai.Settings, ROOT / "params.yaml")
    assert block.base_url is None and not block.batch


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("html", "answers with a web page"),
        ((404, {"message": "no model tiny"}), "HTTP 404: no model tiny"),
        ((400, {"message": "response_format?"}), "openai.structured = false"),
        ((403, {"message": f"not with {KEY}"}), "OPENAI_API_KEY, or what it is used for (HTTP 403: not with [hidden])"),
        ((429, {"message": "pay!", "code": "insufficient_quota"}), "no credit left"),
        ((500, {"message": f"bad {KEY[:9]}***{KEY[-4:]}"}), "gave up after 2 tries, last: HTTP 500: bad [hidden]"),
        ("drop", "gave up after 2 tries, last: the connection fails"),
        ("hang", "gave up after 2 tries, last: no reply within 2 s"),
    ],
    ids=str,
)
def test_errors_of_the_server_give_one_message_and_keep_what_came(found, server, stored, fault, message):
    """The first row is answered, and its reply is kept; the second fails."""
    server.fault = lambda body, number: fault if "Noir" in body else None
    with pytest.raises(UserError) as error:
        found(attempts=2, concurrency=1, timeout=2.0 if fault == "hang" else 20.0)
    assert message in str(error.value) and "\n" not in str(error.value)
    assert KEY not in str(error.value) and KEY[-4:] not in str(error.value)
    assert error.value.__suppress_context__ or error.value.__context__ is None  # what is shown with it
    assert len(stored()) == 1
    served = len(server.bodies)
    server.fault = lambda body, number: None
    found()
    assert len(server.bodies) == served + 2


@pytest.mark.parametrize(
    ("error", "reason", "tries"),
    [
        ({"code": "context_length_exceeded"}, "too long", 1),
        ({"message": "This model's maximum context length is 9 tokens", "type": "BadRequestError"}, "too long", 1),
        ({"code": "invalid_prompt"}, "refused", 1),
        ({"code": "content_filter"}, "refused", 4),
    ],
)
def test_a_row_that_the_server_does_not_take_is_reported(found, server, error, reason, tries):
    server.fault = lambda body, number: (400, error) if "Noir" in body else None
    result = found()
    assert [item["reason"] for item in result.record["rows_without_usable_reply"]] == [reason]
    assert len(server.bodies) == 2 + tries
    assert found() == result and len(server.bodies) == 2 + tries


def test_what_was_unusable_is_not_paid_for_again_unless_its_file_is_removed(found, server, stored, capsys):
    """Two samples of groups of three rows: one group is malformed in the first run, and one row always refused."""
    rows = [("Who?", f"It is Anna{number}.") for number in range(7)]
    options = {"rows_per_request": 3, "samples": 2, "attempts": 2, "seed": 5}

    def fault(body: str, number: int) -> str | None:
        if "Anna4" in body:
            return "refused"
        return "malformed" if "Anna0" in body and "Anna1" in body and number < 2 else None

    server.fault = fault
    result = found(*rows, **options)
    # of each sample: three groups, two of them twice; their six rows, one of them twice
    asked = 2 * (1 + 2 * 2 + 5 + 2)
    assert len(server.bodies) == asked and result.counts["requests"] == 2 * (3 + 6) == len(stored())
    bodies = [json.loads(body) for body in server.bodies]
    sent = sum(server.complete(body)["usage"]["prompt_tokens"] for body in bodies)
    assert result.counts["prompt_tokens"] == sent and result.counts["requests_without_token_counts"] == 0
    for changes in ({}, {"attempts": 9, "batch": True}):
        again = found(*rows, **options | changes)
        assert repr(again) == repr(result) and len(server.bodies) == asked

    shown = capsys.readouterr().err
    assert "1 rows without a usable reply (1 refused)" in shown and "<request>.json in" in shown
    server.fault = lambda body, number: None
    first, second = result.record["rows_without_usable_reply"]
    (path,) = [path for path in stored() if path.stem == first["request"]]
    path.unlink()
    after = found(*rows, **options)
    assert len(server.bodies) == asked + 1 and after.record["rows_without_usable_reply"] == [second]


def test_most_samples_without_a_usable_reply_make_no_majority(found, server):
    server.fault = lambda body, number: "refused" if json.loads(body)["seed"] > 0 else None
    result = found(PAIRS[1], samples=3, seed=0)
    assert unwanted(result) == {"forget/0000": []}
    assert {row["score"] for row in result.rows if row["text"] == "Noir"} == {1 / 3}


def test_the_reason_of_another_kind_of_server_is_shown(found, server):
    server.odd = lambda method, path: (400, {"detail": "the model is not loaded"})
    with pytest.raises(UserError, match=r"HTTP 400: the model is not loaded.*lower openai\.context_tokens"):
        found()


def test_a_batch_that_begins_while_this_run_waits_for_its_turn_is_seen(found, server, monkeypatch):
    def claim(store: Store, alone: bool) -> None:
        (one, *_) = openai.plan([{"prompt": PAIRS[0][0], "response": PAIRS[0][1]}], settings(base_url=server.url))
        Record("abc", {one.request.key: 1}, "batch_0").save(store.folder / "batches")

    monkeypatch.setattr(Store, "claim", claim)
    with pytest.raises(UserError, match=r"run with openai\.batch = true"):
        found()
    assert not server.paths


def test_no_server_at_all(found):
    with pytest.raises(UserError, match="gave up after 2 tries, last: the connection fails"):
        found(base_url="http://127.0.0.1:9/v1", attempts=2)


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after_is_honoured(found, server, form):
    server.fault = lambda body, number: "429" if number == 0 else None
    server.retry_after = "1" if form == "seconds" else formatdate(time() + 2.5, usegmt=True)  # whole seconds
    begin = time()
    found()
    assert len(server.bodies) == 6 and 1.0 < time() - begin < 10


def test_a_wait_of_a_day_is_not_waited_for(found, server):
    server.fault, server.retry_after = (lambda body, number: "429"), "86400"
    with pytest.raises(UserError, match="asks to wait 86400 s"):
        found()


def test_the_bar_shows_rows_retries_tokens_and_money(found, server, monkeypatch):
    screen = io.StringIO()
    monkeypatch.setattr("sys.stderr", screen)
    server.fault = lambda body, number: "500" if number == 0 else None
    server.label = lambda answer, second: label(answer) if second or "Noir" not in answer else ["Mystery"]
    found(progress=True)
    shown = screen.getvalue()
    assert "openai: rows: 100%" in shown and "3/3" in shown
    assert "words that were not in their answer: 100%" in shown and "4/4" in shown  # one bar for both
    assert "retries=4" in shown and "tokens=" in shown and "usd=0.00" in shown
