"""TPO's objective: the formula on the model's full logits, micro-batch shares, and what is logged."""

import math
from dataclasses import replace

import pytest
import torch

from tif.base.errors import UserError
from tif.base.params import validate
from tif.lm.batches import collate, encode_pairs, micro_batches
from tif.lm.logits import answer_tokens
from tif.methods import tpo


@pytest.fixture(scope="module")
def examples(language_model, facts):
    """Two forget samples with UW, one without, two of the retain set."""
    made = encode_pairs(language_model, [(f"s/{i}", *pair) for i, pair in enumerate(facts[:5])])
    generator = torch.Generator().manual_seed(5)
    forget = []
    for index, example in enumerate(made[:3]):
        size = len(example.offsets)
        unwanted = (torch.arange(size) % 3 == 1) if index else torch.zeros(size, dtype=torch.bool)
        reference = torch.randn(size, generator=generator)
        forget.append(replace(example, forget=True, unwanted=unwanted, reference_logit=reference))
    return [*forget, *made[3:]]


def naive(model, examples, beta, lam, retain):
    """The papers' formula, a sample at a time, from full rows of logits."""
    lpl, pl, drops, other = [], [], [], []
    for example in examples:
        logits = model(input_ids=example.ids[None]).logits[0, example.start - 1 : -1]
        label = example.ids[example.start :]
        z = logits.gather(1, label[:, None])[:, 0]
        nll = -logits.log_softmax(-1).gather(1, label[:, None])[:, 0]
        if not example.forget:
            other.extend(nll)
            continue
        if example.unwanted.any():
            drop = (example.reference_logit - z)[example.unwanted].mean()
            lpl.append(-2 / beta * torch.nn.functional.logsigmoid(beta * drop))
            drops.append(drop)
        pl.append(nll[~example.unwanted].sum())
    terms = {"lpl": sum(lpl) / len(pl), "pl": sum(pl) / len(pl), "retain_nll": sum(other) / max(len(other), 1)}
    return terms["lpl"] + lam * terms["pl"] + retain * terms["retain_nll"], terms


def naive_per_batch(model, examples, beta):
    """LPL as in the published code: the margins of a micro-batch are averaged before the log-sigmoid."""
    drops = []
    for example in examples:
        logits = model(input_ids=example.ids[None]).logits[0, example.start - 1 : -1]
        z = logits.gather(1, example.ids[example.start :, None])[:, 0]
        if example.unwanted.any():
            drops.append((example.reference_logit - z)[example.unwanted].mean())
    margin = sum(drops) / len(drops)
    return -2 / beta * torch.nn.functional.logsigmoid(beta * margin) * len(drops) / len(examples)


def gradient(model, loss):
    model.zero_grad()
    loss.backward()
    return torch.cat([parameter.grad.flatten() for parameter in model.parameters()])


