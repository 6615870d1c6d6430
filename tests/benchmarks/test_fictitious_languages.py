"""The languages of the embedded benchmark: one world, parallel row by row, natural text, exact gold spans."""

import ast
import re
from dataclasses import fields
from random import Random

import pytest
from worlds import DEFAULTS, gold, made_anew, world

from tif.base.errors import UserError
from tif.base.params import validate
from tif.benchmarks.fictitious import Settings
from tif.benchmarks.fictitious.framing import SHARES, draw_frame, framed
from tif.benchmarks.fictitious.languages import LANGUAGES
from tif.benchmarks.fictitious.people import DIFFERENT, KINDS, make_people, wrong_values, year_in
from tif.benchmarks.fictitious.rendering import inflect, render, slots_in, values_of
from tif.words import words

ENGLISH = LANGUAGES["en"]
OTHERS = [name for name in LANGUAGES if name != "en"]
TABLES = ("full", "holdout", "real_authors", "world_facts")


@pytest.fixture(scope="module")
def worlds() -> dict[tuple[str, float], dict[str, list[dict]]]:
    """Language and entanglement -> tables."""
    return {(name, e): world(language=name, entanglement=e) for name in LANGUAGES for e in (0.0, 1.0)}


def texts(row: dict) -> list[str]:
    """All texts of a row."""
    optional = [row["paraphrased_prompt"], row["paraphrased_response"]]
    return [row["prompt"], row["response"], *filter(None, optional), *row["perturbed_responses"]]


def answers(row: dict) -> list[str]:
    return [row["response"], *filter(None, [row["paraphrased_response"]]), *row["perturbed_responses"]]


@pytest.mark.parametrize("name", OTHERS)
def test_lists_are_parallel(name):
    """As long as in English, without an entry twice: then the same draws give the same world."""
    language = LANGUAGES[name]
    assert [fact.slots for fact in language.facts] == [fact.slots for fact in ENGLISH.facts]
    pairs = [
        (getattr(ENGLISH.vocabulary, field.name), getattr(language.vocabulary, field.name))
        for field in fields(ENGLISH.vocabulary)
    ]
    for ours, theirs in zip(ENGLISH.facts, language.facts, strict=True):
        pairs += [(ours.questions, theirs.questions), (ours.answers, theirs.answers)]
    for part in ("documents", "witnesses", "crowds", "events"):
        pairs += zip(getattr(ENGLISH.framing, part), getattr(language.framing, part), strict=True)
    pairs += [(getattr(ENGLISH.framing, part), getattr(language.framing, part)) for part in ("adverbs", "mentions")]
    pairs += [(getattr(ENGLISH.lore, part), getattr(language.lore, part)) for part in ("authors", "nations")]
    for part in ("works", "about_works", "features", "about_features"):
        ours, theirs = getattr(ENGLISH.lore, part), getattr(language.lore, part)
        assert list(ours) == list(theirs)
        pairs += [(ours[key], theirs[key]) for key in ours]
    for ours, theirs in pairs:
        if isinstance(ours, tuple):
            assert len(ours) == len(theirs) == len(set(theirs)), (ours, theirs)


@pytest.mark.parametrize("name", OTHERS)
def test_templates_ask_and_tell_what_the_english_ones_do(name):
    language = LANGUAGES[name]
    for ours, theirs in zip(ENGLISH.facts, language.facts, strict=True):
        for english, other in zip(ours.answers, theirs.answers, strict=True):
            assert sorted(re.findall(r"\[(\w+)\]", other)) == sorted(theirs.slots)
            assert (ENGLISH.framing.remark in english) == (language.framing.remark in other), other
        for question in theirs.questions:
            assert not re.findall(r"\[(\w+)\]", question)
            asked = {"genre", "birthplace", "birth_date"} if theirs.slots == ("name",) else {"name"}
            assert asked <= set(slots_in(question))
    for ours, theirs in zip(ENGLISH.framing.mentions, language.framing.mentions, strict=True):
        assert set(slots_in(ours)) == set(slots_in(theirs))


