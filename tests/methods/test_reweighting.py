"""WGA and SatImp: ascent whose tokens are weighted by their own probability, with no gradient through that weight."""

import math

import pytest
import torch
from support import average, by_hand, check, nlls, retain_nll, token_weights

from tif.methods import satimp, wga

VARIANTS = [("uniform", 0), ("spans", 0), ("scores", 0), ("uniform", 0.7)]


def formula(world, weights, retain, confidence):
    """-mean of w c l, plus the retain term. confidence: of a probability."""

    def naive(forget, others):
        pairs = [
            (w, nll) for e in forget for w, nll in zip(token_weights(e, weights), nlls(world.model, e), strict=True)
        ]
        return -average(w * confidence((-nll).exp().detach()) * nll for w, nll in pairs) + retain * retain_nll(
            world, others
        )

    return naive


@pytest.mark.parametrize("beta", [0.0, 0.2, 1.0])
@pytest.mark.parametrize(("weights", "retain"), VARIANTS)
def test_wga_equals_the_formula(world, beta, weights, retain):
    settings = wga.Settings(beta=beta, retain=retain, token_weights=weights)
    check(world, wga, settings, formula(world, weights, retain, lambda p: p**beta))


@pytest.mark.parametrize(("beta1", "beta2"), [(0.3, 0.1), (1.0, 2.0), (0.0, 0.5)])
@pytest.mark.parametrize(("weights", "retain"), VARIANTS)
def test_satimp_equals_the_formula(world, beta1, beta2, weights, retain):
    settings = satimp.Settings(beta1=beta1, beta2=beta2, retain=retain, token_weights=weights)
    check(world, satimp, settings, formula(world, weights, retain, lambda p: p**beta1 * (1 - p) ** beta2))


def test_wga_by_hand():
    """p = 1/4 and 1/2, beta 2: -(1/16 * 2 ln 2 + 1/4 ln 2) / 2 = -3/16 ln 2.

    With no gradient through p^2, the slope in a true logit is -p^2 (p - 1) / 2: 3/128 and 1/16.
    """
    tokens, batch = by_hand([[0.25, 0.75], [0.5, 0.5]], "ff")
    loss, terms = wga.objective(tokens, batch, wga.Settings(beta=2.0, retain=0, token_weights="uniform"))
    loss.backward()
    assert loss.item() == terms["wga"].item() == pytest.approx(-3 / 16 * math.log(2), rel=1e-6)
    assert tokens.hidden.grad[:, 0].tolist() == pytest.approx([3 / 128, 1 / 16], rel=1e-5)


def test_satimp_by_hand():
    """p = 1/4, beta1 = 1, beta2 = 2: -(1/4)(9/16) 2 ln 2 = -9/32 ln 2; slope in the true logit 9/64 * 3/4."""
    tokens, batch = by_hand([[0.25, 0.75]], "f")
    loss, _ = satimp.objective(tokens, batch, satimp.Settings(beta1=1.0, beta2=2.0, retain=0, token_weights="uniform"))
    loss.backward()
    assert loss.item() == pytest.approx(-9 / 32 * math.log(2), rel=1e-6)
    assert tokens.hidden.grad[0, 0].item() == pytest.approx(27 / 256, rel=1e-5)


def test_satimp_without_exponents_is_ascent():
    tokens, batch = by_hand([[0.25, 0.75], [0.5, 0.5]], "ff")
    loss, _ = satimp.objective(tokens, batch, satimp.Settings(beta1=0.0, beta2=0.0, retain=0, token_weights="uniform"))
    assert loss.item() == pytest.approx(-1.5 * math.log(2), rel=1e-6)


@pytest.mark.parametrize(
    ("nll", "expected"),
    [
        (1e-9, 1e-9**0.1),  # in float32 1 - exp(-1e-9) would be 0
        (0.0, 0.0),
        (-1e-7, 0.0),  # what rounding can make of 0
        (200.0, 0.0),  # exp(-1000) underflows
        (20.0, math.exp(-100)),
    ],
)
def test_confidence_near_0_and_1(nll, expected):
    value = satimp.confidence(torch.tensor([nll]), 5.0, 0.1)
    assert value.item() == pytest.approx(expected, rel=1e-5, abs=1e-38)
    assert not value.requires_grad


@pytest.mark.parametrize("module", [wga, satimp])
def test_certain_and_impossible_tokens_give_finite_gradients(module):
    """p rounds to 1 and to exp(-300)."""
    beta = {"beta": 1.0} if module is wga else {"beta1": 5.0, "beta2": 0.1}
    tokens, batch = by_hand([[1.0, math.exp(-30)], [1e-30, 1.0]], "ff")
    with torch.no_grad():
        tokens.hidden[1, 0] = -300
    loss, _ = module.objective(tokens, batch, module.Settings(**beta, retain=0, token_weights="uniform"))
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert torch.isfinite(tokens.hidden.grad).all()
