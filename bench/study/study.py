"""Which method is better, and by how much? Methods x seeds as DVC experiments, with settings chosen beforehand.

    make study                                          # the experiments, the table and the figure
    python bench/study/study.py tune study              # what chose the settings: bench/results/tuning.csv
    python bench/study/study.py run lambda beta         # other groups of bench/study/grids.yaml
    python bench/study/study.py run tofu --source ../shared/tofu
    python bench/study/study.py table study             # the table and the figure again, from the files

Groups, variants, seeds and tries are in grids.yaml; the rule that chooses settings is in tuning.py.
`tune` uses benchmark seed 0 alone, and what it chose is run on others, so that nothing is reported on what it was tuned
on. The results are bench/results/study.csv (one row a run; other groups: study_GROUP.csv), study_table.csv (means, 95 %
intervals over seeds, paired differences) and study_trajectories.csv; an interval of Student's t over 3 seeds is wide.

Every run is an experiment such as study-npo-seed1, fetched into this repository when it ends, so `dvc exp show` and
`dvc metrics diff study-tpo-seed1 study-npo-seed1` show the same headline numbers, and `dvc exp apply` puts one into the
workspace. An interrupted study goes on when it is started again: a finished experiment (same base commit, name and
parameters) is not run again, one with other parameters is, and what it has in common with others comes from the run
cache. After a commit of results, `--base` names the commit that the experiments belong to.

Why a loop of `dvc exp run --temp` and not `dvc exp run --queue`: the queue's workers are daemons that outlive the
command, and a failure shows only in `dvc queue logs`; here it is one line at once, and the other runs go on. Two
`--temp` runs at once work in one repository, but every one of them starts from its working tree and stashes that for a
moment: an edit made during the study would get into the runs, and a kill at that moment would leave the tree in the
stash. So each job has a clone at the base commit that shares this repository's cache, and only experiments come back.

Seconds per step (median) and peak memory are measured by the stage itself (src/tif/runs/costs.py) with `--jobs` runs at
a time, one thread each. A run whose unlearning came from the run cache, and was not run by a study in the same --folder
before, has none.
"""

import argparse
import signal
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import figure
import planning
import table
import tuning
from clones import ROOT, git
from planning import Experiment, Grids
from workshop import Failure, Workshop

from tif.base.errors import UserError
from tif.base.tables import write_text

# One after the other in a clone each, so that the long ones, target and retain model, are trained side by side.
TARGET, RETAIN = ("reference", "evaluate@target"), ("evaluate@retain",)


def file(options: argparse.Namespace, group: str, kind: str = "") -> Path:
    """study.csv, study_table.csv, study_lambda.csv, study_lambda_table.csv, ... in the folder of results."""
    parts = ["study", "" if group == "study" else group, kind]
    return options.results / f"{'_'.join(filter(None, parts))}.csv"


def tuning_file(options: argparse.Namespace, group: str) -> Path:
    """tuning.csv, tuning_identifiers.csv, ... in the folder of results."""
    return options.results / f"{'tuning' if group == 'study' else f'tuning_{group}'}.csv"


def planned(options: argparse.Namespace, grids: Grids, group: str) -> list[Experiment]:
    """The experiments of a group, with the settings that tuning chose."""
    found, chosen = grids.groups[group], {}
    tuned = found.chosen or (group if found.tuning else None)
    if tuned:
        tries = planning.tries(grids, tuned, list(planning.variants(grids, group, options.only)))
        chosen = tuning.read_chosen(tuning_file(options, tuned), tries, tuned)
    return planning.experiments(grids, group, chosen, options.only)


def prepare(shop: Workshop, experiments: list[Experiment]) -> None:
    """Make what experiments share: target and retain models, their evaluations, and labelled rows.

    Else two jobs would train the same model at the same time. Raises UserError when that fails.
    """
    worlds = {planning.text(one.world): one for one in experiments}
    first, others = list(worlds.values())[:1], list(worlds.values())[1:]
    # the second world's target may be that of the first, and then comes from the run cache
    order = [
        (one, part) for part, ones in ((TARGET, first), (RETAIN, [*first, *others]), (TARGET, others)) for one in ones
    ]
    for (one, targets), failure in shop.each(lambda clone, item: shop.prepare(clone, *item), order):
        if failure:
            raise UserError(f"{' '.join(targets)} of {one.name} failed: {failure}")
        print(f"seed {one.seed} {one.place}: {' '.join(targets)} done", flush=True)
    labelled = {one.seed: one for one in experiments if "{annotation}" in planning.text(one.own)}
    for one, failure in shop.each(shop.annotate, labelled.values()):
        if failure:
            raise UserError(f"the labelled rows of seed {one.seed} cannot be made: {failure}")


def carry_out(
    shop: Workshop, experiments: list[Experiment], work: Callable[[Path, Experiment], object]
) -> Iterator[tuple[Experiment, object]]:
    """work(clone, experiment) of each, after what they share was made; (experiment, result or Failure) as they end."""
    if experiments:
        with shop.opened():
            prepare(shop, experiments)
            yield from shop.each(work, experiments)


