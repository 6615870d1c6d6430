"""bench/speed at a tiny size, as processes of their own, and their parts against numbers by hand."""

import importlib.util
import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tif.lm.batches import collate
from tif.losses import logit_preference_loss, preservation_loss

SCRIPT = Path(__file__).resolve().parents[2] / "bench/speed/step.py"
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
    done = subprocess.run([sys.executable, str(SCRIPT), *flags, "--json"], capture_output=True, text=True, timeout=300)
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
    done = subprocess.run([sys.executable, str(MLM), *flags, "--json"], capture_output=True, text=True, timeout=300)
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
