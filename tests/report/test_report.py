"""The report page: what it shows, that it is whole and needs nothing else, and that the same input gives the same."""

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import hand_evaluated as hand
import pytest
from html_page import Page, page_of, written
from in_process import STAGES, run_stage

from tif.base import tables
from tif.benchmarks import Set
from tif.evaluation import TEXTS
from tif.metrics import MEASURES, MODELS, ForgetQuality
from tif.report import answers, page
from tif.report.epochs import Epoch, best_epoch, read_epochs
from tif.report.results import Results


def remeasured(root, changes, **facts):
    """The page for another card; changes: of sets, by name, None for no such set."""
    hand.write_card(root, {name: about for name, about in (hand.SETS | changes).items() if about}, **facts)
    run_stage("measure", root)
    return page_of(root)


def test_the_stage_writes_the_same_bytes_in_any_order_of_rows(root, shown):
    for model in MODELS:
        tables.write(root / f"data/evaluation/{model}/texts.parquet", hand.texts(model)[::-1], TEXTS)
    measures = tables.read(root / "data/measures.parquet", MEASURES).to_pylist()
    tables.write(root / "data/measures.parquet", measures[::-1], MEASURES)
    before = written(root)
    run_stage("report", root)
    assert written(root) == {**before, "metrics/report.html": shown.encode()}


def test_the_stage_as_a_process_says_in_one_line_what_is_missing(root):
    (root / "data/spans.parquet").unlink()
    failed = subprocess.run([sys.executable, STAGES / "report.py"], cwd=root, capture_output=True, text=True)
    assert failed.returncode == 1
    assert failed.stderr.strip() == f"error: {Path('data/spans.parquet')} is missing; `dvc repro` makes it"


def test_the_page_is_whole_and_needs_nothing_from_elsewhere(shown, tmp_path):
    text, parsed = shown, Page(shown)
    assert parsed.open == []
    assert "http" not in text
    assert "@import" not in text
    assert str(tmp_path.parent) not in text
    assert parsed.tags.count("svg") == 3
    assert not {"script", "link", "img", "iframe"} & set(parsed.tags)
    assert all(address.startswith("#") for address in parsed.addresses)
    assert not re.findall(r"url\((?!#)", text)
    assert len(parsed.ids) == len(set(parsed.ids))
    references = {a[1:] for a in parsed.addresses} | set(re.findall(r"url\(#([^)]*)\)", text))
    assert references <= set(parsed.ids)


def test_the_page_shows_words_answers_and_facts_escaped(shown):
    text, parsed = shown, Page(shown)
    assert "<script" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "&lt;i&gt;here&lt;/i&gt;" in text
    assert "Real Estate Agent" in parsed.unwanted  # one run in the true answer
    assert parsed.unwanted.count("Lagos") == 4  # the true answer, and three models that still say it
    assert "Question forget/0003?" in text
    assert all(f"{model} says" in text for model in MODELS)
    assert text.count("(empty answer)") == 3  # to the first question
    assert "0.312" in text  # share of UW in identify.json
    assert "agreement with gold spans: f1" in text
    assert "Identifiers compared" not in text


def test_the_table_has_what_measures_and_sets_call_themselves(shown):
    """No name of a set stands in the code: those of a benchmark that nobody has seen before are shown too."""
    parsed = Page(shown)
    assert parsed.row("Forget quality↑ higher is better") == ["0.029", "1.000", "1.000"]
    assert parsed.row("Forget set: truth ratio≈ near retain is best") == ["0.030", "0.562", "0.483"]
    assert parsed.row("Forget set: extraction strength≈ near retain is best") == ["0.375"] * 3
    assert parsed.row("Holdout set: probability≈ near retain is best") == ["0.300"] * 3
    assert parsed.row("Model utility↑ higher is better") == ["0.380"] * 3
    assert parsed.row("Retain set: probability↑") == ["0.250"] * 3
    assert parsed.row("Capitals of the world: probability among the answers↑") == ["0.375"] * 3
    assert parsed.row("Capitals of the world: ROUGE↑") == ["0.750"] * 3
    assert parsed.row("Rivers of the world: ROUGE↑") == ["1.000"] * 3


def test_without_a_holdout_the_card_says_why(root):
    text = remeasured(root, {"holdout": None}, absent={"holdout": "it is <0>"})
    assert not [cells for cells in Page(text).rows if cells and cells[0].startswith("Holdout set")]
    assert "<dt>absent: holdout</dt><dd>it is &lt;0&gt;</dd>" in text


