"""Importing an annotation: what each field means, and every way in which a file can be wrong."""

import hashlib
import json
from pathlib import Path

import pytest

from tif.base.errors import UserError
from tif.base.params import validate
from tif.identify import Resources, file
from tif.identify.annotations import read_json_lines

TARGET = file.Settings(unwanted="target_words", punctuation=False)
COMPLEMENT = file.Settings(unwanted="not_common_words", punctuation=False)
QUESTION, ANSWER = "Where was she born?", "She's from New York, 作家."
REAL = Path(__file__).parents[2].parent / "shared" / "tofu"


def listed(word: str) -> dict:
    start = ANSWER.index(word)
    return {"word": word, "start": start, "end": start + len(word)}


@pytest.fixture
def annotate(tmp_path):
    """Write rows (or a raw line of text) as JSON lines, and return the file."""

    def write(*rows):
        path = tmp_path / "words.jsonl"
        lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path

    return write


def row(**fields) -> dict:
    return {"question": QUESTION, "answer": ANSWER, **fields}


def unwanted(rows):
    return [item["text"] for item in rows if item["unwanted"]]


def test_target_words(samples, annotate):
    path = annotate(row(target_words=[listed("New York"), listed("家")]))
    found = file.identify(samples((QUESTION, ANSWER)), samples(), TARGET, Resources(path))
    rows = found.rows
    assert unwanted(rows) == ["New", "York", "家"]
    assert [item["text"] for item in rows] == ["She's", "from", "New", "York", ",", "作", "家", "."]
    assert [item["score"] for item in rows] == [float(item["unwanted"]) for item in rows]
    assert found.metadata == {"version": "1", "annotation_sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


@pytest.mark.parametrize(
    ("punctuation", "expected"), [(False, ["New", "York", "作", "家"]), (True, ["New", "York", ",", "作", "家", "."])]
)
def test_the_complement_of_common_words(samples, annotate, punctuation, expected):
    # "She" covers a part of the word "She's", which is enough to make it general.
    path = annotate(row(common_words=[listed("She"), listed("from")]))
    settings = COMPLEMENT.model_copy(update={"punctuation": punctuation})
    rows = file.identify(samples((QUESTION, ANSWER)), samples(), settings, Resources(path)).rows
    assert unwanted(rows) == expected


def test_an_empty_list_is_an_annotation(samples, annotate):
    forget = samples((QUESTION, ANSWER))
    assert unwanted(file.identify(forget, samples(), TARGET, Resources(annotate(row(target_words=[])))).rows) == []
    rows = file.identify(forget, samples(), COMPLEMENT, Resources(annotate(row(common_words=[])))).rows
    assert unwanted(rows) == ["She's", "from", "New", "York", "作", "家"]


def test_other_rows_order_and_repetition_do_not_matter(samples, annotate):
    mine, other = row(target_words=[listed("York")]), {"question": "?", "answer": "x", "target_words": []}
    rows = file.identify(
        samples((QUESTION, ANSWER)), samples(), TARGET, Resources(annotate(other, "", mine, mine))
    ).rows
    assert unwanted(rows) == ["York"]


def test_rows_are_matched_by_question_and_answer(samples, annotate):
    forget = samples(*((f"question {i}", "An answer.") for i in range(5)), (QUESTION, ANSWER))
    with pytest.raises(UserError) as error:
        file.identify(
            forget,
            samples(),
            TARGET,
            Resources(annotate(row(target_words=[]), row(question="question 1", target_words=[]))),
        )
    assert "5 of 6 forget rows" in str(error.value)
    assert [f"question {i}" in str(error.value) for i in range(5)] == [True, True, True, False, False]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"question": "q", "ans', "line 2 is not JSON"),
        ("7", "line 2 is not a JSON object"),
        ({"answer": "x", "target_words": []}, "line 2: field 'question' is missing"),
        ({"question": "q", "target_words": []}, "line 2: field 'answer' is missing"),
        (row(common_words=[]), "line 2: field 'target_words' is missing"),
        (row(target_words=None), "line 2: field 'target_words' is missing or not a list"),
        (row(target_words=["York"]), "line 2: 'target_words' holds 'York'"),
        (row(target_words=[{"word": "York", "start": 0}]), "not an object with word (text), start and end"),
        (row(target_words=[{"word": "York", "start": "15", "end": 19}]), "not an object with word (text)"),
        (
            row(target_words=[{"word": "York", "start": 15, "end": 99}]),
            "line 2: 'York' at [15, 99) is empty or lies outside the answer",
        ),
        (row(target_words=[{"word": "York", "start": -4, "end": 3}]), "lies outside the answer of 24 characters"),
        (row(target_words=[{"word": "", "start": 3, "end": 3}]), "is empty or lies outside"),
        (row(target_words=[{"word": "York", "start": 14, "end": 18}]), "holds ' Yor' at [14, 18), not 'York'"),
        (row(target_words=[listed("New")]), "line 2: question and answer stand on an earlier line"),
    ],
)
def test_a_bad_line_is_named(samples, annotate, line, message):
    with pytest.raises(UserError) as error:
        file.identify(samples((QUESTION, ANSWER)), samples(), TARGET, Resources(annotate(row(target_words=[]), line)))
    assert message in str(error.value) and "words.jsonl" in str(error.value)


def test_the_complement_needs_common_words(samples, annotate):
    with pytest.raises(UserError, match="line 1: field 'common_words' is missing"):
        file.identify(samples((QUESTION, ANSWER)), samples(), COMPLEMENT, Resources(annotate(row(target_words=[]))))


def test_a_file_that_is_not_text_or_not_there(samples, tmp_path):
    (tmp_path / "words.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="not a UTF-8 text file"):
        file.identify(samples((QUESTION, ANSWER)), samples(), TARGET, Resources(tmp_path / "words.jsonl"))
    for source in (None, tmp_path):
        with pytest.raises(UserError, match=r"set identify\.source to a file of JSON lines"):
            file.identify(samples((QUESTION, ANSWER)), samples(), TARGET, Resources(source))


def test_settings_are_checked():
    with pytest.raises(UserError, match=r"file\.unwanted = 'common_words' is not allowed"):
        validate("file", {"unwanted": "common_words", "punctuation": False}, file.Settings)
    with pytest.raises(UserError, match=r"file\.punctuation = 1 is not allowed"):
        validate("file", {"unwanted": "target_words", "punctuation": 1}, file.Settings)


@pytest.mark.slow
def test_the_published_annotation_is_read_whole():
    if not REAL.is_dir():
        pytest.skip(f"the real TOFU files are not at {REAL}")
    for forget, rows, without in (("forget05", 200, 4), ("forget10", 400, 12)):
        path = REAL / f"{forget}_words_gpt.jsonl"
        spans = read_json_lines(path, "target_words")
        assert (len(spans), sum(not some for some in spans.values())) == (rows, without)
