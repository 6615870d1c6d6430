"""Entanglement of the embedded benchmark: what forget rows share with retain rows, and what stays true."""

import math
import re
from collections import Counter

import pytest
from worlds import gold, world

from tif.base import tables
from tif.benchmarks import SAMPLES
from tif.benchmarks.fictitious.languages import LANGUAGES
from tif.benchmarks.fictitious.people import make_people
from tif.words import words

SEPARATE = [(name, seed) for name in ("en", "zh") for seed in (0, 1)]


def told(rows: list[dict]) -> set[str]:
    return {value for row in rows for value in gold(row) if value != row["group"]}


def shared_share(rows: dict[str, list[dict]]) -> float:
    """Share of the forget values, names aside, that some retain answer tells as a value."""
    forget = told(rows["forget"])
    return len(forget & told(rows["retain"])) / len(forget)


def forms(text: str) -> list[str]:
    return [text[a:b].casefold() for a, b in words(text) if text[a:b].isalnum()]


def frequency_of_gold_words(rows: dict[str, list[dict]]) -> float:
    """Mean of log(1 + n) over the words of the forget values, names aside; n: retain answers that hold the word.

    The logarithm, because words such as "the", which some titles hold, would outweigh all others.
    """
    counts = Counter(form for row in rows["retain"] for form in set(forms(row["response"])))
    gold_words = [
        form for row in rows["forget"] for value in gold(row) if value != row["group"] for form in forms(value)
    ]
    return sum(math.log1p(counts[form]) for form in gold_words) / len(gold_words)


@pytest.mark.parametrize(("language", "seed"), SEPARATE)
def test_more_entanglement_shares_more_values_and_makes_gold_words_more_frequent(language, seed):
    rows = [world(language=language, seed=seed, entanglement=e) for e in (0.0, 0.5, 1.0)]
    shares = [shared_share(one) for one in rows]
    assert shares[0] < shares[1] < shares[2] == 1.0
    frequencies = [frequency_of_gold_words(one) for one in rows]
    assert frequencies[0] < frequencies[1] < frequencies[2]


@pytest.mark.parametrize("language", LANGUAGES)
def test_all_values_are_shared_at_one_but_the_names_are_not(language):
    rows = world(language=language, entanglement=1.0)
    assert shared_share(rows) == 1.0
    names = {row["group"] for row in rows["forget"]}
    assert names == {row["group"] for row in world(language=language)["forget"]}
    assert not any(name in row["response"] for name in names for row in rows["retain"])


def test_retain_people_keep_their_facts():
    """What is entangled is the forget people; retain rows only get sentences behind their answers."""
    plain, entangled = world(), world(entanglement=1.0)
    for before, after in zip(plain["retain"], entangled["retain"], strict=True):
        assert after["response"].startswith(before["response"])
        assert before | {"response": ""} == after | {"response": ""}
    assert all(plain[name] == entangled[name] for name in ("holdout", "real_authors", "world_facts"))


def test_people_stay_consistent_and_distinguishable():
    """No two people answer to one description; wrong answers stay wrong; nobody writes as a child."""
    for seed in range(4):
        rows = world(seed=seed, entanglement=1.0, questions=36)
        prompts = [row["prompt"] for row in rows["full"]]
        assert len(set(prompts)) == len(prompts)
        for row in rows["full"]:
            assert len({row["paraphrased_response"], *row["perturbed_responses"]}) == 6
        by_person: dict[str, dict[str, list[str]]] = {}
        for row in rows["forget"]:
            by_person.setdefault(row["group"], {})[row["prompt"]] = gold(row)
        for name, facts in by_person.items():
            homes = {values[0] for prompt, values in facts.items() if "live now" in prompt or "now lives" in prompt}
            births = {values[0] for prompt, values in facts.items() if re.search("Where was .* born", prompt)}
            assert not homes & births, name


def test_sentences_are_shared_and_name_values_as_general_words():
    """Sentences behind forget answers stand behind retain answers too, and hold values that are gold elsewhere."""
    rows = world(entanglement=1.0)
    starts = ("The same page", "The next page", "Beside it")
    pattern = re.compile(rf" ((?:{'|'.join(starts)}).*)$")
    mentions = {name: [pattern.search(row["response"]) for row in rows[name]] for name in ("forget", "retain")}
    in_retain = {match[1] for match in mentions["retain"] if match}
    shared = unwanted_elsewhere = 0
    for row, match in zip(rows["forget"], mentions["forget"], strict=True):
        if match:
            assert all(span["end"] <= match.start(1) for span in row["gold_spans"])
            others = {value for other in rows["forget"] if other["group"] != row["group"] for value in gold(other)}
            own = {value for other in rows["forget"] if other["group"] == row["group"] for value in gold(other)}
            inside = {value for value in others if re.search(rf"\b{re.escape(value)}\b", match[1])}
            unwanted_elsewhere += bool(inside - own)
            shared += match[1] in in_retain
    count = sum(map(bool, mentions["forget"]))
    assert count == 50  # half of the 100 answers
    assert unwanted_elsewhere >= 45
    assert shared >= 45


def test_clauses_and_phrasings_of_entangled_answers_occur_in_retain_answers():
    """Words that are neither values nor names: at 1 all of them occur in retain answers, at 0 some do not."""

    def unknown(rows):
        known = {form for row in rows["retain"] for form in forms(row["response"])}
        return {
            form
            for row in rows["forget"]
            for form in forms(row["response"])
            if form not in known and form not in forms(row["group"])
        } - {form for value in told(rows["forget"]) for form in forms(value)}

    assert unknown(world())
    assert not unknown(world(entanglement=1.0))


def test_no_entanglement_leaves_full_independent_of_the_forget_share_and_some_does_not():
    assert world(forget_share=0.4)["full"] == world()["full"]
    assert world(forget_share=0.4, entanglement=1.0)["full"] != world(entanglement=1.0)["full"]


@pytest.mark.parametrize("people", [2, 3])
@pytest.mark.parametrize("language", LANGUAGES)
def test_tiny_worlds(language, people, tmp_path):
    """With one or two people to share with, values run out before they contradict each other; the rows stay sound."""
    for seed in range(5):
        sizes = {"people": people, "questions": 12, "forget_share": 0.5}
        rows = world(language=language, seed=seed, entanglement=1.0, **sizes)
        assert len({row["prompt"] for row in rows["full"]}) == 12 * people
        assert all(len({row["response"], *row["perturbed_responses"]}) == 6 for row in rows["full"])
        tables.write(tmp_path / "forget.parquet", rows["forget"], SAMPLES)


def test_an_entanglement_that_rounds_to_no_fact_changes_no_row():
    """.01 of 18 facts, and half as many of 20 answers."""
    plain, almost = world(people=5, forget_share=0.2), world(people=5, forget_share=0.2, entanglement=0.01)
    assert plain["forget"] == almost["forget"]
    names = [person.facts["name"] for person in make_people(0, 5, LANGUAGES["en"].vocabulary)]
    assert {row["group"] for row in plain["forget"]} == {names[-1]}
