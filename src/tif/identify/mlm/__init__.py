"""The identifier `mlm`: a word is unwanted unless a masked language model expects it in its place.

The discriminative identifier of arXiv 2506.03142: what a model that never saw the answer can fill in is general
language, what it cannot is the fact. Its two published modes are settings:

    TOFU  words: whitespace, context: question_answer, case_sensitive: false, threshold: 0    (distilroberta-base)
    MUSE  words: whitespace, context: sentence,        case_sensitive: true,  threshold: 0.9  (bert-large-uncased)

The published rule masks what stands between white space, so "Arlen." and "well-known" are replaced whole, and as no
token is such a word, none of them is ever general: about one in six of the words of TOFU's answers. With `words:
unicode`, the default, a word is one of ours (`tif.words.words`): attached punctuation and the other parts of a compound
stay in the context, and the rule works for scripts without spaces too.

What holds for both:
- Punctuation is general, with score 0: it carries no fact. A word between white space hands its label and score to the
  words of ours in it, but for these.
- One mask stands for the whole word, so a word that is no single token of the vocabulary can never be expected. It is
  unwanted with score 1, and no model needs to run for it.
- A model that knows lower case only never expects a capital letter; with `case_sensitive: true` every capitalised word
  is unwanted then, as published.
"""

from typing import Literal

import pyarrow as pa
from pydantic import Field

from tif.base.params import Block
from tif.identify import Found, Resources


class Settings(Block):
    """The block `mlm`.

    model, revision: a masked language model of the hub, used where `identify.source` names no local model folder.
    words: what one mask replaces: a word of `tif.words.words`, or all that stands between white space.
    context: what the model reads beside the mask: question and answer, or the word's own sentence of the answer.
    case_sensitive: whether "may" misses "May". threshold: least probability of an expected word that is general.
    """

    model: str
    revision: str
    words: Literal["unicode", "whitespace"]
    context: Literal["question_answer", "sentence"]
    case_sensitive: bool
    threshold: float = Field(ge=0, le=1)


def identify(forget: pa.Table, retain: pa.Table, settings: Settings, resources: Resources) -> Found:
    """Rows of `SPANS`, and what tells the model.

    With t the likeliest token in the place of the word, the word masked by a single mask:

        general = the word is punctuation, or t is the word and p(t) >= threshold
        score   = 1 - p(word), how unwanted the word is, in [0, 1]; 0 for punctuation

    p(word) is summed over the tokens that are this word: with a space before it or not, and in another case where case
    does not matter.

    A context of more tokens than the model can read is cut to a window around the mask.
    forget: the forget set (`SAMPLES`); `retain` is not used. resources.source: a model folder.
    Counts: `words_outside_vocabulary`, words of ours for which no single token stands; `model_runs`, different masked
    texts read.
    Raises UserError for an unusable model folder or hub model, and for a model that has no mask token.
    """
    from tif.identify.mlm.marking import mark
    from tif.identify.mlm.masked import open_masked
    from tif.lm.models import locate, prepare

    prepare(resources.compute, resources.progress)
    name, revision, origin = locate(resources.source, settings.model, settings.revision)
    masked = open_masked(name, revision, resources.compute.device)
    found = mark(masked, forget, settings, resources.progress)
    return Found(found.rows, {"version": "1", **origin}, found.counts)
