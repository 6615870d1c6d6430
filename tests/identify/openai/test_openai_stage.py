"""The stage with the identifier openai as processes: killed, two at once, as a DVC experiment, and without leaks."""

import json
import logging
import os
import shutil
import subprocess
import sys
import time
from collections import Counter

import pyarrow.parquet as pq
import pytest
from chat_server import FAULTS, digest
from in_process import ROOT, Terminal
from openai_stage import KEY, OUTPUTS, Stage

from tif.base.errors import UserError
from tif.identify.openai.store import Store, request
from tif.words import SPANS

PAIRS = [("Where was she born?", "She was born in Kuwait City, in 1956."), ("What?", "His genre is Noir.")]


def many(count: int) -> list[tuple[str, str]]:
    towns = ("Arlen", "Brunov", "Castell", "Dorwick")
    return [(f"Where is {n}?", f"number {n} is in {towns[n % 4]}, which Is {n % 7} miles away.") for n in range(count)]


def often_wrong(answer: str, second: bool) -> list[str]:
    """Labels in another case in every third answer, and a word that is not there in every ninth."""
    words = answer.replace(",", " ").rstrip(".").split()
    found = [word for word in words if word[0].isupper() or word[0].isdigit()]
    if second:
        return found[:1]
    if digest(answer) % 3 == 0:
        found = [word.upper() for word in found]
    return [*found, "Elsewhere"] if digest(answer) % 9 == 0 else found


def faulty(body: str, number: int) -> str | None:
    """30 % of the replies, each kind; never more than three times for one body, so that four tries suffice."""
    chance = digest(f"{number} {body}")
    return FAULTS[chance // 100 % len(FAULTS)] if number < 3 and chance % 100 < 30 else None


@pytest.mark.parametrize("rows", [300, pytest.param(2000, marks=pytest.mark.slow)])
def test_many_rows_with_faults_and_three_kills(tmp_path, samples, server, rows):
    forget = samples(*many(rows))
    options = {"base_url": server.url, "concurrency": 32, "timeout": 2.0, "attempts": 12}
    server.label = often_wrong
    calm = Stage(tmp_path / "calm", forget, **options)
    expected = calm.good(timeout=60.0, concurrency=8)
    assert set(server.seen.values()) == {1} and len(server.seen) > 1.1 * rows  # with the second askings

    server.fault, server.hang = faulty, 3.0
    for log in (server.bodies, server.seen, server.served):
        log.clear()
    rough = Stage(tmp_path / "rough", forget, **options)
    stored_at_kill = []
    for share in (0.2, 0.5, 0.8):
        process = rough.start()
        while len(rough.stored()) < share * rows:
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.05)
        process.kill()
        process.communicate()
        assert not any((rough.folder / name).exists() for name in OUTPUTS)
        stored_at_kill.append((len(server.bodies), rough.stored()))
    assert len(stored_at_kill[-1][1]) < rows  # so that the last kill was one
    assert rough.good() == expected

    key = {body: request(server.url, json.loads(body), 1, 0).key for body in server.seen}
    for asked_before, stored in stored_at_kill:
        asked_after = {key[body] for body in server.bodies[asked_before:]}
        assert not asked_after & stored
    # besides those in flight at a kill, every good reply was given once
    repeated = sum(times - 1 for times in server.served.values())
    assert repeated <= len(stored_at_kill) * options["concurrency"]
    assert rough.stored() == set(key.values()) == calm.stored()
    faults = Counter(faulty(body, number) for body, seen in server.seen.items() for number in range(seen))
    assert all(faults[kind] > rows / 100 for kind in FAULTS)
    assert 0.2 < 1 - faults[None] / faults.total() < 0.35


