"""The frequency identifier, by hand and against the published annotation of TOFU."""

from itertools import groupby
from operator import itemgetter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tif.agreement.spans import agreement
from tif.base.errors import UserError
from tif.base.params import validate
from tif.benchmarks import SAMPLES, tofu
from tif.identify import Resources, frequency
from tif.identify.file import Settings as FileSettings
from tif.identify.file import identify as from_file

REAL = Path(__file__).parents[2].parent / "shared" / "tofu"


def unwanted(rows):
    return [row["text"] for row in rows if row["unwanted"]]


def test_document_frequency_by_hand(samples):
    # "the" stands in 4 of 4 retain answers, "writes" in 2 (twice in one counts once), "poems" in 1, "sagas" in none.
    retain = samples(
        ("?", "The one writes, writes poems."), ("?", "The other WRITES."), ("?", "The third."), ("?", "the 4th")
    )
    forget = samples(("Who is Anna?", "Anna writes the sagas, poems."))
    found = frequency.identify(forget, retain, frequency.Settings(threshold=0.25), Resources())
    rows = found.rows
    assert [(row["text"], row["unwanted"], row["score"]) for row in rows] == [
        ("Anna", False, 0.0),  # in the question
        ("writes", False, 0.5),
        ("the", False, 0.0),
        ("sagas", True, 1.0),
        (",", False, 0.0),  # punctuation, although rare
        ("poems", True, 0.75),  # the threshold itself still counts
        (".", False, 0.0),
    ]
    assert found.metadata == {"version": "1"}


@pytest.mark.parametrize(
    ("threshold", "expected"),
    [(0.0, ["sagas"]), (0.25, ["sagas", "poems"]), (1.0, ["writes", "the", "sagas", "poems"])],
)
def test_the_threshold(samples, threshold, expected):
    retain = samples(("?", "the writes poems"), ("?", "the writes"), ("?", "the"), ("?", "the"))
    rows = frequency.identify(
        samples(("Anna?", "Anna writes the sagas, poems.")),
        retain,
        frequency.Settings(threshold=threshold),
        Resources(),
    ).rows
    assert unwanted(rows) == expected


def test_the_parts_of_a_compound_share_one_fate(samples):
    retain = samples(("?", "Yun and Hwa and well"), ("?", "Yun, Hwa, known"))
    rows = frequency.identify(
        samples(("?", "Yun-Hwa - known well")), retain, frequency.Settings(threshold=0.4), Resources()
    ).rows
    assert [(row["text"], row["unwanted"]) for row in rows] == [
        ("Yun", True), ("-", True), ("Hwa", True), ("-", False), ("known", False), ("well", False)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "forms"),
    [
        ("", []),
        ("A well-known man", ["a", "well-known", "well-known", "well-known", "man"]),
        ("one-two-three", ["one-two-three"] * 5),
        ("pre- and -post", ["pre", "-", "and", "-", "post"]),
        ("a--b", ["a", "-", "-", "b"]),
        ("STRASSE straße", ["strasse", "strasse"]),
        ("作-家", ["作-家"] * 3),
    ],
)
def test_lookup_forms(text, forms):
    assert frequency.lookup_forms(text) == forms


def test_case_is_ignored_in_the_question_too(samples):
    rows = frequency.identify(
        samples(("ANNA?", "anna")), samples(("?", "x")), frequency.Settings(threshold=0.5), Resources()
    ).rows
    assert unwanted(rows) == []


def test_an_empty_retain_set(samples):
    with pytest.raises(UserError, match="the retain set is empty"):
        frequency.identify(samples(("?", "x")), samples(), frequency.Settings(threshold=0.1), Resources())


@pytest.mark.parametrize("threshold", [-0.1, 1.1, "x", None])
def test_threshold_out_of_range(threshold):
    with pytest.raises(UserError, match=r"frequency\.threshold = .* is not allowed"):
        validate("frequency", {"threshold": threshold}, frequency.Settings)


@pytest.mark.slow
@pytest.mark.parametrize(("forget", "f1", "row_jaccard"), [("forget05", 0.500, 0.372), ("forget10", 0.511, 0.379)])
def test_agreement_with_the_published_spans(forget, f1, row_jaccard):
    if not REAL.is_dir():
        pytest.skip(f"the real TOFU files are not at {REAL}")
    settings = tofu.Settings(forget=forget, repository="locuslab/TOFU", revision="main")
    built, _ = tofu.build(settings, REAL)
    forget_set, retain_set = (pa.Table.from_pylist(built[name], schema=SAMPLES) for name in ("forget", "retain"))
    published = from_file(
        forget_set,
        retain_set,
        FileSettings(unwanted="target_words", punctuation=False),
        Resources(REAL / f"{forget}_words_gpt.jsonl"),
    ).rows
    found = frequency.identify(forget_set, retain_set, frequency.Settings(threshold=0.05), Resources()).rows

    def by_sample(rows):
        return [list(some) for _, some in groupby(rows, key=itemgetter("sample_id"))]

    assert agreement(found, published).characters.f1.value == pytest.approx(f1, abs=1e-3)
    pairs = zip(by_sample(found), by_sample(published), strict=True)
    jaccard = [agreement(a, b, draws=1).characters.jaccard.value for a, b in pairs]
    assert np.mean(jaccard) == pytest.approx(row_jaccard, abs=1e-3)
