"""The embedded benchmark: question and answer rows about invented authors, in the shape of TOFU, with gold spans.

The people are the same whatever the forget share: the forget set is the last of them, as in TOFU. Each row has a
question and an answer, a paraphrase of both in another phrasing, and five wrong answers, which are the paraphrased
answer with other values of the same type. `gold_spans` are the characters of the values that answer the question.

`real_authors` and `world_facts` have the roles of TOFU's sets of these names (what the model must still know), with
short answers about things that everybody in the invented world knows.

Source of the shape: TOFU (arXiv 2401.06121). The text is this project's own.
"""

from collections.abc import Sequence
from pathlib import Path
from random import Random

from pydantic import Field

from tif.benchmarks.fictitious.framing import frame
from tif.benchmarks.fictitious.lore import Lore, facts_of_nations, famous_authors
from tif.benchmarks.fictitious.people import Person, make_people, wrong_values
from tif.benchmarks.fictitious.phrasings import FACTS
from tif.benchmarks.fictitious.rendering import render, values_of
from tif.errors import UserError
from tif.params import Block

REVISION = "1"  # of the generator: raise it whenever the same settings give other rows
WRONG_ANSWERS = 5


class Settings(Block):
    """`fictitious`: the size of the invented world.

    seed: of everything that is drawn. people: authors. questions: rows of each author; above the number of facts (18)
    some facts are asked a second time in other words. forget_share: share of the people that the forget set is about,
    rounded to whole people. real_authors, world_facts: rows of the two utility sets.
    """

    seed: int = Field(ge=0)
    people: int = Field(ge=2, le=1000)
    questions: int = Field(ge=12, le=2 * len(FACTS))
    forget_share: float = Field(gt=0, lt=1)
    real_authors: int = Field(ge=1)
    world_facts: int = Field(ge=1)


def build(settings: Settings, source: Path | None) -> tuple[dict[str, list[dict]], dict]:
    """The tables full, forget, retain, real_authors and world_facts as rows of `tables.SAMPLES`, and the card's facts.

    Raises UserError when a source is given, when a set would be empty, or when a utility set is larger than the world.
    """
    if source is not None:
        raise UserError("benchmark.source must be 'data/none' for the benchmark 'fictitious', which reads no files")
    forgotten = round(settings.people * settings.forget_share)
    if not 0 < forgotten < settings.people:
        raise UserError(
            f"params.yaml: fictitious.forget_share = {settings.forget_share} of {settings.people} people leaves "
            f"{forgotten} people to forget and {settings.people - forgotten} to retain; both need at least 1"
        )
    people = make_people(settings.seed, settings.people)
    rows = [row for index, person in enumerate(people) for row in _rows_about(person, index, settings)]
    border = len(rows) - forgotten * settings.questions
    percent = round(100 * forgotten / settings.people)
    tables = {
        "full": _keyed("full", "full", rows),
        "forget": _keyed("forget", f"forget{percent:02d}", rows[border:]),
        "retain": _keyed("retain", f"retain{100 - percent:02d}", rows[:border]),
        "real_authors": _utility("real_authors", famous_authors(settings.seed), settings.real_authors),
        "world_facts": _utility("world_facts", facts_of_nations(settings.seed), settings.world_facts),
    }
    return tables, {"name": "fictitious", "source": "embedded generator", "revision": REVISION}


def _rows_about(person: Person, index: int, settings: Settings) -> list[dict]:
    rng = Random(f"{settings.seed}/rows/{index}")
    numbers = list(range(len(FACTS)))
    once = sorted(rng.sample(numbers, min(settings.questions, len(FACTS))))
    twice = sorted(rng.sample(numbers, max(settings.questions - len(FACTS), 0)))
    # Four different phrasings for the two times a fact may be asked: each time the row's own and the paraphrase's.
    question_order = [rng.sample(fact.questions, 4) for fact in FACTS]
    answer_order = [rng.sample(fact.answers, 4) for fact in FACTS]
    return [
        _row(person, FACTS[number].slots, question_order[number][turn:], answer_order[number][turn:], rng)
        for turn, asked in ((0, once), (2, twice))
        for number in asked
    ]


def _row(person: Person, slots: Sequence[str], questions: Sequence[str], answers: Sequence[str], rng: Random) -> dict:
    values = values_of(person)
    response, spans = render(frame(answers[0], rng), values)
    wrong = {slot: wrong_values(person, slot, WRONG_ANSWERS, rng) for slot in slots}
    return {
        "group": person.facts["name"],
        "prompt": render(questions[0], values)[0],
        "response": response,
        "paraphrased_prompt": render(questions[1], values)[0],
        "paraphrased_response": render(answers[1], values)[0],
        "perturbed_responses": [
            render(answers[1], values | {slot: wrong[slot][number] for slot in slots})[0]
            for number in range(WRONG_ANSWERS)
        ],
        "gold_spans": [{"start": start, "end": end} for start, end in spans],
    }


def _utility(table: str, lore: list[Lore], count: int) -> list[dict]:
    if count > len(lore):
        raise UserError(
            f"params.yaml: fictitious.{table} = {count} is not allowed: the world has {len(lore)} such rows"
        )
    rows = [
        {
            "group": item.subject,
            "prompt": item.question,
            "response": item.answer,
            "paraphrased_prompt": None,
            "paraphrased_response": None,
            "perturbed_responses": list(item.wrong),
            "gold_spans": [{"start": 0, "end": len(item.answer)}],
        }
        for item in lore[:count]
    ]
    return _keyed(table, table, rows)


def _keyed(table: str, split: str, rows: Sequence[dict]) -> list[dict]:
    return [{"sample_id": f"{table}/{index:04d}", "split": split, **row} for index, row in enumerate(rows)]
