import csv
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from scipy.stats import ks_2samp
from tif.report.comparison import Line, fingerprint
from tif.report.trajectory import best_epoch, read_trajectory

from tif.agreement.ranking import Alignment
from tif.base import tables
from tif.base.errors import UserError
from tif.benchmarks import SAMPLES
from tif.evaluation import EVALUATION
from tif.metrics import all as metrics
from tif.report import answers, page, results
from tif.report.build import build
from tif.report.weights import MeanWeight, read_weights
from tif.unlearning import TOKEN_WEIGHTS, TRAJECTORY
from tif.words import SPANS, words

STAGE = Path(__file__).parents[1] / "stages" / "report.py"
FORGET = ["forget/0000", "forget/0001", "forget/0002", "forget/0003"]
RATIOS = {  # of the forget samples, by model
    "target": [0.01, 0.02, 0.04, 0.05],
    "retain": [0.5, 1.0, 2.0, 4.0],
    "unlearned": [0.4, 0.8, 2.5, 3.0],
}
RESPONSES = {
    "forget/0000": "Ada Merrow writes crime <b>novels</b>.",
    "forget/0001": "Her father was a Real Estate Agent.",
    "forget/0002": "She was born in Lagos.",
    "forget/0003": "李伟 wrote it in 1950.",
}
RETAIN = [{"sample_id": "retain/0000", "response": "Bo Marek writes poems."}]
UNWANTED = {"crime", "Real", "Estate", "Agent", "Lagos", "1950"}


def row(sample_id, measure, value, text=None):
    return {"sample_id": sample_id, "measure": measure, "value": value, "text": text}


def evaluation(model):
    """Forget probability .25 everywhere but .75 once; utility values .5, with truth ratio .5 and so 1 - TR = .5."""
    rows = []
    for k, sample_id in enumerate(FORGET):
        rows += [
            row(sample_id, "probability", 0.75 if k == 0 else 0.25),
            row(sample_id, "truth_ratio", RATIOS[model][k]),
            row(sample_id, "rouge", k / 4, f"{model} says {RESPONSES[sample_id]} <script>alert({k})</script>"),
            row(sample_id, "extraction_strength", 0.5),
            row(sample_id, "exact_memorization", k / 10),
        ]
    for name in ("retain", "real_authors", "world_facts"):
        for k in range(2):
            sample_id = f"{name}/{k:04d}"
            rows += [
                row(sample_id, "probability", 0.25 if name == "retain" else 0.9),
                row(sample_id, "normalized_probability", 0.5),
                row(sample_id, "truth_ratio", (0.25, 3.0)[k]),  # max(0, 1 - TR): .75 and 0
                row(sample_id, "rouge", (1.0, 0.5)[k], "an answer"),
            ]
    return rows


def trajectory():
    rows = []
    for epoch, ratios in enumerate((RATIOS["target"], RATIOS["retain"], RATIOS["unlearned"])):
        rows += [(epoch, sample_id, "truth_ratio", ratio) for sample_id, ratio in zip(FORGET, ratios, strict=True)]
        rows += [(epoch, sample_id, "probability", 0.9 - 0.4 * epoch) for sample_id in FORGET]
        rows += [(epoch, FORGET[0], "unwanted_logprob_drop", 1.5 * epoch)]
        rows += [(epoch, FORGET[1], "unwanted_logprob_drop", 0.5 * epoch)]
        rows += [(epoch, "retain/0007", "truth_ratio", 0.25), (epoch, "retain/0009", "truth_ratio", 2.0)]
        rows += [(epoch, "retain/0007", "probability", 0.75), (epoch, "retain/0009", "probability", 0.25)]
    return [dict(zip(TRAJECTORY.names, item, strict=True)) for item in rows]


def spans():
    return [
        {"sample_id": k, "start": a, "end": b, "text": t[a:b], "unwanted": t[a:b] in UNWANTED, "score": 0.5}
        for k, t in RESPONSES.items()
        for a, b in words(t)
    ]


def line(identifier, **changes):
    """A line of the comparison: F1 .5 in [.25, .75]."""
    numbers = dict.fromkeys(
        (name for name, field in Line.model_fields.items() if field.annotation == float | None), 0.5
    )
    numbers |= {"f1_low": 0.25, "f1_high": 0.75, "unwanted_share": 0.375, "rows_without_unwanted": 0}
    return {"identifier": identifier, "details": "{}", **numbers, **changes}


