"""The committed dvc.lock belongs to the committed code and parameters."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def unchanged_stages(folder: Path) -> int:
    """How many stages DVC finds unchanged, without having any data."""
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        ["dvc", "repro", "--dry", "--allow-missing"], cwd=folder, env=environment, capture_output=True, text=True
    )
    return done.stdout.count("didn't change, skipping")


@pytest.fixture
def fresh(tmp_path) -> Path:
    """The repository's files without any data, as after a clone."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True, check=True, text=True
    )
    for name in filter(None, listed.stdout.split("\0")):
        target = tmp_path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((ROOT / name).read_bytes())
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    return tmp_path


def test_committed_lock_is_not_stale(fresh):
    assert unchanged_stages(fresh) == 12, "dvc.lock is stale; run `dvc repro` and commit dvc.lock and metrics/"


def test_a_stale_lock_would_be_noticed(fresh):
    path = fresh / "src/tif/losses.py"
    path.write_text(path.read_text() + "# edited\n")
    assert unchanged_stages(fresh) < 12
