"""The report: everything is read and checked first, then metrics.json, two CSV files and the page are written."""

import csv
import io
import json
from dataclasses import asdict, fields
from pathlib import Path

from tif import tables
from tif.errors import UserError
from tif.report.answers import chosen_answers, group_spans
from tif.report.comparison import compared_answers, fingerprint, read_comparison
from tif.report.page import render
from tif.report.results import MODELS, Evaluation, read_evaluations, rounded, summary
from tif.report.trajectory import Epoch, read_trajectory
from tif.report.weights import read_weights

_ANSWERS_SHOWN = 20


def build(root: Path) -> None:
    """Write metrics/metrics.json, metrics/plots/{trajectory,truth_ratio}.csv and metrics/report.html below `root`.

    Reads data/evaluation/{target,retain,unlearned}.parquet, data/benchmark/{forget.parquet,retain.parquet,card.json},
    data/spans.parquet, data/trajectory.parquet, data/weights.parquet, metrics/identify.json and
    metrics/identifiers.json below `root`. The last one is made apart (`make compare`), and shown only where it is of
    these forget and retain sets.
    Raises UserError, before anything is written, where these are missing, incomplete or do not belong together.
    """
    data, output = root / "data", root / "metrics"
    forget_path = data / "benchmark" / "forget.parquet"
    forget = tables.read(forget_path, tables.SAMPLES).to_pylist()
    if not forget:
        raise UserError(f"{forget_path} holds no rows; choose a benchmark with a forget set and run `dvc repro`")
    evaluations = read_evaluations(data / "evaluation", [row["sample_id"] for row in forget])
    epochs = read_trajectory(data / "trajectory.parquet", evaluations["retain"])
    spans_path = data / "spans.parquet"
    spans = group_spans(spans_path, tables.read(spans_path, tables.SPANS).to_pylist(), forget)
    identified = _read_json(output / "identify.json")
    identifier = str(identified.get("method", "the identifier"))
    weights = read_weights(data / "weights.parquet", forget, spans, identifier, _ANSWERS_SHOWN)
    card = _read_json(data / "benchmark" / "card.json")
    comparison = read_comparison(output / "identifiers.json")
    retain = tables.read(data / "benchmark" / "retain.parquet", tables.SAMPLES).to_pylist()
    compared = None
    if comparison.fingerprint == fingerprint(forget, retain):
        compared = compared_answers(output / "identifiers.json", comparison, forget)

    results = {model: summary(evaluations[model], evaluations["retain"]) for model in MODELS}
    answers = chosen_answers(forget, spans, evaluations, _ANSWERS_SHOWN)
    page = render(results, epochs, evaluations, answers, identified, card, comparison, compared, weights)

    tables.write_text(output / "metrics.json", json.dumps(rounded(results), indent=2, allow_nan=False) + "\n")
    tables.write_text(output / "plots" / "trajectory.csv", _trajectory_csv(epochs))
    tables.write_text(output / "plots" / "truth_ratio.csv", _truth_ratio_csv(evaluations))
    tables.write_text(output / "report.html", page)


def _trajectory_csv(epochs: list[Epoch]) -> str:
    names = [field.name for field in fields(Epoch)]
    return _csv(names, [list(rounded(asdict(epoch)).values()) for epoch in epochs])


def _truth_ratio_csv(evaluations: dict[str, Evaluation]) -> str:
    """Truth ratios of each model in rising order; `share` is the share of samples at or below (the ECDF)."""
    rows = []
    for model in MODELS:
        values = evaluations[model].values["forget", "truth_ratio"]
        ordered = sorted(values.items(), key=lambda item: (item[1], item[0]))
        rows += [
            [model, sample_id, rounded(ratio), rounded((k + 1) / len(ordered))]
            for k, (sample_id, ratio) in enumerate(ordered)
        ]
    return _csv(["model", "sample_id", "truth_ratio", "share"], rows)


def _csv(header: list[str], rows: list[list]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)  # None becomes an empty cell
    return buffer.getvalue()


def _read_json(path: Path) -> dict:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is missing; `dvc repro` makes it") from None
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}); delete it and run `dvc repro`") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold a JSON object; delete it and run `dvc repro`")
    return content
