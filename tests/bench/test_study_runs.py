"""bench/study/study.py as a process, on a repository whose stages do next to nothing."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).resolve().parents[2]
IDENTITY = {f"GIT_{who}_{what}": "t@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}

# A pipeline with the names of the real one. Forget quality is -10 * weight - seed, utility 1 - weight / 10.
STAGE = """
import json, math, os, pathlib, sys, time
from ruamel.yaml import YAML

params = YAML(typ="safe", pure=True).load(open("params.yaml"))
method, seed = params["unlearn"]["method"], params["fictitious"]["seed"]
weight = params[method]["weight"]
IDS = [f"forget/{n}" for n in range(9)]

def download():
    from tif.base import tables
    from tif.benchmarks import SAMPLES, Set, describe
    keys = dict(split="forget", group="someone", prompt="?", response="!")
    tables.write("data/benchmark/forget.parquet", [dict(sample_id=key, **keys) for key in IDS], SAMPLES)
    sets = {"forget": Set("forget", "", ("response", "wrong"), False, ("truth_ratio",))}
    tables.write_text("data/benchmark/card.json", json.dumps({"sets": describe(sets)}))

def retain():
    from tif.base import tables
    from tif.evaluation import TEXTS, TOKENS
    rows = [dict(sample_id=key, answer=answer, position=1, token_id=1, start=0, end=0, is_end=True, hit=True,
                 logprob=math.log(0.5 * (0.5 + n / 100 if answer == "wrong/0" else 1)))
            for answer in ("response", "wrong/0") for n, key in enumerate(IDS)]
    tables.write("data/evaluation/retain/tokens.parquet", rows, TOKENS)
    tables.write("data/evaluation/retain/texts.parquet", [], TEXTS)

def unlearn():
    from tif.base import tables
    from tif.unlearning import TRAJECTORY
    pathlib.Path(os.environ["RAN"]).open("a").write(f"{method} {weight} {seed}\\n")
    if weight > 9:
        sys.exit("error: the loss is not finite at step 3" if weight > 99 else "error: out of order")
    time.sleep(params["slow"]["seconds"])
    values = {"forget": {"truth_ratio": (0.5, weight), "probability": (0.5, 0)},
              "retain": {"truth_ratio": (0.5, 0), "probability": (1, -weight / 9)}}
    rows = [dict(epoch=epoch, sample_id=f"{name}/{n}", measure=measure, value=start + slope * epoch + n / 100)
            for epoch in (0, 1) for name, measures in values.items()
            for measure, (start, slope) in measures.items() for n in range(9)]
    tables.write("data/trajectory.parquet", rows, TRAJECTORY)
    if "TIF_COSTS" in os.environ:
        pathlib.Path(os.environ["TIF_COSTS"]).write_text(json.dumps({"seconds_per_step": 0.25, "peak_mib": 100.0}))

def details(weight):
    return {"forget_quality": {"log10_pvalue": -10 * weight - seed}, "model_utility": 1 - weight / 10,
            "forget": {"probability": 0.1, "extraction_strength": 0.2}, "utility": {"retain": {"probability": 0.9}}}

def measure():
    pathlib.Path("metrics/plots").mkdir(parents=True, exist_ok=True)
    found = {"target": details(8), "retain": details(0), "unlearned": details(weight)}
    headline = {"forget_quality_log10": -10 * weight - seed, "model_utility": 1 - weight / 10}
    files = {"details": found, "metrics": {"unlearned": headline}, "unlearn": {"best": {"epoch": 1}},
             "identify": {"agreement": {"f1": 0.5, "precision": 0.5, "recall": 0.5}}}
    for name, content in files.items():
        pathlib.Path("metrics", f"{name}.json").write_text(json.dumps(content))
    text = "epoch,forget_quality_log10,retain_probability\\n0,-6.5,0.9\\n1,-1.5,0.8\\n"
    pathlib.Path("metrics/plots/trajectory.csv").write_text(text)

def other():
    pathlib.Path("data", sys.argv[1]).write_text(str(seed))

