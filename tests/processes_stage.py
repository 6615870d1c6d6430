"""A stage for test_processes.py: it unlearns a tiny model in several cases, alone or as one of two processes.

What it needs is imported where it is needed, as in real stages: the one that starts the others needs little of it.
"""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tif.base.params import Compute, choose
from tif.base.stage import run
from tif.runs import processes

if TYPE_CHECKING:
    from tif.runs.processes import Group


def case(folder: Path, group: "Group", method: str, settings: dict, minutes: float | None, die: dict) -> dict:
    """One run of unlearning on the tables and the model in `folder`: all that comes of it, and the samples seen here.

    die: which process kills itself, at which call of the objective, and which checkpoint it lets be completed first.
    """
    import several

    module = choose("methods", method, "unlearn.method")
    seen, target = [], getattr(module, "Learner", module)
    objective = target.objective

    def noted(*arguments, **options):
        batch = next(value for value in arguments if hasattr(value, "sample_share"))
        seen.append([batch.sample_ids, batch.sample_share, batch.token_share])
        if die and group.rank == die["rank"] and len(seen) == die["call"]:
            several.die_after(folder / "work/unlearn" / several.KEY / die["checkpoint"])
        return objective(*arguments, **options)

    target.objective = noted
    try:
        model, done = several.unlearned(folder / "model", group, method, several.Settings(**settings), minutes)
    finally:
        target.objective = objective
    return {**vars(done), "model": dict(model.model.state_dict()), "seen": seen, "world": group.count}


def main() -> None:
    """Run the cases of cases.json in two processes."""
    folder = Path(sys.argv[1])
    if not processes.started():
        processes.launch(2, Compute(device="cpu", threads=1))
        return
    import several

    several.work(folder, case, json.loads((folder / "cases.json").read_text()))


if __name__ == "__main__":
    run(processes.told_once(main))
