"""Answer tokens against the model's own logits, whole and in chunks."""

from dataclasses import replace

import pytest
import torch
from transformers import GPTJConfig, GPTJForCausalLM

from tif.base.errors import UserError
from tif.lm import logits as logits_module
from tif.lm.batches import collate, encode
from tif.lm.logits import answer_tokens


@pytest.fixture(scope="module")
def batch(tokenizer, plain, facts):
    return collate([encode(tokenizer, plain, question, question, answer) for question, answer in facts[:3]])


def biased(tokenizer):
    """GPT-J: untied head with a bias."""
    torch.manual_seed(0)
    size = {"vocab_size": len(tokenizer), "n_embd": 32, "n_layer": 2, "n_head": 2, "rotary_dim": 8, "n_positions": 256}
    model = GPTJForCausalLM(GPTJConfig(**size, initializer_range=0.2, bos_token_id=0, eos_token_id=0)).eval()
    torch.nn.init.normal_(model.lm_head.bias)
    return model


@pytest.mark.parametrize("kind", ["tied", "untied", "bias", "bfloat16"])
@torch.no_grad()
def test_answer_tokens_equal_the_models_logits(tiny, tokenizer, batch, kind):
    """Two of the three places where a token's score comes from: one dot product, and rows of chosen tokens only."""
    model = biased(tokenizer) if kind == "bias" else tiny(tie_word_embeddings=kind != "untied").model
    if kind == "bfloat16":
        model = model.to(torch.bfloat16)
    rows = model(input_ids=batch.input_ids).logits[batch.row, batch.column].float()
    true = rows.gather(1, batch.label[:, None])[:, 0]
    nll = torch.nn.functional.cross_entropy(rows, batch.label, reduction="none")
    tokens = answer_tokens(model, batch)
    tolerance = {"rtol": 0.02, "atol": 0.05} if kind == "bfloat16" else {"rtol": 1e-5, "atol": 1e-5}
    torch.testing.assert_close(tokens.logit(), true, **tolerance)
    where = torch.arange(len(true)) % 3 != 1
    torch.testing.assert_close(tokens.nll(where), torch.where(where, nll, 0), **tolerance)
    assert tokens.logit().dtype == tokens.nll(where).dtype == torch.float32


@pytest.mark.parametrize("kind", ["tied", "untied", "bias"])
def test_gradients_equal_those_of_the_models_logits(tiny, tokenizer, batch, kind):
    model = biased(tokenizer) if kind == "bias" else tiny(tie_word_embeddings=kind != "untied").model
    where = torch.arange(len(batch.label)) % 2 == 0

    tokens = answer_tokens(model, batch)
    found = gradients(model, tokens.logit()[~where].sum() + tokens.nll(where).sum())
    rows = model(input_ids=batch.input_ids).logits[batch.row, batch.column]
    log_likelihood = rows.log_softmax(-1).gather(1, batch.label[:, None])[:, 0]
    true = rows.gather(1, batch.label[:, None])[:, 0]
    expected = gradients(model, true[~where].sum() - log_likelihood[where].sum())
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-3)


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return torch.cat([parameter.grad.flatten().float() for parameter in model.parameters()])


@pytest.mark.parametrize("tokens_at_a_time", [0.5, 1, 7, 1000])
@pytest.mark.parametrize("kind", ["tied", "untied", "bias", "bfloat16"])
def test_nll_in_chunks(tiny, tokenizer, batch, monkeypatch, kind, tokens_at_a_time):
    """Values and gradients of the head in chunks, of one token at least, are those of all tokens at once."""
    model = biased(tokenizer) if kind == "bias" else tiny(tie_word_embeddings=kind != "untied").model
    if kind == "bfloat16":
        model = model.to(torch.bfloat16)
    where = torch.arange(len(batch.label)) % 3 != 1
    weight = torch.linspace(-1, 2, len(where))
    found = []
    for budget in (logits_module.LOGIT_BUDGET, int(tokens_at_a_time * len(tokenizer))):
        monkeypatch.setattr(logits_module, "LOGIT_BUDGET", budget)
        nll = answer_tokens(model, batch).nll(where)
        found.append((nll.detach(), gradients(model, (weight * nll).sum())))
    tolerance = {"rtol": 0.02, "atol": 0.05} if kind == "bfloat16" else {"rtol": 1e-5, "atol": 1e-4}
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(other, one, **tolerance)
    assert found[0][1].abs().max() > 1


