"""Which stages run after which change: real `dvc repro` runs at tiny sizes in a temporary clone."""

import json
import re
import shutil
from pathlib import Path

import pytest
from ruamel.yaml import YAML

AFTER_UNLEARN = {"unlearn", "evaluate@unlearned", "report"}
MODELS = {"finetune@target", "finetune@retain", "reference", "evaluate@target", "evaluate@retain"}
NOTHING = (set(), set())


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
    assert clone.first == ({"download", "identify"} | MODELS | AFTER_UNLEARN, set())
    assert clone.repro() == NOTHING


def test_outputs_have_the_promised_form(clone):
    result = json.loads((clone.folder / "metrics/metrics.json").read_text())
    assert set(result) == {"target", "retain", "unlearned"}
    for model in result.values():
        assert set(model) == {"forget_quality", "model_utility", "forget", "utility"}
        assert set(model["forget_quality"]) == {"pvalue", "log10_pvalue", "statistic", "n"}
    assert result["retain"]["forget_quality"]["pvalue"] == 1
    steps = (clone.folder / "metrics/plots/steps.csv").read_text().splitlines()
    assert steps[0] == "step,loss,lpl,pl,logit_drop,general_nll,retain_nll"
    assert abs(float(steps[1].split(",")[4])) < 1e-4  # the margin at step 0
    page = (clone.folder / "metrics/report.html").read_text()
    assert not re.search(r"(src|href)=[\"'](https?:)?//", page)


@pytest.mark.parametrize("key", ["tpo.beta", "tpo.lambda"])
def test_method_parameter_reruns_unlearning_only(settings, key):
    settings.change(**{key: 0.4})
    assert settings.repro() == (AFTER_UNLEARN, set())


def test_identifier_reruns_what_follows_it_and_going_back_only_the_report(settings):
    settings.change(**{"identify.method": "all"})
    assert settings.repro() == ({"identify"} | AFTER_UNLEARN, set())
    settings.change(**{"identify.method": "frequency"})
    executed, restored = settings.repro()
    assert executed <= {"report"}
    assert restored >= {"identify", "unlearn", "evaluate@unlearned"}


def test_forget_split_does_not_retrain_the_target(settings):
    settings.change(**{"fictitious.forget_share": 0.4})
    executed, restored = settings.repro()
    assert "finetune@target" not in executed | restored
    assert executed == {"download", "identify"} | (MODELS - {"finetune@target"}) | AFTER_UNLEARN


@pytest.mark.parametrize("path", ["src/tif/identify/gold.py", "src/tif/benchmarks/tofu/__init__.py"])
def test_editing_what_is_not_chosen_reruns_nothing(clone, path):
    file = clone.folder / path
    before = file.read_bytes()
    file.write_bytes(before + b"# edited\n")
    assert clone.repro() == NOTHING
    file.write_bytes(before)


def test_runtime_settings_rerun_nothing(settings):
    settings.change(**{"runtime.progress": True})
    assert settings.repro() == NOTHING


def test_one_byte_of_a_local_source_reruns_the_stage_that_reads_it(settings):
    import pyarrow.parquet as pq

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
    assert settings.repro() == ({"identify"} | AFTER_UNLEARN, set())
    source.write_text(source.read_text() + "\n")
    executed, _ = settings.repro()
    assert executed >= {"identify"}
    assert not executed & ({"download"} | MODELS)
    source.unlink()


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [
        ("unlearn.method", "tpoo", "src/tif/methods/tpoo.py"),
        ("model.name", "nope", "'nope'"),
        ("benchmark.source", "/nowhere", "/nowhere"),
    ],
)
def test_dvc_names_what_does_not_exist(settings, key, value, named):
    """Before any stage runs: dvc.yaml builds paths and blocks from these names."""
    settings.change(**{key: value})
    done = settings.run("dvc", "repro", check=False)
    assert done.returncode
    assert named in done.stderr
    assert "Running stage" not in done.stdout


@pytest.mark.slow
def test_tofu_from_a_local_folder_and_one_byte_of_it(settings, tofu_files, write_tofu):
    source = write_tofu(tofu_files)
    settings.change(**{"benchmark.name": "tofu", "benchmark.source": str(source), "tofu.forget": "forget01"})
    executed, _ = settings.repro()
    assert len(executed) == 10
    assert set(json.loads((settings.folder / "metrics/metrics.json").read_text())) == {"target", "retain", "unlearned"}
    with (source / "world_facts_perturbed.json").open("a") as file:
        file.write("\n")
    assert settings.repro() == ({"download"}, set())  # its tables stay the same


def test_a_stage_needs_only_what_it_declares(clone, tmp_path):
    """Every stage, alone in a folder with its declared dependencies and nothing else, makes the same outputs."""
    lock = YAML(typ="safe").load(clone.folder / "dvc.lock")["stages"]
    assert len(lock) == 10
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
    clone.run("dvc", "plots", "diff", "-o", "dvc_plots", "HEAD")
    assert (clone.folder / "dvc_plots/index.html").is_file()
    clone.run("git", "checkout", "-q", "--", ".")
    clone.run("dvc", "checkout", "-q")


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
    assert len(executed) == 10
    assert (second / "dvc.lock").read_bytes() == first