def test_kills_with_groups_samples_and_rows_that_are_always_refused(tmp_path, samples, server):
    """150 rows by threes, twice, with every 20th row refused: the outputs are those of a run that nobody killed."""
    options = {"base_url": server.url, "rows_per_request": 3, "samples": 2, "seed": 1, "attempts": 3, "timeout": 60.0}
    forget = samples(*many(150))
    server.label = often_wrong
    refused = [f"number {number} " for number in range(0, 150, 20)]
    server.fault = lambda body, number: "refused" if any(name in body for name in refused) else None
    calm, rough = (Stage(tmp_path / name, forget, **options) for name in ("calm", "rough"))
    expected = calm.good()
    server.bodies.clear()
    server.delay = 0.02
    process = rough.start()
    while len(rough.stored()) < 100:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)
    process.kill()
    process.communicate()
    asked_before, stored = len(server.bodies), rough.stored()
    assert rough.good() == expected
    body_of = [json.loads(body) for body in server.bodies[asked_before:]]
    assert not {request(server.url, body, 1, body["seed"] - 1).key for body in body_of} & stored
    assert rough.stored() == calm.stored()
    asked = len(server.bodies)
    assert rough.good() == expected and len(server.bodies) == asked
    failed = rough.record()["rows_without_usable_reply"]
    assert len(failed) == 2 * len(refused) and {item["reason"] for item in failed} == {"refused"}


def test_a_run_with_batches_goes_with_no_other(tmp_path, samples, server):
    """This process stands for the other run."""
    stage = Stage(tmp_path, samples(*PAIRS), base_url=server.url)
    other = Store(stage.work / "openai")
    for alone in (False, True):
        other.claim(alone)
        done = stage.run(batch=not alone)
        assert done.returncode == 1 and done.stderr.count("\n") == 1
        assert done.stderr.startswith("error: another run is asking for replies in")
    assert not server.paths


def test_two_processes_at_once_pay_once(tmp_path, samples, server):
    server.delay = 0.3
    one = Stage(tmp_path / "one", samples(*PAIRS), base_url=server.url)
    other = Stage(tmp_path / "other", samples(*PAIRS), base_url=server.url)
    other.work = one.work
    processes = [one.start(), other.start()]
    assert [process.communicate(timeout=60)[1] for process in processes] == ["", ""]
    assert len(server.bodies) == 2
    assert all((one.folder / name).read_bytes() == (other.folder / name).read_bytes() for name in OUTPUTS)


def test_a_terminated_stage_ends_at_once_and_quietly(tmp_path, samples, server):
    server.delay = 0.5
    stage = Stage(tmp_path, samples(*many(200)), base_url=server.url)
    process = stage.start()
    while not stage.stored():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.05)
    process.terminate()
    assert process.communicate(timeout=10) == ("", "") and process.returncode == 143
    assert not any((stage.folder / name).exists() for name in OUTPUTS) and 0 < len(stage.stored()) < 200


def test_the_key_is_nowhere(tmp_path, samples, server, caplog, capsys, monkeypatch):
    """After a good run and refused ones, all with the log of the package, and replies that repeat the key or parts."""
    stage = Stage(tmp_path, samples(*PAIRS), base_url=server.url)
    server.key, wrong = KEY, "sk-wrong-0123456789abcd"
    done = stage.run(model="b", key=wrong, env={"OPENAI_LOG": "debug"})
    assert done.returncode == 1 and "refuses the key in OPENAI_API_KEY" in done.stderr and "DEBUG" in done.stderr
    for package in ("openai", "httpx", "httpcore"):
        caplog.set_level(logging.DEBUG, package)
    monkeypatch.setattr(sys, "stderr", Terminal())
    stage.here(progress=True)
    assert "HTTP" in caplog.text
    server.fault = lambda body, number: "key" if "Kuwait" in body else None
    server.label = lambda answer, second: [KEY, "City"]
    stage.here(model="repeats it in the reply", progress=True)
    reasons = [item["reason"] for item in stage.record()["rows_without_usable_reply"]]
    assert reasons == ["malformed", "malformed"]
    server.key, server.fault = None, lambda body, number: (503, {"message": f"Bearer {KEY}"})
    with pytest.raises(UserError, match=r"HTTP 503: Bearer \[hidden\]") as busy:
        stage.here(model="c", attempts=2, progress=True)
    server.label = lambda answer, second: [KEY]
    server.line_fault = lambda body: (401, {"message": f"no {KEY[:10]}"})
    with pytest.raises(UserError, match="refuses the key in OPENAI_API_KEY") as refused:
        stage.here(model="d", batch=True, progress=True)
    printed = capsys.readouterr()
    shown = done.stdout + done.stderr + sys.stderr.getvalue() + caplog.text + "".join(printed)
    shown += str(busy.value) + str(refused.value)
    assert "openai: rows" in shown
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 8
    for place, content in [("output", shown.encode()), *((path, path.read_bytes()) for path in files)]:
        for secret in (KEY, KEY[:10], KEY[-5:], wrong, wrong[:8], wrong[-5:]):
            assert secret.encode() not in content, f"{secret} in {place}"