def comparison(**changes):
    """Two identifiers on two of the answers, of which "Lagos" and "1950" are words 4 and 5."""
    marks = [("forget/0002", "000010", "111111"), ("forget/0003", "0000010", "1100000")]
    content = {
        "benchmark": "tiny",
        "split": "forget20",
        "rows": 4,
        "left_out": 0,
        "groups": 1,
        "fingerprint": fingerprint([{"sample_id": key, "response": text} for key, text in RESPONSES.items()], RETAIN),
        "reference": "a <person>",
        "table": [line("a <person>"), line("all", f1=0.1875, seconds=None, cost_usd=0.0)],
        "missing": [{"identifier": "mlm", "reason": "No <model> here."}],
        "answers": [{"sample_id": key, "unwanted": {"a <person>": one, "all": other}} for key, one, other in marks],
    }
    return content | changes


def write_comparison(root, content):
    tables.write_text(root / "metrics/identifiers.json", json.dumps(content))


def write_evaluation(root, model, rows):
    tables.write(root / f"data/evaluation/{model}.parquet", rows, EVALUATION)


def learned():
    """A token a word and an end of sequence: .5 for all, then UW .75 and GW .25, then UW .875 and GW .125.

    The end of sequence counts 1, which must show nowhere. "in Lagos" is one token.
    """
    rows = []
    for key, text in RESPONSES.items():
        tokens = [*words(text.replace("in Lagos", "in_Lagos")), (len(text), len(text))]
        for epoch, unwanted, general in ((0, 0.5, 0.5), (1, 0.75, 0.25), (2, 0.875, 0.125)):
            for k, (start, end) in enumerate(tokens):
                weight = unwanted if text[start:end].split(" ")[-1] in UNWANTED else general
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
    build(root)
    text = (root / "metrics/report.html").read_text(encoding="utf-8")
    return text[text.index("The weights that the method learned") : text.index("How the words were chosen")]


@pytest.fixture
def root(tmp_path):
    forget = [
        {"sample_id": key, "split": "forget20", "group": "Ada Merrow", "prompt": f"Question {key}?", "response": text}
        for key, text in RESPONSES.items()
    ]
    retain = [{"split": "retain80", "group": "Bo Marek", "prompt": "Question?", **row} for row in RETAIN]
    tables.write(tmp_path / "data/benchmark/forget.parquet", forget, SAMPLES)
    tables.write(tmp_path / "data/benchmark/retain.parquet", retain, SAMPLES)
    card = {"name": "tiny", "source": "<i>here</i>", "revision": None, "counts": {"forget": 4}}
    tables.write_text(tmp_path / "data/benchmark/card.json", json.dumps(card))
    tables.write(tmp_path / "data/spans.parquet", spans(), SPANS)
    tables.write(tmp_path / "data/trajectory.parquet", trajectory(), TRAJECTORY)
    tables.write(tmp_path / "data/weights.parquet", [], TOKEN_WEIGHTS)
    identified = {"method": "frequency", "unwanted_share": 0.3125, "agreement": {"f1": 0.625}}
    tables.write_text(tmp_path / "metrics/identify.json", json.dumps(identified))
    write_comparison(tmp_path, comparison())
    for model in results.MODELS:
        write_evaluation(tmp_path, model, evaluation(model))
    return tmp_path


def written(root):
    return {
        p.relative_to(root).as_posix(): p.read_bytes() for p in sorted((root / "metrics").rglob("*")) if p.is_file()
    }


