"""Agreement of two spans tables: by hand, against a naive loop, and what must hold on any tables."""

import random

import numpy as np
import pyarrow as pa
import pytest

from tif.agreement.spans import Estimate, Scores, agreement, agreement_difference
from tif.base.errors import UserError
from tif.words import SPANS, word_rows, words

NAMES = ("precision", "recall", "f1", "jaccard", "kappa")


def table(*samples: tuple[str, str]) -> list[dict]:
    """Spans from (answer, flags): one sample each, one 0 or 1 a word."""
    rows = []
    for number, (text, flags) in enumerate(samples):
        unwanted = [flag == "1" for flag in flags]
        rows += word_rows(f"forget/{number:04d}", text, unwanted, [float(flag) for flag in unwanted])
    return rows


def values(scores: Scores) -> dict[str, float]:
    return {name: getattr(scores, name).value for name in NAMES}


def test_by_hand():
    # Letters: "aaa" in A alone, "bb" in both, "c" in B alone, "dddd" in none; "." has none and does not count.
    a, b = table(("aaa bb c dddd.", "11001")), table(("aaa bb c dddd.", "01100"))
    found = agreement(a, b)
    # both 2, A 5, B 3, N 10: observed (2 + 4) / 10, chance (15 + 35) / 100
    assert values(found.characters) == pytest.approx(
        {"precision": 2 / 5, "recall": 2 / 3, "f1": 4 / 8, "jaccard": 2 / 6, "kappa": (0.6 - 0.5) / 0.5}
    )
    # both 1, A 2, B 2, N 4: observed (1 + 1) / 4, chance (4 + 4) / 16
    assert values(found.words) == pytest.approx(
        {"precision": 1 / 2, "recall": 1 / 2, "f1": 1 / 2, "jaccard": 1 / 3, "kappa": 0.0}
    )


def test_counts_are_summed_over_samples():
    # 1 of 1 in the first sample and none of 9 in the second: 1 of 10 marked letters is right, 1 of 1 is found.
    found = agreement(table(("a", "1"), ("b" * 9, "1")), table(("a", "1"), ("b" * 9, "0")))
    assert values(found.characters) == pytest.approx(
        {"precision": 0.1, "recall": 1.0, "f1": 2 / 11, "jaccard": 0.1, "kappa": 0.0}
    )


def test_kappa_below_zero():
    # Opposite marks: observed 0, chance 1/2.
    assert agreement(table(("a b", "10")), table(("a b", "01"))).words.kappa.value == -1.0


@pytest.mark.parametrize(
    ("text", "a", "b", "expected"),
    [
        ("abc.", "00", "00", 1.0),  # none unwanted
        ("abc.", "01", "00", 1.0),  # only punctuation: no letter on either side
        ("abc.", "11", "11", 1.0),  # all unwanted
        ("abc.", "10", "00", 0.0),
        ("abc.", "00", "10", 0.0),
        ("—", "1", "0", 1.0),  # no letter at all
        ("", "", "", 1.0),
    ],
)
def test_nothing_to_count(text, a, b, expected):
    found = agreement(table((text, a)), table((text, b)))
    for scores in (found.characters, found.words):
        assert values(scores) == dict.fromkeys(NAMES, expected)
        assert scores.f1 == Estimate(expected, expected, expected)


def test_empty_tables():
    assert values(agreement([], []).words) == dict.fromkeys(NAMES, 1.0)


def random_tables(seed: int, count: int, samples: int = 30) -> list[list[dict]]:
    """Tables on the same answers, each with marks of its own."""
    generator = random.Random(seed)
    texts = [" ".join(generator.choice(("a", "bbb", "7", "作", "-")) for _ in range(9)) for _ in range(samples)]
    return [table(*((text, [generator.choice("001") for _ in words(text)]) for text in texts)) for _ in range(count)]


def naive_scores(a: list[dict], b: list[dict], unit: str) -> list[float]:
    """The definition on sets of units."""
    units = []
    for x, y in zip(a, b, strict=True):
        letters = sum(character.isalnum() for character in x["text"])
        units += [(x["unwanted"], y["unwanted"])] * (letters if unit == "characters" else min(letters, 1))
    both = sum(x and y for x, y in units)
    either = sum(x or y for x, y in units)
    in_a, in_b, n = sum(x for x, _ in units), sum(y for _, y in units), len(units)
    observed = sum(x == y for x, y in units) / n
    chance = (in_a / n) * (in_b / n) + (1 - in_a / n) * (1 - in_b / n)
    return [both / in_a, both / in_b, 2 * both / (in_a + in_b), both / either, (observed - chance) / (1 - chance)]


