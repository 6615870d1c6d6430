"""The study on the real pipeline at a tiny size: two methods, two seeds, killed on the way."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest

GRIDS = """
common: {compute.threads: 1}
worlds:
  tiny: {settings: {}, seeded: [fictitious.seed, scratch.seed, unlearn.seed]}
groups:
  study:
    world: tiny
    seeds: [1, 2]
    compare: tpo
    figure: docs/study.png
    variants: {tpo: {unlearn.method: tpo}, npo: {unlearn.method: npo}}
    tuning:
      seed: 0
      tries:
        tpo: [{tpo.beta: 0.1}, {tpo.beta: 0.3}]
        npo: [{npo.beta: 0.1, npo.retain: 5.0}, {npo.beta: 1.0e-5, unlearn.lr: 1.0e-5}]
  identifiers:
    world: tiny
    seeds: [1]
    settings: {unlearn.method: tpo, fictitious.people: 8}
    variants:
      distilled: {identify.method: distilled, distilled.annotation: "{annotation}"}
      surprisal: {identify.method: surprisal, identify.source: data/models/retain}
"""


HEADLINES = {
    "forget_quality_log10": "forget_quality.log10_pvalue",
    "forget_probability": "forget.probability",
    "retain_probability": "utility.retain.probability",
}
"""Names of numbers in metrics.json and in the study's table."""


@pytest.fixture(scope="module")
def studied(clone_type, tmp_path_factory):
    """A clone of its own with two steps an epoch, tuned and run; the run is killed while two methods unlearn."""
    made = clone_type(tmp_path_factory.mktemp("studied"))
    made.change(**{"unlearn.batch": 6})
    (made.folder / "bench/study/grids.yaml").write_text(GRIDS)
    made.commit("tiny study")
    study(made, "tune", "study")
    kill_while_unlearning(made)
    made.continued = study(made, "run", "study")
    return made


def kill_while_unlearning(clone) -> None:
    environment = os.environ | {"PYTHONPATH": str(clone.folder / "src")}
    process = subprocess.Popen([sys.executable, "bench/study/study.py", "run"], cwd=clone.folder, env=environment)
    logs, end = clone.folder / "build/study/logs", time.monotonic() + 900
    try:
        while not any("Running stage 'unlearn'" in path.read_text() for path in logs.glob("study-npo*.log")):
            assert process.poll() is None and time.monotonic() < end
            time.sleep(0.1)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def study(clone, *arguments: str) -> str:
    done = clone.run(sys.executable, "bench/study/study.py", *arguments, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_runs_differ_by_seed_and_are_those_of_dvc(studied):
    assert "of 4 experiments are finished" in studied.continued and "4 of 4 exp" not in studied.continued
    table = pd.read_csv(studied.folder / "bench/results/study.csv").set_index("experiment", drop=False)
    names = [f"study-{method}-seed{seed}" for method in ("tpo", "npo") for seed in (1, 2)]
    assert table["experiment"].dropna().tolist() == names
    runs = table.loc[names]
    assert runs["forget.probability"].nunique() == 4
    assert (runs["seconds_per_step"] > 0).all() and (runs["peak_mib"] > 100).all()

    shown = pd.read_csv(io.StringIO(studied.run("dvc", "exp", "show", "--csv").stdout)).set_index("Experiment")
    for name in names:
        for headline, column in HEADLINES.items():
            assert shown.loc[name, f"unlearned.{headline}"] == runs.loc[name, column]
        assert shown.loc[name, "fictitious.seed"] == int(name[-1])
    diff = json.loads(studied.run("dvc", "metrics", "diff", names[0], names[2], "--json").stdout)
    found = diff["metrics/metrics.json"]["unlearned.forget_probability"]
    assert (found["old"], found["new"]) == (
        runs.loc[names[0], "forget.probability"],
        runs.loc[names[2], "forget.probability"],
    )


def test_an_experiment_is_what_the_same_settings_make_in_the_workspace(studied):
    """Stages of a study run the committed code in folders of their own; what they make is what `dvc repro` makes."""
    settings = {"fictitious.seed": 1, "scratch.seed": 1, "unlearn.seed": 1}
    chosen = pd.read_csv(studied.folder / "bench/results/tuning.csv").query("chosen and variant == 'npo'")["settings"]
    own = dict(part.split("=") for part in chosen.iloc[0].split())
    studied.change(**settings, **{"unlearn.method": "npo"}, **{key: float(value) for key, value in own.items()})
    shutil.rmtree(studied.folder / ".dvc/cache/runs")
    executed, restored = studied.repro()
    assert "unlearn" in executed and not restored
    made = json.loads((studied.folder / "metrics/details.json").read_text())["unlearned"]
    table = pd.read_csv(studied.folder / "bench/results/study.csv").set_index("experiment")
    assert made["forget"]["probability"] == table.loc["study-npo-seed1", "forget.probability"]
    studied.run("git", "checkout", "-q", "--", "params.yaml", "metrics")


def test_identifiers_that_need_files(studied):
    """`distilled` learns from rows that the study labels, `surprisal` reads the retain model."""
    said = study(studied, "run", "identifiers")
    assert "2 of 2" in said
    table = pd.read_csv(studied.folder / "bench/results/study_identifiers.csv")
    assert table["identifier"].dropna().tolist() == ["distilled", "surprisal"]
    assert table["agreement.f1"].dropna().between(0, 1).sum() == 2
    assert str(studied.folder) not in table.to_csv()
