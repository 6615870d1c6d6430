"""Stage check: every name, key, type and range in params.yaml, before any stage deletes or trains anything.

It is a pure function of params.yaml: paths, packages and devices are looked at by the stages that need them.
"""

from pathlib import Path

from tif.base import params, tables
from tif.base.errors import UserError
from tif.base.stage import run
from tif.evaluation import Settings as Evaluate
from tif.finetune import Settings as Model
from tif.unlearning.settings import Settings as Unlearn

OUT = Path("data/checked")

FIXED = {
    "benchmark": params.BenchmarkChoice,
    "model": params.ModelChoice,
    "identify": params.IdentifyChoice,
    "unlearn": Unlearn,
    "evaluate": Evaluate,
    "compute": params.Compute,
    "runtime": params.Runtime,
}
CHOICES = {"benchmarks": "benchmark.name", "identify": "identify.method", "methods": "unlearn.method"}


def main() -> None:
    """Write a file that is always the same, so that nothing runs again because of it."""
    check(params.read_all())
    tables.write_text(OUT, "params.yaml is well-formed\n")


def check(blocks: dict) -> None:
    """Raises UserError with all problems, one a line."""
    types = FIXED | {
        name: params.choose(package, name, key).Settings
        for package, key in CHOICES.items()
        for name in params.known_names(package)
    }
    problems = []

    def gather(found: UserError) -> None:
        problems.append(str(found))

    for name, values in blocks.items():
        kind = types.get(name, Model if isinstance(values, dict) and "kind" in values else None)
        try:
            if kind is None:
                raise UserError(f"params.yaml: unknown block '{name}'{params.nearest(name, types)}")
            params.validate(name, values, kind)
        except UserError as found:
            gather(found)
    problems += [f"params.yaml has no block '{name}'" for name in FIXED if name not in blocks]
    if not problems:
        problems = wrong_names(blocks)
    if problems:
        raise UserError("\n       ".join(problems))


def wrong_names(blocks: dict) -> list[str]:
    """What is said of chosen names that there are not."""
    models = [name for name, values in blocks.items() if isinstance(values, dict) and "kind" in values]
    known = {key: params.known_names(package) for package, key in CHOICES.items()} | {"model.name": models}
    found = []
    for key, names in known.items():
        block, field = key.split(".")
        name = blocks[block][field]
        if name not in names:
            near = params.nearest(name, names)
            found.append(f"params.yaml: {key} = {name!r} is unknown{near}; known: {', '.join(sorted(names))}")
        elif name not in blocks:
            found.append(f"params.yaml has no block '{name}', which {key} names")
    return found


if __name__ == "__main__":
    run(main)