@pytest.mark.parametrize(
    ("beta", "lam", "retain"), [(0.2, 0.05, 0.0), (0.5, 1.0, 0.0), (0.2, 0.0, 0.0), (0.3, 0.1, 2.0)]
)
def test_equals_the_formula(tiny, examples, beta, lam, retain):
    model = tiny().model
    part = examples if retain else examples[:3]
    batch = collate(part)
    loss, terms = tpo.objective(answer_tokens(model, batch), batch, tpo.Settings(beta=beta, lambda_=lam, retain=retain))
    expected, expected_terms = naive(model, part, beta, lam, retain)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    for name in ("lpl", "pl", *(["retain_nll"] if retain else [])):
        assert float(terms[name].detach()) == pytest.approx(float(expected_terms[name].detach()), rel=1e-5), name
    assert ("retain_nll" in terms) == (retain > 0)
    torch.testing.assert_close(gradient(model, loss), gradient(model, expected), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("beta", [0.2, 0.5])
def test_per_batch_equals_the_published_form(tiny, examples, beta):
    model, forget = tiny().model, examples[:3]
    batch = collate(forget)
    settings = tpo.Settings(beta=beta, lambda_=0.05, retain=0.0, per="batch")
    loss, terms = tpo.objective(answer_tokens(model, batch), batch, settings)
    pl = naive(model, forget, beta, 1.0, 0.0)[1]["pl"]
    expected = naive_per_batch(model, forget, beta) + 0.05 * pl
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    torch.testing.assert_close(gradient(model, loss), gradient(model, expected), rtol=1e-4, atol=1e-4)
    other = tpo.Settings(beta=beta, lambda_=0.05, retain=0.0)
    assert terms["lpl"].item() != pytest.approx(
        tpo.objective(answer_tokens(model, batch), batch, other)[1]["lpl"].item(), rel=1e-3
    )


def test_per_batch_depends_on_the_micro_batch_and_equals_the_other_form_at_one_row(tiny, examples):
    model, forget = tiny().model, examples[:3]

    def lpl(per, size):
        settings = tpo.Settings(beta=0.5, lambda_=0.0, retain=0.0, per=per)
        parts = [tpo.objective(answer_tokens(model, b), b, settings)[0].item() for b in micro_batches(forget, size)]
        return sum(parts)

    assert lpl("batch", 1) == pytest.approx(lpl("sample", 3), rel=1e-5)
    assert lpl("batch", 3) != pytest.approx(lpl("batch", 1), rel=1e-3)


def test_at_the_start(language_model, examples):
    """Reference = the model itself: margin 0, so every sample with UW gives 10 ln 2 at beta .2: 2/3 of it in mean."""
    own = answer_tokens(language_model.model, collate(examples[:3])).logit().detach()
    parts = torch.split(own, [len(example.offsets) for example in examples[:3]])
    batch = collate([replace(e, reference_logit=part) for e, part in zip(examples[:3], parts, strict=True)])
    settings = tpo.Settings(beta=0.2, lambda_=0.0, retain=0.0)
    loss, terms = tpo.objective(answer_tokens(language_model.model, batch), batch, settings)
    assert loss.item() == pytest.approx(10 * math.log(2) * 2 / 3, rel=1e-5)
    assert float(terms["logit_drop"].detach()) == pytest.approx(0, abs=1e-6)


def test_without_any_unwanted_token_only_pl_is_left(language_model, examples):
    batch = collate(examples[:1])
    settings = tpo.Settings(beta=0.2, lambda_=0.5, retain=0.0)
    loss, terms = tpo.objective(answer_tokens(language_model.model, batch), batch, settings)
    assert float(terms["lpl"].detach()) == 0
    assert loss.item() == pytest.approx(0.5 * float(terms["pl"].detach()), rel=1e-6)
    assert float(terms["pl"].detach()) > 0
    assert float(terms["logit_drop"].detach()) == 0


def test_a_micro_batch_of_retain_rows_alone(language_model, examples):
    """No forget row in this micro-batch: only the retain term, and nothing that is not finite."""
    batch = collate(examples[3:], sample_share=0.0, token_share=0.5)
    settings = tpo.Settings(beta=0.2, lambda_=0.5, retain=3.0)
    loss, terms = tpo.objective(answer_tokens(language_model.model, batch), batch, settings)
    assert loss.item() == pytest.approx(3 * float(terms["retain_nll"].detach()), rel=1e-6)
    assert all(math.isfinite(float(value.detach())) for value in terms.values())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"beta": 0, "lambda": 0.1, "retain": 0}, r"tpo\.beta = 0 is not allowed"),
        ({"beta": 0.2, "lambda": -0.1, "retain": 0}, r"tpo\.lambda = -0\.1 is not allowed"),
        ({"beta": 0.2, "lambda": 0.1, "retain": -1}, r"tpo\.retain = -1 is not allowed"),
        ({"beta": 0.2, "lambda": 0.1}, r"tpo\.retain is missing"),
        ({"beta": 0.2, "lambda": 0.1, "retain": 0, "gama": 1}, r"unknown key tpo\.gama"),
    ],
)
def test_settings(values, message):
    with pytest.raises(UserError, match=message):
        validate("tpo", values, tpo.Settings)
