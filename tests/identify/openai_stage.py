"""The identifier openai with small settings, in this process or as the stage in a folder, as a user would run it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from in_process import ROOT, run_stage

from tif.base import tables
from tif.benchmarks import SAMPLES
from tif.identify.openai import Settings

KEY = "sk-proj-Zq7Xw3Lk9Vt2Rb5Nm8Jh4Gd6"
OUTPUTS = ("data/spans.parquet", "data/identifier.json", "metrics/identify.json")
BLOCK = {
    "model": "tiny",
    "base_url": None,
    "structured": True,
    "temperature": 0.0,
    "seed": None,
    "reply_tokens": 500,
    "reply_tokens_name": "max_completion_tokens",
    "rows_per_request": 1,
    "samples": 1,
    "context_tokens": 2000,
    "overlap": 200,
    "batch": False,
    "poll": 0.01,
    "batch_requests": 50000,
    "concurrency": 8,
    "timeout": 20.0,
    "attempts": 4,
    "backoff": 0.01,
    "prices": {"prompt": 1.0, "completion": 2.0, "batch": 0.5},
}


def settings(**changes) -> Settings:
    return Settings(**{**BLOCK, **changes})


class Stage:
    """The folder; `run` runs the stage in it as a process, `here` in this one."""

    def __init__(self, folder: Path, forget: pa.Table, **block) -> None:
        self.folder, self.block = folder, block
        tables.write(folder / "data/benchmark/forget.parquet", forget, SAMPLES)
        tables.write(folder / "data/benchmark/retain.parquet", forget.slice(0, 0), SAMPLES)
        (folder / "data/none").touch()
        self.work = folder / "work"

    def write_params(self, progress: bool, **block) -> None:
        params = {
            "identify": {"method": "openai", "source": "data/none"},
            "openai": {**BLOCK, **self.block, **block},
            "compute": {"device": "cpu", "threads": 1},
            "runtime": {"progress": progress},
        }
        (self.folder / "params.yaml").write_text(json.dumps(params))

    def start(self, *arguments: str, key: str | None = KEY, progress: bool = False, env=None, **block):
        self.write_params(progress, **block)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("OPENAI_")}
        environment |= {"PYTHONPATH": str(ROOT / "src"), **self.environment(key), **(env or {})}
        return subprocess.Popen(
            [sys.executable, ROOT / "stages/identify.py", *arguments],
            cwd=self.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str, **options) -> subprocess.CompletedProcess:
        process = self.start(*arguments, **options)
        stdout, stderr = process.communicate(timeout=300)
        return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)

    def environment(self, key: str | None) -> dict[str, str]:
        """What the stage is told by variables."""
        told = {"TIF_WORK": str(self.work), "NO_PROXY": "127.0.0.1", "SSL_CERT_DIR": str(self.folder)}
        return told if key is None else {**told, "OPENAI_API_KEY": key}

    def here(self, *arguments: str, key: str | None = KEY, progress: bool = False, **block) -> None:
        """Run it in this process. Bad input raises UserError."""
        self.write_params(progress, **block)
        with pytest.MonkeyPatch.context() as patch:
            for name in [name for name in os.environ if name.startswith("OPENAI_")]:
                patch.delenv(name)
            for name, value in self.environment(key).items():
                patch.setenv(name, value)
            run_stage("identify", self.folder, *arguments)

    def good(self, **options) -> dict[str, bytes]:
        """Run it in this process; the bytes of its outputs."""
        self.here(**options)
        return {name: (self.folder / name).read_bytes() for name in OUTPUTS}

    def stored(self) -> set[str]:
        """Keys of the replies in the store."""
        return {path.stem for path in self.work.glob("openai/??/*.json")}

    def unwanted(self) -> dict[str, list[str]]:
        """sample_id -> its unwanted words."""
        found: dict[str, list[str]] = {}
        for row in pq.read_table(self.folder / "data/spans.parquet").to_pylist():
            found.setdefault(row["sample_id"], [])
            if row["unwanted"]:
                found[row["sample_id"]].append(row["text"])
        return found

    def record(self) -> dict:
        return json.loads((self.folder / "data/identifier.json").read_text())

    def counts(self) -> dict:
        return json.loads((self.folder / "metrics/identify.json").read_text())