pathlib.Path("data").mkdir(exist_ok=True)
globals().get(sys.argv[1], other)()
"""
PIPELINE = """
stages:
  download: {cmd: python stage.py download, params: [fictitious], deps: [stage.py], outs: [data/benchmark]}
  reference: {cmd: python stage.py reference, params: [fictitious], deps: [stage.py], outs: [data/reference]}
  evaluate:
    foreach: {target: {out: data/target}, retain: {out: data/evaluation/retain}}
    do: {cmd: "python stage.py ${key}", params: [fictitious], deps: [stage.py, data/benchmark], outs: ["${item.out}"]}
  unlearn:
    cmd: python stage.py unlearn
    params: [fictitious, unlearn, "${unlearn.method}"]
    deps: [stage.py, data/reference]
    outs: [data/trajectory.parquet]
  measure:
    cmd: python stage.py measure
    deps: [stage.py, data/trajectory.parquet, data/target, data/evaluation/retain]
    outs: [metrics/details.json: {cache: false}]
    metrics:
      - metrics/metrics.json: {cache: false}
      - metrics/identify.json: {cache: false}
      - metrics/unlearn.json: {cache: false}
    plots: [metrics/plots/trajectory.csv: {cache: false}]
"""
PARAMS = """
fictitious: {seed: 0}
unlearn: {method: tpo, seed: 0}
identify: {method: frequency}
tpo: {weight: 0.5}
npo: {weight: 0.5}
slow: {seconds: 0.0}
"""
GRIDS = """
common: {slow.seconds: 0.0}
worlds:
  toy: {settings: {}, seeded: [fictitious.seed, unlearn.seed]}
groups:
  study:
    world: toy
    seeds: [1, 2]
    compare: tpo
    figure: study.png
    variants: {tpo: {unlearn.method: tpo}, npo: {unlearn.method: npo}}
    tuning:
      seed: 0
      tries:
        tpo: [{tpo.weight: 100.0}, {tpo.weight: 0.0}]
        npo: [{npo.weight: 3.0}, {npo.weight: 2.0}]
  other:
    world: toy
    seeds: [1]
    settings: {unlearn.method: npo}
    vary: {npo.weight: [0.125, 10.0]}
