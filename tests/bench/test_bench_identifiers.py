"""bench/analysis/identifiers.py on a benchmark of two answers: as a process once, and its parts in this one."""

import csv
import importlib
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tif.base import params, tables
from tif.base.errors import UserError
from tif.benchmarks import SAMPLES, fictitious
from tif.words import SPANS, span_rows

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "bench/analysis/identifiers.py"
PAIRS = [("Who is that old?", "Anna is 30."), ("Who lives there?", "Bert lives in Rome.")]
GOLD = [[{"start": 0, "end": 4}], [{"start": 0, "end": 4}]]


@pytest.fixture
def folder(tmp_path, table, monkeypatch):
    """A folder as `dvc repro download` leaves it, which becomes the working directory."""
    yaml = YAML()
    blocks = yaml.load(ROOT / "params.yaml")
    blocks["benchmark"]["name"] = "fictitious"
    blocks["identify"] = {"method": "frequency", "source": "data/none"}
    (tmp_path / "data/benchmark").mkdir(parents=True)
    (tmp_path / "data/none").touch()
    yaml.dump(blocks, tmp_path / "params.yaml")
    people = ["Anna", "Bert"]
    tables.write(
        tmp_path / "data/benchmark/forget.parquet",
        table("forget", PAIRS, gold_spans=GOLD, group=people),
        SAMPLES,
    )
    retain = table("retain", [("?", "Eve is 30."), ("?", "Dan lives in Rome.")])
    tables.write(tmp_path / "data/benchmark/retain.parquet", retain, SAMPLES)
    (tmp_path / "data/benchmark/card.json").write_text('{"name": "fictitious"}')
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def comparison(monkeypatch):
    """The module of that name."""
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    return importlib.import_module("comparison")


@pytest.fixture
def read(comparison):
    """Read metrics/identifiers.json of a folder."""
    return lambda folder: comparison.Comparison.model_validate_json((folder / "metrics/identifiers.json").read_bytes())


@pytest.fixture
def compare(folder, monkeypatch, read):
    """Run the script's main with options; returns what it wrote."""
    identifiers = importlib.import_module("identifiers")

    def run(*options: str):
        monkeypatch.setattr(sys, "argv", ["identifiers.py", *options])
        identifiers.main()
        return read(folder)

    return run


