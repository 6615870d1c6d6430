"""Make the target or the retain model: `python stages/finetune.py target|retain`."""

import argparse
from pathlib import Path

from tif.base import params, tables
from tif.base.stage import run
from tif.benchmarks import SAMPLES, without
from tif.finetune import Published, Settings

BENCHMARK = Path("data/benchmark")


def main() -> None:
    """Train from scratch on full (target) or full minus forget (retain), or record which published model it is.

    A model from scratch learns the utility sets too, because it has no pre-training to know them from.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("role", choices=["target", "retain"])
    role = parser.parse_args().role
    choice = params.read("model", params.ModelChoice)
    settings = params.read(choice.name, Settings).root
    compute = params.read("compute", params.Compute)
    runtime = params.read("runtime", params.Runtime)
    source = params.local_source(choice.source, "model.source")

    path, split = f"data/models/{role}", ""
    full = rows = tables.read(BENCHMARK / "full.parquet", SAMPLES)
    if role == "retain":
        forget = tables.read(BENCHMARK / "forget.parquet", SAMPLES)
        split = forget["split"][0].as_py()
        rows = without(full, forget)

    from tif.lm import models

    models.prepare(compute, runtime.shown)
    if isinstance(settings, Published):
        from tif.finetune.published import refer

        return refer(path, choice.name, settings, role, split, source)

    from tif.finetune.scratch import from_scratch

    utility = [tables.read(file, SAMPLES) for file in sorted((BENCHMARK / "utility").glob("*.parquet"))]
    return from_scratch(path, settings, [full, *utility], [rows, *utility], compute.device, runtime.shown)


if __name__ == "__main__":
    run(main)
