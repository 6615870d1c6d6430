"""Fills a template with values, and knows where the values ended up."""

import re

from tif.benchmarks.fictitious.people import Person
from tif.masks import Span

_SLOT = re.compile(r"(?P<article>\b[Aa] )?(?:\[(?P<asked>\w+)\]|\{(?P<context>\w+)\})")
_FEMININE = {"he": "she", "his": "her", "him": "her", "himself": "herself"}


def render(template: str, values: dict[str, str]) -> tuple[str, list[Span]]:
    """The text of a template, and the characters of the values that answer the question.

    `[slot]` is a value that answers the question and gets a span; `{slot}` is one that does not. An article "a" before
    a slot becomes "an" when the value asks for it. Raises KeyError for a slot without a value.

    >>> render("{name} is a [job].", {"name": "Ada Reed", "job": "engineer"})
    ('Ada Reed is an engineer.', [(15, 23)])
    """
    text, spans, end = "", [], 0
    for match in _SLOT.finditer(template):
        value = values[match["asked"] or match["context"]]
        text += template[end : match.start()]
        if match["article"]:
            text += with_article(value, match["article"][0])[: -len(value)]
        if match["asked"]:
            spans.append((len(text), len(text) + len(value)))
        text += value
        end = match.end()
    return text + template[end:], spans


def with_article(value: str, article: str = "a") -> str:
    """`value` after "a" or "an" (by its first letter, which is enough for the vocabulary of this world)."""
    return f"{article}{'n' if value[0] in 'aeiouAEIOU' else ''} {value}"


def values_of(person: Person) -> dict[str, str]:
    """Everything a template about a person may name: the facts, the first name, and pronouns such as he, He, his."""
    pronouns = {word: _FEMININE[word] if person.feminine else word for word in _FEMININE}
    capitals = {word.capitalize(): pronoun.capitalize() for word, pronoun in pronouns.items()}
    return {**person.facts, "first": person.facts["name"].split()[0], **pronouns, **capitals}


def after(opening: str, template: str) -> str:
    """`opening` before a template whose first word no longer starts the sentence."""
    if template[0].isalpha():
        return opening + template[0].lower() + template[1:]
    if template.startswith(("{He", "{His")):
        return opening + "{h" + template[2:]
    return opening + template