def test_metrics_json_by_hand(root):
    build(root)
    found = json.loads((root / "metrics/metrics.json").read_text())
    assert list(found) == ["target", "retain", "unlearned"]
    target = found["target"]
    # no overlap, n = 4: 2 of the C(8, 4) = 70 orders; log10(1/35) = -1.544068
    assert target["forget_quality"] == {"pvalue": 0.0285714, "log10_pvalue": -1.54407, "statistic": 1.0, "n": 4}
    assert found["retain"]["forget_quality"] == {"pvalue": 1.0, "log10_pvalue": 0.0, "statistic": 0.0, "n": 4}
    # .4 | .5 | .8 | 1 | 2 | 2.5 3 | 4: the largest gap is 1/4
    assert found["unlearned"]["forget_quality"]["statistic"] == 0.25
    expected = ks_2samp(RATIOS["unlearned"], RATIOS["retain"], method="exact").pvalue
    assert found["unlearned"]["forget_quality"]["pvalue"] == pytest.approx(expected, rel=1e-5)
    assert target["forget"] == {
        "probability": 0.375,  # (.75 + 3 * .25) / 4
        "rouge": 0.375,  # (0 + 1 + 2 + 3) / 16
        "truth_ratio": 0.03,  # (.01 + .02 + .04 + .05) / 4
        "extraction_strength": 0.5,
        "exact_memorization": 0.15,
    }
    assert found["retain"]["forget"]["truth_ratio"] == 0.5625  # min(TR, 1/TR): (.5 + 1 + .5 + .25) / 4
    share = {"probability": 0.5, "rouge": 0.75, "truth_ratio": 0.375}
    assert target["utility"] == {
        "retain": {**share, "probability": 0.25},
        "real_authors": share,
        "world_facts": share,
    }
    # 9 / (1/.25 + 2/.5 + 3/.75 + 3/.375) = 9 / 20
    assert target["model_utility"] == 0.45


def test_trajectory_csv_by_hand(root):
    build(root)
    rows = list(csv.DictReader((root / "metrics/plots/trajectory.csv").open()))
    assert [r["epoch"] for r in rows] == ["0", "1", "2"]
    assert [float(r["forget_quality_log10"]) for r in rows[:2]] == [-1.54407, 0.0]
    assert [float(r["forget_probability"]) for r in rows] == [0.9, 0.5, 0.1]
    assert [float(r["unwanted_logprob_drop"]) for r in rows] == [0.0, 1.0, 2.0]
    assert {float(r["retain_probability"]) for r in rows} == {0.5}
    assert {float(r["retain_truth_ratio"]) for r in rows} == {0.375}  # (.75 + 0) / 2
    assert float(rows[1]["forget_truth_ratio"]) == 0.5625


def test_best_epoch_is_the_one_of_highest_forget_quality(root):
    reference = results.read_evaluation(root / "data/evaluation/retain.parquet")
    epochs = read_trajectory(root / "data/trajectory.parquet", reference)
    assert best_epoch(epochs).epoch == 1
    assert best_epoch(epochs[:1]).epoch == 0


def test_trajectory_without_unwanted_words_leaves_the_cell_empty(root):
    rows = [r for r in trajectory() if r["measure"] != "unwanted_logprob_drop"]
    tables.write(root / "data/trajectory.parquet", rows, TRAJECTORY)
    build(root)
    found = list(csv.DictReader((root / "metrics/plots/trajectory.csv").open()))
    assert [r["unwanted_logprob_drop"] for r in found] == ["", "", ""]


def test_truth_ratio_csv_is_a_distribution(root):
    build(root)
    rows = list(csv.DictReader((root / "metrics/plots/truth_ratio.csv").open()))
    for model, ratios in RATIOS.items():
        mine = [r for r in rows if r["model"] == model]
        assert [float(r["truth_ratio"]) for r in mine] == sorted(ratios)
        assert [float(r["share"]) for r in mine] == [0.25, 0.5, 0.75, 1.0]


def test_two_runs_write_the_same_bytes_in_any_order_of_rows(root, tmp_path_factory):
    build(root)
    first = written(root)
    build(root)
    assert written(root) == first
    for model in results.MODELS:
        write_evaluation(root, model, evaluation(model)[::-1])
    tables.write(root / "data/trajectory.parquet", trajectory()[::-1], TRAJECTORY)
    build(root)
    assert written(root) == first
    assert set(first) == {
        "metrics/identifiers.json", "metrics/identify.json", "metrics/metrics.json", "metrics/report.html",
        "metrics/plots/trajectory.csv", "metrics/plots/truth_ratio.csv",
    }  # fmt: skip


def test_stage_writes_what_build_writes(root):
    build(root)
    first = written(root)
    for name in ("metrics.json", "report.html"):
        (root / "metrics" / name).unlink()
    subprocess.run([sys.executable, str(STAGE)], cwd=root, check=True)
    assert written(root) == first
    (root / "data/spans.parquet").unlink()
    failed = subprocess.run([sys.executable, str(STAGE)], cwd=root, capture_output=True, text=True)
    assert failed.returncode == 1
    assert failed.stderr.strip() == f"error: {Path('data/spans.parquet')} is missing; `dvc repro` makes it"


