"""The embedded benchmark: question and answer rows about invented authors, in the shape of TOFU, with gold spans.

The people are the same whatever the forget share: the forget set is the last of them, as in TOFU. Each row has a
question and an answer, a paraphrase of both in another phrasing, and five wrong answers, which are the paraphrased
answer with other values of the same type. `gold_spans` are the characters of the values that answer the question.

`real_authors` and `world_facts` have the roles of TOFU's sets of these names (what the model must still know), with
short answers about things that everybody in the invented world knows.

The world can be rendered in several languages (see `language.Language`), and its forget people can be made to share
values and sentences with the others (see `entanglement`).

Source of the shape: TOFU (arXiv 2401.06121). The text is this project's own.
"""

from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Literal

from pydantic import Field

from tif.base.errors import UserError
from tif.base.params import Block
from tif.benchmarks import questions, unseen
from tif.benchmarks.fictitious.english.phrasings import FACTS
from tif.benchmarks.fictitious.entanglement import Share, Told, add_mentions, common_to, entangle
from tif.benchmarks.fictitious.framing import draw_frame, framed
from tif.benchmarks.fictitious.language import Language
from tif.benchmarks.fictitious.languages import LANGUAGES
from tif.benchmarks.fictitious.lore import Lore, facts_of_nations, famous_authors
from tif.benchmarks.fictitious.people import Person, make_people, wrong_values
from tif.benchmarks.fictitious.rendering import inflect, render, values_of

FORM = "question"
SETS = {
    "forget": questions("forget", "Forget set"),
    "retain": questions("retain", "Retain set"),
    "holdout": unseen("Holdout set"),
    "real_authors": questions("utility", "Real authors"),
    "world_facts": questions("utility", "World facts"),
}
REVISION = "1"  # of the generator: raise it whenever the same settings give other rows
WRONG_ANSWERS = 5


class Settings(Block):
    """`fictitious`: the size of the invented world.

    seed: of everything that is drawn. people: authors. questions: rows of each author; above the number of facts (18)
    some facts are asked a second time in other words. forget_share: share of the people that the forget set is about,
    rounded to whole people. holdout: further people, whom no model ever sees. real_authors, world_facts: rows of the
    two utility sets. language: the same world in English, in Chinese, in Arabic, or as Python literals with comments.
    entanglement: share of the forget people's facts whose values and phrasings retain people have too; twice the share
    of the answers that mention somebody else's values. Above 0 the rows about all people depend on the forget share.
    """

    seed: int = Field(ge=0)
    people: int = Field(ge=2, le=1000)
    questions: int = Field(ge=12, le=2 * len(FACTS))
    forget_share: float = Field(gt=0, lt=1)
    holdout: int = Field(ge=0, le=1000)
    real_authors: int = Field(ge=1)
    world_facts: int = Field(ge=1)
    language: Literal["en", "zh", "ar", "code"]
    entanglement: float = Field(ge=0, le=1)


