"""The identifier openai through the Batch API of a server on loopback: submit, poll, resume after a kill, merge."""

import json
import math
import time
from itertools import count, pairwise

import pytest
from openai_stage import Stage, settings

from tif.base.errors import UserError
from tif.identify import Resources, openai
from tif.identify.openai import batch
from tif.identify.openai.batch_files import chunks, read_result

WELCOME = b"<!doctype html><title>Welcome</title>"
PAIRS = [(f"Where is {n}?", f"It is in Town{n} since {1900 + n}.") for n in range(12)]


@pytest.fixture
def found(own_service, samples, server):
    """Label the pairs through the Batch API."""

    def identify(**changes):
        block = settings(**{"base_url": server.url, "batch": True, **changes})
        return openai.identify(samples(*PAIRS), samples(), block, Resources())

    return identify


@pytest.fixture
def records(tmp_path):
    return lambda: list((tmp_path / "work/openai/batches").glob("*.json"))


def test_the_same_labels_at_half_the_price(found, server, records, tmp_path):
    result = found()
    assert len(server.batches) == 1 and "/v1/chat/completions" not in server.paths
    first = server.files["file_0"].splitlines()
    assert len(first) == 12 and len({json.loads(line)["custom_id"] for line in first}) == 12
    assert found(batch=False) == result and not records()
    (tmp_path / "work/openai").rename(tmp_path / "elsewhere")
    full = found(batch=False)
    assert (full.rows, full.record, full.metadata) == (result.rows, result.record, result.metadata)
    assert result.counts["cost_usd"] == pytest.approx(full.counts["cost_usd"] / 2, abs=1e-6)
    assert server.paths.count("/v1/chat/completions") == 12


def test_faulty_lines_are_submitted_again_and_no_other(found, server):
    tried: dict[str, int] = {}
    faults = {
        "Town1 ": (429, {"message": "busy"}),
        "Town2 ": (500, {"message": "oops"}),
        "Town3 ": (0, {"code": "batch_expired", "message": "too late"}),
    }

    def once(body: dict):
        question = body["messages"][-1]["content"]
        for town, fault in faults.items():
            if town in question and not tried.setdefault(town, 0):
                tried[town] += 1
                return fault
        return None

    server.line_fault = once
    result = found()
    assert [len(server.files[one["input_file_id"]].splitlines()) for one in server.batches.values()] == [12, 3]
    assert all(row["unwanted"] for row in result.rows if row["text"].startswith("Town"))
    assert set(server.served.values()) == {1}


def test_content_that_fails_three_times_is_reported(found, server, records):
    server.line_fault = lambda body: (
        (400, {"code": "content_filter", "message": "no"}) if "Town7 " in body["messages"][-1]["content"] else None
    )
    result = found()
    assert [(one["sample_id"], one["reason"]) for one in result.record["rows_without_usable_reply"]] == [
        ("forget/0007", "refused")
    ]
    assert len(server.batches) == 3 and not records()
    paths = len(server.paths)
    assert found() == result == found(batch=False) and len(server.paths) == paths


def test_content_that_is_too_long_is_submitted_once(found, server):
    server.line_fault = lambda body: (
        (400, {"code": "context_length_exceeded"}) if "Town7 " in body["messages"][-1]["content"] else None
    )
    assert [one["reason"] for one in found().record["rows_without_usable_reply"]] == ["too long"]
    assert len(server.batches) == 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ((401, {"message": "bad key"}), "refuses the key"),
        ((404, {"message": "no such model"}), "HTTP 404: no such model"),
        ((503, {"message": "busy"}), "1 requests still fail after 3 batches, last: HTTP 503: busy"),
    ],
)
def test_lines_that_stop_the_stage_leave_the_others_stored(found, server, tmp_path, line, message):
    server.line_fault = lambda body: line if "Town7 " in body["messages"][-1]["content"] else None
    with pytest.raises(UserError) as error:
        found()
    assert message in str(error.value) and len(list((tmp_path / "work/openai").glob("??/*.json"))) == 11
    server.line_fault = lambda body: None
    found()
    assert set(server.served.values()) == {1}


