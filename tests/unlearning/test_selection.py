"""Which epoch is best, by hand, and whose weights are kept."""

import json

import pytest
import torch
from torch import nn

from tif.unlearning.selection import Best, best, standings

FORGET = {"forget/0", "forget/1"}


def rows(*epochs: tuple[tuple[float, float], tuple[float, float], float]) -> list[dict]:
    """Trajectory rows; an epoch is (truth ratios of two forget samples, their probabilities, retain probability)."""
    made = []
    for epoch, (ratios, probabilities, retain) in enumerate(epochs):
        values = [(f"forget/{i}", "truth_ratio", value) for i, value in enumerate(ratios)]
        values += [(f"forget/{i}", "probability", value) for i, value in enumerate(probabilities)]
        values += [("retain/0", "probability", retain), ("retain/0", "truth_ratio", 1.0)]
        values += [("forget/0", "unwanted_logprob_drop", 3.0)]
        made += [
            {"epoch": epoch, "sample_id": key, "measure": measure, "value": value} for key, measure, value in values
        ]
    return made


def test_scores_by_hand():
    """Epoch 1: TR .5 and 4, so mean min(TR, 1/TR) = .375; retain .6 of .8 = .75; 2 / (1/.375 + 1/.75) = .5.

    Epoch 2: a truth ratio of 0 each, so 0. Epoch 3: retain above the target counts 1: 2 / (1/1 + 1) = 1.
    """
    found = standings(
        rows(((0.1, 0.1), (1, 0.8), 0.8), ((0.5, 4.0), (0.4, 0.2), 0.6), ((0, 0), (0, 0), 0.8), ((1, 1), (0, 0), 0.9)),
        FORGET,
    )
    assert [standing.epoch for standing in found] == [0, 1, 2, 3]
    assert [standing.score for standing in found] == pytest.approx([2 / 11, 0.5, 0, 1])
    assert found[0].forget_truth_ratio == pytest.approx(0.1)
    assert found[0].forget_probability == pytest.approx(0.9)
    first = found[1].rounded()
    assert first == {
        "epoch": 1, "score": 0.5, "forget_truth_ratio": 0.375, "forget_probability": 0.3, "retain_probability": 0.6
    }  # fmt: skip
    assert json.loads(json.dumps(first)) == first


def test_the_best_is_the_earliest_of_equals_and_never_the_target():
    good, bad = ((1, 1), (0, 0), 0.8), ((0.2, 0.2), (0, 0), 0.8)
    assert best(standings(rows(good, bad, bad), FORGET)).epoch == 1
    assert best(standings(rows(bad, bad, good, good, bad), FORGET)).epoch == 2
    assert best(standings(rows(bad, bad), FORGET)).epoch == 1


def test_a_target_that_gives_retain_answers_nothing_has_nothing_to_lose():
    assert standings(rows(((1, 1), (0, 0), 0.0), ((1, 1), (0, 0), 0.0)), FORGET)[1].score == 1


def walk(wanted: bool, frozen: bool = False, agree=int) -> tuple[nn.Linear, Best]:
    """A model whose weight is the number of the epoch, of which the second is best."""
    model = nn.Linear(1, 1)
    model.bias.requires_grad_(not frozen)
    values = [((t, t), (0, 0), 0.8) for t in (0.1, 0.2, 0.9, 0.3)]
    seen: list[dict] = []
    chosen = Best(model, seen, FORGET, wanted, agree)
    for epoch in range(4):
        with torch.no_grad():
            model.weight.fill_(epoch)
            model.bias.fill_(10 * epoch)
        seen += [row for row in rows(*values) if row["epoch"] == epoch]
        if epoch:
            chosen.after_epoch(epoch)
    return model, chosen


def test_the_weights_of_the_best_epoch_come_back():
    model, chosen = walk(wanted=True)
    assert (model.weight.item(), model.bias.item()) == (3, 30)
    chosen.put_back()
    assert (model.weight.item(), model.bias.item()) == (2, 20)
    assert model.weight.requires_grad


def test_a_part_of_the_weights_is_kept_when_the_processes_say_so():
    """Here epoch 1, then 2, would be kept, and 3 would not; process 0 finds 1 and 3 best."""
    asked, told = [], iter([1, 0, 1])
    model, chosen = walk(wanted=True, agree=lambda here: asked.append(here) or next(told))
    chosen.put_back()
    assert asked == [True, True, False]
    assert (model.weight.item(), model.bias.item()) == (3, 30)


def test_only_what_is_trained_is_copied():
    model, chosen = walk(wanted=True, frozen=True)
    assert list(chosen.kept) == ["weight"]
    chosen.put_back()
    assert (model.weight.item(), model.bias.item()) == (2, 30)


def test_nothing_is_copied_where_it_is_not_wanted():
    _, chosen = walk(wanted=False)
    assert chosen.kept == {}
    chosen.load_state_dict({"weights": {"weight": torch.ones(1, 1)}})
    assert chosen.kept == {}


def test_saved_weights_of_another_model_are_refused():
    _, chosen = walk(wanted=True)
    state = chosen.state_dict()
    with pytest.raises(ValueError, match="belong to another model"):
        Best(nn.Linear(2, 1), [], FORGET, True).load_state_dict(state)
    empty = Best(nn.Linear(2, 1), [], FORGET, True)
    empty.load_state_dict({"weights": {}})  # before the first epoch ended
    assert empty.kept == {}
