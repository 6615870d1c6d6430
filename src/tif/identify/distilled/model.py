"""The model of `distilled`: a lexicon, a classifier and a threshold; fitted on labelled rows, saved as JSON."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from tif.base import tables
from tif.base.errors import UserError
from tif.identify.annotations import read_json_lines
from tif.identify.distilled.classifier import Classifier, Recipe, best_threshold, fit, held_out
from tif.identify.distilled.features import Lexicon, features, make_lexicon
from tif.words import SPANS, check_rows, overlapping, words

if TYPE_CHECKING:
    from tif.identify.distilled import Settings

VERSION = "1"  # of the features: raise it whenever the same text gives other features


@dataclass(frozen=True)
class Model:
    """A lexicon, a classifier and the threshold of its probability; `held_out_f1` is what cross-validation found."""

    lexicon: Lexicon
    classifier: Classifier
    threshold: float
    held_out_f1: float

    def probability(self, prompt: str, response: str) -> np.ndarray:
        """[n] p(unwanted) of the words of an answer."""
        return self.classifier.probability(features(self.lexicon, prompt, response))

    def to_json(self) -> dict:
        return {
            "version": VERSION,
            "threshold": self.threshold,
            "held_out_f1": self.held_out_f1,
            "classifier": self.classifier.to_json(),
            "words": list(self.lexicon.index),
            "table": self.lexicon.table.tolist(),
        }


def saved_model(source: Path) -> Model:
    """The model in a copy of an earlier data/identifier.json. Raises UserError when it is none of this version."""
    try:
        content = json.loads(source.read_text(encoding="utf-8"))["model"]
        if content["version"] != VERSION:
            raise UserError(
                f"{source}: the model has version {content['version']!r}, this code reads {VERSION!r}; point"
                " distilled.annotation at the labelled rows to fit it anew"
            )
        index = {word: row for row, word in enumerate(content["words"], start=1)}
        lexicon = Lexicon(index, np.array(content["table"], dtype=float))
        if lexicon.table.ndim != 2 or len(lexicon.table) != len(index) + 1 or not np.isfinite(lexicon.table).all():
            raise ValueError("the table does not fit the words")
        classifier = Classifier.from_json(content["classifier"], features(lexicon, "?", "word").shape[1])
        threshold, f1 = float(content["threshold"]), float(content["held_out_f1"])
        if not 0 <= threshold < 1 or not 0 <= f1 <= 1:
            raise ValueError("not a share")
        return Model(lexicon, classifier, threshold, f1)
    except (ValueError, KeyError, TypeError, IndexError):
        raise UserError(f"{source} is not the data/identifier.json of a run with identify.method = distilled") from None


def read_labels(source: Path, samples: list[dict]) -> dict[str, list[bool]]:
    """sample_id -> whether each word of the answer is unwanted, for the samples that the annotation covers."""
    if source.suffix == ".parquet":
        return _labels_of_table(source, {sample["sample_id"]: sample["response"] for sample in samples})
    annotation = read_json_lines(source, "target_words")
    return {
        sample["sample_id"]: overlapping(sample["response"], annotation[key])
        for sample in samples
        if (key := (sample["prompt"], sample["response"])) in annotation
    }


def _labels_of_table(source: Path, responses: dict[str, str]) -> dict[str, list[bool]]:
    rows = tables.read(source, SPANS).to_pylist()
    labels: dict[str, list[bool]] = {}
    for row in rows:
        labels.setdefault(row["sample_id"], []).append(row["unwanted"])
    strange = next((name for name in labels if name not in responses), None)
    if strange:
        raise UserError(f"{source}: {strange} is not a sample of the forget or retain set of this benchmark")
    check_rows(rows, {name: responses[name] for name in labels}, str(source))
    return labels


def fit_model(samples: list[dict], labels: dict[str, list[bool]], retain: pa.Table, settings: "Settings") -> Model:
    """A classifier of words learned from labelled samples, with the threshold that cross-validation chooses."""
    labelled = [sample for sample in samples if sample["sample_id"] in labels]
    groups = sorted({sample["group"] for sample in labelled})
    if len(groups) < 2:
        raise UserError(
            f"{settings.annotation} labels {len(labelled)} rows of the forget and retain set, about {len(groups)}"
            " people or documents; distilled needs rows of this benchmark about at least two"
        )
    lexicon = _lexicon(retain.to_pylist(), set(groups), settings)
    x = np.concatenate([features(lexicon, sample["prompt"], sample["response"]) for sample in labelled])
    unwanted = np.concatenate([labels[sample["sample_id"]] for sample in labelled])
    folds = [groups.index(sample["group"]) % settings.folds for sample in labelled]
    fold = np.repeat(folds, [len(labels[sample["sample_id"]]) for sample in labelled])
    letters = np.array(
        [
            sum(map(str.isalnum, sample["response"][start:end]))
            for sample in labelled
            for start, end in words(sample["response"])
        ]
    )
    if any(len(np.unique(unwanted[(fold != number) & (letters > 0)])) < 2 for number in set(folds)):
        raise UserError(
            f"{settings.annotation} marks nothing, or everything, in most of its groups: there is nothing to learn"
        )
    recipe = Recipe(settings.trees, settings.learning_rate, settings.leaves, settings.seed)
    threshold, f1 = best_threshold(held_out(x, unwanted, fold, recipe), unwanted, letters)
    return Model(lexicon, fit(x, unwanted, recipe), threshold, round(f1, 6))


def _lexicon(retain: list[dict], labelled: set[str], settings: "Settings") -> Lexicon:
    unlabelled = [row for row in retain if row["group"] not in labelled]
    if not unlabelled:
        raise UserError(
            f"{settings.annotation} labels every person of the retain set; distilled learns word statistics from retain"
            " rows without labels"
        )
    return make_lexicon([row["prompt"] for row in unlabelled], [row["response"] for row in unlabelled], settings.vector)
