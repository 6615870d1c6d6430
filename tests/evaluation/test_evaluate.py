"""Tokens and texts of one model, recomputed one answer at a time, and the measures that follow from them."""

import math
from itertools import pairwise

import pytest
import torch
from hand_evaluated import write_card

from tif.base import tables
from tif.base.errors import UserError
from tif.benchmarks import SAMPLES, place, questions, unseen
from tif.evaluation import TEXTS, TOKENS, Settings
from tif.evaluation.evaluate import evaluate, evaluated
from tif.evaluation.generation import generate
from tif.lm.batches import encode_pairs
from tif.lm.models import LanguageModel
from tif.metrics import MODELS, extraction_strength, rouge_recall
from tif.metrics.measure import measure
from tif.scores.tokens import score

SETTINGS = Settings(retain_rows=2, new_tokens=6, batch=3)
ABOUT = {
    "forget": questions("forget", "Forget set"),
    "retain": questions("retain", "Retain set"),
    "holdout": unseen("Holdout set"),
    "towns": questions("utility", "Towns"),
    "rivers": questions("utility", "Rivers"),
}


@pytest.fixture(scope="module")
def sets(table, facts):
    """Forget rows with 1, 3 and 2 wrong answers; utility rows without a paraphrase, of retain only some; a holdout."""
    wrong = [["In Bay."], ["One.", "Two words.", "Three words here."], ["A.", "Bo."]]
    plain = {"paraphrased_response": [None, None]}
    some = {"paraphrased_response": ["In other words.", None, "Else.", "Or else.", None]}
    found = {
        "forget": table("forget", facts[:3], perturbed_responses=wrong),
        "retain": table("retain", facts[3:8], **some),
        "holdout": table("holdout", [("Who?", f"Stranger {n}.") for n in range(3)], perturbed_responses=[None] * 3),
        "towns": table("towns", facts[:2], **plain),
        "rivers": table("rivers", [("Capital?", "Brunov."), ("River?", "The Lind.")], **plain),
    }
    return {name: (ABOUT[name], rows) for name, rows in found.items()}


@pytest.fixture(scope="module")
def done(language_model, sets):
    return evaluate(language_model, sets, SETTINGS, progress=False)


def chosen(sets) -> dict[str, list[dict]]:
    """The samples that are evaluated: of five retain and of three holdout rows the first and the last."""
    rows = {name: table.to_pylist() for name, (_, table) in sets.items()}
    return {name: [some[0], some[-1]] if name in ("retain", "holdout") else some for name, some in rows.items()}


def answers(name: str, row: dict) -> dict[str, str]:
    """What is scored after a sample's question."""
    found = {"response": row["response"]}
    if name != "holdout":
        if row["paraphrased_response"]:
            found["paraphrase"] = row["paraphrased_response"]
        found |= {f"wrong/{number}": text for number, text in enumerate(row["perturbed_responses"])}
    return found


def by_answer(tokens) -> dict[tuple[str, str], list[dict]]:
    found: dict[tuple[str, str], list[dict]] = {}
    for row in tokens.to_pylist():
        found.setdefault((row["sample_id"], row["answer"]), []).append(row)
    return found


@torch.no_grad()
def test_tokens_equal_a_forward_pass_over_each_answer_alone(language_model, sets, done):
    """All of them, and no others: key, place in the sample and in the answer, and what the model says there."""
    found = by_answer(done.tokens)
    expected = {
        (row["sample_id"], key): (row["prompt"], text)
        for name, rows in chosen(sets).items()
        for row in rows
        for key, text in answers(name, row).items()
    }
    assert found.keys() == expected.keys() and len(expected) == 12 + 7 + 2 + 6 + 6
    assert sum(map(len, found.values())) == len(done.tokens)
    for key, (prompt, text) in expected.items():
        (example,) = encode_pairs(language_model, [("x", prompt, text)])
        logprob = language_model.model(input_ids=example.ids[None]).logits[0, example.start - 1 : -1].log_softmax(-1)
        rows, ids = found[key], example.ids[example.start :]
        assert [row["position"] for row in rows] == list(range(example.start, len(example.ids)))
        assert [row["token_id"] for row in rows] == ids.tolist()
        assert [(row["start"], row["end"]) for row in rows] == example.offsets
        assert [row["is_end"] for row in rows] == [False] * (len(rows) - 1) + [True]
        assert (rows[-1]["token_id"], rows[-1]["start"]) == (language_model.tokenizer.eos_token_id, len(text))
        assert "".join(text[row["start"] : row["end"]] for row in rows) == text
        own = logprob.gather(1, ids[:, None])[:, 0].tolist()
        assert [row["logprob"] for row in rows] == pytest.approx(own, rel=1e-4)
        assert [row["hit"] for row in rows] == (logprob.argmax(-1) == ids).tolist()


