"""What a language must bring to render the invented world. The four of them lie in the folders beside this file.

Every list of one language has as many entries as the same list of any other, in the same order, so that the same
draws give the same people, facts and rows: only the rendering differs.
"""

from collections.abc import Callable
from dataclasses import dataclass


def pool(text: str, comma: str = ",") -> tuple[str, ...]:
    """The entries of `text`, which `comma` separates.

    >>> pool("a, b c, d")
    ('a', 'b c', 'd')
    """
    return tuple(" ".join(entry.split()) for entry in text.split(comma))


@dataclass(frozen=True)
class Vocabulary:
    """The values that facts can have. Of cities, jobs, genres, numbers and animals the first are the commonest.

    The parts of compound values are joined by formats: name_parts joins first, middle and family name; date takes
    {day}, {month}, {year}; titles are four formats of {adjective}, {noun}, {other}, {thing}; award takes {first},
    {second}, {last}; publisher takes {first}, {last}; universities take {city}. digits: how 0 to 9 are written.
    """

    female: tuple[str, ...]
    male: tuple[str, ...]
    middle: tuple[str, ...]
    family: tuple[str, ...]
    cities: tuple[str, ...]
    jobs: tuple[str, ...]
    genres: tuple[str, ...]
    numbers: tuple[str, ...]
    subjects: tuple[str, ...]
    animals: tuple[str, ...]
    pet_names: tuple[str, ...]
    months: tuple[str, ...]
    title_adjectives: tuple[str, ...]
    title_nouns: tuple[str, ...]
    title_things: tuple[str, ...]
    award_first: tuple[str, ...]
    award_second: tuple[str, ...]
    award_last: tuple[str, ...]
    publisher_first: tuple[str, ...]
    publisher_last: tuple[str, ...]
    habits: tuple[str, ...]
    universities: tuple[str, ...]
    name_parts: str
    date: str
    titles: tuple[str, str, str, str]
    award: str
    publisher: str
    digits: str = "0123456789"

    def number(self, value: int | str) -> str:
        """`value` with its digits as this language writes them."""
        return str(value).translate(str.maketrans("0123456789", self.digits))


@dataclass(frozen=True)
class Fact:
    """One question about a person: the slots it asks for, ways to ask it, and ways to answer it in a full sentence."""

    slots: tuple[str, ...]
    questions: tuple[str, ...]
    answers: tuple[str, ...]


@dataclass(frozen=True)
class Frame:
    """A harmless clause: its kind (a key of `framing.SHARES`) and the rare general words in it."""

    kind: str
    words: tuple[str, ...] = ()


@dataclass(frozen=True)
class Framing:
    """The rare general words of harmless clauses, and how a clause and an answer become one text.

    documents, witnesses and events are adjectives and nouns; crowds are people and what they do. remark: what marks a
    template that has such a clause already. apply(frame, template): the template with the clause.
    mentions: sentences about other things with values of the types `{city}`, `{job}`, ... append(text, sentence): the
    sentence after an answer.
    """

    adverbs: tuple[str, ...]
    documents: tuple[tuple[str, ...], tuple[str, ...]]
    witnesses: tuple[tuple[str, ...], tuple[str, ...]]
    crowds: tuple[tuple[str, ...], tuple[str, ...]]
    events: tuple[tuple[str, ...], tuple[str, ...]]
    remark: str
    apply: Callable[[Frame, str], str]
    mentions: tuple[str, ...]
    append: Callable[[str, str], str]


@dataclass(frozen=True)
class LoreText:
    """The classics and the nations of the world.

    works, features: a kind -> its works, or its values. about_works, about_features: a kind -> two questions, with {}
    for the work or the nation. answer, with the slot [answer]: how answers to both are written.
    """

    authors: tuple[str, ...]
    works: dict[str, tuple[str, ...]]
    about_works: dict[str, tuple[str, str]]
    nations: tuple[str, ...]
    features: dict[str, tuple[str, ...]]
    about_features: dict[str, tuple[str, str]]
    answer_works: str = "[answer]"
    answer_features: str = "[answer]"


@dataclass(frozen=True)
class Language:
    """One rendering of the world. pronouns: what a template calls them -> the masculine and the feminine form."""

    vocabulary: Vocabulary
    facts: tuple[Fact, ...]
    framing: Framing
    lore: LoreText
    pronouns: dict[str, tuple[str, str]]
