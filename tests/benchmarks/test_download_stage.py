"""The stage download as a process: all of data/benchmark or nothing."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tif.base import tables
from tif.benchmarks import SAMPLES

STAGE = Path(__file__).parents[2] / "stages" / "download.py"
NAMES = ["full", "forget", "retain", "real_authors", "world_facts"]


@pytest.fixture
def stage(tmp_path):
    def run(source: str):
        tofu = {"forget": "forget01", "repository": "locuslab/TOFU", "revision": "main"}
        (tmp_path / "params.yaml").write_text(
            json.dumps({"benchmark": {"name": "tofu", "source": source}, "tofu": tofu})
        )
        return subprocess.run([sys.executable, STAGE], cwd=tmp_path, capture_output=True, text=True)

    return run


def test_tables_and_card(stage, tmp_path, tofu_files, write_tofu):
    write_tofu(tofu_files, "local")
    done = stage("local")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    out = tmp_path / "data/benchmark"
    assert sorted(path.name for path in out.iterdir()) == sorted(["card.json", *(f"{name}.parquet" for name in NAMES)])
    assert [path.name for path in out.parent.iterdir()] == ["benchmark"]
    assert json.loads((out / "card.json").read_text()) == {
        "name": "tofu",
        "source": "local",
        "revision": None,
        "counts": dict(zip(NAMES, [80, 20, 60, 3, 2], strict=True)),
        "sha256": {name: hashlib.sha256((out / f"{name}.parquet").read_bytes()).hexdigest() for name in NAMES},
    }
    forget = tables.read(out / "forget.parquet", SAMPLES)
    assert forget.column("response").to_pylist() == [row["answer"] for row in tofu_files["forget01.json"]]


def test_the_same_bytes_from_another_folder(stage, tmp_path, tofu_files, write_tofu):
    contents = []
    for parent in ("a", "b"):
        (tmp_path / parent).mkdir()
        write_tofu(tofu_files, f"{parent}/local")
        assert stage(str(tmp_path / parent / "local")).returncode == 0
        contents.append({path.name: path.read_bytes() for path in (tmp_path / "data/benchmark").iterdir()})
    assert contents[0] == contents[1]


def test_bad_input_leaves_nothing(stage, tmp_path, tofu_files, write_tofu):
    tofu_files["world_facts_perturbed.json"][1]["perturbed_answer"] = []
    write_tofu(tofu_files, "local")
    done = stage("local")
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: local/world_facts_perturbed.json: row 2 has no wrong answer")
    assert not (tmp_path / "data").exists()


def test_a_source_that_is_not_there(stage, tmp_path):
    done = stage("elsewhere")
    assert done.returncode == 1 and "benchmark.source = 'elsewhere': nothing is there" in done.stderr


CHECK = """
import sys
from tif.errors import run
import download
row = {"sample_id": "forget/0000"}
run(lambda: download.check("fictitious", {"forget": FORGET, "retain": [row]}))
"""


@pytest.mark.parametrize(
    ("forget", "message"),
    [("[]", "the forget set is empty"), ("[row]", "sample_id forget/0000 occurs more than once")],
)
def test_what_no_benchmark_may_give(forget, message):
    code = CHECK.replace("FORGET", forget)
    done = subprocess.run([sys.executable, "-c", code], cwd=STAGE.parent, capture_output=True, text=True)
    assert done.returncode == 1 and message in done.stderr
