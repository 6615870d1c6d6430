"""Unlearn the forget set from the target model with the chosen method.

`--plan` prints how much memory that takes, and over how many GPUs it has to be sharded, and does nothing.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

from tif.base import params, tables
from tif.base.stage import run
from tif.benchmarks import SAMPLES
from tif.reference import REFERENCE
from tif.runs import processes
from tif.unlearning import TOKEN_WEIGHTS, TRAJECTORY
from tif.unlearning.settings import Settings
from tif.words import SPANS

TARGET = Path("data/models/target")
TABLES = {
    "forget": (Path("data/benchmark/forget.parquet"), SAMPLES),
    "retain": (Path("data/benchmark/retain.parquet"), SAMPLES),
    "spans": (Path("data/spans.parquet"), SPANS),
    "reference": (Path("data/reference.parquet"), REFERENCE),
}


def main() -> None:
    """Read target, forget set, spans and reference; write the unlearned model, step log, trajectory and weights."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--plan", nargs="?", const="", metavar="CONFIG", help="print the memory needed, for any config.json; do nothing"
    )
    planned = parser.parse_args().plan
    settings = params.read("unlearn", Settings)
    module = params.choose("methods", settings.method, "unlearn.method")
    block = params.read(settings.method, module.Settings)
    compute = params.read("compute", params.Compute)
    runtime = params.read("runtime", params.Runtime)
    choice = params.read("model", params.ModelChoice)
    source = params.local_source(choice.source, "model.source")
    if planned is not None:
        from tif.plan.report import report  # not above, or a change of it would be one of every run

        config = Path(planned) if planned else None
        needs = module.needs(block)
        print(report(config, TARGET, TABLES["forget"][0].parent, source, settings, needs, settings.method))
        return

    from tif.lm import models
    from tif.runs import checkpoints, costs
    from tif.training import memory, sharding
    from tif.training.loop import Run
    from tif.unlearning.examples import Data, forget_examples
    from tif.unlearning.run import Method, unlearn

    method = Method(module, block)
    models.prepare(compute, runtime.shown)
    memory.check(settings, settings.processes, compute, cached=bool(method.needs.cached))
    if settings.processes > 1 and not processes.started():
        processes.launch(settings.processes, compute)
        return

    with processes.joined(compute.device) as group:
        forget, retain, spans, reference = (tables.read(*table) for table in TABLES.values())
        # a model that is sharded goes to the devices in parts
        model = models.load(TARGET, source, "cpu" if settings.fsdp else compute.device)
        data = Data(forget_examples(model, forget, spans, reference), forget, retain, reference)

        inputs = {"target": TARGET, **{name: path for name, (path, _) in TABLES.items()}}
        if model.card.local is not None:
            inputs["source"] = source / model.card.local
        key = checkpoints.run_key([settings, block, compute, choice], inputs, Path(__file__), group.count)
        with checkpoints.opened(key, runtime.checkpoint_minutes, group) as kept, costs.measured():
            done = unlearn(model, data, method, settings, Run(compute.device, runtime.shown and group.rank == 0), kept)
            if settings.lora:
                card = models.of_adapter(model.card, TARGET)
            else:
                card = replace(model.card, repository=None, revision=None, local=None)
            unlearned = replace(model, card=card)
            state = sharding.gathered(unlearned)
            if group.rank == 0:
                models.save("data/models/unlearned", unlearned, state)
                write(done)


def write(done) -> None:
    """Write all outputs beside the model."""
    tables.write("data/trajectory.parquet", done.trajectory, TRAJECTORY)
    tables.write("data/weights.parquet", done.token_weights, TOKEN_WEIGHTS)
    tables.write_text("metrics/plots/steps.csv", steps_csv(done.log))
    tables.write_text("metrics/unlearn.json", json.dumps(done.selection, indent=2) + "\n")


def steps_csv(log: list[dict[str, float]]) -> str:
    """The step log, one row a step, floats to six digits."""
    names = list(dict.fromkeys(name for row in log for name in row))
    cells = [[row.get(name) for name in names] for row in log]
    return tables.csv_text(names, [[f"{v:.6g}" if isinstance(v, float) else v for v in row] for row in cells])


if __name__ == "__main__":
    run(processes.told_once(main))
