"""From the tables of the evaluated models to measures, and from these to metrics.json and details.json."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from tif.base.errors import UserError
from tif.base.tables import csv_text
from tif.benchmarks import Set, read_card, read_set
from tif.metrics import MEASURES, MODELS, NO_ATTACK, Measure, known_measures
from tif.metrics.quality import forget_quality
from tif.metrics.scored import Scored, read_scored, same_samples
from tif.metrics.utility import model_utility

# TOFU calls the share of the right answer among all answers a probability too.
PARTS = {"normalized_probability": "probability"}


@dataclass(frozen=True)
class Measured:
    """values[model][set][measure]: [n] of the set's samples, in the order of sample_ids[set]."""

    sets: dict[str, Set]
    measures: dict[str, Measure]
    sample_ids: dict[str, list[str]]
    values: dict[str, dict[str, dict[str, np.ndarray]]]

    def aggregate(self, model: str, name: str, measure: str) -> float:
        """One number for a set."""
        return self.measures[measure].aggregate(self.values[model][name][measure], self.sets[name].role)


def measure(benchmark: Path, evaluation: Path) -> Measured:
    """Take all measures of all models.

    benchmark: data/benchmark. evaluation: data/evaluation, a folder a model. Raises UserError where a table is missing,
    or does not belong to the others, and for a measure that a set cannot have.
    """
    sets = {name: about for name, about in read_card(benchmark)[1].items() if about.measures}
    known = known_measures()
    for name, about in sets.items():
        check(name, about, known, benchmark)
    samples = {name: (about, read_set(benchmark, name, about.role)) for name, about in sets.items()}
    scored = {model: read_scored(evaluation / model, samples) for model in MODELS}
    first = MODELS[0]
    other = str(evaluation / first / "tokens.parquet")
    values: dict[str, dict[str, dict[str, np.ndarray]]] = {}
    for model in MODELS:
        path, again = evaluation / model / "tokens.parquet", f"run `dvc repro -f evaluate@{model}`"
        for name, about in sets.items():
            one = scored[model][name]
            same_samples(one.sample_ids, scored[first][name].sample_ids, f"{path}: the {name} set", other, again)
            taken = {key: _values(known[key], one, f"{path}: the {name} set", again) for key in about.measures}
            values.setdefault(model, {})[name] = taken
    sample_ids = {name: scored[first][name].sample_ids for name in sets}
    return Measured(sets, {key: known[key] for one in sets.values() for key in one.measures}, sample_ids, values)


def check(name: str, about: Set, known: dict[str, Measure], benchmark: Path) -> None:
    """Raises UserError for a measure that there is not, or that this set cannot have."""
    where = f"{benchmark / 'card.json'}: the {name} set"
    for key in about.measures:
        if key not in known:
            raise UserError(f"{where} asks for the measure '{key}'; known: {', '.join(sorted(known))}")
        there = {"wrong": "wrong" in about.answers, "text": about.generated}
        if about.role not in known[key].sets or not all(there[one] for one in known[key].reads):
            raise UserError(f"{where} cannot have the measure '{key}': it lacks what that reads, or is of another role")


def _values(one: Measure, scored: Scored, where: str, again: str) -> np.ndarray:
    try:
        values = np.asarray(one.values(scored), dtype=np.float64)
    except ValueError as error:
        raise UserError(f"{where}: measure '{one.name}': {error}; {again}") from None
    odd = ~((values >= 0) & (values <= one.most))
    if odd.any():
        index = int(odd.argmax())
        raise UserError(
            f"{where}: measure '{one.name}' of {scored.sample_ids[index]} is {values[index]}, out of range; {again}"
        )
    return values


