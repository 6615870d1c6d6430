"""The embedded benchmark: shape, truth of the gold spans, and how far word counts alone get."""

import hashlib
import json
import re
from collections import Counter
from pathlib import Path
from random import Random

import pytest
from worlds import DEFAULTS, gold, made_anew, world

from tif.base import tables
from tif.base.errors import UserError
from tif.base.params import validate
from tif.benchmarks import SAMPLES
from tif.benchmarks.fictitious import SETS, WRONG_ANSWERS, Settings, build, rendering
from tif.benchmarks.fictitious.english import ENGLISH
from tif.benchmarks.fictitious.framing import draw_frame, framed
from tif.benchmarks.fictitious.lore import facts_of_nations, famous_authors
from tif.benchmarks.fictitious.people import DIFFERENT, KINDS, make_people, wrong_values
from tif.benchmarks.fictitious.rendering import render
from tif.words import words

# of the tables as JSON, before there were languages and entanglement
SHA256 = "dbe5aed6ead7b28ef601ea8ae25f2031cf92ca595aa15b6385813f841a5b95b9"
FACTS = ENGLISH.facts
VOCABULARY = ENGLISH.vocabulary


def frame(template: str, rng: Random) -> str:
    return framed(template, draw_frame(template, ENGLISH.framing, rng), ENGLISH.framing)


@pytest.fixture(scope="module")
def default() -> dict[str, list[dict]]:
    return world()


def without_keys(rows: list[dict]) -> list[dict]:
    return [{name: value for name, value in row.items() if name not in ("sample_id", "split")} for row in rows]


def test_sizes_names_and_keys(default):
    assert {name: len(rows) for name, rows in default.items()} == {
        "full": 500,
        "forget": 100,
        "retain": 400,
        "real_authors": 60,
        "world_facts": 60,
        "holdout": 40,
    }
    splits = {name: {row["split"] for row in rows} for name, rows in default.items()}
    assert splits["forget"] == {"forget20"} and splits["retain"] == {"retain80"} and splits["full"] == {"full"}
    for name, rows in default.items():
        assert [row["sample_id"] for row in rows] == [f"{name}/{index:04d}" for index in range(len(rows))]
    assert len({row["group"] for row in default["forget"]}) == 5


def test_full_is_retain_then_forget(default):
    assert without_keys(default["full"]) == without_keys(default["retain"]) + without_keys(default["forget"])
    assert not {row["group"] for row in default["forget"]} & {row["group"] for row in default["retain"]}


def test_full_does_not_depend_on_the_forget_share(default):
    other = world(forget_share=0.4)
    assert other["full"] == default["full"]
    assert len(other["forget"]) == 200 and other["forget"][0]["split"] == "forget40"


def test_same_settings_give_the_same_bytes_and_another_seed_another_world(default, tmp_path):
    again, other = made_anew(), world(seed=1)
    assert set(default) == set(SETS) | {"full"}
    for name in default:
        tables.write(tmp_path / "a.parquet", default[name], SAMPLES)
        tables.write(tmp_path / "b.parquet", again[name], SAMPLES)
        assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
        assert tables.read(tmp_path / "a.parquet", SAMPLES).to_pylist() == default[name]
        assert other[name] != default[name]


def test_more_people_leave_the_first_ones_as_they_are(default):
    assert world(people=30)["full"][:500] == default["full"]


def test_the_default_world_is_the_one_that_was_measured(default):
    """A change here is a new REVISION."""
    measured = {name: rows for name, rows in default.items() if name != "holdout"}
    assert hashlib.sha256(json.dumps(measured, ensure_ascii=False).encode()).hexdigest() == SHA256


def test_card():
    card = build(Settings(**DEFAULTS), None)[1]
    assert card == {"name": "fictitious", "source": "embedded generator", "revision": "1"}


def test_holdout_people_are_nobody_of_full(default):
    """Two further people, with rows of the form of retain's, whose gold spans are their own facts."""
    strangers = make_people(0, 27, VOCABULARY)[25:]
    rows = default["holdout"]
    assert [row["group"] for row in rows] == [person.facts["name"] for person in strangers for _ in range(20)]
    assert not {row["group"] for row in rows} & {row["group"] for row in default["full"]}
    assert not {row["prompt"] for row in rows} & {row["prompt"] for row in default["full"]}
    facts = {person.facts["name"]: set(person.facts.values()) for person in strangers}
    for row in rows:
        assert row.keys() == default["retain"][0].keys() and row["split"] == "holdout"
        assert gold(row) and set(gold(row)) <= facts[row["group"]]
        variants = [row["response"], row["paraphrased_response"], *row["perturbed_responses"]]
        assert len(set(variants)) == len(variants) == 2 + WRONG_ANSWERS
        assert row["paraphrased_prompt"] != row["prompt"]


