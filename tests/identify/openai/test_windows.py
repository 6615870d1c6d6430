"""Windows of long answers, and the estimate of tokens."""

import random
from itertools import pairwise

import pytest

from tif.identify.openai.windows import count_tokens, sentences, windows
from tif.words import words


@pytest.mark.parametrize(
    ("text", "tokens"), [("", 0), ("abcd", 1), ("abcde", 2), ("小说", 2), ("小说 abc", 3), ("كتاب", 2)]
)
def test_tokens(text, tokens):
    assert count_tokens(text) == tokens


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two! Three?", ["One. ", "Two! ", "Three?"]),
        ('He said "No." Then 3.5 left.', ['He said "No." ', "Then 3.5 left."]),
        ("她写。他读！谁？", ["她写。", "他读！", "谁？"]),
        ("ماذا؟ نعم.", ["ماذا؟ ", "نعم."]),
        ("a = 1\nb = 2\n\nc", ["a = 1\n", "b = 2\n\n", "c"]),
        ("no end", ["no end"]),
        ("", []),
    ],
)
def test_sentences(text, expected):
    assert [text[a:b] for a, b in sentences(text)] == expected


def test_windows_by_hand():
    """Sentences of 2 tokens each (8 bytes); 3 fit into 6 tokens, 1 is repeated."""
    text = "".join(f"Word {n}. " for n in range(7))
    assert [text[a:b] for a, b in windows(text, 6, 2)] == [
        "Word 0. Word 1. Word 2. ",
        "Word 2. Word 3. Word 4. ",
        "Word 4. Word 5. Word 6. ",
    ]
    assert [text[a:b] for a, b in windows(text, 6, 0)] == [text[:24], text[24:48], text[48:]]
    assert windows(text, 14, 2) == [(0, 56)]


@pytest.mark.parametrize("seed", range(20))
def test_windows_cover_the_text_within_the_budget_and_never_cut_a_word(seed):
    chance = random.Random(seed)
    pieces = ["word ", "longerword ", "小", "stop. ", "quoi? ", "\n", "。", "x" * 30 + " "]
    text = "".join(chance.choice(pieces) for _ in range(400))
    budget, overlap = chance.randint(50, 90), chance.randint(0, 49)
    found = windows(text, budget, overlap)
    assert found[0][0] == 0 and found[-1][1] == len(text)
    starts = {a for a, _ in words(text)} | {0}
    for (start, end), (following, reach) in pairwise(found):
        assert start < following <= end < reach and following in starts
        assert count_tokens(text[following:end]) <= overlap
    assert all(count_tokens(text[a:b]) <= budget for a, b in found)


def test_a_word_above_the_budget_stays_whole():
    text = "ab " + "y" * 1000 + " cd"
    assert [text[a:b] for a, b in windows(text, 50, 10)] == ["ab ", "y" * 1000 + " ", "cd"]
