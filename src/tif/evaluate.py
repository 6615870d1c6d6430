"""Per-sample measures of one model on the forget set, the retain set and the two utility sets."""

import numpy as np
import pyarrow as pa
from pydantic import Field

from tif import metrics
from tif.generation import generate
from tif.likelihood import likelihoods, scored_rows
from tif.models import LanguageModel
from tif.params import Block

UTILITY = ("real_authors", "world_facts")
SETS = ("forget", "retain", *UTILITY)


class Settings(Block):
    """`evaluate`. retain_rows: retain samples to evaluate, evenly spaced. new_tokens: longest generated answer.

    batch: questions answered at a time.
    """

    retain_rows: int = Field(ge=1)
    new_tokens: int = Field(ge=1)
    batch: int = Field(ge=1)


def evaluate(
    language_model: LanguageModel, sets: dict[str, pa.Table], settings: Settings, progress: bool
) -> list[dict]:
    """All measures of one model, as rows of the evaluation table.

    sets: the tables of `SETS`, by name. On every sample: probability, truth_ratio, extraction_strength,
    exact_memorization, and rouge (ROUGE-L recall of the greedy answer, which is the row's text); on the utility sets
    normalized_probability too.
    """
    rows: list[dict] = []
    for name in SETS:
        table = scored_rows(sets[name], settings.retain_rows if name == "retain" else None)
        found = likelihoods(language_model, table, progress, f"scoring {name}")
        texts = generate(language_model, table["prompt"].to_pylist(), settings.new_tokens, settings.batch, progress)
        answer_hits = np.split(found.answer.hit, found.answer.bounds[1:-1])
        measures = {
            "probability": found.probability,
            "truth_ratio": found.truth_ratio,
            "extraction_strength": [metrics.extraction_strength(hits) for hits in answer_hits],
            "exact_memorization": [metrics.exact_memorization(hits) for hits in answer_hits],
            "rouge": [
                metrics.rouge_recall(answer, text)
                for answer, text in zip(table["response"].to_pylist(), texts, strict=True)
            ],
        }
        if name in UTILITY:
            measures["normalized_probability"] = metrics.normalized_probability(found.loss, found.wrong)
        for index, sample_id in enumerate(table["sample_id"].to_pylist()):
            rows.extend(
                {
                    "sample_id": sample_id,
                    "measure": measure,
                    "value": float(values[index]),
                    "text": texts[index] if measure == "rouge" else None,
                }
                for measure, values in measures.items()
            )
    return rows
