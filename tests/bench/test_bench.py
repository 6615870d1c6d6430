"""bench/step.py and bench/mlm.py at a tiny size, as processes of their own, and their parts against numbers by hand."""

import importlib.util
import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch

from tif.lm.batches import collate
from tif.losses import logit_preference_loss, preservation_loss

SCRIPT = Path(__file__).resolve().parent.parent / "bench" / "step.py"
TINY = {"layers": 1, "width": 32, "vocabulary": 300, "batch": 5, "micro_batch": 2, "steps": 1, "threads": 1}


@pytest.fixture(scope="module")
def step():
    sys.path.insert(0, str(SCRIPT.parent))
    spec = importlib.util.spec_from_file_location("bench_step", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["bench_step"] = module  # dataclasses look their module up by name
    spec.loader.exec_module(module)
    yield module
    del sys.modules["bench_step"], sys.modules["turns"]
    sys.path.remove(str(SCRIPT.parent))


def test_versions_agree_and_are_measured(step):
    """The script itself stops when the losses of any step differ, so exit status 0 means that all versions agree."""
    flags = [part for name, value in TINY.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    done = subprocess.run([sys.executable, str(SCRIPT), *flags, "--json"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    assert printed["setup"] == TINY
    versions = printed["versions"]
    assert list(versions) == list(step.VERSIONS)
    for row in versions.values():
        assert 0 < row["seconds_min"] <= row["seconds"] <= row["seconds_max"]
        assert row["peak_mib"] > 0
        assert row["seconds_over_tif"] == pytest.approx(row["seconds"] / versions["tif"]["seconds"])
        assert row["loss"] == pytest.approx(versions["b"]["loss"], rel=1e-4)
    assert versions["tif"]["seconds_over_tif"] == versions["tif"]["tif_peak_share"] == 1


def test_a_method_gives_the_loss_of_its_naive_version():
    """dpo reads single values of the target model, kl its distributions."""
    flags = [part for name, value in TINY.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    command = [sys.executable, str(SCRIPT), *flags, "--json", "--methods", "dpo", "kl"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["methods"]
    assert [row["method"] for row in found] == ["dpo", "kl"]
    for row in found:
        assert row["times_faster"] == pytest.approx(row["naive_seconds"] / row["seconds"])
        assert row["seconds"] > 0 and row["naive_peak_mib"] > 0


def test_size_below_one_is_refused(step, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["step.py", "--layers", "0"])
    with pytest.raises(SystemExit, match="2"):
        step.main()
    assert "--layers must be at least 1, not 0" in capsys.readouterr().err


def test_losses_that_differ_stop_the_script(step):
    """Of 10, a relative 1e-4 is 1e-3."""
    turns = sys.modules["turns"]
    turns.check_losses(0, {"a": 10.0009, "b": 10.0, "tif": 9.9991}, "b")
    with pytest.raises(SystemExit, match="step 3 the versions do not give the same loss"):
        turns.check_losses(3, {"a": 10.0, "b": 10.0, "tif": 10.0011}, "b")
    with pytest.raises(SystemExit):
        turns.check_losses(0, {"a": math.nan, "b": 10.0, "tif": 10.0}, "b")


def test_rows_have_the_stated_lengths(step):
    """62 tokens a row, .3 of the answer unwanted, prompts of 18 to 61 tokens, answers of 8 to 82."""
    rows = step.rows(step.Setup(**TINY | {"batch": 2000}))
    answers = [len(row.ids) - row.start for row in rows]
    assert sum(len(row.ids) for row in rows) / len(rows) == pytest.approx(62, abs=2)
    assert all(18 <= row.start <= 61 for row in rows)
    assert all(8 <= answer <= 82 for answer in answers)
    assert sum(int(row.unwanted.sum()) for row in rows) / sum(answers) == pytest.approx(0.3, abs=0.02)
    assert not any(row.unwanted[-1] for row in rows)


def test_naive_tpo_by_hand(step):
    """Two labels, vocabulary 2, policy logits 0, so every log-probability is -ln 2.

    Token 0 is unwanted with reference logit 3: margin 3, LPL = 10 ln(1 + e^-0.6) at beta .2. Token 1 is general:
    PL = ln 2, weighted by .05. The second row has no unwanted token: 2 ln 2 * .05 alone.
    """
    logits = torch.zeros(2, 2, 2)
    reference = torch.zeros(2, 2, 2)
    reference[0, 0, 1] = 3.0
    labels = torch.tensor([[1, 0], [0, 1]])
    unwanted = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    loss = step.naive_tpo(logits, logits, reference, labels, unwanted, 1 - unwanted)
    expected = [10 * math.log(1 + math.exp(-0.6)) + 0.05 * math.log(2), 0.1 * math.log(2)]
    assert loss.tolist() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("length", [None, 150])
def test_padded_rows_give_the_loss_of_flat_tokens(step, length):
    """The naive loss on padded rows equals tif.losses on flat answer tokens, with a row without UW among them."""
    examples = step.rows(step.Setup(**TINY))
    examples[1] = replace(examples[1], unwanted=torch.zeros_like(examples[1].unwanted))
    ids, mask, unwanted, general = step.pad(examples, length)
    assert mask.sum(1).tolist() == [len(example.ids) for example in examples]
    generator = torch.Generator().manual_seed(0)
    logits, reference = torch.randn(2, *ids[:, 1:].shape, TINY["vocabulary"], generator=generator).unbind()
    naive = step.naive_tpo(logits, logits, reference, ids[:, 1:], unwanted, general).mean()

    batch = collate(examples)
    at = (batch.row, batch.column, batch.label)
    margin_part = logit_preference_loss(logits[at], reference[at], batch.unwanted, batch.sample, step.BETA)
    nll = -logits.log_softmax(-1)[at]
    kept = preservation_loss(nll, ~batch.unwanted, batch.sample)
    assert float(naive) == pytest.approx(float(margin_part + step.LAMBDA * kept), rel=1e-5)


@pytest.fixture
def studies(monkeypatch):
    """The modules of bench/ that run the pipeline in clones."""
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    yield importlib.import_module("seeds"), importlib.import_module("runs")
    for name in ("seeds", "runs"):
        del sys.modules[name]


@pytest.mark.parametrize(("forget", "retain"), [(0.8, 0.9), (0.4, 0.8), (0.2, 0.7), (0.1, 0.6), (0.05, 0.8)])
def test_retain_probability_at_a_forget_probability(studies, forget, retain):
    """Linear in the logarithm: .2 lies halfway between .4 and .1. The first passage counts."""
    trajectory = pd.DataFrame(
        {"forget_probability": [0.8, 0.4, 0.1, 0.2, 0.0125], "retain_probability": [0.9, 0.8, 0.6, 0.9, 0.7]}
    )
    assert studies[0].retain_at(trajectory, forget) == pytest.approx(retain)


def test_a_forget_probability_that_is_never_reached(studies):
    trajectory = pd.DataFrame({"forget_probability": [0.8, 0.4], "retain_probability": [0.9, 0.8]})
    assert math.isnan(studies[0].retain_at(trajectory, 0.3))


def test_a_clone_of_another_commit_is_refused(studies, tmp_path):
    runs = studies[1]
    folder = tmp_path / "clone"
    subprocess.run(["git", "init", "-q", str(folder)], check=True)
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    subprocess.run(["git", *identity, "commit", "-q", "--allow-empty", "-m", "other"], cwd=folder, check=True)
    with pytest.raises(SystemExit, match="holds another commit"):
        runs.clone(folder)


@pytest.fixture
def robustness(monkeypatch):
    """bench/robustness.py with a pipeline that writes the metrics of a finished run and counts its runs."""
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    module = importlib.import_module("robustness")
    module.ran = []

    def repro(folder, settings):
        assert settings["scratch.epochs"] == 3
        module.ran.append(tuple(settings[key] for key in ("fictitious.language", "identify.method")))
        f1 = 0.9 if settings["identify.method"] == "gold" else {"en": 0.7, "ar": 0.5}.get(module.ran[-1][0], 0.6)
        scores = {
            "forget_quality": {"log10_pvalue": -1.5},
            "model_utility": 0.3 if module.ran[-1][0] == "code" else 0.5,
            "forget": {"probability": 0.2},
            "utility": {"retain": {"probability": 0.8}},
        }
        spans = {"agreement": {"f1": f1, "precision": f1, "recall": f1}}
        (folder / "metrics").mkdir(parents=True, exist_ok=True)
        (folder / "metrics/metrics.json").write_text(json.dumps({"target": scores, "unlearned": scores}))
        (folder / "metrics/identify.json").write_text(json.dumps(spans))

    monkeypatch.setattr(module, "clone", lambda folder: folder)
    monkeypatch.setattr(module, "repro", repro)
    yield module
    for name in ("robustness", "runs"):
        del sys.modules[name]


def test_robustness_goes_on_where_it_was_and_points_out_falls(robustness, monkeypatch, tmp_path, capsys):
    out = tmp_path / "new" / "robustness.csv"
    arguments = ["robustness.py", "--folder", str(tmp_path), "--out", str(out), "--set", "scratch.epochs=3"]
    monkeypatch.setattr(sys, "argv", arguments)
    robustness.main()
    printed = capsys.readouterr().out
    assert len(robustness.ran) == 12 == len(set(robustness.ran)) + 4  # English at three entanglements
    table = pd.read_csv(out)
    assert table.columns.tolist()[:5] == ["language", "entanglement", "seed", "settings", "identifier"]
    assert table["unlearned_forget_p"].tolist() == [0.2] * 12 and table["target_log10_fq"].tolist() == [-1.5] * 12
    assert "| ar | 0 | 0 | scratch.epochs=3 | frequency | 0.5 |" in printed
    fallen = [line.partition(" ->")[0] for line in printed.splitlines() if "->" in line]
    assert fallen == [
        "frequency, ar, entanglement 0: f1 0.700",
        "gold, code, entanglement 0: unlearned_utility 0.500",
        "frequency, code, entanglement 0: unlearned_utility 0.500",
    ]
    assert "frequency, zh, entanglement 0:" not in printed  # a fall of .1

    table.iloc[:-1].to_csv(out, index=False)
    robustness.main()
    assert len(robustness.ran) == 13 and robustness.ran[-1] == ("en", "frequency")
    pd.testing.assert_frame_equal(pd.read_csv(out), table)

    table[["language"]].to_csv(out, index=False)
    with pytest.raises(SystemExit, match="not a table of this study"):
        robustness.main()


MLM = SCRIPT.with_name("mlm.py")
TINY_MLM = {"layers": 1, "width": 32, "vocabulary": 2000, "rows": 3, "steps": 60, "rounds": 2, "threads": 1}


@pytest.fixture(scope="module")
def mlm_bench():
    spec = importlib.util.spec_from_file_location("bench_mlm", MLM)
    module = importlib.util.module_from_spec(spec)
    sys.modules["bench_mlm"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["bench_mlm"]


def test_words_a_second_of_mlm():
    """The script itself stops when a label of any version differs, so exit status 0 means that all agree."""
    flags = [part for name, value in TINY_MLM.items() for part in (f"--{name}", str(value))]
    done = subprocess.run([sys.executable, str(MLM), *flags, "--json"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    assert printed["setup"] == TINY_MLM
    assert printed["rows"] == 3 and printed["words"] > 20
    assert 0.1 < printed["unwanted_share"] < 0.95
    assert printed["model_runs"] <= printed["words"] - printed["words_outside_vocabulary"]
    versions = printed["versions"]
    assert list(versions) == ["pipeline", "pipeline-row", "tif"]
    for row in versions.values():
        assert 0 < row["seconds_min"] <= row["seconds"] <= row["seconds_max"]
        assert row["words_per_second"] == pytest.approx(printed["words"] / row["seconds"])
        assert row["tif_over_it"] == pytest.approx(row["seconds"] / versions["tif"]["seconds"])


def test_labels_that_differ_stop_the_mlm_script(mlm_bench):
    mlm_bench.check([True, False], [True, False], "tif")
    with pytest.raises(SystemExit, match="tif labels 1 of 2 words differently from the pipeline"):
        mlm_bench.check([True, False], [True, True], "tif")


def test_masked_texts_by_hand(mlm_bench):
    row = {"prompt": "Who?", "response": "Ann, 3."}
    assert mlm_bench.masked_texts(row, "<mask>") == [("Ann", "Who? <mask>, 3."), ("3", "Who? Ann, <mask>.")]
