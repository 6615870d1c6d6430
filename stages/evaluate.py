"""Evaluate one model on every set: `python stages/evaluate.py target|retain|unlearned`."""

import argparse

from tif import evaluate, models, params, tables
from tif.errors import run


def main() -> None:
    """Read the benchmark and one model; write data/evaluation/<model>.parquet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", choices=["target", "retain", "unlearned"])
    name = parser.parse_args().model

    settings = params.read("evaluate", evaluate.Settings)
    compute = params.read("compute", params.Compute)
    runtime = params.read("runtime", params.Runtime)
    choice = params.read("model", params.ModelChoice)
    models.prepare(compute)
    source = params.local_source(choice.source, "model.source")
    model = models.load(f"data/models/{name}", source, compute.device)
    sets = {key: tables.read(f"data/benchmark/{key}.parquet", tables.SAMPLES) for key in evaluate.SETS}
    rows = evaluate.evaluate(model, sets, settings, runtime.progress)
    tables.write(f"data/evaluation/{name}.parquet", rows, tables.EVALUATION)


if __name__ == "__main__":
    run(main)