def test_answers_stand_whole_and_in_the_order_of_the_samples(sets, done):
    """Set after set; in each all responses, then all paraphrases, then the wrong answers of each sample."""
    order = [
        (row["sample_id"], key)
        for name, rows in chosen(sets).items()
        for kind in ("response", "paraphrase", "wrong")
        for row in rows
        for key in answers(name, row)
        if key.startswith(kind)
    ]
    assert list(by_answer(done.tokens)) == order
    keys = [(row["sample_id"], row["answer"]) for row in done.tokens.to_pylist()]
    assert sum(a != b for a, b in pairwise(keys)) == len(order) - 1


def test_texts_are_the_greedy_answers_to_the_questions_of_all_sets_but_the_holdout(language_model, sets, done):
    rows = [row for name, rows in chosen(sets).items() if name != "holdout" for row in rows]
    assert done.texts.to_pylist() == [
        {"sample_id": row["sample_id"], "text": generate(language_model, [row["prompt"]], 6, 1, progress=False)[0]}
        for row in rows
    ]


def test_the_tables_survive_parquet(done, tmp_path):
    for name, table, schema in (("tokens", done.tokens, TOKENS), ("texts", done.texts, TEXTS)):
        tables.write(tmp_path / f"{name}.parquet", table, schema)
        back = tables.read(tmp_path / f"{name}.parquet", schema)
        assert back.schema.types == schema.types and back.to_pylist() == table.to_pylist()


def test_settings_change_only_what_they_say(language_model, sets, done):
    """Batches of questions are for speed; more tokens give longer texts and the same scores; a limit takes rows."""
    again = evaluate(language_model, sets, SETTINGS.model_copy(update={"batch": 1}), progress=False)
    assert again.texts.equals(done.texts) and again.tokens.equals(done.tokens)
    longer = evaluate(
        language_model, sets, SETTINGS.model_copy(update={"new_tokens": 12, "retain_rows": 9}), progress=False
    )
    assert by_answer(longer.tokens).items() > by_answer(done.tokens).items()
    ids = {row["sample_id"] for row in longer.tokens.to_pylist()}
    assert {f"retain/000{n}" for n in range(5)} | {f"holdout/000{n}" for n in range(3)} < ids
    text = {row["sample_id"]: row["text"] for row in longer.texts.to_pylist()}
    assert all(text[row["sample_id"]].startswith(row["text"]) for row in done.texts.to_pylist())
    assert sum(map(len, text.values())) > 1.5 * sum(len(row["text"]) for row in done.texts.to_pylist())


def test_a_set_alone_gives_the_same_tokens(language_model, sets, done):
    alone = evaluate(language_model, {"rivers": sets["rivers"]}, SETTINGS, progress=False)
    assert by_answer(alone.tokens) == {k: v for k, v in by_answer(done.tokens).items() if k[0].startswith("rivers/")}
    nothing = evaluate(language_model, {}, SETTINGS, progress=False)
    assert (nothing.tokens.schema, len(nothing.tokens), len(nothing.texts)) == (TOKENS, 0, 0)


@pytest.fixture(scope="module")
def value(done, sets, tmp_path_factory):
    """(sample_id, measure) -> what is measured of this evaluation."""
    root = tmp_path_factory.mktemp("measured")
    for name, (about, table) in sets.items():
        tables.write(place(root / "data/benchmark", name, about.role), table, SAMPLES)
    write_card(root, ABOUT)
    for model in MODELS:
        tables.write(root / f"data/evaluation/{model}/tokens.parquet", done.tokens, TOKENS)
        tables.write(root / f"data/evaluation/{model}/texts.parquet", done.texts, TEXTS)
    found = measure(root / "data/benchmark", root / "data/evaluation")
    return {
        (sample_id, key): value
        for name, columns in found.values["target"].items()
        for key, values in columns.items()
        for sample_id, value in zip(found.sample_ids[name], values, strict=True)
    }


def test_which_measures_there_are(sets, value):
    measures = {"probability", "truth_ratio", "extraction_strength", "exact_memorization", "rouge"}
    more = {"towns": {"normalized_probability"}, "rivers": {"normalized_probability"}}
    assert value.keys() == {
        (row["sample_id"], key)
        for name, rows in chosen(sets).items()
        for row in rows
        for key in ({"probability"} if name == "holdout" else measures | more.get(name, set()))
    }


def loss(language_model: LanguageModel, question: str, answer: str) -> float:
    """Mean NLL of one answer, scored alone."""
    return score(language_model, encode_pairs(language_model, [("x", question, answer)]), progress=False).loss()[0]


