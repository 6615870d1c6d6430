"""How a stage ends: one line for bad input and for a full disk, a traceback for a defect."""

import errno
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tif.base import errors
from tif.base.errors import UserError, first_line
from tif.base.stage import run


def stops(error: Exception):
    def stage() -> None:
        raise error

    return stage


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("bad size\nwhere it was found"), "bad size"),
        (ValueError("\n bad"), "bad"),
        (ValueError("while loading:\n\tbad size\n\tof all"), "while loading: bad size"),
        (ValueError("while loading:"), "while loading:"),
        (KeyError(), "KeyError"),
        (ValueError("x" * 300), "x" * 200),
        (OSError(errno.ENOSPC, "No space left on device", "data/spans.parquet"), "No space left on device"),
    ],
)
def test_the_first_line_of_an_exception(error, line):
    assert first_line(error) == line


def test_user_error_is_one_line_and_a_failing_status():
    with pytest.raises(SystemExit) as ended:
        run(stops(UserError("tpo.beta = 0 is not allowed")))
    assert ended.value.code == "error: tpo.beta = 0 is not allowed"  # a text: printed to stderr, status 1


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device", "data/spans.parquet"),
        RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
)
def test_full_disk_is_one_line(error):
    with pytest.raises(SystemExit) as ended:
        run(stops(error))
    assert "disk is full" in ended.value.code
    assert "\n" not in ended.value.code


def test_a_defect_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        run(stops(ZeroDivisionError()))


def test_a_killed_stage_leaves_nothing_half_written(tmp_path):
    """SIGTERM, while an output is being written."""
    script = tmp_path / "stage.py"
    script.write_text(
        "import time\n"
        "from tif import errors, tables\n"
        "def stage():\n"
        "    with tables.writing('out') as folder:\n"
        "        folder.mkdir()\n"
        "        (folder / 'part').write_text('half')\n"
        "        print('writing', flush=True)\n"
        "        time.sleep(60)\n"
        "errors.run(stage)\n"
    )
    with subprocess.Popen([sys.executable, script.name], cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "writing\n"
        process.terminate()
        assert process.wait(timeout=30) == 143
    assert [path.name for path in tmp_path.iterdir()] == ["stage.py"]


linux = pytest.mark.skipif(sys.platform != "linux", reason="looks behind a shell through /proc")


def left_alone(folder: Path, stage: str, command: list[str], by_dvc: bool = True) -> str:
    """What a stage prints after its first line, when its parent, or that of the shell it is run by, is killed outright.

    The stage closes its end of the pipe when it is gone.
    """
    env = {name: value for name, value in os.environ.items() if name != "DVC_STAGE"}
    env |= {"DVC_STAGE": "unlearn"} if by_dvc else {}
    (folder / "stage.py").write_text(stage)
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
    stage = "import time\nfrom tif import errors\nerrors.run(lambda: print('up', flush=True) or time.sleep(30))\n"
    assert left_alone(tmp_path, stage, command) == ""


@linux
def test_a_stage_that_was_left_alone_while_it_imported_does_not_begin(tmp_path):
    stage = (
        "import os, time\nparent = os.getppid()\nfrom tif import errors\nprint('up', flush=True)\n"
        "while os.getppid() == parent:\n    time.sleep(0.01)\n"
        "errors.run(lambda: print('begun', flush=True))\n"
    )
    assert left_alone(tmp_path, stage, [sys.executable, "stage.py"]) == ""


def test_a_script_that_was_started_by_hand_outlives_its_shell(tmp_path):
    """As after `nohup python stages/unlearn.py &` and the end of the session."""
    stage = (
        "import time\nfrom tif import errors\nerrors.LOOK_AFTER = 0.01\n"
        "errors.run(lambda: print('up', flush=True) or time.sleep(1) or print('ended', flush=True))\n"
    )
    assert left_alone(tmp_path, stage, [sys.executable, "stage.py"], by_dvc=False) == "ended\n"


def test_a_stage_ends_well_while_its_parent_lives(monkeypatch):
    """Also when it is looked after often."""
    monkeypatch.setenv("DVC_STAGE", "unlearn")
    monkeypatch.setattr(errors, "LOOK_AFTER", 0.001)
    run(lambda: time.sleep(0.1))
