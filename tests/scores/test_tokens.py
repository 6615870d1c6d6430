"""The scoring pass against the full logits of the model, one example at a time."""

import numpy as np
import pytest
import torch

from tif.lm.batches import encode_pairs
from tif.scores import passes
from tif.scores import tokens as scoring
from tif.scores.tokens import Scores, score


@pytest.fixture(scope="module")
def examples(language_model, facts):
    """Answers of very different lengths, one of them empty."""
    pairs = [(f"forget/{i:04d}", question, answer * (i % 4)) for i, (question, answer) in enumerate(facts)]
    return encode_pairs(language_model, pairs)


@torch.no_grad()
def naive(model, example):
    """Full logits of one unpadded row."""
    logits = model(input_ids=example.ids[None]).logits[0].float()
    rows = []
    for position in range(example.start, len(example.ids)):
        row, label = logits[position - 1], int(example.ids[position])
        rows.append((float(row[label]), float(row.log_softmax(-1)[label]), int(row.argmax()) == label))
    return rows


def test_encode_pairs_keeps_keys_and_order(examples, facts):
    assert [example.sample_id for example in examples] == [f"forget/{i:04d}" for i in range(len(facts))]
    assert len(examples[0].ids) - examples[0].start == 2  # the space that leads an empty answer, and end of sequence


def test_equals_the_full_logits(language_model, examples):
    found = score(language_model, examples, progress=False)
    expected = [row for example in examples for row in naive(language_model.model, example)]
    np.testing.assert_allclose(found.logit, [row[0] for row in expected], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found.logprob, [row[1] for row in expected], rtol=1e-5, atol=1e-5)
    assert found.hit.tolist() == [row[2] for row in expected]
    assert found.bounds.tolist() == [0, *np.cumsum([len(e.offsets) for e in examples]).tolist()]
    assert (found.logit.dtype, found.logprob.dtype, found.hit.dtype) == (np.float32, np.float32, bool)


def test_greedy_answers_are_hits(language_model, examples):
    """An answer that the model itself continues with is right at every token, of rank 1; a changed token is not."""
    model, example = language_model.model, examples[1]
    prompt = example.ids[: example.start][None]
    with torch.no_grad():
        for _ in range(6):
            prompt = torch.cat([prompt, model(input_ids=prompt).logits[:, -1].argmax(-1, keepdim=True)], dim=1)
    own = type(example)("forget/0000", prompt[0], example.start, [(0, 0)] * 6)
    changed = prompt[0].clone()
    changed[-1] = (changed[-1] + 1) % model.config.vocab_size
    other = type(example)("forget/0001", changed, example.start, [(0, 0)] * 6)
    found = score(language_model, [own, other], progress=False, more=True)
    assert found.hit.tolist() == [True] * 11 + [False]
    assert (found.rank == 1).tolist() == found.hit.tolist()


