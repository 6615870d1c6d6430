"""Fills a template with values, and knows where the values ended up."""

import re

from tif.benchmarks.fictitious.language import Language
from tif.benchmarks.fictitious.people import Person
from tif.words import Span

_SLOT = re.compile(r"(?P<article>\b[Aa] )?(?:\[(?P<asked>\w+)\]|\{(?P<context>\w+)\})")
_GENDERED = re.compile(r"<([^<>|]*)\|([^<>|]*)>")


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


def slots_in(template: str) -> list[str]:
    """The names of the slots of a template, in order."""
    return [match["asked"] or match["context"] for match in _SLOT.finditer(template)]


def with_article(value: str, article: str = "a") -> str:
    """`value` after "a" or "an" (by its first letter, which is enough for the vocabulary of this world)."""
    return f"{article}{'n' if value[0] in 'aeiouAEIOU' else ''} {value}"


def values_of(person: Person, language: Language) -> dict[str, str]:
    """Everything a template about a person may name: the facts, the first name, and pronouns such as he, He, his."""
    pronouns = {word: forms[person.feminine] for word, forms in language.pronouns.items()}
    capitals = {word.capitalize(): pronoun.capitalize() for word, pronoun in pronouns.items()}
    first = person.facts["name"].split(language.vocabulary.name_parts)[0]
    return {**person.facts, "first": first, **pronouns, **capitals}


def inflect(template: str, feminine: bool) -> str:
    """The template with the form that agrees with the person, wherever it gives both as `<masculine|feminine>`.

    >>> inflect("<poet|poetess> {name}", feminine=True)
    'poetess {name}'
    """
    return _GENDERED.sub(lambda match: match[1 + feminine], template)