def test_without_a_key_the_stage_stops_but_estimates(tmp_path, samples, server, capsys):
    stage = Stage(tmp_path, samples(*PAIRS), base_url=server.url)
    with pytest.raises(
        UserError, match=r"^identify\.method = openai needs a key: set the environment variable"
    ) as error:
        stage.here(key=None)
    assert "\n" not in str(error.value)
    stage.here("--estimate", key=None)
    printed = capsys.readouterr()
    assert printed.err == "" and "rows: 2\nrequests: 2\n" in printed.out
    assert not server.paths and not stage.work.exists() and not (stage.folder / "metrics").exists()


def test_an_experiment_in_another_folder_asks_nothing_again(tmp_path, samples, server):
    """`dvc exp run --temp` runs elsewhere and shares the work folder by its cache; so does one from the queue."""
    stage = Stage(tmp_path, samples(*PAIRS), base_url=server.url)
    stage.write_params(progress=False)
    for name in ("src", "stages"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    outs = {"outs": ["data/spans.parquet", "data/identifier.json"], "metrics": ["metrics/identify.json"]}
    params = ["identify", "openai", "compute"]
    deps = ["data/benchmark"]
    identify = {"cmd": "python stages/identify.py", "params": params, "deps": deps, **outs}
    (tmp_path / "dvc.yaml").write_text(json.dumps({"stages": {"identify": identify}}))
    environment = {
        name: value for name, value in os.environ.items() if name != "TIF_WORK" and not name.startswith("OPENAI_")
    }
    environment |= {"OPENAI_API_KEY": KEY, "PYTHONPATH": "src", "NO_PROXY": "127.0.0.1"}
    environment["PATH"] = f"{os.path.dirname(sys.executable)}{os.pathsep}{os.environ['PATH']}"
    for role in ("AUTHOR", "COMMITTER"):
        environment |= {f"GIT_{role}_NAME": "t", f"GIT_{role}_EMAIL": "t@example.org"}

    def run(*command: str) -> None:
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr

    run("git", "init", "-q")
    run("dvc", "init", "-q")
    run("git", "add", "-A")
    run("git", "commit", "-q", "-m", "start")
    run("dvc", "exp", "run", "--temp", "-S", "openai.concurrency=3")
    assert len(server.bodies) == 2
    run("dvc", "exp", "run", "-S", "openai.concurrency=4")  # in the workspace
    assert len(server.bodies) == 2
    assert len(list((tmp_path / ".dvc/tif-work/openai").glob("??/*.json"))) == 2
    status = subprocess.run(["git", "status", "--short"], cwd=tmp_path, capture_output=True, text=True).stdout
    assert "tif-work" not in status
    kept = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert (tmp_path / "dvc.lock") in kept and not [path for path in kept if KEY.encode() in path.read_bytes()]
    spans = pq.read_table(tmp_path / "data/spans.parquet", schema=SPANS).to_pylist()
    assert [row["text"] for row in spans if row["unwanted"]] == ["She", "Kuwait", "City", "1956", "His", "Noir"]