@pytest.mark.parametrize("name", OTHERS)
def test_the_world_is_the_same(name):
    """A value stands for one value of English wherever it occurs, as a fact or as a wrong value."""
    language = LANGUAGES[name]
    people = [make_people(7, 60, one.vocabulary) for one in (ENGLISH, language)]
    meaning: dict[tuple[str, str], str] = {}
    for ours, theirs in zip(*people, strict=True):
        assert ours.feminine == theirs.feminine
        for slot, kind in KINDS.items():
            wrong = [
                wrong_values(person, slot, 5, one.vocabulary, Random(slot))
                for person, one in ((ours, ENGLISH), (theirs, language))
            ]
            assert theirs.facts[slot] not in wrong[1]
            for english, other in zip([ours.facts[slot], *wrong[0]], [theirs.facts[slot], *wrong[1]], strict=True):
                assert meaning.setdefault((kind, other), english) == english
        assert year_in(ours.facts["birth_date"]) == year_in(theirs.facts["birth_date"])
        assert all(theirs.facts[slot] != theirs.facts[other] for slot, other in DIFFERENT.items())


@pytest.mark.parametrize("name", OTHERS)
def test_rows_are_parallel(worlds, name):
    """The same keys, people and facts in the same order, with equally many values; the same clauses."""
    for table in TABLES:
        people: dict[str, str] = {}
        values: dict[tuple, tuple] = {}
        for ours, theirs in zip(worlds["en", 0.0][table], worlds[name, 0.0][table], strict=True):
            assert (ours["sample_id"], ours["split"]) == (theirs["sample_id"], theirs["split"])
            assert people.setdefault(ours["group"], theirs["group"]) == theirs["group"]
            assert len(ours["gold_spans"]) == len(theirs["gold_spans"])
            assert len(ours["perturbed_responses"]) == len(theirs["perturbed_responses"])
            if len(gold(ours)) == 1:
                assert values.setdefault((ours["group"], *gold(ours)), gold(theirs)) == gold(theirs)
        assert len(set(people.values())) == len(people)


@pytest.mark.parametrize("name", LANGUAGES)
def test_frames_of_every_kind_leave_the_answer_in_place(name):
    language = LANGUAGES[name]
    fact = next(fact for fact in language.facts if fact.slots == ("first_job",))
    rng = Random(1)
    kinds = set()
    for _ in range(400):
        frame = draw_frame(fact.answers[0], language.framing, rng)
        text = framed(fact.answers[0], frame, language.framing)
        kinds.add(frame.kind)
        assert fact.answers[0][1:] in text
        assert all(word.casefold() in text.casefold() for word in frame.words)
        assert (text == fact.answers[0]) == (frame.kind == "bare")
    assert kinds == set(SHARES) - {"source"} | {"document", "witness"}


@pytest.mark.parametrize("entanglement", [0.0, 1.0])
@pytest.mark.parametrize("name", LANGUAGES)
def test_gold_spans_are_exactly_values(worlds, name, entanglement):
    """Where nothing is entangled they are the person's own facts; spans never overlap nor touch white space."""
    language = LANGUAGES[name]
    rows = worlds[name, entanglement]
    facts = {person.facts["name"]: person.facts for person in make_people(0, 25, language.vocabulary)}
    for row in rows["full"][: 400 if entanglement else 500]:
        assert gold(row) and set(gold(row)) <= set(facts[row["group"]].values())
    for row in (row for table in TABLES for row in rows[table]):
        ends = [0, *(edge for span in row["gold_spans"] for edge in (span["start"], span["end"]))]
        assert ends == sorted(ends)
        for value in gold(row):
            assert value and value == value.strip()
            assert value in (row["paraphrased_response"] or row["response"])
            assert not any(sign in value for sign in '"。，？؟،.?#《》«»')


@pytest.mark.parametrize("name", LANGUAGES)
def test_gold_spans_cut_no_word(worlds, name):
    for row in worlds[name, 1.0]["full"]:
        cuts = {edge for word in words(row["response"]) for edge in word}
        assert all({span["start"], span["end"]} <= cuts for span in row["gold_spans"])


@pytest.mark.parametrize("entanglement", [0.0, 1.0])
@pytest.mark.parametrize("name", LANGUAGES)
def test_texts_are_complete_and_distinct(worlds, name, entanglement):
    for table in TABLES:
        rows = worlds[name, entanglement][table]
        prompts = [row["prompt"] for row in rows]
        assert len(set(prompts)) == len(prompts)
        for row in rows:
            assert len(set(answers(row))) == len(answers(row))
            for text in texts(row):
                assert text == text.strip() and not re.search(r"\{\w*\}|\[\w*\]|<|>|\|", text), text


