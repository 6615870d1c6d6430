"""bench/analysis/alignment.py on a benchmark of two answers, and atwu_search.py beside it on a tiny model."""

import math
import sys
from pathlib import Path

import pandas as pd
import pytest
from ruamel.yaml import YAML

from tif.base import params, tables
from tif.base.errors import UserError
from tif.benchmarks import SAMPLES
from tif.lm import models
from tif.methods import atwu
from tif.reference import REFERENCE
from tif.reference.table import reference_rows
from tif.unlearning import TOKEN_WEIGHTS
from tif.words import SPANS, span_rows

ROOT = Path(__file__).resolve().parents[2]
PAIRS = [("Who is that old?", "Anna is 30."), ("Who lives there?", "Bert lives in Rome.")]
GOLD = [[{"start": 0, "end": 4}], [{"start": 0, "end": 4}]]


@pytest.fixture
def folder(tmp_path, table, language_model, monkeypatch):
    """A folder as `dvc repro unlearn` leaves it after `tpo`; it becomes the working directory."""
    yaml = YAML()
    blocks = yaml.load(ROOT / "params.yaml")
    blocks["benchmark"]["name"] = "fictitious"
    blocks["identify"] = {"method": "frequency", "source": "data/none"}
    blocks["unlearn"] |= {"epochs": 2, "batch": 2, "trajectory_retain": 2}
    (tmp_path / "data/none").parent.mkdir()
    (tmp_path / "data/none").touch()
    yaml.dump(blocks, tmp_path / "params.yaml")
    forget = table("forget", PAIRS, gold_spans=GOLD)
    benchmark = {"forget": forget, "retain": table("retain", [("?", "Eve is 30."), ("?", "Dan lives in Rome.")])}
    for name, rows in benchmark.items():
        tables.write(tmp_path / f"data/benchmark/{name}.parquet", rows, SAMPLES)
    tables.write_text(tmp_path / "data/benchmark/card.json", '{"name": "fictitious"}')
    spans = [row for k, (_, text) in enumerate(PAIRS) for row in span_rows(f"forget/{k:04d}", text, [(0, 4)])]
    tables.write(tmp_path / "data/spans.parquet", spans, SPANS)
    reference = reference_rows(language_model, forget, progress=False)
    tables.write(tmp_path / "data/reference.parquet", reference, REFERENCE)
    tables.write(tmp_path / "data/weights.parquet", [], TOKEN_WEIGHTS)
    models.save(tmp_path / "data/models/target", language_model)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(ROOT / "bench/analysis"))
    return tmp_path


def learned(folder, weight):
    """A weights table with the tokens of the reference table: .5 at first, weight(start) after an epoch."""
    rows = [
        {"epoch": epoch, **{name: row[name] for name in ("sample_id", "position", "start", "end")}}
        | {"weight": weight(row["start"]) if epoch else 0.5}
        for epoch in (0, 1)
        for row in tables.read(folder / "data/reference.parquet", REFERENCE).to_pylist()
        if row["answer"] == "response"
    ]
    tables.write(folder / "data/weights.parquet", rows, TOKEN_WEIGHTS)


@pytest.fixture
def align(folder, monkeypatch):
    """Run the script's main with options; returns the file that it wrote."""
    import alignment

    def run(*options: str) -> pd.DataFrame:
        monkeypatch.setattr(sys, "argv", ["alignment.py", "--out", "alignment.csv", *options])
        alignment.main()
        return pd.read_csv(folder / "alignment.csv")

    return run


def test_identifiers_and_learned_weights_in_one_table(folder, align, capsys):
    """Frequency marks both names and nothing else; weights that fall along the answer put the names first too."""
    learned(folder, lambda start: 1 - start / 100)
    found = align().set_index("scores")
    assert list(found["auroc"][:2]) == [1, 1]
    assert 0 <= found["auroc"]["loss of the target model"] <= 1
    assert 0.5 <= found["auroc"]["all"] < 0.7, "all words are alike, so only tokens of white space alone rank lower"
    assert set(found.index) == {
        "frequency",
        "learned weights (atwu)",
        "loss of the target model",
        "all",
    }
    assert (found["samples"] == 2).all() and (found["left_out"] == 0).all()
    assert (found["reference"] == "gold").all()
    assert "not compared: mlm" in capsys.readouterr().out


