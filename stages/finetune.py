"""Make the target or the retain model: `python stages/finetune.py target|retain`."""

import argparse

from tif import finetune, models, params, tables
from tif.errors import run


def main() -> None:
    """Train from scratch on full (target) or full minus forget (retain), or record which published model it is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("role", choices=["target", "retain"])
    role = parser.parse_args().role

    choice = params.read("model", params.ModelChoice)
    settings = params.read(choice.name, finetune.Settings).root
    compute = params.read("compute", params.Compute)
    runtime = params.read("runtime", params.Runtime)
    source = params.local_source(choice.source, "model.source")
    models.prepare(compute)

    path = f"data/models/{role}"
    split = ""
    full = tables.read("data/benchmark/full.parquet", tables.SAMPLES)
    rows = full
    if role == "retain":
        forget = tables.read("data/benchmark/forget.parquet", tables.SAMPLES)
        split = forget["split"][0].as_py()
        rows = tables.without(full, forget)
    if isinstance(settings, finetune.Hub):
        finetune.refer(path, choice.name, settings, role, split, source)
        return
    utility = [
        tables.read(f"data/benchmark/{name}.parquet", tables.SAMPLES) for name in ("real_authors", "world_facts")
    ]
    finetune.from_scratch(path, settings, [full, *utility], [rows, *utility], compute.device, runtime.progress)


if __name__ == "__main__":
    run(main)
