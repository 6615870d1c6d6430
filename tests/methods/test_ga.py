"""GA, GradDiff and KL: ascent on weighted forget tokens, with nothing, a retain term or a KL term beside it."""

import math

import pytest
from support import average, by_hand, check, nlls, retain_kl, retain_nll, token_weights

from tif.methods import ga, graddiff, kl

WEIGHTS = ["uniform", "spans", "scores"]


def ascent(world, forget, weights):
    pairs = [(w, nll) for e in forget for w, nll in zip(token_weights(e, weights), nlls(world.model, e), strict=True)]
    return -average(w * nll for w, nll in pairs)


@pytest.mark.parametrize("weights", WEIGHTS)
def test_ga_equals_the_formula(world, weights):
    terms = check(world, ga, ga.Settings(token_weights=weights), lambda forget, _: ascent(world, forget, weights))
    if weights == "uniform":
        assert terms["forget_nll"] == pytest.approx(-terms["ga"], rel=1e-6)


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("retain", [0.0, 0.7])
def test_graddiff_equals_the_formula(world, weights, retain):
    def naive(forget, others):
        return ascent(world, forget, weights) + retain * retain_nll(world, others)

    terms = check(world, graddiff, graddiff.Settings(retain=retain, token_weights=weights), naive)
    assert ("retain_nll" in terms) == (retain > 0)


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("weight", [0.0, 1.5])
def test_kl_equals_the_formula(world, weights, weight):
    def naive(forget, others):
        return ascent(world, forget, weights) + weight * retain_kl(world, others)

    terms = check(world, kl, kl.Settings(kl=weight, token_weights=weights), naive)
    assert ("retain_kl" in terms) == (weight > 0)
    assert terms.get("retain_kl", 1) > 0.1, "the models differ"


@pytest.mark.parametrize(
    ("weights", "expected"), [("uniform", math.log(32) / 3), ("spans", math.log(4) / 3), ("scores", math.log(8) / 3)]
)
def test_ga_by_hand(weights, expected):
    """p = 1/2, 1/4, 1/4; the second token is unwanted; scores 0, 1/2, 1: ln 2 (1 + 2 + 2) = ln 32; 2 ln 2; 3 ln 2.

    Always over three tokens, so -mean_t[w_t l_t] has slope -w_t / 3 in l_t.
    """
    tokens, batch = by_hand([[0.5, 0.5], [0.25, 0.75], [0.25, 0.75]], "fuf", score=[0.0, 0.5, 1.0])
    loss, _ = ga.objective(tokens, batch, ga.Settings(token_weights=weights))
    assert loss.item() == pytest.approx(-expected, rel=1e-6)


def test_graddiff_by_hand():
    """Forget p = 1/2; retain p = 1/4 and 1/16, mean NLL 3 ln 2; with weight 2: -ln 2 + 6 ln 2. Slopes: -1 and 2/2.

    d NLL / d(true logit) = p - 1: the slopes in the three true logits are 1/2, -3/4 and -15/16.
    """
    tokens, batch = by_hand([[0.5, 0.5], [0.25, 0.75], [0.0625, 0.9375]], "frr")
    loss, terms = graddiff.objective(tokens, batch, graddiff.Settings(retain=2.0, token_weights="uniform"))
    loss.backward()
    assert loss.item() == pytest.approx(5 * math.log(2), rel=1e-6)
    assert terms["retain_nll"].item() == pytest.approx(3 * math.log(2), rel=1e-6)
    assert tokens.hidden.grad[:, 0].tolist() == pytest.approx([0.5, -0.75, -0.9375], rel=1e-5)


def test_kl_by_hand():
    """Target (1/2, 1/2), model (1/4, 3/4): KL = 1/2 ln 2 + 1/2 ln 2/3 = 1/2 ln 4/3, slope p - q = (-1/4, 1/4).

    The other way round, KL(model || target), would be 1/4 ln 1/2 + 3/4 ln 3/2 = .1308 and not .1438.
    """
    tokens, batch = by_hand([[0.5, 0.5], [0.25, 0.75]], "fr", reference=[[0.5, 0.5], [0.5, 0.5]])
    loss, terms = kl.objective(tokens, batch, kl.Settings(kl=3.0, token_weights="uniform"))
    loss.backward()
    assert terms["retain_kl"].item() == pytest.approx(0.5 * math.log(4 / 3), rel=1e-6)
    assert loss.item() == pytest.approx(-math.log(2) + 1.5 * math.log(4 / 3), rel=1e-6)
    assert tokens.hidden.grad[1].tolist() == pytest.approx([-0.75, 0.75], rel=1e-5)
