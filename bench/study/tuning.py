"""How the study chooses settings: the same number of tries for every variant, and a rule stated in advance.

Of a variant's tries, on one benchmark that the study does not report, the one with the greatest log10 forget quality
at the last epoch, among those that keep at least KEPT of the target's retain probability there; of equals, the one
with the greatest retain probability. Where none keeps that much: the greatest retain probability * (1 - forget
probability). All are read from the trajectory; forget quality is against the retain model of the same benchmark.
"""

from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd
from planning import Settings, text

from tif.base.errors import UserError
from tif.benchmarks import read_card, read_set
from tif.metrics.scored import read_scored
from tif.metrics.trajectory import read_trajectory

KEPT = 0.95


@dataclass(frozen=True)
class Outcome:
    """The last epoch of a try. kept: retain probability as a share of the target's on the same samples."""

    log10_fq: float
    forget_p: float
    retain_p: float
    kept: float

    def __str__(self) -> str:
        probabilities = f"forget p {self.forget_p:.3f}, retain p {self.retain_p:.3f} ({self.kept:.1%} kept)"
        return f"log10 FQ {self.log10_fq:.2f}, {probabilities}"


def read_outcome(folder: Path) -> Outcome:
    """The outcome of the unlearning that was run in a clone."""
    benchmark, name = folder / "data/benchmark", "forget"
    about = read_card(benchmark)[1][name]
    samples = {name: (about, read_set(benchmark, name, about.role))}
    retain = read_scored(folder / "data/evaluation/retain", samples)[name]
    reference = dict(zip(retain.sample_ids, retain.losses.truth_ratio, strict=True))
    epochs = read_trajectory(folder / "data/trajectory.parquet", reference)
    first, last = epochs[0], epochs[-1]
    kept = last.retain_probability / first.retain_probability
    return Outcome(last.forget_quality_log10, last.forget_probability, last.retain_probability, kept)


def best(outcomes: list[Outcome | None]) -> int:
    """Index of the outcome that the rule chooses. None: a try whose loss was not finite.

    Raises ValueError when all are None.
    """
    finite = [(index, outcome) for index, outcome in enumerate(outcomes) if outcome]
    if not finite:
        raise ValueError("no try has an outcome")
    keeping = [(index, outcome) for index, outcome in finite if outcome.kept >= KEPT]
    if keeping:
        return max(keeping, key=lambda item: (item[1].log10_fq, item[1].retain_p))[0]
    return max(finite, key=lambda item: item[1].retain_p * (1 - item[1].forget_p))[0]


def row(variant: str, settings: Settings, commit: str, outcome: Outcome | None) -> dict:
    """A row of the table of tries."""
    values = asdict(outcome) if outcome else dict.fromkeys(Outcome.__dataclass_fields__)
    return {"variant": variant, "settings": text(settings), "commit": commit[:10], **values}


def read(path: Path) -> list[dict]:
    """The rows of a table of tries that was written before."""
    if not path.exists():
        return []
    return pd.read_csv(path).fillna({"settings": ""}).to_dict("records")


def mark(rows: list[dict], tries: dict[str, list[Settings]]) -> pd.DataFrame:
    """The table of tries, in the order of the grid, with the chosen one of every variant that has all its outcomes."""
    known = {(row["variant"], row["settings"]): row for row in rows}
    marked = []
    for variant, settings in tries.items():
        found = [known.get((variant, text(one))) for one in settings]
        outcomes = [_outcome(row) for row in found if row]
        chosen = best(outcomes) if outcomes and len(outcomes) == len(settings) and any(outcomes) else None
        marked += [{**row, "chosen": index == chosen} for index, row in enumerate(filter(None, found))]
    return pd.DataFrame(marked)


def _outcome(row: dict) -> Outcome | None:
    values = {name: row[name] for name in Outcome.__dataclass_fields__}
    return None if pd.isna(values["log10_fq"]) else Outcome(**values)


def read_chosen(path: Path, tries: dict[str, list[Settings]], group: str) -> dict[str, Settings]:
    """The chosen settings of every variant. Raises UserError where the table lacks them or the grid has changed."""
    rows = read(path)
    chosen = {}
    for variant, settings in tries.items():
        own = [row for row in rows if row["variant"] == variant]
        best = [row["settings"] for row in own if row["chosen"]]
        if {row["settings"] for row in own} != {text(one) for one in settings} or not best:
            raise UserError(f"{path} lacks tries of {variant}: run `python bench/study/study.py tune {group}`")
        chosen[variant] = next(one for one in settings if text(one) == best[0])
    return chosen