def annotate(path: Path, *words: list[str], pairs=PAIRS, field="target_words") -> Path:
    """Write JSON lines that list `words` of each answer."""
    lines = [
        {
            "question": question,
            "answer": answer,
            field: [{"word": w, "start": answer.index(w), "end": answer.index(w) + len(w)} for w in listed],
        }
        for (question, answer), listed in zip(pairs, words)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_the_whole_comparison_as_a_process(folder, comparison, read):
    done = subprocess.run([sys.executable, str(SCRIPT)], cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = read(folder)
    forget, retain = (
        tables.read(folder / f"data/benchmark/{name}.parquet", SAMPLES).to_pylist() for name in ("forget", "retain")
    )
    assert (found.benchmark, found.split) == ("fictitious", "forget")
    assert (found.rows, found.left_out) == (2, 0)
    assert (found.reference, found.fingerprint) == ("gold", comparison.fingerprint(forget, retain))
    # "Anna" and "Bert" alone are in no retain answer, so frequency is right everywhere; all finds 8 in 23 letters.
    assert [line.identifier for line in found.table] == ["gold", "frequency", "all"]
    assert [line.f1 for line in found.table] == pytest.approx([1, 1, 16 / 31], abs=1e-6)
    assert [line.unwanted_share for line in found.table] == pytest.approx([8 / 25, 8 / 25, 1], abs=1e-6)
    assert all(line.seconds >= 0 and line.cost_usd == 0 for line in found.table)
    # What reads a model or costs money is never run unasked, and nothing is left out without a word.
    missing = {item.identifier: item.reason for item in found.missing}
    assert set(missing) >= {"file", "mlm", "openai"}
    assert "needs an annotation" in missing["file"]
    assert "--source mlm=PATH" in missing["mlm"]
    assert "costs money" in missing["openai"]
    assert sorted({*missing, "gold", "frequency", "all"}) == params.known_names("identify")
    assert [marks.unwanted["frequency"] for marks in found.answers] == ["1000", "10000"]
    assert [marks.unwanted["all"] for marks in found.answers] == ["1111", "11111"]
    page = (folder / "metrics/identifiers.html").read_text(encoding="utf-8")
    assert page == comparison.page(found, forget)
    assert "not compared: file" in done.stdout and "metrics/identifiers.html" in done.stdout


def test_the_table_has_all_digits_and_the_interval_is_over_people(compare, folder):
    compare("--identifier", "all")
    with (folder / "metrics/identifiers.csv").open(newline="") as file:
        gold, every = list(csv.DictReader(file))
    assert (gold["identifier"], every["identifier"]) == ("gold", "all")
    assert (float(every["precision"]), float(every["recall"])) == (8 / 23, 1.0)
    # Anna: 4 of 8 letters, Bert: 4 of 15. Only the two people can be drawn: 8/12 and 8/19 are the ends.
    assert (float(every["f1_low"]), float(every["f1_high"])) == pytest.approx((8 / 19, 8 / 12))
    assert every["f1_above_frequency"] == ""  # frequency was not asked for


def test_another_reference_and_files_of_both_fields(compare, folder):
    true = annotate(folder / "true.jsonl", ["30"], ["Rome"])
    other = annotate(folder / "other.jsonl", ["Anna", "is"], ["lives", "in", "Rome"], field="common_words")
    table = compare(
        "--reference", f"the truth={true}", "--file", f"other={other}:not_common_words", "--identifier", "frequency"
    ).table
    assert [line.identifier for line in table] == ["the truth", "other", "frequency"]
    # other: "30" (2) and "Bert" (4), of which 2 are in "30", "Rome" (6); frequency: "Anna", "Bert"
    assert [line.f1 for line in table] == pytest.approx([1.0, 4 / 12, 0.0], abs=1e-6)
    assert (table[1].seconds, table[1].cost_usd) == (None, None)
    # only a resample without Anna (a quarter of them) lowers it to 0
    assert (table[1].f1_above_frequency, table[1].f1_above_frequency_low) == (pytest.approx(1 / 3, abs=1e-6), 0.0)
    assert table[2].f1_above_frequency is None


def test_a_spans_table_as_a_file(compare, folder):
    rows = [row for k, (_, text) in enumerate(PAIRS) for row in span_rows(f"forget/{k:04d}", text, [(0, 4)])]
    tables.write(folder / "mine.parquet", rows, SPANS)
    table = compare("--file", "mine.parquet", "--identifier", "all").table
    assert [(line.identifier, line.f1) for line in table][:2] == [("gold", 1.0), ("mine", 1.0)]


def test_rows_that_an_identifier_was_fitted_on_are_left_out_for_all(compare, folder):
    block = {"seed": 0, "people": 4, "questions": 12, "forget_share": 0.75, "holdout": 1, "real_authors": 1}
    built, _ = fictitious.build(fictitious.Settings(**block, world_facts=1, language="en", entanglement=0.0), None)
    for name in ("forget", "retain"):
        tables.write(folder / f"data/benchmark/{name}.parquet", built[name], SAMPLES)
    labelled = [
        row
        for sample in built["forget"][:24]
        for row in span_rows(
            sample["sample_id"], sample["response"], [(span["start"], span["end"]) for span in sample["gold_spans"]]
        )
    ]
    tables.write(folder / "two.parquet", labelled, SPANS)
    options = ("-S", "distilled.annotation=two.parquet", "-S", "distilled.trees=3")
    found = compare(*options, "--identifier", "distilled", "--identifier", "all")
    assert (found.rows, found.left_out, found.groups) == (12, 24, 1)
    assert {marks.sample_id for marks in found.answers} <= {row["sample_id"] for row in built["forget"][24:]}
    letters = [sum(map(str.isalnum, row["response"])) for row in built["forget"][24:]]
    gold = [
        sum(sum(map(str.isalnum, row["response"][span["start"] : span["end"]])) for span in row["gold_spans"])
        for row in built["forget"][24:]
    ]
    precision = {line.identifier: line.precision for line in found.table}["all"]
    assert precision == pytest.approx(sum(gold) / sum(letters), abs=1e-6)
    tables.write(folder / "data/benchmark/forget.parquet", built["forget"][:24], SAMPLES)
    with pytest.raises(UserError, match="labels the whole forget set"):
        compare(*options, "--identifier", "distilled")


def test_a_value_of_params_can_be_changed_and_a_source_given(compare, folder):
    words = annotate(folder / "words.jsonl", ["Anna"], ["Bert"])
    options = ("--source", f"file={words}", "--identifier", "file", "--identifier", "frequency")
    table = {line.identifier: line for line in compare(*options, "-S", "frequency.threshold=1.0").table}
    assert table["file"].f1 == 1.0
    # all that no question holds is unwanted now: "Anna", "30", "Bert", "in", "Rome", 16 letters
    assert table["frequency"].precision == 8 / 16
    assert json.loads(table["frequency"].details)["settings"] == {"threshold": 1.0}


def test_without_gold_and_reference_only_shares_are_compared(compare, folder, table):
    tables.write(folder / "data/benchmark/forget.parquet", table("forget", PAIRS), SAMPLES)
    found = compare("--identifier", "all", "--identifier", "frequency")
    assert found.reference is None
    assert [line.identifier for line in found.table] == ["all", "frequency"]
    assert {line.f1 for line in found.table} | {line.word_kappa for line in found.table} == {None}
    assert found.table[0].unwanted_share == 1.0
    with pytest.raises(UserError, match="forget/0000 has no gold spans"):
        compare("--identifier", "gold")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--identifier", "frequenzy"], "--identifier: there is no identifier 'frequenzy'; did you mean 'frequency'"),
        (["--identifier", "file"], "set identify.source to a file"),
        (["--source", "mml=data/none"], "--source: there is no identifier 'mml'; did you mean 'mlm'"),
        (["--source", "mlm=/nowhere"], "--source mlm=/nowhere: give NAME=PATH"),
        (["--source", "data/none"], "--source data/none: give NAME=PATH"),
        (["--file", "x=nothing.jsonl"], "--file x=nothing.jsonl: nothing.jsonl is no file"),
        (["--reference", "other.jsonl"], "2 of 2 forget rows have no line with the same question and answer"),
        (["--reference", "other.parquet"], "other.parquet: the word [0, 4) of forget/0000 has no row"),
        (["--file", "gold=right.jsonl"], "two rows would be called 'gold'"),
        (["--file", "right.jsonl", "--reference", "right=right.jsonl"], "two rows would be called 'right'"),
        (["-S", "frequency"], "-S frequency: give block.key=value"),
        (["-S", "frequancy.threshold=1"], "-S frequancy.threshold=1: give block.key=value"),
        (["-S", "frequency.threshold=2.0"], "frequency.threshold = 2.0 is not allowed"),
        (["-S", "frequency.treshold=1"], "unknown key frequency.treshold; did you mean 'threshold'?"),
        (["-S", "frequency.threshold=["], "the value is not valid YAML"),
        (["-S", "benchmark.name=tofu"], "holds the benchmark fictitious, 2 forget rows, and params.yaml chooses tofu"),
    ],
)
def test_bad_input_is_one_message_and_writes_nothing(compare, folder, options, message):
    annotate(folder / "right.jsonl", [], [])
    annotate(folder / "other.jsonl", [], pairs=[("Another?", "Row.")])
    tables.write(folder / "other.parquet", [], SPANS)
    with pytest.raises(UserError) as error:
        compare("--identifier", "frequency", *options)
    assert message in str(error.value)
    assert not (folder / "metrics").exists()