@pytest.mark.parametrize(
    ("end", "message"),
    [("failed", "refuses the batch batch_0: line 1 is no JSON"), ("cancelled", "batch_0 was cancelled")],
)
def test_a_batch_that_ends_badly(found, server, records, end, message):
    server.end = end
    with pytest.raises(UserError, match=message):
        found()
    assert not records()
    server.end = "completed"
    found()
    assert set(server.served.values()) == {1} and len(server.batches) == (2 if end == "failed" else 1)


def test_more_than_the_account_may_have_waiting(found, server, records):
    server.end, server.error = "failed", {"code": "token_limit_exceeded", "message": "Enqueued token limit reached"}
    with pytest.raises(UserError, match=r"Enqueued token limit reached.* smaller openai\.batch_requests"):
        found()
    assert not records()


def first(times: float, path: str, *answer):
    """For `server.odd`: the first answers to some GETs are odd."""
    number = count()
    return lambda method, asked: answer if method == "GET" and asked.startswith(path) and next(number) < times else None


@pytest.mark.parametrize(
    "body",
    [
        WELCOME,
        {},
        [],
        None,
        b"no JSON",
        {"id": "batch_0"},
        {"status": None},
        {"status": "completed"},
        {"status": "odd"},
    ],
    ids=str,
)
def test_an_odd_answer_about_a_batch_loses_nothing(found, server, records, body):
    """Two are survived, unless they are web pages; without an end the run ends, and the next one goes on."""
    server.odd = first(math.inf, "/v1/batches/batch_0", 200, body)
    if body == {"status": "odd"}:  # perhaps a new name of "in_progress"
        interrupt(found)
    else:
        with pytest.raises(UserError, match="answers with a web page" if body == WELCOME else "gave up after 4 tries"):
            found()
    assert len(records()) == 1
    server.odd = first(0 if body == WELCOME else 2, "/v1/batches/batch_0", 200, body)
    assert found().counts["requests"] == 12
    assert len(server.batches) == 1 and set(server.served.values()) == {1} and not records()


@pytest.mark.parametrize("content", [WELCOME, b"", b"{}", b'{"custom_id": "ab", "respo', b"\xff\x00"], ids=str)
def test_a_file_without_results_loses_nothing(found, server, records, content):
    server.odd = first(math.inf, "/v1/files/", 200, content)
    with pytest.raises(UserError, match=r"holds no results\. Without the file .*/batches/\w+\.json its requests are"):
        found()
    assert len(records()) == 1
    server.odd = first(2, "/v1/files/", 200, content)
    assert found().counts["requests"] == 12
    assert len(server.batches) == 1 and set(server.served.values()) == {1} and not records()


@pytest.mark.parametrize("body", [WELCOME, {}, [], None, {"data": None}, {"data": [1]}, {"data": [{"id": 1}]}], ids=str)
def test_an_odd_list_of_batches_loses_nothing(found, server, records, body):
    server.looks = 10**9
    interrupt(found)
    (path,) = records()
    path.write_text(json.dumps({**json.loads(path.read_text()), "batch_id": None}))
    server.odd, server.looks = first(math.inf, "/v1/batches", 200, body), 2
    with pytest.raises(UserError):
        found()
    assert len(records()) == 1
    server.odd = lambda method, path: None
    found()
    assert len(server.batches) == 1 and not records()


def test_the_list_of_batches_has_pages(found, server, records):
    server.looks = 10**9
    interrupt(found)
    (path,) = records()
    path.write_text(json.dumps({**json.loads(path.read_text()), "batch_id": None}))
    pages = [(200, {"data": [{"id": "batch_9", "metadata": None}], "has_more": True})]
    server.odd = lambda method, path: pages.pop() if (method, path) == ("GET", "/v1/batches") and pages else None
    server.looks = 2
    found()
    assert len(server.batches) == 1 and [path for path in server.paths if "after=batch_9" in path]


@pytest.mark.parametrize("place", ["/v1/files", "/v1/batches"])
@pytest.mark.parametrize("body", [WELCOME, {"status": "ok"}, [], {"id": None}], ids=str)
def test_an_odd_answer_to_an_upload_or_a_new_batch(found, server, records, place, body):
    server.odd = lambda method, path: (200, body) if (method, path) == ("POST", place) else None
    with pytest.raises(UserError):
        found()
    assert len(records()) == (place == "/v1/batches")  # it may have been created
    server.odd = lambda method, path: None
    found()
    assert len(server.batches) == 1 and not records()


