"""Measures of one model, recomputed by hand from its own scores and answers on a tiny set."""

import math

import numpy as np
import pytest
import torch

from tif.base import tables
from tif.base.errors import UserError
from tif.evaluation import EVALUATION
from tif.evaluation.evaluate import SETS, Settings, evaluate
from tif.evaluation.generation import generate
from tif.finetune.scratch import token_mean
from tif.lm.batches import encode_pairs
from tif.metrics import all as metrics
from tif.scores.tokens import Scores, score
from tif.scores.truth_ratio import Likelihoods, likelihoods, scored_rows
from tif.training.loop import Optimisation, train

SETTINGS = Settings(retain_rows=2, new_tokens=6, batch=3)


@pytest.fixture(scope="module")
def sets(table, facts):
    """Forget rows with 1, 3 and 2 wrong answers; utility rows without a paraphrase."""
    wrong = [["In Bay."], ["One.", "Two words.", "Three words here."], ["A.", "Bo."]]
    plain = {"paraphrased_response": [None, None]}
    return {
        "forget": table("forget", facts[:3], perturbed_responses=wrong),
        "retain": table("retain", facts[3:8]),
        "real_authors": table("real_authors", facts[:2], **plain),
        "world_facts": table("world_facts", [("Capital?", "Brunov."), ("River?", "The Lind.")], **plain),
    }


@pytest.fixture(scope="module")
def rows(language_model, sets):
    return evaluate(language_model, sets, SETTINGS, progress=False)


@pytest.fixture(scope="module")
def value(rows):
    return {(row["sample_id"], row["measure"]): row["value"] for row in rows}


def loss(language_model, question, answer):
    """Mean NLL of one answer, scored alone."""
    return score(language_model, encode_pairs(language_model, [("x", question, answer)]), progress=False).loss()[0]


def scored(sets):
    """(name, row) of every sample that is evaluated: of five retain rows the first and the last."""
    retain = sets["retain"].to_pylist()
    chosen = {name: table.to_pylist() for name, table in sets.items()} | {"retain": [retain[0], retain[-1]]}
    return [(name, row) for name in SETS for row in chosen[name]]


def test_which_rows_there_are(rows, sets, tmp_path):
    measures = {"probability", "truth_ratio", "extraction_strength", "exact_memorization", "rouge"}
    expected = {
        (row["sample_id"], measure)
        for name, row in scored(sets)
        for measure in measures | ({"normalized_probability"} if name in ("real_authors", "world_facts") else set())
    }
    assert len(rows) == len(expected)
    assert {(row["sample_id"], row["measure"]) for row in rows} == expected
    assert all((row["text"] is not None) == (row["measure"] == "rouge") for row in rows)
    tables.write(tmp_path / "target.parquet", rows, EVALUATION)
    assert tables.read(tmp_path / "target.parquet", EVALUATION).to_pylist() == rows


def test_likelihood_measures_equal_answers_scored_alone(language_model, sets, value):
    """TR = exp(loss(paraphrase or answer) - mean loss(wrong)), with as many wrong answers as the row has."""
    for name, row in scored(sets):
        question, key = row["prompt"], row["sample_id"]
        own = loss(language_model, question, row["response"])
        correct = loss(language_model, question, row["paraphrased_response"] or row["response"])
        wrong = [loss(language_model, question, text) for text in row["perturbed_responses"]]
        assert value[key, "probability"] == pytest.approx(math.exp(-own), rel=1e-4)
        assert value[key, "truth_ratio"] == pytest.approx(math.exp(correct - sum(wrong) / len(wrong)), rel=1e-4)
        if name in ("real_authors", "world_facts"):
            share = math.exp(-own) / (math.exp(-own) + sum(math.exp(-one) for one in wrong))
            assert value[key, "normalized_probability"] == pytest.approx(share, rel=1e-4)


def test_memorisation_and_rouge_equal_those_of_each_sample_alone(language_model, sets, rows, value):
    texts = {row["sample_id"]: row["text"] for row in rows if row["measure"] == "rouge"}
    for _, row in scored(sets):
        key = row["sample_id"]
        pair = encode_pairs(language_model, [(key, row["prompt"], row["response"])])
        hits = score(language_model, pair, progress=False).hit
        assert value[key, "exact_memorization"] == pytest.approx(hits.mean())
        assert value[key, "extraction_strength"] == metrics.extraction_strength(hits)
        assert texts[key] == generate(language_model, [row["prompt"]], 6, 1, progress=False)[0]
        assert value[key, "rouge"] == metrics.rouge_recall(row["response"], texts[key])


