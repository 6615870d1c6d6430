"""Unlearning: tables joined to marked tokens, tables that do not belong together, and a real tiny run."""

import numpy as np
import pyarrow as pa
import pytest
import torch

from tif.base import tables
from tif.base.errors import UserError
from tif.lm.batches import collate
from tif.lm.logits import answer_tokens
from tif.methods import tpo
from tif.reference import REFERENCE
from tif.reference.refusals import refusal
from tif.reference.table import reference_rows
from tif.scores.tokens import Scores
from tif.scores.truth_ratio import likelihoods
from tif.unlearning import TRAJECTORY
from tif.unlearning.run import Settings, forget_examples, scored_words, unlearn
from tif.unlearning.trajectory import logprob_drop, trajectory
from tif.words import SPANS, word_rows, words

TPO = tpo.Settings(beta=0.2, lambda_=0.05, retain=0.0)
STEP = {"micro_batch": 2, "weight_decay": 0.01, "warmup": 0.1, "max_grad_norm": 1.0, "seed": 0}


def settings(**changes):
    values = STEP | {"epochs": 3, "batch": 4, "lr": 1e-3, "method": "tpo", "trajectory_retain": 2}
    return Settings(**values | changes)


def towns(forget):
    """Spans of every word; the last word before the full stop, a town, is unwanted."""
    rows = []
    for sample_id, text in zip(forget["sample_id"].to_pylist(), forget["response"].to_pylist(), strict=True):
        found = words(text)
        unwanted = [text[a:b].strip(".") == text.split()[-1].strip(".") for a, b in found]
        rows += word_rows(sample_id, text, unwanted, [float(flag) for flag in unwanted])
    return pa.Table.from_pylist(rows, schema=SPANS)


@pytest.fixture(scope="module")
def spans(forget):
    return towns(forget)


@pytest.fixture(scope="module")
def reference(language_model, forget):
    return reference_rows(language_model, forget, progress=False)


@pytest.fixture(scope="module")
def examples(language_model, forget, spans, reference):
    return forget_examples(language_model, forget, spans, reference)


@torch.no_grad()
def test_reference_rows(language_model, forget, reference, tmp_path):
    """One row a token, keyed by its place in the whole row; its text, its logit and its log-probability."""
    rows = reference.to_pylist()
    found = 0
    columns = (forget[name].to_pylist() for name in ("sample_id", "prompt", "response"))
    answers = [(*row, "response") for row in zip(*columns)]
    answers += [(sample_id, question, refusal(sample_id), "refusal") for sample_id, question, _, _ in answers]
    for sample_id, question, answer, kind in answers:
        ids = language_model.tokenizer(f"Question: {question}\nAnswer: {answer}<|end|>")["input_ids"]
        logits = language_model.model(input_ids=torch.tensor([ids])).logits[0]
        mine = [row for row in rows if (row["sample_id"], row["answer"]) == (sample_id, kind)]
        found += len(mine)
        assert [row["position"] for row in mine] == list(range(len(ids) - len(mine), len(ids)))
        assert "".join(answer[row["start"] : row["end"]] for row in mine) == answer
        for row in mine:
            assert row["token_id"] == ids[row["position"]]
            scores = logits[row["position"] - 1]
            assert row["logit"] == pytest.approx(scores[row["token_id"]].item(), rel=1e-4, abs=1e-4)
            assert row["logprob"] == pytest.approx(scores.log_softmax(-1)[row["token_id"]].item(), rel=1e-4)
    assert found == len(rows)
    tables.write(tmp_path / "reference.parquet", reference, REFERENCE)
    assert len(tables.read(tmp_path / "reference.parquet", REFERENCE)) == len(rows)


