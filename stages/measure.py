"""Measure the three models: from their tokens and texts to metrics, without loading any of them."""

import json
from dataclasses import asdict, fields
from pathlib import Path

from tif.base import tables
from tif.base.stage import run
from tif.metrics import MEASURES

BENCHMARK, EVALUATION = Path("data/benchmark"), Path("data/evaluation")
TRAJECTORY = Path("data/trajectory.parquet")
METRICS = Path("metrics")


def main() -> None:
    """Write data/measures.parquet, metrics/metrics.json, metrics/details.json and metrics/plots/*.csv."""
    from tif.metrics import measure as of
    from tif.metrics.trajectory import Epoch, read_trajectory

    measured = of.measure(BENCHMARK, EVALUATION)
    reference = dict(
        zip(measured.sample_ids["forget"], measured.values["retain"]["forget"]["truth_ratio"], strict=True)
    )
    epochs = read_trajectory(TRAJECTORY, reference)
    details = of.rounded(of.details(measured))
    rows = [list(of.rounded(asdict(epoch)).values()) for epoch in epochs]
    tables.write("data/measures.parquet", of.measure_rows(measured), MEASURES)
    write_json(METRICS / "metrics.json", of.headline(details))
    write_json(METRICS / "details.json", {**details, "about": of.described(measured)})
    tables.write_text(METRICS / "plots/trajectory.csv", tables.csv_text([field.name for field in fields(Epoch)], rows))
    tables.write_text(METRICS / "plots/truth_ratio.csv", of.truth_ratio_csv(measured))


def write_json(path: Path, content: dict) -> None:
    tables.write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


if __name__ == "__main__":
    run(main)