def test_likelihood_measures_equal_answers_scored_alone(language_model, sets, value):
    """TR = exp(loss(paraphrase or answer) - mean loss(wrong)), with as many wrong answers as the row has."""
    for name, rows in chosen(sets).items():
        for row in rows:
            question, key = row["prompt"], row["sample_id"]
            own = loss(language_model, question, row["response"])
            assert value[key, "probability"] == pytest.approx(math.exp(-own), rel=1e-4)
            if name == "holdout":
                continue
            correct = loss(language_model, question, row["paraphrased_response"] or row["response"])
            wrong = [loss(language_model, question, text) for text in row["perturbed_responses"]]
            assert value[key, "truth_ratio"] == pytest.approx(math.exp(correct - sum(wrong) / len(wrong)), rel=1e-4)
            if name in ("towns", "rivers"):
                share = math.exp(-own) / (math.exp(-own) + sum(math.exp(-one) for one in wrong))
                assert value[key, "normalized_probability"] == pytest.approx(share, rel=1e-4)


def test_memorisation_and_rouge_equal_those_of_each_sample_alone(language_model, sets, done, value):
    text = {row["sample_id"]: row["text"] for row in done.texts.to_pylist()}
    for row in (row for name, rows in chosen(sets).items() if name != "holdout" for row in rows):
        key = row["sample_id"]
        pair = encode_pairs(language_model, [(key, row["prompt"], row["response"])])
        hits = score(language_model, pair, progress=False).hit
        assert value[key, "exact_memorization"] == pytest.approx(hits.mean())
        assert value[key, "extraction_strength"] == extraction_strength(hits)
        assert value[key, "rouge"] == rouge_recall(row["response"], text[key])


def test_a_model_that_knows_the_answers(tiny, memorised, facts, sets):
    """It knows them by heart: all their tokens are likely and the first choice, and it writes them down."""
    language_model = tiny()
    language_model.model.load_state_dict(memorised)
    known = {name: sets[name] for name in ("forget", "retain")}
    found = evaluate(language_model, known, SETTINGS.model_copy(update={"new_tokens": 40}), progress=False)
    for (_, name), rows in by_answer(found.tokens).items():
        if name == "response":
            assert all(row["hit"] for row in rows)
            assert sum(row["logprob"] for row in rows) / len(rows) > math.log(0.8)
        if name.startswith("wrong"):
            assert not all(row["hit"] for row in rows)
    assert {row["text"] for row in found.texts.to_pylist()} == {dict(facts)[facts[n][0]] for n in (0, 1, 2, 3, 7)}


def test_which_samples_are_evaluated(table, facts):
    """Rows without wrong answers are left out; a limit takes evenly spaced ones: of 0 to 6 the 0, 3 and 6."""
    whole = table("retain", facts, perturbed_responses=[None, *[["x"]] * 7])

    def kept(about, limit):
        rows = evaluated(about, whole, SETTINGS.model_copy(update={"retain_rows": limit}))
        return "".join(key[-1] for key in rows["sample_id"].to_pylist())

    assert kept(ABOUT["retain"], 3) == "147"
    assert kept(ABOUT["retain"], 7) == kept(ABOUT["retain"], 100) == "1234567"
    assert len(kept(ABOUT["retain"], 1)) == 1
    assert kept(ABOUT["forget"], 1) == kept(ABOUT["towns"], 1) == "1234567"  # the limit is not for them
    assert kept(ABOUT["holdout"], 8) == "01234567"  # whose wrong answers nobody scores
    assert kept(ABOUT["holdout"], 2) == "07"


def test_no_wrong_answers_at_all(language_model, sets, table, facts):
    bare = table("forget", facts, perturbed_responses=[None] * 8)
    with pytest.raises(UserError, match="no row with perturbed_responses, so no truth ratio; run the download stage"):
        evaluate(language_model, sets | {"forget": (ABOUT["forget"], bare)}, SETTINGS, progress=False)
    with pytest.raises(UserError, match="the holdout set has no sample to evaluate; run the download stage"):
        evaluate(language_model, {"holdout": (ABOUT["holdout"], bare.slice(0, 0))}, SETTINGS, progress=False)


def test_a_model_whose_scores_are_not_finite(tiny, sets):
    language_model = tiny()
    with torch.no_grad():
        language_model.model.lm_head.weight[:] = torch.nan
    with pytest.raises(UserError, match=r"score of forget/0+\d* is not finite"):
        evaluate(language_model, {"forget": sets["forget"]}, SETTINGS, progress=False)


def test_an_empty_list_of_wrong_answers(table, facts):
    whole = table("forget", facts, perturbed_responses=[["x"], [], *[["x"]] * 6])
    with pytest.raises(UserError, match="1: perturbed_responses is empty; the truth ratio needs a wrong answer"):
        evaluated(ABOUT["forget"], whole, SETTINGS)


@pytest.mark.parametrize("key", ["retain_rows", "new_tokens", "batch"])
def test_settings_out_of_range(key):
    with pytest.raises(ValueError, match=key):
        Settings.model_validate(SETTINGS.model_dump() | {key: 0})
