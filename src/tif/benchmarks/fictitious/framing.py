"""Harmless clauses around an answer. They say nothing about the person, and few of their words come often.

Without them every rare word of an answer would be a fact, and counting words would find the facts.
"""

from random import Random

from tif.benchmarks.fictitious.language import Frame, Framing

# How often an answer gets each kind of frame; the others stay bare.
SHARES = {"adverb": 0.11, "source": 0.07, "crowd": 0.1, "event": 0.07, "bare": 0.65}


def draw_frame(template: str, framing: Framing, rng: Random) -> Frame:
    """A clause for the template of an answer: before it, after it, or for most answers none.

    All words of a clause but the drawn ones are common in answers, so that only the drawn ones are rare.
    """
    if framing.remark in template:  # it has a clause of this kind already
        return Frame("bare")
    kind = rng.choices(tuple(SHARES), weights=tuple(SHARES.values()))[0]
    if kind == "adverb":
        return Frame(kind, (rng.choice(framing.adverbs),))
    if kind == "source":
        kind = "document" if rng.random() < 0.5 else "witness"
    pools = {
        "document": framing.documents,
        "witness": framing.witnesses,
        "crowd": framing.crowds,
        "event": framing.events,
    }
    return Frame(kind, tuple(rng.choice(words) for words in pools.get(kind, ())))


def framed(template: str, frame: Frame, framing: Framing) -> str:
    """The template with the clause."""
    return template if frame.kind == "bare" else framing.apply(frame, template)
