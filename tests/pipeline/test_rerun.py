"""Which stages run after which change: real `dvc repro` runs at tiny sizes in a temporary clone."""

import json
import re
import shutil
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from ruamel.yaml import YAML

AFTER_UNLEARN = {"unlearn", "evaluate@unlearned", "measure", "report"}
MODELS = {"finetune@target", "finetune@retain", "reference", "evaluate@target", "evaluate@retain"}
ALL = {"check", "download", "identify"} | MODELS | AFTER_UNLEARN
NOTHING = (set(), set())
SECONDS = {"check", "measure", "report"}  # stages that load no model


def copy(source: Path, target: Path) -> None:
    """Copy a file, or a folder with all that is in it."""
    for file in [source] if source.is_file() else source.rglob("*"):
        if file.is_file():
            place = target / file.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, place)


def contents(path: Path) -> dict[Path, bytes]:
    """Bytes of a file, or of every file below a folder."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return {file.relative_to(path): file.read_bytes() for file in files}


@pytest.fixture
def settings(clone):
    """The clone, whose settings are put back afterwards."""
    before = (clone.folder / "params.yaml").read_bytes()
    yield clone
    (clone.folder / "params.yaml").write_bytes(before)
    clone.repro()


def test_first_run_executes_everything_and_second_nothing(clone):
    assert clone.first == (ALL, set())
    assert clone.repro() == NOTHING


def test_outputs_have_the_promised_form(clone):
    details = json.loads((clone.folder / "metrics/details.json").read_text())
    assert set(details) == {"target", "retain", "unlearned", "about"}
    for model in ("target", "retain", "unlearned"):
        assert set(details[model]) == {"forget_quality", "model_utility", "forget", "holdout", "utility"}
        assert set(details[model]["forget_quality"]) == {"pvalue", "log10_pvalue", "statistic", "n"}
    assert details["retain"]["forget_quality"]["pvalue"] == 1
    headline = json.loads((clone.folder / "metrics/metrics.json").read_text())
    assert 8 <= sum(map(len, headline.values())) <= 12
    assert headline["unlearned"]["forget_quality"] == details["unlearned"]["forget_quality"]["pvalue"]
    steps = (clone.folder / "metrics/plots/steps.csv").read_text().splitlines()
    assert steps[0] == "step,loss,lpl,pl,logit_drop,general_nll,retain_nll"
    assert abs(float(steps[1].split(",")[4])) < 1e-4  # the margin at step 0
    page = (clone.folder / "metrics/report.html").read_text()
    assert not re.search(r"(src|href)=[\"'](https?:)?//", page)


def test_no_bar_and_five_lines_without_a_terminal(clone):
    """What `make repro` prints: the clone wants progress bars here, but its output is no terminal."""
    assert "it/s" not in clone.said and "%|" not in clone.said
    lines = clone.run(sys.executable, "stages/summary.py", "61").stdout.splitlines()
    assert [line.split(":")[0] for line in lines] == ["forgotten", "kept", "compared with", "report", "time"]
    assert lines[-1].split() == ["time:", "1", "min", "1", "s"]


def test_each_change_reruns_what_it_can_change(clone):
    """A method's parameter, the identifier, the size of the forget set, and back again."""
    before = (clone.folder / "params.yaml").read_bytes()
    clone.change(**{"tpo.beta": 0.4})
    assert clone.repro() == ({"check"} | AFTER_UNLEARN, set())
    (clone.folder / "params.yaml").write_bytes(before)
    clone.change(**{"identify.method": "all"})
    assert clone.repro() == ({"check", "identify"} | AFTER_UNLEARN, set())
    clone.change(**{"identify.method": "frequency", "fictitious.forget_share": 0.4})
    executed, restored = clone.repro()
    assert "finetune@target" not in executed | restored
    assert executed == ALL - {"finetune@target", "evaluate@target"} | {"evaluate@target"}
    (clone.folder / "params.yaml").write_bytes(before)
    executed, restored = clone.repro()
    assert executed <= SECONDS
    assert restored >= {"download", "identify", "reference", "finetune@retain", "unlearn", "evaluate@unlearned"}


def test_an_edit_reruns_the_stages_that_list_the_file(clone):
    """Rows of docs/reruns.md, tried: the linter, what is not chosen, and a key that changes nothing."""
    before = (clone.folder / "params.yaml").read_bytes()
    edited = [
        "agreement/lint.py",
        "identify/gold/__init__.py",
        "identify/openai/client.py",
        "benchmarks/tofu/__init__.py",
    ]
    files = [clone.folder / "src/tif" / name for name in edited]
    contents = [file.read_bytes() for file in files]
    for file, content in zip(files, contents, strict=True):
        file.write_bytes(content + b"# edited\n")
    clone.change(**{"runtime.checkpoint_minutes": 3.0})
    assert clone.repro() == ({"check", "identify"}, set())
    for file, content in zip(files, contents, strict=True):
        file.write_bytes(content)
    (clone.folder / "params.yaml").write_bytes(before)
    assert clone.repro() == (set(), {"check", "identify"})


