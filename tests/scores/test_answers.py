"""Which answers are scored after a question, and that their scores find their way back to samples."""

import numpy as np
import pytest
import torch

from tif.base.errors import UserError
from tif.scores.answers import answers_of, evenly, score_answers, with_wrong_answers
from tif.scores.truth_ratio import losses_of


@pytest.fixture(scope="module")
def mixed(table, facts):
    """Three samples: all kinds of answers, no paraphrase and one wrong answer, and neither."""
    return table(
        "forget",
        facts[:3],
        paraphrased_response=["Other words.", None, ""],
        perturbed_responses=[["No.", "Never."], ["Not so."], None],
    )


def test_all_kinds_in_order(mixed, facts):
    """Responses of all samples come first: later code takes the first n rows as theirs."""
    found = answers_of(mixed, ("response", "paraphrase", "wrong"))
    assert found.sample.tolist() == [0, 1, 2, 0, 0, 0, 1]
    assert found.name == ["response"] * 3 + ["paraphrase", "wrong/0", "wrong/1", "wrong/0"]
    (q0, a0), (q1, a1), (q2, a2) = facts[:3]
    assert found.triples == [
        ("forget/0000", q0, a0),
        ("forget/0001", q1, a1),
        ("forget/0002", q2, a2),
        ("forget/0000", q0, "Other words."),
        ("forget/0000", q0, "No."),
        ("forget/0000", q0, "Never."),
        ("forget/0001", q1, "Not so."),
    ]


@pytest.mark.parametrize(
    ("kinds", "names"),
    [
        (("response",), ["response"] * 3),
        (("wrong", "response"), ["response"] * 3 + ["wrong/0", "wrong/1", "wrong/0"]),
        (("paraphrase",), ["paraphrase"]),
        ((), []),
    ],
)
def test_chosen_kinds(mixed, kinds, names):
    assert answers_of(mixed, kinds).name == names


def test_samples_with_wrong_answers(mixed, table, facts):
    assert with_wrong_answers(mixed)["sample_id"].to_pylist() == ["forget/0000", "forget/0001"]
    with pytest.raises(UserError, match="no row with perturbed_responses, so no truth ratio; run the download stage"):
        with_wrong_answers(table("forget", facts[:2], perturbed_responses=[None, None]))
    with pytest.raises(UserError, match="forget/0001: perturbed_responses is empty"):
        with_wrong_answers(table("forget", facts[:3], perturbed_responses=[["x"], [], None]))


@pytest.mark.parametrize(
    ("limit", "kept"), [(None, range(8)), (8, range(8)), (9, range(8)), (1, [0]), (2, [0, 7]), (3, [0, 4, 7])]
)
def test_evenly(table, facts, limit, kept):
    """Of eight rows; 3: the places 0, 3.5 (to the even 4) and 7."""
    assert evenly(table("retain", facts), limit)["sample_id"].to_pylist() == [f"retain/{i:04d}" for i in kept]


def test_losses_are_those_of_the_models_own_loss(language_model, mixed):
    """Every answer's loss stands where its sample and its kind say."""
    answers = answers_of(mixed, ("response", "paraphrase", "wrong"))
    examples, scores = score_answers(language_model, answers, False, "scoring")
    expected = []
    for example in examples:
        labels = example.ids.clone()
        labels[: example.start] = -100
        with torch.no_grad():
            expected.append(float(language_model.model(input_ids=example.ids[None], labels=labels[None]).loss))
    found = losses_of(answers.sample, answers.name, scores.loss())
    nan = np.nan
    np.testing.assert_allclose(found.response, expected[:3], rtol=1e-5)
    np.testing.assert_allclose(found.correct, [expected[3], *expected[1:3]], rtol=1e-5)
    np.testing.assert_allclose(found.wrong, [expected[4:6], [expected[6], nan], [nan, nan]], rtol=1e-5)


def test_a_score_that_is_not_finite_names_the_sample(tiny, table, facts):
    """The words of one answer have embeddings that are not numbers, and none of them is in another answer."""
    language_model = tiny(tie_word_embeddings=False)
    answers = answers_of(table("forget", facts[:3], perturbed_responses=[["No."], ["作曲家"], ["No."]]), ("wrong",))
    ids = language_model.tokenizer("作曲家")["input_ids"]
    with torch.no_grad():
        language_model.model.model.embed_tokens.weight[ids] = torch.nan
    with pytest.raises(UserError, match=r"the model's score of forget/0001 is not finite; train with a lower learning"):
        score_answers(language_model, answers, False, "scoring")
