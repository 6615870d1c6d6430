"""How a stage starts and ends: one line for bad input, a full disk and Ctrl-C, a traceback for a defect."""

import errno
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tif.base import stage, tables
from tif.base.errors import UserError
from tif.base.stage import run
from tif.words import SPANS

pytestmark = pytest.mark.usefixtures("own_signals")


def stops(error: BaseException):
    def stage() -> None:
        raise error

    return stage


def test_user_error_is_one_line_and_a_failing_status():
    with pytest.raises(SystemExit) as ended:
        run(stops(UserError("tpo.beta = 0 is not allowed")))
    assert ended.value.code == "error: tpo.beta = 0 is not allowed"  # a text: printed to stderr, status 1


@pytest.mark.parametrize(
    ("error", "where"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "data/spans.parquet"), "data/spans.parquet"),
        (RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"), "an output"),
    ],
)
def test_full_disk_is_one_line(error, where):
    with pytest.raises(SystemExit) as ended:
        run(stops(error))
    assert f"disk is full while writing {where}" in ended.value.code
    assert "\n" not in ended.value.code


def test_a_defect_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        run(stops(ZeroDivisionError()))


def test_ctrl_c_is_one_line_and_status_130(capsys):
    with pytest.raises(SystemExit) as ended:
        run(stops(KeyboardInterrupt()))
    assert ended.value.code == 130
    told = capsys.readouterr()
    assert told.err.startswith("interrupted; ") and told.err.count("\n") == 1 and told.out == ""


WRITING = """
    with tables.writing("out") as folder:
        folder.mkdir()
        (folder / "part").write_text("half")
        print("up", flush=True)
        time.sleep(60)
"""
READING = """
    print("up", flush=True)
    while True:
        tables.read("spans.parquet", SPANS)
"""


@pytest.fixture
def interruptible():
    """A shell starts what runs in the background deaf to SIGINT, and every process that comes from it inherits that."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    ("number", "body", "status", "lines"),
    [
        (signal.SIGTERM, WRITING, 143, 0),
        (signal.SIGINT, WRITING, 130, 1),
        (signal.SIGINT, READING, 130, 1),
    ],
    ids=["SIGTERM while writing", "SIGINT while writing", "SIGINT while reading"],
)
def test_a_stopped_stage_leaves_nothing_half_written(tmp_path, interruptible, number, body, status, lines):
    """And says at most one line. A table of many rows, so that the signal comes in the middle of Arrow's work."""
    row = {"sample_id": "forget/0000", "start": 0, "end": 3, "text": "Ada", "unwanted": True, "score": 1.0}
    count = 200_000 if body is READING else 1
    tables.write(tmp_path / "spans.parquet", {name: [value] * count for name, value in row.items()}, SPANS)
    script = tmp_path / "stage.py"
    script.write_text(
        "import time\nfrom tif.base import tables\nfrom tif.base.stage import run\nfrom tif.words import SPANS\n"
        f"def stage():{body}run(stage)\n"
    )
    with subprocess.Popen(
        [sys.executable, script.name], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "up\n"
        time.sleep(0.05)
        process.send_signal(number)
        out, told = process.communicate(timeout=30)
    assert (process.returncode, out) == (status, "")
    assert told.count("\n") == lines and told.startswith("interrupted; " * lines)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["spans.parquet", "stage.py"]


linux = pytest.mark.skipif(sys.platform != "linux", reason="looks behind a shell through /proc")


def left_alone(folder: Path, script: str, command: list[str], by_dvc: bool = True) -> str:
    """What a stage prints after its first line, when its parent, or that of the shell it is run by, is killed outright.

    The stage closes its end of the pipe when it is gone.
    """
    env = {name: value for name, value in os.environ.items() if name != "DVC_STAGE"}
    env |= {"DVC_STAGE": "unlearn"} if by_dvc else {}
    (folder / "stage.py").write_text(script)
    parent = f"import subprocess, time; subprocess.Popen({command}); time.sleep(60)"
    with subprocess.Popen(
        [sys.executable, "-c", parent], cwd=folder, stdout=subprocess.PIPE, text=True, env=env
    ) as process:
        assert process.stdout.readline() == "up\n"
        process.kill()
        begin = time.monotonic()
        rest = process.stdout.read()
    assert time.monotonic() - begin < 20
    return rest


@linux
@pytest.mark.parametrize(
    "command",
    [
        [sys.executable, "stage.py"],
        ["/bin/sh", "-c", f"{shlex.quote(sys.executable)} stage.py; exit"],  # no shell makes way for the first of two
    ],
    ids=["started directly", "through a shell"],
)
def test_a_stage_ends_with_who_started_it(tmp_path, command):
    script = (
        "import time\nfrom tif.base import stage\nstage.LOOK_AFTER = 0.1\n"
        "stage.run(lambda: print('up', flush=True) or time.sleep(30))\n"
    )
    assert left_alone(tmp_path, script, command) == ""


@linux
def test_a_stage_that_was_left_alone_while_it_imported_does_not_begin(tmp_path):
    script = (
        "import os, time\nparent = os.getppid()\nfrom tif.base.stage import run\nprint('up', flush=True)\n"
        "while os.getppid() == parent:\n    time.sleep(0.01)\n"
        "run(lambda: print('begun', flush=True))\n"
    )
    assert left_alone(tmp_path, script, [sys.executable, "stage.py"]) == ""


def test_a_script_that_was_started_by_hand_outlives_its_shell(tmp_path):
    """As after `nohup python stages/unlearn.py &` and the end of the session."""
    script = (
        "import time\nfrom tif.base import stage\nstage.LOOK_AFTER = 0.01\n"
        "stage.run(lambda: print('up', flush=True) or time.sleep(0.5) or print('ended', flush=True))\n"
    )
    assert left_alone(tmp_path, script, [sys.executable, "stage.py"], by_dvc=False) == "ended\n"


def test_a_stage_ends_well_while_its_parent_lives(monkeypatch):
    """Also when it is looked after often."""
    monkeypatch.setenv("DVC_STAGE", "unlearn")
    monkeypatch.setattr(stage, "LOOK_AFTER", 0.001)
    run(lambda: time.sleep(0.1))
