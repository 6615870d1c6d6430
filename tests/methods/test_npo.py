"""NPO and SimNPO: the formulas with every kind of weight and retain term, and points set by hand."""

import math

import pytest
import torch
from support import average, by_hand, check, nlls, retain_kl, retain_nll, token_weights

from tif.methods import npo, simnpo

VARIANTS = [
    ("uniform", 0, 0),
    ("spans", 0, 0),
    ("scores", 0, 0),
    ("uniform", 0.7, 0),
    ("spans", 0, 0.5),
    ("scores", 1, 1),
]


def saturating(margins, beta):
    """Mean over samples; None for one without weight."""
    logsigmoid = torch.nn.functional.logsigmoid
    return average(torch.zeros(()) if m is None else -2 / beta * logsigmoid(beta * m) for m in margins)


@pytest.mark.parametrize("beta", [0.05, 0.4])
@pytest.mark.parametrize(("weights", "retain", "kl"), VARIANTS)
def test_npo_equals_the_formula(world, beta, weights, retain, kl):
    def margin(example):
        w = token_weights(example, weights)
        now, before = nlls(world.model, example), nlls(world.target.model, example)
        return sum(a * (b - c.detach()) for a, b, c in zip(w, now, before, strict=True)) if any(w) else None

    def naive(forget, others):
        kept = retain * retain_nll(world, others) + kl * retain_kl(world, others)
        return saturating([margin(example) for example in forget], beta) + kept

    terms = check(world, npo, npo.Settings(beta=beta, retain=retain, kl=kl, token_weights=weights), naive)
    assert set(terms) == {"npo", "forget_nll", *["retain_nll"] * bool(retain), *["retain_kl"] * bool(kl)}


@pytest.mark.parametrize(("beta", "delta"), [(0.3, 0.0), (1.0, 2.5)])
@pytest.mark.parametrize(("weights", "retain", "kl"), VARIANTS)
def test_simnpo_equals_the_formula(world, beta, delta, weights, retain, kl):
    def margin(example):
        w = token_weights(example, weights)
        return (
            sum(a * b for a, b in zip(w, nlls(world.model, example), strict=True)) / sum(w) - delta if any(w) else None
        )

    def naive(forget, others):
        kept = retain * retain_nll(world, others) + kl * retain_kl(world, others)
        return saturating([margin(example) for example in forget], beta) + kept

    settings = simnpo.Settings(beta=beta, delta=delta, retain=retain, kl=kl, token_weights=weights)
    check(world, simnpo, settings, naive)


def test_npo_by_hand():
    """Sample 0: NLL ln 2 and 2 ln 2, under the target ln 2 each: margin ln 2, sigmoid 2/3, so 2 ln 1.5 at beta 1.

    Sample 1 has no unwanted token and gives 0: the mean is ln 1.5. Its slope in a margin is -2 (1 - 2/3) / 2 = -1/3,
    and the margin's in a true logit p - 1: 1/6 and 1/4. Without spans sample 1 has margin 2 ln 2, sigmoid 4/5.
    """
    distributions, known = [[0.5, 0.5], [0.25, 0.75], [0.125, 0.875]], [[0.5, 0.5]] * 3
    tokens, batch = by_hand(distributions, "uuf", sample=[0, 0, 1], reference=known)
    loss, terms = npo.objective(tokens, batch, npo.Settings(beta=1.0, retain=0, kl=0, token_weights="spans"))
    loss.backward()
    assert loss.item() == pytest.approx(math.log(1.5), rel=1e-6)
    assert tokens.hidden.grad[:, 0].tolist() == pytest.approx([1 / 6, 1 / 4, 0], rel=1e-5)
    assert terms["forget_nll"].item() == pytest.approx(1.5 * math.log(2), rel=1e-6)
    loss, _ = npo.objective(tokens, batch, npo.Settings(beta=1.0, retain=0, kl=0, token_weights="uniform"))
    assert loss.item() == pytest.approx(math.log(1.5) + math.log(1.25), rel=1e-6)


def test_at_the_start_npo_is_2_over_beta_ln_2():
    tokens, batch = by_hand([[0.3, 0.7], [0.9, 0.1]], "ff", sample=[0, 1], reference=[[0.3, 0.7], [0.9, 0.1]])
    loss, _ = npo.objective(tokens, batch, npo.Settings(beta=0.1, retain=0, kl=0, token_weights="uniform"))
    assert loss.item() == pytest.approx(20 * math.log(2), rel=1e-6)


def test_simnpo_by_hand():
    """Scores 1 and 1/2, NLL ln 2 and 2 ln 2: weighted mean 2 ln 2 / 1.5. Less delta = ln 2 / 3 it is ln 2: 2 ln 1.5.

    The second sample has no score and gives 0, so the mean is ln 1.5.
    """
    tokens, batch = by_hand([[0.5, 0.5], [0.25, 0.75], [0.1, 0.9]], "fff", sample=[4, 4, 7], score=[1.0, 0.5, 0.0])
    settings = simnpo.Settings(beta=1.0, delta=math.log(2) / 3, retain=0, kl=0, token_weights="scores")
    loss, _ = simnpo.objective(tokens, batch, settings)
    assert loss.item() == pytest.approx(math.log(1.5), rel=1e-6)


@pytest.mark.parametrize("direction", [1, -1])
def test_margins_of_long_answers_do_not_overflow(direction):
    """3,000 tokens whose NLL is 40 nats above or below the target's: 0, or 2 * 120,000."""
    far = [[math.exp(-40), 1.0]] * 3000
    near = [[1.0, math.exp(-40)]] * 3000
    now, before = (far, near) if direction > 0 else (near, far)
    tokens, batch = by_hand(now, "f" * 3000, reference=before)
    loss, _ = npo.objective(tokens, batch, npo.Settings(beta=0.5, retain=0, kl=0, token_weights="uniform"))
    loss.backward()
    assert loss.item() == pytest.approx(0 if direction > 0 else 240_000, rel=1e-4)
    assert torch.isfinite(tokens.hidden.grad).all()
