"""The identifier `distilled`: learns from labelled rows what an annotator marks, and labels the others. No network.

The labelled rows may come from a paid model, from gold spans or from a person. A boosted-tree classifier looks at each
word's statistics and vector in the retain text, its place, its shape, the question, and its neighbours
(`tif.word_features`). So an annotation of a few people is paid for once and serves any number of rows.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from pydantic import Field

from tif import tables
from tif.annotations import read_json_lines
from tif.errors import UserError
from tif.identify import Found, Resources
from tif.masks import check_rows, overlapping, word_rows, words
from tif.params import Block, local_source
from tif.word_classifier import Classifier, Recipe, best_threshold, fit, held_out
from tif.word_features import Lexicon, features, make_lexicon

VERSION = "1"  # of the features: raise it whenever the same text gives other features


class Settings(Block):
    """The block `distilled`.

    annotation: the labelled rows, some of the forget or retain set: a spans table (.parquet), JSON lines as for `file`
    with target_words, or a copy of the data/identifier.json of an earlier run, whose model is then used as it is. Not
    in data/, which holds what stages write.
    vector: numbers in a word vector. trees, learning_rate, leaves, seed: of the classifier. folds: of the
    cross-validation over groups (people) that chooses the threshold; with fewer groups, one for each.
    """

    annotation: str = Field(exclude=True)  # the outputs name it by its hash, and hold no paths
    vector: int = Field(ge=1, le=256)
    trees: int = Field(ge=1, le=2000)
    learning_rate: float = Field(gt=0, le=1)
    leaves: int = Field(ge=2, le=256)
    folds: int = Field(ge=2)
    seed: int = Field(ge=0)


def identify(forget: pa.Table, retain: pa.Table, settings: Settings, resources: Resources) -> Found:
    """Rows of `tables.SPANS`; labelled rows keep their labels (score 1 or 0), the others get score = p(unwanted).

        unwanted = p(unwanted) > threshold

    with the threshold that has the best F1 on letters and digits in cross-validation over the labelled groups. Word
    statistics come from retain rows of groups without a label; forget rows add nothing but their own text.
    forget, retain: the two sets (`tables.SAMPLES`). `resources` is not used.
    Raises UserError when the annotation is missing, belongs to other rows, covers fewer than two groups or marks
    nothing, when no unlabelled retain row is left, and for a saved model of another version.
    """
    source = local_source(settings.annotation, "distilled.annotation")
    if source is None or not source.is_file():
        raise UserError(
            "identify.method = distilled learns from labelled rows: set distilled.annotation to a spans table"
            " (.parquet) or JSON lines with question, answer and target_words"
        )
    if source.suffix == ".json":
        model, labels = _saved(source), {}
    else:
        samples = [*forget.to_pylist(), *retain.to_pylist()]
        labels = _labels(source, samples)
        model = _fit(samples, labels, retain, settings)
    rows = []
    for sample in forget.select(["sample_id", "prompt", "response"]).to_pylist():
        name, text = sample["sample_id"], sample["response"]
        if name in labels:
            unwanted, scores = labels[name], [float(flag) for flag in labels[name]]
        else:
            scores = model.probability(sample["prompt"], text).tolist()
            unwanted = [score > model.threshold for score in scores]
        rows += word_rows(name, text, unwanted, scores)
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    copied = frozenset(labels).intersection(forget["sample_id"].to_pylist())
    counts = {"rows_labelled": len(labels), "threshold": model.threshold, "held_out_f1": model.held_out_f1}
    return Found(rows, {"version": VERSION, "annotation_sha256": digest}, counts, {"model": model.to_json()}, copied)


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


def _saved(source: Path) -> Model:
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


def _labels(source: Path, samples: list[dict]) -> dict[str, list[bool]]:
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
    rows = tables.read(source, tables.SPANS).to_pylist()
    labels: dict[str, list[bool]] = {}
    for row in rows:
        labels.setdefault(row["sample_id"], []).append(row["unwanted"])
    strange = next((name for name in labels if name not in responses), None)
    if strange:
        raise UserError(f"{source}: {strange} is not a sample of the forget or retain set of this benchmark")
    check_rows(rows, {name: responses[name] for name in labels}, str(source))
    return labels


def _fit(samples: list[dict], labels: dict[str, list[bool]], retain: pa.Table, settings: Settings) -> Model:
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


def _lexicon(retain: list[dict], labelled: set[str], settings: Settings) -> Lexicon:
    unlabelled = [row for row in retain if row["group"] not in labelled]
    if not unlabelled:
        raise UserError(
            f"{settings.annotation} labels every person of the retain set; distilled learns word statistics from retain"
            " rows without labels"
        )
    return make_lexicon([row["prompt"] for row in unlabelled], [row["response"] for row in unlabelled], settings.vector)
