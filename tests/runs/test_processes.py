"""More than one process: the same results as one, failures told once, and nobody left behind."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import processes_stage
import pyarrow as pa
import pytest
import torch
from ruamel.yaml import YAML

from tif.base import tables
from tif.base.errors import UserError
from tif.base.params import Compute
from tif.benchmarks import SAMPLES
from tif.lm import models
from tif.runs import processes
from tif.words import SPANS, word_rows, words

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = {
    "epochs": 2, "batch": 4, "micro_batch": 2, "lr": 1e-3, "weight_decay": 0.01, "warmup": 0.1, "max_grad_norm": 1.0,
    "seed": 0, "trajectory_retain": 2,
}  # fmt: skip


def setting(method: str, minutes: float | None = None, die: dict | None = None, **changes) -> dict:
    return {
        "method": method, "settings": {**SETTINGS, "method": method, **changes}, "minutes": minutes, "die": die or {}
    }  # fmt: skip


CASES = {
    "divisible, with the retain term": setting("tpo"),
    "steps of 3 of 5 samples": setting("graddiff", batch=3),
    "steps of 3 and no retain samples": setting("ga", batch=3, micro_batch=1),
    "weights above the layer are left out": setting("rmu", batch=3),
    "a learner": setting("atwu", batch=3),
    "refusals": setting("dpo", batch=3),
}
INTERRUPTED = setting("atwu", minutes=0, batch=3, select="best")


def environment(**variables) -> dict[str, str]:
    paths = os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests")])
    return {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", **variables}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny, table, facts) -> Path:
    """Model, tables and blocks of settings, as files: five forget samples of different lengths."""
    folder = tmp_path_factory.mktemp("processes")
    models.save(folder / "model", tiny())
    forget, retain = (
        table("forget", [(q * (i + 1), a) for i, (q, a) in enumerate(facts[:5])]),
        table("retain", facts[5:]),
    )
    rows = []
    for sample_id, text in zip(forget["sample_id"].to_pylist(), forget["response"].to_pylist(), strict=True):
        last = words(text)[-2]
        unwanted = [word == last for word in words(text)]
        rows += word_rows(sample_id, text, unwanted, [float(flag) for flag in unwanted])
    tables.write(folder / "forget.parquet", forget, SAMPLES)
    tables.write(folder / "retain.parquet", retain, SAMPLES)
    tables.write(folder / "spans.parquet", pa.Table.from_pylist(rows, schema=SPANS), SPANS)
    yaml = YAML()
    blocks = yaml.load(ROOT / "params.yaml")
    blocks["atwu"]["every"] = 1
    blocks["rmu"]["layer"] = 1
    yaml.dump(blocks, folder / "params.yaml")
    return folder


def start(folder: Path, *cases: dict, count: int = 2) -> subprocess.CompletedProcess:
    """Run the cases in real processes."""
    (folder / "cases.json").write_text(json.dumps(cases))
    command = [sys.executable, str(ROOT / "tests/processes_stage.py"), str(folder), str(count)]
    variables = environment(TIF_WORK=str(folder / "work"))
    return subprocess.run(command, env=variables, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def together(folder) -> list[list[dict]]:
    """Process -> results of all cases in two processes; the last case is the one that will be interrupted."""
    done = start(folder, *CASES.values(), INTERRUPTED)
    assert done.returncode == 0, done.stderr
    return [torch.load(folder / f"results-{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("name", CASES)
def test_two_processes_make_what_one_makes(folder, together, name):
    number = list(CASES).index(name)
    alone = processes_stage.case(folder, processes.Group(), **CASES[name])
    first, second = (process[number] for process in together)
    assert [first["world"], second["world"], alone["world"]] == [2, 2, 1]
    assert first["log"] == second["log"], "sums over all processes"
    # means that are only watched, within a micro-batch, depend on how a batch is cut
    watched = {"logit_drop", "general_nll", "refusal_nll"}
    for ours, theirs in zip(first["log"], alone["log"], strict=True):
        assert list(ours) == list(theirs)
        for key in set(ours) - watched:
            assert ours[key] == pytest.approx(theirs[key], rel=1e-5, abs=1e-7), key
    for key, weight in alone["model"].items():
        assert torch.equal(first["model"][key], second["model"][key])
        torch.testing.assert_close(first["model"][key], weight, rtol=0, atol=2e-5)
    for ours, theirs in zip(first["trajectory"], alone["trajectory"], strict=True):
        assert ours == {**theirs, "value": pytest.approx(theirs["value"], rel=1e-3, abs=1e-4)}
    assert len(first["weights"]) == len(alone["weights"])


def test_the_work_is_shared(together):
    """Every sample of a step is seen by one process; duplicates, which keep the processes in step, weigh zero."""
    for name, first, second in zip(CASES, *together):
        counted = [[key for keys, *shares in part["seen"] if any(shares) for key in keys] for part in (first, second)]
        forget = sorted(key for part in counted for key in part if key.startswith("forget"))
        assert forget == sorted(2 * [f"forget/000{i}" for i in range(5)]), name
        assert len(first["seen"]) == len(second["seen"])
        assert all(counted), "both have something to do"


def test_killed_processes_resume_to_the_same_bits(folder, together):
    """One of the two is killed in the second step of the second epoch; the launcher tells it and goes on when asked."""
    calls = len(together[1][-1]["seen"])
    done = start(folder, {**INTERRUPTED, "die": {"rank": 1, "call": calls, "checkpoint": "checkpoint-3"}})
    assert done.returncode == 1
    lines = done.stderr.strip().splitlines()
    assert lines[-1].startswith("error: process 1 of 2 was killed by SIGKILL; if it was short of memory, lower")
    assert "Traceback" not in done.stderr
    assert sorted(path.name for path in (folder / "work/unlearn" / ("a" * 64)).iterdir()) == [
        "checkpoint-2",
        "checkpoint-3",
    ]
    done = start(folder, INTERRUPTED)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("resuming at step 3 of 4") == 1
    for rank in range(2):
        resumed = torch.load(folder / f"results-{rank}.pt", weights_only=True)[0]
        expected = together[rank][-1]
        assert len(resumed["seen"]) < len(expected["seen"])
        for key in ("log", "trajectory", "weights", "selection"):
            assert resumed[key] == expected[key]
        assert all(torch.equal(resumed["model"][key], expected["model"][key]) for key in expected["model"])
    assert not (folder / "work/unlearn" / ("a" * 64)).exists()


LIGHT = """
import os, sys, time
from tif import errors, processes
from tif.params import Compute

