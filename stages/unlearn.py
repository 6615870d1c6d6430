"""Unlearn the forget set from the target model with the chosen method."""

from dataclasses import replace

import pandas as pd

from tif import models, params, tables, unlearn
from tif.errors import run


def main() -> None:
    """Read target, forget set, spans and reference; write the unlearned model, step log, trajectory and weights."""
    settings = params.read("unlearn", unlearn.Settings)
    method = params.choose("methods", settings.method, "unlearn.method")
    method_settings = params.read(settings.method, method.Settings)
    compute = params.read("compute", params.Compute)
    runtime = params.read("runtime", params.Runtime)
    choice = params.read("model", params.ModelChoice)
    models.prepare(compute)

    forget = tables.read("data/benchmark/forget.parquet", tables.SAMPLES)
    retain = tables.read("data/benchmark/retain.parquet", tables.SAMPLES)
    spans = tables.read("data/spans.parquet", tables.SPANS)
    reference = tables.read("data/reference.parquet", tables.REFERENCE)
    source = params.local_source(choice.source, "model.source")
    model = models.load("data/models/target", source, compute.device)

    examples = unlearn.forget_examples(model, forget, spans, reference)
    done = unlearn.unlearn(
        model,
        examples,
        forget,
        retain,
        reference,
        method,
        method_settings,
        settings,
        compute.device,
        runtime.progress,
    )
    card = replace(model.card, repository=None, revision=None, local=None)
    models.save("data/models/unlearned", replace(model, card=card))
    tables.write("data/trajectory.parquet", done.trajectory, tables.TRAJECTORY)
    tables.write("data/weights.parquet", done.weights, tables.WEIGHTS)
    tables.write_text("metrics/plots/steps.csv", pd.DataFrame(done.log).to_csv(index=False, float_format="%.6g"))


if __name__ == "__main__":
    run(main)
