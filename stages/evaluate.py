"""Evaluate one model on every set that is measured: `python stages/evaluate.py target|retain|unlearned`."""

import argparse
from pathlib import Path

from tif.base import params, tables
from tif.base.stage import run
from tif.benchmarks import read_card, read_set
from tif.evaluation import TEXTS, TOKENS, Settings

BENCHMARK = Path("data/benchmark")


def main() -> None:
    """Read the benchmark and one model; write data/evaluation/<model>/{tokens,texts}.parquet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", choices=["target", "retain", "unlearned"])
    name = parser.parse_args().model
    settings = params.read("evaluate", Settings)
    compute = params.read("compute", params.Compute)
    runtime = params.read("runtime", params.Runtime)
    choice = params.read("model", params.ModelChoice)
    _, sets = read_card(BENCHMARK)
    measured = {key: (about, read_set(BENCHMARK, key, about.role)) for key, about in sets.items() if about.measures}

    from tif.evaluation.evaluate import evaluate
    from tif.lm import models

    models.prepare(compute, runtime.shown)
    source = params.local_source(choice.source, "model.source")
    model = models.load(f"data/models/{name}", source, compute.device)
    done = evaluate(model, measured, settings, runtime.shown)
    tables.write(f"data/evaluation/{name}/tokens.parquet", done.tokens, TOKENS)
    tables.write(f"data/evaluation/{name}/texts.parquet", done.texts, TEXTS)


if __name__ == "__main__":
    run(main)
