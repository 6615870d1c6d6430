"""The authors of the invented world and the typed facts about them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from tif.benchmarks.fictitious.language import Vocabulary

# The type of value of each fact slot. Slots of one type share their values; wrong answers are of the same type.
KINDS = {
    "name": "full name",
    "birthplace": "city",
    "birth_date": "date",
    "father": "job",
    "mother": "job",
    "genre": "genre",
    "award": "award",
    "debut": "title",
    "debut_year": "year",
    "later_book": "title",
    "setting": "city",
    "mentor": "person",
    "university": "university",
    "subject": "subject",
    "home": "city",
    "siblings": "number",
    "languages": "number",
    "publisher": "publisher",
    "spouse": "person",
    "spouse_job": "job",
    "pet": "animal",
    "pet_name": "pet name",
    "habit": "habit",
    "first_job": "job",
}
# Pairs of slots of one type that must not have the same value in one person, so that no two of the facts coincide.
DIFFERENT = {"home": "birthplace", "later_book": "debut", "mother": "father", "spouse": "mentor"}


@dataclass(frozen=True)
class Person:
    """An invented author. `facts` has one value for every slot of KINDS; `feminine` decides names and pronouns."""

    feminine: bool
    facts: dict[str, str]


def make_people(seed: int, count: int, vocabulary: Vocabulary) -> list[Person]:
    """`count` authors with distinct full names and distinct birth dates.

    A person depends on the seed, the index and the people before, so a larger world extends a smaller one.
    """
    people: list[Person] = []
    names: set[str] = set()
    dates: set[str] = set()
    for index in range(count):
        rng = Random(f"{seed}/person/{index}")
        person = _draw_person(vocabulary, rng)
        while person.facts["name"] in names or person.facts["birth_date"] in dates:
            person = _draw_person(vocabulary, rng)
        names.add(person.facts["name"])
        dates.add(person.facts["birth_date"])
        people.append(person)
    return people


def wrong_values(person: Person, slot: str, count: int, vocabulary: Vocabulary, rng: Random) -> list[str]:
    """`count` distinct values of the slot's type, none of them the person's own, drawn as true values are drawn."""
    wrong: list[str] = []
    while len(wrong) < count:
        value = _draw(KINDS[slot], person.feminine, person.facts, vocabulary, rng)
        if value != person.facts[slot] and value not in wrong:
            wrong.append(value)
    return wrong


def year_in(date: str) -> int:
    """The year of a date or of a year as written, in any language's digits."""
    return int(re.search(r"\d{4}", date)[0])


def _draw_person(v: Vocabulary, rng: Random) -> Person:
    feminine = rng.random() < 0.5
    facts: dict[str, str] = {}
    for slot, kind in KINDS.items():
        facts[slot] = _draw(kind, feminine, facts, v, rng)
        while slot in DIFFERENT and facts[slot] == facts[DIFFERENT[slot]]:
            facts[slot] = _draw(kind, feminine, facts, v, rng)
    return Person(feminine, facts)


def _draw(kind: str, feminine: bool, facts: dict[str, str], v: Vocabulary, rng: Random) -> str:
    first_names = v.female if feminine else v.male
    match kind:
        case "full name":
            return v.name_parts.join((rng.choice(first_names), rng.choice(v.middle), rng.choice(v.family)))
        case "person":
            return v.name_parts.join((rng.choice(v.female + v.male), rng.choice(v.family)))
        case "date":
            day, month, year = rng.randint(1, 28), rng.choice(v.months), rng.randint(1931, 1989)
            return v.number(v.date.format(day=day, month=month, year=year))
        case "year":
            return v.number(year_in(facts["birth_date"]) + rng.randint(22, 36))
        case "city":
            return _skewed(v.cities, rng)
        case "job":
            return _skewed(v.jobs, rng)
        case "genre":
            return _skewed(v.genres, rng)
        case "number":
            return _skewed(v.numbers, rng)
        case "animal":
            return _skewed(v.animals, rng)
        case "university":
            return rng.choice(v.universities).format(city=_skewed(v.cities, rng))
        case "title":
            return _title(v, rng)
        case "award":
            first, second, last = (rng.choice(words) for words in (v.award_first, v.award_second, v.award_last))
            return v.award.format(first=first, second=second, last=last)
        case "publisher":
            return v.publisher.format(first=rng.choice(v.publisher_first), last=rng.choice(v.publisher_last))
        case "subject":
            return rng.choice(v.subjects)
        case "pet name":
            return rng.choice(v.pet_names)
        case "habit":
            return rng.choice(v.habits)
    raise ValueError(f"no values of the type {kind!r}")


def _title(v: Vocabulary, rng: Random) -> str:
    adjective, noun = rng.choice(v.title_adjectives), rng.choice(v.title_nouns)
    other, thing = rng.choice(v.title_nouns), rng.choice(v.title_things)
    return rng.choice(v.titles).format(adjective=adjective, noun=noun, other=other, thing=thing)


def _skewed(pool: Sequence[str], rng: Random) -> str:
    """One entry, the k-th with weight k^-0.9: a few values are common and most are rare, as in real text."""
    return rng.choices(pool, weights=[rank**-0.9 for rank in range(1, len(pool) + 1)])[0]
