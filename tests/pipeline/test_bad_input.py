"""Bad input, given to the stages as a user would give it: one clear line, a failing status, nothing written."""

import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[2]


def run_stage(folder: Path, stage: str, **changes) -> subprocess.CompletedProcess:
    """Run a stage script in `folder` with changed parameters and no data."""
    yaml = YAML()
    params = yaml.load(ROOT / "params.yaml")
    for key, value in changes.items():
        block, name = key.split(".")
        params[block][name] = value
    yaml.dump(params, folder / "params.yaml")
    (folder / "data").mkdir(exist_ok=True)
    (folder / "data/none").write_text("")
    return subprocess.run(
        [sys.executable, str(ROOT / "stages" / stage)], cwd=folder, capture_output=True, text=True, timeout=120
    )


@pytest.mark.parametrize(
    ("stage", "key", "value", "expected"),
    [
        ("download.py", "benchmark.name", "fictitous", ["benchmark.name", "did you mean 'fictitious'"]),
        ("download.py", "fictitious.peple", 3, ["fictitious.peple", "did you mean 'people'"]),
        ("download.py", "fictitious.people", "many", ["fictitious.people", "'many'"]),
        ("download.py", "benchmark.source", "/nowhere", ["benchmark.source", "/nowhere"]),
        ("identify.py", "identify.method", "gpt", ["identify.method", "frequency"]),
        ("unlearn.py", "tpo.beta", 0, ["tpo.beta", "greater than 0"]),
        ("unlearn.py", "tpo.beta", float("inf"), ["tpo.beta", "finite"]),
        ("unlearn.py", "tpo.lambda", -1, ["tpo.lambda", "greater than or equal to 0"]),
        ("unlearn.py", "unlearn.epochs", 0, ["unlearn.epochs", "greater than or equal to 1"]),
        ("unlearn.py", "unlearn.method", "tpoo", ["unlearn.method", "did you mean 'tpo'"]),
        ("unlearn.py", "tpo.beta", 0.3, ["data/benchmark/forget.parquet", "dvc repro"]),
    ],
)
def test_one_clear_line(tmp_path, stage, key, value, expected):
    done = run_stage(tmp_path, stage, **{key: value})
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert "Traceback" not in done.stderr
    for part in expected:
        assert part in last
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["data", "none", "params.yaml"]