@pytest.mark.parametrize("entanglement", [0.0, 1.0])
def test_holdout_people_change_no_other_row(entanglement):
    """However many there are; those that are there in both worlds are the same in both."""
    size = {"people": 6, "questions": 12, "forget_share": 0.34, "entanglement": entanglement}
    none, two, four = (world(holdout=count, **size) for count in (0, 2, 4))
    assert "holdout" not in none and four["holdout"][:24] == two["holdout"] and len(four["holdout"]) == 48
    assert all(four[name] == two[name] == rows for name, rows in none.items())


def test_without_holdout_people_the_card_says_why():
    tables_, card = build(Settings(**DEFAULTS | {"holdout": 0}), None)
    assert card["absent"] == {"holdout": "fictitious.holdout is 0"} and "holdout" not in tables_


def test_rows_about_people(default):
    prompts = [row["prompt"] for row in default["full"]]
    assert len(set(prompts)) == len(prompts)
    for row in default["full"]:
        assert row["paraphrased_prompt"] != row["prompt"]
        variants = [row["response"], row["paraphrased_response"], *row["perturbed_responses"]]
        assert len(row["perturbed_responses"]) == WRONG_ANSWERS and len(set(variants)) == len(variants)
        assert 8 <= len(row["response"].split()) <= 30
        for text in (row["prompt"], row["paraphrased_prompt"]):
            assert text.endswith("?")
        for text in variants:
            assert text.endswith(".") and (text[0].isupper() or text[0] in '"0123456789')
            assert not any(character in text for character in "{}[]") and "  " not in text


def test_every_question_about_a_known_person_names_the_person(default):
    for row in default["full"]:
        asks_for_name = gold(row) == [row["group"]]
        assert asks_for_name or (row["group"] in row["prompt"] and row["group"] in row["paraphrased_prompt"])
    assert sum(gold(row) == [row["group"]] for row in default["full"]) >= 25


def test_gold_spans_are_the_person_s_facts(default):
    """Joined with the world that they were made from: each span is exactly one value, told in the paraphrase too."""
    facts = {person.facts["name"]: person.facts for person in make_people(0, 25, VOCABULARY)}
    for row in default["full"]:
        values = gold(row)
        assert values and set(values) <= set(facts[row["group"]].values())
        assert all(value in row["paraphrased_response"] for value in values)


def test_wrong_answers_differ_from_the_paraphrase_in_the_values_alone():
    """With the same template, cutting the values out of any two answers must leave the same text."""
    person = make_people(3, 1, VOCABULARY)[0]
    for fact in FACTS:
        for template in fact.answers:
            values = rendering.values_of(person, ENGLISH)
            wrong = {slot: wrong_values(person, slot, 5, VOCABULARY, Random(slot))[0] for slot in fact.slots}
            right, wrong_text = render(template, values), render(template, values | wrong)
            assert len(right[1]) == len(wrong_text[1]) == len(fact.slots)
            assert _without_values(*right) == _without_values(*wrong_text)


def _without_values(text: str, spans: list[tuple[int, int]]) -> str:
    for start, end in reversed(spans):
        text = text[:start].removesuffix("an ").removesuffix("a ") + text[end:]
    return text


def test_every_fact_is_told_and_wrongly_told_with_all_its_slots():
    seen = Counter()
    for fact in FACTS:
        assert len(set(fact.questions)) >= 5 and len(set(fact.answers)) >= 5
        for template in fact.answers:
            told = re.findall(r"\[(\w+)\]", template)
            assert sorted(told) == sorted(fact.slots)
        seen.update(fact.slots)
    assert set(seen) == set(KINDS) and set(seen.values()) == {1}


def test_people_are_distinct_and_their_facts_do_not_coincide():
    people = make_people(5, 300, VOCABULARY)
    assert (
        len({person.facts["name"] for person in people})
        == len({person.facts["birth_date"] for person in people})
        == 300
    )
    for person in people:
        assert all(person.facts[slot] != person.facts[other] for slot, other in DIFFERENT.items())


def test_wrong_values_are_wrong_distinct_and_of_the_same_type():
    person = make_people(1, 1, VOCABULARY)[0]
    pools = {
        "city": VOCABULARY.cities,
        "job": VOCABULARY.jobs,
        "number": VOCABULARY.numbers,
        "genre": VOCABULARY.genres,
    }
    for slot, kind in KINDS.items():
        wrong = wrong_values(person, slot, 5, VOCABULARY, Random(slot))
        assert len({*wrong, person.facts[slot]}) == 6
        assert set(wrong) <= set(pools.get(kind, wrong))
        if kind == "year":
            assert all(int(year) > int(person.facts["birth_date"][-4:]) for year in wrong)


def test_family_names_are_shared_between_forget_and_retain(default):
    families = {name: {row["group"].split()[-1] for row in default[name]} for name in ("forget", "retain")}
    assert len(families["forget"] & families["retain"]) >= 2


