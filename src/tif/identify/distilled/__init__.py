"""The identifier `distilled`: learns from labelled rows what an annotator marks, and labels the others. No network.

The labelled rows may come from a paid model, from gold spans or from a person. A boosted-tree classifier looks at each
word's statistics and vector in the retain text, its place, its shape, the question, and its neighbours
(`tif.identify.distilled.features`). So an annotation of a few people is paid for once and serves any number of rows.
"""

import hashlib

import pyarrow as pa
from pydantic import Field

from tif.base.errors import UserError
from tif.base.params import Block, local_source
from tif.identify import Found, Resources
from tif.words import word_rows


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
    """Rows of `SPANS`; labelled rows keep their labels (score 1 or 0), the others get score = p(unwanted).

        unwanted = p(unwanted) > threshold

    with the threshold that has the best F1 on letters and digits in cross-validation over the labelled groups. Word
    statistics come from retain rows of groups without a label; forget rows add nothing but their own text.
    forget, retain: the two sets (`SAMPLES`). `resources` is not used.
    Raises UserError when the annotation is missing, belongs to other rows, covers fewer than two groups or marks
    nothing, when no unlabelled retain row is left, and for a saved model of another version.
    """
    from tif.identify.distilled.model import VERSION, fit_model, read_labels, saved_model

    source = local_source(settings.annotation, "distilled.annotation")
    if source is None or not source.is_file():
        raise UserError(
            "identify.method = distilled learns from labelled rows: set distilled.annotation to a spans table"
            " (.parquet) or JSON lines with question, answer and target_words"
        )
    if source.suffix == ".json":
        model, labels = saved_model(source), {}
    else:
        samples = [*forget.to_pylist(), *retain.to_pylist()]
        labels = read_labels(source, samples)
        model = fit_model(samples, labels, retain, settings)
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