@pytest.mark.parametrize("name", ["forget.parquet", "card.json"])
def test_a_missing_benchmark_says_how_to_make_it(compare, folder, name):
    (folder / "data/benchmark" / name).unlink()
    with pytest.raises(UserError, match=rf"{name} is missing.*dvc repro"):
        compare("--identifier", "all")


def test_a_message_as_a_process(folder):
    command = [sys.executable, str(SCRIPT), "--identifier", "gpt"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1 and done.stderr.startswith("error: --identifier: ") and done.stderr.count("\n") == 1


def test_the_committed_comparison_is_of_the_default_benchmark(comparison, read):
    found = read(ROOT)
    assert {"gold", "all", "frequency"} <= {line.identifier for line in found.table}
    assert len(found.answers) == 10
    block = params.read("fictitious", fictitious.Settings, ROOT / "params.yaml")
    built, _ = fictitious.build(block, None)
    assert found.fingerprint == comparison.fingerprint(built["forget"], built["retain"]), "stale; run `make compare`"


# The page

FORGET = [
    {"sample_id": "forget/0000", "prompt": "Who is <that>?", "response": "She was born in Lagos."},
    {"sample_id": "forget/0001", "prompt": "And he?", "response": "His name is 李伟."},
]


@pytest.fixture
def content(comparison):
    """Two identifiers on both answers, F1 .5 in [.25, .75]; "Lagos" is word 4 of six, the name words 3 and 4 of six."""
    numbers = dict.fromkeys(
        (name for name, field in comparison.Line.model_fields.items() if field.annotation == float | None), 0.5
    )
    numbers |= {"f1_low": 0.25, "f1_high": 0.75, "unwanted_share": 0.375, "rows_without_unwanted": 0, "details": "{}"}
    marks = [("forget/0000", "000010", "111111"), ("forget/0001", "000110", "000010")]
    return {
        "benchmark": "tiny",
        "split": "forget<1>",
        "rows": 2,
        "left_out": 0,
        "groups": 1,
        "fingerprint": comparison.fingerprint(FORGET, []),
        "reference": "a <person>",
        "table": [
            {"identifier": "a <person>", **numbers},
            {"identifier": "all", **numbers, "f1": 0.1875, "seconds": None, "cost_usd": 0.0},
        ],
        "missing": [{"identifier": "mlm", "reason": "No <model> here."}],
        "answers": [{"sample_id": key, "unwanted": {"a <person>": one, "all": other}} for key, one, other in marks],
    }


def test_page_shows_the_table_and_what_each_of_them_marks(comparison, content):
    page = comparison.page(comparison.Comparison.model_validate(content), FORGET)
    unwanted = re.findall(r'<b class="uw">([^<]+)</b>', page)
    assert unwanted == ["unwanted words", "Lagos", "She was born in Lagos.", "李伟", "伟"]
    assert "Benchmark tiny, forget&lt;1&gt;: 2 forget samples about 1 people or documents</p>" in page
    assert "Agreement with <em>a &lt;person&gt;</em> is on letters" in page
    assert "a &lt;person&gt; <small>the reference</small>" in page and "Who is &lt;that&gt;?" in page
    assert "0.188<small>0.250 to 0.750</small>" in page
    assert page.count("<td>–</td>") == 1  # seconds, not known
    assert "Not compared: mlm. No &lt;model&gt; here." in page
    assert page.count('dir="auto"') == 2 * (1 + 2)  # of each answer the question and two versions
    parser = HTMLParser()
    opened, closed, outside = [], [], []
    parser.handle_starttag = lambda tag, attributes: (opened.append(tag), outside.extend(dict(attributes)))
    parser.handle_endtag = closed.append
    parser.feed(page)
    assert sorted(tag for tag in opened if tag != "meta") == sorted(closed)
    assert not {"src", "href"} & set(outside) and "url(" not in page and "@import" not in page


def test_page_without_reference_and_with_samples_left_out(comparison, content):
    nothing = dict.fromkeys(("f1", "f1_low", "f1_high", "word_f1", "word_f1_low", "word_f1_high"))
    content |= {"reference": None, "left_out": 1, "table": [{**content["table"][1], **nothing}]}
    page = comparison.page(comparison.Comparison.model_validate(content), FORGET)
    assert "about 1 people or documents (1 more, on which an identifier was fitted, are left out)</p>" in page
    assert "no reference was given" in page and "Agreement with" not in page and "0.250 to" not in page


def test_fingerprint_is_of_keys_and_answers_of_both_sets(comparison):
    other = [{**FORGET[0], "response": "Other."}, FORGET[1]]
    sets = (FORGET, FORGET), (FORGET[:1], FORGET), (other, FORGET), (FORGET, other), (FORGET, [])
    assert len({comparison.fingerprint(*pair) for pair in sets}) == 5
    asked = [{**row, "prompt": "?"} for row in FORGET]
    assert comparison.fingerprint(asked, FORGET) == comparison.fingerprint(FORGET, FORGET)