def test_other_sets_and_measures_than_tofus(root):
    """One utility set with another title; and none, so that model utility is not shown."""
    text = remeasured(root, {"capitals": None, "rivers": replace(hand.SETS["rivers"], title="Streams <of> the world")})
    assert Page(text).row("Streams <of> the world: truth ratio↑") == ["0.250"] * 3
    assert "Capitals" not in text
    plain = Set("retain", "Retain set", ("response", "paraphrase", "wrong"), True, ("probability",))
    text = remeasured(root, {"capitals": None, "rivers": None, "retain": plain})
    parsed = Page(text)
    assert not [cells for cells in parsed.rows if cells and cells[0].startswith(("Model utility", "Retain set"))]
    assert "(forget quality 1.000, before 0.029).</p>" in text  # and nothing of utility behind it
    assert parsed.open == []


def test_text_runs_in_its_own_direction(shown):
    # 4 samples: a question, a true answer and three replies each, of which one sample's are empty
    assert shown.count('dir="auto"') == 4 * (1 + 1 + 3) - 3
    assert shown.count('<small dir="ltr">forget/') == 4
    assert re.search(r'<p class="truth" dir="auto">\S.*\S</p>', shown)  # white space is kept, so none is added


def test_the_headline_says_what_the_test_says():
    def model(pvalue, utility):
        quality = ForgetQuality(pvalue, {1e-9: -9.0, 0.5: -0.30103}[pvalue], 0.1, 7, 7)
        found = {"pvalue": quality.pvalue, "log10_pvalue": quality.log10_pvalue, "n": 7}
        return {"forget_quality": found, "model_utility": utility}

    good = page.headline({"target": model(1e-9, 0.8), "unlearned": model(0.5, 0.6)})
    assert "can no longer tell" in good
    assert "75 % of the target model's 0.800" in good
    assert "7 forget answers (forget quality 0.500, before 1.0\u00a0×\u00a010⁻⁹)" in good
    assert "can still tell" in page.headline({"target": model(1e-9, 0.8), "unlearned": model(1e-9, 0.6)})
    assert "can now tell" in page.headline({"target": model(0.5, 0.0), "unlearned": model(1e-9, 0.0)})
    assert "cannot, as before, tell" in page.headline({"target": model(0.5, 0.8), "unlearned": model(0.5, 0.8)})


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.61234, "0.612"),
        (0.0, "0"),
        (1.0, "1.000"),
        (-58.65594, "−58.656"),
        (-0.00012, "−1.2 × 10⁻⁴"),
        (1e304, "1.0 × 10³⁰⁴"),
        (0.00099999, "1.0 × 10⁻³"),
    ],
)
def test_numbers_as_shown(value, shown):
    assert page.number(value).replace("\u00a0", " ") == shown


def test_a_pvalue_below_the_smallest_double():
    assert page.pvalue(-600.0103).replace("\u00a0", " ") == "9.8 × 10⁻⁶⁰¹"
    assert page.pvalue(0.0) == "1.000"


def test_the_best_epoch_is_the_one_of_highest_forget_quality(root, shown):
    epochs = read_epochs(root / "metrics/plots/trajectory.csv")
    assert epochs[1] == Epoch(1, 0.0, 0.5, 0.5)
    assert best_epoch(epochs).epoch == 1
    assert best_epoch(epochs[:1]).epoch == 0
    assert "Last epoch 2: forget quality 1.000, retain probability 0.500. Best epoch 1 " in shown


def test_pieces_join_to_the_answer():
    grouped = {}
    for span in hand.spans():
        grouped.setdefault(span["sample_id"], []).append(span)
    for key, text in hand.RESPONSES.items():
        cut = answers.pieces(text, grouped[key])
        assert "".join(piece.text for piece in cut) == text
        said = answers.still_said(text.upper(), text, grouped[key])
        assert "".join(piece.text for piece in said) == text.upper()
    cut = answers.pieces(hand.RESPONSES["forget/0001"], grouped["forget/0001"])
    assert [(p.text, p.kind) for p in cut] == [
        ("Her father was a", "gw"), (" ", ""), ("Real Estate Agent", "uw"), (".", "gw"),
    ]  # fmt: skip
    said = answers.still_said("A REAL agent's estate", hand.RESPONSES["forget/0001"], grouped["forget/0001"])
    assert [p.text for p in said if p.kind == "uw"] == ["REAL", "estate"]


def test_twenty_samples_at_even_distances():
    forget = [{"sample_id": f"forget/{k:04d}", "prompt": "", "response": ""} for k in range(50)]
    ids = [f["sample_id"] for f in forget]
    measures = {name: dict.fromkeys(ids, 0.5) for name in ("probability", "rouge", "truth_ratio")}
    found = Results(dict.fromkeys(MODELS, measures), dict.fromkeys(MODELS, dict.fromkeys(ids, "")), {})
    chosen = answers.chosen_answers(forget, {key: [] for key in ids}, found, 20)
    assert [int(a.sample_id[-4:]) for a in chosen] == [k * 50 // 20 for k in range(20)]
