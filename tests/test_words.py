"""Words and their projection to tokens, on awkward strings and by hand."""

import random
from itertools import pairwise

import pytest

from tif.words import is_punctuation, overlapping, project, soften, span_rows, word_rows, words

TEXTS = [
    "",
    "   ",
    "Li Wei's 2nd novel.",
    "她1956年9月8日出生于科威特城。",
    "かなカナ漢字",
    "café\u0301 naïve e\u0301tude",
    "👩‍👩‍👧 family 🇰🇼 flag 👍🏽",
    "a\u00a0b\u3000c\td\n\ne",
    "1,250.50 (US$) — 'quoted' \"x\"",
    "مرحبا بالعالم",
    "a\u200bb\u00adc",
]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Li Wei's 2nd novel.", ["Li", "Wei's", "2nd", "novel", "."]),
        ("1,250 by Yun-Hwa", ["1,250", "by", "Yun", "-", "Hwa"]),
        ("她出生。", ["她", "出", "生", "。"]),
        ("e\u0301tude", ["e\u0301tude"]),
        ("👩‍👩‍👧 x", ["👩‍👩‍👧", "x"]),
        ("a  b", ["a", "b"]),
        ("", []),
    ],
)
def test_words(text, expected):
    assert [text[start:end] for start, end in words(text)] == expected


@pytest.mark.parametrize("text", TEXTS)
def test_words_are_in_order_and_cover_all_but_white_space(text):
    spans = words(text)
    assert all(start < end for start, end in spans)
    assert all(before[1] <= after[0] for before, after in pairwise(spans))
    covered = {i for start, end in spans for i in range(start, end)}
    assert all(text[i].isspace() for i in range(len(text)) if i not in covered)


@pytest.mark.parametrize(
    ("text", "spans", "offsets", "expected"),
    [
        # a token with a leading space, as byte-level tokenizers make them; the space alone does not count
        ("born in Rome", [(8, 12)], [(0, 4), (4, 7), (7, 12)], [False, False, True]),
        ("born in Rome", [(5, 8)], [(0, 4), (4, 7), (7, 12)], [False, True, False]),
        # the space inside a span of two words makes no token unwanted
        ("New York", [(0, 8)], [(0, 3), (3, 4), (4, 8)], [True, False, True]),
        # a part of a word is enough, on either side
        ("unbelievable", [(2, 9)], [(0, 2), (2, 5), (5, 12)], [False, True, True]),
        ("unbelievable", [(4, 5)], [(0, 2), (2, 5), (5, 12)], [False, True, False]),
        # end of sequence stands for no text, wherever its empty offset is
        ("yes", [(0, 3)], [(0, 3), (3, 3), (1, 1)], [True, False, False]),
        # one Han character split into byte tokens of the same offset
        ("住在罗马", [(2, 4)], [(0, 2), (2, 3), (2, 3), (3, 4)], [False, True, True, True]),
        # an emoji of several code points, and a combining mark that is a token of its own
        ("👩‍👧 x", [(0, 3)], [(0, 1), (1, 2), (2, 3), (3, 5)], [True, True, True, False]),
        ("e\u0301t", [(0, 2)], [(0, 1), (1, 2), (2, 3)], [True, True, False]),
        # no-break space is white space too
        ("a\u00a0b", [(1, 2)], [(0, 1), (1, 2), (2, 3)], [False, False, False]),
        # spans in any order, touching, empty and repeated
        ("abc def", [(4, 7), (0, 1), (2, 2), (0, 1)], [(0, 3), (3, 7)], [True, True]),
        ("abc", [], [(0, 3)], [False]),
        ("", [], [(0, 0)], [False]),
    ],
)
def test_project(text, spans, offsets, expected):
    assert project(text, spans, offsets) == expected


def random_ranges(generator, length, count):
    return [tuple(sorted((generator.randint(0, length), generator.randint(0, length)))) for _ in range(count)]


@pytest.mark.parametrize("text", TEXTS)
def test_project_equals_the_definition(text):
    generator = random.Random(0)
    for _ in range(50):
        spans = random_ranges(generator, len(text), 3)
        offsets = random_ranges(generator, len(text), 5)
        expected = [
            any(not text[i].isspace() for a, b in spans for i in range(max(start, a), min(end, b)))
            for start, end in offsets
        ]
        assert project(text, spans, offsets) == expected


