"""The report: everything is read and checked first, then the page is written."""

from pathlib import Path

from tif.base import tables
from tif.base.errors import UserError
from tif.benchmarks import SAMPLES, read_card
from tif.report.answers import chosen_answers, group_spans
from tif.report.epochs import read_epochs
from tif.report.page import render
from tif.report.results import read_results
from tif.report.weights import read_weights
from tif.words import SPANS

_ANSWERS_SHOWN = 20


def build(root: Path) -> None:
    """Write metrics/report.html below `root`.

    Reads data/benchmark/{forget.parquet,card.json}, data/measures.parquet, data/evaluation/MODEL/texts.parquet,
    data/spans.parquet, data/weights.parquet, metrics/details.json, metrics/identify.json and
    metrics/plots/trajectory.csv below `root`.
    Raises UserError, before anything is written, where these are missing, incomplete or do not belong together.
    """
    data, output = root / "data", root / "metrics"
    forget_path = data / "benchmark" / "forget.parquet"
    forget = tables.read(forget_path, SAMPLES).to_pylist()
    if not forget:
        raise UserError(f"{forget_path} holds no rows; choose a benchmark with a forget set and run `dvc repro`")
    card, sets = read_card(data / "benchmark")
    results = read_results(root, forget)
    epochs = read_epochs(output / "plots" / "trajectory.csv")
    spans_path = data / "spans.parquet"
    spans = group_spans(spans_path, tables.read(spans_path, SPANS).to_pylist(), forget)
    identified = tables.read_json(output / "identify.json")
    identifier = str(identified.get("method", "the identifier"))
    weights = read_weights(data / "weights.parquet", forget, spans, identifier, _ANSWERS_SHOWN)
    answers = chosen_answers(forget, spans, results, _ANSWERS_SHOWN)
    tables.write_text(output / "report.html", render(results, epochs, answers, identified, card, sets, weights))
