"""What errors say in short."""

import errno

import pytest

from tif.base.errors import disk_is_full, first_line

FULL = OSError(errno.ENOSPC, "No space left on device", "data/spans.parquet")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("bad size\nwhere it was found"), "bad size"),
        (ValueError("\n bad"), "bad"),
        (ValueError("while loading:\n\tbad size\n\tof all"), "while loading: bad size"),
        (ValueError("while loading:"), "while loading:"),
        (KeyError(), "KeyError"),
        (ValueError("x" * 300), "x" * 200),
        (FULL, "No space left on device"),
    ],
)
def test_the_first_line_of_an_exception(error, line):
    assert first_line(error) == line


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (FULL, True),
        (RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"), True),
        (OSError(errno.EACCES, "Permission denied", "data/spans.parquet"), False),
        (RuntimeError("out of memory"), False),
    ],
)
def test_a_full_disk(error, full):
    assert disk_is_full(error) == full