def main():
    if not processes.started():
        return processes.launch(2, Compute(device="cpu", threads=1))
    with processes.joined("cpu") as group:
        print("rank", group.rank, "up", file=sys.stderr, flush=True)
        {body}

errors.run(processes.told_once(main))
"""


def light(tmp_path: Path, body: str) -> subprocess.Popen:
    """Start a stage of two processes that does nothing but `body`."""
    (tmp_path / "stage.py").write_text(LIGHT.format(body=body))
    return subprocess.Popen(
        [sys.executable, "stage.py"], cwd=tmp_path, env=environment(TMPDIR=str(tmp_path)), stderr=subprocess.PIPE,
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.mark.parametrize("ranks", [(0, 1), (0,), (1,)])
def test_bad_input_is_told_once(tmp_path, ranks):
    """By all processes, or by one while the other waits for it: one line, no traceback, nothing left behind."""
    body = f"raise errors.UserError('data/x.parquet is bad') if group.rank in {ranks} else TimeoutError(group.wait())"
    with light(tmp_path, body) as process:
        out, told = process.communicate(timeout=120)
    assert process.returncode == 1
    assert [line for line in told.splitlines() if line != "rank 0 up"] == ["error: data/x.parquet is bad"]
    assert out == ""
    assert [path.name for path in tmp_path.iterdir()] == ["stage.py"]


@pytest.mark.parametrize("rank", [0, 1])
def test_a_defect_keeps_its_traceback_once(tmp_path, rank):
    with light(tmp_path, f"1 / (group.rank != {rank}); group.wait()") as process:
        _, told = process.communicate(timeout=120)
    assert process.returncode == 1
    assert told.count("ZeroDivisionError: division by zero") == 1
    assert told.count("Traceback") == 1


@pytest.mark.skipif(sys.platform != "linux", reason="the death signal of a parent is a feature of Linux")
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_processes_end_with_their_launcher(tmp_path, how):
    body = "open(f'{os.getpid()}.pid', 'w').close(); time.sleep(300)"
    with light(tmp_path, body) as process:
        while len(list(tmp_path.glob("*.pid"))) < 2:
            time.sleep(0.05)
            assert process.poll() is None
        process.send_signal(how)
        process.wait(30)
        begin = time.monotonic()
        pids = [path.stem for path in tmp_path.glob("*.pid")]
        while any(Path("/proc", pid).exists() for pid in pids) and time.monotonic() < begin + 30:
            time.sleep(0.05)
    assert process.returncode == (143 if how == signal.SIGTERM else -9)
    assert not any(Path("/proc", pid).exists() for pid in pids)


def test_too_few_devices(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(
        UserError, match=r"unlearn\.processes = 2, .* a cuda device of its own, of which there is 1; set"
    ):
        processes.launch(2, Compute(device="cuda", threads=1))
    with pytest.raises(UserError, match="a mps device"):
        processes.launch(2, Compute(device="mps", threads=1))
    processes.check_devices(64, "cpu")


def test_one_process_has_nobody_to_wait_for():
    group = processes.Group()
    group.wait()
    assert group.agree(7) == 7
    with processes.joined("cpu") as alone:
        assert alone == group
