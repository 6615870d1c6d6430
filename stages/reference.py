"""Score every answer token of the forget set under the target model, so that training needs no second model."""

from tif.base import params, tables
from tif.base.stage import run
from tif.benchmarks import SAMPLES
from tif.reference import REFERENCE


def main() -> None:
    """Read the forget set and the target model; write data/reference.parquet."""
    from tif.lm import models
    from tif.reference.table import reference_rows

    compute = params.read("compute", params.Compute)
    runtime = params.read("runtime", params.Runtime)
    choice = params.read("model", params.ModelChoice)
    models.prepare(compute, runtime.shown)
    source = params.local_source(choice.source, "model.source")
    target = models.load("data/models/target", source, compute.device)
    forget = tables.read("data/benchmark/forget.parquet", SAMPLES)
    tables.write("data/reference.parquet", reference_rows(target, forget, runtime.shown), REFERENCE)


if __name__ == "__main__":
    run(main)