def row_loss(logits, label, *reference):
    """A loss that reads whole rows: their spread, the true logit and, where there is one, the target model's rows."""
    value = logits.softmax(-1).square().sum(-1) * logits.gather(-1, label[:, None])[:, 0]
    return value + sum((logits - known).tanh().mean(-1) for known in reference)


@pytest.mark.parametrize("with_reference", [False, True])
@pytest.mark.parametrize("kind", ["tied", "untied", "bias"])
def test_per_token_equals_the_loss_of_full_rows(tiny, tokenizer, batch, monkeypatch, kind, with_reference):
    model = biased(tokenizer) if kind == "bias" else tiny(tie_word_embeddings=kind != "untied").model
    other = biased(tokenizer) if kind == "bias" else tiny(seed=1).model
    where = torch.arange(len(batch.label)) % 4 != 2
    with torch.no_grad():
        reference_hidden = answer_tokens(other, batch).hidden if with_reference else None
        known = [other(input_ids=batch.input_ids).logits[batch.row, batch.column]] * with_reference
    rows = model(input_ids=batch.input_ids).logits[batch.row, batch.column]
    expected = torch.where(where, row_loss(rows, batch.label, *known), 0)
    expected, slope = expected.detach(), gradients(model, expected.sum())
    for budget in (logits_module.LOGIT_BUDGET, 3 * len(tokenizer), 1):
        monkeypatch.setattr(logits_module, "LOGIT_BUDGET", budget)
        tokens = replace(answer_tokens(model, batch), reference_head=other.get_output_embeddings())
        found = tokens.per_token(row_loss, where, reference_hidden)
        torch.testing.assert_close(found.detach(), expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(gradients(model, found.sum()), slope, rtol=1e-4, atol=1e-4)
        assert other.get_output_embeddings().weight.grad is None


def test_rows_at_a_time_are_bounded_and_computed_again_in_the_backward_pass(tiny, tokenizer, batch, monkeypatch):
    model, seen = tiny().model, []
    monkeypatch.setattr(logits_module, "LOGIT_BUDGET", 5 * len(tokenizer) + 1)

    def loss(logits, label):
        seen.append(logits.shape)
        return logits.logsumexp(-1)

    where = torch.ones(len(batch.label), dtype=torch.bool)
    value = answer_tokens(model, batch).per_token(loss, where).sum()
    chunks = -(-len(where) // 5)
    assert len(seen) == chunks and max(seen) == (5, len(tokenizer)) and sum(n for n, _ in seen) == len(where)
    value.backward()
    assert len(seen) == 2 * chunks and max(seen) == (5, len(tokenizer))


def test_chunks_of_nothing(tiny, batch, monkeypatch):
    """No token chosen: zeros that a backward pass can still start from, as a micro-batch without its kind needs."""
    model = tiny().model
    nothing = torch.zeros(len(batch.label), dtype=torch.bool)
    for budget in (logits_module.LOGIT_BUDGET, 1):
        monkeypatch.setattr(logits_module, "LOGIT_BUDGET", budget)
        for kind in ("nll", "per_token"):
            tokens = replace(answer_tokens(model, batch), reference_head=model.get_output_embeddings())
            value = tokens.nll(nothing) if kind == "nll" else tokens.per_token(row_loss, nothing, tokens.hidden)
            assert not value.any()
            assert not gradients(model, value.sum()).any()


@torch.no_grad()
def test_layers_and_own_positions(language_model, batch):
    """`layer` counts decoder layers, the last is the default; `own` is one position further than what predicts it."""
    states = language_model.model(input_ids=batch.input_ids, output_hidden_states=True).hidden_states
    for layer in (0, 1, 2):
        found = answer_tokens(language_model.model, batch, layer)
        torch.testing.assert_close(found.hidden, states[layer][batch.row, batch.column])
    last = answer_tokens(language_model.model, batch, own=True)
    torch.testing.assert_close(last.hidden, states[2][batch.row, batch.column])
    torch.testing.assert_close(last.own, states[2][batch.row, batch.column + 1])
    assert found.own is None
    with pytest.raises(UserError, match=r"layer = 3 of the method's block: the model has layers 1 to 2 only"):
        answer_tokens(language_model.model, batch, 3)
