"""The stage download: all of data/benchmark or nothing."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from in_process import STAGES, run_stage, stage
from worlds import DEFAULTS, world

from tif.base import tables
from tif.base.errors import UserError
from tif.benchmarks import SAMPLES, describe, fictitious, read_card, read_set, tofu

SETS = ("forget", "retain", "real_authors", "world_facts")


def choose_tofu(folder: Path, source: str) -> None:
    block = {"forget": "forget01", "repository": "locuslab/TOFU", "revision": "main"}
    (folder / "params.yaml").write_text(json.dumps({"benchmark": {"name": "tofu", "source": source}, "tofu": block}))


def choose_fictitious(folder: Path, **changes) -> None:
    blocks = {"benchmark": {"name": "fictitious", "source": "data/none"}, "fictitious": DEFAULTS | changes}
    (folder / "params.yaml").write_text(json.dumps(blocks))


def contents(out: Path) -> dict[str, bytes]:
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()}


def test_tables_and_card(tmp_path, tofu_files, write_tofu):
    write_tofu(tofu_files, "local")
    choose_tofu(tmp_path, "local")
    run_stage("download", tmp_path)
    out = tmp_path / "data/benchmark"
    places = {name: out / f"{name}.parquet" for name in ("full", "forget", "retain")}
    places |= {name: out / f"utility/{name}.parquet" for name in ("real_authors", "world_facts")}
    found = contents(out)
    assert set(found) == {
        "card.json", "full.parquet", "forget.parquet", "retain.parquet", "holdout.parquet",
        "utility/real_authors.parquet", "utility/world_facts.parquet",
    }  # fmt: skip
    assert [path.name for path in out.parent.iterdir()] == ["benchmark"]
    card, sets = read_card(out)
    assert sets == {name: tofu.SETS[name] for name in SETS}
    assert card == {
        "name": "tofu",
        "source": "local",
        "revision": None,
        "absent": {"holdout": "there is no holdout01.json"},
        "form": "question",
        "sets": describe(sets),
        "counts": {"full": 80, "forget": 20, "retain": 60, "real_authors": 3, "world_facts": 2},
        "sha256": {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in places.items()},
    }
    forget = read_set(out, "forget", "forget")
    assert forget.column("response").to_pylist() == [row["answer"] for row in tofu_files["forget01.json"]]
    assert read_set(out, "world_facts", "utility")["prompt"].to_pylist() == ["Who is number 0?", "Who is number 1?"]
    assert len(read_set(out, "holdout", "holdout")) == 0


def test_the_same_bytes_from_another_folder(tmp_path, tofu_files, write_tofu):
    found = []
    for parent in ("a", "b"):
        (tmp_path / parent).mkdir()
        write_tofu(tofu_files, f"{parent}/local")
        choose_tofu(tmp_path, str(tmp_path / parent / "local"))
        run_stage("download", tmp_path)
        found.append(contents(tmp_path / "data/benchmark"))
    assert found[0] == found[1]


def test_a_holdout_changes_no_other_tables_bytes(tmp_path):
    """With none the table is there, an output of the stage, but the card has no such set, and says why."""
    found, cards = {}, {}
    for count in (0, 2, 3):
        choose_fictitious(tmp_path, people=5, questions=12, holdout=count)
        run_stage("download", tmp_path)
        out = tmp_path / "data/benchmark"
        assert len(read_set(out, "holdout", "holdout")) == 12 * count
        found[count], cards[count] = contents(out), read_card(out)
        del found[count]["card.json"], found[count]["holdout.parquet"]
    assert found[0] == found[2] == found[3] and len(found[0]) == 5
    (none, sets), (some, more) = cards[0], cards[2]
    assert none["absent"] == {"holdout": "fictitious.holdout is 0"} and "absent" not in some
    assert list(sets) == list(SETS) and more == fictitious.SETS
    assert "holdout" not in none["counts"] and some["counts"]["holdout"] == 24 and "holdout" in some["sha256"]


def test_what_is_written_is_what_the_benchmark_made(tmp_path):
    choose_fictitious(tmp_path)
    run_stage("download", tmp_path)
    out = tmp_path / "data/benchmark"
    for name, about in read_card(out)[1].items():
        assert read_set(out, name, about.role).to_pylist() == world()[name]
    assert tables.read(out / "full.parquet", SAMPLES).to_pylist() == world()["full"]


def test_bad_input_leaves_nothing(tmp_path, tofu_files, write_tofu):
    tofu_files["world_facts_perturbed.json"][1]["perturbed_answer"] = []
    write_tofu(tofu_files, "local")
    choose_tofu(tmp_path, "local")
    with pytest.raises(UserError, match=r"local/world_facts_perturbed\.json: row 2 has no wrong answer"):
        run_stage("download", tmp_path)
    assert not (tmp_path / "data").exists()


def test_a_failed_run_keeps_what_was_there(tmp_path):
    choose_fictitious(tmp_path, people=5, questions=12)
    run_stage("download", tmp_path)
    before = contents(tmp_path / "data")
    choose_fictitious(tmp_path, forget_share=0.001)
    with pytest.raises(UserError, match="leaves 0 people to forget"):
        run_stage("download", tmp_path)
    assert contents(tmp_path / "data") == before


def test_a_source_that_is_not_there(tmp_path):
    """As a process, which says so in one line."""
    choose_tofu(tmp_path, "elsewhere")
    done = subprocess.run([sys.executable, STAGES / "download.py"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and done.stdout == ""
    assert done.stderr.startswith("error: params.yaml: benchmark.source = 'elsewhere': nothing is there")
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("forget", "message"),
    [([], "the forget set is empty"), ([{"sample_id": "forget/0000"}], "sample_id forget/0000 occurs more than once")],
)
def test_what_no_benchmark_may_give(forget, message):
    with pytest.raises(UserError, match=message):
        stage("download").check("fictitious", {"forget": forget, "retain": [{"sample_id": "forget/0000"}]})
