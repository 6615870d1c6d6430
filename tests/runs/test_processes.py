"""More than one process: the same results as one, failures told once, and nobody left behind."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import processes_stage
import pytest
import several
import torch
from several import SETTINGS, results

from tif.base.errors import UserError
from tif.base.params import Compute
from tif.base.stage import run
from tif.runs import processes

PATHS = {"PYTHONPATH": os.pathsep.join(str(several.ROOT / name) for name in ("src", "tests")), "OMP_NUM_THREADS": "1"}


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


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny, table, facts) -> Path:
    return several.prepare(tmp_path_factory.mktemp("processes"), tiny(), table, facts)


@pytest.fixture(scope="module")
def together(folder) -> list[list[dict]]:
    """Process -> results of all cases in two processes; the last case is the one that will be interrupted."""
    ended = several.group_of_two(folder, processes_stage.case, *CASES.values(), INTERRUPTED)
    assert ended == [0, 0], [(folder / f"told-{rank}.txt").read_text() for rank in range(2)]
    return [results(folder, rank) for rank in range(2)]


def assert_same(found: dict, expected: dict) -> None:
    """Everything that comes of a case, bit for bit."""
    for key in ("log", "trajectory", "token_weights", "selection"):
        assert found[key] == expected[key]
    assert all(torch.equal(found["model"][key], expected["model"][key]) for key in expected["model"])


@pytest.mark.slow
def test_a_stage_that_starts_others_makes_the_same_bits(folder, together):
    """Real processes, which torchrun has started and which import everything anew."""
    (folder / "cases.json").write_text(json.dumps([*CASES.values(), INTERRUPTED]))
    command = [sys.executable, processes_stage.__file__, str(folder)]
    variables = {**os.environ, **PATHS, "TIF_WORK": str(folder / "work")}
    done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    for rank in range(2):
        for found, expected in zip(results(folder, rank), together[rank], strict=True):
            assert_same(found, expected)
            assert (found["seen"], found["world"]) == (expected["seen"], 2)


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
    assert len(first["token_weights"]) == len(alone["token_weights"])


def test_the_work_is_shared(together):
    """Every sample of a step is seen by one process; duplicates, which keep the processes in step, weigh zero."""
    for name, first, second in zip(CASES, *together):
        counted = [[key for keys, *shares in part["seen"] if any(shares) for key in keys] for part in (first, second)]
        forget = sorted(key for part in counted for key in part if key.startswith("forget"))
        assert forget == sorted(2 * [f"forget/000{i}" for i in range(5)]), name
        assert len(first["seen"]) == len(second["seen"])
        assert all(counted), "both have something to do"


def test_killed_processes_resume_to_the_same_bits(folder, together):
    """One of the two is killed in the second step of the second epoch; they go on when asked."""
    calls = len(together[1][-1]["seen"])
    killed = {**INTERRUPTED, "die": {"rank": 1, "call": calls, "checkpoint": "checkpoint-3"}}
    assert several.group_of_two(folder, processes_stage.case, killed)[1] == -signal.SIGKILL
    work = folder / "work/unlearn" / several.KEY
    assert sorted(path.name for path in work.iterdir()) == ["checkpoint-2", "checkpoint-3"]
    assert several.group_of_two(folder, processes_stage.case, INTERRUPTED) == [0, 0]
    told = [(folder / f"told-{rank}.txt").read_text() for rank in range(2)]
    assert [text.count("resuming at step 3 of 4") for text in told] == [1, 0]
    for rank in range(2):
        (resumed,) = results(folder, rank)
        expected = together[rank][-1]
        assert len(resumed["seen"]) < len(expected["seen"])
        assert_same(resumed, expected)
    assert not work.exists()


LIGHT = """
import os, signal, sys, time
from tif.base.errors import UserError
from tif.base.stage import run
from tif.runs import processes

def main():
    with processes.joined("cpu") as group:
        print("rank", group.rank, "up", file=sys.stderr, flush=True)
        {body}

run(processes.told_once(main))
"""


class Light:
    """A stage of two processes that do nothing but `body`. Its launcher is forked, the two are started by it."""

    def __init__(self, folder: Path, body: str) -> None:
        self.folder = folder
        self.told = folder.with_suffix(".txt")
        (folder / "stage.py").write_text(LIGHT.format(body=body))

        def launch() -> None:
            os.chdir(folder)
            sys.argv[:] = ["stage.py"]
            run(processes.told_once(lambda: processes.launch(2, Compute(device="cpu", threads=1))))

        self.process = several.forked(launch, self.told, **PATHS, TMPDIR=str(folder))

    def ended(self) -> tuple[int, list[str]]:
        """Exit status, and what was said, but for what process 0 says of itself."""
        self.process.join(120)
        return self.process.exitcode, [line for line in self.told.read_text().splitlines() if line != "rank 0 up"]


@pytest.mark.parametrize("ranks", [(0, 1), (1,), pytest.param((0,), marks=pytest.mark.slow)])
def test_bad_input_is_told_once(tmp_path, ranks):
    """By all processes, or by one while the other waits for it: one line, no traceback, nothing left behind."""
    body = f"raise UserError('data/x.parquet is bad') if group.rank in {ranks} else TimeoutError(group.wait())"
    assert Light(tmp_path, body).ended() == (1, ["error: data/x.parquet is bad"])
    assert [path.name for path in tmp_path.iterdir()] == ["stage.py"]


@pytest.mark.parametrize("rank", [1, pytest.param(0, marks=pytest.mark.slow)])
def test_a_defect_keeps_its_traceback_once(tmp_path, rank):
    status, lines = Light(tmp_path, f"1 / (group.rank != {rank}); group.wait()").ended()
    assert status == 1
    assert sum("ZeroDivisionError: division by zero" in line for line in lines) == 1
    assert sum("Traceback" in line for line in lines) == 1


def test_a_killed_process_is_told_in_one_line(tmp_path):
    status, lines = Light(tmp_path, "os.kill(os.getpid(), 9) if group.rank else group.wait()").ended()
    assert status == 1
    assert [line.split(";")[0] for line in lines] == ["error: process 1 of 2 was killed by SIGKILL"]
    assert lines[0].endswith("if it was short of memory, lower unlearn.micro_batch or unlearn.processes")


@pytest.mark.skipif(sys.platform != "linux", reason="the death signal of a parent is a feature of Linux")
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_processes_end_with_their_launcher(tmp_path, how):
    body = "open(f'{os.getpid()}.pid', 'w').close(); time.sleep(300)"
    process = Light(tmp_path, body).process
    while len(list(tmp_path.glob("*.pid"))) < 2:
        time.sleep(0.05)
        assert process.is_alive()
    os.kill(process.pid, how)
    process.join(30)
    begin = time.monotonic()
    pids = [path.stem for path in tmp_path.glob("*.pid")]
    while any(Path("/proc", pid).exists() for pid in pids) and time.monotonic() < begin + 30:
        time.sleep(0.05)
    assert process.exitcode == (143 if how == signal.SIGTERM else -9)
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