def measure_rows(measured: Measured) -> pa.Table:
    """The measures table: one row for every sample, model and measure."""
    parts = []
    for model, sets in measured.values.items():
        for name, columns in sets.items():
            ids = measured.sample_ids[name]
            for key, values in columns.items():
                constant = [pa.array([text] * len(ids)).dictionary_encode() for text in (model, NO_ATTACK, key)]
                arrays = [pa.array(ids).dictionary_encode(), *constant, pa.array(values)]
                parts.append(pa.table(dict(zip(MEASURES.names, arrays, strict=True))))
    return pa.concat_tables(parts).unify_dictionaries()


def details(measured: Measured) -> dict:
    """All numbers, by model: forget quality, model utility, and the aggregates of every set.

    forget: of the forget set. utility: the parts of model utility. holdout: where there is one.
    """
    return {model: _details(measured, model) for model in MODELS}


def _details(measured: Measured, model: str) -> dict:
    found: dict = {}
    ratios = [measured.values[one]["forget"].get("truth_ratio") for one in (model, "retain")]
    if ratios[0] is not None:
        quality = forget_quality(*ratios)
        found["forget_quality"] = {
            "pvalue": quality.pvalue,
            "log10_pvalue": quality.log10_pvalue,
            "statistic": quality.statistic,
            "n": quality.n_unlearned,
        }
    utility = {
        name: {PARTS.get(key, key): measured.aggregate(model, name, key) for key in about.utility}
        for name, about in measured.sets.items()
        if about.utility
    }
    if utility:
        found["model_utility"] = model_utility(utility)
    for name, about in measured.sets.items():
        if about.role in ("forget", "holdout"):
            found[name] = {key: measured.aggregate(model, name, key) for key in about.measures}
    return {**found, "utility": utility}


def headline(found: dict) -> dict:
    """About ten of the details, for `dvc metrics show` and `dvc exp show`; what is not there is left out."""
    chosen = {
        "unlearned": {
            "forget_quality": ("forget_quality", "pvalue"),
            "forget_quality_log10": ("forget_quality", "log10_pvalue"),
            "model_utility": ("model_utility",),
            "forget_probability": ("forget", "probability"),
            "forget_rouge": ("forget", "rouge"),
            "retain_probability": ("utility", "retain", "probability"),
        },
        "target": {
            "forget_quality_log10": ("forget_quality", "log10_pvalue"),
            "model_utility": ("model_utility",),
            "forget_probability": ("forget", "probability"),
        },
        "retain": {"model_utility": ("model_utility",), "forget_probability": ("forget", "probability")},
    }
    made: dict = {}
    for model, numbers in chosen.items():
        for name, path in numbers.items():
            value = found[model]
            for key in path:
                value = value.get(key) if isinstance(value, dict) else None
            if value is not None:
                made.setdefault(model, {})[name] = value
    return made


def described(measured: Measured) -> dict:
    """What readers of the details have to know: the measures, those of the forget set, and the parts of utility."""
    return {
        "measures": {
            key: {"title": one.title, "better": one.better, "says": one.says} for key, one in measured.measures.items()
        },
        "forget": list(measured.sets["forget"].measures),
        "utility": {
            name: {PARTS.get(key, key): key for key in about.utility}
            for name, about in measured.sets.items()
            if about.utility
        },
    }


def truth_ratio_csv(measured: Measured) -> str:
    """Truth ratios of each model in rising order; `share` is the share of samples at or below (the ECDF)."""
    rows = []
    for model in MODELS:
        values = measured.values[model]["forget"].get("truth_ratio", np.empty(0))
        ordered = sorted(zip(values.tolist(), measured.sample_ids["forget"], strict=False))
        rows += [
            [model, sample_id, rounded(ratio), rounded((k + 1) / len(ordered))]
            for k, (ratio, sample_id) in enumerate(ordered)
        ]
    return csv_text(["model", "sample_id", "truth_ratio", "share"], rows)


def rounded(value):
    """`value` with every float in it cut to 6 significant digits, so that differences between runs can be read."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    return float(f"{value:.6g}") if isinstance(value, float) else value
