"""The part of the report on learned token weights."""

import hand_evaluated as hand
import pytest
from html_page import Page, page_of, written

from tif.agreement.ranking import Alignment
from tif.base import tables
from tif.base.errors import UserError
from tif.benchmarks import SAMPLES
from tif.report.build import build
from tif.report.weights import MeanWeight, read_weights
from tif.unlearning import TOKEN_WEIGHTS
from tif.words import words


def learned():
    """A token a word and an end of sequence: .5 for all, then UW .75 and GW .25, then UW .875 and GW .125.

    The end of sequence counts 1, which must show nowhere. "in Lagos" is one token.
    """
    rows = []
    for key, text in hand.RESPONSES.items():
        tokens = [*words(text.replace("in Lagos", "in_Lagos")), (len(text), len(text))]
        for epoch, unwanted, general in ((0, 0.5, 0.5), (1, 0.75, 0.25), (2, 0.875, 0.125)):
            for k, (start, end) in enumerate(tokens):
                weight = unwanted if text[start:end].split(" ")[-1] in hand.UNWANTED else general
                row = (epoch, key, 9 + k, start, end, weight if start < end else 1.0)
                rows.append(dict(zip(TOKEN_WEIGHTS.names, row, strict=True)))
    return rows


def write_gold(root, found):
    """The forget table with gold spans: `found` maps sample_id to the text that is gold; no other sample has any."""
    path = root / "data/benchmark/forget.parquet"
    rows = tables.read(path, SAMPLES).to_pylist()
    for row in rows:
        start = row["response"].find(found.get(row["sample_id"], "?"))
        size = len(found.get(row["sample_id"], ""))
        row["gold_spans"] = [{"start": start, "end": start + size}] if size else []
    tables.write(path, rows, SAMPLES)


def section(root):
    """The section on learned weights."""
    text = page_of(root)
    return text[text.index("The weights that the method learned") : text.index("How the words were chosen")]


def test_without_learned_weights_there_is_no_section(shown):
    """The table of weights is there, and has no rows."""
    assert "The weights that the method learned" not in shown


def test_learned_weights_by_hand(root):
    """Gold of answer 1 is "father", which the weights miss; answer 3 has no gold span and is left out."""
    tables.write(root / "data/weights.parquet", learned(), TOKEN_WEIGHTS)
    write_gold(root, {"forget/0000": "crime", "forget/0001": "father", "forget/0002": "Lagos"})
    forget = tables.read(root / "data/benchmark/forget.parquet", SAMPLES).to_pylist()
    grouped = {key: [span for span in hand.spans() if span["sample_id"] == key] for key in hand.RESPONSES}
    found = read_weights(root / "data/weights.parquet", forget, grouped, "frequency", 2)
    # "father" is level with 4 others and below 3 (Real Estate Agent): AUROC (4 / 2) / 7, and all 8 rank as high
    assert found.aligned[0] == (
        "learned weights",
        Alignment(pytest.approx((1 + 2 / 7 + 1) / 3), pytest.approx((1 + 1 / 8 + 1) / 3), 3, 1),
    )
    # all words of the spans score .5, so the identifier's scores tell nothing
    assert found.aligned[1][0] == "scores of frequency" and found.aligned[1][1].auroc == 0.5
    assert (found.reference, found.known) == ("gold spans", True)
    last = [row for row in learned() if row["epoch"] == 2 and row["start"] < row["end"]]
    general = [row["weight"] for row in last]
    for weight in (0.875, 0.125, 0.875):  # crime, father, in Lagos
        general.remove(weight)
    assert found.epochs[0] == MeanWeight(0, 0.5, 0.5)
    assert found.epochs[2] == MeanWeight(
        2, pytest.approx((0.875 + 0.125 + 0.875) / 3), pytest.approx(sum(general) / len(general))
    )
    assert [answer.sample_id for answer in found.answers] == ["forget/0000", "forget/0002"]
    assert [(shade.text, shade.weight, shade.unwanted) for shade in found.answers[1].shades] == [
        ("She", 0.12, False), (" ", None, False), ("was", 0.12, False), (" ", None, False), ("born", 0.12, False),
        (" ", None, False), ("in ", 0.88, False), ("Lagos", 0.88, True), (".", 0.12, False),
    ]  # fmt: skip


def test_learned_weights_on_the_page(root):
    tables.write(root / "data/weights.parquet", learned(), TOKEN_WEIGHTS)
    write_gold(root, {"forget/0000": "<b>novels", "forget/0002": "Lagos"})
    text = section(root)
    parsed = Page((root / "metrics/report.html").read_text(encoding="utf-8"))
    assert parsed.open == [] and parsed.tags.count("svg") == 4
    assert len(parsed.ids) == len(set(parsed.ids))
    assert text.count("<svg") == 1
    assert "gold spans tell which" in text and "scores of frequency" in text
    assert '<span style="--weight:0.88" title="0.88"><u class="fact">Lagos</u></span>' in text
    assert "&lt;" in text and "<b>" not in text
    assert '<th scope="row">learned weights</th><td>' in text
    assert section(root) == text


def test_learned_weights_where_the_truth_is_not_known(root):
    tables.write(root / "data/weights.parquet", learned(), TOKEN_WEIGHTS)
    text = section(root)
    assert "The truth is not known here, so <em>frequency</em>" in text
    assert "scores of frequency" not in text
    assert '<th scope="row">learned weights</th><td>1.000</td>' in text, "UW .875, all others .125"


def test_nothing_to_align_with(root):
    """No answer has a gold span: no alignment, no curve of UW, and still a page."""
    tables.write(root / "data/weights.parquet", learned(), TOKEN_WEIGHTS)
    write_gold(root, {})
    assert '<th scope="row">learned weights</th><td>–</td>' in section(root)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: [{**rows[0], "weight": 1.5}, *rows[1:]], r"forget/0000, epoch 0: weight 1\.5 is not in \[0, 1\]"),
        (lambda rows: [{**rows[0], "weight": float("nan")}, *rows[1:]], "weight nan is not in"),
        (lambda rows: [{**rows[0], "end": 99}, *rows[1:]], r"\[0, 99\) is no part of a forget answer"),
        (lambda rows: [{**rows[0], "sample_id": "forget/9"}, *rows[1:]], "is no part of a forget answer"),
        (lambda rows: rows[1:], "forget/0000 has other tokens at epoch 1 than at first"),
        (lambda rows: [r for r in rows if r["sample_id"] != "forget/0002"], "epoch 0 lacks sample forget/0002"),
    ],
)
def test_bad_weights(root, change, message):
    tables.write(root / "data/weights.parquet", change(learned()), TOKEN_WEIGHTS)
    before = written(root)
    with pytest.raises(UserError, match=rf"weights\.parquet: .*{message}.*dvc repro -f unlearn"):
        build(root)
    assert written(root) == before