@pytest.mark.parametrize("seed", range(3))
def test_order_does_not_matter(language_model, examples, seed):
    whole = score(language_model, examples, progress=False)
    order = np.random.default_rng(seed).permutation(len(examples))
    mixed = score(language_model, [examples[i] for i in order], progress=False)
    for index, i in enumerate(order):
        here, there = slice(*mixed.bounds[index : index + 2]), slice(*whole.bounds[i : i + 2])
        np.testing.assert_allclose(mixed.logprob[here], whole.logprob[there], rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(mixed.hit[here], whole.hit[there])


@pytest.mark.parametrize(("tokens", "logits"), [(1, 1), (70, 1000), (10**6, 640)])
def test_budgets_change_nothing(language_model, examples, monkeypatch, tokens, logits):
    """One row at a time, one token's logits at a time, and cuts in the middle of an answer."""
    whole = score(language_model, examples, progress=False)
    monkeypatch.setattr(passes, "TOKEN_BUDGET", tokens)
    monkeypatch.setattr(scoring, "SCORING_BUDGET", logits)
    cut = score(language_model, examples, progress=False)
    np.testing.assert_allclose(cut.logit, whole.logit, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(cut.logprob, whole.logprob, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(cut.hit, whole.hit)


@torch.no_grad()
def naive_more(model, example):
    """Rank, mean and variance of log p, from one softmax in float64 over each row of full logits."""
    logits = model(input_ids=example.ids[None]).logits[0].numpy()
    found = []
    for position in range(example.start, len(example.ids)):
        row = logits[position - 1]
        rank = 1 + sum(other > row[int(example.ids[position])] for other in row)
        exact = np.exp(row.astype(np.float64) - row.max())
        p = exact / exact.sum()
        mean = sum(q * np.log(q) for q in p)
        found.append((rank, mean, sum(q * (np.log(q) - mean) ** 2 for q in p)))
    return [np.array(column) for column in zip(*found)]


@pytest.mark.parametrize("logits", [2**25, 7 * 320])
def test_rank_mean_and_variance_of_log_p(language_model, examples, monkeypatch, logits):
    """Also where the rows of 7 tokens are computed at a time, so that answers are cut in the middle."""
    monkeypatch.setattr(scoring, "SCORING_BUDGET", logits)
    found = score(language_model, examples, progress=False, more=True)
    rank, mean, variance = (
        np.concatenate(parts) for parts in zip(*(naive_more(language_model.model, example) for example in examples))
    )
    assert found.rank.tolist() == rank.tolist()
    assert len(set(rank.tolist())) > 50
    np.testing.assert_allclose(found.mean, mean, rtol=1e-5)
    np.testing.assert_allclose(found.variance, variance, rtol=1e-4)
    assert variance.min() > 0.1, "the model is not certain of anything, so that a variance tells something"
    assert (found.rank.dtype, found.mean.dtype, found.variance.dtype) == (np.int64, np.float32, np.float32)


def test_rank_mean_and_variance_by_hand(tiny, examples):
    """Of a head of zeros each of 320 words is as likely: none is strictly greater, and log p is -ln 320 of any."""
    language_model = tiny(tie_word_embeddings=False)
    torch.nn.init.zeros_(language_model.model.lm_head.weight)
    found = score(language_model, examples[:2], progress=False, more=True)
    assert set(found.rank.tolist()) == {1}
    np.testing.assert_allclose(found.mean, -np.log(320), rtol=1e-6)
    np.testing.assert_allclose(found.variance, 0, atol=1e-9)


def test_more_changes_nothing_else(language_model, examples):
    plain = score(language_model, examples, progress=False)
    more = score(language_model, examples, progress=False, more=True)
    for name in ("bounds", "logit", "logprob", "hit"):
        np.testing.assert_array_equal(getattr(more, name), getattr(plain, name))
    assert plain.rank is plain.mean is plain.variance is None


@pytest.mark.parametrize("more", [False, True])
def test_nothing_to_score(language_model, more):
    found = score(language_model, [], progress=False, more=more)
    assert (len(found.logit), len(found.logprob), len(found.hit)) == (0, 0, 0)
    assert found.bounds.tolist() == [0]
    assert (found.hit.dtype, found.loss().tolist()) == (bool, [])


def test_loss_by_hand():
    """Answers of 2 and 1 tokens: (1 + 2) / 2 and 4."""
    three = np.array([-1, -2, -4], np.float32)
    found = Scores(np.array([0, 2, 3]), three, three, np.zeros(3, bool)).loss()
    assert found.tolist() == [1.5, 4.0]
    assert found.dtype == np.float64


def test_loss_is_the_models_own(language_model, examples):
    """transformers' loss with the prompt masked out is the same mean."""
    found = score(language_model, examples, progress=False).loss()
    for loss, example in zip(found, examples, strict=True):
        labels = example.ids.clone()
        labels[: example.start] = -100
        with torch.no_grad():
            expected = language_model.model(input_ids=example.ids[None], labels=labels[None]).loss
        assert loss == pytest.approx(float(expected), rel=1e-5)