def test_rows_about_something_else_stay(folder, align, capsys):
    first = align()
    assert "has no rows, as unlearn.method was none that learns weights" in capsys.readouterr().out
    rows = [row for k, (_, text) in enumerate(PAIRS) for row in span_rows(f"forget/{k:04d}", text, [(5, 7)])]
    tables.write(folder / "mine.parquet", rows, SPANS)
    both = align("--reference", "mine.parquet", "--identifier", "gold")
    assert list(both["reference"]) == ["gold"] * len(first) + ["mine"] * 2
    assert both.set_index("scores")["auroc"]["gold"] < 0.5, (
        "gold marks what stands first, and this reference what stands second"
    )
    pd.testing.assert_frame_equal(align("--reference", "mine.parquet", "--identifier", "gold"), both)


def test_tables_of_other_runs(folder, align):
    learned(folder, lambda start: 0.5)
    weights = tables.read(folder / "data/weights.parquet", TOKEN_WEIGHTS).to_pylist()
    tables.write(folder / "data/weights.parquet", weights[:-3], TOKEN_WEIGHTS)
    with pytest.raises(UserError, match=r"weights\.parquet does not have the tokens of .*forget/0001 differs"):
        align()
    reference = tables.read(folder / "data/reference.parquet", REFERENCE)
    tables.write(folder / "data/reference.parquet", reference.slice(5), REFERENCE)
    forget = tables.read(folder / "data/benchmark/forget.parquet", SAMPLES).to_pylist()
    forget[1]["response"] += " Yes."
    tables.write(folder / "data/benchmark/forget.parquet", forget, SAMPLES)
    with pytest.raises(UserError, match=r"reference\.parquet is not of the answers.*forget/0001 differs"):
        align()


def test_without_truth_and_reference(folder, align):
    forget = tables.read(folder / "data/benchmark/forget.parquet", SAMPLES).to_pylist()
    tables.write(folder / "data/benchmark/forget.parquet", [{**r, "gold_spans": None} for r in forget], SAMPLES)
    with pytest.raises(UserError, match="fictitious does not know the truth; give an annotation with --reference"):
        align()


def test_search_goes_on_where_it_ended(folder, monkeypatch):
    """Two runs, then a third: its line is added. Numbers are those of a table made in one go."""
    import atwu_search as search

    def table(name, runs):
        monkeypatch.setattr(search, "RUNS", runs)
        monkeypatch.setattr(sys, "argv", ["atwu_search.py", "--out", name])
        search.main()
        return pd.read_csv(folder / name)

    runs = [{}, {"token_weights": "uniform", "seed": 3}, {"gamma": 0.1, "every": 2}]
    assert list(table("a.csv", runs[:2])["changed"]) == ["params.yaml", "token_weights uniform, seed 3"]
    found = table("a.csv", runs)
    pd.testing.assert_frame_equal(found, table("b.csv", runs))
    assert list(found["gamma"]) == [found["gamma"][0]] * 2 + [0.1]
    assert found["auroc"].between(0, 1).tolist() == [True, False, True], "uniform weights are not learned"
    assert found["forget"].between(0, 1).all() and found["retain"].between(0, 1).all()


@pytest.mark.parametrize(("forget", "retain"), [(0.8, 0.9), (0.4, 0.8), (0.2, 0.7), (0.1, 0.6), (0.05, 0.8)])
def test_retain_probability_at_a_forget_probability(monkeypatch, forget, retain):
    """Linear in the logarithm: .2 lies halfway between .4 and .1. The first passage counts."""
    monkeypatch.syspath_prepend(str(ROOT / "bench/analysis"))
    import atwu_search

    course = pd.DataFrame(
        {"forget_probability": [0.8, 0.4, 0.1, 0.2, 0.0125], "retain_probability": [0.9, 0.8, 0.6, 0.9, 0.7]}
    )
    assert atwu_search.retain_at(course, forget) == pytest.approx(retain)
    assert math.isnan(atwu_search.retain_at(course, 0.01))


def test_the_committed_search_has_a_line_for_every_run(monkeypatch):
    """Or a repeated call would run them again."""
    monkeypatch.syspath_prepend(str(ROOT / "bench/analysis"))
    import atwu_search

    rows = pd.read_csv(ROOT / "bench/results/atwu_search.csv")
    for seed, runs in ((0, atwu_search.RUNS), (1, atwu_search.CHECK)):
        known = rows[rows["benchmark_seed"] == seed]
        changed = [", ".join(f"{name} {value}" for name, value in run.items()) or "params.yaml" for run in runs]
        assert list(known["changed"]) == changed
    assert set(params.read("atwu", atwu.Settings, ROOT / "params.yaml").model_dump()) < set(rows.columns)
