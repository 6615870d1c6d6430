"""The trajectory as measure reads it, and every way in which it can be wrong."""

import hand_evaluated as hand
import pytest

from tif.base import tables
from tif.base.errors import UserError
from tif.metrics.trajectory import read_trajectory
from tif.unlearning import TRAJECTORY

REFERENCE = dict(zip(hand.FORGET, hand.RATIOS["retain"], strict=True))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "trajectory.parquet"


def test_without_unwanted_words_there_is_no_drop(path):
    tables.write(path, [row for row in hand.trajectory() if row["measure"] != "unwanted_logprob_drop"], TRAJECTORY)
    assert [epoch.unwanted_logprob_drop for epoch in read_trajectory(path, REFERENCE)] == [None] * 3


def test_forget_quality_is_against_the_reference_in_any_order(path):
    tables.write(path, hand.trajectory(), TRAJECTORY)
    turned = dict(reversed(REFERENCE.items()))
    found = read_trajectory(path, turned)
    assert found == read_trajectory(path, REFERENCE)
    # no value in common, then all, then .4 .5 .8 1 2 2.5 3 4 with a gap of 1/4
    assert [epoch.statistic for epoch in found] == [1.0, 0.0, 0.25]


def without(rows, **match):
    return [row for row in rows if any(row[key] != value for key, value in match.items())]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows[:0], "holds no rows"),
        (lambda rows: without(rows, measure="probability", epoch=1), "'probability' on the forget set at epoch 1"),
        (lambda rows: without(rows, sample_id="forget/0003", epoch=2), "epoch 2 lacks sample forget/0003"),
        (lambda rows: [*rows, rows[-1]], "two rows"),
        (lambda rows: [{**rows[0], "value": float("inf")}, *rows[1:]], "value inf"),
    ],
)
def test_bad_trajectory(path, change, message):
    tables.write(path, change(hand.trajectory()), TRAJECTORY)
    with pytest.raises(UserError, match=rf"trajectory\.parquet.*{message}.*dvc repro -f unlearn"):
        read_trajectory(path, REFERENCE)


def test_another_forget_set_than_the_references(path):
    tables.write(path, hand.trajectory(), TRAJECTORY)
    with pytest.raises(UserError, match=r"unknown sample forget/0003 \(1 differ from the evaluation of the retain"):
        read_trajectory(path, {key: REFERENCE[key] for key in hand.FORGET[:3]})