def test_one_byte_of_a_local_source_reruns_the_stage_that_reads_it(settings):
    rows = pq.read_table(settings.folder / "data/benchmark/forget.parquet").to_pylist()
    lines = [
        {
            "question": row["prompt"],
            "answer": row["response"],
            "target_words": [{"word": row["response"][:1], "start": 0, "end": 1}],
        }
        for row in rows
    ]
    source = settings.folder / "annotation.jsonl"
    source.write_text("".join(json.dumps(line) + "\n" for line in lines))
    settings.change(**{"identify.method": "file", "identify.source": "annotation.jsonl"})
    assert settings.repro("identify") == ({"check", "identify"}, set())
    source.write_text(source.read_text() + "\n")
    assert settings.repro("identify") == ({"identify"}, set())
    source.unlink()


def test_a_wrong_name_is_told_before_anything_runs(settings):
    """Two at once, by `dvc repro` and by `dvc exp run`; nothing is deleted."""
    before = contents(settings.folder / "data")
    settings.change(**{"unlearn.method": "npo2", "identify.method": "goldd"})
    for command in (("dvc", "repro"), ("dvc", "exp", "run", "-S", "model.name=scrath")):
        done = settings.run(*command, check=False)
        assert done.returncode
        assert re.findall(r"^Running stage '([^']+)'", done.stdout, re.MULTILINE) == ["check"]
        assert "unlearn.method = 'npo2' is unknown; did you mean 'npo'?" in done.stderr
        assert "identify.method = 'goldd' is unknown; did you mean 'gold'?" in done.stderr
        assert "Traceback" not in done.stderr
    assert "model.name = 'scrath' is unknown; did you mean 'scratch'?" in done.stderr
    after = contents(settings.folder / "data")
    del before[Path("checked")]  # the output of the check itself
    assert after == before


@pytest.mark.slow
def test_tofu_from_a_local_folder_and_one_byte_of_it(settings, tofu_files, write_tofu):
    source = write_tofu(tofu_files)
    settings.change(**{"benchmark.name": "tofu", "benchmark.source": str(source), "tofu.forget": "forget01"})
    executed, _ = settings.repro()
    assert executed == ALL
    assert set(json.loads((settings.folder / "metrics/metrics.json").read_text())) == {"target", "retain", "unlearned"}
    with (source / "world_facts_perturbed.json").open("a") as file:
        file.write("\n")
    assert settings.repro() == ({"download"}, set())  # its tables stay the same


def test_a_stage_needs_only_what_it_declares(clone, tmp_path):
    """Every stage, alone in a folder with its declared dependencies and nothing else, makes the same outputs."""
    lock = YAML(typ="safe").load(clone.folder / "dvc.lock")["stages"]
    assert len(lock) == 12
    for name, stage in lock.items():
        folder = tmp_path / name
        for init in clone.folder.glob("src/tif/**/__init__.py"):
            if not init.stat().st_size:  # an empty file makes a package and is no dependency
                copy(init, folder / init.relative_to(clone.folder))
        for dep in stage["deps"]:
            copy(clone.folder / dep["path"], folder / dep["path"])
        copy(clone.folder / "params.yaml", folder / "params.yaml")
        alone = type(clone).__new__(type(clone))
        alone.folder = folder
        alone.variables = {"TIF_WORK": str(tmp_path / "work")}  # elsewhere it is beside DVC's cache
        alone.run(*stage["cmd"].split())
        for out in stage["outs"]:
            assert contents(folder / out["path"]) == contents(clone.folder / out["path"]), f"{name}: {out['path']}"


def test_experiments_and_diffs(clone):
    """The commands of the README, after the first run."""
    clone.commit("first run")
    clone.run("dvc", "exp", "run", "-S", "tpo.beta=0.25", "-S", "unlearn.lr=0.02")
    assert "0.25" in clone.run("dvc", "params", "diff").stdout
    shown = clone.run("dvc", "exp", "show", "--csv").stdout
    assert "unlearned.model_utility" in shown.splitlines()[0]
    changed = json.loads(clone.run("dvc", "metrics", "diff", "--json").stdout)["metrics/metrics.json"]
    assert changed
    assert all(key.startswith("unlearned.") for key in changed)
    assert "metrics/details.json" in clone.run("git", "status", "--porcelain").stdout
    clone.run("dvc", "plots", "diff", "-o", "dvc_plots", "HEAD")
    assert (clone.folder / "dvc_plots/index.html").is_file()
    clone.run("git", "checkout", "-q", "--", ".")
    clone.run("dvc", "checkout", "-q")


@pytest.mark.slow
def test_two_clones_in_two_folders_make_the_same_lock_file(clone, tmp_path):
    first = (clone.folder / "dvc.lock").read_bytes()
    second = tmp_path / "elsewhere"
    shutil.copytree(clone.folder, second, ignore=shutil.ignore_patterns("cache", "tmp", "__pycache__"))
    other = type(clone).__new__(type(clone))
    other.folder = second
    for name in ("data/benchmark", "data/models", "data/evaluation", "data/reference.parquet", "dvc.lock"):
        path = second / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    executed, _ = other.repro()
    assert len(executed) >= 9
    assert (second / "dvc.lock").read_bytes() == first