def test_the_unwanted_tokens_spell_the_unwanted_word(examples, forget, reference, facts):
    """Joined per sample: the marked tokens are those of the town (`Arlen` or ` Arlen`), with their reference logits."""
    logits = reference["logit"].to_pylist()
    for example, (_, answer) in zip(examples, facts[:4], strict=True):
        marked = [offset for offset, flag in zip(example.offsets, example.unwanted.tolist(), strict=True) if flag]
        assert "".join(answer[a:b] for a, b in marked).strip(" .") == answer.split()[-1].strip(".")
        assert not example.unwanted[-1], "end of sequence is a general token"
        assert example.forget
        assert example.reference_logit.tolist() == pytest.approx(logits[: len(example.offsets)])
        logits = logits[len(example.offsets) :]
    assert [example.sample_id for example in examples] == forget["sample_id"].to_pylist()


def replaced(spans, **changes):
    row = spans.to_pylist()[0] | changes
    return pa.Table.from_pylist([row, *spans.to_pylist()[1:]], schema=SPANS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sample_id": "forget/9999"}, "forget/9999 is not a sample of the forget set"),
        ({"end": 1000}, r"\[0, 1000\) lies outside the answer of 27 characters"),
        ({"start": -1}, r"\[-1, \d+\) lies outside"),
        ({"start": 5, "end": 4}, r"\[5, 4\) lies outside"),
    ],
)
@pytest.mark.parametrize("unwanted", [True, False])
def test_spans_of_something_else(forget, spans, changes, message, unwanted):
    with pytest.raises(UserError, match=message):
        scored_words(forget, replaced(spans, unwanted=unwanted, **changes))


def test_a_missing_word(forget, spans):
    """Otherwise an incomplete table would count as general words."""
    first = forget["sample_id"][0].as_py()
    count = spans["sample_id"].to_pylist().count(first)
    with pytest.raises(UserError, match=r"data/spans\.parquet.*is not the next word of the answer"):
        scored_words(forget, spans.slice(count))
    with pytest.raises(UserError, match=r"the word \[\d+, \d+\) of .* has no row"):
        scored_words(forget, spans.slice(0, len(spans) - 1))


def test_an_empty_forget_set(language_model, forget, spans, reference):
    with pytest.raises(UserError, match="no rows: there is nothing to forget"):
        forget_examples(language_model, forget.slice(0, 0), spans, reference)


@pytest.mark.parametrize("column", ["sample_id", "position", "token_id"])
def test_a_reference_of_another_forget_set_or_tokenizer(language_model, forget, spans, reference, column):
    values = reference[column].to_pylist()
    values[3] = "forget/0009" if column == "sample_id" else values[3] + 1
    place = reference.column_names.index(column)
    other = reference.set_column(place, column, pa.array(values))
    with pytest.raises(UserError, match=f"column '{column}' does not match the forget set"):
        forget_examples(language_model, forget, spans, other)
    with pytest.raises(UserError, match="does not match the forget set"):
        forget_examples(language_model, forget, spans, reference.slice(0, 20))


def test_a_reference_of_another_model(tiny, forget, retain, spans, reference):
    """The same tokens, so that only the logits can tell; nothing has been trained when it is told."""
    shifted = reference.set_column(
        reference.column_names.index("logit"), "logit", pa.array(reference["logit"].to_numpy() + 0.5)
    )
    language_model = tiny()
    examples = forget_examples(language_model, forget, spans, shifted)
    before = language_model.model.lm_head.weight.clone()
    with pytest.raises(UserError, match=r"differ from data/reference\.parquet by 0\.500 on average"):
        unlearn(language_model, examples, forget, retain, shifted, tpo, TPO, settings(), "cpu", False)
    assert torch.equal(language_model.model.lm_head.weight, before)


def test_tables_without_wrong_answers(language_model, table, facts, spans, reference, examples, retain):
    none = table("forget", facts[:4], perturbed_responses=[None] * 4)
    some = table("forget", facts[:4], perturbed_responses=[["x"], None, ["y"], ["z"]])
    for forget, message in (
        (none, "no row with perturbed_responses"),
        (some, "1 of 4 rows have no perturbed_responses"),
    ):
        with pytest.raises(UserError, match=message):
            trajectory(language_model, examples, forget, retain, reference, 2, False)


