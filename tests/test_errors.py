"""How a stage ends: one line for bad input and for a full disk, a traceback for a defect."""

import errno

import pytest

from tif.errors import UserError, run


def stops(error: Exception):
    def stage() -> None:
        raise error

    return stage


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
