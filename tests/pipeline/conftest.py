import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import MappingProxyType

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[2]

TINY = {
    "fictitious": {
        "people": 5,
        "questions": 12,
        "real_authors": 4,
        "world_facts": 4,
        "forget_share": 0.2,
        "holdout": 1,
    },
    "scratch": {"vocabulary": 400, "layers": 1, "width": 32, "heads": 2, "epochs": 1},
    "unlearn": {"epochs": 1, "trajectory_retain": 4},
    "evaluate": {"retain_rows": 8, "new_tokens": 4},
    "compute": {"threads": 1},
    "runtime": {"progress": True},  # which shows nothing here, as there is no terminal
}


class Clone:
    """A copy of this repository's files, committed to a git repository of its own, with tiny settings."""

    variables: dict[str, str] = MappingProxyType({})  # environment variables, beside those that every command has

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        listed = subprocess.run(
            ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True, check=True, text=True
        )
        for name in filter(None, listed.stdout.split("\0")):
            source = ROOT / name
            if source.is_file() and name != "dvc.lock":
                target = folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(source.read_bytes())
        for block, values in TINY.items():
            self.change(**{f"{block}.{key}": value for key, value in values.items()})
        self.run("git", "init", "-q")
        self.commit("tiny")

    def commit(self, message: str) -> None:
        self.run("git", "add", "-A")
        self.run("git", "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-q", "-m", message)

    def environment(self) -> dict[str, str]:
        """What commands run with."""
        return os.environ | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(self.folder / "src"),  # its own code, and not that of an editable install
            "GIT_AUTHOR_NAME": "t",
            "GIT_AUTHOR_EMAIL": "t@example.org",
            "GIT_COMMITTER_NAME": "t",
            "GIT_COMMITTER_EMAIL": "t@example.org",
            **self.variables,
        }

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess:
        done = subprocess.run(command, cwd=self.folder, env=self.environment(), capture_output=True, text=True)
        assert not check or done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done

    def change(self, **values) -> None:
        """Set dotted keys of params.yaml."""
        yaml = YAML()
        params = yaml.load(self.folder / "params.yaml")
        for key, value in values.items():
            block, name = key.split(".")
            params[block][name] = value
        yaml.dump(params, self.folder / "params.yaml")

    def repro(self, *targets: str) -> tuple[set[str], set[str]]:
        """Run `dvc repro`; the stages that were executed, and those restored from the run cache."""
        done = self.run("dvc", "repro", *targets)
        output = done.stdout
        self.said = output + done.stderr
        executed = set(re.findall(r"^Running stage '([^']+)'", output, re.MULTILINE))
        restored = set(re.findall(r"^Stage '([^']+)' is cached", output, re.MULTILINE))
        return executed, restored


@pytest.fixture(scope="session")
def clone(tmp_path_factory) -> Clone:
    """One tiny clone for the whole session, its pipeline run once: workers of pytest-xdist get a copy each."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    with (shared / "clone.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        record = shared / "clone.json"
        if not record.exists():
            (shared / "clone").mkdir()
            first = Clone(shared / "clone")
            executed, restored = first.repro()
            record.write_text(json.dumps([sorted(executed), sorted(restored), first.said]))
    made = Clone.__new__(Clone)
    made.folder = tmp_path_factory.mktemp("clones") / "clone"
    shutil.copytree(shared / "clone", made.folder)
    executed, restored, made.said = json.loads(record.read_text())
    made.first = set(executed), set(restored)
    return made
