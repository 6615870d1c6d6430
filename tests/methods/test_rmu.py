"""RMU: the formula at every layer, the vector it steers to, points set by hand, and layers that do not exist."""

from dataclasses import replace

import pytest
import torch
from support import average, by_hand, check, token_weights, total

from tif.base.errors import UserError
from tif.lm.batches import collate
from tif.methods import rmu

BLOCK = {"layer": 1, "c": 3.0, "alpha": 1.0, "seed": 0, "token_weights": "uniform"}


def states(model, example, layer):
    """Hidden states after `layer` layers at the positions that predict the answer, from the model's own forward."""
    hidden = model(input_ids=example.ids[None], output_hidden_states=True).hidden_states[layer][0]
    return hidden[example.start - 1 : -1]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"layer": 2},
        {"alpha": 0.0},
        {"token_weights": "spans"},
        {"token_weights": "scores", "alpha": 0.3, "seed": 5},
    ],
)
def test_equals_the_formula(world, changes):
    settings = rmu.Settings(**BLOCK | changes)
    goal = settings.c * rmu.direction(32, settings.seed)

    def naive(forget, others):
        steering = average(
            w * ((h - goal) ** 2).mean()
            for e in forget
            for w, h in zip(token_weights(e, settings.token_weights), states(world.model, e, settings.layer))
        )
        drift = average(
            ((h - k.detach()) ** 2).mean()
            for e in others
            for h, k in zip(states(world.model, e, settings.layer), states(world.target.model, e, settings.layer))
        )
        return steering + settings.alpha * drift

    terms = check(world, rmu, settings, naive)
    assert set(terms) == {"steering", *["retain_drift"] * bool(settings.alpha)}


def test_layers_above_get_no_gradient(world):
    settings = rmu.Settings(**BLOCK)
    total(world, rmu, settings, [collate(world.step(rmu.needs(settings), 4, 4))])
    first, second = world.model.model.layers
    assert second.mlp.down_proj.weight.grad is None
    assert first.mlp.down_proj.weight.grad.abs().max() > 0


def test_direction():
    """Length 1, no negative number, the same for the same seed whatever the global generator's state, else another."""
    one = rmu.direction(64, 3)
    torch.rand(5)
    assert torch.equal(one, rmu.direction(64, 3))
    assert not torch.equal(one, rmu.direction(64, 4))
    assert one.norm().item() == pytest.approx(1, rel=1e-6)
    assert one.min() >= 0


def test_by_hand():
    """At hidden state 0 the distance to c u is c^2 / d, whatever u: 9/2 for c = 3, d = 2, and 0 at c u itself.

    Retain state (1, 3) off its old place: (1 + 9) / 2 = 5. With alpha 2 and a forget mean of 9/4: 12.25.
    """
    settings = rmu.Settings(**BLOCK | {"alpha": 2.0})
    tokens, batch = by_hand([[0.5, 0.5]] * 3, "ffr")
    hidden = torch.stack([torch.zeros(2), 3 * rmu.direction(2, 0), torch.tensor([2.0, 5.0])])
    batch = replace(batch, reference_hidden=torch.tensor([[9.0, 9.0], [9.0, 9.0], [1.0, 2.0]]))
    loss, terms = rmu.objective(replace(tokens, hidden=hidden), batch, settings)
    assert terms["steering"].item() == pytest.approx(2.25, rel=1e-6)
    assert terms["retain_drift"].item() == pytest.approx(5, rel=1e-6)
    assert loss.item() == pytest.approx(12.25, rel=1e-6)


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_a_layer_that_the_model_does_not_have(world, alpha):
    settings = rmu.Settings(**BLOCK | {"layer": 3, "alpha": alpha})
    with pytest.raises(UserError, match=r"layer = 3 of the method's block: the model has layers 1 to 2 only"):
        total(world, rmu, settings, [collate(world.step(rmu.needs(settings), 2, 2))])


def test_retain_rows_without_cached_states_are_no_zero_drift():
    tokens, batch = by_hand([[0.5, 0.5]] * 2, "fr")
    with pytest.raises(AttributeError):
        rmu.objective(tokens, batch, rmu.Settings(**BLOCK))