def test_a_model_that_knows_the_answers(tiny, facts, sets):
    """Trained on the answers by heart: every measure of memorisation is at its end, and TR is far below 1."""
    language_model = tiny(initializer_range=0.02)
    learning = Optimisation(
        epochs=100, batch=8, micro_batch=8, lr=0.01, weight_decay=0.0, warmup=0.1, max_grad_norm=1.0, seed=0
    )
    pairs = [(question, question, answer) for question, answer in facts]
    train(language_model, encode_pairs(language_model, pairs), token_mean, learning, "cpu", False)
    found = evaluate(language_model, sets, SETTINGS.model_copy(update={"new_tokens": 40}), progress=False)
    known = [row for row in found if row["sample_id"].startswith(("forget", "retain"))]
    for measure, least in (("probability", 0.8), ("exact_memorization", 1), ("extraction_strength", 0.9), ("rouge", 1)):
        assert min(row["value"] for row in known if row["measure"] == measure) >= least, measure
    for row in known:
        if row["measure"] == "rouge":
            assert row["text"] in dict(facts).values()


def test_settings_change_only_what_they_say(language_model, sets, rows):
    """Batches of answers and of rows are for speed; more tokens give longer texts and the same likelihoods."""
    again = evaluate(language_model, sets, SETTINGS.model_copy(update={"batch": 1}), progress=False)
    assert [row["text"] for row in again] == [row["text"] for row in rows]
    assert [row["value"] for row in again] == pytest.approx([row["value"] for row in rows], rel=1e-5)
    longer = evaluate(language_model, sets, SETTINGS.model_copy(update={"new_tokens": 12}), progress=False)
    for a, b in zip(rows, longer, strict=True):
        assert a["measure"] == "rouge" or a == b


def test_likelihoods_by_hand():
    """Losses 0 and ln 2: probabilities 1 and 1/2. TR: exp(1 - (1 + 3)/2) = 1/e, and exp(2 - 2) = 1 with one wrong."""
    scores = Scores(np.array([0, 1, 2]), np.zeros(2), np.zeros(2), np.zeros(2, bool))
    wrong = np.array([[1.0, 3.0], [2.0, np.nan]])
    found = Likelihoods(scores, np.array([0, math.log(2)]), np.array([1.0, 2.0]), wrong)
    assert found.probability.tolist() == pytest.approx([1, 0.5])
    assert found.truth_ratio.tolist() == pytest.approx([1 / math.e, 1])


def test_likelihoods_place_unequal_numbers_of_wrong_answers(language_model, sets):
    wrong = likelihoods(language_model, sets["forget"], False, "scoring").wrong
    assert np.isnan(wrong).tolist() == [[False, True, True], [False, False, False], [False, False, True]]
    row = sets["forget"].to_pylist()[1]
    expected = [loss(language_model, row["prompt"], text) for text in row["perturbed_responses"]]
    assert wrong[1].tolist() == pytest.approx(expected, rel=1e-4)


def test_scored_rows(table, facts):
    """Rows without wrong answers are left out; a limit takes evenly spaced ones: of 0 to 6 the 0, 3 and 6."""
    given = [None, *[["x"]] * 7]
    whole = table("retain", facts, perturbed_responses=given)
    indices = [key[-1] for key in scored_rows(whole)["sample_id"].to_pylist()]
    assert indices == list("1234567")
    assert [key[-1] for key in scored_rows(whole, 3)["sample_id"].to_pylist()] == list("147")
    assert scored_rows(whole, 7).equals(scored_rows(whole)) and scored_rows(whole, 100).equals(scored_rows(whole))
    assert len(scored_rows(whole, 1)) == 1


def test_no_wrong_answers_at_all(language_model, sets, table, facts):
    bare = table("forget", facts, perturbed_responses=[None] * 8)
    with pytest.raises(UserError, match="no row with perturbed_responses, so no truth ratio; run the download stage"):
        evaluate(language_model, sets | {"forget": bare}, SETTINGS, progress=False)


def test_a_model_whose_scores_are_not_finite(tiny, sets):
    language_model = tiny()
    with torch.no_grad():
        language_model.model.lm_head.weight[:] = torch.nan
    with pytest.raises(UserError, match=r"score of forget/0+\d* is not finite"):
        likelihoods(language_model, sets["forget"], False, "scoring")


def test_an_empty_list_of_wrong_answers(table, facts):
    whole = table("forget", facts, perturbed_responses=[["x"], [], *[["x"]] * 6])
    with pytest.raises(UserError, match="1: perturbed_responses is empty; the truth ratio needs a wrong answer"):
        scored_rows(whole)


@pytest.mark.parametrize("key", ["retain_rows", "new_tokens", "batch"])
def test_settings_out_of_range(key):
    with pytest.raises(ValueError, match=key):
        Settings.model_validate(SETTINGS.model_dump() | {key: 0})