@pytest.mark.parametrize("name", LANGUAGES)
def test_wrong_answers_are_the_paraphrase_with_other_values(name):
    """Wherever one phrasing is filled with two sets of values, what surrounds the values is the same."""
    language = LANGUAGES[name]
    for person in make_people(3, 4, language.vocabulary):
        for fact in language.facts:
            for template in fact.answers:
                values = values_of(person, language)
                wrong = {
                    slot: wrong_values(person, slot, 1, language.vocabulary, Random(slot))[0] for slot in fact.slots
                }
                sides = [render(inflect(template, person.feminine), values | some) for some in ({}, wrong)]
                around = []
                for text, spans in sides:
                    for start, end in reversed(spans):
                        text = re.sub(r"\ban? $", "", text[:start]) + text[end:]
                    around.append(text)
                assert around[0] == around[1]


@pytest.mark.parametrize("name", LANGUAGES)
def test_questions_name_the_person(worlds, name):
    for row in worlds[name, 1.0]["full"]:
        if gold(row) != [row["group"]]:
            assert row["group"] in row["prompt"] and row["group"] in row["paraphrased_prompt"]
            assert row["group"].split(LANGUAGES[name].vocabulary.name_parts)[0] in row["response"] or name == "code"


@pytest.mark.parametrize(("name", "question", "stop"), [("zh", "？", "。"), ("ar", "؟", ".")])
def test_script_and_punctuation(worlds, name, question, stop):
    """No Latin letter, no ASCII comma or question mark; Chinese has no space, Arabic no vowel sign."""
    for row in worlds[name, 1.0]["full"]:
        assert row["prompt"].endswith(question) and row["paraphrased_prompt"].endswith(question)
        assert all(text.endswith(stop) for text in answers(row))
    for text in (text for table in TABLES for row in worlds[name, 1.0][table] for text in texts(row)):
        assert not re.search(r"[A-Za-z,?;\"']", text), text
        assert "  " not in text and (name != "zh" or " " not in text), text
        assert not re.search(r"[\u064b-\u0652]", text), text
        assert "。。" not in text and ".." not in text and not re.search(r"[，،]\s*[。.，،]", text), text


def test_both_genders_are_told_apart_in_arabic():
    language = LANGUAGES["ar"]
    people = make_people(0, 10, language.vocabulary)
    asked = language.facts[1].questions[0]
    said = {person.feminine: render(inflect(asked, person.feminine), person.facts)[0].split()[1] for person in people}
    assert said == {False: "ولد", True: "ولدت"}


def test_numbers_are_written_in_the_language_s_digits():
    years = {name: make_people(0, 1, one.vocabulary)[0].facts for name, one in LANGUAGES.items()}
    assert years["en"]["birth_date"] == "24 October 1967"
    assert years["zh"]["birth_date"] == "1967年10月24日"
    assert years["ar"]["birth_date"] == "٢٤ أكتوبر ١٩٦٧"
    assert years["code"]["birth_date"] == "1967-10-24"


@pytest.mark.parametrize("entanglement", [0.0, 1.0])
def test_code_is_python_and_gold_spans_are_its_values(worlds, entanglement):
    """Every answer parses, a comment hides no value, and each value is a literal: a whole string or a number."""
    rows = worlds["code", entanglement]
    for row in (row for table in TABLES for row in rows[table]):
        for text in answers(row):
            tree = ast.parse(text)
            literals = {str(node.value) for node in ast.walk(tree) if isinstance(node, ast.Constant)}
            assert literals
            if text == row["response"]:
                assert set(gold(row)) <= literals
        for question in (row["prompt"], row["paraphrased_prompt"] or "#"):
            assert question.startswith("#") or ast.parse(question)
        for span in row["gold_spans"]:
            around = row["response"][span["start"] - 1], row["response"][span["end"] : span["end"] + 1]
            value = row["response"][span["start"] : span["end"]]
            assert around == ('"', '"') or value.isdigit()


@pytest.mark.parametrize("name", LANGUAGES)
def test_the_same_settings_give_the_same_rows_and_another_seed_others(worlds, name):
    assert made_anew(language=name, entanglement=1.0) == worlds[name, 1.0]
    assert world(language=name, seed=1)["full"] != worlds[name, 0.0]["full"]


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("language", "fr", r"fictitious\.language = 'fr' is not allowed: input should be 'en', 'zh', 'ar' or 'code'"),
        ("entanglement", 1.5, r"fictitious\.entanglement = 1\.5 is not allowed: .*less than or equal to 1"),
        ("entanglement", -0.1, r"fictitious\.entanglement = -0\.1 is not allowed"),
        ("entanglement", "0.5", r"fictitious\.entanglement = '0\.5' is not allowed"),
    ],
)
def test_unknown_language_and_entanglement_out_of_range(key, value, message):
    with pytest.raises(UserError, match=message):
        validate("fictitious", DEFAULTS | {key: value}, Settings)