@pytest.mark.parametrize("unit", ["characters", "words"])
def test_bootstrap_equals_a_naive_loop(unit):
    a, b = random_tables(1, 2)
    groups = {row["sample_id"]: f"person {int(row['sample_id'][-4:]) // 5}" for row in a}
    names = list(dict.fromkeys(groups.values()))
    generator = np.random.default_rng(3)
    resampled = []
    for _ in range(250):
        often = dict(zip(names, generator.multinomial(len(names), [1 / len(names)] * len(names)), strict=True))
        chosen = [k for k, row in enumerate(a) for _ in range(often[groups[row["sample_id"]]])]
        resampled.append(naive_scores([a[k] for k in chosen], [b[k] for k in chosen], unit))
    found = getattr(agreement(a, b, groups, draws=250, seed=3), unit)
    expected = zip(naive_scores(a, b, unit), *np.quantile(resampled, [0.025, 0.975], axis=0), strict=True)
    for name, (value, low, high) in zip(NAMES, expected, strict=True):
        estimate = getattr(found, name)
        assert (estimate.value, estimate.low, estimate.high) == pytest.approx((value, low, high), abs=1e-12)


def test_one_group_has_no_spread_and_many_have():
    a, b = random_tables(2, 2)
    one = agreement(a, b, {row["sample_id"]: "Ada" for row in a}).characters.f1
    assert one.low == one.value == one.high
    many = agreement(a, b).characters.f1
    assert many.low < many.value == one.value < many.high
    assert agreement(a, b).characters.f1 == many  # the same again


def test_symmetric_up_to_precision_and_recall():
    a, b = random_tables(3, 2)
    one, other = agreement(a, b).characters, agreement(b, a).characters
    assert (one.precision, one.recall) == (other.recall, other.precision)
    assert (one.f1, one.jaccard, one.kappa) == (other.f1, other.jaccard, other.kappa)
    assert one.f1.value == pytest.approx(2 * one.jaccard.value / (1 + one.jaccard.value))


def test_arrow_tables_and_any_order_of_rows():
    a, b = random_tables(4, 2)
    expected = agreement(a, b)
    arrow = pa.Table.from_pylist(a, schema=SPANS)
    assert agreement(arrow, b[::-1]) == expected


def test_difference_is_paired():
    a, b, reference = random_tables(5, 3)
    groups = {row["sample_id"]: row["sample_id"][-1] for row in a}
    found = agreement_difference(a, b, reference, groups).characters
    first, second = (agreement(some, reference, groups).characters for some in (a, b))
    assert found.f1.value == pytest.approx(first.f1.value - second.f1.value)
    assert found.f1.low < found.f1.value < found.f1.high
    same = agreement_difference(a, a, reference, groups).words
    assert same.f1 == same.kappa == Estimate(0.0, 0.0, 0.0)
    turned = agreement_difference(b, a, reference, groups).characters
    assert (turned.f1.low, turned.f1.high) == pytest.approx((-found.f1.high, -found.f1.low))


def test_a_clear_difference_excludes_zero():
    (reference,) = random_tables(6, 1)
    wrong = [{**row, "unwanted": row["unwanted"] ^ (number % 3 == 0)} for number, row in enumerate(reference)]
    assert agreement_difference(reference, wrong, reference).characters.f1.low > 0.05


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows[:-1], r"forget/0001 \[4, 7\) 'two' and nothing more"),
        (lambda rows: [{**rows[0], "end": 2, "text": "On"}, *rows[1:]], r"\[0, 3\) 'One' and .* \[0, 2\) 'On'"),
        (lambda rows: [{**rows[0], "text": "Ona"}, *rows[1:]], "'One' and .*'Ona'"),
        (
            lambda rows: [*rows[:2], *({**row, "sample_id": "forget/0009"} for row in rows[2:])],
            "0001 .* and forget/0009",
        ),
    ],
)
def test_tables_of_other_words(change, message):
    rows = table(("One two", "10"), ("One two", "01"))
    with pytest.raises(UserError, match=message):
        agreement(rows, change(rows))
    with pytest.raises(UserError, match="do not cover the same words"):
        agreement_difference(rows, change(rows), rows)


def test_a_sample_without_a_group():
    rows = table(("One two", "10"), ("One two", "01"))
    with pytest.raises(UserError, match="sample forget/0001 has no group"):
        agreement(rows, rows, {"forget/0000": "Ada"})
