"""From the evaluation tables of the three models to the numbers of metrics.json."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tif import metrics, tables
from tif.errors import UserError

MODELS = ("target", "retain", "unlearned")
FORGET_MEASURES = ("probability", "rouge", "truth_ratio", "extraction_strength", "exact_memorization")
# On the utility sets TOFU's "probability" is the share of the right answer among all answers.
UTILITY_COLUMNS = {
    "retain": {"probability": "probability", "rouge": "rouge", "truth_ratio": "truth_ratio"},
    "real_authors": {"probability": "normalized_probability", "rouge": "rouge", "truth_ratio": "truth_ratio"},
    "world_facts": {"probability": "normalized_probability", "rouge": "rouge", "truth_ratio": "truth_ratio"},
}
_USED = [("forget", measure) for measure in FORGET_MEASURES] + [
    (name, measure) for name, columns in UTILITY_COLUMNS.items() for measure in columns.values()
]


@dataclass(frozen=True)
class Evaluation:
    """One evaluation table: values[set, measure] maps sample_id to value, in the order of sample_id.

    generated: sample_id to the greedy answer.
    """

    path: Path
    values: dict[tuple[str, str], dict[str, float]]
    generated: dict[str, str]

    def array(self, name: str, measure: str) -> np.ndarray:
        """The values of one measure on one set [n], in the order of sample_id."""
        return np.array(list(self.values[name, measure].values()))


def read_evaluation(path: Path) -> Evaluation:
    """Read one model's evaluation. Raises UserError for a missing measure, a doubled row or a value out of range."""
    values: dict[tuple[str, str], dict[str, float]] = {}
    generated = {}
    rows = tables.read(path, tables.EVALUATION).to_pylist()
    for row in sorted(rows, key=lambda row: row["sample_id"]):
        sample_id, measure, value = row["sample_id"], row["measure"], row["value"]
        column = values.setdefault((sample_id.split("/")[0], measure), {})
        if sample_id in column:
            raise UserError(f"{path}: {sample_id} has two rows of measure '{measure}'; {_again(path)}")
        # truth ratios are the one measure without an upper end
        if not (0 <= value <= (np.finfo(float).max if measure == "truth_ratio" else 1)):
            raise UserError(f"{path}: measure '{measure}' of {sample_id} is {value}, out of range; {_again(path)}")
        column[sample_id] = value
        if measure == "rouge" and row["text"] is not None:
            generated[sample_id] = row["text"]
    for name, measure in _USED:
        if (name, measure) not in values:
            raise UserError(f"{path}: no row of measure '{measure}' on the {name} set; {_again(path)}")
    return Evaluation(path, values, generated)


def read_evaluations(folder: Path, forget_ids: list[str]) -> dict[str, Evaluation]:
    """The evaluations of the three models, all on the same samples, each with an answer to every forget sample.

    Raises UserError naming the file and the first sample that is missing or one too many.
    """
    evaluations = {name: read_evaluation(folder / f"{name}.parquet") for name in MODELS}
    first = evaluations[MODELS[0]]
    for evaluation in evaluations.values():
        for name, measure in _USED:
            found = evaluation.values[name, measure].keys()
            where = f"{evaluation.path}: measure '{measure}' on the {name} set"
            if name == "forget":
                same_samples(found, forget_ids, where, "the forget table", _again(evaluation.path))
            same_samples(found, first.values[name, measure].keys(), where, str(first.path), _again(evaluation.path))
        same_samples(
            [key for key in evaluation.generated if key.startswith("forget/")],
            forget_ids,
            f"{evaluation.path}: generated answers (column 'text')",
            "the forget table",
            _again(evaluation.path),
        )
    return evaluations


def same_samples(found, expected, where: str, other: str, remedy: str) -> None:
    """Raise UserError naming the first sample that is in one of `found` and `expected` alone."""
    odd = sorted(set(found) ^ set(expected))
    if odd:
        verb = "lacks" if odd[0] in set(expected) else "has an unknown"
        raise UserError(f"{where} {verb} sample {odd[0]} ({len(odd)} differ from {other}); {remedy}")


def _again(path: Path) -> str:
    return f"run `dvc repro -f evaluate@{path.stem}`"


def summary(evaluation: Evaluation, reference: Evaluation) -> dict:
    """All numbers of one model; `reference` is the retain model's evaluation (tif.metrics has the formulas)."""
    quality = metrics.forget_quality(
        evaluation.array("forget", "truth_ratio"), reference.array("forget", "truth_ratio")
    )
    utility = {
        name: {part: _mean(part, evaluation.array(name, measure)) for part, measure in columns.items()}
        for name, columns in UTILITY_COLUMNS.items()
    }
    forget = {measure: float(evaluation.array("forget", measure).mean()) for measure in FORGET_MEASURES}
    forget["truth_ratio"] = metrics.aggregate_truth_ratio_forget(evaluation.array("forget", "truth_ratio"))
    return {
        "forget_quality": {
            "pvalue": quality.pvalue,
            "log10_pvalue": quality.log10_pvalue,
            "statistic": quality.statistic,
            "n": quality.n_unlearned,
        },
        "model_utility": metrics.model_utility(utility),
        "forget": forget,
        "utility": utility,
    }


def _mean(part: str, values: np.ndarray) -> float:
    return metrics.aggregate_truth_ratio_other(values) if part == "truth_ratio" else float(values.mean())


def rounded(value):
    """`value` with every float in it cut to 6 significant digits, so that differences between runs can be read."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    return float(f"{value:.6g}") if isinstance(value, float) else value
