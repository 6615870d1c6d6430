"""Which settings make the weights that `atwu` learns find the unwanted tokens of a small model?

    dvc repro unlearn && OMP_NUM_THREADS=1 python bench/analysis/atwu_search.py --out bench/results/atwu_search.csv

Unlearns the target model of `data/` once for every line of RUNS, which says what differs from params.yaml. The table
grows with every run, and a repeated call goes on where the last one ended. All of this looks at the gold spans of
benchmark seed 0. On any other benchmark the few runs of CHECK show whether what was found there holds:

    dvc exp run -S fictitious.seed=1 unlearn && OMP_NUM_THREADS=1 python bench/analysis/atwu_search.py --out ...

benchmark_seed, seed: of the benchmark, and of unlearning. The other columns:

auroc, average_precision: of the weights at the end against the gold spans (`tif.agreement.ranking`). weight_unwanted,
weight_general: their means on gold UW and on the rest. nll_unwanted, nll_general: mean NLL of the same tokens at the
end, nats. forget, retain: probability at the end, mean over the forget set and over `unlearn.trajectory_retain` retain
answers. retain_at_x, nll_general_at_x: retain and nll_general where the forget probability first falls to x,
interpolated linearly in its logarithm between measurements every 5 steps.

With one gamma, uniform weights forget faster, and what is forgotten fast takes more with it. So uniform weights are
also run with smaller gammas, down to one that ends where the learned weights end: the fairer comparison.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow as pa
import torch

from tif.agreement.ranking import Tokens, alignment
from tif.base import params, tables
from tif.base.errors import UserError
from tif.base.stage import run
from tif.benchmarks import SAMPLES, fictitious
from tif.lm import models
from tif.lm.batches import encode_pairs
from tif.methods import atwu
from tif.reference import REFERENCE
from tif.reference.table import triples
from tif.scores.answers import evenly, with_wrong_answers
from tif.scores.tokens import score
from tif.training.loop import Run
from tif.unlearning.examples import Data, forget_examples
from tif.unlearning.run import Method, unlearn
from tif.unlearning.settings import Settings
from tif.words import SPANS

DATA = Path("data")
SEARCHED = 0
STEPS_BETWEEN = 5
LEVELS = (0.5, 0.25)
OF_1B = {"alpha": 0.9, "gamma": 4.6, "beta": 7.4, "saturation": "weighted", "every": 5, "scorer_lr": 0.05}
OF_1B |= {"clip": 1.0, "entropy": 1.0, "population": 10.0, "budget": 0.2, "l2": 1.0}
ONE_AT_A_TIME = {
    "gamma": [0.5, 1.0],
    "beta": [0.5, 4.0],
    "saturation": ["weighted"],
    "every": [5],
    "scorer_lr": [0.02, 0.05, 1.0],
    "momentum": [0.0],
    "clip": [1.0],
    "entropy": [0.0, 0.3, 1.0],
    "population": [0.0, 2.0, 10.0],
    "budget": [0.2],
    "l2": [0.02, 1.0],
}
RUNS = [
    {},
    {"seed": 1},
    {"seed": 2},
    *({"token_weights": "uniform", "seed": seed} for seed in (0, 1, 2)),
    *({"token_weights": "uniform", "gamma": gamma} for gamma in (0.15, 0.2, 0.25, 0.3, 0.5)),
    {"token_weights": "spans"},
    {"token_weights": "scores"},
    OF_1B,
    OF_1B | {"scorer_lr": 0.5, "every": 1, "l2": 0.01},
    *({name: value} for name, values in ONE_AT_A_TIME.items() for value in values),
]
CHECK = [{}, {"scorer_lr": 1.0}, *({"token_weights": "uniform", "gamma": gamma} for gamma in (0.7, 0.15, 0.2)), OF_1B]


class World:
    """What all runs share: the target model, the two sets, the forget samples with their gold tokens."""

    def __init__(self) -> None:
        forget = tables.read(DATA / "benchmark/forget.parquet", SAMPLES)
        retain = tables.read(DATA / "benchmark/retain.parquet", SAMPLES)
        reference = tables.read(DATA / "reference.parquet", REFERENCE)
        self.settings = params.read("unlearn", Settings)
        self.seed = params.read("fictitious", fictitious.Settings).seed
        self.model = models.load(DATA / "models/target", None, "cpu")
        self.target = {name: weight.clone() for name, weight in self.model.model.state_dict().items()}
        spans = tables.read(DATA / "spans.parquet", SPANS)
        examples = forget_examples(self.model, forget, spans, reference)
        rows = forget.to_pylist()
        if any(row["gold_spans"] is None for row in rows):
            raise UserError("data/benchmark has no gold spans; choose benchmark.name=fictitious and run `dvc repro`")
        answers = {row["sample_id"]: row["response"] for row in rows}
        offsets = {e.sample_id: [pair for pair in e.offsets if pair[0] < pair[1]] for e in examples}
        gold = {row["sample_id"]: [(span["start"], span["end"]) for span in row["gold_spans"]] for row in rows}
        self.unwanted = Tokens(answers, offsets).unwanted(gold)
        self.text = np.array([start < end for e in examples for start, end in e.offsets])
        self.gold = np.zeros(len(self.text), bool)
        self.gold[self.text] = np.concatenate([self.unwanted[e.sample_id] for e in examples])
        some = evenly(with_wrong_answers(retain), self.settings.trajectory_retain)
        self.watched = [encode_pairs(self.model, triples(table)) for table in (forget, some)]
        # truth ratios, which nothing here reads, are the dearest part of a run
        one = [{**row, "perturbed_responses": row["perturbed_responses"][:1]} for row in rows]
        self.data = Data(examples, pa.Table.from_pylist(one, schema=SAMPLES), retain, reference)

    def look(self) -> dict[str, float]:
        """The model as it is now: mean probabilities of answers, mean NLL of gold UW and of other forget tokens."""
        forget, retain = (score(self.model, part, False) for part in self.watched)
        return {
            "forget_probability": float(np.exp(-forget.loss()).mean()),
            "retain_probability": float(np.exp(-retain.loss()).mean()),
            "nll_unwanted": float(-forget.logprob[self.gold & self.text].mean()),
            "nll_general": float(-forget.logprob[~self.gold & self.text].mean()),
        }

    def unlearned(self, changes: dict) -> tuple[list[dict], pd.DataFrame]:
        """One run: (rows of the token weights table, what `look` says over the steps)."""
        seed = changes.get("seed", self.settings.seed)
        own = {name: value for name, value in changes.items() if name != "seed"}
        chosen = params.read("atwu", atwu.Settings).model_copy(update=own)
        self.model.model.load_state_dict(self.target)
        self.model.model.eval()
        course: list[dict] = []
        module = watching(lambda: course.append(self.look()))
        method = Method(module, atwu.Settings.model_validate(chosen.model_dump()))
        changed = {"seed": seed, "method": "atwu", "select": "last", "trajectory_retain": 1}
        done = unlearn(self.model, self.data, method, self.settings.model_copy(update=changed), Run())
        course.append(self.look())
        return done.token_weights, pd.DataFrame(course)


def watching(look: Callable[[], None]) -> SimpleNamespace:
    """The method atwu, which also looks at the model before every fifth step."""

    class Learner(atwu.Learner):
        def after_step(self, step, sum_over_processes) -> None:
            super().after_step(step, sum_over_processes)
            if step % STEPS_BETWEEN == 0:
                look()

    return SimpleNamespace(needs=atwu.needs, Learner=Learner)


def retain_at(course: pd.DataFrame, forget_probability: float) -> float:
    """Retain probability when the forget probability first falls to a value (linear in its logarithm)."""
    level = np.log(course["forget_probability"].to_numpy())
    retain = course["retain_probability"].to_numpy()
    after = int(np.argmax(level <= np.log(forget_probability)))
    if level[after] > np.log(forget_probability):
        return float("nan")
    if after == 0:
        return float(retain[0])
    share = (level[after - 1] - np.log(forget_probability)) / (level[after - 1] - level[after])
    return float(retain[after - 1] + share * (retain[after] - retain[after - 1]))


def found(world: World, changes: dict) -> dict:
    """One line of the table."""
    weights, course = world.unlearned(changes)
    numbers: dict = dict.fromkeys(("auroc", "average_precision", "weight_unwanted", "weight_general"))
    if weights:
        last = max(row["epoch"] for row in weights)
        rows = [row for row in weights if row["epoch"] == last and row["start"] < row["end"]]
        scores: dict[str, list[float]] = {key: [] for key in world.unwanted}
        for row in rows:
            scores[row["sample_id"]].append(row["weight"])
        aligned = alignment(scores, world.unwanted)
        values, flags = (np.concatenate([part[key] for key in scores]) for part in (scores, world.unwanted))
        numbers = {"auroc": aligned.auroc, "average_precision": aligned.average_precision}
        numbers |= {"weight_unwanted": values[flags].mean(), "weight_general": values[~flags].mean()}
    numbers |= {name.removesuffix("_probability"): value for name, value in course.iloc[-1].items()}
    general = course.assign(retain_probability=course["nll_general"])
    for level in LEVELS:
        numbers |= {f"retain_at_{level}": retain_at(course, level)}
        numbers |= {f"nll_general_at_{level}": retain_at(general, level)}
    return settings_of(world, changes) | numbers


def settings_of(world: World, changes: dict) -> dict:
    """The first columns of a line: what is run."""
    changed = ", ".join(f"{name} {value}" for name, value in changes.items()) or "params.yaml"
    settings = params.read("atwu", atwu.Settings).model_dump() | {"seed": world.settings.seed} | changes
    return {"benchmark_seed": world.seed, "changed": changed, **settings}


def main() -> None:
    """Run what the table lacks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="CSV file to write, or to go on with")
    options = parser.parse_args()
    torch.set_num_threads(1)
    world = World()
    rows = pd.read_csv(options.out).to_dict("records") if options.out.exists() else []
    for changes in RUNS if world.seed == SEARCHED else CHECK:
        settings = settings_of(world, changes)
        if any(all(row[name] == value for name, value in settings.items()) for row in rows):
            continue
        rows.append(found(world, changes))
        tables.write_text(options.out, pd.DataFrame(rows).to_csv(index=False, float_format="%.4g"))
        print({name: rows[-1][name] for name in ("changed", "auroc", "forget", "retain")}, flush=True)


if __name__ == "__main__":
    run(main)
