"""Which samples a step takes: a pure function of seed and step, so that a resumed run goes on as it would have."""

from collections import Counter

import pytest

from tif.training.schedule import Schedule


def schedule(examples: int = 7, others: int = 3, batch: int = 3, seed: int = 0) -> Schedule:
    """Of strings in place of examples."""
    return Schedule([f"e{i}" for i in range(examples)], [f"o{i}" for i in range(others)], batch, seed)


def epochs(chosen: Schedule, count: int) -> list[list[str]]:
    """What each epoch takes, in order."""
    steps = chosen.steps_per_epoch
    return [[one for step in range(steps) for one in chosen.samples(epoch * steps + step)] for epoch in range(count)]


def test_steps_by_hand():
    """Seven in threes: steps of 3, 3 and 1, and as many of the others beside each."""
    chosen = schedule()
    assert chosen.steps_per_epoch == 3
    for step, size in ((0, 3), (1, 3), (2, 1), (3, 3)):
        kinds = Counter(one[0] for one in chosen.samples(step))
        assert kinds == {"e": size, "o": size}
    assert schedule(others=0).samples(2)[0][0] == "e" and len(schedule(others=0).samples(2)) == 1


def test_every_epoch_is_a_permutation_of_its_own():
    found = [[one for one in epoch if one[0] == "e"] for epoch in epochs(schedule(), 4)]
    assert all(sorted(epoch) == [f"e{i}" for i in range(7)] for epoch in found)
    assert len({tuple(epoch) for epoch in found}) == 4


def test_the_others_are_used_up_before_they_come_again():
    """Over the epochs' ends too: 28 draws of 3 are nine full turns and one more."""
    drawn = [one for epoch in epochs(schedule(), 4) for one in epoch if one[0] == "o"]
    turns = [drawn[i : i + 3] for i in range(0, 28, 3)]
    assert all(sorted(turn) == ["o0", "o1", "o2"] for turn in turns[:9]) and len(turns[9]) == 1
    assert len({tuple(turn) for turn in turns[:9]}) > 1


@pytest.mark.parametrize("step", [0, 5, 11])
def test_a_step_is_the_same_whatever_was_asked_before(step):
    assert schedule().samples(step) == [schedule().samples(other) for other in (11, 0, 5, step)][-1]
    assert schedule().samples(step) != schedule(seed=1).samples(step)
