"""Run the pipeline with other settings in a clone of this repository; shared by the studies in this folder."""

import os
import subprocess
import sys
from pathlib import Path

from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parent.parent


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


def repro(folder: Path, settings: dict[str, object], targets: tuple[str, ...] = ()) -> None:
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
    with (folder / "repro.log").open("a") as log:
        done = subprocess.run(["dvc", "repro", *targets], cwd=folder, env=environment, stdout=log, stderr=log)
    if done.returncode:
        sys.exit(f"error: dvc repro failed in {folder}; see repro.log there")
