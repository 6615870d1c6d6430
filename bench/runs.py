"""Run the pipeline with other settings in a clone of this repository; shared by the studies in this folder."""

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Cost:
    """Wall time of a run in seconds, and the largest resident set of any of its processes, MiB."""

    seconds: float
    memory: float


def clone(folder: Path) -> Path:
    """A clone of the committed state of this repository. Exits when the folder holds another state."""
    if not folder.exists():
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)
    ours, theirs = (
        subprocess.run(["git", "rev-parse", "HEAD"], cwd=where, check=True, capture_output=True, text=True).stdout
        for where in (ROOT, folder)
    )
    if ours != theirs:
        sys.exit(f"error: {folder} holds another commit of this repository; delete it or give another --folder")
    return folder


def repro(folder: Path, settings: dict[str, object], targets: tuple[str, ...] = ()) -> Cost:
    """Run `dvc repro` with `settings` (dotted keys) in place of the committed ones; its output goes to repro.log."""
    yaml = YAML()
    committed = subprocess.run(["git", "show", "HEAD:params.yaml"], cwd=folder, check=True, capture_output=True)
    params = yaml.load(committed.stdout)
    for key, value in settings.items():
        block, name = key.split(".")
        if name not in params[block]:
            raise KeyError(f"params.yaml has no {key}")
        params[block][name] = value
    yaml.dump(params, folder / "params.yaml")
    # the clone's own code, even where an editable install points elsewhere
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(folder / "src"),
    }
    begin = time.perf_counter()
    with (folder / "repro.log").open("a") as log:
        # wait4 and not getrusage(RUSAGE_CHILDREN), whose peak is that of all runs so far
        process = subprocess.Popen(["dvc", "repro", *targets], cwd=folder, env=environment, stdout=log, stderr=log)
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"error: dvc repro failed in {folder}; see repro.log there")
    return Cost(time.perf_counter() - begin, usage.ru_maxrss / 1024)
