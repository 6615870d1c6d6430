"""What measures are taken of: tokens and texts of one model, sample by sample."""

import math

import hand_evaluated as hand
import numpy as np
import pyarrow.parquet as pq
import pytest

from tif.benchmarks import read_set
from tif.metrics.scored import read_scored


@pytest.fixture
def scored(root):
    """Of the target model, by set."""
    sets = {name: (about, read_set(root / "data/benchmark", name, about.role)) for name, about in hand.SETS.items()}
    return read_scored(root / "data/evaluation/target", sets)


def test_losses_by_hand(scored):
    """Minus the mean log-probability; the truth ratio takes the paraphrase, or the response where there is none."""
    losses = scored["retain"].losses
    assert losses.response == pytest.approx([math.log(4)] * 2, rel=1e-6)
    assert losses.correct == pytest.approx([9 + math.log(0.25), 9 + math.log(3)], rel=1e-6)
    assert losses.wrong == pytest.approx(np.array([[8, 10], [8, 10]]), rel=1e-6)
    losses = scored["rivers"].losses
    assert losses.correct.tolist() == losses.response.tolist() == pytest.approx([math.log(2), math.log(8)], rel=1e-6)
    assert losses.wrong == pytest.approx(np.log([[4, 4], [4, 8]]), rel=1e-6)


def test_samples_hits_and_texts_stand_in_the_order_of_the_table(scored, root):
    forget = scored["forget"]
    assert forget.sample_ids == hand.FORGET and forget.responses == list(hand.RESPONSES.values())
    assert [tuple(map(int, hits)) for hits in forget.hits] == hand.HITS
    assert forget.texts == [row["text"] for row in hand.texts("target")[:4]]


def test_a_set_that_is_not_generated_has_no_texts(scored):
    assert scored["holdout"].texts is None
    assert scored["holdout"].losses.probability == pytest.approx([0.5, 0.1], rel=1e-6)
    assert scored["holdout"].losses.wrong.shape == (2, 0)


def test_a_table_in_several_row_groups_is_read_as_one(scored, root):
    """As one of more than a million tokens is written; each group has dictionaries of its own."""
    path = root / "data/evaluation/target/tokens.parquet"
    pq.write_table(pq.read_table(path), path, row_group_size=7)
    sets = {name: (about, read_set(root / "data/benchmark", name, about.role)) for name, about in hand.SETS.items()}
    again = read_scored(root / "data/evaluation/target", sets)
    for name, one in scored.items():
        assert again[name].losses.response.tolist() == one.losses.response.tolist()
        assert [hits.tolist() for hits in again[name].hits] == [hits.tolist() for hits in one.hits]


def test_samples_with_different_numbers_of_wrong_answers(root):
    """What one has fewer is NaN, wherever it stands in the table."""
    blocks = [block for block in hand.answers("target") if block[0]["sample_id"] != "rivers/0000"]
    blocks += hand.offered("rivers/0000", 1 / 2, 1 / 4, 1 / 4, 1 / 16)
    hand.write_model(root, "target", blocks, hand.texts("target"))
    sets = {"rivers": (hand.SETS["rivers"], read_set(root / "data/benchmark", "rivers", "utility"))}
    wrong = read_scored(root / "data/evaluation/target", sets)["rivers"].losses.wrong
    assert wrong == pytest.approx(np.log([[4, 4, 16], [4, 8, np.nan]]), rel=1e-6, nan_ok=True)
