"""How a stage ends: one line for bad input and for a full disk, a traceback for a defect."""

import errno
import subprocess
import sys
import time

import pytest

from tif.errors import UserError, first_line, run


def stops(error: Exception):
    def stage() -> None:
        raise error

    return stage


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("bad size\nwhere it was found"), "bad size"),
        (ValueError("\n bad"), "bad"),
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


@pytest.mark.skipif(sys.platform != "linux", reason="the death signal of a parent is a feature of Linux")
def test_a_stage_dies_with_its_parent(tmp_path):
    """The parent is killed outright; the stage closes its end of the pipe when it is gone."""
    (tmp_path / "stage.py").write_text(
        "import time\nfrom tif import errors\nerrors.run(lambda: print('up', flush=True) or time.sleep(60))\n"
    )
    parent = "import subprocess, sys, time; subprocess.Popen([sys.executable, 'stage.py']); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", parent], cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "up\n"
        process.kill()
        begin = time.monotonic()
        assert process.stdout.read() == ""
    assert time.monotonic() - begin < 30
