"""What the report reads of the three models: the measures of their samples, what they said, and all summed up."""

from dataclasses import dataclass
from pathlib import Path

import pyarrow.compute as pc

from tif.base import tables
from tif.base.errors import UserError
from tif.evaluation import TEXTS
from tif.metrics import MEASURES, MODELS, NO_ATTACK

_AGAIN = "run `dvc repro -f measure`"


@dataclass(frozen=True)
class Results:
    """values[model][measure]: sample_id -> value on the forget set, in the order of the forget table.

    texts[model]: sample_id -> greedy answer to the forget questions. details: metrics/details.json.
    """

    values: dict[str, dict[str, dict[str, float]]]
    texts: dict[str, dict[str, str]]
    details: dict


def read_results(root: Path, forget: list[dict]) -> Results:
    """Measures and answers of the forget set, and the details, below `root`.

    Raises UserError where a file is missing, or does not belong to the forget table.
    """
    details_path = root / "metrics" / "details.json"
    details = tables.read_json(details_path)
    if not all(isinstance(details.get(model), dict) for model in (*MODELS, "about")):
        raise UserError(f"{details_path} does not have all of {', '.join(MODELS)}; {_AGAIN}")
    ids = [row["sample_id"] for row in forget]
    path = root / "data" / "measures.parquet"
    table = tables.read(path, MEASURES)
    plain = pc.equal(table["attack"].cast("string"), NO_ATTACK)
    ours = pc.is_in(table["sample_id"].cast("string"), value_set=pc.cast(ids, "string"))
    table = table.filter(pc.and_(plain, ours))
    values: dict[str, dict[str, dict[str, float]]] = {model: {} for model in MODELS}
    for row in table.to_pylist():
        values[row["model"]].setdefault(row["measure"], {})[row["sample_id"]] = row["value"]
    for model, columns in values.items():
        for measure in details["about"]["forget"]:
            same_samples(columns.get(measure, {}), ids, f"{path}: measure '{measure}' of the {model} model", _AGAIN)
    texts = {}
    for model in MODELS:
        where = root / "data" / "evaluation" / model / "texts.parquet"
        rows = tables.read(where, TEXTS).to_pylist()
        said = {row["sample_id"]: row["text"] for row in rows if row["sample_id"].startswith("forget/")}
        same_samples(said, ids, str(where), f"run `dvc repro -f evaluate@{model}`")
        texts[model] = said
    ordered = {
        model: {measure: {key: column[key] for key in ids} for measure, column in columns.items()}
        for model, columns in values.items()
    }
    return Results(ordered, texts, details)


def same_samples(found, expected, where: str, remedy: str) -> None:
    """Raise UserError naming the first sample that is in one of `found` and the forget table alone."""
    odd = sorted(set(found) ^ set(expected))
    if odd:
        verb = "lacks" if odd[0] in set(expected) else "has an unknown"
        raise UserError(f"{where} {verb} sample {odd[0]} ({len(odd)} differ from the forget table); {remedy}")