@pytest.mark.parametrize("bad", [(-1, 2), (2, 1), (0, 4), (4, 4)])
def test_ranges_outside_the_text(bad):
    with pytest.raises(ValueError, match="outside the answer of 3 characters"):
        project("abc", [bad], [(0, 3)])
    with pytest.raises(ValueError, match="outside the answer of 3 characters"):
        project("abc", [(0, 3)], [bad])


@pytest.mark.parametrize(
    ("text", "scored", "offsets", "expected"),
    [
        # one word a token; the space in front of a token has no score
        ("in Rome", [(0, 2, 0.25), (3, 7, 0.75)], [(0, 2), (2, 7)], [0.25, 0.75]),
        # a token over two words has the higher score, a word over two tokens gives both its own
        ("New York", [(0, 3, 0.9), (4, 8, 0.2)], [(0, 8)], [0.9]),
        ("unbelievable", [(0, 12, 0.4)], [(0, 2), (2, 12)], [0.4, 0.4]),
        # end of sequence stands for no text, and white space for no word
        ("a b", [(0, 1, 1.0), (2, 3, 0.5)], [(0, 1), (1, 2), (2, 3), (3, 3)], [1.0, 0.0, 0.5, 0.0]),
        # words in any order, one without a row, and none at all
        ("a b c", [(4, 5, 0.3), (0, 1, 0.1)], [(0, 1), (1, 3), (3, 5)], [0.1, 0.0, 0.3]),
        ("abc", [], [(0, 3)], [0.0]),
        ("", [], [(0, 0)], [0.0]),
        # one Han character split into byte tokens of the same offset
        ("住在", [(0, 1, 0.2), (1, 2, 0.8)], [(0, 1), (1, 2), (1, 2)], [0.2, 0.8, 0.8]),
    ],
)
def test_soften(text, scored, offsets, expected):
    assert soften(text, scored, offsets) == expected


@pytest.mark.parametrize("text", TEXTS)
def test_soften_equals_the_definition_and_agrees_with_project(text):
    """The highest score of a word that shares a non-space character with the token; for 0 and 1 it is `project`."""
    generator = random.Random(1)
    for _ in range(30):
        found = words(text)
        scored = [(start, end, generator.random()) for start, end in found]
        offsets = random_ranges(generator, len(text), 5)
        expected = [
            max((s for a, b, s in scored for i in range(max(x, a), min(y, b)) if not text[i].isspace()), default=0.0)
            for x, y in offsets
        ]
        assert soften(text, scored, offsets) == expected
        flags = [(a, b, float(s > 0.5)) for a, b, s in scored]
        marked = project(text, [(a, b) for a, b, flag in flags if flag], offsets)
        assert soften(text, flags, offsets) == [float(flag) for flag in marked]


@pytest.mark.parametrize("bad", [(-1, 2), (2, 1), (0, 4), (4, 4)])
def test_soften_of_ranges_outside_the_text(bad):
    with pytest.raises(ValueError, match="outside the answer of 3 characters"):
        soften("abc", [(*bad, 0.5)], [(0, 3)])
    with pytest.raises(ValueError, match="outside the answer of 3 characters"):
        soften("abc", [(0, 3, 0.5)], [bad])


def test_overlapping_is_one_flag_a_word():
    text = "Anna, born in New York"
    # The second span, "ew ", ends before York.
    assert overlapping(text, [(4, 6), (15, 18)]) == [False, True, False, False, True, False]


@pytest.mark.parametrize(
    ("text", "expected"), [("...", True), ("", True), ("—’", True), ("a.", False), ("7", False), ("作", False)]
)
def test_is_punctuation(text, expected):
    assert is_punctuation(text) is expected


def test_word_rows():
    rows = word_rows("forget/0001", "Hi you", [False, True], [0.25, 1.0])
    assert rows == [
        {"sample_id": "forget/0001", "start": 0, "end": 2, "text": "Hi", "unwanted": False, "score": 0.25},
        {"sample_id": "forget/0001", "start": 3, "end": 6, "text": "you", "unwanted": True, "score": 1.0},
    ]
    with pytest.raises(ValueError, match="zip"):
        word_rows("forget/0001", "Hi you", [True], [1.0])


def test_span_rows_mark_the_words_that_a_span_touches():
    rows = span_rows("forget/0001", "Hi you.", [(4, 5)])
    assert [(row["text"], row["unwanted"], row["score"]) for row in rows] == [
        ("Hi", False, 0.0), ("you", True, 1.0), (".", False, 0.0)
    ]  # fmt: skip
