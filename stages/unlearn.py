"""Unlearn the forget set from the target model with the chosen method.

`--plan` prints how much memory that takes, and over how many GPUs it has to be sharded, and does nothing.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import pandas as pd

from tif import checkpoints, costs, fit, models, params, processes, tables, unlearn
from tif.errors import run

TARGET = Path("data/models/target")
TABLES = {
    "forget": (Path("data/benchmark/forget.parquet"), tables.SAMPLES),
    "retain": (Path("data/benchmark/retain.parquet"), tables.SAMPLES),
    "spans": (Path("data/spans.parquet"), tables.SPANS),
    "reference": (Path("data/reference.parquet"), tables.REFERENCE),
}


def main() -> None:
    """Read target, forget set, spans and reference; write the unlearned model, step log, trajectory and weights."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--plan", nargs="?", const="", metavar="CONFIG", help="print the memory needed, for any config.json; do nothing"
    )
    planned = parser.parse_args().plan
    settings = params.read("unlearn", unlearn.Settings)
    method = params.choose("methods", settings.method, "unlearn.method")
    method_settings = params.read(settings.method, method.Settings)
    compute = params.read("compute", params.Compute)
    runtime = params.read("runtime", params.Runtime)
    choice = params.read("model", params.ModelChoice)
    needs, source = method.needs(method_settings), params.local_source(choice.source, "model.source")
    if planned is not None:
        from tif import plan_report  # not above, or a change of it would be one of every run

        config = Path(planned) if planned else None
        print(plan_report.report(config, TARGET, TABLES["forget"][0].parent, source, settings, needs, settings.method))
        return
    models.prepare(compute)
    fit.check(settings, settings.processes, compute, cached=bool(needs.cached))
    if settings.processes > 1 and not processes.started():
        processes.launch(settings.processes, compute)
        return

    with processes.joined(compute.device) as group:
        forget, retain, spans, reference = (tables.read(*table) for table in TABLES.values())
        # a model that is sharded goes to the devices in parts
        model = models.load(TARGET, source, "cpu" if settings.fsdp else compute.device)
        examples = unlearn.forget_examples(model, forget, spans, reference)

        inputs = {"target": TARGET, **{name: path for name, (path, _) in TABLES.items()}}
        if model.card.local is not None:
            inputs["source"] = source / model.card.local
        key = checkpoints.run_key([settings, method_settings, compute, choice], inputs, Path(__file__), group.count)
        with checkpoints.opened(key, runtime.checkpoint_minutes, group) as kept, costs.measured():
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
                runtime.progress and group.rank == 0,
                kept,
            )
            if settings.lora:
                card = models.of_adapter(model.card, TARGET)
            else:
                card = replace(model.card, repository=None, revision=None, local=None)
            models.save("data/models/unlearned", replace(model, card=card))
            if group.rank == 0:
                write(done)


def write(done: unlearn.Unlearned) -> None:
    """Write all outputs beside the model."""
    tables.write("data/trajectory.parquet", done.trajectory, tables.TRAJECTORY)
    tables.write("data/weights.parquet", done.weights, tables.WEIGHTS)
    tables.write_text("metrics/plots/steps.csv", pd.DataFrame(done.log).to_csv(index=False, float_format="%.6g"))
    tables.write_text("metrics/unlearn.json", json.dumps(done.selection, indent=2) + "\n")


if __name__ == "__main__":
    run(processes.told_once(main))
