"""`dvc repro` that is killed while it unlearns: it goes on when asked again, and leaves nobody and nothing behind."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ruamel.yaml import YAML

COMMAND = ("dvc", "repro", "unlearn")


@pytest.fixture(scope="module")
def copy(clone, tmp_path_factory):
    """A copy of the tiny clone after its first run, whose unlearning takes 40 steps with a checkpoint after each."""
    made = type(clone).__new__(type(clone))
    made.folder = tmp_path_factory.mktemp("resume") / "clone"
    shutil.copytree(clone.folder, made.folder)
    made.change(**{"unlearn.epochs": 20, "runtime.checkpoint_minutes": 0})
    return made


def start(clone, **variables: str) -> subprocess.Popen:
    """`dvc repro` in a process group of its own."""
    return subprocess.Popen(
        COMMAND, cwd=clone.folder, env=clone.environment() | variables, start_new_session=True, text=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def stages(clone) -> list[int]:
    """Process ids of the stage scripts that run in a clone."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if b"stages/unlearn.py" in (process / "cmdline").read_bytes() and os.path.samefile(
                process / "cwd", clone.folder
            ):
                found.append(int(process.name))
        except OSError:  # it has just ended
            continue
    return found


def wait_for(clone, step: int, process: subprocess.Popen) -> None:
    """Until the checkpoint of a step is complete."""
    while not list(clone.folder.glob(f".dvc/tif-work/unlearn/*/checkpoint-{step}/complete.json")):
        assert process.poll() is None, "it was to be killed before it ends"
        time.sleep(0.02)


def ended(clone) -> bool:
    """Whether all stage scripts end within half a minute."""
    begin = time.monotonic()
    while stages(clone) and time.monotonic() < begin + 30:
        time.sleep(0.05)
    return not stages(clone)


def kill(clone, step: int) -> None:
    process = start(clone)
    wait_for(clone, step, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert ended(clone)


def locked(clone) -> dict:
    """What dvc.lock says of unlearning; the check before it has run whenever a parameter has changed."""
    return YAML(typ="safe").load(clone.folder / "dvc.lock")["stages"]["unlearn"]


def outputs(clone) -> dict[str, bytes | dict]:
    """Bytes of everything that unlearning writes, and its part of the lock."""
    files = list((clone.folder / "data/models/unlearned").iterdir())
    files += [clone.folder / name for name in ("data/trajectory.parquet", "data/weights.parquet")]
    files += [clone.folder / name for name in ("metrics/plots/steps.csv", "metrics/unlearn.json")]
    return {"lock": locked(clone), **{str(path.relative_to(clone.folder)): path.read_bytes() for path in files}}


linux = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes through /proc")


@linux
def test_killed_and_resumed(copy):
    """SIGKILL to all of it; another parameter starts anew; the first settings go on, to the bits of a run in one go."""
    lock = locked(copy)
    kill(copy, 5)
    assert locked(copy) == lock

    copy.change(**{"tpo.beta": 0.3, "unlearn.epochs": 1})
    done = copy.run(*COMMAND)
    assert "Running stage 'unlearn'" in done.stdout
    assert "resuming" not in done.stderr

    copy.change(**{"tpo.beta": 0.1, "unlearn.epochs": 20})
    done = copy.run(*COMMAND)
    step, of = map(int, re.search(r"^resuming at step (\d+) of (\d+)$", done.stderr, re.MULTILINE).groups())
    assert 5 <= step < of == 40
    resumed = outputs(copy)
    assert not [path for path in copy.folder.glob(".dvc/tif-work/unlearn/*") if path.is_dir()]

    done = copy.run("dvc", "repro", "-s", "-f", "unlearn")
    assert "Running stage 'unlearn'" in done.stdout
    assert "resuming" not in done.stderr
    assert outputs(copy) == resumed


SLOW = [pytest.param(*case, marks=pytest.mark.slow) for case in ((1, "bash"), (2, "sh"))]


@linux
@pytest.mark.parametrize(("processes", "shell"), [(1, "sh"), *SLOW])
def test_no_trainer_outlives_dvc(copy, processes, shell):
    """SIGTERM to dvc alone, which dies of it without a word to its stage; nor does the shell in between, if it stays.

    DVC takes SHELL. Debian's sh stays, bash makes way; elsewhere sh may be bash.
    """
    path = shutil.which(shell)
    if path is None:
        pytest.skip(f"there is no {shell} here")
    copy.change(**{"unlearn.processes": processes, "unlearn.seed": 1})
    with start(copy, SHELL=path) as process:
        wait_for(copy, 3, process)
        assert len(stages(copy)) >= (1 if processes == 1 else 3)  # the stage, or the launcher and its two
        process.terminate()
    assert ended(copy)
    copy.change(**{"unlearn.processes": 1, "unlearn.seed": 0})
    shutil.rmtree(copy.folder / ".dvc/tif-work/unlearn")


def test_a_failed_run_costs_no_earlier_output(copy):
    """DVC deletes the outputs of a stage before it runs; lock and cache still hold those of the last good run."""
    copy.change(**{"unlearn.epochs": 1})
    copy.run(*COMMAND)
    before = outputs(copy)
    copy.change(**{"unlearn.lr": 1e30})
    done = copy.run(*COMMAND, check=False)
    assert done.returncode
    told = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(told) == 1
    assert re.match(r"error: (the loss is|step \d+ made weights that are) not finite.*; nothing was saved", told[0])
    assert "Traceback" not in done.stderr
    assert not (copy.folder / "data/models/unlearned").exists()
    copy.change(**{"unlearn.lr": 0.0005})
    copy.run("dvc", "checkout", "-q")
    kept = {name: content for name, content in before.items() if name.startswith("data")}
    assert locked(copy) == before["lock"]
    assert {name: (copy.folder / name).read_bytes() for name in kept} == kept
    done = copy.run(*COMMAND)  # for the metrics, which git keeps and not DVC
    assert "Stage 'unlearn' is cached" in done.stdout
    assert outputs(copy) == before