def tune(shop: Workshop, options: argparse.Namespace, grids: Grids, group: str) -> int:
    """Run the tries of a group that the table lacks at this commit, and mark what the rule chooses; failures."""
    path, every = tuning_file(options, group), planning.tries(grids, group)
    rows = {(row["variant"], row["settings"]): row for row in tuning.read(path)}
    todo = {}
    for settings, one in planning.attempts(grids, group, options.only):
        known = rows.get((one.variant, planning.text(settings)))
        if not known or known["commit"] != shop.base[:10]:
            todo[one.name] = (settings, one)
    experiments = [one for _, one in todo.values()]
    check(shop, experiments)
    print(f"tune {group}: {len(todo)} tries to run", flush=True)
    failed = 0
    for one, outcome in carry_out(shop, experiments, partial(attempt, shop)):
        if isinstance(outcome, Failure) and "not finite" not in str(outcome):
            print(f"{one.name} FAILED: {outcome}", flush=True)
            failed += 1
            continue
        outcome = None if isinstance(outcome, Failure) else outcome
        settings = todo[one.name][0]
        row = tuning.row(one.variant, settings, shop.base, outcome)
        rows[row["variant"], row["settings"]] = row
        write_text(path, tuning.mark(list(rows.values()), every).to_csv(index=False))
        print(f"{one.name} ({planning.text(settings)}): {outcome or 'the loss was not finite'}", flush=True)
    return failed


def attempt(shop: Workshop, clone: Path, one: Experiment) -> tuning.Outcome:
    """Unlearn without evaluating, and read the last epoch."""
    shop.repro(clone, one, ("evaluate@retain", "unlearn"))
    return tuning.read_outcome(clone)


def check(shop: Workshop, experiments: list[Experiment]) -> None:
    """Raise UserError for a setting that does not exist or needs a path that was not given, before anything runs."""
    params = shop.params()
    for one in experiments:
        planning.check_keys(one.settings, params)
        shop.filled(one)


def run(shop: Workshop, options: argparse.Namespace, grids: Grids, group: str) -> int:
    """Run the experiments of a group that are not finished, and write its tables; returns how many failed."""
    experiments = planned(options, grids, group)
    check(shop, experiments)
    finished, todo = [], []
    for one in experiments:
        made = shop.made_with(one)
        if made == shop.wanted(one):
            finished.append(one)
        else:
            todo.append(one)
            if made:
                print(f"{one.name} was made with other parameters and is run again", flush=True)
    print(f"{group}: {len(finished)} of {len(experiments)} experiments are finished", flush=True)
    order = planning.labels(grids, group)
    for kind in ("", "trajectories"):  # numbers of a run that now fails must not stand beside new ones
        stale = {(one.variant, one.seed) for one in todo}
        table.drop(file(options, group, kind), stale, order, grids.groups[group].seeds)
    for one in finished:
        collect(shop, options, group, one, order)
    failed = 0
    for done, (one, failure) in enumerate(carry_out(shop, todo, shop.run), start=1):
        if failure:
            print(f"{one.name} FAILED: {failure}", flush=True)
            failed += 1
        else:
            collect(shop, options, group, one, order)
            print(f"{one.name} done ({done} of {len(todo)})", flush=True)
    return failed


def collect(shop: Workshop, options: argparse.Namespace, group: str, one: Experiment, order: list[str]) -> None:
    """Put the numbers of a finished experiment into the group's tables, whose variants are in `order`."""
    result = shop.result(one)
    table.merge(file(options, group), table.rows(one, shop.base, result), order)
    epochs = [{"variant": one.variant, "seed": one.seed, **row} for row in result.trajectory.to_dict("records")]
    table.merge(file(options, group, "trajectories"), epochs, order)


def report(options: argparse.Namespace, grids: Grids, group: str) -> None:
    """Print a group's table, and write it and the figure."""
    rows = table.read(file(options, group))
    if rows.empty:
        raise UserError(f"{file(options, group)} has no rows: run `python bench/study/study.py run {group}`")
    compare = grids.groups[group].compare
    found = table.summary(rows, compare)
    write_text(file(options, group, "table"), found.to_csv(index=False, float_format="%.6g"))
    print(table.markdown(found, compare), flush=True)
    if grids.groups[group].figure:
        trajectories = table.read(file(options, group, "trajectories"))
        figure.draw(ROOT / grids.groups[group].figure, rows, trajectories)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["tune", "run", "table"])
    parser.add_argument("groups", nargs="*", default=["study"], metavar="GROUP", help="of the grids; default: study")
    parser.add_argument("--only", nargs="+", metavar="VARIANT", help="some variants of the groups")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, one thread each")
    parser.add_argument("--base", default="HEAD", help="commit to run; the experiments belong to it")
    parser.add_argument("--source", type=Path, help="folder with TOFU's files and published annotations")
    parser.add_argument("--folder", type=Path, default=ROOT / "build/study", help="for clones, logs and costs")
    parser.add_argument("--grids", type=Path, default=ROOT / "bench/study/grids.yaml")
    parser.add_argument("--results", type=Path, default=ROOT / "bench/results")
    options = parser.parse_args()
    if options.jobs < 1:
        parser.error("--jobs must be at least 1")
    options.groups = options.groups or ["study"]
    return options


def main() -> int:
    """Run the command for every group; the number of runs that failed."""
    options = parse()
    grids = planning.read_grids(options.grids)
    for group in options.groups:
        planning.variants(grids, group, options.only)
    failed = 0
    if options.command != "table":
        base = git("rev-parse", "--verify", f"{options.base}^{{commit}}")
        if changed := git("status", "--porcelain", "--", "src", "stages", "dvc.yaml", "params.yaml"):
            print(f"note: the study runs {base[:10]}; changes that are not committed are not in it:\n{changed}")
        work = tune if options.command == "tune" else run
        shop = Workshop(options.folder.resolve(), base, options.source and options.source.resolve(), options.jobs)
        failed = sum(work(shop, options, grids, group) for group in options.groups)
    if options.command != "tune":
        for group in options.groups:
            report(options, grids, group)
    return failed


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        sys.exit(f"error: {count} runs failed; their logs are named above" if (count := main()) else 0)
    except UserError as error:
        sys.exit(f"error: {error}")
