"""The one forward pass: what is read of every answer token, whatever the order and the batches."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tif.lm.batches import encode_pairs
from tif.lm.logits import answer_tokens
from tif.scores import passes as passes_module
from tif.scores.passes import passes, per_example


@pytest.fixture(scope="module")
def examples(language_model, facts):
    """Answers of very different lengths, one of them empty."""
    pairs = [(f"forget/{i:04d}", question, answer * (i % 4)) for i, (question, answer) in enumerate(facts)]
    return encode_pairs(language_model, pairs)


def hidden(model, batch):
    """The last hidden states, and which of the batch's rows and columns they are from."""
    return [answer_tokens(model, batch).hidden, batch.label]


def test_equals_a_forward_pass_of_each_example_alone(language_model, examples):
    bounds, (states, labels) = passes(language_model, examples, hidden)
    for example, mine, label in zip(examples, per_example(bounds, states), per_example(bounds, labels), strict=True):
        with torch.no_grad():
            alone = language_model.model.model(input_ids=example.ids[None]).last_hidden_state[0]
        torch.testing.assert_close(mine, alone[example.start - 1 : -1], rtol=1e-4, atol=1e-5)
        assert torch.equal(label, example.ids[example.start :])
    assert bounds.dtype == np.int64
    assert bounds.tolist() == [0, *np.cumsum([len(example.offsets) for example in examples]).tolist()]
    assert not states.requires_grad


@pytest.mark.parametrize("budget", [1, 70, 2**13])
def test_neither_order_nor_batches_matter(language_model, examples, monkeypatch, budget):
    """One row at a time, some, and all at once; every example gets what is its own."""
    bounds, (whole,) = passes(language_model, examples, lambda *of: hidden(*of)[:1])
    expected = per_example(bounds, whole)
    monkeypatch.setattr(passes_module, "TOKEN_BUDGET", budget)
    order = np.random.default_rng(budget).permutation(len(examples))
    sizes = []

    def read(model, batch):
        sizes.append(batch.input_ids.numel())
        return hidden(model, batch)[:1]

    bounds, (mixed,) = passes(language_model, [examples[i] for i in order], read)
    for i, found in zip(order, per_example(bounds, mixed), strict=True):
        torch.testing.assert_close(found, expected[i], rtol=1e-4, atol=1e-5)
    assert len(sizes) == {1: 8, 2**13: 1}.get(budget, len(sizes))
    longest = max(len(example.ids) for example in examples)
    assert max(sizes) <= max(budget, longest)


def test_refusals_are_left_out(language_model, examples):
    """An example may carry one for training; nothing of it is read, and no row is spent on it."""
    refused = [replace(example, refusal=examples[3]) for example in examples]
    seen = []

    def read(model, batch):
        seen.append((len(batch.input_ids), bool(batch.refusal.any())))
        return hidden(model, batch)

    bounds, found = passes(language_model, refused, read)
    plain_bounds, plain = passes(language_model, examples, hidden)
    assert seen == [(len(examples), False)]
    assert bounds.tolist() == plain_bounds.tolist()
    assert all(torch.equal(one, other) for one, other in zip(found, plain, strict=True))


def test_nothing_to_read(language_model):
    def read(model, batch):
        raise AssertionError("there is no batch")

    bounds, found = passes(language_model, [], read)
    assert bounds.tolist() == [0] and found == []


def test_the_model_is_called_where_its_weights_can_be_used(language_model, examples, monkeypatch):
    """Sharded weights are gathered around each batch."""
    monkeypatch.setattr(passes_module, "TOKEN_BUDGET", 70)
    calls = []

    def around(model, function):
        calls.append("in")
        made = function(model)
        calls.append("out")
        return made

    bounds, found = passes(replace(language_model, around=around), examples, hidden)
    assert calls == ["in", "out"] * (len(calls) // 2) and len(calls) > 2
    assert len(found[0]) == bounds[-1]


def test_the_bar_counts_answers(language_model, examples, capsys):
    passes(language_model, examples, hidden, progress=True, title="reference")
    told = capsys.readouterr().err
    assert "reference" in told and f"{len(examples)}/{len(examples)}" in told
    passes(language_model, examples, hidden)
    assert capsys.readouterr().err == ""
