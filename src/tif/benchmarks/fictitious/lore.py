"""What everybody in the invented world knows: the authors of its classics, and its nations."""

from dataclasses import dataclass
from random import Random

from tif.benchmarks.fictitious.language import LoreText
from tif.benchmarks.fictitious.rendering import render
from tif.words import Span

WRONG_ANSWERS = 3


@dataclass(frozen=True)
class Lore:
    """A thing that everybody knows. `subject` is what it is about; the wrong answers are of the answer's type.

    spans: the characters of `answer` that are the value.
    """

    subject: str
    question: str
    answer: str
    wrong: tuple[str, ...]
    spans: tuple[Span, ...]


def famous_authors(seed: int, text: LoreText) -> list[Lore]:
    """Who wrote what: every author of a classic has one work of each type. In a random order."""
    items = []
    for kind, works in text.works.items():
        rng = Random(f"{seed}/lore/{kind}")
        for author, work in zip(text.authors, rng.sample(works, len(works))):
            question = rng.choice(text.about_works[kind]).format(work)
            items.append(_item(author, question, author, text.authors, text.answer_works, rng))
    return Random(f"{seed}/lore/authors").sample(items, len(items))


def facts_of_nations(seed: int, text: LoreText) -> list[Lore]:
    """Capitals, rivers, mountains, coins and flowers: every nation has one of each. In a random order."""
    items = []
    for feature, values in text.features.items():
        rng = Random(f"{seed}/lore/{feature}")
        for nation, value in zip(text.nations, rng.sample(values, len(values))):
            question = rng.choice(text.about_features[feature]).format(nation)
            items.append(_item(nation, question, value, values, text.answer_features, rng))
    return Random(f"{seed}/lore/nations").sample(items, len(items))


def _item(subject: str, question: str, value: str, values: tuple[str, ...], template: str, rng: Random) -> Lore:
    answer, spans = render(template, {"answer": value})
    wrong = rng.sample([other for other in values if other != value], WRONG_ANSWERS)
    return Lore(
        subject, question, answer, tuple(render(template, {"answer": other})[0] for other in wrong), tuple(spans)
    )
