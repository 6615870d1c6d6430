"""UNDIAL and CE-U: cross-entropy to a distribution that has less, or nothing, of the true token."""

import math

import pytest
import torch
from support import average, by_hand, check, retain_nll, rows, token_weights

from tif.methods import ceu, undial

VARIANTS = [("uniform", 0), ("spans", 0), ("scores", 0), ("uniform", 0.7)]


def formula(world, weights, retain, teacher):
    """Mean of w CE(q, p), plus the retain term. teacher: (row of logits, the target's, true token) -> q."""

    def naive(forget, others):
        values = []
        for example in forget:
            scored = zip(rows(world.model, example), rows(world.target.model, example), strict=True)
            for w, ((row, label), (known, _)) in zip(token_weights(example, weights), scored, strict=True):
                values.append(-w * (teacher(row.detach(), known.detach(), label) * row.softmax(0).log()).sum())
        return average(values) + retain * retain_nll(world, others)

    return naive


@pytest.mark.parametrize("beta", [1.0, 10.0])
@pytest.mark.parametrize(("weights", "retain"), VARIANTS)
def test_undial_equals_the_formula(world, beta, weights, retain):
    def teacher(row, known, label):
        lowered = known.clone()
        lowered[label] -= beta
        return lowered.softmax(0)

    settings = undial.Settings(beta=beta, retain=retain, token_weights=weights)
    terms = check(world, undial, settings, formula(world, weights, retain, teacher))
    assert set(terms) == {"undial", *["retain_nll"] * bool(retain)}


@pytest.mark.parametrize(("weights", "retain"), VARIANTS)
def test_ceu_equals_the_formula(world, weights, retain):
    def teacher(row, known, label):
        p = row.softmax(0)
        p[label] = 0
        return p / p.sum()

    terms = check(
        world, ceu, ceu.Settings(retain=retain, token_weights=weights), formula(world, weights, retain, teacher)
    )
    assert set(terms) == {"ceu", *["retain_nll"] * bool(retain)}


def test_undial_by_hand():
    """The target has (1/2, 1/2); its true logit less ln 3: q = (1/4, 3/4). The model has p = (1/2, 1/2): CE = ln 2.

    The slope in the logits is p - q = (1/4, -1/4), and 0 once the model has q.
    """
    settings = undial.Settings(beta=math.log(3), retain=0, token_weights="uniform")
    for p, expected, slope in (
        ([0.5, 0.5], math.log(2), [0.25, -0.25]),
        ([0.25, 0.75], 0.5 * math.log(2) + 0.75 * math.log(4 / 3), [0, 0]),
    ):
        tokens, batch = by_hand([p], "f", reference=[[0.5, 0.5]])
        loss, _ = undial.objective(tokens, batch, settings)
        loss.backward()
        assert loss.item() == pytest.approx(expected, rel=1e-6)
        assert tokens.hidden.grad[0].tolist() == pytest.approx(slope, abs=1e-6)


def test_undial_leaves_the_cached_states_alone():
    """The lowered logits are made in place, of a copy that is computed from the cached states."""
    tokens, batch = by_hand([[0.5, 0.5]], "f", reference=[[0.5, 0.5]])
    before = batch.reference_hidden.clone()
    undial.objective(tokens, batch, undial.Settings(beta=3.0, retain=0, token_weights="uniform"))
    assert torch.equal(batch.reference_hidden, before)


def test_ceu_by_hand():
    """p = (1/2, 1/4, 1/4) without the true token is q = (0, 1/2, 1/2): CE = 2 ln 2, slope p - q = (1/2, -1/4, -1/4)."""
    tokens, batch = by_hand([[0.5, 0.25, 0.25]], "f")
    loss, _ = ceu.objective(tokens, batch, ceu.Settings(retain=0, token_weights="uniform"))
    loss.backward()
    assert loss.item() == pytest.approx(2 * math.log(2), rel=1e-6)
    assert tokens.hidden.grad[0].tolist() == pytest.approx([0.5, -0.25, -0.25], rel=1e-5)


def test_ceu_of_a_certain_token_is_finite():
    """p = 1 - exp(-80): CE = 80 nats, where p has rounded to 1; slope (1, -1)."""
    tokens, batch = by_hand([[1.0, math.exp(-80)]], "f")
    loss, _ = ceu.objective(tokens, batch, ceu.Settings(retain=0, token_weights="uniform"))
    loss.backward()
    assert loss.item() == pytest.approx(80, rel=1e-6)
    assert tokens.hidden.grad[0].tolist() == pytest.approx([1, -1])
