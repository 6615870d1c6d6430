"""bench/memory/logits.py as a process; plan.py beside it is run by the tests of the plan."""

import re
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[2] / "bench/memory/logits.py"


def test_chunks_take_less_than_all_logits_at_once():
    """3,000 x 32,000 logits are 366 MiB in float32, and a chunk is 256; the naive loss holds several copies of all."""
    command = [sys.executable, str(SCRIPT), "--answers", "3000", "--width", "32"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("all logits in float32: 366 MiB; a chunk: 256 MiB\nfloat32 ")
    parts = re.split("^bfloat16", done.stdout, flags=re.MULTILINE)
    assert len(parts) == 2
    for part in parts:
        mib = {name: int(size) for name, size in re.findall(r"^  (\S.*\S) +(\d+) MiB$", part, re.MULTILINE)}
        assert set(mib) == {"naive", "nll, all at once", "nll, in chunks", "kl, all at once", "kl, in chunks"}
        assert mib["nll, in chunks"] < mib["nll, all at once"] < mib["naive"]
        assert mib["kl, in chunks"] < mib["kl, all at once"]