def build(settings: Settings, source: Path | None) -> tuple[dict[str, list[dict]], dict]:
    """The tables full, forget, retain, holdout, real_authors and world_facts (rows of `SAMPLES`), and the card's facts.

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
    language = LANGUAGES[settings.language]
    everybody = make_people(settings.seed, settings.people + settings.holdout, language.vocabulary)
    people, strangers = everybody[: settings.people], everybody[settings.people :]
    border = settings.people - forgotten
    retain = [one for index in range(border) for one in _rows_about(people[index], index, settings, language)]
    forget = _forget_rows(people, border, retain, settings, language)
    if settings.entanglement:
        add_mentions(retain, forget, settings.entanglement, settings.seed, language.framing)
    retain_rows, forget_rows = [one.row for one in retain], [one.row for one in forget]
    percent = round(100 * forgotten / settings.people)
    authors, nations = (lore(settings.seed, language.lore) for lore in (famous_authors, facts_of_nations))
    card = {"name": "fictitious", "source": "embedded generator", "revision": REVISION}
    tables = {
        "full": _keyed("full", "full", retain_rows + forget_rows),
        "forget": _keyed("forget", f"forget{percent:02d}", forget_rows),
        "retain": _keyed("retain", f"retain{100 - percent:02d}", retain_rows),
        "real_authors": _utility("real_authors", authors, settings.real_authors),
        "world_facts": _utility("world_facts", nations, settings.world_facts),
    }
    strange = [
        one.row
        for index, person in enumerate(strangers, start=settings.people)
        for one in _rows_about(person, index, settings, language)
    ]
    if strange:
        return {**tables, "holdout": _keyed("holdout", "holdout", strange)}, card
    return tables, {**card, "absent": {"holdout": "fictitious.holdout is 0"}}


def _forget_rows(
    people: list[Person], border: int, retain: Sequence[Told], settings: Settings, language: Language
) -> list[Told]:
    chosen: list[tuple[Person, Share | None]] = [(person, None) for person in people[border:]]
    if settings.entanglement:
        chosen = entangle(people, border, common_to(retain), settings.entanglement, settings.seed, language)
    return [
        one
        for index, (person, share) in enumerate(chosen, start=border)
        for one in _rows_about(person, index, settings, language, share)
    ]


def _rows_about(
    person: Person, index: int, settings: Settings, language: Language, share: Share | None = None
) -> list[Told]:
    rng = Random(f"{settings.seed}/rows/{index}")
    facts = language.facts
    numbers = list(range(len(facts)))
    once = sorted(rng.sample(numbers, min(settings.questions, len(facts))))
    twice = sorted(rng.sample(numbers, max(settings.questions - len(facts), 0)))
    # Four different phrasings for the two times a fact may be asked: each time the row's own and the paraphrase's.
    question_order = [rng.sample(fact.questions, 4) for fact in facts]
    answer_order = [rng.sample(fact.answers, 4) for fact in facts]
    if share:
        question_order = [share.prefer(fact.slots, some) for fact, some in zip(facts, question_order, strict=True)]
        answer_order = [share.prefer(fact.slots, some) for fact, some in zip(facts, answer_order, strict=True)]
    return [
        _row(
            person,
            facts[number].slots,
            question_order[number][turn:],
            answer_order[number][turn:],
            language,
            share,
            rng,
        )
        for turn, asked in ((0, once), (2, twice))
        for number in asked
    ]


def _row(
    person: Person,
    slots: tuple[str, ...],
    questions: Sequence[str],
    answers: Sequence[str],
    language: Language,
    share: Share | None,
    rng: Random,
) -> Told:
    values = values_of(person, language)

    def text(template: str, **changes: str) -> str:
        return render(inflect(template, person.feminine), values | changes)[0]

    frame = draw_frame(answers[0], language.framing, rng)
    if share:
        frame = share.frame(slots, frame)
    response, spans = render(inflect(framed(answers[0], frame, language.framing), person.feminine), values)
    wrong = {slot: wrong_values(person, slot, WRONG_ANSWERS, language.vocabulary, rng) for slot in slots}
    row = {
        "group": person.facts["name"],
        "prompt": text(questions[0]),
        "response": response,
        "paraphrased_prompt": text(questions[1]),
        "paraphrased_response": text(answers[1]),
        "perturbed_responses": [
            text(answers[1], **{slot: wrong[slot][number] for slot in slots}) for number in range(WRONG_ANSWERS)
        ],
        "gold_spans": [{"start": start, "end": end} for start, end in spans],
    }
    return Told(row, person, slots, (questions[0], answers[0]), frame)


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
            "gold_spans": [{"start": start, "end": end} for start, end in item.spans],
        }
        for item in lore[:count]
    ]
    return _keyed(table, table, rows)


def _keyed(table: str, split: str, rows: Sequence[dict]) -> list[dict]:
    return [{"sample_id": f"{table}/{index:04d}", "split": split, **row} for index, row in enumerate(rows)]
