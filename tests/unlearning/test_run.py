"""A tiny model unlearned: what falls and what stays, the trajectory, the best epoch, and what must not be started."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch
from forgetting import TPO, data_of, settings, towns

from tif.base import tables
from tif.base.errors import UserError
from tif.lm.batches import Example, collate
from tif.lm.logits import answer_tokens
from tif.lm.models import LanguageModel
from tif.methods import tpo
from tif.scores.answers import answers_of, score_answers
from tif.scores.tokens import Scores
from tif.scores.truth_ratio import losses_of
from tif.training.loop import Run
from tif.unlearning import TRAJECTORY
from tif.unlearning.examples import Data, forget_examples
from tif.unlearning.run import Method, Unlearned, unlearn
from tif.unlearning.trajectory import logprob_drop, trajectory


@pytest.fixture(scope="module")
def spans(forget):
    return towns(forget)


@pytest.fixture(scope="module")
def data(language_model, forget, retain):
    return data_of(language_model, forget, retain)


def test_a_reference_of_another_model(tiny, forget, retain, spans, data):
    """The same tokens, so that only the logits can tell; nothing has been trained when it is told."""
    place = data.reference.column_names.index("logit")
    shifted = data.reference.set_column(place, "logit", pa.array(data.reference["logit"].to_numpy() + 0.5))
    language_model = tiny()
    wrong = Data(forget_examples(language_model, forget, spans, shifted), forget, retain, shifted)
    before = language_model.model.lm_head.weight.clone()
    with pytest.raises(UserError, match=r"differ from data/reference\.parquet by 0\.500 on average"):
        unlearn(language_model, wrong, Method(tpo, TPO), settings(), Run())
    assert torch.equal(language_model.model.lm_head.weight, before)


def test_tables_without_wrong_answers(language_model, table, facts, data):
    none = table("forget", facts[:4], perturbed_responses=[None] * 4)
    some = table("forget", facts[:4], perturbed_responses=[["x"], None, ["y"], ["z"]])
    for forget, message in (
        (none, "no row with perturbed_responses"),
        (some, "1 of 4 rows have no perturbed_responses"),
    ):
        with pytest.raises(UserError, match=message):
            trajectory(language_model, replace(data, forget=forget), 2, False)


def test_logprob_drop_by_hand():
    """Sample 0: tokens fall by 1 and 3, mean 2 (its third is GW); sample 1 has no UW; sample 2: a rise of 1."""
    now = np.array([-2, -5, -9, -1, -3], np.float32)
    before = np.array([-1, -2, -1, -1, -4], np.float32)
    scores = Scores(np.array([0, 3, 4, 5]), now, now, np.zeros(5, bool))
    drops = logprob_drop(scores, before, np.array([True, True, False, False, True]), 3)
    assert drops[0] == 2 and np.isnan(drops[1]) and drops[2] == -1
    more = Scores(np.array([0, 3, 4, 5, 7]), *[np.append(now, [0, 0])] * 2, np.zeros(7, bool))
    np.testing.assert_array_equal(logprob_drop(more, before, np.array([1, 1, 0, 0, 1], bool), 3), drops)


@pytest.fixture
def run(tiny, memorised, forget, retain, spans):
    """Unlearn a fresh copy of the memorised model: (model, examples, what unlearning left)."""

    def run(spans=spans, retain=retain, method=TPO, **changes) -> tuple[LanguageModel, list[Example], Unlearned]:
        language_model = tiny()
        language_model.model.load_state_dict(memorised)
        data = data_of(language_model, forget, retain, spans)
        done = unlearn(language_model, data, Method(tpo, method), settings(**changes), Run())
        return language_model, data.examples, done

    return run


@torch.no_grad()
def kinds(language_model, examples):
    """Mean logit of UW tokens and mean NLL of GW tokens."""
    batch = collate(examples)
    tokens = answer_tokens(language_model.model, batch)
    return tokens.logit()[batch.unwanted].mean().item(), tokens.nll(~batch.unwanted)[~batch.unwanted].mean().item()


def test_unlearning_lowers_unwanted_tokens_and_keeps_general_ones(run, tiny, memorised, forget):
    before = tiny()
    before.model.load_state_dict(memorised)
    preserving = tpo.Settings(beta=0.2, lambda_=1.0, retain=0.0)
    after, examples, done = run(method=preserving, epochs=15, lr=3e-3)
    log, rows = done.log, done.trajectory
    (logit_before, nll_before), (logit_after, nll_after) = kinds(before, examples), kinds(after, examples)
    assert logit_after < logit_before - 3
    assert nll_after < nll_before + 0.3
    assert log[-1]["logit_drop"] > 3 and log[0]["logit_drop"] == pytest.approx(0, abs=1e-4)
    # at margin 0 LPL is (2 / .2) ln 2
    assert log[0]["lpl"] == pytest.approx(10 * np.log(2), rel=1e-4)
    drop = {(row["epoch"], row["sample_id"]): row["value"] for row in rows if row["measure"] == "unwanted_logprob_drop"}
    assert all(drop[15, key] > 1 for key in forget["sample_id"].to_pylist())
    careless = tpo.Settings(beta=0.2, lambda_=0.0, retain=0.0)
    other, *_ = run(method=careless, epochs=15, lr=3e-3)
    assert kinds(other, examples)[1] > nll_after + 0.3, "without PL the general tokens suffer"


def test_trajectory_rows(run, forget, spans, tmp_path):
    """Epochs 0 to E; forget rows and two retain rows, the first and the last; the drop on forget rows with UW only."""
    first = pa.compute.equal(spans["sample_id"], "forget/0000")
    none = [flag and not is_first for flag, is_first in zip(spans["unwanted"].to_pylist(), first.to_pylist())]
    without = spans.set_column(spans.column_names.index("unwanted"), "unwanted", pa.array(none))
    _, _, done = run(spans=without)
    log, rows = done.log, done.trajectory
    keys = [*forget["sample_id"].to_pylist(), "retain/0000", "retain/0003"]
    expected = {(e, key, m) for e in range(4) for key in keys for m in ("truth_ratio", "probability")}
    expected |= {(e, key, "unwanted_logprob_drop") for e in range(4) for key in keys[1:4]}
    assert len(rows) == len(expected)
    assert {(row["epoch"], row["sample_id"], row["measure"]) for row in rows} == expected
    zero = [row["value"] for row in rows if row["epoch"] == 0 and row["measure"] == "unwanted_logprob_drop"]
    assert zero == pytest.approx([0, 0, 0], abs=1e-4)
    assert all(0 < row["value"] <= 1 for row in rows if row["measure"] == "probability")
    assert len(log) == 3 and list(log[0]) == ["step", "loss", "lpl", "pl", "logit_drop", "general_nll"]
    tables.write(tmp_path / "trajectory.parquet", rows, TRAJECTORY)
    assert len(tables.read(tmp_path / "trajectory.parquet", TRAJECTORY)) == len(rows)


def test_a_method_without_the_retain_rows_that_it_needs(run, retain):
    with_retain = tpo.Settings(beta=0.2, lambda_=0.05, retain=1.0)
    with pytest.raises(UserError, match=r"retain\.parquet has no rows, and unlearn\.method = 'tpo' trains with retain"):
        run(retain=retain.slice(0, 0), method=with_retain)


def test_a_model_without_anything_to_train(tiny, data):
    language_model = tiny()
    language_model.model.requires_grad_(False)
    with pytest.raises(UserError, match="no weight that can be trained: all of them are frozen"):
        unlearn(language_model, data, Method(tpo, TPO), settings(), Run())


def test_the_best_epoch_is_reported_and_kept(run, forget):
    """The same run twice: the best epoch's weights are those that a run of the last epoch's weights passed through."""
    worse = {"epochs": 4, "lr": 0.02, "warmup": 0.0}
    last, *_ = run(**worse)
    language_model, _, done = run(**worse, select="best")
    assert done.selection["selected"] == "best"
    best, final = done.selection["best"], done.selection["last"]
    assert best["epoch"] < final["epoch"] == 4
    assert best["score"] > final["score"]
    again = {
        (row["sample_id"], row["epoch"]): row["value"] for row in done.trajectory if row["measure"] == "probability"
    }
    keys = forget["sample_id"].to_pylist()
    answers = answers_of(forget, ("response",))
    scores = score_answers(language_model, answers, False, "")[1]
    found = losses_of(answers.sample, answers.name, scores.loss()).probability
    assert found.tolist() == pytest.approx([again[key, best["epoch"]] for key in keys], rel=1e-6)
    assert best["forget_probability"] == pytest.approx(found.mean(), rel=1e-5)
    assert not any(
        torch.equal(a, b) for a, b in zip(language_model.model.parameters(), last.model.parameters(), strict=True)
    )


def test_samples_without_unwanted_words_contribute_pl_alone(run, spans):
    nothing = spans.set_column(spans.column_names.index("unwanted"), "unwanted", pa.array([False] * len(spans)))
    _, _, done = run(spans=nothing)
    log, rows = done.log, done.trajectory
    assert [row["lpl"] for row in log] == [0, 0, 0]
    assert all(row["loss"] == pytest.approx(0.05 * row["pl"], rel=1e-5) for row in log)
    assert {row["measure"] for row in rows} == {"truth_ratio", "probability"}


def test_two_runs_are_the_same_bit_for_bit(run):
    with_retain = tpo.Settings(beta=0.2, lambda_=0.05, retain=1.0)
    (one, _, first), (two, _, second) = (run(method=with_retain) for _ in range(2))
    assert first == second
    assert "retain_nll" in first.log[0]
    assert all(torch.equal(a, b) for a, b in zip(one.model.parameters(), two.model.parameters(), strict=True))


@pytest.mark.parametrize("batch", [4, 1])
def test_a_learning_rate_that_is_far_too_large(run, batch):
    """Also when the step that breaks the weights is the last before the trajectory is measured."""
    with pytest.raises(UserError, match=r"not finite.*nothing was saved"):
        run(lr=1e39, warmup=0.0, batch=batch)


def test_refusals_are_dropped_where_the_method_does_not_need_them(run, monkeypatch):
    """Or every sample would take two rows of a micro-batch."""
    seen, objective = set(), tpo.objective

    def noted(tokens, batch, **options):
        seen.add((bool(batch.refusal.any()), len(batch.input_ids)))
        return objective(tokens, batch, **options)

    monkeypatch.setattr(tpo, "objective", noted)
    run(epochs=1)
    assert seen == {(False, 2)}