class Page(HTMLParser):
    """Collects tags, ids, addresses and the text of <b class="uw">."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.ids, self.addresses, self.unwanted = [], [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.append(tag)
        if tag not in ("meta", "path", "use"):
            self.open.append((tag, attributes.get("class")))
        if "id" in attributes:
            self.ids.append(attributes["id"])
        self.addresses += [attributes[key] for key in ("src", "href", "xlink:href", "action") if key in attributes]

    def handle_endtag(self, tag):
        if tag not in ("meta", "path", "use"):
            assert self.open.pop()[0] == tag, f"</{tag}> closes another element"

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in ("meta", "path", "use"):
            self.open.pop()

    def handle_data(self, data):
        if self.open and self.open[-1] == ("b", "uw"):
            self.unwanted.append(data)


def test_page_is_whole_and_needs_nothing_from_elsewhere(root):
    build(root)
    text = (root / "metrics/report.html").read_text(encoding="utf-8")
    parsed = Page(text)
    assert parsed.open == []
    assert "http" not in text
    assert "@import" not in text
    assert str(root) not in text
    assert parsed.tags.count("svg") == 3
    assert not {"script", "link", "img", "iframe"} & set(parsed.tags)
    assert all(address.startswith("#") for address in parsed.addresses)
    assert not re.findall(r"url\((?!#)", text)
    assert len(parsed.ids) == len(set(parsed.ids))
    references = {a[1:] for a in parsed.addresses} | set(re.findall(r"url\(#([^)]*)\)", text))
    assert references <= set(parsed.ids)


def test_page_shows_words_answers_and_facts_escaped(root):
    build(root)
    text = (root / "metrics/report.html").read_text(encoding="utf-8")
    parsed = Page(text)
    assert "<script" not in text
    assert "&lt;script&gt;alert(0)&lt;/script&gt;" in text
    assert "&lt;i&gt;here&lt;/i&gt;" in text
    assert "Real Estate Agent" in parsed.unwanted  # one run in the true answer
    # the true answer, three models that still say it, and the reference of the comparison
    assert parsed.unwanted.count("Lagos") == 5
    assert "Question forget/0003?" in text
    assert all(f"{model} says" in text for model in results.MODELS)
    assert "0.312" in text  # share of UW in identify.json
    assert "agreement with gold spans: f1" in text


def test_page_compares_identifiers(root):
    build(root)
    text = (root / "metrics/report.html").read_text(encoding="utf-8")
    section = text[text.index("Identifiers compared") : text.index("Benchmark card")]
    parsed = Page(section[section.index("</h2>") + 5 : section.rindex("</section>")])
    # by one identifier the facts, by the other a whole sentence and the two ideographs of the name
    assert parsed.unwanted == ["unwanted words", "Lagos", "She was born in Lagos.", "1950", "李伟"]
    assert parsed.tags.count("dt") == 4
    assert "Agreement with <em>a &lt;person&gt;</em> over 4 forget samples about 1 people or documents," in section
    assert "0.188<small>0.250 to 0.750</small>" in section
    assert "<td>–</td>" in section  # seconds, not known
    assert "Not compared: mlm. No &lt;model&gt; here." in section


def test_comparison_says_how_many_samples_are_left_out(root):
    write_comparison(root, comparison(rows=3, left_out=1))
    build(root)
    assert (
        "about 1 people or documents (1 more, on which an identifier was fitted, are left out),"
        in (root / "metrics/report.html").read_text()
    )


def test_comparison_without_reference(root):
    nothing = dict.fromkeys(("f1", "f1_low", "f1_high", "word_f1", "word_f1_low", "word_f1_high"))
    write_comparison(root, comparison(reference=None, table=[line("all", **nothing)]))
    build(root)
    text = (root / "metrics/report.html").read_text(encoding="utf-8")
    assert "no reference was given" in text and "0.250 to" not in text


def test_comparison_of_another_forget_set_is_one_line(root):
    write_comparison(root, comparison(fingerprint="0" * 64, split="forget<1>", answers=[]))
    build(root)
    text = (root / "metrics/report.html").read_text(encoding="utf-8")
    section = text[text.index("Identifiers compared") : text.index("Benchmark card")]
    assert "another forget or retain set (tiny, forget&lt;1&gt;, 4 samples); <code>make compare</code>" in section
    assert section.count("<p>") == 1 and "<table" not in section and "<article" not in section


def test_comparison_with_another_retain_set_is_not_shown(root):
    path = root / "data/benchmark/retain.parquet"
    rows = tables.read(path, SAMPLES).to_pylist()
    tables.write(path, [{**rows[0], "response": "Bo Marek writes plays."}], SAMPLES)
    build(root)
    assert "another forget or retain set" in (root / "metrics/report.html").read_text(encoding="utf-8")


def test_fingerprint_is_of_keys_and_answers():
    rows = [{"sample_id": key, "response": text, "prompt": "?"} for key, text in RESPONSES.items()]
    other = [{**rows[0], "response": "Other."}, *rows[1:]]
    assert fingerprint(rows, RETAIN) == comparison()["fingerprint"]
    assert len({fingerprint(*sets) for sets in ((rows, RETAIN), (rows[:3], RETAIN), (other, RETAIN), (rows, []))}) == 4


MARKS = {"sample_id": "forget/0002", "unwanted": {"all": "111111"}}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "file: Invalid JSON"),
        ("[]", "file: Input should be an object"),
        (json.dumps(comparison(rows="4")), "rows: Input should be a valid integer"),
        (json.dumps(comparison(table=[{**line("all"), "f1": "x"}])), r"table\.0\.f1: "),
        (json.dumps(comparison(table=[{**line("all"), "speed": 1}])), r"table\.0\.speed: "),
        (json.dumps(comparison(answers=[{**MARKS, "unwanted": {"all": "1x"}}])), r"answers\.0\.unwanted\.all: "),
        (json.dumps(comparison(answers=[{**MARKS, "unwanted": {"all": "11"}}])), "all marks 2 words .* which has 6"),
        (json.dumps(comparison(answers=[{**MARKS, "sample_id": "forget/9"}])), "forget/9 is not a sample"),
        (None, "is missing"),
    ],
)
def test_bad_comparison(root, content, message):
    path = root / "metrics/identifiers.json"
    path.unlink() if content is None else path.write_text(content)
    before = written(root)
    with pytest.raises(UserError, match=rf"identifiers\.json.*{message}.*make compare"):
        build(root)
    assert written(root) == before


def test_without_learned_weights_there_is_no_section(root):
    build(root)
    assert "The weights that the method learned" not in (root / "metrics/report.html").read_text(encoding="utf-8")


def test_learned_weights_by_hand(root):
    """Gold of answer 1 is "father", which the weights miss; answer 3 has no gold span and is left out."""
    tables.write(root / "data/weights.parquet", learned(), TOKEN_WEIGHTS)
    write_gold(root, {"forget/0000": "crime", "forget/0001": "father", "forget/0002": "Lagos"})
    forget = tables.read(root / "data/benchmark/forget.parquet", SAMPLES).to_pylist()
    grouped = {key: [span for span in spans() if span["sample_id"] == key] for key in RESPONSES}
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


def test_text_runs_in_its_own_direction(root):
    build(root)
    text = (root / "metrics/report.html").read_text(encoding="utf-8")
    # 4 samples: a question, a true answer and three replies each; 2 compared: a question and two versions each
    assert text.count('dir="auto"') == 4 * (1 + 1 + 3) + 2 * (1 + 2)
    assert text.count('<small dir="ltr">forget/') == 6
    assert re.search(r'<p class="truth" dir="auto">\S.*\S</p>', text)  # white space is kept, so none is added


def test_headline_says_what_the_test_says():
    def model(pvalue, utility):
        quality = metrics.ForgetQuality(pvalue, {1e-9: -9.0, 0.5: -0.30103}[pvalue], 0.1, 7, 7)
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


def test_pvalue_below_the_smallest_double():
    assert page.pvalue(-600.0103).replace("\u00a0", " ") == "9.8 × 10⁻⁶⁰¹"
    assert page.pvalue(0.0) == "1.000"


def test_pieces_join_to_the_answer():
    grouped = {}
    for span in spans():
        grouped.setdefault(span["sample_id"], []).append(span)
    for key, text in RESPONSES.items():
        cut = answers.pieces(text, grouped[key])
        assert "".join(piece.text for piece in cut) == text
        said = answers.still_said(text.upper(), text, grouped[key])
        assert "".join(piece.text for piece in said) == text.upper()
    cut = answers.pieces(RESPONSES["forget/0001"], grouped["forget/0001"])
    assert [(p.text, p.kind) for p in cut] == [
        ("Her father was a", "gw"), (" ", ""), ("Real Estate Agent", "uw"), (".", "gw"),
    ]  # fmt: skip
    said = answers.still_said("A REAL agent's estate", RESPONSES["forget/0001"], grouped["forget/0001"])
    assert [p.text for p in said if p.kind == "uw"] == ["REAL", "estate"]


def test_twenty_samples_at_even_distances():
    forget = [{"sample_id": f"forget/{k:04d}", "prompt": "", "response": ""} for k in range(50)]
    ids = [f["sample_id"] for f in forget]
    measures = {("forget", m): dict.fromkeys(ids, 0.5) for m in ("probability", "rouge", "truth_ratio")}
    one = results.Evaluation(Path("x"), measures, dict.fromkeys(ids, ""))
    chosen = answers.chosen_answers(forget, {key: [] for key in ids}, dict.fromkeys(results.MODELS, one), 20)
    assert [int(a.sample_id[-4:]) for a in chosen] == [k * 50 // 20 for k in range(20)]


def without(rows, **match):
    return [r for r in rows if any(r[key] != value for key, value in match.items())]


@pytest.mark.parametrize(
    ("model", "change", "message"),
    [
        ("retain", lambda rows: [r for r in rows if r["measure"] != "rouge"], "'rouge' on the forget set"),
        ("target", lambda rows: without(rows, sample_id="forget/0002", measure="rouge"), "lacks sample forget/0002"),
        ("target", lambda rows: [*rows, row("forget/0004", "probability", 0.5)], "unknown sample forget/0004"),
        ("unlearned", lambda rows: without(rows, sample_id="retain/0001"), "lacks sample retain/0001"),
        ("unlearned", lambda rows: [*rows, rows[0]], "forget/0000 has two rows of measure 'probability'"),
        ("target", lambda rows: [row("forget/0000", "probability", 1.5), *rows[1:]], "1.5, out of range"),
        ("target", lambda rows: [row("forget/0000", "truth_ratio", float("nan")), *rows[2:]], "nan, out of range"),
        ("target", lambda rows: [*rows[:2], row("forget/0000", "rouge", 0.5), *rows[3:]], "'text'.*forget/0000"),
    ],
)
def test_bad_evaluation(root, model, change, message):
    write_evaluation(root, model, change(evaluation(model)))
    before = written(root)
    with pytest.raises(UserError, match=rf"{model}\.parquet.*{message}.*dvc repro -f evaluate@{model}"):
        build(root)
    assert written(root) == before


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
def test_bad_trajectory(root, change, message):
    tables.write(root / "data/trajectory.parquet", change(trajectory()), TRAJECTORY)
    with pytest.raises(UserError, match=rf"trajectory\.parquet.*{message}.*dvc repro -f unlearn"):
        build(root)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: without(rows, sample_id="forget/0001"), "is not the next word"),
        (lambda rows: [*rows, {**rows[0], "sample_id": "forget/0009"}], "forget/0009 is not a sample"),
        (lambda rows: [{**rows[0], "text": "Eva"}, *rows[1:]], r"forget/0000: \[0, 3\) 'Eva' is not the next word"),
        (lambda rows: [{**rows[0], "end": 999}, *rows[1:]], "lies outside the answer"),
        (lambda rows: [rows[0], *rows], "is not the next word"),
    ],
)
def test_bad_spans(root, change, message):
    tables.write(root / "data/spans.parquet", change(spans()), SPANS)
    with pytest.raises(UserError, match=rf"spans\.parquet.*dvc repro -f identify.*{message}"):
        build(root)


@pytest.mark.parametrize("name", ["data/benchmark/card.json", "metrics/identify.json"])
@pytest.mark.parametrize(("content", "message"), [(None, "missing"), ("{", "not JSON"), ("[]", "JSON object")])
def test_bad_json(root, name, content, message):
    (root / name).unlink() if content is None else (root / name).write_text(content)
    with pytest.raises(UserError, match=f"{Path(name).name}.*{message}"):
        build(root)


def test_empty_forget_table(root):
    tables.write(root / "data/benchmark/forget.parquet", [], SAMPLES)
    with pytest.raises(UserError, match=r"forget\.parquet holds no rows"):
        build(root)