"""


class Repository:
    """A repository with bench/ and a pipeline, in which the study runs as a process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen:
        variables = os.environ | IDENTITY | {"RAN": str(self.folder / ".git/ran")} | environment
        return subprocess.Popen(
            [sys.executable, "bench/study/study.py", *arguments],
            cwd=self.folder, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def study(self, *arguments: str, status: int = 0) -> str:
        process = self.start(*arguments)
        output, errors = process.communicate(timeout=500)
        assert process.returncode == status, output + errors
        return output + errors

    def call(self, *command: str) -> str:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        environment = os.environ | IDENTITY | {"PATH": path, "RAN": str(self.folder / ".git/ran")}
        return subprocess.run(
            command, cwd=self.folder, env=environment, check=True, capture_output=True, text=True
        ).stdout

    def started(self) -> list[str]:
        """`method weight seed` of every unlearning that was started since the last call of `ran`."""
        path = self.folder / ".git/ran"
        return sorted(path.read_text().splitlines()) if path.exists() else []

    def ran(self) -> list[str]:
        """The same, once."""
        lines = self.started()
        (self.folder / ".git/ran").unlink(missing_ok=True)
        return lines

    def change(self, before: str, after: str) -> None:
        path = self.folder / "bench/study/grids.yaml"
        assert before in path.read_text()
        path.write_text(path.read_text().replace(before, after))

    def commit(self, message: str) -> None:
        self.call("git", "add", "-A")
        self.call("git", "commit", "-q", "-m", message)

    def table(self, name: str) -> pd.DataFrame:
        return pd.read_csv(self.folder / f"bench/results/{name}.csv")

    def experiments(self) -> set[str]:
        listed = self.call("git", "for-each-ref", "--format=%(refname)", "refs/exps")
        return {line.rpartition("/")[2] for line in listed.splitlines()}


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Repository:
    """A repository whose group `study` has been tuned and run."""
    folder = tmp_path_factory.mktemp("toy repository")
    (folder / "bench/study").mkdir(parents=True)
    for path in (ROOT / "bench/study").glob("*.py"):
        shutil.copyfile(path, folder / "bench/study" / path.name)
    contents = {"stage.py": STAGE, "dvc.yaml": PIPELINE, "params.yaml": PARAMS, "bench/study/grids.yaml": GRIDS}
    for name, text in {**contents, ".gitignore": "/build/\n/data/\n__pycache__/\n"}.items():
        (folder / name).write_text(text)
    made = Repository(folder)
    made.call("git", "init", "-q")
    made.call("dvc", "init", "-q")
    made.call("dvc", "repro", "-q")
    made.commit("toy")
    made.ran()
    made.tuned = made.study("tune")
    made.tries = made.ran()
    made.first = made.study("run")
    made.runs = made.ran()
    return made


@pytest.fixture
def toy(finished, tmp_path) -> Repository:
    """A copy of the finished repository that a test may change."""
    folder = tmp_path / "copy"
    shutil.copytree(finished.folder, folder, symlinks=True)
    return Repository(folder)


def test_every_try_is_run_once_and_the_rule_chooses(finished):
    """Retain probability is 1.04 and falls by weight / 9: weights 2 and 3 keep less than .95, and 2 keeps more."""
    assert finished.tries == ["npo 2.0 0", "npo 3.0 0", "tpo 0.0 0", "tpo 100.0 0"]
    table = finished.table("tuning")
    assert table["settings"].tolist() == ["tpo.weight=100.0", "tpo.weight=0.0", "npo.weight=3.0", "npo.weight=2.0"]
    assert table["chosen"].tolist() == [False, True, False, True]
    assert table["log10_fq"].isna().tolist() == [True, False, False, False]
    assert table["kept"].tolist()[1:] == pytest.approx([1, 1 - 3 / 9 / 1.04, 1 - 2 / 9 / 1.04])
    assert "(tpo.weight=100.0): the loss was not finite" in finished.tuned


def test_runs_are_experiments_of_this_repository(finished):
    assert finished.runs == ["npo 2.0 1", "npo 2.0 2", "tpo 0.0 1", "tpo 0.0 2"]
    assert finished.experiments() == {f"study-{name}-seed{seed}" for name in ("tpo", "npo") for seed in (1, 2)}
    assert not list((finished.folder / "build/study").glob("clone*"))
    assert not finished.call("git", "status", "--porcelain", "stage.py", "params.yaml", "dvc.yaml", "dvc.lock")


def test_tables_by_hand(finished):
    """npo: forget quality -20 - seed, utility .8; tpo: -seed and 1. On seeds 1, 2 the half width is 12.706 * .5."""
    table = finished.table("study")
    assert table["variant"].tolist() == ["target", "target", "retain", "retain", "tpo", "tpo", "npo", "npo"]
    assert table["forget_quality.log10_pvalue"].tolist() == [-81, -82, -1, -2, -1, -2, -21, -22]
    assert table["settings"].tolist()[6] == "unlearn.method=npo npo.weight=2.0"
    assert table["best.forget_quality.log10_pvalue"].tolist()[4:] == [-1.5] * 4
    assert table["seconds_per_step"].tolist()[4:] == [0.25] * 4
    assert table["agreement.f1"].tolist()[4:] == [0.5] * 4
    found = finished.table("study_table").set_index(["variant", "measure"])
    row = found.loc["npo", "forget_quality.log10_pvalue"]
    assert row[["mean", "low", "high"]].tolist() == pytest.approx([-21.5, -27.8531, -15.1469], abs=1e-3)
    assert row[["difference", "difference_low", "difference_high"]].tolist() == [-20, -20, -20]
    line = "| npo | 2 | -21.5 (-27.9 to -15.1) | -1.5 (-1.5 to -1.5) | 0.8 (0.8 to 0.8) | 0.1 (0.1 to 0.1) |"
    assert line in finished.first
    assert len(finished.table("study_trajectories")) == 8
    assert (finished.folder / "study.png").read_bytes().startswith(b"\x89PNG")


def test_dvc_shows_the_same_numbers(finished):
    table = finished.table("study").set_index("experiment")
    head, *rows = [line.split(",") for line in finished.call("dvc", "exp", "show", "--csv").splitlines()]
    shown = {row[head.index("Experiment")]: row for row in rows}
    for name in ("study-tpo-seed1", "study-npo-seed2"):
        for headline, column in (("forget_quality_log10", "forget_quality.log10_pvalue"), ("model_utility",) * 2):
            assert float(shown[name][head.index(f"unlearned.{headline}")]) == table.loc[name, column]
    changed = json.loads(finished.call("dvc", "metrics", "diff", "study-tpo-seed1", "study-npo-seed1", "--json"))
    quality = changed["metrics/metrics.json"]["unlearned.forget_quality_log10"]
    assert (quality["old"], quality["new"], quality["diff"]) == (-1, -21, -20)
    assert quality["new"] == table.loc["study-npo-seed1", "forget_quality.log10_pvalue"]


def test_finished_experiments_are_not_run_again(toy):
    before = (toy.folder / "bench/results/study.csv").read_bytes()
    assert "4 of 4 experiments are finished" in toy.study("run")
    assert toy.ran() == []
    assert (toy.folder / "bench/results/study.csv").read_bytes() == before
    figure = (toy.folder / "study.png").read_bytes()
    (toy.folder / "study.png").unlink()
    assert "| npo | 2 |" in toy.study("table")
    assert (toy.folder / "study.png").read_bytes() == figure
    assert "0 tries to run" in toy.study("tune")


def test_a_missing_experiment_comes_from_the_run_cache_with_its_costs(toy):
    name = next(
        line for line in toy.call("git", "for-each-ref", "--format=%(refname)").splitlines() if "tpo-seed2" in line
    )
    toy.call("git", "update-ref", "-d", name)
    before = (toy.folder / "bench/results/study.csv").read_bytes()
    assert "3 of 4 experiments are finished" in toy.study("run")
    assert toy.ran() == []
    assert (toy.folder / "bench/results/study.csv").read_bytes() == before
    shutil.rmtree(toy.folder / "build")
    toy.study("run")
    assert toy.table("study")["seconds_per_step"].isna().all()


def test_a_changed_setting_is_told_and_run_again(toy):
    toy.change("slow.seconds: 0.0", "npo.weight: 0.75")
    said = toy.study("run", "--only", "tpo")
    assert "study-tpo-seed1 was made with other parameters and is run again" in said
    assert set(toy.table("study")["variant"]) == {"target", "retain", "tpo", "npo"}
    assert len(toy.experiments()) == 4
    assert toy.ran() == []  # a setting of another method changes no stage


def test_a_new_commit_starts_anew_and_base_goes_back(toy):
    base = toy.call("git", "rev-parse", "HEAD").strip()
    toy.commit("results")
    assert "4 of 4 experiments are finished" in toy.study("run", "--base", base)
    assert "0 of 2 experiments are finished" in toy.study("run", "--only", "npo")
    assert toy.ran() == []  # what the commit did not change comes from the run cache
    assert set(toy.table("study")["commit"][-2:]) == {toy.call("git", "rev-parse", "HEAD")[:10]}


def test_a_failure_is_told_and_the_others_go_on(toy):
    said = toy.study("run", "other", status=1)
    assert "other-weight-10.0-seed1 FAILED: error: out of order (log: " in said
    assert said.splitlines()[-1].startswith("error: 1 runs failed")
    assert toy.table("study_other")["variant"].tolist() == ["target", "retain", "weight-0.125"]
    assert toy.ran() == ["npo 0.125 1", "npo 10.0 1"]


def test_an_unknown_setting_stops_before_anything_runs(toy):
    toy.change("{npo.weight: [0.125, 10.0]}", "{npo.wait: [1.0]}")
    assert "sets npo.wait, which params.yaml does not have; did you mean 'weight'?" in toy.study(
        "run", "other", status=1
    )
    toy.change("npo.wait: [1.0]", "npo.weight: ['{source}/x']")
    assert "need the option --source" in toy.study("run", "other", status=1)
    assert toy.ran() == []


@pytest.fixture
def interruptible():
    """A shell starts what runs in the background deaf to SIGINT, and every process that comes from it inherits that."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_an_interrupted_study_leaves_nothing_behind_and_goes_on(toy, interruptible, number):
    """Stopped while the second pair of four runs is in its long stage: the first pair is kept."""
    for line in toy.call("git", "for-each-ref", "--format=%(refname)", "refs/exps").splitlines():
        toy.call("git", "update-ref", "-d", line)
    shutil.rmtree(toy.folder / ".dvc/cache/runs")
    toy.change("slow.seconds: 0.0", "slow.seconds: 2.0")
    process = toy.start("run")
    wait(lambda: len(toy.started()) == 4 or process.poll() is not None)
    process.send_signal(number)
    output = process.communicate(timeout=60)
    assert process.returncode != 0, output
    wait(lambda: not processes_in(toy.folder))
    assert len(toy.experiments()) == 2
    assert not toy.call("git", "status", "--porcelain", "stage.py", "params.yaml", "dvc.yaml", "dvc.lock")
    toy.ran()

    before = toy.table("study").dropna(subset="experiment").set_index("experiment")["forget_quality.log10_pvalue"]
    assert set(before.index) == toy.experiments()  # the earlier rows of the two others have gone
    assert "2 of 4 experiments are finished" in toy.study("run")
    assert len(toy.ran()) == 2
    after = toy.table("study").dropna(subset="experiment").set_index("experiment")["forget_quality.log10_pvalue"]
    assert len(after) == 4
    assert after.loc[before.index].equals(before)


def wait(done, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end
        time.sleep(0.05)


def processes_in(folder: Path) -> list[str]:
    """Command lines of the processes whose working folder lies in `folder`."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if Path(os.readlink(entry / "cwd")).is_relative_to(folder):
                found.append((entry / "cmdline").read_text())
        except OSError:  # it has just ended, or belongs to someone else
            continue
    return found