def test_a_server_that_takes_files_but_no_batches(found, server, records):
    server.odd = lambda method, path: (404, {"detail": "Not Found"}) if path == "/v1/batches" else None
    with pytest.raises(UserError, match=r"HTTP 404: Not Found.*needs openai\.batch = false"):
        found()
    assert not records()
    assert found(batch=False).counts["requests"] == 12


def test_an_expired_batch_is_completed_by_another(found, server):
    server.end = "expired"
    server.line_fault = lambda body: (
        (0, {"code": "batch_expired"})
        if len(server.batches) == 1 and "Town1" in body["messages"][-1]["content"]
        else None
    )
    found()
    assert len(server.batches) == 2 and set(server.served.values()) == {1}


def test_a_killed_run_finds_its_batch_again(tmp_path, samples, server):
    stage = Stage(tmp_path, samples(*PAIRS), base_url=server.url, batch=True)
    server.looks = 10**9
    process = stage.start()
    while not server.batches or not all(json.loads(path.read_text())["batch_id"] for path in records_of(stage)):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.05)
    process.kill()
    process.communicate()
    assert len(records_of(stage)) == 1
    server.looks = 2
    stage.good()
    assert len(server.batches) == 1 and set(server.served.values()) == {1} and len(server.served) == 12
    assert server.paths.count("/v1/batches") == 1 and not records_of(stage)


@pytest.mark.parametrize("moment", ["created", "uploaded"])
def test_killed_before_the_name_was_written_down(found, server, records, moment):
    """After the batch was created, and before it was: the record holds no name in both cases."""
    server.looks = 10**9
    interrupt(found)
    (path,) = records()
    path.write_text(json.dumps({**json.loads(path.read_text()), "batch_id": None}))
    if moment == "uploaded":
        server.batches.clear()
    server.looks = 2
    found()
    assert len(server.batches) == 1 and set(server.served.values()) == {1} and len(server.served) == 12
    assert server.paths.count("/v1/batches") == (2 if moment == "uploaded" else 1) and not records()


def records_of(stage: Stage) -> list:
    return list(stage.work.glob("openai/batches/*.json"))


def test_a_batch_that_the_server_forgot(found, server, records):
    server.looks = 10**9
    interrupt(found)
    with pytest.raises(UserError, match=r"run with openai\.batch = true"):
        found(batch=False)
    assert not server.bodies
    server.batches.clear()
    with pytest.raises(UserError, match="does not know the batch batch_0"):
        found()
    (path,) = records()
    path.write_text("{")
    with pytest.raises(UserError, match="is damaged: remove it"):
        found()
    path.unlink()
    server.looks = 1
    assert found().counts["requests"] == 12


def interrupt(found) -> None:
    """Run until the first wait for a batch, and no further."""

    async def interrupted(seconds: float) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(batch.asyncio, "sleep", interrupted)
        found()


def test_a_server_without_a_batch_api(found, server, records):
    server.odd = lambda method, path: (200, WELCOME) if path == "/v1/files" else None
    with pytest.raises(UserError, match="answers with a web page"):
        found()
    with pytest.raises(UserError, match=r"needs openai\.batch = false"):
        found(base_url=server.url + "/other")
    assert found(batch=False).counts["requests"] == 12


def test_files_stay_within_the_limits(found, server):
    result = found(batch_requests=5)
    sizes = [len(server.files[one["input_file_id"]].splitlines()) for one in server.batches.values()]
    assert sorted(sizes) == [2, 5, 5] and result.counts["requests"] == 12


def test_chunks():
    groups = list(chunks({str(n): size for n, size in enumerate([4, 4, 4, 11, 1, 1, 1])}, 3, 10))
    assert groups == [["0", "1"], ["2"], ["3"], ["4", "5", "6"]]
    assert all(int(one[-1]) + 1 == int(other[0]) for one, other in pairwise(groups))


@pytest.mark.parametrize("line", ["", "[]", "{", "null", '{"custom_id": []}', '{"custom_id": 1, "response": null}'])
def test_a_line_that_is_no_result_has_no_key(line):
    assert read_result(line)[0] is None
