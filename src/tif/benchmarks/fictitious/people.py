"""The authors of the invented world and the typed facts about them."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from tif.benchmarks.fictitious import vocabulary as v

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


def make_people(seed: int, count: int) -> list[Person]:
    """`count` authors with distinct full names and distinct birth dates.

    A person depends on the seed, the index and the people before, so a larger world extends a smaller one.
    """
    people: list[Person] = []
    names: set[str] = set()
    dates: set[str] = set()
    for index in range(count):
        rng = Random(f"{seed}/person/{index}")
        person = _draw_person(rng)
        while person.facts["name"] in names or person.facts["birth_date"] in dates:
            person = _draw_person(rng)
        names.add(person.facts["name"])
        dates.add(person.facts["birth_date"])
        people.append(person)
    return people


def wrong_values(person: Person, slot: str, count: int, rng: Random) -> list[str]:
    """`count` distinct values of the slot's type, none of them the person's own, drawn as true values are drawn."""
    wrong: list[str] = []
    while len(wrong) < count:
        value = _draw(KINDS[slot], person.feminine, person.facts, rng)
        if value != person.facts[slot] and value not in wrong:
            wrong.append(value)
    return wrong


def _draw_person(rng: Random) -> Person:
    feminine = rng.random() < 0.5
    facts: dict[str, str] = {}
    for slot, kind in KINDS.items():
        facts[slot] = _draw(kind, feminine, facts, rng)
        while slot in DIFFERENT and facts[slot] == facts[DIFFERENT[slot]]:
            facts[slot] = _draw(kind, feminine, facts, rng)
    return Person(feminine, facts)


def _draw(kind: str, feminine: bool, facts: dict[str, str], rng: Random) -> str:
    first_names = v.FEMALE if feminine else v.MALE
    match kind:
        case "full name":
            return f"{rng.choice(first_names)} {rng.choice(v.MIDDLE)} {rng.choice(v.FAMILY)}"
        case "person":
            return f"{rng.choice(v.FEMALE + v.MALE)} {rng.choice(v.FAMILY)}"
        case "date":
            return f"{rng.randint(1, 28)} {rng.choice(v.MONTHS)} {rng.randint(1931, 1989)}"
        case "year":
            return str(int(facts["birth_date"][-4:]) + rng.randint(22, 36))
        case "city":
            return _skewed(v.CITIES, rng)
        case "job":
            return _skewed(v.JOBS, rng)
        case "genre":
            return _skewed(v.GENRES, rng)
        case "number":
            return _skewed(v.NUMBERS, rng)
        case "animal":
            return _skewed(v.ANIMALS, rng)
        case "university":
            return rng.choice(v.UNIVERSITIES).format(city=_skewed(v.CITIES, rng))
        case "title":
            return _title(rng)
        case "award":
            return f"{rng.choice(v.AWARD_FIRST)} {rng.choice(v.AWARD_SECOND)} {rng.choice(v.AWARD_LAST)}"
        case "publisher":
            return f"{rng.choice(v.PUBLISHER_FIRST)} {rng.choice(v.PUBLISHER_LAST)}"
        case "subject":
            return rng.choice(v.SUBJECTS)
        case "pet name":
            return rng.choice(v.PET_NAMES)
        case "habit":
            return rng.choice(v.HABITS)
    raise ValueError(f"no values of the type {kind!r}")


def _title(rng: Random) -> str:
    adjective, noun = rng.choice(v.TITLE_ADJECTIVES), rng.choice(v.TITLE_NOUNS)
    other, thing = rng.choice(v.TITLE_NOUNS), rng.choice(v.TITLE_THINGS)
    return rng.choice(
        (f"The {adjective} {noun}", f"A {noun} of {thing}", f"{adjective} {thing}", f"The {other} and the {noun}")
    )


def _skewed(pool: Sequence[str], rng: Random) -> str:
    """One entry, the k-th with weight k^-0.9: a few values are common and most are rare, as in real text."""
    return rng.choices(pool, weights=[rank**-0.9 for rank in range(1, len(pool) + 1)])[0]
