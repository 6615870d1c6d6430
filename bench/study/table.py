"""The study's tables: rows from experiments, means with intervals over seeds, paired differences."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from planning import Experiment, text
from scipy import stats
from workshop import Result

from tif.base.tables import write_text

MEASURES = {
    "forget_quality.log10_pvalue": "log10 FQ",
    "best.forget_quality.log10_pvalue": "best epoch",
    "model_utility": "utility",
    "forget.probability": "forget p",
    "utility.retain.probability": "retain p",
    "forget.extraction_strength": "ES",
    "seconds_per_step": "s/step",
    "peak_mib": "peak MiB",
    "agreement.f1": "spans F1",
    "agreement.precision": "precision",
    "agreement.recall": "recall",
}
"""Columns of a group's table, named as in details.json, a costs file and identify.json, and how they are printed.

Those that a table does not have are left out.
"""

AGREEMENT = ("f1", "precision", "recall")  # of the identifier's spans with the gold spans

LEVEL = 0.95
KEY = ["variant", "seed"]
FIRST = [*KEY, "method", "identifier", "settings", "experiment", "commit"]
REFERENCES = ("target", "retain")  # models without unlearning, shown above the variants


def rows(experiment: Experiment, base: str, result: Result) -> list[dict]:
    """Rows of one experiment: its unlearned model, and the target and the retain model that it started from.

    The numbers are those of details.json, under dotted names; those of the best epoch (by the rule of `unlearn.select`,
    which sees nothing of the retain model) are from the trajectory, and those of the spans from identify.json.
    """
    common = {"seed": experiment.seed, "commit": base[:10]}
    place = f" {experiment.place}" if experiment.place else ""
    references = [{"variant": name + place, **common, **flat(result.details[name])} for name in REFERENCES]
    names = {
        "method": result.params["unlearn"]["method"],
        "identifier": result.params["identify"]["method"],
        "settings": text(experiment.own),
        "experiment": experiment.name,
    }
    epoch = result.selection["best"]["epoch"]
    quality = result.trajectory.set_index("epoch").loc[epoch, "forget_quality_log10"]
    best = {"best.epoch": epoch, "best.forget_quality.log10_pvalue": float(quality)}
    agreement = result.identified["agreement"] or {}  # None where the benchmark knows no gold spans
    spans = {f"agreement.{name}": agreement[name] for name in AGREEMENT if name in agreement}
    numbers = flat(result.details["unlearned"]) | best | spans | result.costs
    return [*references, {"variant": experiment.variant, **common, **names, **numbers}]


def flat(values: dict, prefix: str = "") -> dict[str, float]:
    """Nested numbers under dotted names.

    >>> flat({"forget": {"rouge": 0.5}})
    {'forget.rouge': 0.5}
    """
    found = {}
    for name, value in values.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return found


def read(path: Path) -> pd.DataFrame:
    """A table that was written before; an empty one where there is none."""
    return pd.read_csv(path) if path.exists() else pd.DataFrame()


def merge(path: Path, new: list[dict], order: list[str]) -> None:
    """Put rows into a CSV file, in place of all that it has of the same variants and seeds.

    Models without unlearning come first, then variants in `order`, then others.
    """
    old, rows = read(path), pd.DataFrame(new)
    kept = old[~_of(old, set(rows[KEY].itertuples(index=False, name=None)))] if len(old) else old
    both = pd.concat([frame for frame in (kept, rows) if len(frame)])
    place = {name: number for number, name in enumerate([*REFERENCES, *order])}
    both["place"] = [place.get(name.split()[0] if is_reference(name) else name, len(place)) for name in both["variant"]]
    both = both.sort_values(["place", *KEY, *(name for name in ("epoch",) if name in both)]).drop(columns="place")
    both = both[[name for name in FIRST if name in both] + [name for name in both if name not in FIRST]]
    write_text(path, both.to_csv(index=False))


def drop(path: Path, stale: set[tuple[str, int]], order: list[str], seeds: list[int]) -> None:
    """Take out of a CSV file the rows of `stale` runs, and of variants and seeds that are not planned."""
    table = read(path)
    if len(table):
        known = table["variant"].isin(order) | table["variant"].map(is_reference)
        known &= table["seed"].isin(seeds) & ~_of(table, stale)
        write_text(path, table[known].to_csv(index=False))


def _of(table: pd.DataFrame, runs: set[tuple[str, int]]) -> pd.Series:
    return pd.Series([one in runs for one in zip(table["variant"], table["seed"])], index=table.index, dtype=bool)


def is_reference(variant: str) -> bool:
    """Whether the rows of that name are of a model without unlearning."""
    return variant.split()[0] in REFERENCES


def interval(values: ArrayLike, level: float = LEVEL) -> tuple[float, float, float]:
    """Mean of n values and its confidence interval: mean -+ t * s / sqrt(n).

    t: quantile of Student's distribution with n - 1 degrees of freedom. s: standard deviation with n - 1. Returns
    (mean, low, high); NaN bounds for one value, all NaN for none. With 3 values t is 4.30, so the interval is 2.5
    standard deviations wide on either side.
    """
    array = np.asarray(values, dtype=np.float64)
    if not len(array):
        return math.nan, math.nan, math.nan
    mean = float(array.mean())
    if len(array) == 1:
        return mean, math.nan, math.nan
    half = float(stats.t.ppf((1 + level) / 2, len(array) - 1) * array.std(ddof=1) / math.sqrt(len(array)))
    return mean, mean - half, mean + half


def summary(table: pd.DataFrame, compare: str | None) -> pd.DataFrame:
    """One row per variant and measure: number of seeds, mean and interval, and the same for paired differences.

    A difference is that of a variant to `compare` on the same seed, where both have a value.
    """
    made = []
    for variant in dict.fromkeys(table["variant"]):
        for measure in (name for name in MEASURES if name in table):
            values, others = (_by_seed(table, name, measure) for name in (variant, compare))
            row = {"variant": variant, "measure": measure, "seeds": len(values)}
            row |= dict(zip(("mean", "low", "high"), interval(values)))
            if compare and variant != compare and not is_reference(variant):
                differences = (values - others).dropna()
                names = ("difference", "difference_low", "difference_high")
                row |= {"pairs": len(differences)} | dict(zip(names, interval(differences)))
            made.append(row)
    found = pd.DataFrame(made)
    return found.astype({"pairs": "Int64"} if "pairs" in found else {})


def _by_seed(table: pd.DataFrame, variant: str | None, measure: str) -> pd.Series:
    chosen = table[table["variant"] == variant].set_index("seed")
    return chosen.get(measure, pd.Series(dtype=float)).dropna().astype(float)


def markdown(found: pd.DataFrame, compare: str | None) -> str:
    """Two Markdown tables: means with intervals, and paired differences to `compare` (where it is given)."""
    parts = [_table(found, ("mean", "low", "high"), "seeds")]
    differing = found[found["pairs"].fillna(0) > 0] if compare and "pairs" in found else found[:0]
    if len(differing):
        head = f"Differences to {compare} on the same seed:"
        parts += [head, _table(differing, ("difference", "difference_low", "difference_high"), "pairs")]
    return "\n\n".join(parts)


def _table(found: pd.DataFrame, columns: tuple[str, str, str], count: str) -> str:
    measures = list(dict.fromkeys(found["measure"]))
    lines = [["", count, *(MEASURES[name] for name in measures)], ["---"] * (2 + len(measures))]
    for variant in dict.fromkeys(found["variant"]):
        cells = found[found["variant"] == variant].set_index("measure")
        shown = [_cell(*cells.loc[name, list(columns)]) if name in cells.index else "" for name in measures]
        lines.append([variant, str(cells[count].max()), *shown])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(mean: float, low: float, high: float) -> str:
    """`0.12 (0.10 to 0.14)`; the mean alone where there is one value, nothing where there is none."""
    if math.isnan(mean):
        return ""
    return f"{mean:.3g}" if math.isnan(low) else f"{mean:.3g} ({low:.3g} to {high:.3g})"