def test_logprob_drop_by_hand():
    """Sample 0: tokens fall by 1 and 3, mean 2 (its third is GW); sample 1 has no UW; sample 2: a rise of 1."""
    now = np.array([-2, -5, -9, -1, -3], np.float32)
    before = np.array([-1, -2, -1, -1, -4], np.float32)
    scores = Scores(np.array([0, 3, 4, 5]), now, now, np.zeros(5, bool))
    drops = logprob_drop(scores, before, np.array([True, True, False, False, True]), 3)
    assert drops[0] == 2 and np.isnan(drops[1]) and drops[2] == -1
    more = Scores(np.array([0, 3, 4, 5, 7]), *[np.append(now, [0, 0])] * 2, np.zeros(7, bool))
    np.testing.assert_array_equal(logprob_drop(more, before, np.array([1, 1, 0, 0, 1], bool), 3), drops)


def run(tiny, memorised, forget, retain, spans, method_settings=TPO, **changes):
    """A fresh copy of the memorised model, unlearned: (model, examples, log, trajectory)."""
    language_model = tiny()
    language_model.model.load_state_dict(memorised)
    reference = reference_rows(language_model, forget, progress=False)
    examples = forget_examples(language_model, forget, spans, reference)
    chosen = settings(**changes)
    done = unlearn(language_model, examples, forget, retain, reference, tpo, method_settings, chosen, "cpu", False)
    return language_model, examples, done.log, done.trajectory


@torch.no_grad()
def kinds(language_model, examples):
    """Mean logit of UW tokens and mean NLL of GW tokens."""
    batch = collate(examples)
    tokens = answer_tokens(language_model.model, batch)
    return tokens.logit()[batch.unwanted].mean().item(), tokens.nll(~batch.unwanted)[~batch.unwanted].mean().item()


def test_unlearning_lowers_unwanted_tokens_and_keeps_general_ones(tiny, memorised, forget, retain, spans):
    before = tiny()
    before.model.load_state_dict(memorised)
    preserving = tpo.Settings(beta=0.2, lambda_=1.0, retain=0.0)
    after, examples, log, rows = run(tiny, memorised, forget, retain, spans, preserving, epochs=15, lr=3e-3)
    (logit_before, nll_before), (logit_after, nll_after) = kinds(before, examples), kinds(after, examples)
    assert logit_after < logit_before - 3
    assert nll_after < nll_before + 0.3
    assert log[-1]["logit_drop"] > 3 and log[0]["logit_drop"] == pytest.approx(0, abs=1e-4)
    # at margin 0 LPL is (2 / .2) ln 2
    assert log[0]["lpl"] == pytest.approx(10 * np.log(2), rel=1e-4)
    drop = {(row["epoch"], row["sample_id"]): row["value"] for row in rows if row["measure"] == "unwanted_logprob_drop"}
    assert all(drop[15, key] > 1 for key in forget["sample_id"].to_pylist())
    careless = tpo.Settings(beta=0.2, lambda_=0.0, retain=0.0)
    other, *_ = run(tiny, memorised, forget, retain, spans, careless, epochs=15, lr=3e-3)
    assert kinds(other, examples)[1] > nll_after + 0.3, "without PL the general tokens suffer"


def test_trajectory_rows(tiny, memorised, table, facts, retain, spans, tmp_path):
    """Epochs 0 to E; forget rows and two retain rows, the first and the last; the drop on forget rows with UW only."""
    forget = table("forget", facts[:4])
    first = pa.compute.equal(spans["sample_id"], "forget/0000")
    none = [flag and not is_first for flag, is_first in zip(spans["unwanted"].to_pylist(), first.to_pylist())]
    without = spans.set_column(spans.column_names.index("unwanted"), "unwanted", pa.array(none))
    _, _, log, rows = run(tiny, memorised, forget, retain, without)
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


