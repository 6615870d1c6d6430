"""Makes the forget people share values, phrasings and sentences with the retain people.

The objection that this answers: facts to be forgotten are seldom words that nobody else uses. With entanglement the
words of a forget answer that must go occur in retain answers too, and some occur in forget answers as harmless words.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

from tif.benchmarks.fictitious.language import Frame, Framing, Language
from tif.benchmarks.fictitious.people import DIFFERENT, KINDS, Person, wrong_values, year_in
from tif.benchmarks.fictitious.rendering import render, slots_in

MENTIONS = 0.5  # share of the answers that mention somebody else's values at entanglement 1
AGE_AT_DEBUT = range(18, 61)


@dataclass(frozen=True)
class Told:
    """One row, and what it was made from: the person, the asked slots, the templates used, and the clause."""

    row: dict
    person: Person
    slots: tuple[str, ...]
    templates: tuple[str, ...]
    frame: Frame


@dataclass(frozen=True)
class Common:
    """What the retain rows hold. values: a slot, or a type of value -> the values told, one for each telling."""

    values: dict[str, list[str]]
    templates: frozenset[str]
    frames: tuple[Frame, ...]


@dataclass(frozen=True)
class Share:
    """What one forget person shares: the slots of the entangled facts. Every draw has a generator of its own."""

    common: Common
    slots: frozenset[str]
    rng: Random = field(compare=False)

    def prefer(self, slots: Sequence[str], templates: Sequence[str]) -> list[str]:
        """The templates for a fact, for an entangled one those first that retain rows use."""
        return sorted(templates, key=lambda one: slots[0] in self.slots and one not in self.common.templates)

    def frame(self, slots: Sequence[str], frame: Frame) -> Frame:
        """The clause of an answer, for an entangled fact one that a retain answer has."""
        if frame.kind == "bare" or slots[0] not in self.slots or not self.common.frames:
            return frame
        return self.rng.choice(self.common.frames)


def common_to(told: Sequence[Told]) -> Common:
    """What the retain rows hold."""
    values = told_values(told)
    return Common(
        values,
        frozenset(template for one in told for template in one.templates),
        tuple(one.frame for one in told if one.frame.kind != "bare"),
    )


def told_values(told: Sequence[Told]) -> dict[str, list[str]]:
    """A slot, or a type of value -> the values that rows tell, one for each telling."""
    values = defaultdict(list)
    for one in told:
        for slot in one.slots:
            values[slot].append(one.person.facts[slot])
            values[f"type {KINDS[slot]}"].append(one.person.facts[slot])
    return values


def entangle(
    people: list[Person], border: int, common: Common, entanglement: float, seed: int, language: Language
) -> list[tuple[Person, Share]]:
    """The people from `border` on with values of the others in the share `entanglement` of their facts.

    common: what the rows of the people before `border` hold. Names stay as they are. A value is drawn from those that
    retain rows tell of the same slot, or else of the same type, often told ones more often. Values that would
    contradict each other, or make two people answer to one description, are passed over; where that leaves none (in
    worlds of two or three people), a value that no one shares stands in.
    """
    described = {_description(person.facts) for person in people[:border]}
    entangled = []
    for index, person in enumerate(people[border:], start=border):
        rng = Random(f"{seed}/entanglement/{index}")
        facts = rng.sample([fact.slots for fact in language.facts], len(language.facts))
        shared = frozenset(slot for slots in facts[: round(entanglement * len(facts))] for slot in slots)
        person = _with_values_of(common, person, shared, described, f"{seed}/entanglement/{index}", language)
        described.add(_description(person.facts))
        entangled.append((person, Share(common, shared, rng)))
    return entangled


def _with_values_of(
    common: Common, person: Person, shared: frozenset[str], described: set[tuple], seed: str, language: Language
) -> Person:
    facts = {slot: value for slot, value in person.facts.items() if slot == "name" or slot not in shared}
    for slot in (slot for slot in KINDS if slot not in facts):
        rng = Random(f"{seed}/{slot}")
        told, alike = common.values.get(slot, []), common.values.get(f"type {KINDS[slot]}", [])
        own = [person.facts[slot], *wrong_values(person, slot, 3, language.vocabulary, rng)]
        candidates = [*rng.sample(told, len(told)), *rng.sample(alike, len(alike)), *own]
        fitting = (value for value in candidates if _consistent(facts | {slot: value}, described))
        facts[slot] = next(fitting, person.facts[slot])
    return Person(person.feminine, {slot: facts[slot] for slot in KINDS})


def _description(facts: dict[str, str]) -> tuple[str | None, ...]:
    """What the question for a person's name says about the person."""
    return tuple(facts.get(slot) for slot in ("genre", "birthplace", "birth_date"))


def _consistent(facts: dict[str, str], described: set[tuple]) -> bool:
    if any(slot in facts and facts[slot] == facts.get(other) for slot, other in DIFFERENT.items()):
        return False
    born, debut = (year_in(facts[slot]) if slot in facts else None for slot in ("birth_date", "debut_year"))
    if born and debut and debut - born not in AGE_AT_DEBUT:
        return False
    return _description(facts) not in described


def add_mentions(retain: list[Told], forget: list[Told], entanglement: float, seed: int, framing: Framing) -> None:
    """Add a harmless sentence about somebody else's values to some answers, the same sentences in both sets.

    A sentence on a forget row names values that other rows tell, where possible other forget rows. So one word is
    unwanted in one answer and general in another. No sentence names a value of the row's own person.
    """
    rng = Random(f"{seed}/entanglement/mentions")
    told, elsewhere = told_values(forget), told_values(retain)
    known = {kind: set(values) for kind, values in elsewhere.items()}
    shared = {kind: [value for value in values if value in known.get(kind, ())] for kind, values in told.items()}
    chosen = rng.sample(forget, len(forget))[: round(MENTIONS * entanglement * len(forget))]
    sentences = []
    for one in chosen:
        sentence = _mention(one.person, (shared, elsewhere), framing.mentions, rng)
        if sentence:
            one.row["response"] = framing.append(one.row["response"], sentence[0])
            sentences.append(sentence)
    for one in rng.sample(retain, len(retain))[: round(MENTIONS * entanglement * len(retain))]:
        own = set(one.person.facts.values())
        drawn = rng.sample(sentences, min(len(sentences), 20))  # enough to find one that is about other values
        foreign = next((text for text, values in drawn if not values & own), None)
        if foreign:
            one.row["response"] = framing.append(one.row["response"], foreign)


def _mention(
    person: Person, sources: Sequence[dict[str, list[str]]], templates: Sequence[str], rng: Random
) -> tuple[str, set[str]] | None:
    """A sentence with values that are not the person's, and these values; None where there are no such values."""
    own = set(person.facts.values())
    template = rng.choice(templates)
    values = {}
    for kind in sorted(set(slots_in(template))):
        foreign = [[value for value in source.get(f"type {kind}", []) if value not in own] for source in sources]
        pool = foreign[0] or foreign[1]
        if not pool:
            return None
        values[kind] = rng.choice(pool)
    return render(template, values)[0], set(values.values())
