"""Score every answer token of the forget set under the target model, so that training needs no second model."""

from tif import models, params, reference, tables
from tif.errors import run


def main() -> None:
    """Read the forget set and the target model; write data/reference.parquet."""
    compute = params.read("compute", params.Compute)
    runtime = params.read("runtime", params.Runtime)
    choice = params.read("model", params.ModelChoice)
    models.prepare(compute)
    source = params.local_source(choice.source, "model.source")
    target = models.load("data/models/target", source, compute.device)
    forget = tables.read("data/benchmark/forget.parquet", tables.SAMPLES)
    rows = reference.reference_rows(target, forget, runtime.progress)
    tables.write("data/reference.parquet", rows, tables.REFERENCE)


if __name__ == "__main__":
    run(main)