def test_a_method_without_the_retain_rows_that_it_needs(tiny, memorised, forget, retain, spans):
    with_retain = tpo.Settings(beta=0.2, lambda_=0.05, retain=1.0)
    with pytest.raises(UserError, match=r"retain\.parquet has no rows, and unlearn\.method = 'tpo' trains with retain"):
        run(tiny, memorised, forget, retain.slice(0, 0), spans, with_retain)


def test_a_model_without_anything_to_train(tiny, forget, retain, spans, reference):
    language_model = tiny()
    language_model.model.requires_grad_(False)
    examples = forget_examples(language_model, forget, spans, reference)
    with pytest.raises(UserError, match="no weight that can be trained: all of them are frozen"):
        unlearn(language_model, examples, forget, retain, reference, tpo, TPO, settings(), "cpu", False)


def test_the_best_epoch_is_reported_and_kept(tiny, memorised, forget, retain, spans):
    """The same run twice: the best epoch's weights are those that a run of the last epoch's weights passed through."""
    worse = {"epochs": 4, "lr": 0.02, "warmup": 0.0}
    last, *_ = run(tiny, memorised, forget, retain, spans, **worse)
    language_model = tiny()
    language_model.model.load_state_dict(memorised)
    reference = reference_rows(language_model, forget, progress=False)
    examples = forget_examples(language_model, forget, spans, reference)
    chosen = settings(**worse, select="best")
    done = unlearn(language_model, examples, forget, retain, reference, tpo, TPO, chosen, "cpu", False)
    assert done.selection["selected"] == "best"
    best, final = done.selection["best"], done.selection["last"]
    assert best["epoch"] < final["epoch"] == 4
    assert best["score"] > final["score"]
    again = {
        (row["sample_id"], row["epoch"]): row["value"] for row in done.trajectory if row["measure"] == "probability"
    }
    keys = forget["sample_id"].to_pylist()
    found = likelihoods(language_model, forget, False, "").probability
    assert found.tolist() == pytest.approx([again[key, best["epoch"]] for key in keys], rel=1e-6)
    assert best["forget_probability"] == pytest.approx(found.mean(), rel=1e-5)
    assert not any(
        torch.equal(a, b) for a, b in zip(language_model.model.parameters(), last.model.parameters(), strict=True)
    )


def test_samples_without_unwanted_words_contribute_pl_alone(tiny, memorised, forget, retain, spans):
    nothing = spans.set_column(spans.column_names.index("unwanted"), "unwanted", pa.array([False] * len(spans)))
    _, _, log, rows = run(tiny, memorised, forget, retain, nothing)
    assert [row["lpl"] for row in log] == [0, 0, 0]
    assert all(row["loss"] == pytest.approx(0.05 * row["pl"], rel=1e-5) for row in log)
    assert {row["measure"] for row in rows} == {"truth_ratio", "probability"}


def test_two_runs_are_the_same_bit_for_bit(tiny, memorised, forget, retain, spans):
    with_retain = tpo.Settings(beta=0.2, lambda_=0.05, retain=1.0)
    (one, _, *first), (two, _, *second) = (run(tiny, memorised, forget, retain, spans, with_retain) for _ in range(2))
    assert first == second
    assert "retain_nll" in first[0][0]
    assert all(torch.equal(a, b) for a, b in zip(one.model.parameters(), two.model.parameters(), strict=True))


def test_a_learning_rate_that_is_far_too_large(tiny, memorised, forget, retain, spans):
    """Also when the step that breaks the weights is the last before the trajectory is measured."""
    for batch in (4, 1):
        with pytest.raises(UserError, match=r"not finite.*nothing was saved"):
            run(tiny, memorised, forget, retain, spans, lr=1e39, warmup=0.0, batch=batch)
