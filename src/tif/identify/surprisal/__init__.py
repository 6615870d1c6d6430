"""The identifier `surprisal`: a word is unwanted when a causal language model does not see it coming.

The model must not have seen the forget set: a base model that is older than the facts, or the retain model of this
pipeline (`identify.source=data/models/retain`), which is read as its card `tif.json` says, with its own prompt and
dtype, be its weights in the folder or on the hub. Any other model reads the plain prompt. Question and answer are
written as in every stage, so each word is judged given the question and the answer so far. What it cannot see: facts
that the earlier part of the answer gives away, and general words where several would do.
"""

from typing import Literal

import pyarrow as pa
from pydantic import Field, ValidationInfo, field_validator

from tif.base.params import Block
from tif.identify import Found, Resources


class Settings(Block):
    """The block `surprisal`.

    model, revision: a causal language model of the hub, used where `identify.source` names no local model folder.
    dtype: of its weights, unless the folder has a card. measure, threshold: an unwanted word has a rank above the
    threshold, or a probability below.
    """

    model: str
    revision: str
    dtype: Literal["float32", "bfloat16", "float16"]
    measure: Literal["rank", "probability"]
    threshold: float = Field(ge=0)

    @field_validator("threshold")
    @classmethod
    def _within_the_measure(cls, threshold: float, info: ValidationInfo) -> float:
        measure = info.data.get("measure")
        if measure == "probability" and threshold > 1:
            raise ValueError("a probability lies between 0 and 1; for ranks set surprisal.measure=rank")
        if measure == "rank" and threshold < 1:
            raise ValueError("ranks start at 1; for probabilities set surprisal.measure=probability")
        return threshold


def identify(forget: pa.Table, retain: pa.Table, settings: Settings, resources: Resources) -> Found:
    """Rows of `SPANS`, and what tells the model.

    Over the tokens t that share a character with the word, each given all tokens before it:

        rank         r = largest of 1 + number of tokens likelier than t;    unwanted = r > threshold
        probability  p = product of p(t);                                    unwanted = p < threshold
        score        = 1 - 1/r or 1 - p

    Punctuation is general, with score 0. forget: the forget set (`SAMPLES`); `retain` is not used.
    resources.source: a model folder, with or without a card. Raises UserError for an unusable model folder or hub
    model, and for a card of a model below `model.source`, which no identifier reads.
    """
    from tif.identify.surprisal.marking import mark
    from tif.lm.models import Card, folder_sha256, load, locate, open_model, prepare

    prepare(resources.compute, resources.progress)
    source, device = resources.source, resources.compute.device
    if source and (source / "tif.json").is_file():
        language_model = load(source, None, device)
        card, origin = language_model.card, {"model_sha256": folder_sha256(source)}
        if card.repository:
            origin |= {"model": card.repository, "revision": card.revision}
    else:
        name, revision, origin = locate(source, settings.model, settings.revision)
        card = Card(prompt="plain", date="", dtype=settings.dtype, attention="sdpa")
        language_model = open_model(name, revision, card, device)
    rows = mark(language_model, forget, settings, resources.progress)
    return Found(rows, {"version": "1", **origin})
