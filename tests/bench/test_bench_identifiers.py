"""bench/identifiers.py on a benchmark of two answers: as a process once, and its options and messages in this one."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from tif.report.comparison import Comparison, compared_answers, fingerprint, read_comparison

from tif.base import params, tables
from tif.base.errors import UserError
from tif.benchmarks import SAMPLES, fictitious
from tif.words import SPANS, span_rows

ROOT = Path(__file__).resolve().parent.parent
PAIRS = [("Who is that old?", "Anna is 30."), ("Who lives there?", "Bert lives in Rome.")]
GOLD = [[{"start": 0, "end": 4}], [{"start": 0, "end": 4}]]


@pytest.fixture
def folder(tmp_path, table, monkeypatch):
    """A folder as `dvc repro download` leaves it, which becomes the working directory."""
    yaml = YAML()
    params = yaml.load(ROOT / "params.yaml")
    params["benchmark"]["name"] = "fictitious"
    params["identify"] = {"method": "frequency", "source": "data/none"}
    params["runtime"]["progress"] = False
    (tmp_path / "data/benchmark").mkdir(parents=True)
    (tmp_path / "data/none").touch()
    yaml.dump(params, tmp_path / "params.yaml")
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
def compare(folder, monkeypatch):
    """Run the script's main with options; returns what it wrote."""
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    import identifiers

    def run(*options: str) -> Comparison:
        monkeypatch.setattr(sys, "argv", ["identifiers.py", *options])
        identifiers.main()
        return read_comparison(folder / "metrics/identifiers.json")

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


def test_the_whole_comparison_as_a_process(folder):
    command = [sys.executable, str(ROOT / "bench/identifiers.py")]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    comparison = read_comparison(folder / "metrics/identifiers.json")
    forget, retain = (
        tables.read(folder / f"data/benchmark/{name}.parquet", SAMPLES).to_pylist() for name in ("forget", "retain")
    )
    assert (comparison.benchmark, comparison.split) == ("fictitious", "forget")
    assert (comparison.rows, comparison.left_out) == (2, 0)
    assert (comparison.reference, comparison.fingerprint) == ("gold", fingerprint(forget, retain))
    # "Anna" and "Bert" alone are in no retain answer, so frequency is right everywhere; all finds 8 in 23 letters.
    assert [line.identifier for line in comparison.table] == ["gold", "frequency", "all"]
    assert [line.f1 for line in comparison.table] == pytest.approx([1, 1, 16 / 31], abs=1e-6)
    assert [line.unwanted_share for line in comparison.table] == pytest.approx([8 / 25, 8 / 25, 1], abs=1e-6)
    assert all(line.seconds >= 0 and line.cost_usd == 0 for line in comparison.table)
    # What reads a model or costs money is never run unasked, and nothing is left out without a word.
    missing = {item.identifier: item.reason for item in comparison.missing}
    assert set(missing) >= {"file", "mlm", "openai"}
    assert "needs an annotation" in missing["file"]
    assert "--source mlm=PATH" in missing["mlm"]
    assert "costs money" in missing["openai"]
    assert set(missing) | {"gold", "frequency", "all"} == {
        path.stem for path in (ROOT / "src/tif/identify").glob("[a-z]*")
    }
    assert [marks.unwanted["frequency"] for marks in comparison.answers] == ["1000", "10000"]
    assert [marks.unwanted["all"] for marks in comparison.answers] == ["1111", "11111"]
    assert len(compared_answers(Path("x"), comparison, forget)) == 2
    assert "not compared: file" in done.stdout and "all" in done.stdout


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
    block = {"seed": 0, "people": 4, "questions": 12, "forget_share": 0.75, "real_authors": 1, "world_facts": 1}
    built, _ = fictitious.build(fictitious.Settings(**block, language="en", entanglement=0.0), None)
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
    comparison = compare(*options, "--identifier", "distilled", "--identifier", "all")
    assert (comparison.rows, comparison.left_out, comparison.groups) == (12, 24, 1)
    assert {marks.sample_id for marks in comparison.answers} <= {row["sample_id"] for row in built["forget"][24:]}
    letters = [sum(map(str.isalnum, row["response"])) for row in built["forget"][24:]]
    gold = [
        sum(sum(map(str.isalnum, row["response"][span["start"] : span["end"]])) for span in row["gold_spans"])
        for row in built["forget"][24:]
    ]
    precision = {line.identifier: line.precision for line in comparison.table}["all"]
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
    comparison = compare("--identifier", "all", "--identifier", "frequency")
    assert comparison.reference is None
    assert [line.identifier for line in comparison.table] == ["all", "frequency"]
    assert {line.f1 for line in comparison.table} | {line.word_kappa for line in comparison.table} == {None}
    assert comparison.table[0].unwanted_share == 1.0
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
    command = [sys.executable, str(ROOT / "bench/identifiers.py"), "--identifier", "gpt"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and done.stderr.startswith("error: --identifier: ") and done.stderr.count("\n") == 1


def test_the_committed_comparison_can_be_read():
    comparison = read_comparison(ROOT / "metrics/identifiers.json")
    assert {"gold", "all", "frequency"} <= {line.identifier for line in comparison.table}
    assert len(comparison.answers) == 10
    block = params.read("fictitious", fictitious.Settings, ROOT / "params.yaml")
    built, _ = fictitious.build(block, None)
    assert comparison.fingerprint == fingerprint(built["forget"], built["retain"]), "stale; run `make compare`"
