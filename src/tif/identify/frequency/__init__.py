"""The identifier `frequency`: words that are rare in the retain answers are unwanted. No model and no network.

Facts about one person seldom occur in the answers about the others, while the words that carry the grammar and the
topic do. What it cannot see: facts that retain people share (a genre, a number), and general words that happen to be
rare.
"""

import re
from collections import Counter

import pyarrow as pa
from pydantic import Field

from tif.base.errors import UserError
from tif.base.params import Block
from tif.identify import Found, Resources
from tif.words import is_punctuation, word_rows, words

_JOINING_HYPHEN = re.compile(r"(?<=\w)[-‐‑](?=\w)")


class Settings(Block):
    """The block `frequency`.

    threshold: largest share of the retain answers that may hold an unwanted word.
    """

    threshold: float = Field(ge=0, le=1)


def identify(forget: pa.Table, retain: pa.Table, settings: Settings, resources: Resources) -> Found:
    """Rows of `SPANS`, and their metadata.

    With w the looked-up form of a word (see `lookup_forms`) and df(w) the share of retain answers that hold w:

        unwanted = w has a letter or digit, w is not in the question, and df(w) <= threshold
        score    = 1 - df(w), or 0 for a word of the question and for punctuation

    forget, retain: the two sets (`SAMPLES`); `resources` is not used.
    Raises UserError when the retain set is empty.
    """
    if not retain.num_rows:
        raise UserError("identify.method = frequency: the retain set is empty, so no word frequency is known")
    answers = retain.column("response").to_pylist()
    answers_with = Counter(form for answer in answers for form in set(lookup_forms(answer)))
    rows = []
    for sample in forget.select(["sample_id", "prompt", "response"]).to_pylist():
        asked = set(lookup_forms(sample["prompt"]))
        unwanted, scores = [], []
        for form in lookup_forms(sample["response"]):
            candidate = form not in asked and not is_punctuation(form)
            share = answers_with[form] / len(answers)
            unwanted.append(candidate and share <= settings.threshold)
            scores.append(1.0 - share if candidate else 0.0)
        rows += word_rows(sample["sample_id"], sample["response"], unwanted, scores)
    return Found(rows, {"version": "1"})


def lookup_forms(text: str) -> list[str]:
    """What is looked up for each word of `text`, in order: the word or its hyphenated compound, case folded.

    The parts of a compound share one fate, hyphens included, because they are common where the whole is not.

    >>> lookup_forms("Hsiao Yun-Hwa.")
    ['hsiao', 'yun-hwa', 'yun-hwa', 'yun-hwa', '.']
    """
    hyphens = {match.start() for match in _JOINING_HYPHEN.finditer(text)}
    compounds: list[list[tuple[int, int]]] = []
    for start, end in words(text):
        if start in hyphens or start - 1 in hyphens:
            compounds[-1].append((start, end))
        else:
            compounds.append([(start, end)])
    return [text[parts[0][0] : parts[-1][1]].casefold() for parts in compounds for _ in parts]
