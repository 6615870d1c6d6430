"""DPO with refusals: the formula, a point set by hand, and what moves when the loss falls."""

import math

import pytest
import torch
from support import average, by_hand, check, nlls, retain_nll, token_weights

from tif.methods import dpo


@pytest.mark.parametrize("beta", [0.05, 0.3])
@pytest.mark.parametrize(("weights", "retain"), [("uniform", 0), ("spans", 0), ("scores", 0), ("uniform", 0.7)])
def test_equals_the_formula(world, beta, weights, retain):
    def gain(example, w):
        pairs = zip(w, nlls(world.model, example), nlls(world.target.model, example), strict=True)
        return sum(a * (c.detach() - b) for a, b, c in pairs)

    def loss(example):
        w = token_weights(example, weights)
        if not any(w):
            return torch.zeros(())
        margin = gain(example.refusal, [1.0] * len(example.refusal.offsets)) - gain(example, w)
        return -2 / beta * torch.nn.functional.logsigmoid(beta * margin)

    def naive(forget, others):
        return average(loss(example) for example in forget) + retain * retain_nll(world, others)

    terms = check(world, dpo, dpo.Settings(beta=beta, retain=retain, token_weights=weights), naive)
    assert set(terms) == {"dpo", "forget_nll", "refusal_nll", *["retain_nll"] * bool(retain)}


def test_by_hand():
    """The refusal's token has gained ln 2, the forget answer's have lost ln 2 and 0: margin 2 ln 2.

    At beta 1/2 sigmoid(ln 2) = 2/3, so 4 ln 1.5; the slope in the margin is -2/3, in the true logits (p - 1 each):
    refusal -2/3 * 1/2, forget +2/3 * 7/8 and 2/3 * 3/4. Rows of a sample need not lie together.
    """
    tokens, batch = by_hand(
        [[0.125, 0.875], [0.5, 0.5], [0.25, 0.75]], "uif", reference=[[0.25, 0.75], [0.25, 0.75], [0.25, 0.75]]
    )
    loss, terms = dpo.objective(tokens, batch, dpo.Settings(beta=0.5, retain=0, token_weights="uniform"))
    loss.backward()
    assert loss.item() == pytest.approx(4 * math.log(1.5), rel=1e-6)
    assert tokens.hidden.grad[:, 0].tolist() == pytest.approx([7 / 12, -1 / 3, 1 / 2], rel=1e-5)
    assert terms["refusal_nll"].item() == pytest.approx(math.log(2), rel=1e-6)
    assert terms["forget_nll"].item() == pytest.approx(2.5 * math.log(2), rel=1e-6)


def test_refusals_are_matched_by_sample():
    """Sample 3: margin ln 2 from its refusal; sample 8: margin -ln 2 from its forget answer. At beta 1:

    2 ln 1.5 and 2 ln 3; a refusal matched with the other sample would give another sum.
    """
    tokens, batch = by_hand(
        [[0.5, 0.5], [0.5, 0.5], [0.25, 0.75], [0.5, 0.5]],
        "ffii",
        sample=[8, 3, 8, 3],
        reference=[[0.25, 0.75], [0.5, 0.5], [0.25, 0.75], [0.25, 0.75]],
    )
    loss, _ = dpo.objective(tokens, batch, dpo.Settings(beta=1.0, retain=0, token_weights="uniform"))
    assert loss.item() == pytest.approx(math.log(1.5) + math.log(3), rel=1e-6)


@pytest.mark.parametrize("direction", [1, -1])
def test_margins_of_long_answers_do_not_overflow(direction):
    """3,000 tokens of either answer that moved by 40 nats: margin +-240,000; the loss 0 or 2 * 240,000."""
    far, near = [math.exp(-40), 1.0], [1.0, math.exp(-40)]
    now, before = (far, near)[::direction]
    tokens, batch = by_hand([now, before] * 3000, "fi" * 3000, reference=[before, now] * 3000)
    loss, _ = dpo.objective(tokens, batch, dpo.Settings(beta=0.5, retain=0, token_weights="uniform"))
    loss.backward()
    assert loss.item() == pytest.approx(0 if direction > 0 else 480_000, rel=1e-4)
    assert torch.isfinite(tokens.hidden.grad).all()