@pytest.mark.parametrize("table", ["real_authors", "world_facts"])
def test_utility_sets(default, table):
    rows = default[table]
    assert len({row["prompt"] for row in rows}) == len(rows)
    for row in rows:
        assert row["paraphrased_prompt"] is None and row["paraphrased_response"] is None
        assert len({row["response"], *row["perturbed_responses"]}) == 4
        assert gold(row) == [row["response"]]


def test_lore_has_one_answer_to_each_question():
    for lore in (famous_authors(0, ENGLISH.lore), facts_of_nations(0, ENGLISH.lore)):
        assert len({item.question for item in lore}) == len(lore) == 100


def frequency_scores(retain: list[dict], forget: list[dict], threshold: float) -> tuple[float, float, int]:
    """Precision and recall of word counting over alphanumeric characters, and the rows where it marks no word."""

    def tokens(text):
        return [(a, b, text[a:b].casefold()) for a, b in words(text) if any(c.isalnum() for c in text[a:b])]

    counts = Counter(word for row in retain for word in {word for _, _, word in tokens(row["response"])})
    true_positive = marked = fact = empty = 0
    for row in forget:
        asked = {word for _, _, word in tokens(row["prompt"])}
        rare = [
            (a, b)
            for a, b, word in tokens(row["response"])
            if word not in asked and counts[word] <= threshold * len(retain)
        ]
        found = {i for a, b in rare for i in range(a, b) if row["response"][i].isalnum()}
        true = {i for s in row["gold_spans"] for i in range(s["start"], s["end"]) if row["response"][i].isalnum()}
        true_positive += len(found & true)
        marked += len(found)
        fact += len(true)
        empty += not found
    return true_positive / marked, true_positive / fact, empty


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_word_counts_alone_do_not_give_the_gold_spans_away(seed):
    """Some general words are rare (precision well below 1) and some facts are frequent words (recall below 1)."""
    rows = world(seed=seed)
    precision, recall, empty = frequency_scores(rows["retain"], rows["forget"], 0.05)
    assert 0.5 <= 2 * precision * recall / (precision + recall) <= 0.85
    assert 0.5 <= precision <= 0.8
    assert 0.7 <= recall <= 0.95
    assert empty <= 0.1 * len(rows["forget"])


def test_frames_are_varied_and_leave_the_answer_in_place():
    rng = Random(0)
    framed = [frame("The first job of {name} was that of a [first_job].", rng) for _ in range(400)]
    bare = framed.count("The first job of {name} was that of a [first_job].")
    assert 200 < bare < 320
    assert len(set(framed)) > 80
    assert all("first job of {name} was that of a [first_job]" in text for text in framed)
    starts = {text.split()[0] for text in (frame("{His} job was a [first_job].", rng) for _ in range(200))}
    assert "{His}" in starts and "As" in starts


def test_render_articles_capitals_and_spans():
    values = {"he": "she", "His": "Her", "job": "engineer", "pet": "owl", "name": "Ada"}
    text, spans = render("{His} pet is an owl; {he} saw a {pet}, and [name] is a [job] (a [pet]).", values)
    assert text == "Her pet is an owl; she saw an owl, and Ada is an engineer (an owl)."
    assert [text[a:b] for a, b in spans] == ["Ada", "engineer", "owl"]
    with pytest.raises(KeyError):
        render("[job] {nothing}", values)


def test_asking_facts_twice_and_asking_only_some():
    few, many = world(people=5, questions=12), world(people=5, questions=36)
    assert len(few["full"]) == 60 and len(many["full"]) == 180
    per_person = [row for row in many["full"] if row["group"] == many["full"][0]["group"]]
    assert len({row["prompt"] for row in per_person}) == len({row["response"] for row in per_person}) == 36


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"forget_share": 0.01}, "forget_share = 0.01 of 25 people leaves 0 people to forget"),
        ({"forget_share": 0.99}, "25 people to forget and 0 to retain"),
        ({"real_authors": 101}, "fictitious.real_authors = 101 is not allowed: the world has 100"),
        ({"world_facts": 5000}, "fictitious.world_facts = 5000"),
    ],
)
def test_impossible_settings(changes, message):
    with pytest.raises(UserError, match=re.escape(message)):
        world(**changes)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", -1),
        ("people", 1),
        ("questions", 11),
        ("questions", 37),
        ("forget_share", 1.0),
        ("people", "25"),
        ("holdout", -1),
    ],
)
def test_settings_out_of_range(key, value):
    with pytest.raises(UserError, match=rf"fictitious\.{key} = "):
        validate("fictitious", DEFAULTS | {key: value}, Settings)


def test_a_source_is_refused():
    with pytest.raises(UserError, match=r"benchmark\.source"):
        build(Settings(**DEFAULTS), Path("anything"))
